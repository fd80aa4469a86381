// Keeps a stream of bytes below a rate, by waiting in slices that a cancel interrupts.
//
// Thread safety: none. Ownership: borrows the clock.
#ifndef LITEFLEET_CONTROLLER_SCRUB_PACER_H_
#define LITEFLEET_CONTROLLER_SCRUB_PACER_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <utility>

#include "common/base/clock.h"

namespace litefleet::scrub {

class Pacer {
 public:
  using Wait = std::function<void(std::chrono::nanoseconds)>;

  // `rate`: bytes a second; 0: no limit. `wait` returns when so much time has passed.
  Pacer(int64_t rate, const Clock& clock, Wait wait) : rate_(rate), clock_(clock), wait_(std::move(wait)), begun_(clock.Steady()) {}

  // After these bytes; returns when they may have been read. False: interrupted.
  bool Spend(uint64_t bytes, const std::function<bool()>& stop) {
    spent_ += bytes;
    if (stop()) return false;
    if (rate_ <= 0) return true;
    const SteadyTime due =
        begun_ + std::chrono::microseconds(static_cast<int64_t>(static_cast<double>(spent_) * 1e6 / static_cast<double>(rate_)));
    // What was not used is not saved up.
    if (const SteadyTime now = clock_.Steady(); now > due + std::chrono::seconds(1)) {
      begun_ = now;
      spent_ = 0;
    }
    for (SteadyTime now = clock_.Steady(); now < due; now = clock_.Steady()) {
      if (stop()) return false;
      wait_(std::min<std::chrono::nanoseconds>(std::chrono::milliseconds(50), due - now));
    }
    return true;
  }

 private:
  const int64_t rate_;
  const Clock& clock_;
  const Wait wait_;
  SteadyTime begun_;
  uint64_t spent_ = 0;
};

}  // namespace litefleet::scrub

#endif  // LITEFLEET_CONTROLLER_SCRUB_PACER_H_
