// Scrub: re-reads the packs at a limited rate, those that were never proven first, the newest of them before the others.
//
// A run is an operation (kind SCRUB, without a device) that can be watched and cancelled; it goes over every pack that is due. Bad chunks
// are quarantined, and every snapshot that needs one is marked as damaged. When a quarantined chunk arrives again with a backup, Heal
// finds the snapshots that are whole again. A run that was interrupted by the end of the process is taken up at the next start; packs that
// it had proven are proven.
//
// Thread safety: all members may be called from any thread. Ownership: borrows everything. The destructor ends the run.
// Errors of an operation: DAMAGE_FOUND (kDataLoss: chunks were quarantined; nothing else failed), CANCELLED, those of the store.
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

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "controller/catalog/scrub_catalog.h"
#include "controller/fleet/fleet.h"
#include "controller/scrub/pack_scrubber.h"

namespace litefleet::scrub {

struct ScrubberOptions {
  int64_t bytes_per_second = 50 << 20;  // of packs; 0: as fast as it goes
  std::chrono::hours every{24 * 30};    // a proven pack is due again
  std::chrono::hours look_every{24};    // by itself, for packs that are due
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
  // Over all packs, also those that were proven lately; `unlimited`: without regard to the rate. kFailedPrecondition SCRUB_RUNNING.
  absl::StatusOr<v1::Operation> Start(bool unlimited, const std::string& request_id, const std::string& ordered_by);
  // A snapshot was committed: quarantined chunks may have come with it.
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
  };
  absl::StatusOr<Report> Run(bool all, bool unlimited, const CancelToken& cancel,
                             const std::function<void(uint64_t done, uint64_t total)>& progress);
  // Snapshots that are whole again since chunks came back; how many.
  absl::StatusOr<int> Heal();

 private:
  struct Job {
    v1::Operation operation;
    bool all = false;
    bool unlimited = false;
    std::shared_ptr<CancelToken> cancel = std::make_shared<CancelToken>();
  };
  void Work();
  void RunJob(Job job);
  absl::StatusOr<v1::Operation> Enqueue(bool all, bool unlimited, const std::string& request_id, const std::string& ordered_by);
  absl::StatusOr<std::vector<store::PackInfo>> DuePacks(bool all) const;
  // Marks the snapshots that need one of these.
  absl::StatusOr<uint64_t> MarkDamaged(const std::vector<catalog::ScrubCatalog::PlacedChunk>& bad, std::span<const int64_t> ids);
  absl::StatusOr<bool> IsWhole(const SnapshotId& snapshot);
  bool stopping() const;

  fleet::Fleet& fleet_;
  store::Store& store_;
  const catalog::IngestCatalog& chunks_;
  catalog::ScrubCatalog& catalog_;
  const NeededChunks needed_;
  const Clock& clock_;
  const ScrubberOptions options_;
  std::atomic<bool> committed_{true};

  mutable Mutex mu_;
  CondVar wake_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  bool busy_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<Job> job_ ABSL_GUARDED_BY(mu_);  // waits
  std::thread worker_;
};

}  // namespace litefleet::scrub

#endif  // LITEFLEET_CONTROLLER_SCRUB_SCRUBBER_H_
