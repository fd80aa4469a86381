// ImportSnapshot: one file of an operator on its way, over the state machine in controller/imports.
//
// Reactions only hand work to the executor: one task at a time handles the message that was read, then asks for the next; not asking is the
// backpressure. Whatever ends the stream, the session's End runs once, after the task that may be running. Bounds: one message of at most
// 1 MiB here, and what Imports lets in.
#ifndef LITEFLEET_CONTROLLER_RPC_IMPORT_REACTOR_H_
#define LITEFLEET_CONTROLLER_RPC_IMPORT_REACTOR_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "absl/status/statusor.h"
#include "common/base/executor.h"
#include "controller/imports/imports.h"
#include "controller/rpc/auth.h"
#include "litefleet/v1/admin_import.pb.h"

namespace litefleet::rpc {

// `caller`: an error ends the stream with it. `imports` and `executor` outlive the server.
grpc::ServerBidiReactor<v1::ImportSnapshotRequest, v1::ImportSnapshotResponse>* LaunchImport(grpc::CallbackServerContext* context,
                                                                                             const absl::StatusOr<Caller>& caller,
                                                                                             imports::Imports& imports, Executor& executor);

}  // namespace litefleet::rpc

#endif  // LITEFLEET_CONTROLLER_RPC_IMPORT_REACTOR_H_
