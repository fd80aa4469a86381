// `litefleet-agent status`: what the state directory tells, without talking to the running agent. Blocks on the disk.
#ifndef LITEFLEET_AGENT_STATUS_COMMAND_H_
#define LITEFLEET_AGENT_STATUS_COMMAND_H_

#include <ostream>

#include "agent/config/config.h"

namespace litefleet {

// The exit code: 0, or that of an error, which goes to standard error.
int PrintStatus(const config::AgentConfig& config, bool json, std::ostream& out);

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_STATUS_COMMAND_H_
