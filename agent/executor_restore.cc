// The half of DeviceExecutor that is about restores and undos: what may be written, by whose leave, and how what was begun ends.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "agent/config/own_places.h"
#include "agent/executor.h"
#include "common/base/error_detail.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"

namespace litefleet {
namespace {

// A live restore of so many bytes tells how fast the next one will be.
constexpr int64_t kRateFromBytes = 1 << 20;

}  // namespace

absl::StatusOr<std::shared_ptr<void>> DeviceExecutor::PauseFor(const v1::Order& order, std::string_view why, const CancelToken& cancel,
                                                               const CancelToken& stop, control::Turn* turn) {
  bool yielded = false;
  for (;;) {
    const bool begun = HasBegun(order.operation_id());
    auto paused = PauseCapture(control::DatabaseOf(order), why, begun ? stop : cancel);
    if (paused.ok() || !begun) {
      if (yielded) turn->Resume(cancel);
      return paused;
    }
    // What a former run has changed is not left as it is: it waits, until the agent ends, and others go.
    spdlog::warn("{}: {}", order.operation_id(), MessageOf(paused.status()));
    if (stop.interrupted()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "the agent has ended; it goes on at the next start");
    if (turn != nullptr && !yielded) turn->Yield();
    yielded = turn != nullptr;
  }
}

absl::StatusOr<restore::Target> DeviceExecutor::RestoreTarget(const std::string& name) const {
  LF_ASSIGN_OR_RETURN(const config::DatabaseConfig database, Configured(name));
  // What the device's rules say is looked at in AllowedTarget.
  restore::Target target{
      database.name, database.path, "allow", deps_.config()->disk_reserve, {Remembered(database.name).copy_bytes_per_second()}};
  target.rollback_stall = database.rollback_stall;
  target.files = database.files;
  // Somebody may have made a link since the configuration was read.
  LF_RETURN_IF_ERROR(config::CheckOwn(database, *deps_.config(), deps_.config_path));
  target.databases = DatabasePaths();
  return target;
}

std::vector<std::string> DeviceExecutor::DatabasePaths() const {
  std::vector<std::string> paths;
  const auto config = deps_.config();  // a reload may let go of it meanwhile
  for (const config::DatabaseConfig& each : config->databases) {
    if (!each.files) paths.push_back(each.path);
  }
  return paths;
}

rules::RuleFacts DeviceExecutor::RuleOf(const config::DatabaseConfig& database) const {
  return {database.push_restore, deps_.config_path, deps_.config()->order_keys, deps_.device_id};
}

absl::StatusOr<restore::Target> DeviceExecutor::AllowedTarget(const v1::Order& order) const {
  const std::string& name = control::DatabaseOf(order);
  LF_ASSIGN_OR_RETURN(const config::DatabaseConfig database, Configured(name));
  LF_RETURN_IF_ERROR(deps_.rules->Check(RuleOf(database), order));
  return RestoreTarget(name);
}

bool DeviceExecutor::Held(const v1::Order& order) const {
  if (!rules::NeedsLeave(order)) return false;
  const absl::StatusOr<config::DatabaseConfig> database = Configured(control::DatabaseOf(order));
  return database.ok() && deps_.rules->Waits(RuleOf(*database), order);
}

v1::OperationResult DeviceExecutor::Restore(const storage::v1::AgentOperation& operation, const v1::Order& order, const CancelToken& cancel,
                                            const CancelToken& stop, const std::function<void(const v1::Progress&)>& progress,
                                            control::Turn& turn) {
  const absl::StatusOr<restore::Target> target = AllowedTarget(order);
  // A former run may have changed something.
  if (!target.ok()) return Settle(order, stop).value_or(ResultOf(target.status()));
  const auto database = Configured(order.restore().database());
  if (!database.ok()) return Settle(order, stop).value_or(ResultOf(database.status()));
  const auto paused = PauseFor(order, "a restore was ordered", cancel, stop, &turn);
  if (!paused.ok()) return ResultOf(paused.status());
  v1::Progress last;
  const restore::Outcome outcome =
      deps_.restorer.Run(operation.operation_id(), order.restore(), *target, cancel, [&](const v1::Progress& now) {
        last = now;
        progress(now);
      });
  return Restored(order.restore(), outcome, std::move(last));
}

v1::OperationResult DeviceExecutor::Undo(const storage::v1::AgentOperation& operation, const v1::Order& order, const CancelToken& cancel,
                                         const CancelToken& stop, const std::function<void(const v1::Progress&)>& progress,
                                         control::Turn& turn) {
  const absl::StatusOr<restore::Target> target = AllowedTarget(order);
  // A former run may have changed something.
  if (!target.ok()) return Settle(order, stop).value_or(ResultOf(target.status()));
  const auto database = Configured(order.undo().database());
  if (!database.ok()) return Settle(order, stop).value_or(ResultOf(database.status()));
  const auto paused = PauseFor(order, "an undo was ordered", cancel, stop, &turn);
  if (!paused.ok()) return ResultOf(paused.status());
  v1::Progress last;
  const restore::Outcome outcome =
      deps_.restorer.Undo(operation.operation_id(), order.undo(), *target, cancel, [&](const v1::Progress& now) {
        last = now;
        progress(now);
      });
  v1::RestoreOrder done;
  done.set_database(order.undo().database());
  done.set_new_timeline(order.undo().new_timeline());
  return Restored(done, outcome, std::move(last));
}

v1::OperationResult DeviceExecutor::DropUndo(const v1::Order& order) {
  const absl::StatusOr<restore::Target> target = AllowedTarget(order);
  if (!target.ok()) return ResultOf(target.status());
  // Of which restore it was meant is not known any more when the order comes.
  if (order.drop_undo().restore_operation_id().empty())
    return ResultOf(Error(absl::StatusCode::kInvalidArgument, "ORDER_INVALID", "the order names no restore whose previous state goes"));
  const absl::StatusOr<std::string> dropped = deps_.restorer.DropUndo(target->database, order.drop_undo().restore_operation_id());
  v1::OperationResult result = ResultOf(dropped.status());
  if (dropped.ok()) result.add_steps(dropped->empty() ? "nothing was kept of it" : fmt::format("removed {}", *dropped));
  return result;
}

v1::OperationResult DeviceExecutor::Restored(const v1::RestoreOrder& order, const restore::Outcome& outcome, v1::Progress progress) const {
  v1::OperationResult result = ResultOf(outcome.status);
  if (outcome.applied) {
    // Before the result is durable: where this is lost, the restore runs again, finds itself done, and comes here again.
    storage::v1::AgentDatabase kept = Remembered(order.database());
    kept.set_timeline(std::max(kept.timeline(), order.new_timeline()));
    // Less than that says nothing about a rate.
    if (outcome.stall_bytes >= kRateFromBytes && outcome.stall_ms > 0)
      kept.set_copy_bytes_per_second(outcome.stall_bytes * 1000 / outcome.stall_ms);
    Remember(kept);
  }
  if (outcome.status.ok()) progress.set_done_bytes(progress.total_bytes());
  result.set_snapshot_id(order.snapshot_id());
  *result.mutable_progress() = std::move(progress);
  for (const std::string& step : outcome.steps) result.add_steps(step);
  result.set_undo(outcome.undo);
  for (const v1::HookRun& run : outcome.hooks) *result.add_hooks() = run;
  result.set_restore_mode(outcome.mode);
  *result.mutable_stall() = ToProtoDuration(std::chrono::milliseconds(outcome.stall_ms));
  return result;
}

absl::Status DeviceExecutor::Recover(const std::set<std::string>& active, const CancelToken& stop) {
  restore::LocalRestorer::Recovery recovery = deps_.restorer.Recover(active, stop);
  for (const std::string& sentence : recovery.said) spdlog::warn("{}", sentence);
  for (const restore::LocalRestorer::Recovered& ended : recovery.ended) {
    v1::OperationResult result = Restored(ended.order, ended.outcome, v1::Progress());
    result.set_operation_id(ended.operation_id);
    result.set_kind(ended.undo ? v1::OPERATION_KIND_UNDO : v1::OPERATION_KIND_RESTORE);
    result.set_database(ended.order.database());
    *result.mutable_ended_at() = ToProtoTime(deps_.clock.Now());
    LF_RETURN_IF_ERROR(deps_.state.WriteResult(result));
    LF_RETURN_IF_ERROR(deps_.restorer.Forget(ended.operation_id));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::RestorePlan> DeviceExecutor::Plan(const v1::Query& query) {
  const bool undo = query.has_undo_plan();
  const v1::RestoreOrder& order = query.restore_plan();
  const absl::StatusOr<config::DatabaseConfig> database = Configured(undo ? query.undo_plan().database() : order.database());
  absl::Status refused = database.status();
  rules::RuleFacts rule;
  if (database.ok()) {
    rule = RuleOf(*database);
    v1::Order asked;
    undo ? static_cast<void>(*asked.mutable_undo() = query.undo_plan()) : static_cast<void>(*asked.mutable_restore() = order);
    // A plan is neither confirmed nor signed yet.
    if (rule.rule == "never" || (rule.rule == "signed" && undo)) refused = deps_.rules->Check(rule, asked);
  }
  const absl::StatusOr<restore::Target> target = refused.ok() ? RestoreTarget(database->name) : refused;
  if (!target.ok()) {
    // A refusal is an answer to the question.
    v1::RestorePlan plan;
    plan.set_mode(order.mode());
    plan.set_snapshot_id(order.snapshot_id());
    plan.set_size_bytes(int64_t{order.page_size()} * order.page_count());
    plan.set_from_device(true);
    *plan.add_obstacles() = ToErrorDetail(target.status());
    return plan;
  }
  LF_ASSIGN_OR_RETURN(v1::RestorePlan plan,
                      undo ? deps_.restorer.PlanUndo(query.undo_plan(), *target) : deps_.restorer.Plan(order, *target));
  std::vector<std::string> steps = rules::OrderRules::Describe(rule);
  steps.insert(steps.end(), plan.steps().begin(), plan.steps().end());
  plan.clear_steps();
  for (std::string& step : steps) plan.add_steps(std::move(step));
  if (const auto hooks =
          deps_.database_hooks ? deps_.database_hooks({"", target->database, target->path, undo ? "undo" : "restore"}) : nullptr) {
    for (const std::string& hook : hooks->Describe()) plan.add_hooks(hook);
  }
  return plan;
}

bool DeviceExecutor::HasBegun(const std::string& operation_id) { return deps_.restorer.HasBegun(operation_id); }

std::optional<v1::OperationResult> DeviceExecutor::Settle(const v1::Order& order, const CancelToken& stop) {
  if (!order.has_restore() && !order.has_undo()) return std::nullopt;
  std::shared_ptr<void> paused;
  if (HasBegun(order.operation_id())) {
    auto pause = PauseFor(order, "a restore is ended that was cancelled", stop, stop, nullptr);
    if (!pause.ok()) return ResultOf(pause.status());
    paused = *std::move(pause);
  }
  const std::optional<restore::Outcome> outcome = deps_.restorer.Settle(order.operation_id(), stop);
  if (!outcome.has_value()) return std::nullopt;
  v1::RestoreOrder done = order.restore();
  if (order.has_undo()) {
    done.set_database(order.undo().database());
    done.set_new_timeline(order.undo().new_timeline());
  }
  return Restored(done, *outcome, v1::Progress());
}

absl::Status DeviceExecutor::Forget(const std::string& operation_id) {
  // What a restore leaves is in nobody's way: the same operation would find that it has ended.
  if (const absl::Status status = deps_.restorer.Forget(operation_id); !status.ok())
    spdlog::error("operation {}: {}", operation_id, MessageOf(status));
  return deps_.rules->Forget(operation_id);
}

}  // namespace litefleet
