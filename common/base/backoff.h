// Exponential backoff with full jitter: each delay is uniform in (0, cap], the cap doubles from `first` to `limit`.
//
// Thread safety: none. Source: the "full jitter" variant of the well-known article on exponential backoff and jitter.
#ifndef LITEFLEET_COMMON_BASE_BACKOFF_H_
#define LITEFLEET_COMMON_BASE_BACKOFF_H_

#include <chrono>
#include <cstdint>
#include <random>

#include "common/base/clock.h"

namespace litefleet {

class Backoff {
 public:
  struct Options {
    std::chrono::milliseconds first{1000};
    std::chrono::milliseconds limit{60000};
    // A connection that lasted this long makes the next delay a first one again.
    std::chrono::milliseconds reset_after{60000};
  };
  Backoff(Options options, uint64_t seed) : options_(options), cap_(options.first), random_(seed) {}

  void Connected(SteadyTime now) { connected_at_ = now, connected_ = true; }
  // The delay before the next attempt; call it once when an attempt failed or a connection ended.
  std::chrono::milliseconds Next(SteadyTime now) {
    if (connected_ && now - connected_at_ >= options_.reset_after) cap_ = options_.first;
    connected_ = false;
    std::uniform_int_distribution<int64_t> delay(1, cap_.count());
    const std::chrono::milliseconds result(delay(random_));
    cap_ = std::min(cap_ * 2, options_.limit);
    return result;
  }

 private:
  Options options_;
  std::chrono::milliseconds cap_;
  std::mt19937_64 random_;
  SteadyTime connected_at_{};
  bool connected_ = false;
};

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_BACKOFF_H_
