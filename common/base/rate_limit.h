// A token bucket for payload bytes: what is written or read may go into debt, and then waits. Thread safety: all members from any thread.
#ifndef LITEFLEET_COMMON_BASE_RATE_LIMIT_H_
#define LITEFLEET_COMMON_BASE_RATE_LIMIT_H_

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "common/base/clock.h"
#include "common/base/mutex.h"

namespace litefleet {

class RateLimit {
 public:
  // 0: no limit.
  explicit RateLimit(int64_t bytes_per_second) : rate_(bytes_per_second), tokens_(static_cast<double>(bytes_per_second) / 4) {}

  void SetRate(int64_t bytes_per_second) {
    MutexLock lock(mu_);
    rate_ = bytes_per_second;
    tokens_ = 0;
  }

  int64_t rate() const {
    MutexLock lock(mu_);
    return rate_;
  }

  // What may pass now; not positive: nothing yet.
  int64_t Budget(SteadyTime now) {
    MutexLock lock(mu_);
    if (rate_ == 0) return INT64_MAX;
    if (last_ != SteadyTime{}) {
      tokens_ += static_cast<double>(rate_) * std::chrono::duration<double>(now - last_).count();
      // A quarter of a second may be saved up.
      tokens_ = std::min(tokens_, static_cast<double>(rate_) / 4);
    }
    last_ = now;
    return static_cast<int64_t>(tokens_);
  }
  void Spend(int64_t bytes) {
    MutexLock lock(mu_);
    tokens_ -= static_cast<double>(bytes);
  }

 private:
  mutable Mutex mu_;
  int64_t rate_ ABSL_GUARDED_BY(mu_);
  double tokens_ ABSL_GUARDED_BY(mu_);
  SteadyTime last_ ABSL_GUARDED_BY(mu_){};
};

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_RATE_LIMIT_H_
