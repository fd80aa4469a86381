#include "agent/config/day_window.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>

namespace litefleet::config {
namespace {

SystemTime Local(const char* text) {
  struct tm local {};
  strptime(text, "%Y-%m-%d %H:%M", &local);
  local.tm_isdst = -1;
  return SystemTime(std::chrono::seconds(mktime(&local)));
}

TEST(DayWindowTest, MayGoOverMidnight) {
  const auto night = DayWindow::Parse("22:00-06:00");
  ASSERT_TRUE(night);
  EXPECT_TRUE(night->Contains(Local("2026-11-22 23:00")));
  EXPECT_TRUE(night->Contains(Local("2026-11-22 05:59")));
  EXPECT_FALSE(night->Contains(Local("2026-11-22 06:00")));
  EXPECT_EQ(night->UntilOpen(Local("2026-11-22 06:00")), std::chrono::hours(16));
  EXPECT_EQ(night->UntilOpen(Local("2026-11-22 06:00") + std::chrono::seconds(10)), std::chrono::hours(16) - std::chrono::seconds(10));
  EXPECT_EQ(night->UntilOpen(Local("2026-11-22 22:00")), std::chrono::hours(0));
  EXPECT_TRUE(DayWindow::Parse("08:00-24:00")->Contains(Local("2026-11-22 23:59")));
  for (const char* wrong : {"", "22:00", "22:00-22:00", "24:00-06:00", "22:00 - 06:00", "22-06"})
    EXPECT_FALSE(DayWindow::Parse(wrong)) << wrong;
}

}  // namespace
}  // namespace litefleet::config
