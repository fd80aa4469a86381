#include "agent/restore/fetch_reactor.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <deque>
#include <optional>
#include <utility>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/rpc/channel_hub.h"
#include "common/rpc/status.h"
#include "litefleet/v1/agent_service.grpc.pb.h"

namespace litefleet::restore {
namespace {

constexpr size_t kQueuedMessages = 4;  // under 1 MiB each

// Owns itself from Start until OnDone. A hold lets reads be started outside of reactions while the queue was full.
class FetchReactor final : public grpc::ClientReadReactor<v1::FetchResponse>, public std::enable_shared_from_this<FetchReactor> {
 public:
  FetchReactor(std::shared_ptr<grpc::Channel> channel, const v1::FetchRequest& request)
      : channel_(std::move(channel)), stub_(v1::AgentService::NewStub(channel_)), request_(request) {}

  void Start() {
    self_ = shared_from_this();
    stub_->async()->Fetch(&context_, &request_, this);
    AddHold();
    StartRead(&incoming_);
    StartCall();
  }

  absl::StatusOr<bool> Read(v1::FetchResponse& response, SteadyTime deadline) {
    MutexLock lock(mu_);
    while (queue_.empty() && !status_.has_value()) {
      if (!changed_.WaitUntil(mu_, deadline) && queue_.empty() && !status_.has_value()) {
        return Error(absl::StatusCode::kDeadlineExceeded, "FETCH_STALLED", "the controller sent nothing for too long");
      }
    }
    if (queue_.empty()) {
      if (status_->ok()) return false;
      return *status_;
    }
    response.Swap(&queue_.front());
    queue_.pop_front();
    if (paused_ && held_) {
      paused_ = false;
      StartRead(&incoming_);
    }
    return true;
  }

  void Cancel() {
    context_.TryCancel();
    MutexLock lock(mu_);
    ReleaseHold();
  }

  void OnReadDone(bool ok) override {
    MutexLock lock(mu_);
    if (!ok) {
      ReleaseHold();
      return;
    }
    queue_.emplace_back();
    queue_.back().Swap(&incoming_);
    changed_.SignalAll();
    if (!held_) return;
    if (queue_.size() < kQueuedMessages)
      StartRead(&incoming_);
    else
      paused_ = true;
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<FetchReactor> self = std::move(self_);
    MutexLock lock(mu_);
    status_ = rpc::ToAbsl(status);
    changed_.SignalAll();
  }

 private:
  void ReleaseHold() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!held_) return;
    held_ = false;
    RemoveHold();
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::AgentService::Stub> stub_;
  const v1::FetchRequest request_;
  grpc::ClientContext context_;
  std::shared_ptr<FetchReactor> self_;  // from Start to OnDone
  v1::FetchResponse incoming_;          // belongs to gRPC while a read is under way

  Mutex mu_;
  CondVar changed_;
  std::deque<v1::FetchResponse> queue_ ABSL_GUARDED_BY(mu_);
  bool paused_ ABSL_GUARDED_BY(mu_) = false;
  bool held_ ABSL_GUARDED_BY(mu_) = true;
  std::optional<absl::Status> status_ ABSL_GUARDED_BY(mu_);
};

class GrpcFetchStream final : public FetchStream {
 public:
  explicit GrpcFetchStream(std::shared_ptr<FetchReactor> reactor) : reactor_(std::move(reactor)) { reactor_->Start(); }
  ~GrpcFetchStream() override { reactor_->Cancel(); }
  absl::StatusOr<bool> Read(v1::FetchResponse& response, SteadyTime deadline) override { return reactor_->Read(response, deadline); }
  void Cancel() override { reactor_->Cancel(); }

 private:
  const std::shared_ptr<FetchReactor> reactor_;
};

class GrpcFetchTransport final : public FetchTransport {
 public:
  explicit GrpcFetchTransport(rpc::ChannelHub& hub) : hub_(hub) {}

  absl::StatusOr<std::unique_ptr<FetchStream>> Open(const v1::FetchRequest& request, SteadyTime deadline,
                                                    const CancelToken& cancel) override {
    std::shared_ptr<grpc::Channel> channel = hub_.Wait(deadline, cancel);
    if (cancel.cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "the restore was cancelled");
    if (channel == nullptr) {
      return Error(absl::StatusCode::kUnavailable, "CONTROLLER_UNREACHABLE", "there is no connection to the controller",
                   "look at the agent's log for the reason");
    }
    return std::make_unique<GrpcFetchStream>(std::make_shared<FetchReactor>(std::move(channel), request));
  }

 private:
  rpc::ChannelHub& hub_;
};

}  // namespace

std::unique_ptr<FetchTransport> MakeGrpcFetchTransport(rpc::ChannelHub& hub) { return std::make_unique<GrpcFetchTransport>(hub); }

}  // namespace litefleet::restore
