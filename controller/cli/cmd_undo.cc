// litefleet undo DEVICE/DATABASE [--restore OPERATION] [--plan | --drop] [--yes]
#include "common/base/error_detail.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
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

v1::PlanUndoRequest PlanRequest(const UndoOptions& options) {
  v1::PlanUndoRequest request;
  request.set_database(options.database);
  request.set_restore_operation(options.restore);
  return request;
}

// The restore that the device's record is of now: the order is bound to it, however long it waits for the device.
absl::StatusOr<std::string> AskDrop(Session& session, AdminClient& client, const UndoOptions& options) {
  LF_ASSIGN_OR_RETURN(const v1::PlanUndoResponse planned, client.PlanUndo(PlanRequest(options)));
  const v1::RestorePlan& plan = planned.plan();
  if (plan.kept_by().empty()) {
    if (plan.obstacles_size() > 0) return FromErrorDetail(plan.obstacles(0));
    return Error(absl::StatusCode::kFailedPrecondition, "VERSION_MISMATCH",
                 fmt::format("the agent of {} does not say what it keeps", planned.target()),
                 "bring agent and controller to the same version");
  }
  if (options.yes) return plan.kept_by();
  Facts facts;
  facts.Add("  operation", plan.kept_by());
  facts.Add("  file", plan.kept_path().empty() ? "none: nothing was there before" : plan.kept_path());
  if (plan.size_bytes() > 0) facts.Add("  size", SizeText(plan.size_bytes()));
  session.ShowBeforeAsking(
      fmt::format("what {} keeps of before its last restore\n{}", planned.target(), facts.Text(session.style().width)));
  LF_RETURN_IF_ERROR(session.Confirm(false, fmt::format("Remove it for good? The restore {} cannot be undone any more.", plan.kept_by())));
  return plan.kept_by();
}

CommandResult Drop(Session& session, AdminClient& client, const UndoOptions& options, std::chrono::seconds expire) {
  std::string restore = options.restore;
  // A device that is offline says nothing: the order waits for it where the restore is named and nobody wants to be asked.
  if (restore.empty() || !options.yes) {
    LF_ASSIGN_OR_RETURN(restore, AskDrop(session, client, options));
  }
  v1::StartDropUndoRequest request;
  request.set_database(options.database);
  request.set_restore_operation(restore);
  *request.mutable_expire() = Seconds(expire);
  request.set_request_id(NewUlid(session.clock().Now()));
  LF_ASSIGN_OR_RETURN(v1::StartDropUndoResponse response, client.StartDropUndo(request));
  return FinishOperations(session, {*std::move(response.mutable_operation())}, options, true);
}

CommandResult Undo(Session& session, const UndoOptions& options) {
  LF_ASSIGN_OR_RETURN(const std::chrono::seconds expire, ParseDuration(options.expire));
  LF_RETURN_IF_ERROR(ParseDuration(options.timeout).status());
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  if (options.drop) return Drop(session, *client, options, expire);
  if (options.plan || !options.yes) {
    LF_ASSIGN_OR_RETURN(const v1::PlanUndoResponse planned, client->PlanUndo(PlanRequest(options)));
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
      "--drop removes what is kept of before one restore: the last one by what the device says, or the one that --restore names. With\n"
      "--restore and --yes the order waits for a device that is offline.\n\n"
      "Examples:\n  litefleet undo kiosk-7/orders --plan\n  litefleet undo kiosk-7/orders --yes\n"
      "  litefleet undo kiosk-7/orders --drop");
  OnCall(undo, session, options, &Undo);
}

}  // namespace litefleet::cli
