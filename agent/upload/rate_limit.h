// A token bucket for payload bytes: what is written may go into debt, and then waits. Thread safety: all members from any thread.
#ifndef LITEFLEET_AGENT_UPLOAD_RATE_LIMIT_H_
#define LITEFLEET_AGENT_UPLOAD_RATE_LIMIT_H_

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "common/base/clock.h"
#include "common/base/mutex.h"

namespace litefleet::upload {

class RateLimit {
 public:
  // 0: no limit.
  explicit RateLimit(int64_t bytes_per_second) : rate_(bytes_per_second), tokens_(static_cast<double>(bytes_per_second) / 4) {}

  // What may be written now; not positive: nothing yet.
  int64_t Budget(SteadyTime now) {
    if (rate_ == 0) return INT64_MAX;
    MutexLock lock(mu_);
    if (last_ != SteadyTime{}) {
      tokens_ += static_cast<double>(rate_) * std::chrono::duration<double>(now - last_).count();
      // A quarter of a second may be saved up.
      tokens_ = std::min(tokens_, static_cast<double>(rate_) / 4);
    }
    last_ = now;
    return static_cast<int64_t>(tokens_);
  }
  void Spend(int64_t bytes) {
    if (rate_ == 0) return;
    MutexLock lock(mu_);
    tokens_ -= static_cast<double>(bytes);
  }

 private:
  const int64_t rate_;
  Mutex mu_;
  double tokens_ ABSL_GUARDED_BY(mu_);
  SteadyTime last_ ABSL_GUARDED_BY(mu_){};
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_RATE_LIMIT_H_
