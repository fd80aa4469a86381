#include "controller/cli/session.h"

#include <langinfo.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdlib>
#include <iostream>

#include "common/base/status.h"
#include "common/io/admin_socket.h"
#include "common/io/file.h"
#include "controller/cli/exit_code.h"
#include "controller/cli/text.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

constexpr std::string_view kClearLine = "\r\033[K";

// Where `own` is true as it is. A closed standard error is nobody's loss.
void WriteError(std::string_view text, bool own = false) {
  const std::string safe = own ? std::string(text) : PrintableLines(text, {});
  io::WriteAll(STDERR_FILENO, AsBytes(safe), "standard error").IgnoreError();
}

}  // namespace

absl::Status Session::Begin() {
  if (options.output == "table") {
    format_ = OutputFormat::kTable;
  } else if (options.output == "wide") {
    format_ = OutputFormat::kWide;
  } else if (options.output == "json") {
    format_ = OutputFormat::kJson;
  } else if (options.output == "name") {
    format_ = OutputFormat::kName;
  } else {
    return Error(absl::StatusCode::kInvalidArgument, "OUTPUT_INVALID", fmt::format("-o {} is not known", options.output),
                 "use table, wide, json or name");
  }
  stdin_terminal_ = isatty(STDIN_FILENO) == 1;
  stdout_terminal_ = isatty(STDOUT_FILENO) == 1;
  stderr_terminal_ = isatty(STDERR_FILENO) == 1;
  std::setlocale(LC_CTYPE, "");
  const char* charset = nl_langinfo(CODESET);
  style_.utf8 = charset != nullptr && std::string_view(charset) == "UTF-8";
  const std::string terminal = Environment("TERM");
  style_.color = stdout_terminal_ && !options.no_color && Environment("NO_COLOR").empty() && terminal != "dumb" && !terminal.empty();
  style_.width = format_ == OutputFormat::kWide ? 0 : 100;
  return absl::OkStatus();
}

absl::StatusOr<rpc::Address> Session::ServerAddress() const {
  std::string server = options.server.empty() ? Environment("LITEFLEET_SERVER") : options.server;
  if (server.empty()) {
    std::string data = options.data.empty() ? Environment("LITEFLEET_DATA") : options.data;
    if (data.empty()) data = io::kDefaultDataDirectory;
    rpc::Address address;
    address.path = io::AdminSocketPath(data);
    return address;
  }
  return rpc::ParseAddress(server);
}

std::string Session::IdentityFile() const { return options.identity.empty() ? Environment("LITEFLEET_IDENTITY") : options.identity; }

absl::StatusOr<AdminClient*> Session::Client() {
  if (client_ == nullptr) {
    LF_ASSIGN_OR_RETURN(const rpc::Address address, ServerAddress());
    LF_ASSIGN_OR_RETURN(client_, AdminClient::Make(address, IdentityFile()));
  }
  return client_.get();
}

void Session::Print(std::string_view text) {
  ClearProgress();
  const std::string safe = PrintableLines(text, Colours(style_));
  if (write_error_ == 0 && !io::WriteAll(STDOUT_FILENO, AsBytes(safe), "standard output").ok()) write_error_ = errno == 0 ? EIO : errno;
}

void Session::PrintJson(std::string_view kind, Json object_members) {
  // The members begin with a brace: schema and kind go in behind it. An operation has a kind of its own, and no key is there twice.
  const std::string members = object_members.Text();
  const std::string_view key = kind == "operation" ? "document" : "kind";
  Print(fmt::format("{{\"schema\":1,\"{}\":\"{}\"{}{}\n", key, kind, members == "{}" ? "" : ",", std::string_view(members).substr(1)));
}

void Session::PrintJsonList(std::string_view kind, Json items) {
  PrintJson(kind, std::move(Json::Object().Set("items", std::move(items)).Set("next_page_token", nullptr)));
}

absl::Status Session::Finish() {
  ClearProgress();
  if (write_error_ == 0) return absl::OkStatus();
  return ErrnoError(write_error_, "write standard output");
}

void Session::Note(std::string_view line) {
  if (options.quiet) return;
  ClearProgress();
  WriteError(fmt::format("{}\n", Printable(line)));
}

void Session::Show(std::string_view text) {
  ClearProgress();
  WriteError(text);
}

void Session::ShowBeforeAsking(std::string_view text) {
  if (!json() || (stdin_terminal_ && stderr_terminal_)) Show(text);
}

void Session::Warn(std::string_view line) {
  ClearProgress();
  WriteError(fmt::format("warning: {}\n", Printable(line)));
}

int Session::Report(const absl::Status& error) {
  ClearProgress();
  const int code = ExitCodeOf(error);
  const std::string hint = HintOf(error);
  if (json()) {
    Json detail = Json::Object();
    detail.Set("code", CodeName(error.code()))
        .Set("reason", Json::OrNull(ReasonOf(error)))
        .Set("message", MessageOf(error))
        .Set("hint", Json::OrNull(hint));
    WriteError(Json::Object().Set("error", std::move(detail)).Text() + "\n");
  } else {
    WriteError(fmt::format("error: {}\n", Printable(MessageOf(error))));
    if (!hint.empty()) WriteError(fmt::format("  hint: {}\n", Printable(hint)));
  }
  return code;
}

bool Session::Ask(std::string_view question) {
  ClearProgress();
  WriteError(fmt::format("{} [y/N] ", question));
  std::string answer;
  char c = 0;
  while (read(STDIN_FILENO, &c, 1) == 1 && c != '\n') answer += c;
  return answer == "y" || answer == "Y" || answer == "yes" || answer == "Yes" || answer == "YES";
}

absl::Status Session::Confirm(bool yes, std::string_view question) {
  if (yes) return absl::OkStatus();
  if (!stdin_terminal_ || !stderr_terminal_) {
    return Error(absl::StatusCode::kInvalidArgument, "CONFIRMATION_NEEDED",
                 "nothing was done: this destroys data, and there is no terminal to ask at", "look at the plan and add --yes");
  }
  if (Ask(question)) return absl::OkStatus();
  return Error(absl::StatusCode::kCancelled, "NOT_CONFIRMED", "nothing was done");
}

void Session::ShowProgress(std::string_view line) {
  if (!stderr_terminal_ || options.quiet) return;
  size_t columns = 80;
  struct winsize size = {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20) columns = size.ws_col;
  WriteError(kClearLine, true);
  WriteError(Cut(line, columns - 1, "..."));
  progress_shown_ = true;
}

void Session::ClearProgress() {
  if (!progress_shown_) return;
  progress_shown_ = false;
  WriteError(kClearLine, true);
}

}  // namespace litefleet::cli
