// The only place where absl::Status and grpc::Status meet. Code, message, reason and hint survive the way there and back.
//
// Thread safety: pure functions.
#ifndef LITEFLEET_COMMON_RPC_STATUS_H_
#define LITEFLEET_COMMON_RPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::rpc {

grpc::Status ToGrpc(const absl::Status& status);
absl::Status ToAbsl(const grpc::Status& status);

}  // namespace litefleet::rpc

#endif  // LITEFLEET_COMMON_RPC_STATUS_H_
