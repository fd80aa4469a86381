#include "controller/rpc/control_reactor.h"

#include <grpcpp/alarm.h>

#include <memory>
#include <utility>

#include "common/base/mutex.h"
#include "common/base/status.h"

namespace litefleet::rpc {
namespace {

using Base = BidiStream<v1::ControlRequest, v1::ControlResponse>;

class ControlStream final : public Base, public fleet::DeviceLink {
 public:
  ControlStream(const ControlDeps& deps, const absl::StatusOr<Caller>& caller, grpc::CallbackServerContext* context)
      : Base(context, deps.limits), deps_(deps), refused_(caller.status()), device_(caller.ok() ? caller->device : DeviceId()) {
    if (caller.ok()) KeepUntilDone(caller->live_call);
  }

  void Begin() {
    if (!refused_.ok()) return End(refused_);
    hello_alarm_.Set(std::chrono::system_clock::now() + deps_.hello_timeout, [weak = weak_from_this()](bool rang) {
      const auto self = weak.lock();
      if (rang && self != nullptr) static_cast<ControlStream&>(*self).HelloMissing();
    });
    ReadNext();
  }

  void Send(const v1::ControlResponse& message) override {
    v1::ControlResponse copy = message;
    if (TryPush(copy) || ended()) return;
    Abort(Error(absl::StatusCode::kResourceExhausted, "SLOW_READER", "the agent does not read what it is sent"));
  }

  void Close(const absl::Status& why) override { Abort(why); }

 private:
  void OnMessage(v1::ControlRequest&) override {
    {
      MutexLock lock(mu_);
      if (left_) return;  // what was on its way when the peer went
      handling_ = true;
    }
    if (deps_.executor->TryPost([self = Self()] { self->Handle(); })) return;
    {
      MutexLock lock(mu_);
      handling_ = false;
    }
    Abort(
        Error(absl::StatusCode::kResourceExhausted, "OVERLOADED", "the controller has too much to do", "the agent comes again by itself"));
  }

  // A device that says no more can do no more either.
  void OnReadsEnded() override { Abort(absl::OkStatus()); }
  void OnPeerGone() override { Leave(); }
  void OnStreamDone() override {
    hello_alarm_.Cancel();
    Leave();
  }

  // On the executor; the next message is asked for after this one.
  void Handle() {
    const absl::Status status = connected_ ? deps_.fleet->Received(device_, *this, message()) : Connect();
    bool left = false;
    {
      MutexLock lock(mu_);
      handling_ = false;
      left = left_;
    }
    if (left) return Disconnect();
    if (!status.ok()) return End(status);  // after what is being written: an agent that reads learns the reason
    ReadNext();
  }

  absl::Status Connect() {
    if (!message().has_hello())
      return Error(absl::StatusCode::kInvalidArgument, "HELLO_EXPECTED", "the first message of a control stream is hello");
    hello_alarm_.Cancel();
    {
      MutexLock lock(mu_);
      hello_seen_ = true;
    }
    const absl::Status status = deps_.fleet->Connected(device_, Self(), message().hello());
    connected_ = status.ok();
    return status;
  }

  void HelloMissing() {
    {
      MutexLock lock(mu_);
      if (hello_seen_) return;
    }
    Abort(Error(absl::StatusCode::kDeadlineExceeded, "HELLO_MISSING", "the agent did not say hello in time"));
  }

  // Tells the fleet once, and never while it deals with a message of this stream.
  void Leave() {
    {
      MutexLock lock(mu_);
      if (left_) return;
      left_ = true;
      if (handling_) return;
    }
    if (!deps_.executor->TryPost([self = Self()] { self->Disconnect(); })) Disconnect();
  }

  void Disconnect() {
    if (connected_) deps_.fleet->Disconnected(device_, *this);
  }

  std::shared_ptr<ControlStream> Self() { return std::static_pointer_cast<ControlStream>(shared_from_this()); }

  const ControlDeps deps_;
  const absl::Status refused_;
  const DeviceId device_;
  grpc::Alarm hello_alarm_;
  bool connected_ = false;  // only by whoever handles a message, or after that

  Mutex mu_;
  bool handling_ ABSL_GUARDED_BY(mu_) = false;
  bool left_ ABSL_GUARDED_BY(mu_) = false;
  bool hello_seen_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace

grpc::ServerBidiReactor<v1::ControlRequest, v1::ControlResponse>* NewControlReactor(const ControlDeps& deps,
                                                                                    const absl::StatusOr<Caller>& caller,
                                                                                    grpc::CallbackServerContext* context) {
  return LaunchStream<ControlStream>(deps, caller, context);
}

}  // namespace litefleet::rpc
