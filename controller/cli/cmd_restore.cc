// litefleet restore DEVICE/DATABASE... [--snapshot ID | --at TIME [--timeline N]] [--to DEVICE/DATABASE] [--mode new|live|replace] [--table
// NAME]... [--plan]
#include <algorithm>
#include <optional>
#include <set>

#include "absl/cleanup/cleanup.h"
#include "common/base/error_detail.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "controller/cli/chain.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/order_signer.h"
#include "controller/cli/plan_text.h"
#include "controller/cli/selection.h"
#include "controller/cli/snapshot_first.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "controller/cli/time_spec.h"
#include "controller/cli/waves.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

struct RestoreOptions : LongActionOptions {
  std::vector<std::string> databases;
  std::string selector;
  std::string snapshot;
  std::string at;
  uint64_t timeline = 0;
  std::string to;
  std::string mode;
  std::vector<std::string> tables;
  bool plan = false;
  bool yes = false;
  bool ignore_check = false;
  bool snapshot_first = false;
  std::optional<std::string> pin_for;
  std::string sign;
  uint64_t sign_counter = 0;
  std::string request_id;
  std::string selected;
  size_t wave_size = 0;
  size_t max_failures = 1;
};

// One database of the command, and what is known of it before it is ordered.
struct Wanted {
  v1::RestoreTarget target;
  v1::PlanRestoreResponse plan;                   // where plans are made
  absl::Status no_plan;                           // why there is none
  std::optional<std::chrono::seconds> pin_first;  // a snapshot of what is there is taken, and pinned for so long
};

constexpr char kPinFor[] = "30d";
constexpr std::chrono::seconds kLongestPin = std::chrono::hours(24 * 366 * 100);  // as the service's

// A hash and an attempt are added for each database; 64 is the service's limit.
constexpr size_t kMaxRequestId = 36;

absl::Status Wrong(std::string_view message, std::string_view hint) {
  return Error(absl::StatusCode::kInvalidArgument, "RESTORE_TARGET_INVALID", message, hint);
}

// All databases of the active devices that match.
absl::StatusOr<std::vector<std::string>> Select(AdminClient& client, const std::string& selector) {
  v1::ListDevicesRequest all;
  all.set_selector(selector);
  std::vector<std::string> names;
  LF_RETURN_IF_ERROR(AllPages(all, [&](const v1::ListDevicesRequest& request) -> absl::StatusOr<std::string> {
    LF_ASSIGN_OR_RETURN(const v1::ListDevicesResponse response, client.ListDevices(request));
    for (const v1::Device& device : response.devices()) {
      if (device.state() != v1::DEVICE_STATE_ACTIVE) continue;
      v1::ListDatabasesRequest databases;
      databases.set_device(device.id());
      LF_RETURN_IF_ERROR(AllPages(databases, [&](const v1::ListDatabasesRequest& page) -> absl::StatusOr<std::string> {
        LF_ASSIGN_OR_RETURN(const v1::ListDatabasesResponse found, client.ListDatabases(page));
        for (const v1::Database& database : found.databases()) names.push_back(DatabaseName(database));
        return found.next_page_token();
      }));
    }
    return response.next_page_token();
  }));
  if (names.empty()) {
    return Error(absl::StatusCode::kNotFound, "NOTHING_SELECTED", fmt::format("no database of an active device matches '{}'", selector),
                 fmt::format("see `litefleet device list --selector {}`", selector));
  }
  return names;
}

absl::StatusOr<std::vector<v1::RestoreTarget>> Targets(Session& session, const RestoreOptions& options) {
  if (!options.snapshot.empty() && !options.at.empty())
    return Wrong("--snapshot and --at exclude each other", "give the one that you mean");
  if (options.timeline != 0 && options.at.empty()) return Wrong("--timeline needs --at", "a timeline tells apart states of one time");
  if (!options.databases.empty() && !options.selector.empty()) return Wrong("databases and --selector exclude each other", "");
  const bool several = options.databases.size() > 1 || !options.selector.empty();
  if (several && (!options.snapshot.empty() || !options.to.empty()))
    return Wrong("--snapshot and --to are for one database", "restore them one by one");
  v1::RestoreTarget target;
  target.set_snapshot(options.snapshot);
  target.set_target(options.to);
  target.set_timeline(options.timeline);
  target.set_check_override(options.ignore_check);
  if (!options.at.empty()) {
    LF_ASSIGN_OR_RETURN(const SystemTime at, ParseTime(options.at, session.clock().Now()));
    *target.mutable_at() = ToProtoTime(at);
  }
  if (!options.tables.empty() && options.mode == "replace") {
    return Wrong("a database that is replaced would have the chosen tables alone",
                 "restore them live, or take them: litefleet snapshot download ID --table NAME --output FILE");
  }
  if (!options.tables.empty() && !options.sign.empty()) {
    return Wrong("what is signed is a whole state of a database, and no choice of tables",
                 "restore all of it with --sign; or download the tables, and take them over on the device");
  }
  for (const std::string& table : options.tables) {
    LF_RETURN_IF_ERROR(CheckTableName(table));
    target.add_tables(table);
  }
  if (options.mode == "new") target.set_mode(v1::RESTORE_MODE_NEW);
  if (options.mode == "live") target.set_mode(v1::RESTORE_MODE_LIVE);
  if (options.mode == "replace") target.set_mode(v1::RESTORE_MODE_REPLACE);
  std::vector<std::string> sources = options.databases;
  if (!options.selector.empty()) {
    LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
    LF_ASSIGN_OR_RETURN(sources, Select(*client, options.selector));
  }
  if (sources.empty() && options.snapshot.empty())
    return Wrong("no database was named", "for instance: litefleet restore kiosk-7/orders --at -15m");
  if (sources.empty()) sources.emplace_back();  // the snapshot says whose it is
  std::vector<v1::RestoreTarget> targets;
  for (const std::string& source : sources) {
    target.set_source(source);
    targets.push_back(target);
  }
  return targets;
}

std::string StateText(bool there, const v1::Snapshot& snapshot, std::string_view otherwise) {
  if (!there) return std::string(otherwise);
  return fmt::format("{} of {}", snapshot.id(), LocalTimeText(FromProtoTime(snapshot.taken_at())));
}

// What is there around a time that lies in a gap.
std::string GapText(const v1::GapAround& around) {
  const v1::CoverageGap& gap = around.gap();
  if (gap.reason() == kChainDiffers) {
    return fmt::format("states between {} and {} are in question: {}; the newest before is {}, the first after {}",
                       LocalTimeText(FromProtoTime(gap.from())), gap.has_until() ? LocalTimeText(FromProtoTime(gap.until())) : "now",
                       gap.message(), StateText(around.has_before(), around.before(), "none"),
                       StateText(around.has_after(), around.after(), "none yet"));
  }
  return fmt::format("there are no states between {} and {} ({}): the newest before is {}, the first after {}",
                     LocalTimeText(FromProtoTime(gap.from())), gap.has_until() ? LocalTimeText(FromProtoTime(gap.until())) : "now",
                     gap.reason(), StateText(around.has_before(), around.before(), "none"),
                     StateText(around.has_after(), around.after(), "none yet"));
}

// What continuous capture knows of the time before a state: how much was committed since the one before it, and when that was.
struct Before {
  bool known = false;
  v1::Snapshot snapshot;
};

Before BeforeOf(AdminClient& client, const v1::Snapshot& snapshot) {
  Before before;
  if (snapshot.commits() == 0 || snapshot.parent_id().empty()) return before;
  v1::GetSnapshotRequest request;
  request.set_snapshot(snapshot.parent_id());
  absl::StatusOr<v1::GetSnapshotResponse> response = client.GetSnapshot(request);
  if (!response.ok()) return before;  // retention has dropped it
  before.known = true;
  before.snapshot = std::move(*response->mutable_snapshot());
  return before;
}

std::string CommitsText(const v1::Snapshot& snapshot, const Before& before) {
  if (snapshot.commits() == 0) return {};
  const std::string then = before.known
                               ? fmt::format(" of {} ({})", LocalTimeText(FromProtoTime(before.snapshot.taken_at())), before.snapshot.id())
                               : std::string(", which is not kept any more");
  return fmt::format("{} since the state before it{}", snapshot.commits(), then);
}

// Nothing is there that could be overwritten.
bool IsNew(const v1::PlanRestoreResponse& planned) { return planned.plan().mode() == v1::RESTORE_MODE_NEW && planned.plan().from_device(); }

std::string PlanText(const Wanted& wanted, const Before& before, SystemTime now, size_t width) {
  const v1::PlanRestoreResponse& planned = wanted.plan;
  const v1::RestorePlan& plan = planned.plan();
  const v1::Snapshot& snapshot = planned.snapshot();
  Facts facts;
  facts.Add("  snapshot", fmt::format("{} of {}, taken {} ({})", snapshot.id(), DatabaseName(snapshot),
                                      LocalTimeText(FromProtoTime(snapshot.taken_at())), AgeText(FromProtoTime(snapshot.taken_at()), now)));
  facts.AddIf("  part", snapshot.part().empty() ? "" : "holds a part only: " + snapshot.part());
  facts.AddIf("  commits", CommitsText(snapshot, before));
  if (!planned.has_gap()) facts.AddIf("  next state", StateText(planned.has_after(), planned.after(), ""));
  if (planned.has_gap()) facts.Add("  gap", GapText(planned.gap()));
  facts.Add("  size", fmt::format("{}, at most {} to fetch", SizeText(plan.size_bytes()), SizeText(plan.fetch_bytes())));
  if (wanted.pin_first.has_value() && !IsNew(planned))
    facts.Add("  first", fmt::format("a snapshot of it is taken, and pinned for {}", DurationText(*wanted.pin_first)));
  facts.Add("  check", snapshot.check() == v1::CHECK_STATE_UNSPECIFIED ? "unknown" : Word(snapshot.check()));
  return PlanText(fmt::format("restore of {} ({})", planned.target(), Word(plan.mode())), std::move(facts), plan, width);
}

// Those that have none are told.
CommandResult PrintPlans(Session& session, AdminClient& client, const std::vector<Wanted>& all, bool single) {
  std::vector<int> codes;
  bool planned_any = false;
  Json items = Json::Array();
  int code = kDone;
  for (const Wanted& wanted : all) {
    if (!wanted.no_plan.ok()) {
      codes.push_back(session.Report(Annotate(wanted.no_plan, wanted.target.source())));
      continue;
    }
    planned_any = true;
    const v1::PlanRestoreResponse& planned = wanted.plan;
    const Before before = BeforeOf(client, planned.snapshot());
    Json item = Json::Object();
    item.Set("before", before.known ? ToJson(before.snapshot) : Json());
    item.Set("after", planned.has_after() ? ToJson(planned.after()) : Json());
    item.Set("target", planned.target()).Set("plan", ToJson(planned.plan())).Set("snapshot", ToJson(planned.snapshot()));
    item.Set("gap", GapAroundJson(planned.has_gap(), planned.gap()));
    if (session.json() && single) {
      session.PrintJson("restore_plan", std::move(item));
    } else if (session.json()) {
      items.Add(std::move(item));
    } else if (session.format() == OutputFormat::kName) {
      session.Print(planned.snapshot().id() + "\n");
    } else {
      session.Print(PlanText(wanted, before, session.clock().Now(), session.style().width));
    }
    if (code == kDone) code = ExitCodeOf(planned.plan());
  }
  if (session.json() && !single) session.PrintJsonList("restore_plan_list", std::move(items));
  if (codes.empty()) return code;
  if (planned_any) codes.push_back(code);
  return Combine(codes);
}

// As it is to be ordered now, for so long as the order lives. By the device's id, which the operator's program looks up, and the snapshot
// that the plan shows.
absl::StatusOr<v1::OrderSignature> SignTarget(AdminClient& client, OrderSigner& signer, const Wanted& wanted, SystemTime expires) {
  const std::string& target = wanted.plan.target();
  const size_t slash = target.find('/');
  v1::GetDeviceRequest get;
  get.set_device(target.substr(0, slash));
  LF_ASSIGN_OR_RETURN(const v1::GetDeviceResponse found, client.GetDevice(get));
  return signer.Sign(found.device().id(), target.substr(slash + 1), wanted.plan.snapshot(), wanted.target, expires);
}

// What one database is refused for, while the others go on. An error of the call as such ends all of it.
bool IsOfOneDatabase(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsFailedPrecondition(status) || absl::IsInvalidArgument(status) || absl::IsDataLoss(status);
}

// Errors: of a single one that has no plan, or of the call as such. Of several each keeps its own.
absl::Status MakePlans(AdminClient& client, bool single, std::vector<Wanted>& all) {
  for (Wanted& wanted : all) {
    v1::PlanRestoreRequest request;
    *request.mutable_restore() = wanted.target;
    absl::StatusOr<v1::PlanRestoreResponse> planned = client.PlanRestore(request);
    if (!planned.ok() && !single && IsOfOneDatabase(planned.status())) {
      wanted.no_plan = planned.status();
      continue;
    }
    LF_RETURN_IF_ERROR(planned.status());
    wanted.plan = *std::move(planned);
    // What was shown is what is restored, also when another snapshot comes in meanwhile.
    wanted.target.set_snapshot(wanted.plan.snapshot().id());
    wanted.target.clear_at();
    wanted.target.clear_timeline();
  }
  return absl::OkStatus();
}

std::string Question(const std::vector<v1::PlanRestoreResponse>& plans, const std::vector<std::string>& tables) {
  std::string what = plans.size() == 1 ? plans.front().target() : fmt::format("{} databases", plans.size());
  const auto refused = std::count_if(plans.begin(), plans.end(), [](const auto& planned) { return planned.plan().obstacles_size() > 0; });
  if (refused > 0) what += fmt::format(", of which {} would be refused", refused);
  if (tables.empty()) return fmt::format("Overwrite {}?", what);
  return Printable(fmt::format("Overwrite {} {} of {}?", tables.size() == 1 ? "table" : "the tables", fmt::join(tables, ", "), what));
}

// Shows what would happen, and what would not, before anything does.
absl::Status Ask(Session& session, AdminClient& client, const std::vector<Wanted>& all, const RestoreOptions& options) {
  std::vector<v1::PlanRestoreResponse> plans;
  std::string text;
  for (const Wanted& wanted : all) {
    if (!wanted.no_plan.ok()) {
      text += fmt::format("no restore of {}: {}\n", wanted.target.source(), Printable(std::string(wanted.no_plan.message())));
      continue;
    }
    text += PlanText(wanted, BeforeOf(client, wanted.plan.snapshot()), session.clock().Now(), session.style().width);
    plans.push_back(wanted.plan);
  }
  if (std::all_of(plans.begin(), plans.end(), IsNew)) return absl::OkStatus();
  session.ShowBeforeAsking(text);
  return session.Confirm(false, Question(plans, options.tables));
}

std::set<std::string> NamesOf(const std::vector<Wanted>& all) {
  std::set<std::string> names;
  for (const Wanted& wanted : all) names.insert(wanted.target.source());
  return names;
}

// What a command that goes on has to say besides the same as before. A relative time would be another one by then, and so would the newest,
// and what a selector matches.
std::string Again(const std::string& request_id, SystemTime at, const std::string& selection) {
  return fmt::format("--request-id {} --at {}{}", request_id, FormatRfc3339(at), selection.empty() ? "" : " --selected " + selection);
}

CommandResult Restore(Session& session, const RestoreOptions& options) {
  const SystemTime began = session.clock().Now();
  LF_ASSIGN_OR_RETURN(std::vector<v1::RestoreTarget> targets, Targets(session, options));
  const SystemTime at = targets.front().has_at() ? FromProtoTime(targets.front().at()) : began;
  LF_ASSIGN_OR_RETURN(const std::chrono::seconds expire, ParseDuration(options.expire));
  LF_RETURN_IF_ERROR(ParseDuration(options.timeout).status());
  if (options.pin_for.has_value() && !options.snapshot_first)
    return Wrong("--pin-for needs --snapshot-first", "it says how long that is pinned");
  LF_ASSIGN_OR_RETURN(const std::chrono::seconds pin_for, ParseDuration(options.pin_for.value_or(kPinFor)));
  if (pin_for > kLongestPin) return Wrong("--pin-for is longer than 100 years", "litefleet snapshot pin has no end without --for");
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  const bool single = options.selector.empty() && targets.size() == 1;
  if (options.wave_size > 0 && options.detach) return Wrong("--wave-size waits for each wave, --detach does not", "give one of the two");
  if (options.snapshot_first && options.detach)
    return Wrong("--snapshot-first waits for the snapshot, --detach does not", "give one of the two");
  if (!options.request_id.empty() && (options.request_id.size() > kMaxRequestId || !IsName(options.request_id)))
    return Wrong(fmt::format("'{}' is no request id", options.request_id), "letters, digits, '.', '_' and '-', at most 36");
  std::optional<OrderSigner> signer;
  if (!options.sign.empty()) {
    LF_ASSIGN_OR_RETURN(OrderSigner opened, OrderSigner::Open(options.sign, options.sign_counter, session.clock().Now()));
    signer.emplace(std::move(opened));
  }
  std::vector<Wanted> all;
  for (v1::RestoreTarget& target : targets)
    all.push_back({std::move(target), {}, absl::OkStatus(), options.snapshot_first ? std::optional(pin_for) : std::nullopt});
  if (!options.selected.empty()) {
    if (options.selector.empty()) return Wrong("--selected needs --selector", "databases that are named are the same ones again");
    LF_RETURN_IF_ERROR(CheckSelection(options.selected, NamesOf(all), options.selector));
  }
  const std::string selection = options.selector.empty() ? std::string() : SelectionWord(NamesOf(all));
  // What is signed is what a plan says, and what a snapshot is taken of.
  if (options.plan || !options.yes || signer.has_value() || options.snapshot_first) {
    LF_RETURN_IF_ERROR(MakePlans(*client, single, all));
    if (options.plan) return PrintPlans(session, *client, all, single);
    // Of several each is refused by its own device, which counts as one failure.
    if (single && all.front().plan.plan().obstacles_size() > 0) {
      const v1::PlanRestoreResponse& planned = all.front().plan;
      return Annotate(FromErrorDetail(planned.plan().obstacles(0)), fmt::format("{} would refuse the restore", planned.target()));
    }
    if (!options.yes) LF_RETURN_IF_ERROR(Ask(session, *client, all, options));
  }
  WaveOptions waves;
  waves.request_id = options.request_id.empty() ? NewUlid(session.clock().Now()) : options.request_id;
  waves.size = options.wave_size;
  waves.max_failures = options.max_failures;
  LF_ASSIGN_OR_RETURN(waves.wait.timeout, ParseDuration(options.timeout));
  SnapshotFirst snapshots(session, *client, expire, pin_for);
  const absl::Cleanup tell = [&snapshots] { snapshots.TellHowToGoBack(); };  // whatever becomes of the restores
  std::vector<WaveItem> items;
  for (const Wanted& wanted : all) {
    const v1::RestoreTarget& target = wanted.target;
    items.push_back({target.source().empty() ? target.snapshot() : target.source(),
                     [&](const std::string& request_id) -> absl::StatusOr<v1::Operation> {
                       LF_RETURN_IF_ERROR(wanted.no_plan);
                       v1::StartRestoreRequest request;
                       *request.mutable_restore() = wanted.target;
                       if (signer.has_value()) {
                         LF_ASSIGN_OR_RETURN(*request.mutable_restore()->mutable_signature(),
                                             SignTarget(*client, *signer, wanted, session.clock().Now() + expire));
                       }
                       *request.mutable_expire() = Seconds(expire);
                       request.set_request_id(request_id);
                       LF_ASSIGN_OR_RETURN(v1::StartRestoreResponse response, client->StartRestore(request));
                       if (response.has_gap()) session.Warn(GapText(response.gap()));
                       return std::move(*response.mutable_operation());
                     }});
    if (wanted.pin_first.has_value() && wanted.no_plan.ok() && !IsNew(wanted.plan))
      snapshots.AddTo(items.back(), wanted.plan.target(), target.snapshot());
  }
  const auto add = [&](const v1::Operation& operation, Json& item) {
    if (options.snapshot_first) snapshots.AddTo(operation, item);
  };
  if (single) {
    std::vector<absl::StatusOr<v1::Operation>> begun;
    std::vector<v1::Operation> waited;
    if (const absl::Status stopped = StartOrFindAll(session, items, waves, begun, waited); !stopped.ok())
      return ReportWait(session, stopped, waited);
    LF_RETURN_IF_ERROR(begun.front().status());
    return FinishOperations(session, {*std::move(begun.front())}, options, true, add);
  }
  if (items.size() > 1 && !session.quiet())
    session.Show(fmt::format("request {}: the same command with {} goes on where this one is stopped\n", waves.request_id,
                             Again(waves.request_id, at, selection)));
  WaveResult result;
  if (const absl::Status stopped = RunWaves(session, items, waves, result); !stopped.ok())
    return ReportWait(session, stopped, result.operations);
  std::vector<int> codes = result.refused;
  if (result.operations.empty() && result.not_begun == 0) return Combine(codes);
  LF_ASSIGN_OR_RETURN(const int code, FinishOperations(session, std::move(result.operations), options, single, add));
  if (code == kInterrupted) return code;
  codes.push_back(code);
  if (result.not_begun > 0) {
    session.Report(
        Error(absl::StatusCode::kAborted, "WAVES_STOPPED",
              fmt::format("{} databases were left as they are: {} failures were reached", result.not_begun, options.max_failures),
              fmt::format("look at what failed, then the same command with {}", Again(waves.request_id, at, selection))));
    return kPartly;
  }
  return Combine(codes);
}

}  // namespace

void AddRestore(CLI::App& app, Session& session) {
  auto options = std::make_shared<RestoreOptions>();
  CLI::App* restore = app.add_subcommand("restore", "Put databases back on their devices, from afar");
  restore->add_option("DATABASES", options->databases, "DEVICE/DATABASE whose state is restored, one or more");
  restore->add_option("-l,--selector", options->selector, "All databases of the devices with all these labels")->type_name("KEY=VALUE,...");
  restore->add_option("--snapshot", options->snapshot, "This snapshot; the newest if neither this nor --at is given")->type_name("ID");
  restore->add_option("--at", options->at, "The state that the database had then")->type_name("TIME");
  restore->add_option("--timeline", options->timeline, "With --at: on this timeline, not on the one that was live then")->type_name("N");
  restore->add_option("--to", options->to, "Restore into this database instead, of the same or another device")
      ->type_name("DEVICE/DATABASE");
  restore
      ->add_option("--mode", options->mode,
                   "live: into the file that applications have open; replace: the application is stopped; new: only\nwhere there is no "
                   "database. Live where there is one, else new, if not given")
      ->check(CLI::IsMember({"new", "live", "replace"}))
      ->type_name("MODE");
  restore
      ->add_option("--table", options->tables,
                   "Only this table, with its indexes, triggers and AUTOINCREMENT counter; repeatable. The others stay as they are")
      ->expected(1)
      ->take_all()
      ->type_name("NAME");
  restore->add_flag("--plan", options->plan, "Show what would happen, how much space it takes and how long writers wait; do nothing");
  restore->add_flag("-y,--yes", options->yes, "Do not ask");
  restore->add_flag("--ignore-check", options->ignore_check,
                    "Go on where SQLite's checks of the restored state end worse than those of the snapshot");
  restore->add_flag("--snapshot-first", options->snapshot_first,
                    "Take a snapshot of what is there first and pin it; nothing is restored where that fails");
  restore->add_option("--pin-for", options->pin_for, "With --snapshot-first: how long it stays pinned, 30d if not given")
      ->type_name("DURATION");
  restore->add_option("--sign", options->sign, "Sign the orders by this key, for devices that take no others")->type_name("KEYFILE");
  restore->add_option("--sign-counter", options->sign_counter, "With --sign: count from here, not from the time")->type_name("N");
  restore->add_option("--wave-size", options->wave_size, "So many databases at a time; all at once if not given")
      ->check(CLI::Range(1, 100'000))
      ->type_name("N");
  restore->add_option("--max-failures", options->max_failures, "With --wave-size: begin no further wave once so many have failed")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str()
      ->type_name("N");
  restore
      ->add_option("--request-id", options->request_id, "Go on with a command that was stopped: what it has restored is not restored again")
      ->type_name("ID");
  restore
      ->add_option("--selected", options->selected,
                   "With --selector: what the command said when it was stopped. It does not go on where other databases match now")
      ->type_name("SET");
  AddLongActionOptions(restore, *options, true);
  restore->footer(
      "TIME is 2026-11-22T14:03:00+01:00, '2026-11-22 14:03' (local), 'yesterday 23:00', or -15m.\n"
      "The previous state is kept on the device until the next restore, or until keep_previous has passed: litefleet undo. With\n"
      "--snapshot-first it is also a snapshot, pinned until --pin-for has passed, which is restored like any other. Chosen\n"
      "tables are replaced in one transaction, and refused where rows of the database would lose the parents that their\n"
      "foreign keys name. Waits until all have ended; Ctrl-C detaches.\n\n"
      "Examples:\n  litefleet restore kiosk-7/orders --plan\n  litefleet restore kiosk-7/orders --at '2026-11-22 14:03'\n"
      "  litefleet restore kiosk-7/orders --snapshot 01J9ZK --mode replace --yes\n  litefleet restore kiosk-7/orders --to spare-1/orders "
      "--yes\n  litefleet restore --selector site=oslo --at '2026-11-22 14:03' --wave-size 10 --max-failures 2 --yes");
  OnCall(restore, session, options, &Restore);
}

}  // namespace litefleet::cli
