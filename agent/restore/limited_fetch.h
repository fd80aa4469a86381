// Fetch calls that read no faster than a rate: a transport around another one.
//
// The next message is asked for when the last one has been paid for, so that the peer is held back by the flow control of the stream, and
// nothing is buffered here. Thread safety and ownership: as FetchTransport; `inner` and `rate` outlive this. A change of the rate counts
// within 100 ms.
#ifndef LITEFLEET_AGENT_RESTORE_LIMITED_FETCH_H_
#define LITEFLEET_AGENT_RESTORE_LIMITED_FETCH_H_

#include <memory>

#include "agent/restore/fetch_stream.h"
#include "common/base/clock.h"
#include "common/base/rate_limit.h"

namespace litefleet::restore {

class LimitedFetchTransport final : public FetchTransport {
 public:
  LimitedFetchTransport(std::unique_ptr<FetchTransport> inner, RateLimit& rate) : inner_(std::move(inner)), rate_(rate) {}
  absl::StatusOr<std::unique_ptr<FetchStream>> Open(const v1::FetchRequest& request, SteadyTime deadline,
                                                    const CancelToken& cancel) override;

 private:
  const std::unique_ptr<FetchTransport> inner_;
  RateLimit& rate_;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_LIMITED_FETCH_H_
