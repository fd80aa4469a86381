// Asks a controller whether it is there, without disturbing the running agent's control stream. Blocks for `timeout` at most.
#ifndef LITEFLEET_AGENT_CONTROL_CONTROLLER_CLIENT_H_
#define LITEFLEET_AGENT_CONTROL_CONTROLLER_CLIENT_H_

#include <chrono>

#include "absl/status/status.h"
#include "common/rpc/channel.h"

namespace litefleet::control {

// OK when the TLS handshake succeeded and the health check was answered. Errors: what gRPC says, kUnavailable as a rule.
absl::Status ProbeController(const rpc::ChannelOptions& options, std::chrono::milliseconds timeout);

}  // namespace litefleet::control

#endif  // LITEFLEET_AGENT_CONTROL_CONTROLLER_CLIENT_H_
