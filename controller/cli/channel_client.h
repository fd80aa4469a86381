// What all clients of the controller share: the channel, and errors that people can act on.
//
// Thread safety: functions without state.
#ifndef LITEFLEET_CONTROLLER_CLI_CHANNEL_CLIENT_H_
#define LITEFLEET_CONTROLLER_CLI_CHANNEL_CLIENT_H_

#include <grpcpp/channel.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/rpc/address.h"

namespace litefleet::cli {

// `identity_file` may be empty for a unix socket. Nothing is sent yet. Errors: kInvalidArgument IDENTITY_MISSING, those of the file.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const rpc::Address& address, const std::string& identity_file);

// gRPC says nothing about why a socket cannot be connected, so it is looked at before. OK for other addresses.
absl::Status LookAtSocket(const rpc::Address& address);

// What gRPC reports without a reason of ours never came from the service: CONTROLLER_UNREACHABLE, CONTROLLER_SLOW, VERSION_MISMATCH.
absl::Status Explained(const grpc::Status& status, const rpc::Address& address);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_CHANNEL_CLIENT_H_
