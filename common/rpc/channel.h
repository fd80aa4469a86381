// How both ends set their connections up: keepalive, limits, TLS. The one place for channel arguments.
//
// A client makes a new channel for every attempt to connect (it shares no connection and no backoff with an older one), so that its own
// backoff decides, not gRPC's. Thread safety: pure functions; channels may be shared by threads.
// Source: gRPC's keepalive guide and what was measured with 1.51 (docs of the limits are beside the numbers in channel.cc).
#ifndef LITEFLEET_COMMON_RPC_CHANNEL_H_
#define LITEFLEET_COMMON_RPC_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/rpc/address.h"
#include "common/rpc/identity_file.h"

namespace litefleet::rpc {

// What a message may have at most on the wire: 1 MiB of payload and room for its frame.
inline constexpr int kMaxMessageBytes = (1 << 20) + (64 << 10);

struct ChannelOptions {
  Address address;
  // Over TLS the root must be set; key and chain may be empty (enrolment). Over a unix socket all of it is ignored: the socket's mode
  // says who may connect.
  Identity identity;
  std::string user_agent;  // "litefleet-agent/0.1.0"
};

// Connects when the first call is made. kInvalidArgument where a TLS address comes without a root, or with something else than one.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const ChannelOptions& options);

struct ServerLimits {
  int max_streams_per_connection = 64;
  int64_t memory_bytes = int64_t{512} << 20;  // gRPC's own buffers, of all connections
};

void ApplyServerLimits(grpc::ServerBuilder& builder, const ServerLimits& limits);

// To be called first in main and kept until its end: without it the last gRPC object that goes can block for 10 s at exit, and abseil's
// deadlock detection, on in Debian, takes time at every lock.
class GrpcRuntime {
 public:
  GrpcRuntime();
  GrpcRuntime(const GrpcRuntime&) = delete;
  GrpcRuntime& operator=(const GrpcRuntime&) = delete;
};

// Keeps gRPC's callback threads for the rest of the process. REQUIRES: GrpcRuntime. Whoever gives up a channel and makes another needs
// it: gRPC 1.51 ends those threads with the last channel, and where its last reference goes in one of their callbacks the thread joins
// itself in vain and polls what was freed (a double free in grpc_cq_internal_unref).
void KeepCallbackThreads();

// Ends a program that has used gRPC; everything of value has been closed before. Without exit handlers: threads of gRPC's that poll for
// callbacks outlive the last channel for a moment, and abort when a handler destroys what they use (seen in one of ten ends under load).
[[noreturn]] void EndProcess(int exit_code);

}  // namespace litefleet::rpc

#endif  // LITEFLEET_COMMON_RPC_CHANNEL_H_
