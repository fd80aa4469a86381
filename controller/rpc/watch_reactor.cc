#include "controller/rpc/watch_reactor.h"

#include <memory>
#include <optional>
#include <utility>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/rpc/server_stream.h"

namespace litefleet::rpc {
namespace {

using Base = OutboundStream<grpc::ServerWriteReactor<v1::WatchOperationResponse>, v1::WatchOperationResponse>;

class OperationWatch final : public Base {
 public:
  OperationWatch(grpc::CallbackServerContext* context, absl::Status caller, const AdminHandlers& handlers, Executor& executor,
                 std::string operation)
      : Base(context, StreamLimits{.max_messages = 1}),
        caller_(std::move(caller)),
        handlers_(handlers),
        executor_(executor),
        reference_(std::move(operation)) {}

  void Begin() {
    if (!caller_.ok()) return End(caller_);
    if (!executor_.TryPost([self = shared_from_this(), this] { Subscribe(); })) {
      End(Error(absl::StatusCode::kResourceExhausted, "OVERLOADED", "the controller has too many requests waiting",
                "try again in a moment"));
    }
  }

 private:
  void Subscribe() {
    const AdminDependencies& parts = handlers_.dependencies();
    auto operation = parts.operations->Resolve(reference_);
    if (!operation.ok()) return End(operation.status());
    handlers_.Complete(*operation);
    device_name_ = operation->device_name();
    const std::weak_ptr<Base> weak = weak_from_this();
    auto watch = parts.fleet->Watch(OperationId(operation->id()), [weak](const v1::Operation& now) {
      if (const auto self = weak.lock()) static_cast<OperationWatch&>(*self).Changed(now);
    });
    if (!watch.ok()) return End(watch.status());
    bool done = false;
    {
      MutexLock lock(mu_);
      watch_ = *watch;
      done = done_;
    }
    if (done) parts.fleet->Unwatch(*watch);
  }

  // On any thread, in the order of the changes.
  void Changed(const v1::Operation& now) {
    v1::WatchOperationResponse message;
    *message.mutable_operation() = now;
    message.mutable_operation()->set_device_name(device_name_);
    handlers_.Complete(*message.mutable_operation());
    {
      MutexLock lock(mu_);
      pending_ = std::move(message);
    }
    Flush();
  }
  void OnRoom() override { Flush(); }

  // Hands the newest state on. One thread at a time does it, or an older state could overtake a newer one.
  void Flush() {
    {
      MutexLock lock(mu_);
      again_ = true;
      if (flushing_) return;
      flushing_ = true;
    }
    for (;;) {
      std::optional<v1::WatchOperationResponse> message;
      {
        MutexLock lock(mu_);
        if (!again_ || !pending_.has_value()) {
          flushing_ = false;
          return;
        }
        again_ = false;
        message.swap(pending_);
      }
      const bool last = !catalog::IsActive(message->operation().state());
      const bool taken = TryPush(*message);
      if (taken && last) End(absl::OkStatus());
      MutexLock lock(mu_);
      if (!taken && !pending_.has_value()) pending_.swap(message);  // kept until there is room
    }
  }

  void OnPeerGone() override { Unsubscribe(); }
  void OnStreamDone() override { Unsubscribe(); }

  // At once, however busy the executor is. A call of the watcher may be under way: it holds this object weakly.
  void Unsubscribe() {
    std::optional<uint64_t> watch;
    {
      MutexLock lock(mu_);
      done_ = true;
      watch.swap(watch_);
    }
    if (watch.has_value()) handlers_.dependencies().fleet->Unwatch(*watch);
  }

  const absl::Status caller_;
  const AdminHandlers& handlers_;
  Executor& executor_;
  const std::string reference_;
  std::string device_name_;  // set before the watch begins

  Mutex mu_;
  std::optional<v1::WatchOperationResponse> pending_ ABSL_GUARDED_BY(mu_);  // the newest state that was not handed on
  std::optional<uint64_t> watch_ ABSL_GUARDED_BY(mu_);
  bool flushing_ ABSL_GUARDED_BY(mu_) = false;
  bool again_ ABSL_GUARDED_BY(mu_) = false;  // something changed, or there is room
  bool done_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

grpc::ServerWriteReactor<v1::WatchOperationResponse>* LaunchWatch(grpc::CallbackServerContext* context, const absl::Status& caller,
                                                                  const AdminHandlers& handlers, Executor& executor,
                                                                  const std::string& operation) {
  return LaunchStream<OperationWatch>(context, caller, handlers, executor, operation);
}

}  // namespace litefleet::rpc
