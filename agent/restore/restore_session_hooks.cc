// What the device itself runs around the change of a database, and the undo that follows where that fails.
#include "agent/capture/file_facts.h"
#include "agent/restore/restore_session.h"
#include "common/base/clock.h"
#include "common/base/crash_point.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

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
  if (state_.undoing_after_hook())
    return UndoAfterHook(Error(absl::StatusCode::kFailedPrecondition, "HOOK_FAILED", "the hook that runs after the restore failed"), "");
  MakeHooks();
  if (hooks_ == nullptr) return ended;  // none are configured any more
  const auto facts = capture::FileFactsOf(state_.path(), RealClock().Now());
  const absl::Status ran = hooks_->After(StateWord(ended), state_.snapshot_id(), cancel_);
  if (absl::IsCancelled(ran) && cancel_.interrupted()) return ran;
  KeepHookRuns();
  LF_CRASH_POINT("restore.hook.after_ran");
  if (ran.ok()) return ended;
  state_.add_steps(MessageOf(ran));
  if (!ended.ok()) return ended;
  // An undo is the last word: it is not undone for a hook.
  if (undoes()) return ran;
  return UndoAfterHook(ran, facts.has_value() ? facts->text : "");
}

absl::Status RestoreSession::UndoAfterHook(const absl::Status& failed, const std::string& facts) {
  const auto kept = [&](std::string_view why) {
    state_.clear_undoing_after_hook();
    return Error(absl::StatusCode::kFailedPrecondition, "HOOK_FAILED",
                 fmt::format("{}; the restored database stays: {}", MessageOf(failed), why),
                 "look at the hook and at the application; the previous state is kept: litefleet undo puts it back");
  };
  if (!state_.undoing_after_hook()) {
    const auto now = capture::FileFactsOf(state_.path(), RealClock().Now());
    if (facts.empty() || !now.has_value() || now->text != facts) return kept("somebody has written to it since");
    state_.set_undoing_after_hook(true);
    LF_RETURN_IF_ERROR(parts_.journal.Save(state_));
    LF_CRASH_POINT("restore.hook.undoing");
  }
  const std::string operation = HookUndoId(state_.operation_id());
  v1::UndoOrder order;
  order.set_database(state_.database());
  order.set_restore_operation_id(state_.operation_id());
  order.set_new_timeline(order_.new_timeline());
  const Target target{state_.database(), state_.path(), "allow", target_.reserve, target_.rate};
  const auto wish = FindUndo(parts_.journal, operation, order, target);
  if (!wish.ok()) return kept(MessageOf(wish.status()));
  // A cancel that comes now wants the same.
  const CancelToken never;
  const CancelToken& cancel = cancel_.cancelled() && !cancel_.interrupted() ? never : cancel_;
  const ProgressMeter::Report quiet;
  const Outcome undone = RestoreSession(parts_, operation, wish->order, target, cancel, quiet, &wish->record).Run();
  if (absl::IsCancelled(undone.status) && cancel_.interrupted()) return undone.status;
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
