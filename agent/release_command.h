// `litefleet-agent release DATABASE`: the running agent lets go of a database for a moment, so that an application can do what no reader
// may be beside (journal_mode, locking_mode=EXCLUSIVE, a RESTART checkpoint without a busy timeout).
#ifndef LITEFLEET_AGENT_RELEASE_COMMAND_H_
#define LITEFLEET_AGENT_RELEASE_COMMAND_H_

#include <chrono>
#include <string>

#include "absl/status/status.h"
#include "agent/config/config.h"

namespace litefleet {

// Returns when nothing of the agent is attached any more; it attaches again after `length`. Errors: kNotFound DATABASE_UNKNOWN,
// kFailedPrecondition NOT_FOLLOWED, kDeadlineExceeded NOT_RELEASED.
absl::Status Release(const config::AgentConfig& config, const std::string& database, std::chrono::seconds length);

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_RELEASE_COMMAND_H_
