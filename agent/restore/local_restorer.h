// Restores on this device: the state machine of README.md over fetch, staging, checks and the three ways to apply.
//
// Thread safety: as Restorer; several databases may be restored at once. What it keeps across restarts is in Options::state_folder.
//
// Errors of Run (reason, code):
//   PUSH_RESTORE_DENIED   kPermissionDenied    the device's configuration does not let the controller restore this database
//   ORDER_INVALID         kInvalidArgument     sizes, root digest or version make no sense
//   TARGET_EXISTS, TARGET_MISSING, LEFTOVER_CAME, TARGET_NOT_OPENABLE, PAGE_SIZE_DIFFERS, IN_USE, CANNOT_PROVE_UNUSED, NO_HARD_LINKS
//   kFailedPrecondition FILE_REPLACED         kFailedPrecondition  somebody has put a link, or another file, at the path while the restore
//   ran NOT_ENOUGH_SPACE      kResourceExhausted   DISK_FULL where it came as a surprise ROOT_MISMATCH, CHUNK_DAMAGED, FETCH_INVALID,
//   SNAPSHOT_DAMAGED (SQLite's checks), READ_BACK_DIFFERS   kDataLoss CHECK_FAILED          kInternal            the checks could not be
//   carried out FETCH_STALLED         kUnavailable         the controller could not be reached for long DATABASE_BUSY         kUnavailable
//   the lock of a live target was not to be had HOOK_FAILED           kFailedPrecondition  before: nothing was changed; after: the previous
//   state is back, or the message says why not RESTORE_OUTCOME_UNKNOWN                    a crash, and then neither the snapshot nor the
//   previous state could be compared with the target CANCELLED             kCancelled
#ifndef LITEFLEET_AGENT_RESTORE_LOCAL_RESTORER_H_
#define LITEFLEET_AGENT_RESTORE_LOCAL_RESTORER_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/hooks/database_hooks.h"
#include "agent/restore/apply.h"
#include "agent/restore/progress_meter.h"
#include "agent/restore/restore_journal.h"
#include "agent/restore/restorer.h"
#include "common/base/clock.h"
#include "common/check/checker.h"

namespace litefleet::restore {

struct RestorerOptions {
  std::string state_folder;  // STATE/restore
  // Without a single extent for this long the fetch is given up.
  std::chrono::seconds fetch_patience{900};
  ApplyOptions apply;
  check::Checker::Options check;
  hooks::HookSource hooks = {};  // called from the threads that restore
  // What the pace of progress goes by.
  ProgressMeter::Time now = &std::chrono::steady_clock::now;
};

class LocalRestorer final : public Restorer {
 public:
  // `fetcher` outlives it.
  static absl::StatusOr<std::unique_ptr<LocalRestorer>> Open(RestorerOptions options, PageFetcher& fetcher);

  // REQUIRES: before the first Run, Undo or Recover.
  void SetHooks(hooks::HookSource hooks) { options_.hooks = std::move(hooks); }

  Outcome Run(const std::string& operation_id, const v1::RestoreOrder& order, const Target& target, const CancelToken& cancel,
              const std::function<void(const v1::Progress&)>& progress) override;
  absl::StatusOr<v1::RestorePlan> Plan(const v1::RestoreOrder& order, const Target& target) override;

  // Puts the state of before the last restore back; what it takes away is kept as the next undo. As Run otherwise. Errors: of undo.h too.
  Outcome Undo(const std::string& operation_id, const v1::UndoOrder& order, const Target& target, const CancelToken& cancel,
               const std::function<void(const v1::Progress&)>& progress);
  // Changes nothing.
  v1::RestorePlan PlanUndo(const v1::UndoOrder& order, const Target& target);

  // Of an operation that no Run will end any more: as Recover does it. Nothing where its target is as it was, or where nothing is known of
  // it. To be reported, then Forget. An interrupt of `stop` leaves the rest to another Settle, or to Run.
  std::optional<Outcome> Settle(const std::string& operation_id, const CancelToken& stop = {});
  // A run of it has begun, and it was not forgotten.
  bool HasBegun(const std::string& operation_id) const;
  // The outcome is durable elsewhere. One that was never run to its end is settled as Recover does; where its files cannot be reached they
  // are left for the next Recover.
  absl::Status Forget(const std::string& operation_id);

  struct Recovered {
    std::string operation_id;
    v1::RestoreOrder order;  // as far as it is known
    bool undo = false;
    Outcome outcome;
  };
  struct Recovery {
    std::vector<std::string> said;  // for the log
    std::vector<Recovered> ended;   // to be reported, then Forget
  };
  // At start, before the first Run, without the network: finishes what has reached its target, rolls everything else back, and removes its
  // files. Those in `active` will be finished by Run; one whose files cannot be reached stays for the next start, and so do all that an
  // interrupt of `stop` leaves. What was rolled back is forgotten: an order for it that comes again begins anew.
  Recovery Recover(const std::set<std::string>& active, const CancelToken& stop = {});

  // Undo states, for status and for the limit keep_previous.
  absl::StatusOr<std::vector<storage::v1::UndoRecord>> ListUndos() const { return journal_.ListUndos(); }
  // Removes the previous state of a database and gives its path; empty: nothing was kept. UNDO_SUPERSEDED where it is of another restore
  // than `restore_operation_id`, which may be empty; the errors of RemoveKept, and then the record stays. REQUIRES: no restore of this
  // database runs.
  absl::StatusOr<std::string> DropUndo(const std::string& database, const std::string& restore_operation_id = "");
  // DropUndo for all that are older, by the time that the machine has run (RestoreJournal::AgeOfUndo), and not `busy` with a restore.
  // Returns the databases.
  std::vector<std::string> DropUndosOlderThan(std::chrono::seconds age, const Clock& clock,
                                              const std::function<bool(const std::string&)>& busy);

 private:
  LocalRestorer(RestorerOptions options, PageFetcher& fetcher, RestoreJournal journal)
      : options_(std::move(options)), fetcher_(fetcher), journal_(std::move(journal)), checker_(options_.check) {}

  struct Settled {
    std::optional<Outcome> outcome;
    bool kept = false;  // its files could not be reached
  };
  Settled Settle(const storage::v1::RestoreState& state, const CancelToken& stop = {});

  RestorerOptions options_;  // constant once something runs
  PageFetcher& fetcher_;
  const RestoreJournal journal_;
  const check::Checker checker_;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_LOCAL_RESTORER_H_
