// What receives backups: the uploads that run, their limits, and what they share.
//
// Thread safety: all members may be called from any thread. Ownership: borrows everything in IngestDeps, which must outlive it; uploads
// hold a reference to it, so they must have ended before it goes (the server cancels the streams first).
#ifndef LITEFLEET_CONTROLLER_INGEST_INGEST_H_
#define LITEFLEET_CONTROLLER_INGEST_INGEST_H_

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/executor.h"
#include "common/base/ids.h"
#include "common/base/mutex.h"
#include "common/format/extent.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/ingest/scratch.h"
#include "controller/manifest/digest_cache.h"
#include "controller/store/store.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::ingest {

struct IngestLimits {
  int64_t window_bytes = 32 << 20;         // payload that a device may send before it is durable; costs no memory
  int64_t receive_window_bytes = 2 << 20;  // the same before it was taken out of its stream: may be in memory, one for each upload
  int64_t mark_bytes = 8 << 20;            // payload after which what was received is made durable
  size_t mark_chunks = 4096;               // the same, in chunks
  // Sooner after one mark the next comes after twice mark_bytes: a fast upload does not sync all the time, a slow one repeats little.
  std::chrono::milliseconds mark_pause{0};
  uint32_t max_offered_chunks = 1024;    // told to the device
  size_t max_expected_chunks = 65536;    // answered as missing and not yet received: about 100 bytes each
  int64_t in_flight_bytes = 3 << 20;     // payload of one upload that waits for verification
  size_t entries_per_part = 4096;        // of the manifest; about 50 bytes each where it is stored, 300 in memory
  size_t digest_cache_bytes = 32 << 20;  // page digests of chunks, for all uploads together
  uint64_t max_database_bytes = 16ull << 40;
  size_t max_uploads = 256;                      // at once
  std::chrono::hours session_life{24 * 7};       // of an upload that nobody continues
  std::chrono::hours sync_life{6};               // the same, of a sync of continuous capture
  std::chrono::milliseconds replace_wait{5000};  // of a newer stream of a session, for the older one to end

  // Below it a device could not be held to its window: it is told of so much together (UploadReceived), and sends as much untold.
  static constexpr int64_t kSmallestWindow = 64 << 10;
  // What is under way in a stream whatever its window: what was not told, and one chunk that fits into no window.
  static constexpr int64_t kAlwaysUnderWay = kSmallestWindow + format::kExtentBytes;
  // The windows of so many uploads take half of what gRPC may have for all connections: at all of it streams of everybody would end.
  // False, and a warning in the log: what may be under way whatever the windows is more than that already.
  bool ShareReceiveWindow(int64_t connection_bytes, int uploads);
};

struct CommittedSnapshot {
  SnapshotId snapshot;
  DeviceId device;
  std::string database;
  v1::Method method = v1::METHOD_UNSPECIFIED;
  bool part = false;  // it holds a part of the database only
};

struct DeviceContact {
  int64_t clock_offset_ms = 0;             // controller time minus device time, as measured at hello; 0 where unknown
  std::optional<SystemTime> heard_before;  // last, before it connected this time
};

inline constexpr SystemTime kNoClockBefore{std::chrono::seconds(1'735'689'600)};  // 2025: no clock that was set says less

// The controller's own time (retention/controller_time): it never goes back, and follows no clock that has jumped.
struct ControllerNow {
  SystemTime time;
  bool on_hold = false;  // a clock has jumped: nothing expires
};

struct IngestDeps {
  store::Store& store;
  catalog::IngestCatalog& catalog;
  const Clock& clock;
  // Runs uploads: they block for disk and catalog. 16 threads or more, so that many commits share an fsync.
  Executor& session_executor;
  // Decompresses, hashes and writes: as many threads as cores. Never blocks but for the page cache.
  Executor& verify_executor;
  // What is known of the device's clock and connection; may be empty.
  std::function<DeviceContact(const DeviceId&)> contact;
  // Whether the device may store more; an error refuses the upload. `goes_on`: one that has begun. May be empty.
  std::function<absl::Status(const DeviceId&, bool goes_on)> check_quota = nullptr;
  // What receipts are stamped with and expiry goes by; empty: the clock's time, whatever it says.
  std::function<absl::StatusOr<ControllerNow>()> now = nullptr;
  // After a commit, on an executor's thread, once a snapshot; may be empty.
  std::function<void(const CommittedSnapshot&)> on_committed;
};

// Where an upload's answers go. Both may be called from any thread, also concurrently; neither blocks nor calls back.
class UploadSink {
 public:
  virtual ~UploadSink() = default;
  virtual void Send(const v1::UploadResponse& response) = 0;
  // The upload has ended: OK after `committed`. Called once at most, and nothing is sent afterwards.
  virtual void Close(const absl::Status& status) = 0;
  // The last answer, and OK, as Send and Close.
  virtual void CloseWith(const v1::UploadResponse& response) {
    Send(response);
    Close(absl::OkStatus());
  }
  // Where what is uploaded is no backup but a file that an operator brought: what it was, and who brought it, for people. Its times are the
  // controller's, and IngestDeps::on_committed is not told of the snapshot. A device has no word for this, so that nothing that comes over
  // the wire can be taken for an import. Constant.
  virtual std::string provenance() const { return {}; }
};

class UploadSession;

class Ingest {
 public:
  Ingest(IngestDeps deps, IngestLimits limits);
  ~Ingest();
  Ingest(const Ingest&) = delete;
  Ingest& operator=(const Ingest&) = delete;

  // Errors: kUnavailable TOO_MANY_UPLOADS.
  absl::StatusOr<std::shared_ptr<UploadSession>> NewUpload(const DeviceId& device, std::shared_ptr<UploadSink> sink);

  // Removes upload sessions past their expiry, but while time is on hold only those that were cancelled: at start and once a minute.
  absl::Status Maintain();
  // Uploads that run now.
  size_t uploads() const;

  // ---- for UploadSession
  const IngestDeps& deps() const { return deps_; }
  const IngestLimits& limits() const { return limits_; }
  absl::StatusOr<ControllerNow> Now() const;
  // As Maintain, this session alone (UploadSessionRow.id), where it was not committed. `alone`: no newer stream has it; then it goes also
  // where nothing of it is durable.
  absl::Status RemoveIfOver(int64_t session, bool alone);
  manifest::DigestCache& digests() { return digests_; }
  Scratch<OpenScratch>& to_open() { return to_open_; }
  Scratch<WriteScratch>& to_write() { return to_write_; }
  // Changes with every commit of the database, with those of some others, and where sessions past their expiry may have been removed: what
  // was read of it before is still so where this is.
  uint64_t commits(const DeviceId& device, const std::string& database) const;
  // One stream a session: a newer one ends the older one, and waits (limits.replace_wait at most) until it has.
  void Register(const SessionId& id, const std::shared_ptr<UploadSession>& session);
  void Unregister(const SessionId& id, UploadSession* session);
  bool IsRegistered(const SessionId& id, const UploadSession* session) const;
  // One commit a database at a time, so that a sequence number can be written before it is committed.
  void BeginCommit(int64_t database);
  void EndCommit(int64_t database, const DeviceId& device, const std::string& name);
  void UploadEnded();

 private:
  // Before sessions are removed: one that begins afterwards has not expired.
  void NoteRemoval();

  const IngestDeps deps_;
  const IngestLimits limits_;
  manifest::DigestCache digests_;
  Scratch<OpenScratch> to_open_;
  Scratch<WriteScratch> to_write_;
  mutable Mutex mu_;
  CondVar changed_;
  std::map<std::string, std::shared_ptr<UploadSession>> running_ ABSL_GUARDED_BY(mu_);
  std::set<int64_t> committing_ ABSL_GUARDED_BY(mu_);
  std::array<uint64_t, 4096> commits_ ABSL_GUARDED_BY(mu_){};  // by the hash of device and database
  uint64_t removals_ ABSL_GUARDED_BY(mu_) = 0;
  size_t uploads_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace litefleet::ingest

#endif  // LITEFLEET_CONTROLLER_INGEST_INGEST_H_
