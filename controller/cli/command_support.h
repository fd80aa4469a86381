// What several commands share: how to hang oneself into the parser, how to ask for all pages, how to print.
//
// Thread safety: none.
#ifndef LITEFLEET_CONTROLLER_CLI_COMMAND_SUPPORT_H_
#define LITEFLEET_CONTROLLER_CLI_COMMAND_SUPPORT_H_

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/status.h"
#include "controller/cli/exit_code.h"
#include "controller/cli/session.h"
#include "controller/cli/wait.h"

namespace litefleet::cli {

using CommandResult = absl::StatusOr<int>;

// `options` lives as long as the parser; `run` is what the command does.
template <class Options>
void OnCall(CLI::App* command, Session& session, std::shared_ptr<Options> options, CommandResult (*run)(Session&, const Options&)) {
  command->callback(
      [&session, options = std::move(options), run] { session.action = [&session, options, run] { return run(session, *options); }; });
}
inline void OnCall(CLI::App* command, Session& session, CommandResult (*run)(Session&)) {
  command->callback([&session, run] { session.action = [&session, run] { return run(session); }; });
}

// A noun that does nothing without a verb.
CLI::App* AddNoun(CLI::App& app, const std::string& name, const std::string& description);

// Asks for pages until there is none left. `fetch` gets a request with page_token set and appends the answer's items.
template <class Request, class Fetch>
absl::Status AllPages(Request request, Fetch fetch) {
  request.set_page_size(1000);
  for (;;) {
    absl::StatusOr<std::string> next = fetch(request);
    if (!next.ok()) return next.status();
    if (next->empty()) return absl::OkStatus();
    request.set_page_token(*next);
  }
}

// One thing: as a document, by its name or id, or as `text`, whose last line gets its end.
void PrintThing(Session& session, std::string_view kind, Json json, const std::string& name, std::string_view text);

// "k=v" in its two parts. Errors: kInvalidArgument LABEL_INVALID.
absl::StatusOr<std::pair<std::string, std::string>> SplitLabel(const std::string& text);

// "name: value" lines for one thing, values aligned.
class Facts {
 public:
  Facts& Add(std::string name, std::string value);
  // Left out where `value` is empty.
  Facts& AddIf(std::string name, std::string value);
  // Values are broken into lines of `width` characters in all; 0: as wide as they get.
  std::string Text(size_t width = 0) const;

 private:
  std::vector<std::pair<std::string, std::string>> facts_;
};

// A table that is chosen by its name is the user's, not SQLite's own.
absl::Status CheckTableName(const std::string& table);

// Options of commands that start operations.
struct LongActionOptions {
  bool wait = false;
  bool detach = false;
  std::string timeout = "60s";
  std::string expire = "24h";
};
// --wait, --detach; --timeout and --expire where `needs_device`, which may be offline.
void AddLongActionOptions(CLI::App* command, LongActionOptions& options, bool needs_device);

// Waits unless detached, prints the operations' ends (one thing where `single`, else a list), says what failed; the exit code. `add` puts
// what the command knows besides into an operation's document.
CommandResult FinishOperations(Session& session, std::vector<v1::Operation> operations, const LongActionOptions& options, bool single,
                               const std::function<void(const v1::Operation&, Json&)>& add = nullptr);
// The same for one whose success is told by `succeeded`.
CommandResult FinishOperation(Session& session, const v1::Operation& begun, const LongActionOptions& options,
                              const std::function<CommandResult(const v1::Operation&)>& succeeded);
// The lines for people about operations that have ended or go on.
// `about`: what is known besides, said behind the size; may be empty.
std::string OperationOutcome(const v1::Operation& operation, const std::string& about = {});

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_COMMAND_SUPPORT_H_
