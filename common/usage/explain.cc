#include "common/usage/explain.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <vector>

#include "common/base/nearest.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::usage {
namespace {

// The command that the line got to, and the words with which it was called.
const CLI::App& Deepest(const CLI::App& app, std::string& path) {
  path = app.get_name();
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

}  // namespace

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
  // "--data: 1 required DIR missing"
  if (const size_t colon = message.find(": "); dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr &&
                                               colon != std::string::npos && message.find(" required ", colon) != std::string::npos &&
                                               message.ends_with(" missing"))
    message = message.substr(0, colon) + " needs a value";
  return Usage("USAGE", fmt::format("{}: {}", path, message), help);
}

}  // namespace litefleet::usage
