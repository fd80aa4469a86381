#include "controller/rpc/upload_reactor.h"

#include <memory>
#include <utility>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/rpc/bidi_stream.h"
#include "controller/ingest/upload_session.h"

namespace litefleet::rpc {
namespace {

using Base = BidiStream<v1::UploadRequest, v1::UploadResponse>;

class Upload final : public Base {
 public:
  Upload(grpc::CallbackServerContext* context, const UploadDeps& deps, const Caller& caller)
      : Base(context, StreamLimits{.max_messages = 1024, .max_bytes = 4 << 20}), deps_(deps), caller_(caller) {
    KeepUntilDone(caller.live_call);
  }

  void Begin() {
    absl::StatusOr<std::shared_ptr<ingest::UploadSession>> session =
        deps_.ingest->NewUpload(caller_.device, std::make_shared<Sink>(std::static_pointer_cast<Upload>(shared_from_this())));
    if (!session.ok()) return End(session.status());
    session_ = *std::move(session);
    ReadNext();
  }

 private:
  // Held by the session, which may live longer than the stream.
  class Sink final : public ingest::UploadSink {
   public:
    explicit Sink(const std::shared_ptr<Upload>& stream) : stream_(stream) {}
    void Send(const v1::UploadResponse& response) override {
      const std::shared_ptr<Upload> stream = stream_.lock();
      if (stream == nullptr) return;
      v1::UploadResponse message = response;
      if (stream->TryPush(message) || stream->ended()) return;
      stream->Abort(Error(absl::StatusCode::kResourceExhausted, "ANSWERS_NOT_READ", "the device does not read the answers to its upload"));
    }
    void Close(const absl::Status& status) override {
      if (const std::shared_ptr<Upload> stream = stream_.lock(); stream != nullptr) stream->End(status);
    }

   private:
    const std::weak_ptr<Upload> stream_;
  };

  void OnMessage(v1::UploadRequest&) override {
    {
      MutexLock lock(turn_mu_);
      if (ending_) return;
      handling_ = true;
    }
    if (deps_.executor->TryPost([self = shared_from_this(), this] { HandleMessage(); })) return;
    session_->Abort(Error(absl::StatusCode::kResourceExhausted, "OVERLOADED", "the controller has too much to do", "try again later"));
    HandleDone();
  }
  void OnReadsEnded() override { EndSession(); }
  void OnPeerGone() override { EndSession(); }
  void OnStreamDone() override {
    if (session_ != nullptr) EndSession();
  }

  void HandleMessage() {
    const absl::Status status = session_->Handle(message());
    message().Clear();
    if (HandleDone() && status.ok()) ReadNext();
  }

  // False when the session has to end; then it does.
  bool HandleDone() {
    {
      MutexLock lock(turn_mu_);
      handling_ = false;
      if (!ending_) return true;
    }
    PostEnd();
    return false;
  }

  void EndSession() {
    {
      MutexLock lock(turn_mu_);
      if (std::exchange(ending_, true) || handling_) return;
    }
    PostEnd();
  }

  void PostEnd() {
    // Here and now only where the executor has no room: it blocks for a moment, but nothing that was received may be forgotten.
    if (!deps_.executor->TryPost([session = session_] { session->End(); })) session_->End();
  }

  const UploadDeps deps_;
  const Caller caller_;
  std::shared_ptr<ingest::UploadSession> session_;  // constant after Begin

  Mutex turn_mu_;
  bool handling_ ABSL_GUARDED_BY(turn_mu_) = false;  // a task handles a message
  bool ending_ ABSL_GUARDED_BY(turn_mu_) = false;    // End runs, or follows the task
};

}  // namespace

grpc::ServerBidiReactor<v1::UploadRequest, v1::UploadResponse>* NewUploadReactor(grpc::CallbackServerContext* context,
                                                                                 const UploadDeps& deps, const Caller& caller) {
  return LaunchStream<Upload>(context, deps, caller);
}

}  // namespace litefleet::rpc
