#include "controller/cli/app.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <exception>
#include <sstream>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/usage/explain.h"
#include "controller/cli/commands.h"
#include "controller/cli/exit_code.h"
#include "controller/cli/session.h"
#include "controller/cli/text.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

void AddGlobalOptions(CLI::App& app, GlobalOptions& options) {
  app.add_option("--server", options.server, "Where the controller is; $LITEFLEET_SERVER, then the socket of --data")
      ->type_name("unix:PATH|HOST:PORT");
  app.add_option("--data", options.data, "The controller's data directory; $LITEFLEET_DATA, then /var/lib/litefleet")->type_name("DIR");
  app.add_option("--identity", options.identity, "An operator's PEM file (key, certificate, CA), for HOST:PORT; $LITEFLEET_IDENTITY")
      ->type_name("FILE");
  app.add_option("-o", options.output, "Output: table, wide, json or name")->type_name("FORMAT")->default_str("table");
  app.add_flag("--no-color", options.no_color, "No colours, as with $NO_COLOR");
  app.add_flag("-q,--quiet", options.quiet, "No progress and no remarks on standard error");
}

// Says in the help of every command where the options of all commands are.
void MentionGlobalOptions(CLI::App& app) {
  for (CLI::App* verb : app.get_subcommands([](CLI::App*) { return true; })) {
    const std::string own = verb->get_footer();
    verb->footer(own + (own.empty() ? "" : "\n\n") +
                 "All commands: -o table|wide|json|name, --server, --data, --identity, --quiet; see `litefleet --help`.");
    MentionGlobalOptions(*verb);
  }
}

// -o json asks for JSON errors also where the rest of the line cannot be parsed.
std::string WantedOutput(int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word(argv[i]);
    if (word == "--") break;
    if (word == "-o" && i + 1 < argc) return argv[i + 1];
    if (word.starts_with("-o") && word.size() > 2) return std::string(word.substr(word[2] == '=' ? 3 : 2));
  }
  return "table";
}

}  // namespace

int Run(int argc, const char* const* argv, const Clock& clock, Interrupts& interrupts) {
  Session session(clock, interrupts);
  CLI::App app("Backups of SQLite databases on a fleet of devices: what there is, what is proven, and back with it.", "litefleet");
  app.fallthrough();
  app.require_subcommand(1);
  app.option_defaults()->always_capture_default(false);
  app.set_help_flag("-h,--help", "Show this help");
  app.set_version_flag("--version", "litefleet " LITEFLEET_VERSION);
  AddGlobalOptions(app, session.options);
  AddStatus(app, session);
  AddToken(app, session);
  AddDevice(app, session);
  AddDatabase(app, session);
  AddBackup(app, session);
  AddSnapshot(app, session);
  AddRestore(app, session);
  AddUndo(app, session);
  AddKey(app, session);
  AddOperation(app, session);
  AddPolicy(app, session);
  AddStore(app, session);
  AddDoctor(app, session);
  AddVersion(app, session);
  AddCompletion(app, session);
  MentionGlobalOptions(app);
  app.footer(
      "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done, 4 not found, 5 denied, 6 conflict,\n"
      "7 unreachable or offline, 8 verification failed, 130 interrupted.\n\n"
      "Examples:\n  litefleet status\n  litefleet backup kiosk-7/orders\n  litefleet snapshot list kiosk-7/orders\n"
      "  litefleet restore kiosk-7/orders --at '2026-11-22 14:03'\n  litefleet --server backup.example:8742 --identity admin.pem device "
      "list -o json");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {  // --help, --version
      std::ostringstream out;
      app.exit(error, out, out);
      session.Print(out.str());
      return session.Finish().ok() ? kDone : kFailed;
    }
    session.options.output = WantedOutput(argc, argv) == "json" ? "json" : "table";
    session.Begin().IgnoreError();
    return session.Report(usage::Explain(app, error));
  } catch (const std::exception& error) {
    session.options.output = WantedOutput(argc, argv) == "json" ? "json" : "table";
    session.Begin().IgnoreError();
    return session.Report(Error(absl::StatusCode::kInvalidArgument, "USAGE", error.what(), "see `litefleet --help`"));
  }

  if (const absl::Status begun = session.Begin(); !begun.ok()) return session.Report(begun);
  const absl::StatusOr<int> result = session.action();
  const int code = result.ok() ? *result : session.Report(result.status());
  if (const absl::Status written = session.Finish(); !written.ok()) return std::max<int>(session.Report(written), kFailed);
  return code;
}

}  // namespace litefleet::cli
