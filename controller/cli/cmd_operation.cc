// litefleet operation list|show|watch|cancel
#include <sstream>
#include <string>

#include "common/base/error_detail.h"
#include "common/base/proto_time.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/figures.h"
#include "controller/cli/progress.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "controller/cli/time_spec.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

constexpr int kMostNotes = 3;

struct ListOptions {
  bool active = false;
  std::string device;
  int limit = 0;
};
struct OperationOptions {
  std::string operation;
  std::string timeout = "60s";
};

std::string DoneText(const v1::Operation& operation) {
  const v1::Progress& progress = operation.progress();
  if (progress.total_bytes() <= 0) return progress.done_bytes() > 0 ? SizeText(progress.done_bytes()) : "-";
  return fmt::format("{}%",
                     static_cast<int>(static_cast<double>(progress.done_bytes()) * 100 / static_cast<double>(progress.total_bytes())));
}

CommandResult List(Session& session, const ListOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::ListOperationsRequest all;
  all.set_active_only(options.active);
  all.set_device(options.device);
  const auto wanted = static_cast<size_t>(options.limit > 0 ? options.limit : INT32_MAX);
  std::vector<v1::Operation> operations;
  LF_RETURN_IF_ERROR(AllPages(all, [&](v1::ListOperationsRequest& request) -> absl::StatusOr<std::string> {
    if (wanted - operations.size() < 1000) request.set_page_size(static_cast<int32_t>(wanted - operations.size()));
    LF_ASSIGN_OR_RETURN(const v1::ListOperationsResponse response, client->ListOperations(request));
    operations.insert(operations.end(), response.operations().begin(), response.operations().end());
    return operations.size() >= wanted ? std::string() : response.next_page_token();
  }));
  if (session.json()) {
    Json items = Json::Array();
    for (const v1::Operation& operation : operations) items.Add(ToJson(operation));
    session.PrintJsonList("operation_list", std::move(items));
    return kDone;
  }
  if (session.format() == OutputFormat::kName) {
    for (const v1::Operation& operation : operations) session.Print(operation.id() + "\n");
    return kDone;
  }
  if (operations.empty()) {
    session.Note(options.active ? "no operation is under way" : "no operations yet");
    return kDone;
  }
  const bool wide = session.format() == OutputFormat::kWide;
  std::vector<Table::Column> columns = {{"ID"},         {"KIND"},          {"DATABASE", false, true}, {"STATE"},
                                        {"DONE", true}, {"STARTED", true}, {"ERROR", false, true}};
  if (wide) columns.insert(columns.end(), {{"SNAPSHOT"}, {"ORDERED BY"}, {"CREATED"}, {"ENDED"}, {"SENT", true}});
  Table table(columns);
  const SystemTime now = session.clock().Now();
  for (const v1::Operation& operation : operations) {
    std::vector<Cell> row = {operation.id(),
                             Word(operation.kind()),
                             DatabaseName(operation),
                             Cell(Word(operation.state()), ToneOf(operation.state())),
                             DoneText(operation),
                             operation.has_started_at() ? AgeText(FromProtoTime(operation.started_at()), now) : "-",
                             operation.has_error() ? operation.error().info().reason() : "-"};
    if (wide) {
      row.insert(row.end(), {operation.snapshot_id().empty() ? "-" : operation.snapshot_id(), operation.ordered_by(),
                             operation.has_created_at() ? LocalTimeText(FromProtoTime(operation.created_at())) : "-",
                             operation.has_ended_at() ? LocalTimeText(FromProtoTime(operation.ended_at())) : "-",
                             SizeText(operation.progress().wire_bytes())});
    }
    table.Add(std::move(row));
  }
  session.Print(table.Text(session.style()));
  int told = 0;
  for (const v1::Operation& operation : operations) {
    const std::string waits = WaitsForDevice(operation);
    if (waits.empty() || ++told > kMostNotes) continue;
    session.Note(fmt::format("{}: {}", operation.id(), waits));
  }
  if (told > kMostNotes) session.Note(fmt::format("{} more wait so: litefleet operation show ID", told - kMostNotes));
  return kDone;
}

CommandResult PrintOperation(Session& session, const v1::Operation& operation) {
  const Figures figures = FiguresOf(session, operation);
  const SystemTime now = session.clock().Now();
  Facts facts;
  facts.Add("id", operation.id())
      .Add("kind", Word(operation.kind()))
      .AddIf("database", DatabaseName(operation))
      .Add("state", Word(operation.state()));
  if (!HasEnded(operation) && !operation.device_connected() && RunsOnDevice(operation.kind())) facts.Add("device", "offline");
  facts.AddIf("cancelling", WaitsForDevice(operation));
  facts.AddIf("mode", Word(operation.restore_mode()))
      .AddIf("snapshot", operation.snapshot_id())
      .AddIf("ordered by", operation.ordered_by());
  if (operation.has_created_at()) facts.Add("created", LocalTimeText(FromProtoTime(operation.created_at())));
  if (operation.has_started_at())
    facts.Add("started", fmt::format("{} ({})", LocalTimeText(FromProtoTime(operation.started_at())),
                                     AgeText(FromProtoTime(operation.started_at()), now)));
  if (operation.has_ended_at()) facts.Add("ended", LocalTimeText(FromProtoTime(operation.ended_at())));
  if (!HasEnded(operation) && operation.has_expires_at() && !operation.has_started_at())
    facts.Add("expires", LocalTimeText(FromProtoTime(operation.expires_at())));
  const v1::Progress& progress = operation.progress();
  if (progress.total_bytes() > 0) {
    facts.Add("done",
              fmt::format("{} of {}{}", SizeText(progress.done_bytes()), SizeText(progress.total_bytes()),
                          RunsOnDevice(operation.kind()) ? fmt::format(", {} over the wire", SizeText(progress.wire_bytes())) : ""));
  }
  AddFigures(operation, figures, facts);
  if (!HasEnded(operation)) facts.AddIf("phase", progress.phase());
  if (operation.has_stall()) facts.Add("writers waited", DurationText(Millis(operation.stall())));
  facts.AddIf("undo", operation.undo());
  if (operation.has_error()) {
    facts.Add("error", fmt::format("{} ({})", operation.error().message(), operation.error().info().reason()))
        .AddIf("what to do", operation.error().info().hint());
  }
  std::string text = facts.Text();
  for (const std::string& step : operation.steps()) text += "  * " + Printable(step) + "\n";
  for (const v1::HookRun& run : operation.hooks()) {
    text += fmt::format("  hook {}: {} after {}\n", Printable(run.hook()),
                        run.timed_out() ? "its time was over" : fmt::format("exit code {}", run.exit_code()),
                        DurationText(Millis(run.duration())));
    std::istringstream lines(run.output());
    for (std::string line; std::getline(lines, line);) text += "    | " + Printable(line) + "\n";
  }
  Json json = ToJson(operation);
  AddFigures(operation, figures, json);
  PrintThing(session, "operation", std::move(json), operation.id(), text);
  return kDone;
}

CommandResult Show(Session& session, const OperationOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::GetOperationRequest request;
  request.set_operation(options.operation);
  LF_ASSIGN_OR_RETURN(const v1::GetOperationResponse response, client->GetOperation(request));
  return PrintOperation(session, response.operation());
}

CommandResult Watch(Session& session, const OperationOptions& options) {
  LF_ASSIGN_OR_RETURN(const std::chrono::seconds timeout, ParseDuration(options.timeout));
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::GetOperationRequest request;
  request.set_operation(options.operation);
  LF_ASSIGN_OR_RETURN(const v1::GetOperationResponse found, client->GetOperation(request));
  std::string last;
  const auto ended = WaitFor(session, found.operation(), WaitOptions{timeout}, [&](const v1::Operation& now) {
    // A watch that was begun again says first what is known already.
    if (session.json()) {
      const std::string text = ToJson(now).Text();
      if (text != last) session.PrintJson("operation", ToJson(now));
      last = text;
    } else if (session.format() == OutputFormat::kName || session.stderr_is_terminal()) {
      return;
    } else if (const std::string text = fmt::format("{}", Word(now.state())); text != last) {
      session.Note(ProgressLine(now, 0));
      last = text;
    }
  });
  if (!ended.ok()) return ReportWait(session, ended.status(), {found.operation()});
  if (session.format() == OutputFormat::kName) {
    session.Print(ended->id() + "\n");
  } else if (!session.json()) {
    session.Print(Printable(OperationOutcome(*ended)) + "\n");
  }
  if (ended->has_error()) session.Report(FromErrorDetail(ended->error()));
  return ExitCodeOf(*ended);
}

CommandResult Cancel(Session& session, const OperationOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::CancelOperationRequest request;
  request.set_operation(options.operation);
  LF_ASSIGN_OR_RETURN(const v1::CancelOperationResponse response, client->CancelOperation(request));
  const v1::Operation& operation = response.operation();
  PrintThing(session, "operation", ToJson(operation), operation.id(),
             fmt::format("operation {} is {}", operation.id(), Word(operation.state())));
  if (const std::string waits = WaitsForDevice(operation); !waits.empty()) session.Note(waits);
  return kDone;
}

}  // namespace

void AddOperation(CLI::App& app, Session& session) {
  CLI::App* operation = AddNoun(app, "operation", "List, show, watch and cancel backups, restores and checks");

  auto list_options = std::make_shared<ListOptions>();
  CLI::App* list = operation->add_subcommand("list", "List operations, newest first");
  list->add_flag("--active", list_options->active, "Only those that have not ended");
  list->add_option("--device", list_options->device, "Only those of this device")->type_name("DEVICE");
  list->add_option("--limit", list_options->limit, "At most this many")->type_name("N")->check(CLI::Range(1, 1'000'000));
  OnCall(list, session, list_options, &List);

  const auto verb = [&](const std::string& name, const std::string& description, CommandResult (*run)(Session&, const OperationOptions&)) {
    auto options = std::make_shared<OperationOptions>();
    CLI::App* command = operation->add_subcommand(name, description);
    command->add_option("ID", options->operation, "Id of the operation, or the beginning of it")->required();
    OnCall(command, session, options, run);
    return std::pair(command, options);
  };
  verb("show", "Show one operation", &Show);
  const auto [watch, watch_options] = verb("watch", "Follow an operation to its end, also across restarts of the controller", &Watch);
  watch->add_option("--timeout", watch_options->timeout, "How long to wait, all in all, for a device that is offline")
      ->type_name("DURATION")
      ->default_str("60s");
  watch->footer("With -o json every change is a document on a line of its own. The exit code is that of the operation.");
  const auto [cancel, cancel_options] = verb("cancel", "End an operation; what it made so far goes", &Cancel);
  cancel->footer(
      "It takes effect within 2 s, but for hooks of the device, which have their time to end, and for a restore that has begun to change\n"
      "the database, which is finished and ends as succeeded.\n"
      "A restore or an undo that its device had taken on, and that is offline now, stays cancelling: it may have changed the database, "
      "and\n"
      "nobody knows before the device is back. It ends by itself, as cancelled, once its order has expired and a day has passed since it "
      "was\n"
      "given: `operation show` says when. What the device says later takes the place of that.");
}

}  // namespace litefleet::cli
