// The queue of checks: what operators order, and by itself the newest unchecked snapshot of each database; and drills of stored snapshots
// when nothing else is to be done.
//
// A snapshot is written to a scratch file, every byte proven against its root digest, and SQLite's checks read that file in the helper
// process without rights; the verdict is recorded with the snapshot. One check runs at a time, ordered ones first. Ordered checks are
// operations in the catalog and survive a restart; automatic ones are found again from the snapshots' own state (pending). Of automatic
// ones at most one waits for a database: an older one becomes superseded. A drill is the same with the time that the restore took; drills
// that are due (SnapshotCatalog::DrillsDue) begin only while no check may begin, so they delay one by a drill at most.
//
// Thread safety: all members may be called from any thread. Ownership: borrows everything, which must outlive it. Cancel takes effect
// within 2 s, also for checks that wait. The destructor ends the check that runs; it is begun anew after the next start.
// Errors of an operation: SNAPSHOT_DAMAGED, CHUNK_DAMAGED, CHUNK_MISSING, ROOT_MISMATCH (kDataLoss), CHECK_FAILED, CHECK_TIMEOUT,
// NOT_ENOUGH_SPACE, SNAPSHOT_NOT_FOUND, CANCELLED.
#ifndef LITEFLEET_CONTROLLER_VERIFY_SNAPSHOT_VERIFIER_H_
#define LITEFLEET_CONTROLLER_VERIFY_SNAPSHOT_VERIFIER_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/check/checker.h"
#include "controller/catalog/snapshot_catalog.h"
#include "controller/fleet/fleet.h"
#include "controller/restore/snapshot_reader.h"
#include "controller/verify/verifier.h"

namespace litefleet::verify {

struct VerifierOptions {
  std::string scratch;                                    // DATA/scratch: emptied at start
  uint64_t reserve_bytes = 256 << 20;                     // of free space that no copy may take
  std::chrono::milliseconds settle{5'000};                // after a commit, before its check begins: a newer one often follows
  std::chrono::milliseconds continuous_every{3'600'000};  // of continuous capture: one check of each database at most
  int nice = 10;                                          // of the thread and the helper process
  int automatic_percent = 50;  // of the time that automatic checks and drills may take: between them there is a rest
  std::chrono::milliseconds drill_every = std::chrono::hours(24 * 7);         // the newest snapshot of each database
  std::chrono::milliseconds drill_older_every = std::chrono::hours(24 * 90);  // the others
  std::chrono::milliseconds drill_look{60'000};                               // how often by itself, for drills that are due
  size_t max_waiting = 10'000;                                                // of automatic checks
  check::Checker::Options check;
};

// What was committed, for the turn of its check.
enum class Automatic {
  kBackup,
  kContinuous,  // when the hour of its database is over
  kPart,        // of a database: beside the whole snapshots, none of which it replaces
};

class SnapshotVerifier final : public Verifier {
 public:
  SnapshotVerifier(fleet::Fleet& fleet, catalog::SnapshotCatalog& snapshots, restore::SnapshotReaderFactory& readers, const Clock& clock,
                   VerifierOptions options);
  ~SnapshotVerifier() override;
  SnapshotVerifier(const SnapshotVerifier&) = delete;
  SnapshotVerifier& operator=(const SnapshotVerifier&) = delete;

  // Empties the scratch place, takes up what a former run of the controller left, and begins to work. Once, before the server listens.
  absl::Status Begin();

  absl::StatusOr<v1::Operation> Start(const SnapshotId& snapshot, const std::string& request_id, const std::string& ordered_by) override;
  absl::StatusOr<v1::Operation> StartDrill(const SnapshotId& snapshot, const std::string& request_id,
                                           const std::string& ordered_by) override;
  // A snapshot was committed: it is the one to check of its database now, or if it is one of continuous capture when its time has come.
  void Committed(const SnapshotId& snapshot, const DeviceId& device, const std::string& database, Automatic kind = Automatic::kBackup);

  // Checks that wait or run.
  size_t waiting() const;

 private:
  struct Job {
    std::optional<v1::Operation> operation;  // unset: automatic
    SnapshotId snapshot;
    DeviceId device;
    std::string database;
    std::chrono::steady_clock::time_point not_before{};
    std::shared_ptr<CancelToken> cancel = std::make_shared<CancelToken>();
    bool marked_pending = false;
    bool drill = false;
  };
  struct Verdict {
    v1::CheckState state = v1::CHECK_STATE_UNSPECIFIED;  // unspecified: none was reached
    std::string message;
    absl::Status status;
    std::chrono::milliseconds restore{0};
  };

  void Work();
  // What may begin now; nothing: it has waited until something may, or a drill may be due.
  std::optional<Job> Next(std::chrono::steady_clock::time_point rest_until);
  absl::StatusOr<v1::Operation> Order(v1::OperationKind kind, const SnapshotId& snapshot, const std::string& request_id,
                                      const std::string& ordered_by);
  // Orders the drill that is due first, if any is.
  void OrderDueDrill();
  void RunJob(Job job);
  Verdict Check(Job& job, const v1::Snapshot& snapshot);
  Verdict CheckFiles(Job& job, int64_t size);
  void Report(Job& job, std::string_view phase, int64_t done, int64_t total);
  void End(Job& job, const absl::Status& status);
  // Ends what was cancelled while it waited. Called often by the thread that checks.
  void EndCancelledOnes();
  void Enqueue(Job job);
  bool MarkPending(const v1::Snapshot& snapshot);
  absl::Status TakeUpFormerRun();
  bool stopping() const;

  fleet::Fleet& fleet_;
  catalog::SnapshotCatalog& snapshots_;
  restore::SnapshotReaderFactory& readers_;
  const Clock& clock_;
  const VerifierOptions options_;
  const check::Checker checker_;

  mutable Mutex mu_;
  CondVar wake_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  bool running_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<Job> ordered_ ABSL_GUARDED_BY(mu_);
  std::list<Job> automatic_ ABSL_GUARDED_BY(mu_);                                                              // one a database
  std::map<std::pair<std::string, std::string>, std::list<Job>::iterator> automatic_of_ ABSL_GUARDED_BY(mu_);  // by device and database
  // When an automatic check of a database began last, for continuous ones: as many as databases were checked in the last hour.
  std::map<std::pair<std::string, std::string>, std::chrono::steady_clock::time_point> checked_ ABSL_GUARDED_BY(mu_);
  // Until when the worker sleeps: who comes later need not wake it, since it goes through all that wait.
  std::chrono::steady_clock::time_point looks_again_ ABSL_GUARDED_BY(mu_) = std::chrono::steady_clock::time_point::max();
  std::chrono::steady_clock::time_point rests_until_ ABSL_GUARDED_BY(mu_){};  // no automatic check before
  std::set<std::string> known_ ABSL_GUARDED_BY(mu_);                          // operations in ordered_ or running
  std::chrono::steady_clock::time_point next_report_{};                       // the worker's
  // The worker's.
  std::chrono::steady_clock::time_point drills_looked_at_{};
  std::map<std::string, SystemTime> not_drilled_;  // snapshots whose drill gave no verdict, and when
  std::thread worker_;
};

}  // namespace litefleet::verify

#endif  // LITEFLEET_CONTROLLER_VERIFY_SNAPSHOT_VERIFIER_H_
