// AgentService.Control over the fleet: one stream of one device, its messages handed to an executor one after the other.
//
// Thread safety: NewControlReactor may be called from any thread. Ownership: the stream owns itself until it is done; what ControlDeps
// names must outlive the server. Bounds: no message is read ahead, the queue to the device is StreamLimits, and the hello
// must come within its timeout. Errors that end the stream: what Fleet returns, DEADLINE_EXCEEDED HELLO_MISSING, INVALID_ARGUMENT
// HELLO_EXPECTED, RESOURCE_EXHAUSTED SLOW_READER or OVERLOADED.
#ifndef LITEFLEET_CONTROLLER_RPC_CONTROL_REACTOR_H_
#define LITEFLEET_CONTROLLER_RPC_CONTROL_REACTOR_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>

#include "absl/status/statusor.h"
#include "common/base/executor.h"
#include "common/rpc/bidi_stream.h"
#include "controller/fleet/fleet.h"
#include "controller/rpc/auth.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::rpc {

struct ControlDeps {
  fleet::Fleet* fleet = nullptr;
  Executor* executor = nullptr;  // blocks for commits of the catalog
  std::chrono::milliseconds hello_timeout{15'000};
  // Room for every order and cancel that a device may have outstanding.
  StreamLimits limits{.max_messages = 2048, .max_bytes = 4 << 20};
};

// For the handler to return to gRPC. An error instead of a caller ends the stream with it.
grpc::ServerBidiReactor<v1::ControlRequest, v1::ControlResponse>* NewControlReactor(const ControlDeps& deps,
                                                                                    const absl::StatusOr<Caller>& caller,
                                                                                    grpc::CallbackServerContext* context);

}  // namespace litefleet::rpc

#endif  // LITEFLEET_CONTROLLER_RPC_CONTROL_REACTOR_H_
