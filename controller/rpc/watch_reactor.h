// WatchOperation: an operation as it is, then as it changes, until it has ended.
//
// Bounds: one state waits to be written; where a client is slower than the changes, it sees the newest, never an older one after it.
#ifndef LITEFLEET_CONTROLLER_RPC_WATCH_REACTOR_H_
#define LITEFLEET_CONTROLLER_RPC_WATCH_REACTOR_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <string>

#include "absl/status/status.h"
#include "common/base/executor.h"
#include "controller/rpc/admin_handlers.h"

namespace litefleet::rpc {

// `caller`: not OK ends the stream with it at once.
grpc::ServerWriteReactor<v1::WatchOperationResponse>* LaunchWatch(grpc::CallbackServerContext* context, const absl::Status& caller,
                                                                  const AdminHandlers& handlers, Executor& executor,
                                                                  const std::string& operation);

}  // namespace litefleet::rpc

#endif  // LITEFLEET_CONTROLLER_RPC_WATCH_REACTOR_H_
