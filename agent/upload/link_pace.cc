#include "agent/upload/link_pace.h"

#include <algorithm>

namespace litefleet::upload {
namespace {

using Seconds = std::chrono::duration<double>;

constexpr double kNewest = 0.25;  // what one measurement counts
constexpr double kMostFaster = 4;
constexpr std::chrono::milliseconds kShortest{100};  // of a measurement
constexpr std::chrono::seconds kFewSeconds{4};
// Beyond it nobody has a link.
constexpr std::chrono::seconds kLongestRoundTrip{4};

}  // namespace

void LinkPace::Answered(SteadyTime now) {
  if (asked_.empty()) return;
  const std::chrono::nanoseconds took = now - asked_.front();
  asked_.pop_front();
  round_trip_ = std::min(round_trip_.value_or(took), took);
}

void LinkPace::Received(int64_t bytes, SteadyTime now) {
  if (bytes <= received_) return;
  // The first one came a round trip later than the next ones will.
  const std::optional<SteadyTime> since =
      received_at_.has_value() || !began_.has_value() ? received_at_ : *began_ + round_trip_.value_or(std::chrono::nanoseconds(0));
  if (since.has_value()) {
    // What was told late comes together, and says nothing of the link by itself.
    if (now - *since < std::max<std::chrono::nanoseconds>(kShortest, round_trip_.value_or(std::chrono::nanoseconds(0)) / 2)) return;
    const double measured = static_cast<double>(bytes - received_) / Seconds(now - *since).count();
    rate_ = rate_ > 0 ? rate_ + kNewest * (std::min(measured, kMostFaster * rate_) - rate_) : measured;
  }
  received_ = bytes;
  received_at_ = now;
}

int64_t LinkPace::Window(int64_t message_bytes) const {
  const auto message = static_cast<double>(message_bytes);
  const auto round_trip = std::min<std::chrono::nanoseconds>(round_trip_.value_or(std::chrono::nanoseconds(0)), kLongestRoundTrip);
  const double messages = rate_ * Seconds(kFewSeconds).count() >= message ? 2 : 1;
  return static_cast<int64_t>(messages * message + 1.5 * rate_ * Seconds(round_trip).count());
}

}  // namespace litefleet::upload
