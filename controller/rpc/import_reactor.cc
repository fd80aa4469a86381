#include "controller/rpc/import_reactor.h"

#include <memory>
#include <string>
#include <utility>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/rpc/bidi_stream.h"

namespace litefleet::rpc {
namespace {

class Import final : public BidiStream<v1::ImportSnapshotRequest, v1::ImportSnapshotResponse> {
 public:
  using Base = BidiStream<v1::ImportSnapshotRequest, v1::ImportSnapshotResponse>;

  Import(grpc::CallbackServerContext* context, const absl::StatusOr<Caller>& caller, imports::Imports& imports, Executor& executor)
      : Base(context, StreamLimits{.max_messages = 8}), caller_(caller.status()), imports_(imports), executor_(executor) {
    if (!caller.ok()) return;
    ordered_by_ = caller->ordered_by();
    KeepUntilDone(caller->live_call);
  }

  void Begin() {
    if (!caller_.ok()) return End(caller_);
    const std::weak_ptr<Import> weak = std::static_pointer_cast<Import>(shared_from_this());
    auto session = imports_.NewSession(ordered_by_, {.send =
                                                         [weak](const v1::ImportSnapshotResponse& response) {
                                                           v1::ImportSnapshotResponse message = response;
                                                           if (const auto self = weak.lock(); self != nullptr) self->TryPush(message);
                                                         },
                                                     .close =
                                                         [weak](const absl::Status& status) {
                                                           if (const auto self = weak.lock(); self != nullptr) self->Cut(status);
                                                         }});
    if (!session.ok()) return End(session.status());
    {
      MutexLock lock(turn_mu_);
      session_ = *std::move(session);
    }
    ReadNext();
  }

 private:
  void OnMessage(v1::ImportSnapshotRequest&) override {
    {
      MutexLock lock(turn_mu_);
      if (ending_) return;
      handling_ = true;
    }
    if (executor_.TryPost([self = shared_from_this(), this] { HandleMessage(); })) return;
    HandleDone();
    Cut(Error(absl::StatusCode::kResourceExhausted, "OVERLOADED", "the controller has too much to do", "try again later"));
  }
  void OnReadsEnded() override { EndSession(); }
  void OnPeerGone() override { EndSession(); }
  void OnStreamDone() override { EndSession(); }

  void HandleMessage() {
    const absl::StatusOr<bool> all = session_->Handle(message());
    message().Clear();
    if (!HandleDone()) return;
    if (all.ok() && !*all) return ReadNext();
    // The session ends first: whoever sees the end of the stream finds the operation as it is.
    bool mine = false;
    {
      MutexLock lock(turn_mu_);
      mine = !std::exchange(ending_, true);
    }
    if (mine) session_->End();
    this->End(all.status());
  }

  void Cut(const absl::Status& status) {
    EndSession();
    this->End(status);
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
      if (std::exchange(ending_, true) || handling_ || session_ == nullptr) return;
    }
    PostEnd();
  }

  void PostEnd() {
    if (!executor_.TryPost([session = session_] { session->End(); })) session_->End();
  }

  const absl::Status caller_;
  std::string ordered_by_;
  imports::Imports& imports_;
  Executor& executor_;

  Mutex turn_mu_;
  std::shared_ptr<imports::ImportSession> session_;  // constant once messages are read
  bool handling_ ABSL_GUARDED_BY(turn_mu_) = false;  // a task handles a message
  bool ending_ ABSL_GUARDED_BY(turn_mu_) = false;    // End runs, or follows the task
};

}  // namespace

grpc::ServerBidiReactor<v1::ImportSnapshotRequest, v1::ImportSnapshotResponse>* LaunchImport(grpc::CallbackServerContext* context,
                                                                                             const absl::StatusOr<Caller>& caller,
                                                                                             imports::Imports& imports,
                                                                                             Executor& executor) {
  return LaunchStream<Import>(context, caller, imports, executor);
}

}  // namespace litefleet::rpc
