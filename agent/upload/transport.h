// The upload stream as the pipeline sees it; gRPC in upload_reactor.cc, fakes in tests.
//
// Thread safety: a stream's calls may come from any thread; events come one kind at a time from the transport's threads, and never
// while a call of the stream is on the caller's stack.
#ifndef LITEFLEET_AGENT_UPLOAD_TRANSPORT_H_
#define LITEFLEET_AGENT_UPLOAD_TRANSPORT_H_

#include <atomic>
#include <memory>

#include "absl/status/status.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::upload {

class StreamEvents {
 public:
  virtual ~StreamEvents() = default;
  virtual void OnResponse(const v1::UploadResponse& response) = 0;
  // The message given to Write has left; the next one may be written.
  virtual void OnWritten() = 0;
  // Last event, once. OK when the peer ended the stream without complaint, which does not mean that it committed.
  virtual void OnClosed(absl::Status status) = 0;
};

class UploadStream {
 public:
  virtual ~UploadStream() = default;
  // Once, first. Events may come from here on; they are kept alive until OnClosed.
  virtual void Start() = 0;
  // REQUIRES: the message before was answered by OnWritten. Does nothing on a stream that ends.
  virtual void Write(v1::UploadRequest request) = 0;
  // It was committed: nothing more will be written, and the peer ends the stream. Idempotent.
  virtual void Finish() = 0;
  // OnClosed follows soon. Idempotent.
  virtual void Cancel() = 0;
};

class UploadTransport {
 public:
  virtual ~UploadTransport() = default;
  // Blocks until the controller can be reached. kDeadlineExceeded CONTROLLER_UNREACHABLE at `deadline`, kCancelled.
  virtual absl::Status WaitConnected(SteadyTime deadline, const CancelToken& cancel) = 0;
  virtual std::shared_ptr<UploadStream> Open(std::shared_ptr<StreamEvents> events) = 0;
  // What the controller said last of UploadRequest.whole.
  bool takes_whole() const { return takes_whole_; }
  void SetTakesWhole(bool takes) { takes_whole_ = takes; }

 private:
  std::atomic<bool> takes_whole_{false};
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_TRANSPORT_H_
