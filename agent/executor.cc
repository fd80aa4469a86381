#include "agent/executor.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "agent/backup_source.h"
#include "agent/capture/dump_source.h"
#include "agent/capture/file_facts.h"
#include "agent/capture/files_source.h"
#include "agent/capture/online_source.h"
#include "agent/capture/precopy_source.h"
#include "agent/config/own_places.h"
#include "agent/hooks/pause_watch.h"
#include "agent/ledger/ledger.h"
#include "common/base/error_detail.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet {
namespace {

// Files that have changed while they were read so often are taken as they were read.
constexpr int kFilesPasses = 2;
constexpr std::chrono::seconds kPauseHookTime{30};
constexpr std::chrono::milliseconds kPauseLook{50};
// Files whose times did not tell of a change are read at each run for so long.
constexpr std::chrono::hours kMisled{24 * 30};

dump::DumpOptions DumpOptionsOf(const v1::DumpOptions& order) {
  return {.compatible = order.compatible(),
          .tables = {order.tables().begin(), order.tables().end()},
          .without = {order.without_tables().begin(), order.without_tables().end()},
          .schema_only = order.schema_only(),
          .data_only = order.data_only()};
}

// What was ordered beside the backups that the configuration asks for tells nothing of how these go.
bool IsAside(const v1::BackupOrder& order, const config::DatabaseConfig& database) {
  if (MethodOf(order, database) != v1::METHOD_DUMP || database.files.has_value()) return false;
  const std::string part = dump::PartOf(order.has_dump() ? DumpOptionsOf(order.dump()) : database.dump);
  return !part.empty() && (database.method != "dump" || part != dump::PartOf(database.dump));
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

v1::OperationResult DeviceExecutor::ResultOf(const absl::Status& status) {
  v1::OperationResult result;
  if (status.ok()) {
    result.set_state(v1::OPERATION_STATE_SUCCEEDED);
  } else {
    result.set_state(absl::IsCancelled(status) ? v1::OPERATION_STATE_CANCELLED : v1::OPERATION_STATE_FAILED);
    *result.mutable_error() = ToErrorDetail(status);
  }
  return result;
}

absl::StatusOr<config::DatabaseConfig> DeviceExecutor::Configured(const std::string& database) const {
  const std::shared_ptr<const config::AgentConfig> config = deps_.config();
  const config::DatabaseConfig* found = config->Find(database);
  if (found == nullptr) {
    return Error(absl::StatusCode::kNotFound, "DATABASE_UNKNOWN", fmt::format("this device has no database \"{}\"", database),
                 "add a [[database]] to agent.toml on the device and reload the agent");
  }
  return *found;
}

absl::StatusOr<std::shared_ptr<void>> DeviceExecutor::PauseCapture(const std::string& database, std::string_view why,
                                                                   const CancelToken& cancel) const {
  // Also of one that is captured no more: what follows it may not have let go yet.
  if (!deps_.pause_capture) return std::shared_ptr<void>();
  return deps_.pause_capture(database, why, cancel);
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
                                            const CancelToken& stop, const std::function<void(const v1::Progress&)>& progress,
                                            control::Turn& turn) {
  if (order.has_restore()) return Restore(operation, order, cancel, stop, progress, turn);
  if (order.has_undo()) return Undo(operation, order, cancel, stop, progress, turn);
  if (order.has_drop_undo()) return DropUndo(order);
  if (order.has_backup()) return Backup(operation, order.backup(), cancel, progress, turn);
  if (order.has_heal()) return Heal(operation, order.heal(), cancel, progress, turn);
  return ResultOf(Error(absl::StatusCode::kUnimplemented, "ORDER_UNKNOWN", "this agent does not know the order",
                        "install a newer litefleet-agent on the device"));
}

v1::OperationResult DeviceExecutor::Backup(const storage::v1::AgentOperation& operation, const v1::BackupOrder& order,
                                           const CancelToken& cancel, const std::function<void(const v1::Progress&)>& progress,
                                           control::Turn& turn) {
  const absl::StatusOr<config::DatabaseConfig> database = Configured(order.database());
  if (!database.ok()) return operation.drain() ? DrainLeft(order.database(), cancel, turn) : ResultOf(database.status());
  std::unique_ptr<hooks::DatabaseHooks> hooks;
  if (deps_.database_hooks && !operation.drain())
    hooks = deps_.database_hooks({operation.operation_id(), order.database(), database->path, "backup"});
  const auto refused = [&](const absl::Status& why) {
    v1::OperationResult result = ResultOf(why);
    storage::v1::AgentDatabase kept = Remembered(order.database());
    kept.set_last_run_at_ms(ToUnixMillis(deps_.clock.Now()));
    kept.set_last_run_boot_id(BootId());
    if (!IsAside(order, *database)) kept.set_last_error(result.error().SerializeAsString());
    if (!absl::IsCancelled(why)) Remember(kept);
    return result;
  };
  // Before an application is stopped, or capture is paused.
  if (const absl::Status waited = WaitWhilePaused(operation, order.database(), cancel, progress, turn); !waited.ok())
    return refused(waited);
  if (hooks == nullptr || hooks->none()) return BackupItself(operation, order, *database, cancel, progress, turn);
  const absl::Status before = hooks->Before(cancel);
  v1::OperationResult result = before.ok() ? BackupItself(operation, order, *database, cancel, progress, turn) : refused(before);
  // A snapshot that waits in the spool has no state yet, and is taken.
  const std::string_view state = result.state() == v1::OPERATION_STATE_CANCELLED ? "cancelled"
                                 : result.state() == v1::OPERATION_STATE_FAILED  ? "failed"
                                                                                 : "succeeded";
  // The backup is what it is; that the hook failed is told with it. Also where the program ends meanwhile: what was stopped is not left so.
  if (const absl::Status after = hooks->After(state, result.snapshot_id(), CancelToken()); !after.ok()) result.add_steps(MessageOf(after));
  for (const v1::HookRun& run : hooks->runs()) *result.add_hooks() = run;
  KeepHooks(operation.operation_id(), order.database(), hooks->runs());
  return result;
}

v1::OperationResult DeviceExecutor::BackupItself(const storage::v1::AgentOperation& operation, const v1::BackupOrder& order,
                                                 const config::DatabaseConfig& database, const CancelToken& cancel,
                                                 const std::function<void(const v1::Progress&)>& progress, control::Turn& turn) {
  // A run that was cut behind its snapshot begins again at a start: it has that snapshot, whose upload is its end. A second one would
  // arrive under an operation that has ended.
  if (operation.by_schedule() && !operation.drain() && IsSpooled(operation.operation_id(), order.database())) return v1::OperationResult();
  // The ledger is one backup's at a time.
  const auto paused = PauseCapture(database.name, "a backup was ordered", cancel);
  if (!paused.ok()) return ResultOf(paused.status());
  if (!operation.drain()) {
    storage::v1::AgentDatabase kept = Remembered(order.database());
    kept.set_last_run_at_ms(ToUnixMillis(deps_.clock.Now()));
    kept.set_last_run_boot_id(BootId());
    Remember(kept);
  }
  const absl::StatusOr<std::unique_ptr<ledger::Ledger>> opened = ledger::Ledger::Open(
      deps_.state.LedgerFile(order.database()), ledger::LedgerIdentity(deps_.device_id, order.database(), database.path));
  if (!opened.ok()) spdlog::warn("{}: without a ledger: {}", order.database(), MessageOf(opened.status()));
  ledger::Ledger* const ledger = opened.ok() ? opened->get() : nullptr;

  // What waits for the link lies in the spool as pages; a dump waits itself, and so do files.
  const bool may_spool = operation.by_schedule() && !operation.drain() && MethodOf(order, database) != v1::METHOD_DUMP && !database.files;
  // A part is no state of its database, so none is missing.
  if (operation.by_schedule() && !operation.drain() && !may_spool && deps_.offline() &&
      (database.files || dump::PartOf(database.dump).empty())) {
    BeginGap(order.database(), spool::kNotSpooled,
             fmt::format("the controller cannot be reached, and {} not kept on the device: the run waits",
                         database.files ? "files are" : "a dump is"));
  }
  absl::Status drained = absl::OkStatus();
  if (!(may_spool && deps_.offline())) {
    const uint64_t timeline = deps_.spool.Newest(order.database()).value_or(spool::SpooledSnapshot()).header.timeline();
    drained = Drain(order.database(), ledger, cancel, turn, !operation.by_schedule());
    if (absl::IsCancelled(drained)) return ResultOf(drained);
    // Where the database was restored meanwhile, the newest state is not among what was spooled.
    const bool behind = timeline != 0 && timeline < Remembered(order.database()).timeline();
    if (operation.drain() && !(drained.ok() && behind)) {
      if (!drained.ok()) spdlog::warn("{}: what is spooled was not uploaded: {}", order.database(), MessageOf(drained));
      return v1::OperationResult();
    }
    if (!drained.ok() && !(may_spool && ReasonOf(drained) == "CONTROLLER_OFFLINE")) return ResultOf(drained);
  }
  bool offline = may_spool && (!drained.ok() || deps_.offline());
  for (bool waits = false;;) {
    if (offline) {
      bool fits = true;
      const v1::OperationResult spooled = Spool(operation, database, ledger, cancel, fits);
      if (fits || deps_.spool.UsageOf(order.database()).snapshots > 0) return spooled;
      // A first backup that the spool cannot hold waits for the link, as an ordered one does.
      waits = true;
    }
    v1::OperationResult result = Upload(operation, order, database, ledger, cancel, progress, turn, may_spool && !waits);
    if (result.error().info().reason() != "CONTROLLER_OFFLINE") return result;
    offline = true;
  }
}

capture::OnlineOptions DeviceExecutor::SourceOptions(const config::DatabaseConfig& database, const CancelToken& cancel) const {
  capture::OnlineOptions options;
  options.path = database.path;
  options.busy_timeout = database.busy_timeout;
  options.rollback_stall = database.rollback_stall;
  options.max_pin = database.max_pin;
  options.reserve = deps_.config()->disk_reserve;
  options.allow_network_fs = deps_.config()->allow_network_file_system;
  options.clock = &deps_.clock;
  options.cancelled = [&cancel] { return cancel.cancelled(); };
  return options;
}

capture::FileOptions DeviceExecutor::FileSourceOptions(const config::DatabaseConfig& database, const CancelToken& cancel) const {
  capture::FileOptions options;
  options.database = SourceOptions(database, cancel);
  options.scratch = io::DirectoryOf(deps_.state.SpoolFile("copy"));
  options.max_copy_bytes = deps_.config()->spool_bytes;
  return options;
}

capture::FilesOptions DeviceExecutor::FilesOptionsOf(const config::DatabaseConfig& database, const CancelToken& cancel) const {
  capture::FilesOptions options;
  options.root = database.path;
  options.rules = *database.files;
  options.rules.databases = DatabasePaths();
  options.clock = &deps_.clock;
  options.helper.cancelled = [&cancel] { return cancel.cancelled(); };
  return options;
}

// Nothing where they cannot be listed: the backup says why.
std::optional<capture::FileFacts> DeviceExecutor::FactsOfFiles(const config::DatabaseConfig& database, const CancelToken& cancel) const {
  absl::StatusOr<capture::FileFacts> facts = capture::FactsOfFiles(FilesOptionsOf(database, cancel));
  if (!facts.ok()) return std::nullopt;
  // What is remembered may be of the device that this one was before it was enrolled anew.
  facts->text = deps_.device_id + ";" + facts->text;
  return *std::move(facts);
}

v1::OperationResult DeviceExecutor::Upload(const storage::v1::AgentOperation& operation, const v1::BackupOrder& order,
                                           const config::DatabaseConfig& database, ledger::Ledger* ledger, const CancelToken& cancel,
                                           const std::function<void(const v1::Progress&)>& progress, control::Turn& turn, bool may_spool) {
  storage::v1::AgentDatabase kept = Remembered(order.database());
  const bool files = database.files.has_value();
  const auto facts = files ? FactsOfFiles(database, cancel) : capture::FileFactsOf(database.path, deps_.clock.Now());
  v1::OperationResult result;
  bool misled = false;
  // The ledger knows which device's and which file's snapshot that was; files have none.
  const bool known = files ? !kept.last_snapshot_id().empty()
                           : ledger != nullptr && ledger->state().has_value() && ledger->state()->snapshot_id == kept.last_snapshot_id();
  // What the controller cannot restore is not what the database still is.
  const bool there = !order.has_newest_snapshot_id() || order.newest_snapshot_id() == kept.last_snapshot_id();
  const v1::Method method = MethodOf(order, database);
  const bool dumps = method == v1::METHOD_DUMP && !files;
  const dump::DumpOptions what = order.has_dump() ? DumpOptionsOf(order.dump()) : database.dump;
  const std::string part = dumps ? dump::PartOf(what) : "";
  const bool aside = IsAside(order, database);
  // Two ways to the same pages.
  const bool pages = method == v1::METHOD_ONLINE || method == v1::METHOD_FILE;
  if (pages && !order.full() && known && there && facts.has_value() && IsUnchanged(kept, *facts)) {
    kept.set_last_success_at_ms(ToUnixMillis(deps_.clock.Now()));
    kept.set_unchanged_at_ms(kept.last_success_at_ms());
    Remember(kept);
    EndGaps(order.database());
    result = ResultOf(absl::OkStatus());
    result.set_snapshot_id(kept.last_snapshot_id());
    result.add_steps("nothing has changed since this snapshot: its files were not written");
    return result;
  }
  if (files && (order.method() != v1::METHOD_UNSPECIFIED || order.has_dump())) {
    result = ResultOf(Error(absl::StatusCode::kInvalidArgument, "METHOD_UNSUPPORTED",
                            fmt::format("{} is plain files: no method of databases reads it", order.database()),
                            "order the backup without --method"));
  } else if (!pages && !dumps) {
    result = ResultOf(Error(absl::StatusCode::kUnimplemented, "METHOD_UNSUPPORTED",
                            "this agent makes ordered backups by the methods online, file and dump", "order the backup without --method"));
  } else {
    int32_t journal_mode = kept.journal_mode();
    upload::BackupOptions upload = deps_.backup;
    upload.spool.reserve = deps_.config()->disk_reserve;
    upload.spool.max_bytes = deps_.config()->spool_bytes;
    if (const auto level = database.compression_level.has_value() ? database.compression_level : deps_.config()->compression_level)
      upload.attempt.compression_level = upload.spool.compression_level = upload.changes_level = *level;
    upload::BackupJob job;
    job.operation_id = operation.operation_id();
    job.session_id = operation.session_id();
    job.database = order.database();
    job.timeline = kept.timeline();
    job.spool_file = deps_.state.SpoolFile(operation.operation_id());
    job.full = order.full();
    job.method = method;
    // A dump shares nothing with what the ledger knows.
    job.ledger = dumps || files ? nullptr : ledger;
    const std::optional<ledger::LedgerState> before = known && job.ledger != nullptr ? job.ledger->state() : std::nullopt;
    if (job.ledger != nullptr && !job.ledger->problem().empty())
      spdlog::warn("{}: the backup compares with the controller: {}", order.database(), job.ledger->problem());
    job.waits = [&](bool waits) { waits ? turn.Yield() : turn.Resume(cancel); };
    // Who ordered a backup wants it now, or to know why not; the next run of a schedule may be far.
    job.waits_for_locks = operation.by_schedule();
    hooks::PauseWatch pause(deps_.hooks, PauseHook(operation.by_schedule(), operation.operation_id(), order.database()), cancel,
                            deps_.pause_interval);
    pause.Begin();
    // An application that a hook has stopped is not left so for a pause.
    const bool stopped = !database.hooks.before_backup.empty();
    job.paused = [&pause, &turn, stopped] { return !stopped && pause.paused() && !turn.Awaited(); };
    job.give_up_at = std::chrono::steady_clock::now() + deps_.give_up;
    if (may_spool) job.offline_after = deps_.offline_after;
    const capture::OnlineOptions options = SourceOptions(database, cancel);
    BackupSource opener(method, FileSourceOptions(database, cancel));
    job.open = [&]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> {
      LF_ASSIGN_OR_RETURN(std::unique_ptr<capture::PageSource> source, opener.Open());
      return std::make_unique<NotingSource>(std::move(source), journal_mode);
    };
    job.still_kept = [&] { return opener.CheckCopy(); };
    job.drop_copy = [&] { opener.DropCopy(); };
    std::vector<std::string> notes;
    // Flash is not worn once more for what did not fit before; an ordered part may.
    job.stream_text = (dumps || files) && !aside && kept.outgrown_spool_bytes() >= upload.spool.max_bytes;
    if (dumps && job.stream_text) job.outgrown_database_bytes = kept.outgrown_database_bytes();
    if (dumps) {
      job.part = part;
      job.compatible = what.compatible;
      job.open_text = [&]() -> absl::StatusOr<std::unique_ptr<capture::TextSource>> {
        LF_ASSIGN_OR_RETURN(std::unique_ptr<capture::TextSource> source, capture::OpenDumpSource(options, what));
        journal_mode = source->info().wal ? v1::JOURNAL_MODE_WAL : v1::JOURNAL_MODE_ROLLBACK;
        return source;
      };
      job.open_text_of_copy = [&]() -> absl::StatusOr<std::unique_ptr<capture::TextSource>> {
        dump::HelperOptions helper;
        helper.time = std::chrono::duration_cast<std::chrono::seconds>(deps_.give_up);  // it waits for the link, and nobody for it
        LF_ASSIGN_OR_RETURN(std::unique_ptr<capture::TextSource> source, opener.OpenDumpOfCopy(what, helper));
        journal_mode = source->info().wal ? v1::JOURNAL_MODE_WAL : v1::JOURNAL_MODE_ROLLBACK;
        return source;
      };
    } else if (files) {
      job.text = v1::SNAPSHOT_CONTENT_FILES;
      job.open_text = [&, passes = 0]() mutable {
        capture::FilesOptions source = FilesOptionsOf(database, cancel);
        source.tolerant = ++passes > kFilesPasses;
        source.notes = [&notes](const std::vector<std::string>& told) { notes = told; };
        return capture::OpenFilesSource(source);
      };
    } else if (method == v1::METHOD_ONLINE) {
      job.open_precopy = [&] { return capture::OpenPrecopySource(options); };
    }
    const upload::BackupOutcome outcome = upload::RunBackup(job, upload, deps_.transport, deps_.rate, deps_.clock, cancel, progress);
    result = ResultOf(outcome.status);
    result.set_snapshot_id(outcome.snapshot_id);
    *result.mutable_progress() = outcome.progress;
    for (const std::string& step : outcome.steps) result.add_steps(step);
    for (const std::string& note : notes) result.add_steps(note);
    if (const std::string copied = opener.Describe(); !copied.empty()) result.add_steps(copied);
    for (const v1::HookRun& run : pause.runs()) *result.add_hooks() = run;
    kept.set_journal_mode(journal_mode);
    if (!aside && outcome.outgrew_spool) {
      kept.set_outgrown_spool_bytes(upload.spool.max_bytes);
      kept.set_outgrown_database_bytes(outcome.outgrown_database_bytes);
    } else if (!aside && job.open_text && outcome.status.ok()) {
      kept.clear_outgrown_spool_bytes();
      kept.clear_outgrown_database_bytes();
    }
    const auto after = job.ledger != nullptr ? job.ledger->state() : std::nullopt;
    misled = outcome.status.ok() && before.has_value() && after.has_value() &&
             (after->root != before->root || after->page_count != before->page_count) &&
             NoteMisled(database, kept.file_facts(), facts, kept);
  }
  if (misled) result.add_steps("the times of the database's files did not tell of this change: they are not believed for a while");
  if (result.state() == v1::OPERATION_STATE_CANCELLED || result.error().info().reason() == "CONTROLLER_OFFLINE") return result;
  const bool succeeded = result.state() == v1::OPERATION_STATE_SUCCEEDED;
  if (!aside) {
    kept.clear_last_error();
    if (!succeeded) kept.set_last_error(result.error().SerializeAsString());
  }
  if (succeeded && !part.empty()) {
    result.add_steps(fmt::format("the dump holds a part of the database only: {}", part));
  } else if (succeeded) {
    // Of whole snapshots: the next backup goes on from there, and a part ends no gap.
    kept.set_last_success_at_ms(ToUnixMillis(deps_.clock.Now()));
    kept.set_last_snapshot_id(result.snapshot_id());
    // As they were before anything was read: what is written later shows.
    kept.set_file_facts(facts.has_value() && facts->settled ? facts->text : "");
    kept.set_read_at_ms(kept.last_run_at_ms());
    kept.clear_unchanged_at_ms();
    EndGaps(order.database());
  }
  Remember(kept);
  return result;
}

absl::Status DeviceExecutor::WaitWhilePaused(const storage::v1::AgentOperation& operation, const std::string& database,
                                             const CancelToken& cancel, const std::function<void(const v1::Progress&)>& progress,
                                             control::Turn& turn) const {
  // What waits in the spool asks for itself.
  if (operation.drain()) return absl::OkStatus();
  hooks::PauseWatch pause(deps_.hooks, PauseHook(operation.by_schedule(), operation.operation_id(), database), cancel,
                          deps_.pause_interval);
  pause.Begin();
  const auto paused = [&] { return pause.paused() && !turn.Awaited(); };
  if (!paused()) return absl::OkStatus();
  v1::Progress phase;
  phase.set_phase("paused");
  progress(phase);
  turn.Yield();
  const SteadyTime until = std::chrono::steady_clock::now() + deps_.give_up;
  while (paused() && !cancel.cancelled() && std::chrono::steady_clock::now() < until) std::this_thread::sleep_for(kPauseLook);
  turn.Resume(cancel);
  if (cancel.cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "the backup was cancelled");
  if (!paused()) return absl::OkStatus();
  return Error(absl::StatusCode::kUnavailable, "BACKUP_PAUSED", "the pause hook of this device held the backup up until it was given up",
               "look at `[limits] pause_hook` of agent.toml; an ordered backup does not ask it");
}

hooks::Hook DeviceExecutor::PauseHook(bool by_schedule, const std::string& operation, const std::string& database) const {
  hooks::Hook hook;
  if (!by_schedule) return hook;
  hook.name = "pause";
  hook.program = deps_.config()->pause_hook;
  hook.environment = {{"LITEFLEET_DATABASE", database}, {"LITEFLEET_OPERATION", operation}};
  hook.timeout = kPauseHookTime;
  return hook;
}

v1::OperationResult DeviceExecutor::Heal(const storage::v1::AgentOperation& operation, const v1::HealOrder& order,
                                         const CancelToken& cancel, const std::function<void(const v1::Progress&)>& progress,
                                         control::Turn& turn) {
  const absl::StatusOr<config::DatabaseConfig> database = Configured(order.database());
  if (!database.ok()) return ResultOf(database.status());
  if (database->files) {
    return ResultOf(Error(absl::StatusCode::kFailedPrecondition, "HEAL_UNSUPPORTED",
                          fmt::format("{} is plain files, which have no pages", order.database()),
                          "back it up again: what the store lost is uploaded then"));
  }
  heal::HealJob job{.operation_id = operation.operation_id(),
                    .order = order,
                    .spool_file = deps_.state.SpoolFile(operation.operation_id()),
                    .reserve = deps_.config()->disk_reserve,
                    .open = {},
                    .give_up_at = std::chrono::steady_clock::now() + deps_.give_up,
                    .waits = [&](bool waits) { waits ? turn.Yield() : turn.Resume(cancel); }};
  job.open = [&]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> {
    return BackupSource(MethodOf(*database), FileSourceOptions(*database, cancel)).Open();
  };
  const heal::HealOutcome outcome = heal::RunHeal(job, deps_.sender, deps_.rate, cancel, progress);
  v1::OperationResult result = ResultOf(outcome.status);
  *result.mutable_progress() = outcome.progress;
  result.add_steps(fmt::format("{} of {} chunks that the store lost are still in the database", outcome.found, order.wanted_size()));
  return result;
}

bool DeviceExecutor::IsUnchanged(const storage::v1::AgentDatabase& kept, const capture::FileFacts& facts) const {
  return kept.last_error().empty() && !TimesMislead(kept) && IsAsRead(kept.file_facts(), kept.read_at_ms(), facts);
}

bool DeviceExecutor::TimesMislead(const storage::v1::AgentDatabase& kept) const {
  return kept.times_misled_at_ms() != 0 && deps_.clock.Now() < FromUnixMillis(kept.times_misled_at_ms()) + kMisled;
}

bool DeviceExecutor::NoteMisled(const config::DatabaseConfig& database, const std::string& then,
                                const std::optional<capture::FileFacts>& facts, storage::v1::AgentDatabase& kept) const {
  if (!facts.has_value() || !facts->settled || facts->text != then) return false;
  // What was written while it was read shows by now.
  const auto now = capture::FileFactsOf(database.path, deps_.clock.Now());
  if (!now.has_value() || now->text != then) return false;
  spdlog::warn("{}: its content has changed, and the times of its files did not tell: it is read at each run for {} days", database.name,
               kMisled.count() / 24);
  kept.set_times_misled_at_ms(ToUnixMillis(deps_.clock.Now()));
  return true;
}

bool DeviceExecutor::IsAsRead(const std::string& then, int64_t read_at_ms, const capture::FileFacts& facts) const {
  return capture::AreAsRead(facts, then, FromUnixMillis(read_at_ms), deps_.clock.Now());
}

}  // namespace litefleet
