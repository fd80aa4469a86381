// litefleet undo DEVICE/DATABASE [--restore OPERATION] [--plan | --drop] [--yes]
#include "common/base/error_detail.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/plan_text.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "controller/cli/time_spec.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

struct UndoOptions : LongActionOptions {
  std::string database;
  std::string restore;
  bool plan = false;
  bool drop = false;
  bool yes = false;
};

std::string PlanText(const v1::PlanUndoResponse& planned, size_t width) {
  Facts facts;
  if (planned.plan().size_bytes() > 0) facts.Add("  size", SizeText(planned.plan().size_bytes()));
  const std::string mode = planned.plan().mode() == v1::RESTORE_MODE_UNSPECIFIED ? "" : fmt::format(" ({})", Word(planned.plan().mode()));
  return PlanText(fmt::format("undo of the last restore of {}{}", planned.target(), mode), std::move(facts), planned.plan(), width);
}

CommandResult Undo(Session& session, const UndoOptions& options) {
  LF_ASSIGN_OR_RETURN(const std::chrono::seconds expire, ParseDuration(options.expire));
  LF_RETURN_IF_ERROR(ParseDuration(options.timeout).status());
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  if (options.drop) {
    LF_RETURN_IF_ERROR(
        options.yes ? absl::OkStatus()
                    : session.Confirm(false, fmt::format("Remove what {} keeps of before its last restore, for good?", options.database)));
  } else if (options.plan || !options.yes) {
    v1::PlanUndoRequest request;
    request.set_database(options.database);
    request.set_restore_operation(options.restore);
    LF_ASSIGN_OR_RETURN(const v1::PlanUndoResponse planned, client->PlanUndo(request));
    if (options.plan) {
      if (session.json()) {
        Json item = Json::Object();
        item.Set("target", planned.target()).Set("plan", ToJson(planned.plan()));
        session.PrintJson("undo_plan", std::move(item));
      } else {
        session.Print(PlanText(planned, session.style().width));
      }
      return ExitCodeOf(planned.plan());
    }
    if (planned.plan().obstacles_size() > 0)
      return Annotate(FromErrorDetail(planned.plan().obstacles(0)), fmt::format("{} would refuse the undo", planned.target()));
    session.ShowBeforeAsking(PlanText(planned, session.style().width));
    LF_RETURN_IF_ERROR(session.Confirm(false, fmt::format("Put the previous state of {} back?", planned.target())));
  }
  v1::StartUndoRequest request;
  request.set_database(options.database);
  request.set_restore_operation(options.restore);
  request.set_drop(options.drop);
  *request.mutable_expire() = Seconds(expire);
  request.set_request_id(NewUlid(session.clock().Now()));
  LF_ASSIGN_OR_RETURN(v1::StartUndoResponse response, client->StartUndo(request));
  return FinishOperations(session, {*std::move(response.mutable_operation())}, options, true);
}

}  // namespace

void AddUndo(CLI::App& app, Session& session) {
  auto options = std::make_shared<UndoOptions>();
  CLI::App* undo = app.add_subcommand("undo", "Put the state of before the last restore of a database back");
  undo->add_option("DATABASE", options->database, "DEVICE/DATABASE")->required();
  undo->add_option("--restore", options->restore, "Only where this operation was its last restore")->type_name("OPERATION");
  CLI::Option* const plan = undo->add_flag("--plan", options->plan, "Show what would happen; do nothing");
  undo->add_flag("--drop", options->drop, "Do not undo: remove the state that the device keeps, to have its space back")->excludes(plan);
  undo->add_flag("-y,--yes", options->yes, "Do not ask");
  AddLongActionOptions(undo, *options, true);
  undo->footer(
      "The device keeps the state of before the last restore until the next one, or until keep_previous has passed. It comes back in the\n"
      "way that the restore took: into the file that applications have open, or by name with the application stopped. What was there\n"
      "until then is kept in its place: an undo can be undone.\n\n"
      "Examples:\n  litefleet undo kiosk-7/orders --plan\n  litefleet undo kiosk-7/orders --yes\n"
      "  litefleet undo kiosk-7/orders --drop");
  OnCall(undo, session, options, &Undo);
}

}  // namespace litefleet::cli
