#include "agent/control/controller_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>

#include <condition_variable>
#include <memory>
#include <mutex>

#include "common/base/status.h"
#include "common/rpc/status.h"

namespace litefleet::control {
namespace {

// Outlives the call when the caller does not wait for its end.
struct Call {
  grpc::ClientContext context;
  grpc::ByteBuffer request;
  grpc::ByteBuffer response;
  std::mutex mu;
  std::condition_variable ended;
  bool done = false;
  grpc::Status status;
};

}  // namespace

absl::Status ProbeController(const rpc::ChannelOptions& options, std::chrono::milliseconds timeout) {
  rpc::KeepCallbackThreads();  // the channel of each probe is the only one
  LF_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, rpc::MakeChannel(options));
  grpc::GenericStub stub(channel);
  const auto call = std::make_shared<Call>();
  call->context.set_deadline(std::chrono::system_clock::now() + timeout);
  // An empty HealthCheckRequest: the server as a whole.
  const grpc::Slice empty;
  call->request = grpc::ByteBuffer(&empty, 1);
  stub.UnaryCall(&call->context, "/grpc.health.v1.Health/Check", grpc::StubOptions(), &call->request, &call->response,
                 [call](grpc::Status status) {
                   {
                     const std::lock_guard<std::mutex> lock(call->mu);
                     call->status = std::move(status);
                     call->done = true;
                   }
                   call->ended.notify_all();
                 });
  std::unique_lock<std::mutex> lock(call->mu);
  if (!call->ended.wait_for(lock, timeout + std::chrono::seconds(2), [&] { return call->done; })) {
    return Error(absl::StatusCode::kDeadlineExceeded, "CONTROLLER_UNREACHABLE", "the controller did not answer in time");
  }
  // Whoever answers that it has no such service has answered.
  if (call->status.error_code() == grpc::StatusCode::UNIMPLEMENTED) return absl::OkStatus();
  return rpc::ToAbsl(call->status);
}

}  // namespace litefleet::control
