// What a device says that a restore or an undo would do, for people. Thread safety: pure functions.
#ifndef LITEFLEET_CONTROLLER_CLI_PLAN_TEXT_H_
#define LITEFLEET_CONTROLLER_CLI_PLAN_TEXT_H_

#include <string>

#include "controller/cli/command_support.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::cli {

// `facts` are what is known beside the plan. Ends with a line break; lines have at most `width` characters, 0: as many as they get.
std::string PlanText(const std::string& title, Facts facts, const v1::RestorePlan& plan, size_t width);

// The exit code that it would end with: that of its first obstacle.
int ExitCodeOf(const v1::RestorePlan& plan);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_PLAN_TEXT_H_
