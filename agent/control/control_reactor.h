// Control streams over gRPC. Thread safety: any thread. Source: pitfalls 3 to 5 of style.md.
#ifndef LITEFLEET_AGENT_CONTROL_CONTROL_REACTOR_H_
#define LITEFLEET_AGENT_CONTROL_CONTROL_REACTOR_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "agent/control/control_stream.h"
#include "common/rpc/channel.h"
#include "common/rpc/channel_hub.h"

namespace litefleet::control {

// `options` is asked before each connection; `hub` gets the channel while the stream is welcomed. Both outlive the connector.
std::unique_ptr<ControlConnector> MakeGrpcConnector(std::function<absl::StatusOr<rpc::ChannelOptions>()> options, rpc::ChannelHub& hub);

}  // namespace litefleet::control

#endif  // LITEFLEET_AGENT_CONTROL_CONTROL_REACTOR_H_
