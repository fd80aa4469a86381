#include "agent/control/control_reactor.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <utility>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/rpc/status.h"
#include "litefleet/v1/agent_service.grpc.pb.h"

namespace litefleet::control {
namespace {

// As the upload's reactor: a hold until the stream ends, reads and writes are queued under mu_ so that they come before the hold goes.
class ControlReactor final : public ControlStream,
                             public grpc::ClientBidiReactor<v1::ControlRequest, v1::ControlResponse>,
                             public std::enable_shared_from_this<ControlReactor> {
 public:
  ControlReactor(std::shared_ptr<grpc::Channel> channel, std::shared_ptr<ControlEvents> events)
      : channel_(std::move(channel)), stub_(v1::AgentService::NewStub(channel_)), events_(std::move(events)) {}

  void Start() override {
    self_ = shared_from_this();
    // The loop's own deadline ends the wait.
    context_.set_wait_for_ready(false);
    stub_->async()->Control(&context_, this);
    AddHold();
    StartRead(&response_);
    StartCall();
  }

  void ReadMore() override {
    MutexLock lock(mu_);
    if (held_) StartRead(&response_);
  }

  void Write(v1::ControlRequest request) override {
    MutexLock lock(mu_);
    if (!held_) return;
    request_ = std::move(request);
    StartWrite(&request_);
  }

  void Cancel() override {
    context_.TryCancel();
    MutexLock lock(mu_);
    ReleaseHold();
  }

  void OnReadDone(bool ok) override {
    if (ok) {
      events_->OnResponse(std::move(response_));
      return;
    }
    MutexLock lock(mu_);
    ReleaseHold();
  }

  void OnWriteDone(bool ok) override {
    if (ok) {
      events_->OnWritten();
      return;
    }
    MutexLock lock(mu_);
    ReleaseHold();
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<ControlReactor> self = std::move(self_);
    events_->OnClosed(rpc::ToAbsl(status));
    events_.reset();
  }

 private:
  void ReleaseHold() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!held_) return;
    held_ = false;
    RemoveHold();
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::AgentService::Stub> stub_;
  grpc::ClientContext context_;
  std::shared_ptr<ControlEvents> events_;  // until OnDone
  std::shared_ptr<ControlReactor> self_;   // from Start to OnDone
  v1::ControlResponse response_;           // belongs to gRPC while a read is under way

  Mutex mu_;
  v1::ControlRequest request_;  // belongs to gRPC while a write is under way
  bool held_ ABSL_GUARDED_BY(mu_) = true;
};

class GrpcConnector final : public ControlConnector {
 public:
  GrpcConnector(std::function<absl::StatusOr<rpc::ChannelOptions>()> options, rpc::ChannelHub& hub)
      : options_(std::move(options)), hub_(hub) {}

  absl::StatusOr<std::shared_ptr<ControlStream>> Open(std::shared_ptr<ControlEvents> events) override {
    LF_ASSIGN_OR_RETURN(const rpc::ChannelOptions options, options_());
    LF_ASSIGN_OR_RETURN(channel_, rpc::MakeChannel(options));
    return std::make_shared<ControlReactor>(channel_, std::move(events));
  }
  void Welcomed() override { hub_.Connected(channel_); }
  void Closed() override {
    hub_.Disconnected();
    channel_.reset();
  }

 private:
  const std::function<absl::StatusOr<rpc::ChannelOptions>()> options_;
  rpc::ChannelHub& hub_;
  std::shared_ptr<grpc::Channel> channel_;  // of the loop's thread
};

}  // namespace

std::unique_ptr<ControlConnector> MakeGrpcConnector(std::function<absl::StatusOr<rpc::ChannelOptions>()> options, rpc::ChannelHub& hub) {
  return std::make_unique<GrpcConnector>(std::move(options), hub);
}

}  // namespace litefleet::control
