#include "common/base/clock.h"

#include <gtest/gtest.h>

namespace litefleet {
namespace {

TEST(ClockTest, FormatsUtc) {
  EXPECT_EQ(FormatRfc3339(FromUnixMillis(0)), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(FormatRfc3339(FromUnixMillis(1795356180123)), "2026-11-22T14:03:00.123Z");
  EXPECT_EQ(FormatRfc3339(FromUnixMillis(-1)), "1969-12-31T23:59:59.999Z");
  EXPECT_EQ(FormatRfc3339(FromUnixMillis(4102444800000)), "2100-01-01T00:00:00.000Z");
}

TEST(ClockTest, MillisFloor) {
  EXPECT_EQ(ToUnixMillis(FromUnixMillis(-1)), -1);
  EXPECT_EQ(ToUnixMillis(SystemTime(std::chrono::microseconds(-1))), -1);
}

TEST(ClockTest, FakeJumpMovesTheSystemTimeAlone) {
  FakeClock clock;
  const auto now = clock.Now();
  const auto steady = clock.Steady();
  const auto boot = clock.SinceBoot();
  clock.JumpSystem(std::chrono::hours(-5));
  EXPECT_EQ(clock.Now(), now - std::chrono::hours(5));
  EXPECT_EQ(clock.Steady(), steady);
  clock.Advance(std::chrono::seconds(1));
  EXPECT_EQ(clock.SinceBoot(), boot + std::chrono::seconds(1));
}

}  // namespace
}  // namespace litefleet
