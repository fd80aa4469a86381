// litefleet version
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

CommandResult Version(Session& session) {
  const auto client = session.Client();
  const auto answer =
      client.ok() ? (*client)->GetVersion(v1::GetVersionRequest()) : absl::StatusOr<v1::GetVersionResponse>(client.status());
  if (session.json()) {
    Json controller = Json();
    if (answer.ok()) {
      controller = Json::Object();
      controller.Set("version", answer->version())
          .Set("sqlite_version", answer->sqlite_version())
          .Set("grpc_version", Json::OrNull(answer->grpc_version()))
          .Set("protocol_version", answer->protocol_version());
    }
    Json result = Json::Object();
    result.Set("version", LITEFLEET_VERSION).Set("controller", std::move(controller));
    session.PrintJson("version", std::move(result));
  } else {
    session.Print("litefleet " LITEFLEET_VERSION "\n");
    if (answer.ok() && session.format() != OutputFormat::kName) {
      session.Print(fmt::format("controller {} (SQLite {}, gRPC {}, protocol {})\n", answer->version(), answer->sqlite_version(),
                                answer->grpc_version(), answer->protocol_version()));
    }
  }
  // Its own version is what this can always say; a controller that is named wrongly is an error all the same.
  if (!client.ok()) return client.status();
  if (!answer.ok()) session.Note(fmt::format("the controller's version is not known: {}", MessageOf(answer.status())));
  return kDone;
}

}  // namespace

void AddVersion(CLI::App& app, Session& session) {
  CLI::App* version = app.add_subcommand("version", "Versions of this program and of the controller");
  OnCall(version, session, &Version);
}

}  // namespace litefleet::cli
