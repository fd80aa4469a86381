#include "agent/heal/heal_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <utility>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/rpc/channel_hub.h"
#include "common/rpc/status.h"
#include "litefleet/v1/agent_service.grpc.pb.h"

namespace litefleet::heal {
namespace {

// For the answer; the message itself takes what it takes on the slowest link that an upload waits for.
constexpr std::chrono::seconds kDeadline{120};
constexpr size_t kSlowestLink = 1 << 10;  // bytes a second
constexpr std::chrono::milliseconds kLook{50};

// Lives until gRPC has answered.
struct Call {
  explicit Call(std::shared_ptr<grpc::Channel> on) : channel(std::move(on)), stub(v1::AgentService::NewStub(channel)) {}
  const std::shared_ptr<grpc::Channel> channel;
  const std::unique_ptr<v1::AgentService::Stub> stub;
  grpc::ClientContext context;
  v1::SendWantedRequest request;
  v1::SendWantedResponse response;
  Mutex mu;
  CondVar ended;
  bool done ABSL_GUARDED_BY(mu) = false;
  grpc::Status status ABSL_GUARDED_BY(mu);
};

class GrpcSender final : public WantedSender {
 public:
  explicit GrpcSender(rpc::ChannelHub& hub) : hub_(hub) {}

  absl::Status WaitConnected(SteadyTime deadline, const CancelToken& cancel) override {
    if (hub_.Wait(deadline, cancel) != nullptr) return absl::OkStatus();
    if (cancel.cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "the operation was cancelled");
    return Error(absl::StatusCode::kDeadlineExceeded, "CONTROLLER_UNREACHABLE", "there is no connection to the controller",
                 "look at the agent's log for the reason");
  }

  absl::StatusOr<v1::SendWantedResponse> Send(const v1::SendWantedRequest& request, const CancelToken& cancel) override {
    std::shared_ptr<grpc::Channel> channel = hub_.Current();
    if (channel == nullptr)
      return Error(absl::StatusCode::kUnavailable, "CONTROLLER_UNREACHABLE", "the connection to the controller was lost");
    const auto call = std::make_shared<Call>(std::move(channel));
    call->request = request;
    const auto patience = kDeadline + std::chrono::seconds(request.ByteSizeLong() / kSlowestLink);
    call->context.set_deadline(std::chrono::system_clock::now() + patience);
    call->stub->async()->SendWanted(&call->context, &call->request, &call->response, [call](grpc::Status status) {
      MutexLock lock(call->mu);
      call->status = std::move(status);
      call->done = true;
      call->ended.SignalAll();
    });
    const SteadyTime until = std::chrono::steady_clock::now() + patience + std::chrono::seconds(2);
    bool cancelled = false;
    MutexLock lock(call->mu);
    while (!call->done && std::chrono::steady_clock::now() < until) {
      call->ended.WaitUntil(call->mu, std::chrono::steady_clock::now() + kLook);
      if (!call->done && cancel.cancelled() && !std::exchange(cancelled, true)) call->context.TryCancel();
    }
    if (!call->done) return Error(absl::StatusCode::kDeadlineExceeded, "CONTROLLER_SLOW", "the controller did not answer in time");
    LF_RETURN_IF_ERROR(rpc::ToAbsl(call->status));
    return call->response;
  }

 private:
  rpc::ChannelHub& hub_;
};

}  // namespace

std::unique_ptr<WantedSender> MakeGrpcSender(rpc::ChannelHub& hub) { return std::make_unique<GrpcSender>(hub); }

}  // namespace litefleet::heal
