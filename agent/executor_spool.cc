// The half of DeviceExecutor that is about the spool: backups that are due while the controller cannot be reached, and their upload.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "agent/backup_source.h"
#include "agent/capture/online_source.h"
#include "agent/executor.h"
#include "agent/hooks/pause_watch.h"
#include "agent/spool/take.h"
#include "common/base/error_detail.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet {

absl::Status DeviceExecutor::Drain(const std::string& database, ledger::Ledger* ledger, const CancelToken& cancel, control::Turn& turn,
                                   bool may_wait) const {
  if (deps_.spool.UsageOf(database).snapshots == 0) return absl::OkStatus();
  const spool::SnapshotSpool::Use use = deps_.spool.Hold(database);
  spool::DrainJob job;
  job.database = database;
  job.ledger = ledger;
  job.give_up_at = std::chrono::steady_clock::now() + deps_.give_up;
  if (!may_wait) job.offline_after = deps_.offline_after;
  job.waits = [&](bool waits) { waits ? turn.Yield() : turn.Resume(cancel); };
  job.progress = [&](const spool::SpooledSnapshot& snapshot, const v1::Progress& progress) {
    if (snapshot.header.method() == v1::METHOD_CONTINUOUS) return;
    v1::OperationProgress report;
    report.set_operation_id(snapshot.header.operation_id());
    report.set_kind(v1::OPERATION_KIND_BACKUP);
    report.set_database(database);
    *report.mutable_started_at() = MillisTimestamp(snapshot.header.started_at_ms());
    *report.mutable_progress() = progress;
    deps_.report(report);
  };
  job.acknowledged = [&](const spool::SpooledSnapshot& snapshot, const std::string& id, const v1::Progress& progress) {
    return Acknowledged(snapshot, id, progress);
  };
  hooks::PauseWatch pause(deps_.hooks, PauseHook(!may_wait, "", database), cancel, deps_.pause_interval);
  pause.Begin();
  job.paused = [&] { return pause.paused() && !turn.Awaited(); };
  return spool::Drain(deps_.spool, job, deps_.backup, deps_.transport, deps_.rate, cancel);
}

absl::Status DeviceExecutor::Acknowledged(const spool::SpooledSnapshot& snapshot, const std::string& snapshot_id,
                                          const v1::Progress& progress) const {
  const std::string& database = snapshot.header.database();
  const storage::v1::SpoolState state = deps_.spool.ReadState(database);
  storage::v1::AgentDatabase kept = Remembered(database);
  kept.set_last_success_at_ms(std::max(kept.last_success_at_ms(), snapshot.header.taken_at_ms()));
  kept.set_last_snapshot_id(snapshot_id);
  const bool newest = state.newest_spooled_id() == snapshot.id();
  kept.set_file_facts(newest ? state.file_facts() : "");
  kept.set_read_at_ms(newest ? state.read_at_ms() : 0);
  kept.clear_unchanged_at_ms();
  if (newest && state.unchanged_at_ms() != 0) {
    kept.set_last_success_at_ms(std::max(kept.last_success_at_ms(), state.unchanged_at_ms()));
    kept.set_unchanged_at_ms(state.unchanged_at_ms());
  }
  LF_RETURN_IF_ERROR(deps_.state.WriteDatabase(kept));
  if (snapshot.header.method() == v1::METHOD_CONTINUOUS) return absl::OkStatus();  // no operation
  v1::OperationResult result;
  result.set_operation_id(snapshot.header.operation_id());
  result.set_kind(v1::OPERATION_KIND_BACKUP);
  result.set_database(database);
  result.set_state(v1::OPERATION_STATE_SUCCEEDED);
  result.set_snapshot_id(snapshot_id);
  *result.mutable_progress() = progress;
  *result.mutable_started_at() = MillisTimestamp(snapshot.header.started_at_ms());
  *result.mutable_ended_at() = MillisTimestamp(snapshot.ended_at_ms);
  result.add_steps("the controller could not be reached: the snapshot waited in the spool of the device");
  for (v1::HookRun& run : deps_.spool.HooksOf(snapshot)) *result.add_hooks() = std::move(run);
  if (snapshot.header.merged() > 0)
    result.add_steps(fmt::format("{} snapshots before it were merged into it, since the spool was full", snapshot.header.merged()));
  return deps_.ended(result);
}

bool DeviceExecutor::IsSpooled(const std::string& operation, const std::string& database) const {
  const std::vector<spool::SpooledSnapshot> spooled = deps_.spool.List(database);
  return std::any_of(spooled.begin(), spooled.end(), [&](const spool::SpooledSnapshot& one) {
    return one.header.method() != v1::METHOD_CONTINUOUS && one.header.operation_id() == operation;
  });
}

void DeviceExecutor::KeepHooks(const std::string& operation, const std::string& database, std::span<const v1::HookRun> runs) const {
  const std::optional<spool::SpooledSnapshot> newest = deps_.spool.Newest(database);
  if (!newest.has_value() || newest->header.operation_id() != operation) return;
  if (const absl::Status kept = deps_.spool.KeepHooks(*newest, runs); !kept.ok())
    spdlog::error("{}: what its hooks said could not be written: {}", database, MessageOf(kept));
}

v1::OperationResult DeviceExecutor::DrainLeft(const std::string& database, const CancelToken& cancel, control::Turn& turn) const {
  // Its ledger knows the path of a file that nobody names any more: without it the next backup compares.
  const absl::Status drained = Drain(database, nullptr, cancel, turn, false);
  if (absl::IsCancelled(drained)) return ResultOf(drained);
  if (!drained.ok()) spdlog::warn("{}: what is spooled was not uploaded: {}", database, MessageOf(drained));
  return v1::OperationResult();
}

absl::Status DeviceExecutor::ExpireSpooled(const std::string& database, int level, const spool::GoesOn& goes_on) const {
  const std::shared_ptr<const config::AgentConfig> config = deps_.config();
  const auto expire = [&](const std::string& one, int at_level) -> absl::Status {
    const absl::Status expired = deps_.spool.Expire(one, config->spool_age, config->disk_reserve, at_level, goes_on);
    if (expired.ok() || absl::IsCancelled(expired)) return expired;
    spdlog::error("{}: what is too old in the spool stays: {}", one, MessageOf(expired));
    return absl::OkStatus();
  };
  LF_RETURN_IF_ERROR(expire(database, level));
  for (const std::string& left : deps_.spool.Databases()) {
    if (config->Find(left) != nullptr) continue;
    const std::optional<spool::SnapshotSpool::Use> use = deps_.spool.TryUse(left);
    if (use.has_value()) LF_RETURN_IF_ERROR(expire(left, spool::kMergeLevel));
  }
  return absl::OkStatus();
}

void DeviceExecutor::EndGaps(const std::string& database) const {
  if (const absl::Status ended = deps_.spool.EndGaps(database, deps_.clock.Now()); !ended.ok())
    spdlog::error("{}: that a gap has ended could not be written: {}", database, MessageOf(ended));
}

void DeviceExecutor::BeginGap(const std::string& database, std::string_view reason, const std::string& message) const {
  const std::optional<spool::SpooledSnapshot> newest = deps_.spool.Newest(database);
  const int64_t acknowledged = Remembered(database).last_success_at_ms();
  SystemTime from = deps_.clock.Now();
  state::GapBook::SinceBoot since_boot = deps_.clock.SinceBoot();
  if (newest.has_value()) {
    from = newest->taken_at();
    since_boot = newest->taken_since_boot(BootId());
  } else if (acknowledged != 0) {
    from = FromUnixMillis(acknowledged);
    since_boot.reset();
  }
  const auto begun = deps_.spool.gaps().Begin({.database = database,
                                               .from = from,
                                               .reason = std::string(reason),
                                               .message = message,
                                               .snapshots = 0,
                                               .from_since_boot = since_boot});
  if (!begun.ok()) spdlog::error("{}: a gap could not be written: {}", database, MessageOf(begun.status()));
}

void DeviceExecutor::Unchanged(const std::string& database) const {
  storage::v1::AgentDatabase kept = Remembered(database);
  const int64_t now_ms = ToUnixMillis(deps_.clock.Now());
  if (deps_.spool.UsageOf(database).snapshots == 0) {
    kept.set_last_success_at_ms(now_ms);
    kept.set_unchanged_at_ms(now_ms);
  } else {
    storage::v1::SpoolState state = deps_.spool.ReadState(database);
    state.set_unchanged_at_ms(now_ms);
    if (const absl::Status written = deps_.spool.WriteState(database, state); !written.ok())
      spdlog::error("{}: what is known of the spool could not be written: {}", database, MessageOf(written));
  }
  kept.clear_last_error();
  Remember(kept);
  EndGaps(database);
}

v1::OperationResult DeviceExecutor::Spool(const storage::v1::AgentOperation& operation, const config::DatabaseConfig& database,
                                          ledger::Ledger* ledger, const CancelToken& cancel, bool& fits) const {
  const std::string& name = database.name;
  const storage::v1::AgentDatabase kept = Remembered(name);
  // What is built on a snapshot that the controller cannot restore any more arrives nowhere, and nothing would be equal to it.
  if (ledger != nullptr && ledger->state().has_value() && ledger->state()->snapshot_id == kept.gone_snapshot_id()) ledger = nullptr;
  const auto facts = capture::FileFactsOf(database.path, deps_.clock.Now());
  const spool::SnapshotSpool::Use use = deps_.spool.Hold(name);
  const auto level = database.compression_level.has_value() ? database.compression_level : deps_.config()->compression_level;
  // Merges may take minutes.
  const spool::GoesOn goes_on = [&cancel] {
    return cancel.cancelled() ? Error(absl::StatusCode::kCancelled, "CANCELLED", "the backup was cancelled") : absl::OkStatus();
  };
  if (const absl::Status expired = ExpireSpooled(name, level.value_or(spool::kMergeLevel), goes_on); !expired.ok())
    return ResultOf(expired);
  storage::v1::SpoolState state = deps_.spool.ReadState(name);
  const std::optional<spool::SpooledSnapshot> newest = deps_.spool.Newest(name);
  const bool known = ledger != nullptr && ledger->state().has_value() && ledger->state()->snapshot_id == kept.last_snapshot_id();
  const bool unchanged = facts.has_value() && (newest.has_value() ? state.newest_spooled_id() == newest->id() && !TimesMislead(kept) &&
                                                                        IsAsRead(state.file_facts(), state.read_at_ms(), *facts)
                                                                  : known && IsUnchanged(kept, *facts));
  if (unchanged) {
    Unchanged(name);
    return v1::OperationResult();
  }
  spool::TakeJob job;
  job.database = name;
  job.operation_id = operation.operation_id();
  job.timeline = kept.timeline();
  job.started_at = FromUnixMillis(operation.started_at_ms());
  job.ledger = ledger;
  job.ledger_file = deps_.state.LedgerFile(name);
  job.ledger_identity = ledger::LedgerIdentity(deps_.device_id, name, database.path);
  job.acknowledged_taken_at_ms = kept.last_success_at_ms();
  job.spool_bytes = deps_.config()->spool_bytes;
  job.reserve = deps_.config()->disk_reserve;
  job.compression_level = level.value_or(job.compression_level);
  BackupSource opener(MethodOf(database), FileSourceOptions(database, cancel));
  job.method = opener.method();
  job.open = [&] { return opener.Open(); };
  const int64_t now_ms = ToUnixMillis(deps_.clock.Now());
  const spool::Taken taken = spool::Take(deps_.spool, job, cancel);
  if (absl::IsCancelled(taken.status)) return ResultOf(taken.status);
  v1::OperationResult none;
  storage::v1::AgentDatabase now = Remembered(name);
  if (!taken.status.ok()) {
    const std::string reason = ReasonOf(taken.status);
    fits = reason != "SPOOL_FULL" && reason != "DISK_FULL";
    spdlog::warn("{}: the backup that is due could not be spooled: {}", name, MessageOf(taken.status));
    BeginGap(name, fits ? spool::kRunFailed : spool::kSpoolFull, fmt::format("{} ({})", MessageOf(taken.status), reason));
    now.set_last_error(ToErrorDetail(taken.status).SerializeAsString());
    Remember(now);
    return none;
  }
  const bool found_new = !taken.id.empty();
  if (found_new) {
    spdlog::info("{}: the controller cannot be reached, the snapshot of {} was spooled ({} KiB)", name, FormatRfc3339(taken.taken_at),
                 taken.bytes >> 10);
    const std::string before = newest.has_value() ? newest->root : known ? std::string(ledger->state()->root.AsString()) : "";
    if (!before.empty() && deps_.spool.Newest(name)->root != before)
      NoteMisled(database, newest.has_value() ? state.file_facts() : kept.file_facts(), facts, now);
    if (!newest.has_value()) state.set_acknowledged_taken_at_ms(kept.last_success_at_ms());
    state.clear_unchanged_at_ms();
  }
  // Of what was read, also where only the times of the files have changed.
  const std::string read = facts.has_value() && facts->settled ? facts->text : "";
  if (found_new || newest.has_value()) {
    state.set_newest_spooled_id(found_new ? taken.id : newest->id());
    state.set_file_facts(read);
    state.set_read_at_ms(now_ms);
    if (const absl::Status written = deps_.spool.WriteState(name, state); !written.ok())
      spdlog::error("{}: what is known of the spool could not be written: {}", name, MessageOf(written));
  } else if (known) {
    now.set_file_facts(read);
    now.set_read_at_ms(now_ms);
  }
  now.clear_last_error();
  now.set_journal_mode(taken.wal ? v1::JOURNAL_MODE_WAL : v1::JOURNAL_MODE_ROLLBACK);
  Remember(now);
  if (!found_new && (newest.has_value() || known)) {
    Unchanged(name);
  } else if (const absl::Status ended = deps_.spool.EndGaps(name, taken.taken_at); !ended.ok()) {
    spdlog::error("{}: that a gap has ended could not be written: {}", name, MessageOf(ended));
  }
  return none;
}

}  // namespace litefleet
