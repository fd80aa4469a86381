// One restore, from its order or from what a former run left on the disk, to its outcome: the table of steps of README.md.
//
// An undo is one whose staging file is the state that the last restore kept: it takes the same steps, and fetches nothing. A former run
// that was an undo goes on as one, whatever the caller says.
//
// An *abandoned* one is a restore that nobody wants to go on with (its order is lost, or the configuration does not allow it any more):
// it fetches nothing; what has reached the target is finished, everything else is rolled back.
// Thread safety: none. Ownership: borrows all that it is given.
#ifndef LITEFLEET_AGENT_RESTORE_RESTORE_SESSION_H_
#define LITEFLEET_AGENT_RESTORE_RESTORE_SESSION_H_

#include <sys/stat.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "agent/restore/apply.h"
#include "agent/restore/local_restorer.h"
#include "agent/restore/progress_meter.h"
#include "agent/restore/restore_journal.h"
#include "agent/restore/restorer.h"
#include "agent/restore/staging_file.h"
#include "agent/restore/staging_log.h"
#include "agent/restore/undo.h"
#include "common/base/status.h"
#include "common/check/checker.h"
#include "common/dump/dump_process.h"

namespace litefleet::restore {

class RestoreSession {
 public:
  struct Parts {
    const RestorerOptions& options;
    PageFetcher& fetcher;
    const RestoreJournal& journal;
    const check::Checker& checker;
  };
  RestoreSession(const Parts& parts, const std::string& operation_id, const v1::RestoreOrder& order, const Target& target,
                 const CancelToken& cancel, const ProgressMeter::Report& report, const storage::v1::UndoRecord* undoes = nullptr);

  Outcome Run();
  // As Run, abandoned. Nothing where it was rolled back.
  std::optional<Outcome> Settle();
  // What it left could not be reached: the journal stays for the next start.
  bool kept() const { return kept_; }

 private:
  absl::Status Go();
  absl::Status Begin();
  absl::Status TakeUp(storage::v1::RestoreState before);
  absl::Status Continue();
  absl::Status ContinueLive(const absl::Status& staging);
  // What the target holds after an interrupted copy.
  absl::StatusOr<LiveDifference> LookAtCopy(const StagingFile& staging);
  absl::Status ContinueUndoing();
  // The previous state is back: of a live copy by its content, of a replacement by its name.
  absl::StatusOr<bool> IsUndone();
  absl::StatusOr<bool> IsTakenBack();
  absl::Status RollBack();
  // Of a step APPLYING that has not reached its target: what it, or a former run, has moved aside. The step is CHECKED again then.
  absl::Status PutAsideBack();
  absl::Status OpenStaging();
  // Of an undo: what takes the place of FetchAll, and what gives the kept state its name again.
  absl::Status TakeUndo();
  void PutUndoBack();
  bool IsRemoved(const std::optional<struct stat>& target) const;
  absl::Status FetchAll();
  absl::Status FetchRest();
  // From the database that is to be overwritten, and what differs from the controller.
  absl::Status FetchDifferences();
  // Makes an attempt as often as it may help, as long as `gained` grows.
  absl::Status Persist(const std::function<absl::Status()>& attempt, const std::function<uint64_t()>& gained);
  // SQL text becomes the database that it describes.
  absl::Status LoadText();
  // Chosen tables become a database of their own.
  absl::Status TakeTables();
  absl::StatusOr<io::UniqueFd> NewLoadFile();
  absl::StatusOr<int64_t> RoomToLoad() const;
  dump::HelperOptions Helper() const;
  absl::Status TakeLoaded(int fd);
  void UseLoaded();
  void ForgetLoaded();
  absl::Status Check();
  absl::Status Apply();
  absl::Status Finish();
  void CleanUp();
  // After an error: the target may hold the new state, and what is kept is the only copy of the previous one then.
  bool MayHaveReached() const;
  void RemoveStaging();
  // What the device runs before the database is changed, and afterwards, however that ended.
  absl::Status BeforeApply();
  absl::Status AfterApply(const absl::Status& ended);
  // What ran after the restore failed: the previous state comes back where nobody has committed since.
  absl::Status UndoAfterHook(const absl::Status& failed);
  // OTHERS_COMMITTED where the database holds anything else than what was restored.
  absl::Status CheckAsRestored(const CancelToken& cancel) const;
  void MakeHooks();
  void KeepHookRuns();
  absl::Status CheckCancelled() const;
  absl::Status Enter(storage::v1::RestoreStep step);
  // Always OK: the new state is in place.
  absl::Status EnterApplied();
  ApplyContext Context();
  std::string staging_name() const { return TargetPlace::StagingName(state_.operation_id()); }
  std::string load_name() const { return staging_name() + "-load"; }
  bool undoes() const { return state_.has_undoes(); }
  // Nothing was there before.
  bool removes() const { return undoes() && Removes(state_.undoes()); }
  bool live() const { return state_.mode() == v1::RESTORE_MODE_LIVE; }
  // What was copied stays until the hooks have run: by it is seen whether somebody has committed since.
  bool staging_outlasts_hooks() const { return live() && !undoes() && state_.hooks_begun(); }

  const Parts parts_;
  v1::RestoreOrder order_;                   // of what is in the staging file
  std::optional<v1::RestoreOrder> ordered_;  // as it came, where something was loaded
  const Target target_;
  const CancelToken& cancel_;
  const ProgressMeter::Report report_;
  format::RootDigest root_;
  ProgressMeter progress_;
  storage::v1::RestoreState state_;
  absl::Status abandoned_;  // why, if it is
  std::optional<TargetPlace> place_;
  std::unique_ptr<StagingFile> staging_;
  std::unique_ptr<hooks::DatabaseHooks> hooks_;  // null: none
  size_t hook_runs_kept_ = 0;
  std::unique_ptr<StagingLog> log_;  // while extents are fetched; null where it cannot be written
  uint32_t held_ = 0;                // extents that the staging file had before this run
  bool kept_ = false;
  bool resumed_ = false;  // a former run was interrupted
  absl::Status read_back_;
  bool put_back_ = false;  // the previous state, where the read-back had found a difference
};

// Of the undo that follows where what runs after a restore failed: part of that restore, never reported by itself.
std::string HookUndoId(const std::string& operation_id);
bool IsHookUndo(const std::string& operation_id);

// What DONE recorded.
Outcome OutcomeOf(const storage::v1::RestoreState& state);

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_RESTORE_SESSION_H_
