#include "agent/local_commands.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <set>
#include <utility>

#include "agent/config/own_places.h"
#include "agent/control/operation_queue.h"
#include "agent/hooks/database_hooks.h"
#include "agent/restore/archive_file.h"
#include "agent/restore/local_restorer.h"
#include "agent/restore/snapshot_file.h"
#include "agent/restore/undo.h"
#include "agent/rules/order_rules.h"
#include "agent/state/state_directory.h"
#include "common/base/bytes.h"
#include "common/base/error_detail.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet {
namespace {

using Code = absl::StatusCode;

constexpr int kLookMillis = 50;

struct Signals {
  CancelToken cancel;  // of what this command does
  CancelToken end;     // interrupted: what a former one has begun goes on later
};

// For the handler of SIGINT and SIGTERM: stores into atomics are all that it does.
Signals* raised_by_signal = nullptr;

void OnSignal(int) {
  if (raised_by_signal == nullptr) return;
  raised_by_signal->end.Interrupt();
  raised_by_signal->cancel.Cancel();
}

// Until the object goes, SIGINT and SIGTERM cancel.
class SignalCancels {
 public:
  SignalCancels() {
    raised_by_signal = &signals_;
    for (const int number : {SIGINT, SIGTERM}) signal(number, OnSignal);
  }
  ~SignalCancels() {
    for (const int number : {SIGINT, SIGTERM}) signal(number, SIG_DFL);
    raised_by_signal = nullptr;
  }
  SignalCancels(const SignalCancels&) = delete;
  SignalCancels& operator=(const SignalCancels&) = delete;

  const CancelToken& cancel() const { return signals_.cancel; }
  const CancelToken& end() const { return signals_.end; }

 private:
  Signals signals_;
};

absl::Status Ask(bool yes, std::string_view question, const CancelToken& cancel) {
  if (yes) return absl::OkStatus();
  if (isatty(STDIN_FILENO) != 1)
    return Error(Code::kInvalidArgument, "NEEDS_YES", "there is no terminal to ask at", "say --yes where it is meant so");
  fmt::print(stderr, "{} [y/N] ", question);
  // A terminal has something to read once the line is complete.
  pollfd terminal{STDIN_FILENO, POLLIN, 0};
  while (!cancel.cancelled() && poll(&terminal, 1, kLookMillis) <= 0) {}
  if (cancel.cancelled()) return Error(Code::kCancelled, "CANCELLED", "it was interrupted, and nothing was done");
  std::string answer;
  std::getline(std::cin, answer);
  if (answer == "y" || answer == "Y" || answer == "yes") return absl::OkStatus();
  return Error(Code::kCancelled, "NOT_CONFIRMED", "nothing was done");
}

absl::StatusOr<config::DatabaseConfig> Find(const config::AgentConfig& config, const std::string& name) {
  if (const config::DatabaseConfig* const database = config.Find(name); database != nullptr) return *database;
  return Error(Code::kNotFound, "DATABASE_UNKNOWN", fmt::format("agent.toml has no database \"{}\"", name),
               "the names of its [[database]] tables are meant");
}

restore::Target TargetOf(const config::AgentConfig& config, const config::DatabaseConfig& database,
                         const storage::v1::AgentDatabase& kept) {
  restore::Target target{database.name,          database.path, "allow", config.disk_reserve, {kept.copy_bytes_per_second()},
                         database.rollback_stall};
  target.files = database.files;
  for (const config::DatabaseConfig& each : config.databases) {
    if (!each.files) target.databases.push_back(each.path);
  }
  return target;
}

void PrintPlan(const v1::RestorePlan& plan) {
  for (const std::string& step : plan.steps()) fmt::print(stderr, "  * {}\n", step);
  for (const v1::ErrorDetail& obstacle : plan.obstacles())
    fmt::print(stderr, "  it would be refused: {} ({})\n", obstacle.message(), obstacle.info().reason());
}

// What both commands need: the lock, the state, a restorer with the device's hooks.
struct Workplace {
  state::StateDirectory state;
  io::ProcessLock lock;
  std::unique_ptr<restore::LocalRestorer> restorer;
  std::unique_ptr<hooks::ProcessHookRunner> runner;
};

absl::StatusOr<Workplace> Open(const config::AgentConfig& config, restore::PageFetcher& fetcher) {
  LF_ASSIGN_OR_RETURN(state::StateDirectory state, state::StateDirectory::Open(config.state));
  absl::StatusOr<io::ProcessLock> lock = state.Lock();
  if (!lock.ok()) {
    return WithReason(lock.status(), ReasonOf(lock.status()),
                      "stop the agent first (systemctl stop litefleet-agent), and start it afterwards");
  }
  restore::RestorerOptions options;
  options.state_folder = state.restore_path();
  options.apply.allow_network_fs = config.allow_network_file_system;
  auto runner = std::make_unique<hooks::ProcessHookRunner>();
  options.hooks = [&config, runner = runner.get()](const hooks::HookFacts& facts) -> std::unique_ptr<hooks::DatabaseHooks> {
    const config::DatabaseConfig* const database = config.Find(facts.database);
    if (database == nullptr) return nullptr;
    return std::make_unique<hooks::DatabaseHooks>(*runner, ProgramsOf(config, *database), facts);
  };
  LF_ASSIGN_OR_RETURN(std::unique_ptr<restore::LocalRestorer> restorer, restore::LocalRestorer::Open(options, fetcher));
  return Workplace{std::move(state), *std::move(lock), std::move(restorer), std::move(runner)};
}

// What the controller is told when the agent runs again, and what the device remembers.
absl::Status Finish(const Workplace& place, const std::string& operation, v1::OperationKind kind, const v1::RestoreOrder& order,
                    const restore::Outcome& outcome) {
  for (const std::string& step : outcome.steps) fmt::print(stderr, "  * {}\n", step);
  v1::OperationResult result;
  result.set_operation_id(operation);
  result.set_kind(kind);
  result.set_database(order.database());
  result.set_state(outcome.status.ok()                 ? v1::OPERATION_STATE_SUCCEEDED
                   : absl::IsCancelled(outcome.status) ? v1::OPERATION_STATE_CANCELLED
                                                       : v1::OPERATION_STATE_FAILED);
  if (!outcome.status.ok()) *result.mutable_error() = ToErrorDetail(outcome.status);
  result.set_undo(outcome.undo);
  result.set_restore_mode(outcome.mode);
  result.add_steps("ordered on the device");
  for (const std::string& step : outcome.steps) result.add_steps(step);
  for (const v1::HookRun& run : outcome.hooks) *result.add_hooks() = run;
  *result.mutable_ended_at() = ToProtoTime(RealClock().Now());
  LF_RETURN_IF_ERROR(place.state.WriteResult(result));
  LF_RETURN_IF_ERROR(place.restorer->Forget(operation));
  if (outcome.status.ok()) {
    fmt::print("{}: done{}\n", order.database(), outcome.undo.empty() ? "" : "; the previous state is kept as " + outcome.undo);
  }
  return outcome.status;
}

// One that a former call or the agent left is finished or rolled back first.
absl::Status Recover(const Workplace& place, const CancelToken& end) {
  std::vector<std::string> damaged;
  std::set<std::string> active;
  if (const auto operations = place.state.ReadOperations(damaged); operations.ok()) {
    for (const auto& operation : *operations) active.insert(operation.operation_id());
  }
  const restore::LocalRestorer::Recovery recovery = place.restorer->Recover(active, end);
  for (const auto& ended : recovery.ended)
    static_cast<void>(
        Finish(place, ended.operation_id, ended.undo ? v1::OPERATION_KIND_UNDO : v1::OPERATION_KIND_RESTORE, ended.order, ended.outcome));
  if (!end.interrupted()) return absl::OkStatus();
  return Error(Code::kCancelled, "CANCELLED",
               "it was interrupted before it began; what a former restore had begun goes on at the next start");
}

// What lies on the device, and what of it the order says.
struct Source {
  std::unique_ptr<restore::PageFetcher> fetcher;
  v1::RestoreOrder order;
  bool text = false;  // its root is that of what was made of it here
};

absl::StatusOr<Source> OpenSource(const config::AgentConfig& config, const config::DatabaseConfig& database, const std::string& from,
                                  const CancelToken& cancel) {
  if (database.files) {
    LF_ASSIGN_OR_RETURN(std::unique_ptr<restore::ArchiveFile> archive, restore::ArchiveFile::Open(from, cancel));
    v1::RestoreOrder order = archive->Order();
    return Source{std::move(archive), std::move(order)};
  }
  LF_ASSIGN_OR_RETURN(std::unique_ptr<restore::SnapshotFile> file,
                      restore::SnapshotFile::Open(from, {io::DirectoryOf(database.path), config.disk_reserve}, cancel));
  v1::RestoreOrder order = file->Order();
  const bool text = file->loaded();
  return Source{std::move(file), std::move(order), text};
}

// An undo fetches nothing.
class NoFetcher final : public restore::PageFetcher {
 public:
  absl::Status Fetch(const std::string&, const v1::RestoreOrder&, uint32_t, const CancelToken&,
                     const std::function<absl::Status(const restore::FetchedExtent&)>&) override {
    return Nothing();
  }
  absl::Status FetchNames(const std::string&, const v1::RestoreOrder&, const CancelToken&,
                          const std::function<absl::Status(std::span<const format::ChunkName>)>&) override {
    return Nothing();
  }
  absl::Status FetchPages(const std::string&, const v1::RestoreOrder&, const restore::WantedPages&, const CancelToken&,
                          const std::function<absl::Status(const restore::FetchedPages&)>&) override {
    return Nothing();
  }

 private:
  static absl::Status Nothing() { return Error(Code::kInternal, "NOTHING_TO_FETCH", "an undo fetches nothing"); }
};

// As the agent's: shown at most once for each phase.
std::function<void(const v1::Progress&)> PrintPhases() {
  return [last = std::string()](const v1::Progress& progress) mutable {
    if (progress.phase() == last) return;
    last = progress.phase();
    fmt::print(stderr, "{} ...\n", last);
  };
}

}  // namespace

hooks::HookPrograms ProgramsOf(const config::AgentConfig& config, const config::DatabaseConfig& database) {
  return {config.hooks_directory,        database.hooks.before_backup, database.hooks.after_backup,
          database.hooks.before_restore, database.hooks.after_restore, database.hooks.timeout};
}

absl::Status RestoreLocal(const config::AgentConfig& config, const LocalRestoreOptions& options) {
  LF_ASSIGN_OR_RETURN(const config::DatabaseConfig database, Find(config, options.database));
  const SignalCancels signals;
  if (database.files) LF_RETURN_IF_ERROR(config::CheckOwn(database, config, options.config_path));
  LF_ASSIGN_OR_RETURN(Source source, OpenSource(config, database, options.from, signals.cancel()));
  v1::RestoreOrder& order = source.order;
  if (!options.root.empty() && source.text) {
    return Error(Code::kInvalidArgument, "ROOT_OF_TEXT",
                 fmt::format("{} is SQL text, which has no root digest of a database", options.from),
                 "leave --root out, and compare the file with the one that was downloaded, for instance by sha256sum");
  }
  if (!options.root.empty() && options.root != ToHex(AsBytes(order.root_digest()))) {
    return Error(Code::kDataLoss, "ROOT_MISMATCH",
                 fmt::format("{} has the root digest {}", options.from, ToHex(AsBytes(order.root_digest()))),
                 "it is not the snapshot that is meant, or it was damaged on its way");
  }
  LF_ASSIGN_OR_RETURN(const Workplace place, Open(config, *source.fetcher));
  LF_RETURN_IF_ERROR(Recover(place, signals.end()));
  LF_ASSIGN_OR_RETURN(const storage::v1::AgentDatabase kept, place.state.ReadDatabase(database.name));
  order.set_database(database.name);
  // Timelines are the controller's to give.
  order.set_new_timeline(kept.timeline());
  order.set_check_override(options.ignore_check);
  if (options.mode == "live") order.set_mode(v1::RESTORE_MODE_LIVE);
  if (options.mode == "replace") order.set_mode(v1::RESTORE_MODE_REPLACE);
  const restore::Target target = TargetOf(config, database, kept);
  LF_ASSIGN_OR_RETURN(const v1::RestorePlan plan, place.restorer->Plan(order, target));
  if (options.plan || !options.yes || plan.obstacles_size() > 0) PrintPlan(plan);
  if (plan.obstacles_size() > 0) return FromErrorDetail(plan.obstacles(0));
  if (options.plan) return absl::OkStatus();
  const std::string question = database.files ? fmt::format("Put the files of {} in their places below {}?", options.from, database.path)
                                              : fmt::format("Put {} in the place of {}?", options.from, database.path);
  LF_RETURN_IF_ERROR(Ask(options.yes, question, signals.cancel()));
  const std::string operation = NewUlid(RealClock().Now());
  const restore::Outcome outcome = place.restorer->Run(operation, order, target, signals.cancel(), PrintPhases());
  return Finish(place, operation, v1::OPERATION_KIND_RESTORE, order, outcome);
}

namespace {

// Nothing is undone: what is kept goes.
absl::Status DropUndo(const Workplace& place, const config::DatabaseConfig& database, const LocalRestoreOptions& options,
                      const CancelToken& cancel) {
  LF_ASSIGN_OR_RETURN(const auto undos, place.restorer->ListUndos());
  const auto kept = std::find_if(undos.begin(), undos.end(), [&](const auto& undo) { return undo.database() == database.name; });
  if (kept == undos.end()) {
    return Error(Code::kNotFound, "UNDO_MISSING", fmt::format("nothing is kept of {} from before a restore", database.name),
                 "there is nothing to drop");
  }
  const std::string what = restore::Removes(*kept)
                               ? fmt::format("what is kept of when there was no database at {}", kept->path())
                               : fmt::format("{}, the state of {} before the last restore", kept->undo(), database.name);
  if (options.plan || !options.yes) fmt::print(stderr, "  * remove {}; the restore cannot be undone any more\n", what);
  if (options.plan) return absl::OkStatus();
  LF_RETURN_IF_ERROR(Ask(options.yes, "Remove it for good?", cancel));
  LF_RETURN_IF_ERROR(place.restorer->DropUndo(database.name).status());
  fmt::print("{}: {} is removed\n", database.name, what);
  return absl::OkStatus();
}

}  // namespace

absl::Status UndoLocal(const config::AgentConfig& config, const LocalRestoreOptions& options) {
  LF_ASSIGN_OR_RETURN(const config::DatabaseConfig database, Find(config, options.database));
  const SignalCancels signals;
  NoFetcher nothing;
  LF_ASSIGN_OR_RETURN(const Workplace place, Open(config, nothing));
  LF_RETURN_IF_ERROR(Recover(place, signals.end()));
  if (options.drop) return DropUndo(place, database, options, signals.cancel());
  LF_ASSIGN_OR_RETURN(const storage::v1::AgentDatabase kept, place.state.ReadDatabase(database.name));
  v1::UndoOrder undo;
  undo.set_database(database.name);
  undo.set_new_timeline(kept.timeline());
  const restore::Target target = TargetOf(config, database, kept);
  const v1::RestorePlan plan = place.restorer->PlanUndo(undo, target);
  if (options.plan || !options.yes || plan.obstacles_size() > 0) PrintPlan(plan);
  if (plan.obstacles_size() > 0) return FromErrorDetail(plan.obstacles(0));
  if (options.plan) return absl::OkStatus();
  LF_RETURN_IF_ERROR(Ask(options.yes, fmt::format("Put the previous state of {} back?", database.path), signals.cancel()));
  const std::string operation = NewUlid(RealClock().Now());
  const restore::Outcome outcome = place.restorer->Undo(operation, undo, target, signals.cancel(), PrintPhases());
  v1::RestoreOrder order;
  order.set_database(database.name);
  order.set_new_timeline(undo.new_timeline());
  return Finish(place, operation, v1::OPERATION_KIND_UNDO, order, outcome);
}

absl::Status Confirm(const config::AgentConfig& config, const LocalRestoreOptions& options) {
  LF_ASSIGN_OR_RETURN(const state::StateDirectory state, state::StateDirectory::Open(config.state));
  std::vector<std::string> damaged;
  LF_ASSIGN_OR_RETURN(const auto operations, state.ReadOperations(damaged));
  for (const storage::v1::AgentOperation& operation : operations) {
    if (operation.operation_id() != options.operation) continue;
    v1::Order order;
    if (!order.ParseFromString(operation.order())) break;
    const config::DatabaseConfig* const database = config.Find(control::DatabaseOf(order));
    if (database == nullptr || database->push_restore != "local-confirm" || !rules::NeedsLeave(order)) {
      return Error(Code::kFailedPrecondition, "NOTHING_TO_CONFIRM", fmt::format("operation {} needs no confirmation", options.operation));
    }
    const std::string_view what = order.has_restore() ? "restore" : order.has_undo() ? "undo of the last restore" : "removal of the undo";
    fmt::print(stderr, "{} of {} ({}){}, ordered until {}\n", what, database->name, database->path,
               order.has_restore() ? ", snapshot " + order.restore().snapshot_id() : "", FormatRfc3339(FromProtoTime(order.expires_at())));
    const SignalCancels signals;
    LF_RETURN_IF_ERROR(Ask(options.yes, fmt::format("Let {} be changed?", database->path), signals.cancel()));
    LF_RETURN_IF_ERROR(state.WriteConfirmation(order));
    // It may have ended while somebody was asked: what nobody waits for any more is not left behind.
    if (!state.HasOperation(options.operation)) {
      LF_RETURN_IF_ERROR(state.RemoveConfirmation(options.operation));
      break;
    }
    fmt::print("{} is confirmed\n", options.operation);
    return absl::OkStatus();
  }
  return Error(Code::kNotFound, "OPERATION_NOT_FOUND", fmt::format("no operation {} waits on this device", options.operation),
               "`litefleet-agent status` lists those that do");
}

}  // namespace litefleet
