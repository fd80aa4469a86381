// The control stream as the loop sees it; gRPC in control_reactor.cc, fakes in tests.
//
// Thread safety: a stream's calls may come from any thread; events come from the transport's threads and must not block.
#ifndef LITEFLEET_AGENT_CONTROL_CONTROL_STREAM_H_
#define LITEFLEET_AGENT_CONTROL_CONTROL_STREAM_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::control {

class ControlEvents {
 public:
  virtual ~ControlEvents() = default;
  // The next one comes only after ReadMore.
  virtual void OnResponse(v1::ControlResponse response) = 0;
  virtual void OnWritten() = 0;
  // Last event, once.
  virtual void OnClosed(absl::Status status) = 0;
};

class ControlStream {
 public:
  virtual ~ControlStream() = default;
  // Once, first; the first read is begun by it. Events are kept alive until OnClosed.
  virtual void Start() = 0;
  virtual void ReadMore() = 0;
  // REQUIRES: the message before was answered by OnWritten. Does nothing on a stream that ends.
  virtual void Write(v1::ControlRequest request) = 0;
  // OnClosed follows soon. Idempotent.
  virtual void Cancel() = 0;
};

class ControlConnector {
 public:
  virtual ~ControlConnector() = default;
  // A stream on a new connection, with the identity and the address of this moment. Errors: there is none to be had (not enrolled).
  virtual absl::StatusOr<std::shared_ptr<ControlStream>> Open(std::shared_ptr<ControlEvents> events) = 0;
  // The stream opened last was welcomed: others may use its connection. / It has ended.
  virtual void Welcomed() = 0;
  virtual void Closed() = 0;
};

}  // namespace litefleet::control

#endif  // LITEFLEET_AGENT_CONTROL_CONTROL_STREAM_H_
