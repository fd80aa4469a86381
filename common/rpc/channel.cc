#include "common/rpc/channel.h"

#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/credentials.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <memory>

#include "absl/synchronization/mutex.h"
#include "common/base/status.h"
#include "common/rpc/client_credentials.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

// A client pings an idle connection, so that NATs keep it and a dead one is noticed within 90 s. A ping waits behind
// the message that is being sent, for as long as that takes on a slow link: a timeout of 20 s cut those below 30 KiB/s again and again. The
// server accepts pings from 10 s apart on; without that it would answer every ping that is closer than 5 minutes with GOAWAY.
constexpr int kClientPingMs = 30'000;
constexpr int kServerPingMs = 60'000;
constexpr int kPingTimeoutMs = 60'000;
constexpr int kMinReceivedPingMs = 10'000;
constexpr int kHandshakeMs = 20'000;
// What a sender may have under way in one stream before more is asked for.
constexpr int kLookaheadBytes = 1 << 20;
constexpr int kMaxMetadataBytes = 16 << 10;
constexpr int kMaxServerThreads = 64;

grpc::ChannelArguments ClientArguments(const ChannelOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kClientPingMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kPingTimeoutMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  // What comes is written to a device's disk, and waits in a device's memory: the connection's window stays at 64 KiB and a message.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kLookaheadBytes);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 60'000);
  if (!options.user_agent.empty()) arguments.SetUserAgentPrefix(options.user_agent);
  return arguments;
}

// Scanners make gRPC complain about handshakes all day: what it says is for those who look for it.
void Log(gpr_log_func_args* event) { spdlog::debug("grpc: {}", event->message); }

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const ChannelOptions& options) {
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  if (options.address.is_unix()) {
    credentials = grpc::experimental::LocalCredentials(UDS);
  } else {
    if (options.identity.ca_certificate.empty()) {
      return Error(absl::StatusCode::kInvalidArgument, "IDENTITY_MISSING", fmt::format("{} needs an identity", options.address.Text()),
                   "name the file with --identity or LITEFLEET_IDENTITY");
    }
    LF_ASSIGN_OR_RETURN(credentials, ClientCredentials(options.identity, options.address));
  }
  return grpc::CreateCustomChannel(options.address.Target(), credentials, ClientArguments(options));
}

void ApplyServerLimits(grpc::ServerBuilder& builder, const ServerLimits& limits) {
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  // Two processes that listen on one port would share its connections at random.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Without the probe all streams of a connection share 64 KiB, and a message, for each round trip, whatever the lookahead says. With it
  // the window is 4 MiB and more: what one upload may have in memory here is bounded by its own window
  // (IngestLimits::receive_window_bytes).
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kLookaheadBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, limits.max_streams_per_connection);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kServerPingMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kPingTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kMinReceivedPingMs);
  grpc::ResourceQuota quota("litefleet");
  quota.Resize(static_cast<size_t>(limits.memory_bytes)).SetMaxThreads(kMaxServerThreads);
  builder.SetResourceQuota(quota);
}

GrpcRuntime::GrpcRuntime() {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  gpr_set_log_function(Log);
  // A signal to the process goes to any thread that does not block it, and would end it there: gRPC's are not to hear it.
  sigset_t ends;
  sigset_t before;
  sigemptyset(&ends);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&ends, number);
  pthread_sigmask(SIG_BLOCK, &ends, &before);
  grpc_init();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void KeepCallbackThreads() {
  struct Call {
    grpc::ClientContext context;
    grpc::Slice nothing;
    grpc::ByteBuffer request{&nothing, 1};
    grpc::ByteBuffer response;
  };
  // A channel without credentials is one that fails every call at once, without a connection; the call makes it hold the threads.
  static const auto& channel = *new std::shared_ptr<grpc::Channel>(grpc::CreateChannel("", nullptr));
  const auto call = std::make_shared<Call>();
  grpc::GenericStub(channel).UnaryCall(&call->context, "/none", {}, &call->request, &call->response, [call](const grpc::Status&) {});
}

void EndProcess(int exit_code) {
  spdlog::default_logger()->flush();
  std::cout.flush();
  std::fflush(nullptr);
  _exit(exit_code);
}

}  // namespace litefleet::rpc
