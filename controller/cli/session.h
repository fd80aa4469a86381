// What every command works with: global options, where output goes, the connection, the clock.
//
// Output: results go to standard output, in one piece at the end; progress, questions and errors go to standard error.
// Thread safety: none but where said.
#ifndef LITEFLEET_CONTROLLER_CLI_SESSION_H_
#define LITEFLEET_CONTROLLER_CLI_SESSION_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "controller/cli/admin_client.h"
#include "controller/cli/interrupt.h"
#include "controller/cli/json.h"
#include "controller/cli/table.h"

namespace litefleet::cli {

enum class OutputFormat { kTable, kWide, kJson, kName };

struct GlobalOptions {
  std::string server;
  std::string data;
  std::string identity;
  std::string output = "table";
  bool no_color = false;
  bool quiet = false;
};

class Session {
 public:
  Session(const Clock& clock, Interrupts& interrupts) : clock_(clock), interrupts_(interrupts) {}

  GlobalOptions options;
  // What the parsed command does; its value is the exit code.
  std::function<absl::StatusOr<int>()> action;

  // After the options were parsed: looks at the terminal and the environment. Errors: kInvalidArgument.
  absl::Status Begin();

  // The connection, made at the first call.
  absl::StatusOr<AdminClient*> Client();
  // Where Client connects to.
  absl::StatusOr<rpc::Address> ServerAddress() const;
  std::string IdentityFile() const;

  OutputFormat format() const { return format_; }
  bool json() const { return format_ == OutputFormat::kJson; }
  bool quiet() const { return options.quiet; }
  bool stdin_is_terminal() const { return stdin_terminal_; }
  bool stderr_is_terminal() const { return stderr_terminal_; }
  bool stdout_is_terminal() const { return stdout_terminal_; }
  // Width 0 for -o wide.
  const Style& style() const { return style_; }
  const Clock& clock() const { return clock_; }
  Interrupts& interrupts() { return interrupts_; }

  // Standard output and standard error: what would drive a terminal goes out escaped, whoever says it.
  // Standard output. Print adds nothing; PrintJson adds schema and kind (for an operation, whose kind is its own: document), and a newline.
  // A failed write (a full disk) is told by Finish.
  void Print(std::string_view text);
  void PrintJson(std::string_view kind, Json object_members);
  void PrintJsonList(std::string_view kind, Json items);
  absl::Status Finish();

  // Standard error, one line; not with --quiet.
  void Note(std::string_view line);
  // Standard error, as it is: what is shown before a question.
  void Show(std::string_view text);
  // What Confirm asks about. Where nobody can be asked and errors are JSON, a program reads them: nothing.
  void ShowBeforeAsking(std::string_view text);
  // A warning is said also with --quiet.
  void Warn(std::string_view line);
  // Says the error, as text or JSON, and gives the exit code.
  int Report(const absl::Status& error);

  // Asks at the terminal; false on anything but yes. REQUIRES: stdin and stderr are terminals.
  bool Ask(std::string_view question);
  // For something that destroys: OK with --yes or a yes at the terminal; kInvalidArgument without a terminal, kCancelled after a no.
  absl::Status Confirm(bool yes, std::string_view question);

  // The progress line at a terminal: replaces the one before. Cleared by what is printed otherwise.
  void ShowProgress(std::string_view line);
  void ClearProgress();

 private:
  const Clock& clock_;
  Interrupts& interrupts_;
  OutputFormat format_ = OutputFormat::kTable;
  Style style_;
  bool stdin_terminal_ = false;
  bool stdout_terminal_ = false;
  bool stderr_terminal_ = false;
  bool progress_shown_ = false;
  int write_error_ = 0;
  std::unique_ptr<AdminClient> client_;
};

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_SESSION_H_
