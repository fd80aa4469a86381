// litefleet database list|show
#include "common/base/proto_time.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/database_size.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "controller/cli/time_spec.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

// The newest; `snapshot list` has all.
constexpr int kGapsShown = 10;

struct ListOptions {
  std::string device;
  bool stale = false;
  std::string stale_after = "24h";
};
struct ShowOptions {
  std::string database;
};

// Of a database that is not present: there is none, or what is there cannot be read.
std::string Absence(const v1::DatabaseHealth& health) {
  const std::string& reason = health.last_error().info().reason();
  return reason == "NOT_REGULAR_FILE" || reason == "NO_PERMISSION" ? "unreadable" : "missing";
}

CommandResult List(Session& session, const ListOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::ListDatabasesRequest all;
  all.set_device(options.device);
  if (options.stale) {
    LF_ASSIGN_OR_RETURN(const std::chrono::seconds after, ParseDuration(options.stale_after));
    *all.mutable_stale_after() = Seconds(after);
  }
  std::vector<v1::Database> databases;
  LF_RETURN_IF_ERROR(AllPages(all, [&](const v1::ListDatabasesRequest& request) -> absl::StatusOr<std::string> {
    LF_ASSIGN_OR_RETURN(const v1::ListDatabasesResponse response, client->ListDatabases(request));
    databases.insert(databases.end(), response.databases().begin(), response.databases().end());
    return response.next_page_token();
  }));
  if (session.json()) {
    Json items = Json::Array();
    for (const v1::Database& database : databases) items.Add(ToJson(database));
    session.PrintJsonList("database_list", std::move(items));
    return kDone;
  }
  if (session.format() == OutputFormat::kName) {
    for (const v1::Database& database : databases) session.Print(DatabaseName(database) + "\n");
    return kDone;
  }
  if (databases.empty()) {
    session.Note(options.stale ? fmt::format("no database whose newest snapshot is older than {}", options.stale_after)
                               : "no databases; they appear when a device connects");
    return kDone;
  }
  const SystemTime now = session.clock().Now();
  const bool wide = session.format() == OutputFormat::kWide;
  std::vector<Table::Column> columns = {{"DATABASE", false, true}, {"SIZE", true}, {"SNAPSHOTS", true},      {"NEWEST", true},
                                        {"PROVEN", true},          {"SCHEDULE"},   {"LAST RUN", false, true}};
  if (wide) columns.insert(columns.end(), {{"TIMELINE", true}, {"JOURNAL"}, {"WAL", true}, {"PATH"}});
  Table table(columns);
  for (const v1::Database& database : databases) {
    const v1::DatabaseHealth& health = database.health();
    const Cell last = health.has_last_error()       ? Cell(health.last_error().info().reason(), Tone::kBad)
                      : !health.waits_for().empty() ? Cell("waits", Tone::kDoubtful)
                      : health.has_last_run_at()    ? Cell("ok", Tone::kGood)
                                                    : Cell("-");
    std::vector<Cell> row = {
        DatabaseName(database),
        health.present() ? SizeText(SizeOf(database)) : Absence(health),
        std::to_string(database.snapshots()),
        database.has_newest_snapshot() ? Cell(AgeText(FromProtoTime(database.newest_snapshot().taken_at()), now))
                                       : Cell("never", Tone::kBad),
        database.has_newest_proven_at() ? Cell(AgeText(FromProtoTime(database.newest_proven_at()), now)) : Cell("never", Tone::kDoubtful),
        health.schedule().empty() ? "on order" : health.schedule(),
        last};
    if (wide)
      row.insert(row.end(),
                 {std::to_string(database.timeline()), Word(health.journal_mode()), SizeText(health.wal_bytes()), health.path()});
    table.Add(std::move(row));
  }
  session.Print(table.Text(session.style()));
  return kDone;
}

// "2026-11-22 14:03:00 +01:00 to ...: why"
std::string GapText(const v1::CoverageGap& gap) {
  return fmt::format("{} to {}: {} ({})", LocalTimeText(FromProtoTime(gap.from())),
                     gap.has_until() ? LocalTimeText(FromProtoTime(gap.until())) : "now", gap.message(), gap.reason());
}

CommandResult Show(Session& session, const ShowOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::GetDatabaseRequest request;
  request.set_database(options.database);
  LF_ASSIGN_OR_RETURN(const v1::GetDatabaseResponse response, client->GetDatabase(request));
  const v1::Database& database = response.database();
  v1::ListGapsRequest newest_gaps;
  newest_gaps.set_parent(options.database);
  newest_gaps.set_page_size(kGapsShown);
  LF_ASSIGN_OR_RETURN(const v1::ListGapsResponse gaps, client->ListGaps(newest_gaps));
  const SystemTime now = session.clock().Now();
  const v1::DatabaseHealth& health = database.health();
  Facts facts;
  facts.Add("database", DatabaseName(database)).AddIf("path", health.path());
  facts.Add("size", !health.present()     ? Absence(health) + " on the device"
                    : IsOfFiles(database) ? SizeText(SizeOf(database)) + " of files at the newest snapshot"
                                          : fmt::format("{}, WAL {}", SizeText(health.size_bytes()), SizeText(health.wal_bytes())));
  facts.AddIf("journal mode", Word(health.journal_mode()))
      .AddIf("method", Word(health.method()))
      .Add("schedule", health.schedule().empty() ? "on order only" : health.schedule());
  facts.Add("timeline", std::to_string(database.timeline())).Add("snapshots", std::to_string(database.snapshots()));
  if (database.has_newest_snapshot()) {
    const v1::Snapshot& newest = database.newest_snapshot();
    facts.Add("newest snapshot", fmt::format("{}, taken {} ({}), {}", newest.id(), LocalTimeText(FromProtoTime(newest.taken_at())),
                                             AgeText(FromProtoTime(newest.taken_at()), now), SizeText(newest.size_bytes())));
  }
  if (database.health().has_unchanged_at() && database.health().last_snapshot_id() == database.newest_snapshot().id())
    facts.Add("unchanged since", fmt::format("that, as of {}", LocalTimeText(FromProtoTime(database.health().unchanged_at()))));
  facts.Add("newest proven", database.has_newest_proven_at() ? LocalTimeText(FromProtoTime(database.newest_proven_at())) : "none");
  if (health.has_last_run_at()) facts.Add("last run", LocalTimeText(FromProtoTime(health.last_run_at())));
  if (!health.waits_for().empty())
    facts.Add("next run", fmt::format("waits since {}: {}", LocalTimeText(FromProtoTime(health.waits_since())), health.waits_for()));
  if (health.has_last_error()) {
    facts.Add("last error", fmt::format("{} ({})", health.last_error().message(), health.last_error().info().reason()))
        .AddIf("what to do", health.last_error().info().hint());
  }
  if (database.has_reported_at()) facts.Add("reported", AgeText(FromProtoTime(database.reported_at()), now));
  if (health.spooled_snapshots() > 0) {
    facts.Add("spooled", fmt::format("{} snapshots, {}, wait on the device", health.spooled_snapshots(), SizeText(health.spooled_bytes())));
  }
  for (const v1::Gap& gap : gaps.gaps()) facts.Add("gap", GapText(gap.gap()));
  if (!gaps.next_page_token().empty()) facts.Add("gaps", fmt::format("more: litefleet snapshot list {}", DatabaseName(database)));
  Json json = ToJson(database);
  Json list = Json::Array();
  for (const v1::Gap& gap : gaps.gaps()) list.Add(ToJson(gap));
  json.Set("gaps", std::move(list));
  PrintThing(session, "database", std::move(json), DatabaseName(database), facts.Text());
  return kDone;
}

}  // namespace

void AddDatabase(CLI::App& app, Session& session) {
  CLI::App* database = AddNoun(app, "database", "List and show databases and how old their backups are");

  auto list_options = std::make_shared<ListOptions>();
  CLI::App* list = database->add_subcommand("list", "List databases by device and name");
  list->add_option("DEVICE", list_options->device, "Only those of this device");
  list->add_flag("--stale", list_options->stale, "Only those whose newest snapshot is too old, or that have none");
  list->add_option("--stale-after", list_options->stale_after, "What --stale calls too old")->type_name("DURATION")->default_str("24h");
  OnCall(list, session, list_options, &List);

  auto show_options = std::make_shared<ShowOptions>();
  CLI::App* show = database->add_subcommand("show", "Show one database");
  show->add_option("DEVICE/DATABASE", show_options->database, "Device and database")->required();
  OnCall(show, session, show_options, &Show);
}

}  // namespace litefleet::cli
