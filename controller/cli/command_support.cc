#include "controller/cli/command_support.h"

#include <cstdint>

#include "absl/strings/match.h"
#include "common/base/error_detail.h"
#include "controller/cli/figures.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "controller/cli/time_spec.h"
#include "fmt/format.h"

namespace litefleet::cli {

CLI::App* AddNoun(CLI::App& app, const std::string& name, const std::string& description) {
  CLI::App* noun = app.add_subcommand(name, description);
  noun->require_subcommand(1);
  return noun;
}

void PrintThing(Session& session, std::string_view kind, Json json, const std::string& name, std::string_view text) {
  if (session.json()) return session.PrintJson(kind, std::move(json));
  const std::string_view words = session.format() == OutputFormat::kName ? std::string_view(name) : text;
  session.Print(fmt::format("{}{}", words, words.ends_with('\n') ? "" : "\n"));
}

absl::StatusOr<std::pair<std::string, std::string>> SplitLabel(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return Error(absl::StatusCode::kInvalidArgument, "LABEL_INVALID", fmt::format("'{}' is not KEY=VALUE", text),
                 "write for instance site=oslo");
  }
  return std::pair(text.substr(0, equals), text.substr(equals + 1));
}

Facts& Facts::Add(std::string name, std::string value) {
  facts_.emplace_back(std::move(name), std::move(value));
  return *this;
}

Facts& Facts::AddIf(std::string name, std::string value) { return value.empty() ? *this : Add(std::move(name), std::move(value)); }

std::string Facts::Text(size_t width) const {
  size_t names = 0;
  for (const auto& fact : facts_) names = std::max(names, fact.first.size());
  const size_t begin = names + 3;
  std::string text;
  for (const auto& [name, value] : facts_) {
    const std::string words = Printable(value);
    std::string label = name + ":";
    for (const std::string_view line : BrokenLines(words, width > begin ? width - begin : SIZE_MAX)) {
      text += fmt::format("{:<{}}{}\n", label, begin, line);
      label.clear();
    }
  }
  return text;
}

absl::Status CheckTableName(const std::string& table) {
  if (!absl::StartsWithIgnoreCase(table, "sqlite_")) return absl::OkStatus();
  return Error(absl::StatusCode::kInvalidArgument, "TABLES_INVALID", fmt::format("table {} is SQLite's own", table),
               "the counter of a table with AUTOINCREMENT comes with the table");
}

void AddLongActionOptions(CLI::App* command, LongActionOptions& options, bool needs_device) {
  CLI::Option* wait = command->add_flag("--wait", options.wait, "Wait until it has ended (this is the default)");
  CLI::Option* detach = command->add_flag("--detach", options.detach, "Return as soon as the order is stored");
  wait->excludes(detach);
  if (!needs_device) return;  // the controller does it by itself, and nobody is waited for
  command->add_option("--timeout", options.timeout, "How long to wait, all in all, for a device that is offline")
      ->type_name("DURATION")
      ->default_str("60s");
  command->add_option("--expire", options.expire, "How long the order waits for a device that is offline")
      ->type_name("DURATION")
      ->default_str("24h");
}

std::string OperationOutcome(const v1::Operation& operation, const std::string& about) {
  const std::string subject = SubjectOf(operation);
  if (!HasEnded(operation)) return fmt::format("{}: {} (operation {})", subject, Word(operation.state()), operation.id());
  if (operation.state() != v1::OPERATION_STATE_SUCCEEDED) {
    return fmt::format("{}: {}{}", subject, Word(operation.state()),
                       operation.has_error() ? " (" + operation.error().info().reason() + ")" : "");
  }
  std::string text = subject + ": done";
  if (!operation.snapshot_id().empty()) text += fmt::format(", snapshot {}", operation.snapshot_id());
  const bool puts = operation.kind() == v1::OPERATION_KIND_RESTORE || operation.kind() == v1::OPERATION_KIND_UNDO;
  if (puts && operation.restore_mode() != v1::RESTORE_MODE_UNSPECIFIED) text += fmt::format(", {}", Word(operation.restore_mode()));
  if (operation.progress().total_bytes() > 0) text += fmt::format(", {}", SizeText(operation.progress().total_bytes()));
  if (!about.empty()) text += ", " + about;
  if (operation.progress().wire_bytes() > 0) {
    text += fmt::format(", {} {}", SizeText(operation.progress().wire_bytes()),
                        operation.kind() == v1::OPERATION_KIND_RESTORE ? "received" : "sent");
  }
  if (operation.has_started_at() && operation.has_ended_at()) {
    const auto millis = (operation.ended_at().seconds() - operation.started_at().seconds()) * 1000 +
                        (operation.ended_at().nanos() - operation.started_at().nanos()) / 1'000'000;
    if (millis >= 0) text += fmt::format(" in {}", DurationText(std::chrono::milliseconds(millis)));
  }
  if (operation.kind() == v1::OPERATION_KIND_DROP_UNDO && operation.steps_size() > 0)
    text += ": " + operation.steps(operation.steps_size() - 1);
  if (!operation.undo().empty()) text += fmt::format("; the previous state is kept in {}", operation.undo());
  return text;
}

CommandResult FinishOperations(Session& session, std::vector<v1::Operation> operations, const LongActionOptions& options, bool single,
                               const std::function<void(const v1::Operation&, Json&)>& add) {
  if (!options.detach) {
    LF_ASSIGN_OR_RETURN(const std::chrono::seconds timeout, ParseDuration(options.timeout));
    auto ended = WaitForAll(session, operations, WaitOptions{timeout});
    if (!ended.ok()) return ReportWait(session, ended.status(), operations);
    operations = *std::move(ended);
  }
  const auto json = [&](const v1::Operation& operation) {
    Json item = ToJson(operation);
    AddFigures(operation, options.detach ? Figures() : FiguresOf(session, operation), item);
    if (add) add(operation, item);
    return item;
  };
  if (session.json() && single) {
    session.PrintJson("operation", json(operations.front()));
  } else if (session.json()) {
    Json items = Json::Array();
    for (const v1::Operation& operation : operations) items.Add(json(operation));
    session.PrintJsonList("operation_list", std::move(items));
  } else {
    for (const v1::Operation& operation : operations) {
      if (session.format() == OutputFormat::kName) {
        const bool made = operation.kind() == v1::OPERATION_KIND_BACKUP && operation.state() == v1::OPERATION_STATE_SUCCEEDED;
        session.Print((made ? operation.snapshot_id() : operation.id()) + "\n");
      } else {
        const Figures figures = options.detach ? Figures() : FiguresOf(session, operation);
        session.Print(Printable(OperationOutcome(operation, FiguresText(operation, figures))) + "\n");
      }
    }
  }
  if (options.detach) return kDone;
  std::vector<int> codes;
  for (const v1::Operation& operation : operations) {
    const std::string subject = SubjectOf(operation);
    if (!HasEnded(operation)) {
      codes.push_back(session.Report(
          Error(absl::StatusCode::kUnavailable, "DEVICE_OFFLINE",
                fmt::format("{}: the device was offline for {} all in all; operation {} {}", subject, options.timeout, operation.id(),
                            operation.state() == v1::OPERATION_STATE_QUEUED ? "stays queued and runs when it connects"
                                                                            : "goes on when it connects"),
                fmt::format("litefleet operation watch {0}, or litefleet operation cancel {0}", operation.id()))));
      continue;
    }
    codes.push_back(ExitCodeOf(operation));
    if (operation.has_error()) {
      session.Report(Annotate(FromErrorDetail(operation.error()), subject));
    } else if (operation.state() == v1::OPERATION_STATE_EXPIRED) {
      session.Report(Error(absl::StatusCode::kUnavailable, "EXPIRED",
                           fmt::format("{}: the device did not fetch the order in time", subject),
                           "order it again, with a longer --expire"));
    } else if (operation.state() == v1::OPERATION_STATE_CANCELLED) {
      session.Report(Error(absl::StatusCode::kCancelled, "CANCELLED", fmt::format("{} was cancelled", subject)));
    }
  }
  return Combine(codes);
}

CommandResult FinishOperation(Session& session, const v1::Operation& begun, const LongActionOptions& options,
                              const std::function<CommandResult(const v1::Operation&)>& succeeded) {
  if (options.detach) return FinishOperations(session, {begun}, options, true);
  LF_ASSIGN_OR_RETURN(const std::chrono::seconds timeout, ParseDuration(options.timeout));
  const auto ended = WaitFor(session, begun, WaitOptions{timeout});
  if (!ended.ok()) return ReportWait(session, ended.status(), {begun});
  if (ended->state() == v1::OPERATION_STATE_SUCCEEDED) return succeeded(*ended);
  return FinishOperations(session, {*ended}, options, true);
}

}  // namespace litefleet::cli
