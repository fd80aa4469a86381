// The client's end of a bidirectional stream over gRPC's callback API, for calls whose writes come from outside of reactions.
//
//   class Reactor final : public ClientStream<Request, Response> {
//     void Start() { stub_->async()->Call(context(), this); Begin(); }
//   };
//
// Not for calls that only read or only write, nor for those in which the peer speaks first: the call goes out with the first message. It
// owns itself from Begin until OnDone. A hold keeps gRPC from ending the call meanwhile; it is given back once, when the stream ends or
// nobody writes any more. StartRead, StartWrite and TryCancel only queue, so they are made under mu_: that is what orders them before the
// hold goes.
//
// Thread safety: Send, ReadNext, CloseSending and Abort may be called from any thread, also after the end, when they do nothing. Hooks run
// on gRPC's threads, one of a kind at a time, without a lock, and must not block.
#ifndef LITEFLEET_COMMON_RPC_CLIENT_STREAM_H_
#define LITEFLEET_COMMON_RPC_CLIENT_STREAM_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "common/base/mutex.h"
#include "common/rpc/status.h"

namespace litefleet::rpc {

template <class Request, class Response>
class ClientStream : public grpc::ClientBidiReactor<Request, Response>,
                     public std::enable_shared_from_this<ClientStream<Request, Response>> {
 public:
  // REQUIRES: the message before was answered by Written.
  void Send(Request request) {
    MutexLock lock(mu_);
    if (!held_) return;
    request_ = std::move(request);
    this->StartWrite(&request_);
  }
  // REQUIRES: Received returned false for the message before.
  void ReadNext() {
    MutexLock lock(mu_);
    if (held_) this->StartRead(&response_);
  }
  // Nothing more will be sent; the peer may end the stream. Idempotent.
  void CloseSending() {
    MutexLock lock(mu_);
    if (!held_) return;
    this->StartWritesDone();
    ReleaseHold();
  }
  // Nothing more will be sent, and the peer ends the stream by itself: it need not be told. Idempotent.
  void Leave() {
    MutexLock lock(mu_);
    ReleaseHold();
  }
  // Closed follows soon. Idempotent.
  void Abort() {
    context_.TryCancel();
    MutexLock lock(mu_);
    ReleaseHold();
  }

 protected:
  // What begins the call travels with the first message.
  ClientStream() { context_.set_initial_metadata_corked(true); }
  // REQUIRES: the call was bound to this, with context(). Once.
  void Begin() {
    self_ = this->shared_from_this();
    this->AddHold();
    this->StartRead(&response_);
    this->StartCall();
  }
  grpc::ClientContext* context() { return &context_; }

  // False: no more is read until ReadNext. The message is the callee's.
  virtual bool Received(Response& response) = 0;
  virtual void Written() = 0;
  // Last, once. OK where the peer ended the stream without complaint.
  virtual void Closed(absl::Status status) = 0;

 private:
  void OnReadDone(bool ok) final {
    if (ok) {
      if (Received(response_)) this->StartRead(&response_);
      return;
    }
    MutexLock lock(mu_);
    ReleaseHold();
  }

  void OnWriteDone(bool ok) final {
    {
      MutexLock lock(mu_);
      request_.Clear();
      if (!ok) ReleaseHold();
    }
    if (ok) Written();
  }

  void OnDone(const grpc::Status& status) final {
    const std::shared_ptr<void> self = std::move(self_);
    Closed(ToAbsl(status));
  }

  void ReleaseHold() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!held_) return;
    held_ = false;
    this->RemoveHold();
  }

  grpc::ClientContext context_;
  std::shared_ptr<void> self_;  // from Begin to OnDone
  Response response_;           // belongs to gRPC while a read is under way

  Mutex mu_;
  Request request_;  // belongs to gRPC while a write is under way
  bool held_ ABSL_GUARDED_BY(mu_) = true;
};

}  // namespace litefleet::rpc

#endif  // LITEFLEET_COMMON_RPC_CLIENT_STREAM_H_
