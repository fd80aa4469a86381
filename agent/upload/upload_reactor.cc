#include "agent/upload/upload_reactor.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <utility>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/rpc/channel_hub.h"
#include "common/rpc/status.h"
#include "litefleet/v1/agent_service.grpc.pb.h"

namespace litefleet::upload {
namespace {

// Owns itself from Start until OnDone. A hold keeps gRPC from ending the call while writes may come from outside of reactions; it is
// given back once, when the stream ends or nobody writes any more. StartWrite and TryCancel only queue, so they are made under mu_:
// that is what orders them before the hold goes.
class UploadReactor final : public UploadStream,
                            public grpc::ClientBidiReactor<v1::UploadRequest, v1::UploadResponse>,
                            public std::enable_shared_from_this<UploadReactor> {
 public:
  UploadReactor(std::shared_ptr<grpc::Channel> channel, std::shared_ptr<StreamEvents> events)
      : channel_(std::move(channel)), stub_(v1::AgentService::NewStub(channel_)), events_(std::move(events)) {}

  void Start() override {
    self_ = shared_from_this();
    stub_->async()->Upload(&context_, this);
    AddHold();
    StartRead(&response_);
    StartCall();
  }

  void Write(v1::UploadRequest request) override {
    MutexLock lock(mu_);
    if (!held_) return;
    request_ = std::move(request);
    StartWrite(&request_);
  }

  void Finish() override {
    MutexLock lock(mu_);
    if (!held_) return;
    StartWritesDone();
    ReleaseHold();
  }

  void Cancel() override {
    context_.TryCancel();
    MutexLock lock(mu_);
    ReleaseHold();
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      MutexLock lock(mu_);
      ReleaseHold();
      return;
    }
    events_->OnResponse(response_);
    StartRead(&response_);
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(mu_);
      request_.Clear();
      if (!ok) ReleaseHold();
    }
    if (ok) events_->OnWritten();
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<UploadReactor> self = std::move(self_);
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
  std::shared_ptr<StreamEvents> events_;  // until OnDone
  std::shared_ptr<UploadReactor> self_;   // from Start to OnDone
  v1::UploadResponse response_;           // belongs to gRPC while a read is under way

  Mutex mu_;
  v1::UploadRequest request_;  // belongs to gRPC while a write is under way
  bool held_ ABSL_GUARDED_BY(mu_) = true;
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
