// How much of an upload may be on its way: so much that a long link never rests, and no more, because behind it waits whatever is sent
// next, the answer to a ping too, and a cut loses it. Out of what is heard of the controller: how soon a question is answered, and how fast
// what was sent is taken out there.
//
// Thread safety: none. Memory: 8 bytes a question without an answer.
#ifndef LITEFLEET_AGENT_UPLOAD_LINK_PACE_H_
#define LITEFLEET_AGENT_UPLOAD_LINK_PACE_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>

#include "common/base/clock.h"

namespace litefleet::upload {

class LinkPace {
 public:
  // What is small and answered at once, and the answer to the oldest of those.
  void Asked(SteadyTime now) { asked_.push_back(now); }
  void Answered(SteadyTime now);
  // Content is sent; the first time counts.
  void Sent(SteadyTime now) { began_ = began_.value_or(now); }
  // So much of the stream was taken out so far.
  void Received(int64_t bytes, SteadyTime now);
  // Bytes that may be sent and not taken out, where a message has so many: what is under way there and back one and a half times, and the
  // messages themselves: two where one takes no longer than a few seconds, since while one is dealt with the next is to be under way.
  int64_t Window(int64_t message_bytes) const;

 private:
  std::deque<SteadyTime> asked_;
  std::optional<std::chrono::nanoseconds> round_trip_;  // the shortest: others waited behind something
  int64_t received_ = 0;
  std::optional<SteadyTime> began_;
  std::optional<SteadyTime> received_at_;
  double rate_ = 0;  // bytes a second, smoothed; 0: not known
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_LINK_PACE_H_
