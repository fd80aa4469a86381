// litefleet restore DEVICE/DATABASE... [--snapshot ID | --at TIME [--timeline N]] [--to DEVICE/DATABASE] [--mode live|replace] [--plan]
#include "common/base/error_detail.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "controller/cli/time_spec.h"
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
  bool plan = false;
  bool yes = false;
  bool ignore_check = false;
};

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

std::string PlanText(const v1::PlanRestoreResponse& planned, SystemTime now) {
  const v1::RestorePlan& plan = planned.plan();
  const v1::Snapshot& snapshot = planned.snapshot();
  std::string text = fmt::format("restore of {} ({})\n", planned.target(), Word(plan.mode()));
  Facts facts;
  facts.Add("  snapshot", fmt::format("{} of {}, taken {} ({})", snapshot.id(), DatabaseName(snapshot),
                                      LocalTimeText(FromProtoTime(snapshot.taken_at())), AgeText(FromProtoTime(snapshot.taken_at()), now)));
  facts.Add("  size", fmt::format("{}, at most {} to fetch", SizeText(plan.size_bytes()), SizeText(plan.fetch_bytes())));
  facts.Add("  check", snapshot.check() == v1::CHECK_STATE_UNSPECIFIED ? "unknown" : Word(snapshot.check()));
  const int64_t needed = plan.staging_bytes() + plan.undo_bytes() + plan.journal_bytes() + plan.reserve_bytes();
  facts.Add("  space", fmt::format("{} needed (staging {}, undo {}, journal {}, reserve {}), {} free", SizeText(needed),
                                   SizeText(plan.staging_bytes()), SizeText(plan.undo_bytes()), SizeText(plan.journal_bytes()),
                                   SizeText(plan.reserve_bytes()), SizeText(plan.free_bytes())));
  if (plan.from_device()) {
    facts.Add("  in use", plan.in_use() ? "yes, other processes have it open" : "no other process has it open");
    facts.Add("  writers wait", plan.has_expected_stall() && Millis(plan.expected_stall()).count() > 0
                                    ? "about " + DurationText(Millis(plan.expected_stall()))
                                    : "no");
  }
  text += facts.Text();
  for (const std::string& step : plan.steps()) text += "  * " + Printable(step) + "\n";
  for (const v1::ErrorDetail& obstacle : plan.obstacles()) {
    text += Printable(fmt::format("  it would be refused: {} ({})", obstacle.message(), obstacle.info().reason())) + "\n";
    if (!obstacle.info().hint().empty()) text += "    hint: " + Printable(obstacle.info().hint()) + "\n";
  }
  if (!plan.from_device()) text += "  the device did not answer: this is from the catalog alone\n";
  return text;
}

CommandResult PrintPlans(Session& session, const std::vector<v1::PlanRestoreResponse>& plans, bool single) {
  Json items = Json::Array();
  int code = kDone;
  for (const v1::PlanRestoreResponse& planned : plans) {
    Json item = Json::Object();
    item.Set("target", planned.target()).Set("plan", ToJson(planned.plan())).Set("snapshot", ToJson(planned.snapshot()));
    if (session.json() && single) {
      session.PrintJson("restore_plan", std::move(item));
    } else if (session.json()) {
      items.Add(std::move(item));
    } else if (session.format() == OutputFormat::kName) {
      session.Print(planned.snapshot().id() + "\n");
    } else {
      session.Print(PlanText(planned, session.clock().Now()));
    }
    if (planned.plan().obstacles_size() > 0 && code == kDone) {
      v1::Operation refused;
      refused.set_state(v1::OPERATION_STATE_FAILED);
      *refused.mutable_error() = planned.plan().obstacles(0);
      code = ExitCodeOf(refused);
    }
  }
  if (session.json() && !single) session.PrintJsonList("restore_plan_list", std::move(items));
  return code;
}

CommandResult Restore(Session& session, const RestoreOptions& options) {
  LF_ASSIGN_OR_RETURN(std::vector<v1::RestoreTarget> targets, Targets(session, options));
  LF_ASSIGN_OR_RETURN(const std::chrono::seconds expire, ParseDuration(options.expire));
  LF_RETURN_IF_ERROR(ParseDuration(options.timeout).status());
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  const bool single = options.selector.empty() && targets.size() == 1;
  if (options.plan || !options.yes) {
    std::vector<v1::PlanRestoreResponse> plans;
    bool destructive = false;
    for (v1::RestoreTarget& target : targets) {
      v1::PlanRestoreRequest request;
      *request.mutable_restore() = target;
      LF_ASSIGN_OR_RETURN(v1::PlanRestoreResponse planned, client->PlanRestore(request));
      destructive = destructive || planned.plan().mode() != v1::RESTORE_MODE_NEW || !planned.plan().from_device();
      // What was shown is what is restored, also when another snapshot comes in meanwhile.
      target.set_snapshot(planned.snapshot().id());
      target.clear_at();
      target.clear_timeline();
      plans.push_back(std::move(planned));
    }
    if (options.plan) return PrintPlans(session, plans, single);
    for (const v1::PlanRestoreResponse& planned : plans) {
      if (planned.plan().obstacles_size() > 0) {
        return Annotate(FromErrorDetail(planned.plan().obstacles(0)), fmt::format("{} would refuse the restore", planned.target()));
      }
    }
    if (destructive) {
      std::string text;
      for (const v1::PlanRestoreResponse& planned : plans) text += PlanText(planned, session.clock().Now());
      session.Show(text);
      LF_RETURN_IF_ERROR(session.Confirm(false, plans.size() == 1 ? fmt::format("Overwrite {}?", plans.front().target())
                                                                  : fmt::format("Overwrite {} databases?", plans.size())));
    }
  }
  std::vector<v1::Operation> operations;
  std::vector<int> codes;
  for (const v1::RestoreTarget& target : targets) {
    v1::StartRestoreRequest request;
    *request.mutable_restore() = target;
    *request.mutable_expire() = Seconds(expire);
    request.set_request_id(NewUlid(session.clock().Now()));
    auto response = client->StartRestore(request);
    if (!response.ok()) {
      if (single) return response.status();
      codes.push_back(session.Report(Annotate(response.status(), target.source())));
      continue;
    }
    operations.push_back(*std::move(response->mutable_operation()));
  }
  if (operations.empty()) return Combine(codes);
  LF_ASSIGN_OR_RETURN(const int code, FinishOperations(session, std::move(operations), options, single));
  if (code == kInterrupted) return code;
  codes.push_back(code);
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
                   "live: into the file that applications have open; replace: the application is stopped.\nLive where there is a database, "
                   "if not given")
      ->check(CLI::IsMember({"live", "replace"}))
      ->type_name("MODE");
  restore->add_flag("--plan", options->plan, "Show what would happen, how much space it takes and how long writers wait; do nothing");
  restore->add_flag("-y,--yes", options->yes, "Do not ask");
  restore->add_flag("--ignore-check", options->ignore_check,
                    "Go on where SQLite's checks of the restored state end worse than those of the snapshot");
  AddLongActionOptions(restore, *options, true);
  restore->footer(
      "TIME is 2026-11-22T14:03:00+01:00, '2026-11-22 14:03' (local), 'yesterday 23:00', or -15m.\n"
      "The previous state is kept on the device. Waits until all have ended; Ctrl-C detaches.\n\n"
      "Examples:\n  litefleet restore kiosk-7/orders --plan\n  litefleet restore kiosk-7/orders --at '2026-11-22 14:03'\n"
      "  litefleet restore kiosk-7/orders --snapshot 01J9ZK --mode replace --yes\n  litefleet restore kiosk-7/orders --to spare-1/orders "
      "--yes");
  OnCall(restore, session, options, &Restore);
}

}  // namespace litefleet::cli
