#include "common/base/backoff.h"

#include <gtest/gtest.h>

namespace litefleet {
namespace {

using std::chrono::milliseconds;

TEST(BackoffTest, DoublesToTheLimitWithFullJitter) {
  FakeClock clock;
  milliseconds longest[8]{};
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    Backoff backoff({}, seed);
    for (auto& most : longest) {
      const milliseconds delay = backoff.Next(clock.Steady());
      EXPECT_GT(delay.count(), 0);
      most = std::max(most, delay);
    }
  }
  const int64_t caps[8] = {1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000};
  for (int i = 0; i < 8; ++i) {
    EXPECT_LE(longest[i].count(), caps[i]);
    EXPECT_GT(longest[i].count(), caps[i] * 95 / 100);
  }
}

TEST(BackoffTest, OnlyALongConnectionResets) {
  FakeClock clock;
  const auto cap_after = [&](std::chrono::seconds connected) {
    milliseconds most{0};
    for (uint64_t seed = 0; seed < 500; ++seed) {
      Backoff backoff({}, seed);
      for (int i = 0; i < 5; ++i) backoff.Next(clock.Steady());
      backoff.Connected(clock.Steady());
      clock.Advance(connected);
      most = std::max(most, backoff.Next(clock.Steady()));
    }
    return most.count();
  };
  EXPECT_GT(cap_after(std::chrono::seconds(59)), 20000);
  EXPECT_LE(cap_after(std::chrono::seconds(60)), 1000);
}

}  // namespace
}  // namespace litefleet
