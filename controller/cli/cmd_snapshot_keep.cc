// litefleet snapshot delete|pin|unpin
#include <optional>

#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "controller/cli/time_spec.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

struct KeepOptions {
  std::string snapshot;
  std::optional<std::string> pin_for;
  bool force = false;
  bool yes = false;
};

CommandResult PrintSnapshot(Session& session, const v1::Snapshot& snapshot, const std::string& remark) {
  PrintThing(session, "snapshot", ToJson(snapshot), snapshot.id(), Printable(remark));
  return kDone;
}

CommandResult Delete(Session& session, const KeepOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::GetSnapshotRequest get;
  get.set_snapshot(options.snapshot);
  LF_ASSIGN_OR_RETURN(const v1::GetSnapshotResponse found, client->GetSnapshot(get));
  // It can be taken out of the trash again, so that it is asked for only where there is somebody to ask.
  if (!options.yes && session.stdin_is_terminal() && session.stderr_is_terminal()) {
    LF_RETURN_IF_ERROR(
        session.Confirm(false, fmt::format("Delete snapshot {} of {}?", found.snapshot().id(), DatabaseName(found.snapshot()))));
  }
  v1::DeleteSnapshotRequest request;
  request.set_snapshot(found.snapshot().id());
  request.set_force(options.force);
  LF_ASSIGN_OR_RETURN(const v1::DeleteSnapshotResponse response, client->DeleteSnapshot(request));
  return PrintSnapshot(session, response.snapshot(),
                       fmt::format("snapshot {} of {} is in the trash; `litefleet store trash restore {}` takes it back",
                                   response.snapshot().id(), DatabaseName(response.snapshot()), response.snapshot().id()));
}

CommandResult Pin(Session& session, const KeepOptions& options) {
  v1::PinSnapshotRequest request;
  request.set_snapshot(options.snapshot);
  if (options.pin_for.has_value()) {
    LF_ASSIGN_OR_RETURN(const std::chrono::seconds duration, ParseDuration(*options.pin_for));
    *request.mutable_duration() = Seconds(duration);
  }
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  LF_ASSIGN_OR_RETURN(const v1::PinSnapshotResponse response, client->PinSnapshot(request));
  if (request.has_duration() && !response.snapshot().has_pinned_until())
    session.Warn("--for has no effect: the clock of the controller is on hold (litefleet store hold list), or it knows no such pins");
  return PrintSnapshot(session, response.snapshot(),
                       fmt::format("snapshot {} is pinned {}", response.snapshot().id(), PinText(response.snapshot())));
}

CommandResult Unpin(Session& session, const KeepOptions& options) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::UnpinSnapshotRequest request;
  request.set_snapshot(options.snapshot);
  LF_ASSIGN_OR_RETURN(const v1::UnpinSnapshotResponse response, client->UnpinSnapshot(request));
  return PrintSnapshot(session, response.snapshot(), fmt::format("snapshot {} is not pinned any more", response.snapshot().id()));
}

}  // namespace

void AddSnapshotKeep(CLI::App& snapshot, Session& session) {
  const auto verb = [&](const std::string& name, const std::string& description, CommandResult (*run)(Session&, const KeepOptions&)) {
    auto options = std::make_shared<KeepOptions>();
    CLI::App* command = snapshot.add_subcommand(name, description);
    command->add_option("ID", options->snapshot, "Id of the snapshot, or the beginning of it")->required();
    if (name == "delete") {
      command->add_flag("--force", options->force, "Also the newest one that was checked, or the last one of its database");
      command->add_flag("-y,--yes", options->yes, "Do not ask");
    }
    if (name == "pin")
      command->add_option("--for", options->pin_for, "Only for so long, from now on; until it is unpinned if not given")
          ->type_name("DURATION");
    OnCall(command, session, options, run);
  };
  verb("delete", "Put a snapshot into the trash", &Delete);
  verb("pin", "Keep a snapshot whatever policies say", &Pin);
  verb("unpin", "Leave a snapshot to the policies again", &Unpin);
}

}  // namespace litefleet::cli
