// litefleet store stats|prune|scrub|trash list|trash restore|hold list|hold release
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/config/toml_reader.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "controller/cli/time_spec.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

struct PruneOptions : LongActionOptions {
  bool dry_run = false;
  bool yes = false;
  std::string grace;
};
struct ScrubOptions : LongActionOptions {
  std::string rate;
};
struct SubjectOptions {
  std::string subject;
};

std::string Ratio(int64_t of, int64_t to) {
  return to > 0 ? fmt::format("{:.2f}", static_cast<double>(of) / static_cast<double>(to)) : "-";
}

CommandResult Stats(Session& session) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  LF_ASSIGN_OR_RETURN(const v1::GetStoreStatsResponse stats, client->GetStoreStats(v1::GetStoreStatsRequest()));
  if (session.json()) {
    session.PrintJson("store_stats", ToJson(stats));
    return kDone;
  }
  Facts facts;
  facts.Add("snapshots", fmt::format("{}, {} of databases", stats.snapshots(), SizeText(stats.logical_bytes())));
  facts.Add("store", fmt::format("{} in {} packs", SizeText(stats.store_bytes()), stats.packs()));
  facts.Add("live", SizeText(stats.live_bytes())).Add("dead", SizeText(stats.dead_bytes()));
  facts.Add("trash", fmt::format("{} snapshots; {} chunks with {} that nothing needs", stats.trash_snapshots(), stats.trash_chunks(),
                                 SizeText(stats.trash_bytes())));
  facts.Add("chunks", std::to_string(stats.chunks()));
  facts.Add("deduplication", Ratio(stats.logical_bytes(), stats.chunk_raw_bytes()))
      .Add("compression", Ratio(stats.chunk_raw_bytes(), stats.chunk_stored_bytes()));
  facts.Add("growth", SizeText(stats.growth_bytes_per_day()) + " a day");
  if (stats.has_last_prune_at()) {
    facts.Add("last prune", fmt::format("{}: {} removed, {} copied", LocalTimeText(FromProtoTime(stats.last_prune_at())),
                                        SizeText(stats.last_prune().bytes_removed()), SizeText(stats.last_prune().bytes_copied())));
  }
  if (stats.has_catalog_backups()) {
    const v1::CatalogBackups& backups = stats.catalog_backups();
    facts.Add("catalog backups", fmt::format("{} of {} with {}, the newest {}", backups.count(), backups.keep(), SizeText(backups.bytes()),
                                             backups.has_newest_at() ? LocalTimeText(FromProtoTime(backups.newest_at())) : "never"));
  }
  session.Print(facts.Text());
  if (stats.devices().empty()) return kDone;
  Table table({{"DEVICE", false, true},
               {"SNAPSHOTS", true},
               {"DATABASES", true},
               {"STORED", true},
               {"A DAY", true},
               {"HELD", true},
               {"QUOTA", true}});
  for (const v1::DeviceUsage& device : stats.devices()) {
    const bool full = device.quota_bytes() > 0 && device.held_bytes() >= device.quota_bytes();
    table.Add({device.device_name(), std::to_string(device.snapshots()), SizeText(device.logical_bytes()), SizeText(device.stored_bytes()),
               SizeText(device.growth_bytes_per_day()),
               full ? Cell(SizeText(device.held_bytes()), Tone::kBad) : Cell(SizeText(device.held_bytes())),
               device.quota_bytes() > 0 ? SizeText(device.quota_bytes()) : "-"});
  }
  session.Print("\n" + table.Text(session.style()));
  return kDone;
}

std::string ReportText(const v1::PruneReport& report) {
  const std::string would = report.dry_run() ? "would be " : "";
  Facts facts;
  facts.Add("snapshots", fmt::format("{} {}removed from the trash{}", report.snapshots_removed(), would,
                                     report.snapshots_held() > 0 ? fmt::format(", {} still in use", report.snapshots_held()) : ""));
  facts.Add("chunks",
            fmt::format("{} needed, {} ({}) {}put into the trash, {} ({}) {}swept", report.chunks_marked(), report.chunks_trashed(),
                        SizeText(report.bytes_trashed()), would, report.chunks_swept(), SizeText(report.bytes_swept()), would));
  facts.Add("packs", fmt::format("{} {}removed, {} {}rewritten", report.packs_removed(), would, report.packs_rewritten(), would));
  facts.Add("freed", fmt::format("{}{}", SizeText(std::max<int64_t>(0, report.bytes_removed() - report.bytes_copied())),
                                 report.dry_run() ? " at once, and what is swept when its packs are rewritten" : ""));
  if (report.packs_damaged() > 0)
    facts.Add("damaged", fmt::format("{} packs stay as they are: litefleet store scrub", report.packs_damaged()));
  return facts.Text();
}

void WarnOfRescue(Session& session, const v1::PruneReport& report) {
  if (report.chunks_rescued() == 0) return;
  session.Warn(fmt::format("{} chunks in the trash were needed after all and are good again: report this", report.chunks_rescued()));
}

CommandResult Prune(Session& session, const PruneOptions& options) {
  v1::StartPruneRequest request;
  request.set_dry_run(options.dry_run);
  if (!options.grace.empty()) {
    std::chrono::seconds grace{0};  // elsewhere 0 is no duration
    if (options.grace != "0" && options.grace != "0s") {
      LF_ASSIGN_OR_RETURN(grace, ParseDuration(options.grace));
    }
    *request.mutable_grace() = Seconds(grace);
  }
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  if (!options.dry_run && !options.grace.empty()) {
    LF_RETURN_IF_ERROR(
        session.Confirm(options.yes, fmt::format("Remove what has been in the trash for {}? It cannot be brought back.", options.grace)));
  }
  request.set_request_id(NewUlid(session.clock().Now()));
  LF_ASSIGN_OR_RETURN(const v1::StartPruneResponse response, client->StartPrune(request));
  return FinishOperation(session, response.operation(), options, [&session](const v1::Operation& ended) -> CommandResult {
    PrintThing(session, "operation", ToJson(ended), ended.id(), ReportText(ended.prune()));
    WarnOfRescue(session, ended.prune());
    return kDone;
  });
}

CommandResult Scrub(Session& session, const ScrubOptions& options) {
  v1::StartScrubRequest request;
  if (!options.rate.empty()) {
    int64_t rate = 0;  // elsewhere 0 is no size
    if (options.rate != "0") {
      LF_ASSIGN_OR_RETURN(rate, config::ParseSize(options.rate));
    }
    request.set_bytes_per_second(rate);
  }
  request.set_request_id(NewUlid(session.clock().Now()));
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  LF_ASSIGN_OR_RETURN(const v1::StartScrubResponse response, client->StartScrub(request));
  return FinishOperation(session, response.operation(), options, [&session](const v1::Operation& ended) -> CommandResult {
    const v1::ScrubReport& report = ended.scrub();
    PrintThing(session, "operation", ToJson(ended), ended.id(),
               fmt::format("{} packs with {} were read, {} of databases: all of it is what was written\n", report.packs(),
                           SizeText(report.stored_bytes()), SizeText(report.logical_bytes())));
    return kDone;
  });
}

CommandResult TrashList(Session& session) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  std::vector<v1::TrashItem> items;
  LF_RETURN_IF_ERROR(AllPages(v1::ListTrashRequest(), [&](const v1::ListTrashRequest& request) -> absl::StatusOr<std::string> {
    LF_ASSIGN_OR_RETURN(const v1::ListTrashResponse response, client->ListTrash(request));
    items.insert(items.end(), response.items().begin(), response.items().end());
    return response.next_page_token();
  }));
  if (session.json()) {
    Json list = Json::Array();
    for (const v1::TrashItem& item : items) {
      Json one = ToJson(item.snapshot());
      one.Set("trashed_at", TimeJson(item.has_trashed_at(), item.trashed_at()))
          .Set("trashed_by", item.trashed_by())
          .Set("removed_after", TimeJson(item.has_removed_after(), item.removed_after()));
      list.Add(std::move(one));
    }
    session.PrintJsonList("trash_list", std::move(list));
    return kDone;
  }
  if (session.format() == OutputFormat::kName) {
    for (const v1::TrashItem& item : items) session.Print(item.snapshot().id() + "\n");
    return kDone;
  }
  if (items.empty()) {
    session.Note("the trash is empty");
    return kDone;
  }
  Table table({{"ID"}, {"DATABASE", false, true}, {"TAKEN"}, {"BY", false, true}, {"REMOVED AFTER"}});
  for (const v1::TrashItem& item : items) {
    table.Add({item.snapshot().id(), DatabaseName(item.snapshot()), LocalTimeText(FromProtoTime(item.snapshot().taken_at())),
               item.trashed_by(), LocalTimeText(FromProtoTime(item.removed_after()))});
  }
  session.Print(table.Text(session.style()));
  return kDone;
}

CommandResult TrashRestore(Session& session, const SubjectOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::RestoreTrashRequest request;
  request.set_snapshot(options.subject);
  LF_ASSIGN_OR_RETURN(const v1::RestoreTrashResponse response, client->RestoreTrash(request));
  const v1::Snapshot& snapshot = response.snapshot();
  PrintThing(session, "snapshot", ToJson(snapshot), snapshot.id(),
             Printable(fmt::format("snapshot {} of {} is out of the trash", snapshot.id(), DatabaseName(snapshot))));
  return kDone;
}

CommandResult HoldList(Session& session) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  std::vector<v1::Hold> holds;
  LF_RETURN_IF_ERROR(AllPages(v1::ListHoldsRequest(), [&](const v1::ListHoldsRequest& request) -> absl::StatusOr<std::string> {
    LF_ASSIGN_OR_RETURN(const v1::ListHoldsResponse response, client->ListHolds(request));
    holds.insert(holds.end(), response.holds().begin(), response.holds().end());
    return response.next_page_token();
  }));
  if (session.json()) {
    Json list = Json::Array();
    for (const v1::Hold& hold : holds) {
      Json one = Json::Object();
      one.Set("subject", hold.subject())
          .Set("since", TimeJson(hold.has_since(), hold.since()))
          .Set("reason", hold.reason())
          .Set("message", hold.message());
      list.Add(std::move(one));
    }
    session.PrintJsonList("hold_list", std::move(list));
    return kDone;
  }
  if (session.format() == OutputFormat::kName) {
    for (const v1::Hold& hold : holds) session.Print(hold.subject() + "\n");
    return kDone;
  }
  if (holds.empty()) {
    session.Note("nothing is on hold");
    return kDone;
  }
  Table table({{"WHAT", false, true}, {"SINCE"}, {"REASON"}, {"MESSAGE", false, true}});
  for (const v1::Hold& hold : holds) {
    table.Add({hold.subject(), LocalTimeText(FromProtoTime(hold.since())), Cell(hold.reason(), Tone::kDoubtful), hold.message()});
  }
  session.Print(table.Text(session.style()));
  return kDone;
}

CommandResult HoldRelease(Session& session, const SubjectOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::ReleaseHoldRequest request;
  request.set_subject(options.subject);
  LF_RETURN_IF_ERROR(client->ReleaseHold(request).status());
  PrintThing(session, "hold", std::move(Json::Object().Set("subject", options.subject)), options.subject,
             Printable(fmt::format("{} is not on hold any more", options.subject)));
  return kDone;
}

}  // namespace

void AddStore(CLI::App& app, Session& session) {
  CLI::App* store = AddNoun(app, "store", "What the store holds; free what nothing needs; the trash");

  OnCall(store->add_subcommand("stats", "Bytes of databases, live, dead and in the trash, and by device"), session, &Stats);

  auto prune_options = std::make_shared<PruneOptions>();
  CLI::App* prune = store->add_subcommand("prune", "Free what nothing needs any more");
  prune->add_flag("--dry-run", prune_options->dry_run, "Only say what would be freed");
  prune->add_option("--grace", prune_options->grace, "How long something must have been in the trash, instead of as configured")
      ->type_name("DURATION");
  prune->add_flag("-y,--yes", prune_options->yes, "Do not ask");
  AddLongActionOptions(prune, *prune_options, false);
  prune->footer("It runs by itself every day. --grace 0s frees everything that is in the trash at once.");
  OnCall(prune, session, prune_options, &Prune);

  auto scrub_options = std::make_shared<ScrubOptions>();
  CLI::App* scrub = store->add_subcommand("scrub", "Read all packs again, and find out whether every chunk is what was written");
  scrub->add_option("--rate", scrub_options->rate, "Read so much a second, instead of as configured; 0: as fast as it goes")
      ->type_name("SIZE");
  AddLongActionOptions(scrub, *scrub_options, false);
  scrub->footer(
      "It runs by itself, each pack once in 30 days. What is damaged is quarantined, the snapshots that need it are\n"
      "marked, and the devices are asked for it. Ends with 8 where there is damage.");
  OnCall(scrub, session, scrub_options, &Scrub);

  CLI::App* trash = AddNoun(*store, "trash", "Snapshots that were deleted and are not removed yet");
  OnCall(trash->add_subcommand("list", "List them"), session, &TrashList);
  auto restore_options = std::make_shared<SubjectOptions>();
  CLI::App* restore = trash->add_subcommand("restore", "Take a snapshot out of the trash");
  restore->add_option("ID", restore_options->subject, "Id of the snapshot, or the beginning of it")->required();
  OnCall(restore, session, restore_options, &TrashRestore);

  CLI::App* hold = AddNoun(*store, "hold", "Databases whose retention waits for an operator, and the controller's clock");
  OnCall(hold->add_subcommand("list", "List them, with the reasons"), session, &HoldList);
  auto release_options = std::make_shared<SubjectOptions>();
  CLI::App* release = hold->add_subcommand("release", "Go on: what was strange is right");
  release->add_option("WHAT", release_options->subject, "DEVICE/DATABASE, or clock")->required();
  OnCall(release, session, release_options, &HoldRelease);
}

}  // namespace litefleet::cli
