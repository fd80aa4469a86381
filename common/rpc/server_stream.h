// Server streams of gRPC's callback API with a bounded outbound queue: one write in flight, Finish exactly once, deleted after OnDone.
//
// Over grpc::ServerWriteReactor<Out> or, with reads, grpc::ServerBidiReactor<In, Out> (bidi_stream.h). Not for unary calls.
//   class Download : public OutboundStream<grpc::ServerWriteReactor<Response>, Response> { ... };
//   grpc::ServerWriteReactor<Response>* Handler(...) { return LaunchStream<Download>(context, StreamLimits{}, ...); }
//
// Thread safety: the public members may be called from any thread, also before the handler has returned and after the stream has
// ended (then they do nothing); none blocks. Hooks run on gRPC's threads, without a lock: they must not block, hand work to an executor.
// Ownership: the stream owns itself until OnDone; who keeps it longer keeps a shared_ptr (shared_from_this) and may go on calling.
//
// Bounds: the queue, and the time of a write (StreamLimits). A call that ends by the latter is cancelled, OnPeerGone is not called.
// Law: no gRPC call is made under mu_, since a reaction may run inside of it. Who calls StartRead, StartWrite or TryCancel has claimed it
// under mu_, and Finish waits until all claims have been given back.
#ifndef LITEFLEET_COMMON_RPC_SERVER_STREAM_H_
#define LITEFLEET_COMMON_RPC_SERVER_STREAM_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/rpc/call_hold.h"
#include "common/rpc/status.h"
#include "common/rpc/stream_limits.h"
#include "common/rpc/write_watch.h"

namespace litefleet::rpc {

template <class Reactor, class Out>
class OutboundStream : public Reactor, public std::enable_shared_from_this<OutboundStream<Reactor, Out>> {
 public:
  // False, and `message` is untouched, when the queue is full or the stream has ended. In the first case OnRoom follows, maybe before
  // this returns: a producer that got false touches nothing that its next run uses.
  bool TryPush(Out& message) { return Push(message, /*ends=*/false); }

  // Finishes after everything queued has been written. The first End or Abort counts.
  void End(const absl::Status& status) {
    mu_.Lock();
    if (!end_.has_value()) end_ = ToGrpc(status);
    mu_.Unlock();
    Pump();
  }

  // The last message, whatever waits, and End(OK). A peer that does not read it keeps a call without KeepUntilDone until it goes.
  void EndWith(Out last) { Push(last, /*ends=*/true); }

  // Drops what is queued and ends at once: with `why` as the peer's status where no write is in flight, else by cancelling the call.
  void Abort(const absl::Status& why) {
    bool cancel = false;
    {
      MutexLock lock(mu_);
      if (finished_) return;
      if (!end_.has_value()) end_ = ToGrpc(why);
      DropQueue();
      if (writing_) {
        cancel = true;
        ++claims_;
      }
    }
    if (cancel) {
      context_->TryCancel();
      GiveBack();
    }
    Pump();
  }

  // Told in OnDone that the call has ended (Caller::live_call). Call it in the constructor.
  void KeepUntilDone(std::shared_ptr<CallHold> hold) { hold_ = std::move(hold); }

  // End, Abort or the peer's cancellation has been seen; a long producer asks between two steps.
  bool ended() const {
    MutexLock lock(mu_);
    return end_.has_value();
  }

 protected:
  OutboundStream(grpc::CallbackServerContext* context, StreamLimits limits) : context_(context), limits_(limits) {}
  // A TryPush was refused, and half of the queue is free again.
  virtual void OnRoom() {}
  // The peer has gone or cancelled. Not called when this side has ended the stream.
  virtual void OnPeerGone() {}
  // The last call; the object lives on as long as somebody else holds it.
  virtual void OnStreamDone() {}

  // Claims are counted, so that Finish cannot come between the decision and the call. False: the stream has finished.
  bool Claim() {
    MutexLock lock(mu_);
    if (finished_ || end_.has_value()) return false;
    ++claims_;
    return true;
  }
  void GiveBack() {
    mu_.Lock();
    --claims_;
    mu_.Unlock();
    Pump();
  }

 private:
  template <class Stream, class... Args>
  friend Stream* LaunchStream(Args&&... args);

  bool Push(Out& message, bool ends) {
    const size_t bytes = message.ByteSizeLong();
    {
      MutexLock lock(mu_);
      if (end_.has_value()) return false;
      if (!ends && !queue_.empty() && (queue_.size() >= limits_.max_messages || bytes_ + bytes > limits_.max_bytes)) {
        want_room_ = true;
        return false;
      }
      queue_.emplace_back(std::move(message), bytes);
      bytes_ += bytes;
      ends_with_ = ends;
      if (ends) end_ = grpc::Status::OK;
    }
    Pump();
    return true;
  }

  void Stalled() {
    bool finished = false;
    {
      MutexLock lock(mu_);
      if (!writing_) return;
      finished = finished_;  // the end is on its way with the last message: the call may be over, and this be kept by the watch alone
      if (!end_.has_value()) end_ = ToGrpc(Error(absl::StatusCode::kDeadlineExceeded, "PEER_STALLED", "the peer does not read"));
      DropQueue();
      ++claims_;
    }
    if (finished) return hold_->Cancel();
    context_->TryCancel();
    GiveBack();
  }

  void OnWriteDone(bool ok) final {
    write_watch_->End();
    bool room = false;
    {
      MutexLock lock(mu_);
      writing_ = false;
      if (!ok) {
        DropQueue();
        if (!end_.has_value()) end_ = grpc::Status(grpc::StatusCode::CANCELLED, "the peer has gone");
      }
      if (want_room_ && !end_.has_value() && queue_.size() <= limits_.max_messages / 2 && bytes_ <= limits_.max_bytes / 2) {
        want_room_ = false;
        room = true;
      }
    }
    if (room) OnRoom();
    Pump();
  }

  void OnCancel() final {
    bool first = false;
    {
      MutexLock lock(mu_);
      first = !end_.has_value();
      if (first) end_ = grpc::Status(grpc::StatusCode::CANCELLED, "cancelled");
      DropQueue();
    }
    if (first) OnPeerGone();
    Pump();
  }

  void OnDone() final {
    const std::shared_ptr<void> self = std::move(self_);
    write_watch_->End();
    if (hold_ != nullptr) hold_->Ended();
    OnStreamDone();
  }

  // Does what is due: the next write, or Finish.
  void Pump() {
    const Out* write = nullptr;
    bool last = false;
    grpc::Status status;
    {
      MutexLock lock(mu_);
      if (writing_ || finished_) return;
      if (!queue_.empty()) {
        current_ = std::move(queue_.front().first);
        bytes_ -= queue_.front().second;
        queue_.pop_front();
        writing_ = true;
        write = &current_;
        finished_ = last = ends_with_ && queue_.empty() && claims_ == 0;
      } else if (end_.has_value() && claims_ == 0) {
        finished_ = true;
        status = *end_;
      } else {
        return;
      }
    }
    // From here on this may be deleted by OnDone as soon as Finish was called.
    if (write == nullptr) return this->Finish(std::move(status));
    if (!last || hold_ != nullptr) write_watch_->Begin();
    if (last) return this->StartWriteAndFinish(write, grpc::WriteOptions(), grpc::Status::OK);
    this->StartWrite(write);
  }

  void DropQueue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    queue_.clear();
    bytes_ = 0;
    want_room_ = false;
    ends_with_ = false;
  }

  grpc::CallbackServerContext* const context_;  // valid until Finish was called
  const StreamLimits limits_;
  std::shared_ptr<void> self_;               // set by LaunchStream, cleared by OnDone
  std::shared_ptr<WriteWatch> write_watch_;  // set by LaunchStream
  std::shared_ptr<CallHold> hold_;           // constant after construction
  Out current_;                              // owned by the write in flight

  mutable Mutex mu_;
  std::deque<std::pair<Out, size_t>> queue_ ABSL_GUARDED_BY(mu_);
  size_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int claims_ ABSL_GUARDED_BY(mu_) = 0;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool want_room_ ABSL_GUARDED_BY(mu_) = false;
  bool ends_with_ ABSL_GUARDED_BY(mu_) = false;  // the last message goes with the end
  bool finished_ ABSL_GUARDED_BY(mu_) = false;   // Finish was called, or is about to be
  std::optional<grpc::Status> end_ ABSL_GUARDED_BY(mu_);
};

// Makes a stream that owns itself, calls its public Begin() (the first push or read), and returns it for the handler to return to gRPC.
template <class Stream, class... Args>
Stream* LaunchStream(Args&&... args) {
  auto stream = std::make_shared<Stream>(std::forward<Args>(args)...);
  stream->self_ = stream;
  stream->write_watch_ = std::make_shared<WriteWatch>(stream->limits_.write_timeout, [weak = std::weak_ptr<Stream>(stream)] {
    if (const auto self = weak.lock()) self->Stalled();
  });
  stream->Begin();
  return stream.get();
}

}  // namespace litefleet::rpc

#endif  // LITEFLEET_COMMON_RPC_SERVER_STREAM_H_
