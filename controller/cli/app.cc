#include "controller/cli/app.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <exception>
#include <sstream>
#include <string>
#include <vector>

#include "common/base/nearest.h"
#include "common/base/status.h"
#include "controller/cli/commands.h"
#include "controller/cli/exit_code.h"
#include "controller/cli/session.h"
#include "controller/cli/text.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

// The command that the line got to, and the words with which it was called.
const CLI::App& Deepest(const CLI::App& app, std::string& path) {
  path = "litefleet";
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().back();
    path += " " + at->get_name();
  }
  return *at;
}

std::vector<std::string> Verbs(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) names.push_back(verb->get_name());
  return names;
}

std::vector<std::string> OptionNames(const CLI::App& app, const CLI::App& top) {
  std::vector<std::string> names;
  for (const CLI::App* from : {&app, &top}) {
    for (const CLI::Option* option : from->get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  }
  return names;
}

std::string Joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

absl::Status Usage(std::string_view reason, std::string_view message, std::string_view hint) {
  return Error(absl::StatusCode::kInvalidArgument, reason, message, hint);
}

// What was wrong, in the words of somebody who wants to help.
absl::Status Explain(const CLI::App& app, const CLI::ParseError& error) {
  std::string path;
  const CLI::App& at = Deepest(app, path);
  const std::string help = fmt::format("see `{} --help`", path);
  const std::vector<std::string> extras = app.remaining(true);
  if (!extras.empty()) {
    const std::string& word = extras.front();
    const std::string shown = word.substr(0, word.find('='));
    if (word.size() > 1 && word.front() == '-') {
      const std::string near = Nearest(shown, OptionNames(at, app));
      return Usage("UNKNOWN_OPTION", fmt::format("`{}` has no option {}", path, shown),
                   near.empty() ? help : fmt::format("did you mean {}? {}", near, help));
    }
    const std::vector<std::string> verbs = Verbs(at);
    if (!verbs.empty()) {
      const std::string near = Nearest(word, verbs);
      return Usage("UNKNOWN_COMMAND", fmt::format("`{}` has no command '{}'", path, word),
                   near.empty() ? fmt::format("it has: {}", Joined(verbs)) : fmt::format("did you mean `{} {}`? {}", path, near, help));
    }
    return Usage("TOO_MANY_ARGUMENTS", fmt::format("`{}` does not take '{}'", path, word), help);
  }
  if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && !Verbs(at).empty()) {
    return Usage("COMMAND_MISSING", fmt::format("`{}` needs a command: {}", path, Joined(Verbs(at))), help);
  }
  std::string message = error.what();
  std::replace(message.begin(), message.end(), '\n', ' ');
  return Usage("USAGE", fmt::format("{}: {}", path, message), help);
}

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
    return session.Report(Explain(app, error));
  } catch (const std::exception& error) {
    session.options.output = WantedOutput(argc, argv) == "json" ? "json" : "table";
    session.Begin().IgnoreError();
    return session.Report(Usage("USAGE", error.what(), "see `litefleet --help`"));
  }

  if (const absl::Status begun = session.Begin(); !begun.ok()) return session.Report(begun);
  const absl::StatusOr<int> result = session.action();
  const int code = result.ok() ? *result : session.Report(result.status());
  if (const absl::Status written = session.Finish(); !written.ok()) return std::max<int>(session.Report(written), kFailed);
  return code;
}

}  // namespace litefleet::cli
