#include "agent/executor.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "agent/capture/file_facts.h"
#include "agent/capture/online_source.h"
#include "agent/capture/precopy_source.h"
#include "agent/ledger/ledger.h"
#include "common/base/error_detail.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet {
namespace {

// What the files' times say is proven by a read at least this often.
constexpr std::chrono::hours kReadAnyway{24};
// A live restore of so many bytes tells how fast the next one will be.
constexpr int64_t kRateFromBytes = 1 << 20;

v1::OperationResult ResultOf(const absl::Status& status) {
  v1::OperationResult result;
  if (status.ok()) {
    result.set_state(v1::OPERATION_STATE_SUCCEEDED);
  } else {
    result.set_state(absl::IsCancelled(status) ? v1::OPERATION_STATE_CANCELLED : v1::OPERATION_STATE_FAILED);
    *result.mutable_error() = ToErrorDetail(status);
  }
  return result;
}

// Notes what the pages say about the database while they pass.
class NotingSource final : public capture::PageSource {
 public:
  NotingSource(std::unique_ptr<capture::PageSource> source, int32_t& journal_mode) : source_(std::move(source)) {
    journal_mode = source_->info().wal ? v1::JOURNAL_MODE_WAL : v1::JOURNAL_MODE_ROLLBACK;
  }
  const capture::SourceInfo& info() const override { return source_->info(); }
  absl::StatusOr<std::optional<capture::ExtentPages>> Next() override { return source_->Next(); }
  absl::Status Close() override { return source_->Close(); }
  const std::string& damage() const override { return source_->damage(); }
  std::chrono::nanoseconds pinned_for() const override { return source_->pinned_for(); }

 private:
  const std::unique_ptr<capture::PageSource> source_;
};

}  // namespace

absl::StatusOr<config::DatabaseConfig> DeviceExecutor::Configured(const std::string& database) const {
  const std::shared_ptr<const config::AgentConfig> config = deps_.config();
  const config::DatabaseConfig* found = config->Find(database);
  if (found == nullptr) {
    return Error(absl::StatusCode::kNotFound, "DATABASE_UNKNOWN", fmt::format("this device has no database \"{}\"", database),
                 "add a [[database]] to agent.toml on the device and reload the agent");
  }
  return *found;
}

storage::v1::AgentDatabase DeviceExecutor::Remembered(const std::string& database) const {
  absl::StatusOr<storage::v1::AgentDatabase> kept = deps_.state.ReadDatabase(database);
  if (kept.ok()) return *std::move(kept);
  spdlog::error("what was remembered of {} is lost: {}", database, MessageOf(kept.status()));
  storage::v1::AgentDatabase fresh;
  fresh.set_name(database);
  fresh.set_timeline(1);
  return fresh;
}

void DeviceExecutor::Remember(const storage::v1::AgentDatabase& database) const {
  if (const absl::Status status = deps_.state.WriteDatabase(database); !status.ok()) {
    spdlog::error("what is known of {} could not be written: {}", database.name(), MessageOf(status));
  }
}

v1::OperationResult DeviceExecutor::Execute(const storage::v1::AgentOperation& operation, const v1::Order& order, const CancelToken& cancel,
                                            const std::function<void(const v1::Progress&)>& progress, control::Turn& turn) {
  if (order.has_restore()) return Restore(operation, order.restore(), cancel, progress);
  if (order.has_backup()) return Backup(operation, order.backup(), cancel, progress, turn);
  if (order.has_heal()) return Heal(operation, order.heal(), cancel, progress, turn);
  return ResultOf(Error(absl::StatusCode::kUnimplemented, "ORDER_UNKNOWN", "this agent does not know the order",
                        "install a newer litefleet-agent on the device"));
}

v1::OperationResult DeviceExecutor::Backup(const storage::v1::AgentOperation& operation, const v1::BackupOrder& order,
                                           const CancelToken& cancel, const std::function<void(const v1::Progress&)>& progress,
                                           control::Turn& turn) {
  const absl::StatusOr<config::DatabaseConfig> database = Configured(order.database());
  if (!database.ok()) return ResultOf(database.status());
  storage::v1::AgentDatabase kept = Remembered(order.database());
  kept.set_last_run_at_ms(ToUnixMillis(deps_.clock.Now()));
  Remember(kept);

  const absl::StatusOr<std::unique_ptr<ledger::Ledger>> ledger = ledger::Ledger::Open(
      deps_.state.LedgerFile(order.database()), ledger::LedgerIdentity(deps_.device_id, order.database(), database->path));
  if (!ledger.ok()) spdlog::warn("{}: without a ledger: {}", order.database(), MessageOf(ledger.status()));
  const auto facts = capture::FileFactsOf(database->path, deps_.clock.Now());
  v1::OperationResult result;
  // The ledger knows which device's and which file's snapshot that was.
  const bool known = ledger.ok() && (*ledger)->state().has_value() && (*ledger)->state()->snapshot_id == kept.last_snapshot_id();
  // What the controller cannot restore is not what the database still is.
  const bool there = !order.has_newest_snapshot_id() || order.newest_snapshot_id() == kept.last_snapshot_id();
  const bool online = order.method() == v1::METHOD_UNSPECIFIED || order.method() == v1::METHOD_ONLINE;
  if (online && !order.full() && known && there && facts.has_value() && IsUnchanged(kept, *facts)) {
    kept.set_last_success_at_ms(ToUnixMillis(deps_.clock.Now()));
    kept.set_unchanged_at_ms(kept.last_success_at_ms());
    Remember(kept);
    result = ResultOf(absl::OkStatus());
    result.set_snapshot_id(kept.last_snapshot_id());
    result.add_steps("nothing has changed since this snapshot: its files were not written");
    return result;
  }
  if (!online) {
    result = ResultOf(Error(absl::StatusCode::kUnimplemented, "METHOD_UNSUPPORTED", "this agent makes backups by the method online alone",
                            "order the backup without --method"));
  } else {
    int32_t journal_mode = kept.journal_mode();
    upload::BackupOptions upload = deps_.backup;
    upload.spool.reserve = deps_.config()->disk_reserve;
    upload.spool.max_bytes = deps_.config()->spool_bytes;
    upload::BackupJob job;
    job.operation_id = operation.operation_id();
    job.session_id = operation.session_id();
    job.database = order.database();
    job.timeline = kept.timeline();
    job.spool_file = deps_.state.SpoolFile(operation.operation_id());
    job.full = order.full();
    if (ledger.ok()) job.ledger = ledger->get();
    if (job.ledger != nullptr && !job.ledger->problem().empty())
      spdlog::warn("{}: the backup compares with the controller: {}", order.database(), job.ledger->problem());
    job.waits = [&](bool waits) { waits ? turn.Yield() : turn.Resume(cancel); };
    job.give_up_at = std::chrono::steady_clock::now() + deps_.give_up;
    capture::OnlineOptions options;
    options.path = database->path;
    options.busy_timeout = database->busy_timeout;
    options.rollback_stall = database->rollback_stall;
    options.max_pin = database->max_pin;
    options.reserve = upload.spool.reserve;
    options.allow_network_fs = deps_.config()->allow_network_file_system;
    options.clock = &deps_.clock;
    options.cancelled = [&cancel] { return cancel.cancelled(); };
    job.open = [&]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> {
      LF_ASSIGN_OR_RETURN(std::unique_ptr<capture::PageSource> source, capture::OpenOnlineSource(options));
      return std::make_unique<NotingSource>(std::move(source), journal_mode);
    };
    job.open_precopy = [&] { return capture::OpenPrecopySource(options); };
    const upload::BackupOutcome outcome = upload::RunBackup(job, upload, deps_.transport, deps_.rate, deps_.clock, cancel, progress);
    result = ResultOf(outcome.status);
    result.set_snapshot_id(outcome.snapshot_id);
    *result.mutable_progress() = outcome.progress;
    for (const std::string& step : outcome.steps) result.add_steps(step);
    kept.set_journal_mode(journal_mode);
  }
  if (result.state() == v1::OPERATION_STATE_CANCELLED) return result;
  kept.clear_last_error();
  if (result.state() == v1::OPERATION_STATE_SUCCEEDED) {
    kept.set_last_success_at_ms(ToUnixMillis(deps_.clock.Now()));
    kept.set_last_snapshot_id(result.snapshot_id());
    // As they were before anything was read: what is written later shows.
    kept.set_file_facts(facts.has_value() && facts->settled ? facts->text : "");
    kept.set_read_at_ms(kept.last_run_at_ms());
    kept.clear_unchanged_at_ms();
  } else {
    kept.set_last_error(result.error().SerializeAsString());
  }
  Remember(kept);
  return result;
}

v1::OperationResult DeviceExecutor::Heal(const storage::v1::AgentOperation& operation, const v1::HealOrder& order,
                                         const CancelToken& cancel, const std::function<void(const v1::Progress&)>& progress,
                                         control::Turn& turn) {
  const absl::StatusOr<config::DatabaseConfig> database = Configured(order.database());
  if (!database.ok()) return ResultOf(database.status());
  heal::HealJob job{.operation_id = operation.operation_id(),
                    .order = order,
                    .spool_file = deps_.state.SpoolFile(operation.operation_id()),
                    .reserve = deps_.config()->disk_reserve,
                    .open = {},
                    .give_up_at = std::chrono::steady_clock::now() + deps_.give_up,
                    .waits = [&](bool waits) { waits ? turn.Yield() : turn.Resume(cancel); }};
  job.open = [&]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> {
    capture::OnlineOptions options;
    options.path = database->path;
    options.busy_timeout = database->busy_timeout;
    options.rollback_stall = database->rollback_stall;
    options.max_pin = database->max_pin;
    options.allow_network_fs = deps_.config()->allow_network_file_system;
    options.clock = &deps_.clock;
    options.cancelled = [&cancel] { return cancel.cancelled(); };
    return capture::OpenOnlineSource(options);
  };
  const heal::HealOutcome outcome = heal::RunHeal(job, deps_.sender, deps_.rate, cancel, progress);
  v1::OperationResult result = ResultOf(outcome.status);
  *result.mutable_progress() = outcome.progress;
  result.add_steps(fmt::format("{} of {} chunks that the store lost are still in the database", outcome.found, order.wanted_size()));
  return result;
}

bool DeviceExecutor::IsUnchanged(const storage::v1::AgentDatabase& kept, const capture::FileFacts& facts) const {
  const int64_t since_read = ToUnixMillis(deps_.clock.Now()) - kept.read_at_ms();
  return facts.settled && !kept.file_facts().empty() && kept.file_facts() == facts.text && kept.last_error().empty() && since_read >= 0 &&
         since_read < std::chrono::duration_cast<std::chrono::milliseconds>(kReadAnyway).count();
}

absl::StatusOr<restore::Target> DeviceExecutor::RestoreTarget(const v1::RestoreOrder& order) const {
  LF_ASSIGN_OR_RETURN(const config::DatabaseConfig database, Configured(order.database()));
  if (database.push_restore == "never") {
    return Error(absl::StatusCode::kPermissionDenied, "PUSH_RESTORE_REFUSED",
                 fmt::format("the device does not let \"{}\" be restored from afar", order.database()),
                 "set push_restore = \"allow\" in agent.toml on the device, or download the snapshot");
  }
  return restore::Target{database.name,
                         database.path,
                         database.push_restore,
                         deps_.config()->disk_reserve,
                         {Remembered(database.name).copy_bytes_per_second()}};
}

v1::OperationResult DeviceExecutor::Restore(const storage::v1::AgentOperation& operation, const v1::RestoreOrder& order,
                                            const CancelToken& cancel, const std::function<void(const v1::Progress&)>& progress) {
  const absl::StatusOr<restore::Target> target = RestoreTarget(order);
  if (!target.ok()) return ResultOf(target.status());
  v1::Progress last;
  const restore::Outcome outcome = deps_.restorer.Run(operation.operation_id(), order, *target, cancel, [&](const v1::Progress& now) {
    last = now;
    progress(now);
  });
  return Restored(order, outcome, std::move(last));
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
  result.set_restore_mode(outcome.mode);
  *result.mutable_stall() = ToProtoDuration(std::chrono::milliseconds(outcome.stall_ms));
  return result;
}

absl::Status DeviceExecutor::Recover(const std::set<std::string>& active) {
  restore::LocalRestorer::Recovery recovery = deps_.restorer.Recover(active);
  for (const std::string& sentence : recovery.said) spdlog::warn("{}", sentence);
  for (const restore::LocalRestorer::Recovered& ended : recovery.ended) {
    v1::OperationResult result = Restored(ended.order, ended.outcome, v1::Progress());
    result.set_operation_id(ended.operation_id);
    result.set_kind(v1::OPERATION_KIND_RESTORE);
    result.set_database(ended.order.database());
    *result.mutable_ended_at() = ToProtoTime(deps_.clock.Now());
    LF_RETURN_IF_ERROR(deps_.state.WriteResult(result));
    LF_RETURN_IF_ERROR(deps_.restorer.Forget(ended.operation_id));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::RestorePlan> DeviceExecutor::Plan(const v1::RestoreOrder& order) {
  const absl::StatusOr<restore::Target> target = RestoreTarget(order);
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
  return deps_.restorer.Plan(order, *target);
}

void DeviceExecutor::Forget(const std::string& operation_id) {
  if (const absl::Status status = deps_.restorer.Forget(operation_id); !status.ok())
    spdlog::error("operation {}: {}", operation_id, MessageOf(status));
}

}  // namespace litefleet
