// Bidirectional server streams: what server_stream.h does for the outbound side, and one message at a time read from the peer.
//
// Thread safety, ownership: as OutboundStream. Not for streams without requests.
#ifndef LITEFLEET_COMMON_RPC_BIDI_STREAM_H_
#define LITEFLEET_COMMON_RPC_BIDI_STREAM_H_

#include "common/rpc/server_stream.h"

namespace litefleet::rpc {

// A bidirectional stream: the derived class asks for each message by ReadNext and gets OnMessage, or OnReadsEnded when the peer has
// closed its side or has gone (which look the same; after the latter OnPeerGone follows, or has come before).
template <class In, class Out>
class BidiStream : public OutboundStream<grpc::ServerBidiReactor<In, Out>, Out> {
 protected:
  using OutboundStream<grpc::ServerBidiReactor<In, Out>, Out>::OutboundStream;

  // Takes the next message from the peer; at most one at a time. Not asking is the backpressure. Nothing happens after the end.
  void ReadNext() {
    if (!this->Claim()) return;
    this->StartRead(&in_);
    this->GiveBack();
  }
  // `message` may be moved from; it is untouched until ReadNext.
  virtual void OnMessage(In& message) = 0;
  virtual void OnReadsEnded() = 0;
  In& message() { return in_; }  // what OnMessage was called with

 private:
  void OnReadDone(bool ok) final {
    if (ok) {
      OnMessage(in_);
    } else {
      OnReadsEnded();
    }
  }

  In in_;  // owned by the read in flight, else by the derived class
};

}  // namespace litefleet::rpc

#endif  // LITEFLEET_COMMON_RPC_BIDI_STREAM_H_
