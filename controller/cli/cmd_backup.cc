// litefleet backup DEVICE/DATABASE... | --selector k=v
#include "common/base/ids.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "controller/cli/time_spec.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

struct BackupOptions : LongActionOptions {
  std::vector<std::string> databases;
  std::string selector;
  std::string method;
  bool full = false;
  bool compatible = false;
  std::vector<std::string> tables;
  std::vector<std::string> without_tables;
  bool schema_only = false;
  bool data_only = false;
};

// Options of a dump make it one.
absl::Status SetMethod(const BackupOptions& options, v1::StartBackupsRequest& request) {
  const bool dumps =
      options.compatible || !options.tables.empty() || !options.without_tables.empty() || options.schema_only || options.data_only;
  if (dumps && options.method != "dump") {
    return Error(absl::StatusCode::kInvalidArgument, "DUMP_OPTIONS_INVALID", "options of a dump without the method dump",
                 "add --method dump");
  }
  if (options.method == "online") request.set_method(v1::METHOD_ONLINE);
  if (options.method == "file") request.set_method(v1::METHOD_FILE);
  if (options.method == "dump") request.set_method(v1::METHOD_DUMP);
  if (!dumps) return absl::OkStatus();
  v1::DumpOptions& dump = *request.mutable_dump();
  dump.set_compatible(options.compatible);
  for (const std::string& table : options.tables) dump.add_tables(table);
  for (const std::string& table : options.without_tables) dump.add_without_tables(table);
  dump.set_schema_only(options.schema_only);
  dump.set_data_only(options.data_only);
  return absl::OkStatus();
}

// The state is backed up exactly as it is; that SQLite complains of it is a warning, not a failure. What SQLite says is mostly not known
// yet: the controller lets it look at the copy a few seconds later.
void WarnOfDamage(Session& session, AdminClient& client, const v1::Operation& operation, bool single) {
  if (operation.state() != v1::OPERATION_STATE_SUCCEEDED || operation.snapshot_id().empty()) return;
  v1::GetSnapshotRequest request;
  request.set_snapshot(operation.snapshot_id());
  const auto response = client.GetSnapshot(request);
  if (!response.ok()) return;
  const v1::Snapshot& snapshot = response->snapshot();
  if (snapshot.source_check() == v1::CHECK_STATE_DAMAGED) {
    session.Warn(
        fmt::format("{} is damaged on the device and was backed up as it is: {}", DatabaseName(snapshot), snapshot.source_check_message()));
    return;
  }
  if (snapshot.check() != v1::CHECK_STATE_PENDING && snapshot.check() != v1::CHECK_STATE_UNKNOWN) return;
  // Until there is a verdict that on the state before counts: pages do not heal by themselves.
  if (!snapshot.parent_id().empty()) {
    request.set_snapshot(snapshot.parent_id());
    const auto parent = client.GetSnapshot(request);
    if (parent.ok() && parent->snapshot().source_check() == v1::CHECK_STATE_DAMAGED) {
      session.Warn(fmt::format("{} was damaged on the device in its snapshot before: {}", DatabaseName(snapshot),
                               parent->snapshot().source_check_message()));
    }
  }
  if (single && session.format() == OutputFormat::kTable && snapshot.content() != v1::SNAPSHOT_CONTENT_FILES) {
    session.Note(fmt::format("its check by SQLite waits: litefleet snapshot show {}", snapshot.id()));
  }
}

CommandResult Backup(Session& session, const BackupOptions& options) {
  v1::StartBackupsRequest request;
  if (options.databases.empty() == options.selector.empty()) {
    return Error(absl::StatusCode::kInvalidArgument, "BACKUP_TARGET_INVALID",
                 options.selector.empty() ? "no database was named" : "databases and --selector exclude each other",
                 "for instance: litefleet backup kiosk-7/orders, or: litefleet backup --selector site=oslo");
  }
  for (const std::string& database : options.databases) request.add_databases(database);
  request.set_selector(options.selector);
  LF_RETURN_IF_ERROR(SetMethod(options, request));
  request.set_full(options.full);
  LF_ASSIGN_OR_RETURN(const std::chrono::seconds expire, ParseDuration(options.expire));
  LF_RETURN_IF_ERROR(ParseDuration(options.timeout).status());
  *request.mutable_expire() = Seconds(expire);
  request.set_request_id(NewUlid(session.clock().Now()));
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  LF_ASSIGN_OR_RETURN(v1::StartBackupsResponse response, client->StartBackups(request));
  std::vector<v1::Operation> operations(response.operations().begin(), response.operations().end());
  const bool single = options.databases.size() == 1 && operations.size() == 1;
  std::vector<std::string> ids;
  for (const v1::Operation& operation : operations) ids.push_back(operation.id());
  LF_ASSIGN_OR_RETURN(const int code, FinishOperations(session, std::move(operations), options, single));
  if (!options.detach && code != kInterrupted && code != kUnreachable) {
    for (const std::string& id : ids) {
      v1::GetOperationRequest get;
      get.set_operation(id);
      if (const auto ended = client->GetOperation(get); ended.ok()) WarnOfDamage(session, *client, ended->operation(), single);
    }
  }
  return code;
}

}  // namespace

void AddBackup(CLI::App& app, Session& session) {
  auto options = std::make_shared<BackupOptions>();
  CLI::App* backup = app.add_subcommand("backup", "Back databases and files up now");
  backup->add_option("DATABASES", options->databases, "DEVICE/DATABASE, one or more");
  backup->add_option("-l,--selector", options->selector, "All databases of the devices with all these labels")->type_name("KEY=VALUE,...");
  backup->add_option("--method", options->method, "How the database is read; as the device is configured if not given")
      ->check(CLI::IsMember({"online", "file", "dump"}))
      ->type_name("METHOD");
  backup->add_flag("--compatible", options->compatible, "Dump: the text of the sqlite3 CLI 3.40.1, also where it loses something");
  backup->add_option("--table", options->tables, "Dump: only this table with its indexes and triggers; repeatable")
      ->expected(1)
      ->take_all()
      ->type_name("NAME");
  backup->add_option("--without-table", options->without_tables, "Dump: all but this table; repeatable")
      ->expected(1)
      ->take_all()
      ->type_name("NAME");
  backup->add_flag("--schema-only", options->schema_only, "Dump: no rows")
      ->excludes(backup->add_flag("--data-only", options->data_only, "Dump: rows alone; such a text cannot be loaded by itself"));
  backup->add_flag("--full", options->full, "Read and compare everything, whatever the device remembers of earlier backups");
  AddLongActionOptions(backup, *options, true);
  backup->footer(
      "Waits until all have ended. Ctrl-C detaches, the backups go on.\n\n"
      "Examples:\n  litefleet backup kiosk-7/orders\n  litefleet backup --selector site=oslo --detach\n"
      "  id=$(litefleet backup kiosk-7/orders -o name)     the id of the new snapshot\n"
      "  litefleet backup kiosk-7/orders --method dump --without-table cache");
  OnCall(backup, session, options, &Backup);
}

}  // namespace litefleet::cli
