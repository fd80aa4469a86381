// The program: parses the command line, runs the command, turns errors into words and exit codes.
//
// Thread safety: none; once per process.
#ifndef LITEFLEET_CONTROLLER_CLI_APP_H_
#define LITEFLEET_CONTROLLER_CLI_APP_H_

#include "common/base/clock.h"
#include "controller/cli/interrupt.h"

namespace litefleet::cli {

// The exit code.
int Run(int argc, const char* const* argv, const Clock& clock, Interrupts& interrupts);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_APP_H_
