// Time as a seam: code that waits or stamps takes a Clock, tests give a fake one.
//
// Thread safety: all members may be called from any thread.
#ifndef LITEFLEET_COMMON_BASE_CLOCK_H_
#define LITEFLEET_COMMON_BASE_CLOCK_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "common/base/mutex.h"

namespace litefleet {

using SystemTime = std::chrono::system_clock::time_point;
using SteadyTime = std::chrono::steady_clock::time_point;

class Clock {
 public:
  virtual ~Clock() = default;
  // May jump.
  virtual SystemTime Now() const = 0;
  // Never goes back; not comparable between processes.
  virtual SteadyTime Steady() const = 0;
  // CLOCK_BOOTTIME: since the machine's boot, sleep included.
  virtual std::chrono::nanoseconds SinceBoot() const = 0;
};

class RealClock final : public Clock {
 public:
  SystemTime Now() const override;
  SteadyTime Steady() const override;
  std::chrono::nanoseconds SinceBoot() const override;
};

// Stands still until told otherwise.
class FakeClock final : public Clock {
 public:
  SystemTime Now() const override;
  SteadyTime Steady() const override;
  std::chrono::nanoseconds SinceBoot() const override;
  // Moves all three.
  void Advance(std::chrono::nanoseconds by);
  // Moves the system time alone: a clock that was set.
  void JumpSystem(std::chrono::nanoseconds by);

 private:
  mutable Mutex mu_;
  std::chrono::nanoseconds passed_ ABSL_GUARDED_BY(mu_){std::chrono::hours(1)};
  std::chrono::nanoseconds jumped_ ABSL_GUARDED_BY(mu_){0};
};

int64_t ToUnixMillis(SystemTime time);
SystemTime FromUnixMillis(int64_t millis);
// "2026-11-22T14:03:00.000Z".
std::string FormatRfc3339(SystemTime time);
// /proc/sys/kernel/random/boot_id; empty where there is none.
std::string BootId();

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_CLOCK_H_
