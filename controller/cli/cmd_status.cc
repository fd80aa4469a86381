// litefleet status
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

constexpr int kAlarmsShown = 20;

// Of the databases that were never proven, `count` of them, the one whose newest snapshot is the oldest, or that has none.
absl::StatusOr<std::string> OldestUnproven(AdminClient& client, int count) {
  std::string oldest;
  SystemTime its_newest;
  LF_RETURN_IF_ERROR(AllPages(v1::ListDatabasesRequest(), [&](const v1::ListDatabasesRequest& request) -> absl::StatusOr<std::string> {
    LF_ASSIGN_OR_RETURN(const v1::ListDatabasesResponse response, client.ListDatabases(request));
    for (const v1::Database& database : response.databases()) {
      if (database.has_newest_proven_at()) continue;
      --count;
      const SystemTime newest = database.has_newest_snapshot() ? FromProtoTime(database.newest_snapshot().taken_at()) : SystemTime();
      if (!oldest.empty() && newest >= its_newest) continue;
      oldest = DatabaseName(database);
      its_newest = newest;
    }
    return count > 0 ? response.next_page_token() : std::string();
  }));
  return oldest;
}

CommandResult Status(Session& session) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  LF_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, client->GetStatus(v1::GetStatusRequest()));
  if (session.json()) {
    session.PrintJson("status", ToJson(status));
    return kDone;
  }
  const SystemTime now = session.clock().Now();
  Facts facts;
  // The first number: how old is, in the worst case, the last state that is proven to be restorable.
  std::string proven;
  if (status.databases_unproven() > 0) {
    LF_ASSIGN_OR_RETURN(const std::string oldest, OldestUnproven(*client, status.databases_unproven()));
    proven = fmt::format("never for {} of {} databases{}", status.databases_unproven(), status.databases(),
                         oldest.empty() ? "" : fmt::format(", {} waits longest", oldest));
  }
  if (status.has_oldest_proven_at()) {
    proven += fmt::format("{}{}, {}, taken {}", proven.empty() ? "" : "; else ", AgeText(FromProtoTime(status.oldest_proven_at()), now),
                          status.oldest_proven_database(), LocalTimeText(FromProtoTime(status.oldest_proven_at())));
  }
  facts.Add("last proven", proven.empty() ? "no database yet" : proven);
  facts.Add("devices", fmt::format("{}, {} connected", status.devices(), status.devices_connected()));
  facts.Add("databases", status.databases_without_snapshot() == 0
                             ? std::to_string(status.databases())
                             : fmt::format("{}, {} without any snapshot", status.databases(), status.databases_without_snapshot()));
  facts.Add("snapshots", fmt::format("{}, {} of databases in {} of store", status.snapshots(), SizeText(status.logical_bytes()),
                                     SizeText(status.store_bytes())));
  v1::ListSnapshotsRequest newest;
  newest.set_page_size(1);
  LF_ASSIGN_OR_RETURN(const v1::ListSnapshotsResponse newest_of_all, client->ListSnapshots(newest));
  if (!newest_of_all.snapshots().empty()) {
    const v1::Snapshot& snapshot = newest_of_all.snapshots(0);
    facts.Add("newest backup", fmt::format("{} ({}), taken {}", DatabaseName(snapshot), AgeText(FromProtoTime(snapshot.taken_at()), now),
                                           LocalTimeText(FromProtoTime(snapshot.taken_at()))));
  }
  if (status.has_oldest_newest_snapshot_at()) {
    facts.Add("oldest backup", fmt::format("{} ({}), taken {}", status.oldest_newest_snapshot_database(),
                                           AgeText(FromProtoTime(status.oldest_newest_snapshot_at()), now),
                                           LocalTimeText(FromProtoTime(status.oldest_newest_snapshot_at()))));
  }
  if (status.quarantined_chunks() > 0 || status.damaged_snapshots() > 0) {
    facts.Add("damage", fmt::format("{} chunks, {} of them asked for; {} snapshots", status.quarantined_chunks(), status.wanted_chunks(),
                                    status.damaged_snapshots()));
  }
  if (status.holds() > 0) facts.Add("holds", fmt::format("{} on retention: litefleet store hold list", status.holds()));
  facts.Add("operations", fmt::format("{} under way", status.active_operations()));
  facts.Add("store free", SizeText(status.store_free_bytes()));
  if (status.has_catalog_backup_at()) {
    facts.Add("catalog backup", AgeText(FromProtoTime(status.catalog_backup_at()), now));
  }
  std::string text = facts.Text(session.style().width);
  if (status.alarms().empty()) {
    text += Toned("no alarms", Tone::kGood, session.style()) + "\n";
  } else {
    Table table({{"ALARM"}, {"WHERE", false, true}, {"WHAT", false, true}});
    int shown = 0;
    for (const v1::Alarm& alarm : status.alarms()) {
      if (session.format() != OutputFormat::kWide && ++shown > kAlarmsShown) break;
      table.Add({Cell(alarm.reason(), Tone::kBad), alarm.subject().empty() ? "controller" : alarm.subject(), alarm.message()});
    }
    text += "\n" + table.Text(session.style());
    if (session.format() != OutputFormat::kWide && status.alarms_size() > kAlarmsShown) {
      text += fmt::format("and {} more: litefleet status -o wide\n", status.alarms_size() - kAlarmsShown);
    }
  }
  session.Print(text);
  return kDone;
}

}  // namespace

void AddStatus(CLI::App& app, Session& session) {
  CLI::App* status = app.add_subcommand("status", "The fleet on one screen: devices, newest backups, oldest unproven, alarms");
  OnCall(status, session, &Status);
}

}  // namespace litefleet::cli
