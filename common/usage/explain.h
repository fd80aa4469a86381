// What was wrong with a command line, in the words of somebody who wants to help: the same for all three programs.
//
// Thread safety: a pure function.
#ifndef LITEFLEET_COMMON_USAGE_EXPLAIN_H_
#define LITEFLEET_COMMON_USAGE_EXPLAIN_H_

#include "absl/status/status.h"

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace litefleet::usage {

// kInvalidArgument UNKNOWN_OPTION, UNKNOWN_COMMAND, TOO_MANY_ARGUMENTS, COMMAND_MISSING or USAGE, with a hint. `app` is the one that has
// parsed, with the program's name.
absl::Status Explain(const CLI::App& app, const CLI::ParseError& error);

}  // namespace litefleet::usage

#endif  // LITEFLEET_COMMON_USAGE_EXPLAIN_H_
