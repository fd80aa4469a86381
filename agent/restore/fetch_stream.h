// One fetch call as the fetcher sees it; gRPC in the agent, a script in tests.
//
// Thread safety: a stream is used by one thread at a time, but Cancel, which any thread may call. Ownership: the stream is cancelled when
// it goes.
#ifndef LITEFLEET_AGENT_RESTORE_FETCH_STREAM_H_
#define LITEFLEET_AGENT_RESTORE_FETCH_STREAM_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::restore {

class FetchStream {
 public:
  virtual ~FetchStream() = default;
  // True: `response` is the next message. False: the controller ended the stream well. kDeadlineExceeded at `deadline`, else the error
  // that the stream ended with.
  virtual absl::StatusOr<bool> Read(v1::FetchResponse& response, SteadyTime deadline) = 0;
  // A Read that waits returns soon.
  virtual void Cancel() = 0;
};

class FetchTransport {
 public:
  virtual ~FetchTransport() = default;
  // kUnavailable CONTROLLER_UNREACHABLE where there is no connection by `deadline`.
  virtual absl::StatusOr<std::unique_ptr<FetchStream>> Open(const v1::FetchRequest& request, SteadyTime deadline,
                                                            const CancelToken& cancel) = 0;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_FETCH_STREAM_H_
