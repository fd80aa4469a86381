// litefleet snapshot list|show|check|drill, and download (cmd_snapshot_download.cc)
#include <algorithm>
#include <iterator>

#include "common/base/bytes.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "controller/cli/chain.h"
#include "controller/cli/cmd_snapshot_import.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

struct ListOptions {
  std::string parent;
  bool no_imports = false;
  int limit = 0;
};
struct SnapshotOptions : LongActionOptions {
  std::string snapshot;
  bool drill = false;
};

// ", 1 byte for 2.4": of pages. Empty where nothing was sent.
std::string RatioText(int64_t pages, int64_t bytes) {
  if (pages <= 0 || bytes <= 0) return {};
  return fmt::format(", 1 byte for {:.1f}", static_cast<double>(pages) / static_cast<double>(bytes));
}

bool IsImport(const v1::Snapshot& snapshot) { return !snapshot.provenance().empty(); }
bool IsPart(const v1::Snapshot& snapshot) { return !snapshot.part().empty(); }

Cell MethodCell(const v1::Snapshot& snapshot) {
  const std::string compatible = snapshot.compatible() ? "compatible" : "";
  if (IsPart(snapshot)) {
    return {fmt::format("{} ({}{}{})", Word(snapshot.method()), compatible, snapshot.compatible() ? ", " : "", snapshot.part()),
            Tone::kDoubtful};
  }
  if (snapshot.compatible()) return {fmt::format("{} ({})", Word(snapshot.method()), compatible), Tone::kDoubtful};
  return IsImport(snapshot) ? Cell("import", Tone::kDoubtful) : Cell(Word(snapshot.method()));
}

Cell CheckCell(const v1::Snapshot& snapshot) {
  if (snapshot.state() == v1::SNAPSHOT_STATE_DAMAGED) return {"lost chunks", Tone::kBad};
  const std::string word = snapshot.check() == v1::CHECK_STATE_UNSPECIFIED ? "unknown" : Word(snapshot.check());
  return {word == "cannot_tell" ? "cannot tell" : word, ToneOf(snapshot.check())};
}

Cell PinEnds(const v1::Snapshot& snapshot, bool wide, SystemTime now) {
  if (!snapshot.pinned_by_operator()) return "";
  if (!snapshot.has_pinned_until()) return wide ? "when unpinned" : "never";
  const SystemTime until = FromProtoTime(snapshot.pinned_until());
  return wide ? LocalTimeText(until) : AgeText(until, now);
}

// Of one database, the newest first.
absl::StatusOr<std::vector<v1::Gap>> GapsOf(AdminClient& client, const std::string& database) {
  v1::ListGapsRequest all;
  all.set_parent(database);
  std::vector<v1::Gap> gaps;
  LF_RETURN_IF_ERROR(AllPages(all, [&](const v1::ListGapsRequest& request) -> absl::StatusOr<std::string> {
    LF_ASSIGN_OR_RETURN(const v1::ListGapsResponse response, client.ListGaps(request));
    gaps.insert(gaps.end(), response.gaps().begin(), response.gaps().end());
    return response.next_page_token();
  }));
  return gaps;
}

// A gap begins with the snapshot before it; a clock's jitter does not put it below that.
bool IsAfter(const v1::Gap& gap, const v1::Snapshot& snapshot) {
  return TimestampMillis(gap.gap().from()) + 1000 >= TimestampMillis(snapshot.taken_at());
}

// The device found that its database was not what the snapshots of a time say: what it says of this one.
absl::StatusOr<std::string> InQuestion(AdminClient& client, const v1::Snapshot& snapshot) {
  if (snapshot.method() != v1::METHOD_CONTINUOUS) return std::string();
  LF_ASSIGN_OR_RETURN(const std::vector<v1::Gap> gaps, GapsOf(client, DatabaseName(snapshot)));
  const int64_t taken = TimestampMillis(snapshot.taken_at());
  for (const v1::Gap& gap : gaps) {
    const v1::CoverageGap& what = gap.gap();
    if (what.reason() == kChainDiffers && taken > TimestampMillis(what.from()) &&
        (!what.has_until() || taken <= TimestampMillis(what.until())))
      return what.message();
  }
  return std::string();
}

std::vector<Cell> GapRow(const v1::Gap& gap) {
  const v1::CoverageGap& what = gap.gap();
  const bool ended = what.has_until();
  const std::chrono::milliseconds length(ended ? TimestampMillis(what.until()) - TimestampMillis(what.from()) : 0);
  return {Cell(what.reason() == kChainDiffers ? "(in question)" : "(no states)", Tone::kDoubtful), DatabaseName(gap),
          LocalTimeText(FromProtoTime(what.from())), ended ? DurationText(length) : "until now",
          Cell(what.reason(), ended ? Tone::kDoubtful : Tone::kBad)};
}

CommandResult List(Session& session, const ListOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::ListSnapshotsRequest all;
  all.set_parent(options.parent);
  const auto wanted = static_cast<size_t>(options.limit > 0 ? options.limit : INT32_MAX);
  std::vector<v1::Snapshot> snapshots;
  LF_RETURN_IF_ERROR(AllPages(all, [&](v1::ListSnapshotsRequest& request) -> absl::StatusOr<std::string> {
    if (wanted - snapshots.size() < 1000) request.set_page_size(static_cast<int32_t>(wanted - snapshots.size()));
    LF_ASSIGN_OR_RETURN(const v1::ListSnapshotsResponse response, client->ListSnapshots(request));
    std::copy_if(response.snapshots().begin(), response.snapshots().end(), std::back_inserter(snapshots),
                 [&](const v1::Snapshot& snapshot) { return !options.no_imports || (!IsImport(snapshot) && !IsPart(snapshot)); });
    return snapshots.size() >= wanted ? std::string() : response.next_page_token();
  }));
  // Of one database the times without states belong into the list; with --limit those that the listed ones reach.
  std::vector<v1::Gap> gaps;
  const bool of_database = options.parent.find('/') != std::string::npos;
  if (of_database) {
    LF_ASSIGN_OR_RETURN(gaps, GapsOf(*client, options.parent));
    if (snapshots.size() >= wanted) std::erase_if(gaps, [&](const v1::Gap& gap) { return !IsAfter(gap, snapshots.back()); });
  }
  if (session.json()) {
    Json items = Json::Array();
    for (const v1::Snapshot& snapshot : snapshots) items.Add(ToJson(snapshot));
    if (!of_database) {
      session.PrintJsonList("snapshot_list", std::move(items));
      return kDone;
    }
    Json more = Json::Array();
    for (const v1::Gap& gap : gaps) more.Add(ToJson(gap));
    Json list = Json::Object();
    list.Set("items", std::move(items)).Set("next_page_token", nullptr).Set("gaps", std::move(more));
    session.PrintJson("snapshot_list", std::move(list));
    return kDone;
  }
  if (session.format() == OutputFormat::kName) {
    for (const v1::Snapshot& snapshot : snapshots) session.Print(snapshot.id() + "\n");
    return kDone;
  }
  if (snapshots.empty() && gaps.empty()) {
    session.Note("no snapshots; make one with `litefleet backup DEVICE/DATABASE`");
    return kDone;
  }
  const bool wide = session.format() == OutputFormat::kWide;
  // What is no backup, or one of a part, is told apart.
  const bool with_method = !wide && std::any_of(snapshots.begin(), snapshots.end(),
                                                [](const v1::Snapshot& snapshot) { return IsImport(snapshot) || IsPart(snapshot); });
  std::vector<Table::Column> columns = {{"ID"}, {"DATABASE", false, true}, {"TAKEN"}, {"SIZE", true}, {"CHECK"}};
  if (with_method) columns.push_back({"METHOD"});
  const bool with_pins =
      std::any_of(snapshots.begin(), snapshots.end(), [](const v1::Snapshot& each) { return each.pinned_by_operator(); });
  if (wide) {
    columns.insert(columns.end(),
                   {{"TIMELINE", true}, {"METHOD"}, {"RECEIVED"}, {"SENT", true}, {"STORED", true}, {"TOOK", true}, {"SOURCE"}, {"ROOT"}});
  }
  if (with_pins) columns.push_back({"PIN ENDS"});
  Table table(columns);
  size_t gap = 0;
  const auto add_gap = [&] {
    std::vector<Cell> row = GapRow(gaps[gap++]);
    row.resize(columns.size(), Cell(""));
    table.Add(std::move(row));
  };
  for (const v1::Snapshot& snapshot : snapshots) {
    // The time of an import is that of its file, not of its place here.
    while (gap < gaps.size() && !IsImport(snapshot) && IsAfter(gaps[gap], snapshot)) add_gap();
    std::vector<Cell> row = {snapshot.id(), DatabaseName(snapshot), LocalTimeText(FromProtoTime(snapshot.taken_at())),
                             SizeText(snapshot.size_bytes()), CheckCell(snapshot)};
    if (with_method) row.push_back(MethodCell(snapshot));
    if (wide) {
      row.insert(row.end(),
                 {std::to_string(snapshot.timeline()), MethodCell(snapshot), LocalTimeText(FromProtoTime(snapshot.received_at())),
                  SizeText(snapshot.wire_bytes()), SizeText(snapshot.stored_bytes()), DurationText(Millis(snapshot.duration())),
                  Word(snapshot.source_check()), ToHex(AsBytes(snapshot.root_digest()))});
    }
    if (with_pins) row.push_back(PinEnds(snapshot, wide, session.clock().Now()));
    table.Add(std::move(row));
  }
  while (gap < gaps.size()) add_gap();
  session.Print(table.Text(session.style()));
  return kDone;
}

CommandResult Show(Session& session, const SnapshotOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::GetSnapshotRequest request;
  request.set_snapshot(options.snapshot);
  LF_ASSIGN_OR_RETURN(const v1::GetSnapshotResponse response, client->GetSnapshot(request));
  const v1::Snapshot& snapshot = response.snapshot();
  LF_ASSIGN_OR_RETURN(const std::string in_question, InQuestion(*client, snapshot));
  const SystemTime now = session.clock().Now();
  Facts facts;
  facts.Add("id", snapshot.id())
      .Add("database", DatabaseName(snapshot))
      .Add("state", Word(snapshot.state()))
      .Add("timeline", std::to_string(snapshot.timeline()));
  facts.Add("taken",
            fmt::format("{} ({})", LocalTimeText(FromProtoTime(snapshot.taken_at())), AgeText(FromProtoTime(snapshot.taken_at()), now)));
  facts.Add("received", LocalTimeText(FromProtoTime(snapshot.received_at())));
  facts.Add("method", Word(snapshot.method())).AddIf("journal mode", Word(snapshot.journal_mode()));
  if (snapshot.content() <= v1::SNAPSHOT_CONTENT_DATABASE) {
    facts.Add("size",
              fmt::format("{} ({} pages of {} bytes)", SizeText(snapshot.size_bytes()), snapshot.page_count(), snapshot.page_size()));
  } else {
    facts.Add("content", fmt::format("{} of {}", SizeText(snapshot.content_bytes()),
                                     snapshot.content() == v1::SNAPSHOT_CONTENT_SQL ? "SQL text" : "files"));
  }
  facts.AddIf("compatible", snapshot.compatible() ? "as the sqlite3 CLI writes it, also where that loses something" : "");
  facts.AddIf("part", IsPart(snapshot) ? snapshot.part() + ": never the newest state of its database" : "");
  facts.AddIf("imported", snapshot.provenance());
  facts.AddIf("in question", in_question);
  facts.Add("root digest", ToHex(AsBytes(snapshot.root_digest())));
  facts.Add("read", SizeText(snapshot.read_bytes()));
  if (snapshot.has_pages_changed()) {
    facts.Add("changed",
              fmt::format("{} in {} pages", SizeText(int64_t{snapshot.pages_changed()} * snapshot.page_size()), snapshot.pages_changed()));
  }
  if (snapshot.commits() > 0) facts.Add("commits", fmt::format("{} since its parent", snapshot.commits()));
  facts.Add("sent", fmt::format("{} for {} pages{}", SizeText(snapshot.wire_bytes()), snapshot.pages_sent(),
                                RatioText(int64_t{snapshot.pages_sent()} * snapshot.page_size(), snapshot.wire_bytes())));
  facts.Add("stored", SizeText(snapshot.stored_bytes()) + RatioText(snapshot.size_bytes(), snapshot.stored_bytes()));
  facts.Add("took", snapshot.has_pinned() ? fmt::format("{}, of which the database was held for {}",
                                                        DurationText(Millis(snapshot.duration())), DurationText(Millis(snapshot.pinned())))
                                          : DurationText(Millis(snapshot.duration())));
  facts.Add("check", CheckCell(snapshot).text).AddIf("check says", snapshot.check_message());
  if (snapshot.has_checked_at()) facts.Add("checked", LocalTimeText(FromProtoTime(snapshot.checked_at())));
  facts.Add("source", snapshot.source_check() == v1::CHECK_STATE_UNSPECIFIED ? "unknown" : Word(snapshot.source_check()))
      .AddIf("source says", snapshot.source_check_message());
  if (snapshot.has_drilled_at()) {
    facts.Add("drilled", fmt::format("{}, restored in {}", LocalTimeText(FromProtoTime(snapshot.drilled_at())),
                                     DurationText(Millis(snapshot.restore_duration()))));
  }
  if (snapshot.pinned_by_operator()) facts.Add("pinned", fmt::format("by an operator, {}: neither deleted nor expired", PinText(snapshot)));
  facts.AddIf("parent", snapshot.parent_id()).AddIf("operation", snapshot.operation_id());
  Json shown = ToJson(snapshot);
  shown.Set("in_question", Json::OrNull(in_question));
  PrintThing(session, "snapshot", std::move(shown), snapshot.id(), facts.Text());
  return kDone;
}

// What the check has found, printed, and as an end of the command.
CommandResult Verdict(Session& session, const v1::Operation& ended, const v1::Snapshot& snapshot) {
  Json result = ToJson(ended);
  result.Set("check", Word(snapshot.check())).Set("check_message", Json::OrNull(snapshot.check_message()));
  const bool timed = ended.kind() == v1::OPERATION_KIND_DRILL && snapshot.has_restore_duration();
  if (timed) result.Set("restore_ms", Millis(snapshot.restore_duration()).count());
  PrintThing(session, "operation", std::move(result), snapshot.id(),
             Printable(fmt::format("snapshot {} of {}: {}{}{}{}", snapshot.id(), DatabaseName(snapshot), CheckCell(snapshot).text,
                                   timed ? ", restored in " + DurationText(Millis(snapshot.restore_duration())) : "",
                                   snapshot.check_message().empty() ? "" : ": ", snapshot.check_message())));
  switch (snapshot.check()) {
    case v1::CHECK_STATE_OK:
      return kDone;
    case v1::CHECK_STATE_CANNOT_TELL:
      session.Warn("SQLite cannot check all of it without the functions, collations or modules of its application");
      return kDone;
    case v1::CHECK_STATE_DAMAGED:
      return Error(absl::StatusCode::kDataLoss, "DATABASE_DAMAGED",
                   fmt::format("SQLite finds damage in snapshot {}: {}", snapshot.id(), snapshot.check_message()),
                   fmt::format("check an older one: litefleet snapshot list {}", DatabaseName(snapshot)));
    default:
      return Error(absl::StatusCode::kInternal, "CHECK_FAILED",
                   fmt::format("snapshot {} could not be checked: {}", snapshot.id(), snapshot.check_message()),
                   "see the controller's log");
  }
}

CommandResult Check(Session& session, const SnapshotOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  const std::string request_id = NewUlid(session.clock().Now());
  v1::Operation operation;
  if (options.drill) {
    v1::DrillSnapshotRequest request;
    request.set_snapshot(options.snapshot);
    request.set_request_id(request_id);
    LF_ASSIGN_OR_RETURN(const v1::DrillSnapshotResponse response, client->DrillSnapshot(request));
    operation = response.operation();
  } else {
    v1::CheckSnapshotRequest request;
    request.set_snapshot(options.snapshot);
    request.set_request_id(request_id);
    LF_ASSIGN_OR_RETURN(const v1::CheckSnapshotResponse response, client->CheckSnapshot(request));
    operation = response.operation();
  }
  return FinishOperation(session, operation, options, [&](const v1::Operation& ended) -> CommandResult {
    v1::GetSnapshotRequest get;
    get.set_snapshot(ended.snapshot_id().empty() ? options.snapshot : ended.snapshot_id());
    LF_ASSIGN_OR_RETURN(const v1::GetSnapshotResponse found, client->GetSnapshot(get));
    return Verdict(session, ended, found.snapshot());
  });
}

}  // namespace

void AddSnapshot(CLI::App& app, Session& session) {
  CLI::App* snapshot = AddNoun(app, "snapshot", "List, show, check, download, import, pin and delete snapshots");

  auto list_options = std::make_shared<ListOptions>();
  CLI::App* list = snapshot->add_subcommand("list", "List snapshots, newest first");
  list->add_option("OF", list_options->parent, "DEVICE or DEVICE/DATABASE; all if not given");
  list->add_option("--limit", list_options->limit, "At most this many")->type_name("N")->check(CLI::Range(1, 1'000'000));
  list->add_flag("--no-imports", list_options->no_imports,
                 "Leave out what `snapshot import` made, and dumps of a part: the first is the newest backup");
  list->footer(
      "Of one DEVICE/DATABASE the times without the promised states stand between them, with the reason.\n"
      "An import stands where the time of its file puts it, has the method `import`, and is never the newest state of its database.\n"
      "Nor is a dump of a part of it: which part stands behind its method, and it is restored by its id alone.");
  OnCall(list, session, list_options, &List);

  auto show_options = std::make_shared<SnapshotOptions>();
  CLI::App* show = snapshot->add_subcommand("show", "Show one snapshot");
  show->add_option("ID", show_options->snapshot, "Id of the snapshot, or the beginning of it")->required();
  OnCall(show, session, show_options, &Show);

  auto check_options = std::make_shared<SnapshotOptions>();
  CLI::App* check = snapshot->add_subcommand("check", "Read a snapshot back, and let SQLite check it");
  check->add_option("ID", check_options->snapshot, "Id of the snapshot, or the beginning of it")->required();
  AddLongActionOptions(check, *check_options, false);
  check->footer(
      "Ends with 8 where there is damage. A database that needs functions of its application to be\nchecked gives `cannot tell`, a "
      "warning, and 0.");
  OnCall(check, session, check_options, &Check);

  auto drill_options = std::make_shared<SnapshotOptions>();
  drill_options->drill = true;
  CLI::App* drill = snapshot->add_subcommand("drill", "Restore a snapshot into a scratch place, check it, and record how long that took");
  drill->add_option("ID", drill_options->snapshot, "Id of the snapshot, or the beginning of it")->required();
  AddLongActionOptions(drill, *drill_options, false);
  drill->footer(
      "It runs by itself: every database's newest snapshot once in 7 days, the others once in 90. Ends with 8 where there is\ndamage.");
  OnCall(drill, session, drill_options, &Check);

  AddSnapshotDownload(*snapshot, session);
  AddSnapshotOpen(*snapshot, session);
  AddSnapshotImport(*snapshot, session);
  AddSnapshotKeep(*snapshot, session);
}

}  // namespace litefleet::cli
