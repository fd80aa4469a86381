#include "agent/control/control_reactor.h"

#include <grpcpp/channel.h>

#include <utility>

#include "common/base/status.h"
#include "common/rpc/client_stream.h"
#include "litefleet/v1/agent_service.grpc.pb.h"

namespace litefleet::control {
namespace {

class ControlReactor final : public ControlStream, public rpc::ClientStream<v1::ControlRequest, v1::ControlResponse> {
 public:
  ControlReactor(std::shared_ptr<grpc::Channel> channel, std::shared_ptr<ControlEvents> events)
      : channel_(std::move(channel)), stub_(v1::AgentService::NewStub(channel_)), events_(std::move(events)) {}

  void Start() override {
    // The loop's own deadline ends the wait.
    context()->set_wait_for_ready(false);
    stub_->async()->Control(context(), this);
    Begin();
  }
  void ReadMore() override { ReadNext(); }
  void Write(v1::ControlRequest request) override { Send(std::move(request)); }
  void Cancel() override { Abort(); }

 private:
  bool Received(v1::ControlResponse& response) override {
    events_->OnResponse(std::move(response));
    return false;
  }
  void Written() override { events_->OnWritten(); }
  void Closed(absl::Status status) override {
    events_->OnClosed(std::move(status));
    events_.reset();
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::AgentService::Stub> stub_;
  std::shared_ptr<ControlEvents> events_;  // until Closed
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
