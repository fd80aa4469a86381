// DownloadSnapshot: the pages of a snapshot in ascending order, read step by step on an executor, written as fast as the client takes
// them.
//
// Bounds: a few messages of one extent wait to be written. An error after data has been sent ends the stream with that error, so that
// the client discards what it has; only a stream that ends with OK was compared with the root digest to its end.
#ifndef LITEFLEET_CONTROLLER_RPC_DOWNLOAD_REACTOR_H_
#define LITEFLEET_CONTROLLER_RPC_DOWNLOAD_REACTOR_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <string>

#include "absl/status/status.h"
#include "common/base/executor.h"
#include "controller/rpc/admin_handlers.h"

namespace litefleet::rpc {

// `caller`: not OK ends the stream with it at once.
grpc::ServerWriteReactor<v1::DownloadSnapshotResponse>* LaunchDownload(grpc::CallbackServerContext* context, const absl::Status& caller,
                                                                       const AdminHandlers& handlers, Executor& executor,
                                                                       const std::string& snapshot);

}  // namespace litefleet::rpc

#endif  // LITEFLEET_CONTROLLER_RPC_DOWNLOAD_REACTOR_H_
