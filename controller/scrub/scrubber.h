// Scrub: re-reads the packs at a limited rate, those that were never proven first, the newest of them before the others.
//
// A run is an operation (kind SCRUB, without a device) that can be watched and cancelled; it goes over every pack that is due. Bad chunks
// are quarantined; every snapshot that needs one is marked as damaged, and its database wants the chunk (heal/healer). That is owed to a
// quarantined chunk until it is done, also after a cancel or a crash. When a quarantined chunk arrives again, Heal finds the snapshots
// that are whole again. A run that was interrupted by the end of the process is taken up at the next start with the packs that are left.
//
// The record of a snapshot that cannot be read is written anew out of the catalog's row (crash point scrub.after_record_write): a rebuild
// would not know of the snapshot without it. Of other records nothing but marks are of use to a rebuild alone, and those stand twice.
//
// Thread safety: all members may be called from any thread. Ownership: borrows everything. The destructor ends the run.
// Errors of an operation: DAMAGE_FOUND (kDataLoss: chunks were quarantined or records written anew; nothing else failed), CANCELLED, those
// of the store.
#ifndef LITEFLEET_CONTROLLER_SCRUB_SCRUBBER_H_
#define LITEFLEET_CONTROLLER_SCRUB_SCRUBBER_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "controller/catalog/scrub_catalog.h"
#include "controller/fleet/fleet.h"
#include "controller/scrub/pack_scrubber.h"

namespace litefleet::scrub {

struct ScrubTime {
  SystemTime time;
  bool on_hold = false;  // a clock has jumped: nothing is due by itself
};

struct ScrubberOptions {
  int64_t bytes_per_second = 50 << 20;  // of packs; 0: as fast as it goes
  std::chrono::hours every{24 * 30};    // a proven pack is due again
  std::chrono::hours look_every{24};    // by itself, for packs that are due
  // The controller's own time, by which packs are due (retention/controller_time); empty: the clock's.
  std::function<absl::StatusOr<ScrubTime>()> now = {};
  std::function<void(std::chrono::nanoseconds)> wait = [](std::chrono::nanoseconds time) { std::this_thread::sleep_for(time); };
};

// Calls `visit` for all chunks that a reader of the snapshot needs (manifest/manifest_reader).
using NeededChunks =
    std::function<absl::Status(const SnapshotId&, const std::function<absl::Status(std::span<const format::ChunkName>)>& visit)>;

class Scrubber {
 public:
  Scrubber(fleet::Fleet& fleet, store::Store& store, const catalog::IngestCatalog& chunks, catalog::ScrubCatalog& catalog,
           NeededChunks needed, const Clock& clock, ScrubberOptions options);
  ~Scrubber();
  Scrubber(const Scrubber&) = delete;
  Scrubber& operator=(const Scrubber&) = delete;

  // Takes up what a former run of the controller left. Once, before the server listens.
  absl::Status Begin();
  // Over all packs, also those that were proven lately. `bytes_per_second`: instead of the configured rate; 0: no limit.
  // The same request_id is the same operation. Errors: kFailedPrecondition SCRUB_RUNNING.
  absl::StatusOr<v1::Operation> Start(std::optional<int64_t> bytes_per_second, const std::string& request_id,
                                      const std::string& ordered_by);
  // After every run, and whenever marks were made: on the worker's thread, once, before Begin.
  void OnMarked(std::function<void()> call) { on_marked_ = std::move(call); }
  // A snapshot was committed, or a device has answered: quarantined chunks may have come with it.
  void Committed() {
    committed_ = true;
    MutexLock lock(mu_);
    wake_.SignalAll();
  }

  // What one run does, on the calling thread: for tests and benchmarks.
  struct Report {
    uint64_t packs = 0;
    uint64_t stored_bytes = 0;
    uint64_t logical_bytes = 0;
    uint64_t chunks_quarantined = 0;
    uint64_t snapshots_damaged = 0;
    uint64_t records_rewritten = 0;
    uint64_t damaged_bytes = 0;  // of what was read, also what was known before
  };
  struct Scope {
    bool all = true;                               // else those that are due
    SystemTime proven_before = SystemTime::max();  // of all: a run that goes on leaves out what it has proven
    int64_t bytes_per_second = 0;
  };
  // Where it fails or is cancelled, `report` says what was done until then.
  absl::Status Run(const Scope& scope, const CancelToken& cancel, Report& report,
                   const std::function<void(uint64_t done, uint64_t total)>& progress);
  // Marks what needs chunks that were quarantined and not looked at yet; how many snapshots.
  absl::StatusOr<uint64_t> MarkDue(const std::function<bool()>& stop);
  // Snapshots that are whole again since chunks came back; how many.
  absl::StatusOr<int> Heal();

 private:
  struct Job {
    v1::Operation operation;
    bool goes_on = false;  // after a restart
    std::shared_ptr<CancelToken> cancel = std::make_shared<CancelToken>();
  };
  void Work();
  void RunJob(Job job);
  absl::StatusOr<v1::Operation> Enqueue(int64_t bytes_per_second, const std::string& request_id, const std::string& ordered_by);
  struct DueList {
    std::vector<store::PackInfo> packs;
    uint64_t left_out_bytes = 0;  // of those that this run had proven before
  };
  absl::StatusOr<DueList> DuePacks(const Scope& scope) const;
  // Marks the snapshots of the device that need one of these, and has their databases want it.
  absl::StatusOr<uint64_t> MarkSnapshotsOf(const DeviceId& device, const absl::flat_hash_map<format::ChunkName, int64_t>& chunks,
                                           const std::function<bool()>& stop);
  absl::StatusOr<bool> IsWhole(const SnapshotId& snapshot);
  // How many.
  absl::StatusOr<uint64_t> WriteAnew(const std::vector<catalog::ScrubCatalog::PlacedRecord>& records);
  bool stopping() const;
  absl::StatusOr<ScrubTime> Now() const;

  fleet::Fleet& fleet_;
  store::Store& store_;
  const catalog::IngestCatalog& chunks_;
  catalog::ScrubCatalog& catalog_;
  const NeededChunks needed_;
  const Clock& clock_;
  const ScrubberOptions options_;
  std::function<void()> on_marked_;
  std::atomic<bool> committed_{true};

  mutable Mutex mu_;
  CondVar wake_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::string running_ ABSL_GUARDED_BY(mu_);     // id of the operation that waits or runs; empty: none
  std::optional<Job> job_ ABSL_GUARDED_BY(mu_);  // waits
  std::thread worker_;
};

}  // namespace litefleet::scrub

#endif  // LITEFLEET_CONTROLLER_SCRUB_SCRUBBER_H_
