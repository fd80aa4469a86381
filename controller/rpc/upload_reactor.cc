#include "controller/rpc/upload_reactor.h"

#include <atomic>
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

  ~Upload() override { GiveBackAll(); }

  void Begin() {
    if (deps_.slots == nullptr) return Admit();
    deps_.slots->Take(caller_.device.value(),
                      [weak = weak_from_this(), slots = deps_.slots, device = caller_.device.value()](bool granted) {
                        const auto self = std::static_pointer_cast<Upload>(weak.lock());
                        if (self == nullptr && granted) slots->GiveBack(device);
                        if (self == nullptr) return;
                        if (!granted) {
                          return self->End(Error(absl::StatusCode::kUnavailable, "TOO_MANY_UPLOADS",
                                                 "other uploads have taken all places for a while", "try again later"));
                        }
                        self->has_slot_ = true;
                        self->Admit();
                      });
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
    void CloseWith(const v1::UploadResponse& response) override {
      if (const std::shared_ptr<Upload> stream = stream_.lock(); stream != nullptr) stream->EndWith(response);
    }

   private:
    const std::weak_ptr<Upload> stream_;
  };

  void Admit() {
    absl::StatusOr<std::shared_ptr<ingest::UploadSession>> session =
        deps_.ingest->NewUpload(caller_.device, std::make_shared<Sink>(std::static_pointer_cast<Upload>(shared_from_this())));
    if (!session.ok()) return End(session.status());
    bool gone = false;
    {
      MutexLock lock(turn_mu_);
      session_ = *std::move(session);
      gone = ending_;
    }
    if (gone) return PostEnd();
    ReadNext();
  }

  void OnMessage(v1::UploadRequest&) override {
    {
      MutexLock lock(turn_mu_);
      if (ending_) return;
      handling_ = true;
    }
    if (deps_.executor->TryPost([self = shared_from_this(), this] { HandleMessage(); })) return;
    session_->Abort(Error(absl::StatusCode::kResourceExhausted, "OVERLOADED", "the controller has too much to do", "try again later"));
    if (EndsHere()) PostEnd();
  }
  void OnReadsEnded() override { EndSession(); }
  void OnPeerGone() override { EndSession(); }
  void OnStreamDone() override { EndSession(); }

  void HandleMessage() {
    const bool limited = deps_.rate != nullptr && deps_.rate->limited();
    const int64_t bytes = limited ? static_cast<int64_t>(message().ByteSizeLong()) : 0;
    const absl::Status status = session_->Handle(message());
    message().Clear();
    if (EndsHere()) {
      session_->End();
      return GiveBackAll();
    }
    if (!status.ok()) return;
    if (!limited) return ReadNext();
    deps_.rate->Charge(caller_.device.value(), bytes, [weak = weak_from_this()] {
      if (const auto self = std::static_pointer_cast<Upload>(weak.lock()); self != nullptr) self->ReadNext();
    });
  }

  // The message was dealt with. True: the session has to end now, since the stream has, by the peer or by the session itself.
  bool EndsHere() {
    const bool over = ended();
    MutexLock lock(turn_mu_);
    handling_ = false;
    ending_ |= over;
    return ending_;
  }

  void EndSession() {
    {
      MutexLock lock(turn_mu_);
      if (std::exchange(ending_, true) || handling_ || session_ == nullptr) return;
    }
    PostEnd();
  }

  void PostEnd() {
    // Here and now only where the executor has no room: it blocks for a moment, but nothing that was received may be forgotten.
    const auto end = [self = shared_from_this(), this] {
      session_->End();
      GiveBackAll();
    };
    if (!deps_.executor->TryPost(end)) end();
  }

  // Once the session has ended. The stream may live longer: its peer does not read the last message.
  void GiveBackAll() {
    std::shared_ptr<ingest::UploadSession> session;
    {
      MutexLock lock(turn_mu_);
      session.swap(session_);
    }
    session.reset();
    if (has_slot_.exchange(false)) deps_.slots->GiveBack(caller_.device.value());
  }

  const UploadDeps deps_;
  const Caller caller_;
  std::atomic<bool> has_slot_{false};

  Mutex turn_mu_;
  // Set by Admit, under turn_mu_, since the peer may go meanwhile; constant until it has ended, and what is done with a message comes
  // between.
  std::shared_ptr<ingest::UploadSession> session_;
  bool handling_ ABSL_GUARDED_BY(turn_mu_) = false;  // a task handles a message
  bool ending_ ABSL_GUARDED_BY(turn_mu_) = false;    // End runs, or follows the task
};

}  // namespace

grpc::ServerBidiReactor<v1::UploadRequest, v1::UploadResponse>* NewUploadReactor(grpc::CallbackServerContext* context,
                                                                                 const UploadDeps& deps, const Caller& caller) {
  return LaunchStream<Upload>(context, deps, caller);
}

}  // namespace litefleet::rpc
