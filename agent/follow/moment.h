// When something was, by a clock that may be set, and by one that may not.
//
// Not for deadlines: those are steady. Thread safety: a value.
#ifndef LITEFLEET_AGENT_FOLLOW_MOMENT_H_
#define LITEFLEET_AGENT_FOLLOW_MOMENT_H_

#include <chrono>
#include <optional>

#include "common/base/clock.h"

namespace litefleet::follow {

struct Moment {
  SystemTime at{};  // by the device's clock at that moment
  // The same by the boot clock. Empty: it was in a boot before, or nobody knows in which.
  std::optional<std::chrono::nanoseconds> since_boot = std::nullopt;

  static Moment Now(const Clock& clock) { return {clock.Now(), clock.SinceBoot()}; }
  bool known() const { return at != SystemTime{}; }
};

// How much later `b` is; where the clock was set in between and nothing else is known, it may be less than nothing.
inline std::chrono::nanoseconds Between(const Moment& a, const Moment& b) {
  if (a.since_boot.has_value() && b.since_boot.has_value()) return *b.since_boot - *a.since_boot;
  return b.at - a.at;
}

}  // namespace litefleet::follow

#endif  // LITEFLEET_AGENT_FOLLOW_MOMENT_H_
