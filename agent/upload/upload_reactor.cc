#include "agent/upload/upload_reactor.h"

#include <grpcpp/channel.h>

#include <utility>

#include "common/base/status.h"
#include "common/rpc/channel_hub.h"
#include "common/rpc/client_stream.h"
#include "litefleet/v1/agent_service.grpc.pb.h"

namespace litefleet::upload {
namespace {

class UploadReactor final : public UploadStream, public rpc::ClientStream<v1::UploadRequest, v1::UploadResponse> {
 public:
  UploadReactor(std::shared_ptr<grpc::Channel> channel, std::shared_ptr<StreamEvents> events)
      : channel_(std::move(channel)), stub_(v1::AgentService::NewStub(channel_)), events_(std::move(events)) {}

  void Start() override {
    stub_->async()->Upload(context(), this);
    Begin();
  }
  void Write(v1::UploadRequest request) override { Send(std::move(request)); }
  void Finish() override { Leave(); }
  void Cancel() override { Abort(); }

 private:
  bool Received(v1::UploadResponse& response) override {
    events_->OnResponse(response);
    return true;
  }
  void Written() override { events_->OnWritten(); }
  void Closed(absl::Status status) override {
    events_->OnClosed(std::move(status));
    events_.reset();
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::AgentService::Stub> stub_;
  std::shared_ptr<StreamEvents> events_;  // until Closed
};

// Where there is no connection: ends at once.
class ClosedStream final : public UploadStream {
 public:
  explicit ClosedStream(std::shared_ptr<StreamEvents> events) : events_(std::move(events)) {}
  void Start() override {
    events_->OnClosed(Error(absl::StatusCode::kUnavailable, "CONTROLLER_UNREACHABLE", "the connection to the controller was lost"));
    events_.reset();
  }
  void Write(v1::UploadRequest) override {}
  void Finish() override {}
  void Cancel() override {}

 private:
  std::shared_ptr<StreamEvents> events_;
};

class GrpcTransport final : public UploadTransport {
 public:
  explicit GrpcTransport(rpc::ChannelHub& hub) : hub_(hub) {}

  absl::Status WaitConnected(SteadyTime deadline, const CancelToken& cancel) override {
    if (hub_.Wait(deadline, cancel) != nullptr) return absl::OkStatus();
    if (cancel.cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "the backup was cancelled");
    return Error(absl::StatusCode::kDeadlineExceeded, "CONTROLLER_UNREACHABLE", "there is no connection to the controller",
                 "look at the agent's log for the reason");
  }

  std::shared_ptr<UploadStream> Open(std::shared_ptr<StreamEvents> events) override {
    std::shared_ptr<grpc::Channel> channel = hub_.Current();
    if (channel == nullptr) return std::make_shared<ClosedStream>(std::move(events));
    return std::make_shared<UploadReactor>(std::move(channel), std::move(events));
  }

 private:
  rpc::ChannelHub& hub_;
};

}  // namespace

std::unique_ptr<UploadTransport> MakeGrpcTransport(rpc::ChannelHub& hub) { return std::make_unique<GrpcTransport>(hub); }

}  // namespace litefleet::upload
