// What the device itself runs around the change of a database, and the undo that follows where that fails.
#include <algorithm>
#include <chrono>
#include <vector>

#include "agent/restore/in_use.h"
#include "agent/restore/page_stream.h"
#include "agent/restore/restore_session.h"
#include "common/base/crash_point.h"
#include "common/format/extent.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;

std::string StateWord(const absl::Status& status) {
  if (status.ok()) return "succeeded";
  return absl::IsCancelled(status) ? "cancelled" : "failed";
}

}  // namespace

void RestoreSession::MakeHooks() {
  if (hooks_ != nullptr) return;
  hooks_ = parts_.options.hooks({state_.operation_id(), state_.database(), state_.path(), undoes() ? "undo" : "restore"});
}

absl::Status RestoreSession::BeforeApply() {
  if (!parts_.options.hooks) return absl::OkStatus();
  MakeHooks();
  if (hooks_ == nullptr || hooks_->none()) return absl::OkStatus();
  LF_RETURN_IF_ERROR(CheckCancelled());
  progress_.Begin("running hooks", 80, 80);
  state_.set_hooks_begun(true);
  LF_RETURN_IF_ERROR(parts_.journal.Save(state_));
  LF_CRASH_POINT("restore.hook.begun");
  const absl::Status ran = hooks_->Before(cancel_);
  KeepHookRuns();
  LF_CRASH_POINT("restore.hook.before_ran");
  return ran;
}

void RestoreSession::KeepHookRuns() {
  // Those of before a crash are in the state already.
  const auto& runs = hooks_->runs();
  for (; hook_runs_kept_ < runs.size(); ++hook_runs_kept_) state_.add_hooks(runs[hook_runs_kept_].SerializeAsString());
}

absl::Status RestoreSession::AfterApply(const absl::Status& ended) {
  if (!parts_.options.hooks || !state_.hooks_begun()) return ended;
  if (place_.has_value() && state_.undoing_after_hook())
    return UndoAfterHook(Error(absl::StatusCode::kFailedPrecondition, "HOOK_FAILED", "the hook that runs after the restore failed"));
  MakeHooks();
  if (hooks_ == nullptr) return ended;  // none are configured any more
  // What is done stays done: a cancel came too late. The end of the program it hears all the same, and goes on at the next start.
  const CancelToken end = CancelToken::EndOf(cancel_);
  const CancelToken& cancel = ended.ok() ? end : cancel_;
  const absl::Status ran = hooks_->After(StateWord(ended), state_.snapshot_id(), cancel);
  if (absl::IsCancelled(ran) && cancel.interrupted()) return ran;
  KeepHookRuns();
  LF_CRASH_POINT("restore.hook.after_ran");
  if (ran.ok()) return ended;
  state_.add_steps(MessageOf(ran));
  if (!ended.ok()) return ended;
  // An undo is the last word: it is not undone for a hook.
  if (undoes()) return ran;
  return UndoAfterHook(ran);
}

// By the content, not by what the file system says of the files: between the commit and this moment lie the checkpoint of ours, a crash and
// the application's start, which change files without a commit of anybody's.
absl::Status RestoreSession::CheckAsRestored(const CancelToken& cancel) const {
  const absl::Status others = Error(Code::kAborted, "OTHERS_COMMITTED", "somebody has written to it since");
  // A live copy sets bytes of page 1, so that it has not the root of the snapshot.
  std::unique_ptr<StagingFile> copied;
  if (live()) {
    LF_ASSIGN_OR_RETURN(copied, StagingFile::Take(*place_, staging_name()));
  }
  const uint32_t page_size = copied != nullptr ? copied->page_size() : order_.page_size();
  const uint32_t page_count = copied != nullptr ? copied->page_count() : order_.page_count();
  LF_ASSIGN_OR_RETURN(const auto database, OpenTarget(*place_, parts_.options.apply, cancel));
  LF_ASSIGN_OR_RETURN(const auto read, capture::PinnedRead::Begin(*database));
  if (read->empty() != (page_count == 0)) return others;
  // Who has it open waits for the whole of this reading, or in WAL mode for a checkpoint. Who comes meanwhile waits as briefly.
  const bool writers_wait = database->wal_file() == nullptr;
  const Users users = FindUsers(std::vector{database->file_id()});
  bool in_use = writers_wait && (!users.complete || !users.pids.empty());
  const auto began = std::chrono::steady_clock::now();
  auto deadline = began + (in_use ? target_.rollback_stall : std::chrono::milliseconds(std::chrono::minutes(10)));
  format::RootBuilder root(page_size, page_count);
  Bytes wanted;
  LF_RETURN_IF_ERROR(StreamPages(*database, *read, cancel, [&](const StreamedExtent& at) -> absl::Status {
    if (at.page_size != page_size || at.page_count != page_count) return others;
    const auto now = std::chrono::steady_clock::now();
    if (writers_wait && !in_use) {
      LF_ASSIGN_OR_RETURN(in_use, database->WriterAtWork());
      if (in_use) deadline = std::min(deadline, now + target_.rollback_stall);
    }
    if (now > deadline) return Error(Code::kDeadlineExceeded, "WRITER_STALL", "reading it would hold the application up");
    if (copied == nullptr) {
      root.Add(format::NameChunkOf(at.page_size, at.pages));
      return absl::OkStatus();
    }
    wanted.resize(at.pages.size());
    LF_RETURN_IF_ERROR(io::PreadAll(copied->fd(), wanted, uint64_t{at.extent} * format::kExtentBytes, copied->path()));
    return SamePages(at.extent, at.pages, wanted) ? absl::OkStatus() : others;
  }));
  read->End();
  return copied != nullptr || root.Finish() == root_ ? absl::OkStatus() : others;
}

absl::Status RestoreSession::UndoAfterHook(const absl::Status& failed) {
  const auto kept = [&](std::string_view why) {
    state_.clear_undoing_after_hook();
    return Error(absl::StatusCode::kFailedPrecondition, "HOOK_FAILED",
                 fmt::format("{}; the restored database stays: {}", MessageOf(failed), why),
                 "look at the hook and at the application; the previous state is kept: litefleet undo puts it back");
  };
  // A cancel wants the same.
  const CancelToken cancel = CancelToken::EndOf(cancel_);
  if (!state_.undoing_after_hook()) {
    const absl::Status same = CheckAsRestored(cancel);
    if (absl::IsCancelled(same) && cancel.interrupted()) return same;
    if (ReasonOf(same) == "OTHERS_COMMITTED") return kept(MessageOf(same));
    if (!same.ok()) return kept("whether somebody has written to it since cannot be told: " + MessageOf(same));
    state_.set_undoing_after_hook(true);
    LF_RETURN_IF_ERROR(parts_.journal.Save(state_));
    LF_CRASH_POINT("restore.hook.undoing");
  }
  const std::string operation = HookUndoId(state_.operation_id());
  v1::UndoOrder order;
  order.set_database(state_.database());
  order.set_restore_operation_id(state_.operation_id());
  order.set_new_timeline(order_.new_timeline());
  const Target target{state_.database(), state_.path(), "allow", target_.reserve, target_.rate, target_.rollback_stall};
  const auto wish = FindUndo(parts_.journal, operation, order, target);
  if (!wish.ok()) return kept(MessageOf(wish.status()));
  if (staging_outlasts_hooks()) RemoveStaging();  // the undo needs the room
  const ProgressMeter::Report quiet;
  const Outcome undone = RestoreSession(parts_, operation, wish->order, target, cancel, quiet, &wish->record).Run();
  if (absl::IsCancelled(undone.status) && cancel.interrupted()) return undone.status;
  for (const v1::HookRun& run : undone.hooks) state_.add_hooks(run.SerializeAsString());
  for (const std::string& step : undone.steps) state_.add_steps(step);
  absl::Status status;
  if (undone.applied) {
    state_.set_applied(false);
    state_.set_undo(undone.undo);
    status = Error(absl::StatusCode::kFailedPrecondition, "HOOK_FAILED",
                   fmt::format("{}; nobody had written to the database since, and its previous state was put back", MessageOf(failed)),
                   "look at the hook on the device, then restore again");
  } else {
    status = kept(MessageOf(undone.status));
  }
  LF_CRASH_POINT("restore.hook.undone");
  state_.clear_undoing_after_hook();
  return status;
}

}  // namespace litefleet::restore
