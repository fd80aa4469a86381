#include "common/base/clock.h"

#include <sys/types.h>
#include <time.h>

#include <fstream>

#include "fmt/format.h"

namespace litefleet {
namespace {

// On 32-bit machines only where every source is compiled with _FILE_OFFSET_BITS=64 and _TIME_BITS=64.
static_assert(sizeof(off_t) == 8, "files are larger than 2 GiB");
static_assert(sizeof(time_t) == 8, "time goes on after 2038");

constexpr SystemTime kFakeStart{std::chrono::seconds(1'800'000'000)};

}  // namespace

SystemTime RealClock::Now() const { return std::chrono::system_clock::now(); }
SteadyTime RealClock::Steady() const { return std::chrono::steady_clock::now(); }

std::chrono::nanoseconds RealClock::SinceBoot() const {
  timespec ts{};
  clock_gettime(CLOCK_BOOTTIME, &ts);
  return std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec);
}

SystemTime FakeClock::Now() const {
  MutexLock lock(mu_);
  return kFakeStart + std::chrono::duration_cast<SystemTime::duration>(passed_ + jumped_);
}
SteadyTime FakeClock::Steady() const {
  MutexLock lock(mu_);
  return SteadyTime(passed_);
}
std::chrono::nanoseconds FakeClock::SinceBoot() const {
  MutexLock lock(mu_);
  return passed_;
}
void FakeClock::Advance(std::chrono::nanoseconds by) {
  MutexLock lock(mu_);
  passed_ += by;
}
void FakeClock::JumpSystem(std::chrono::nanoseconds by) {
  MutexLock lock(mu_);
  jumped_ += by;
}

int64_t ToUnixMillis(SystemTime time) { return std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch()).count(); }
SystemTime FromUnixMillis(int64_t millis) { return SystemTime(std::chrono::milliseconds(millis)); }

std::string FormatRfc3339(SystemTime time) {
  const int64_t millis = ToUnixMillis(time);
  int64_t seconds = millis / 1000;
  int64_t rest = millis % 1000;
  if (rest < 0) {
    rest += 1000;
    --seconds;
  }
  const time_t t = static_cast<time_t>(seconds);
  tm parts{};
  gmtime_r(&t, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour,
                     parts.tm_min, parts.tm_sec, rest);
}

std::string BootId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

}  // namespace litefleet
