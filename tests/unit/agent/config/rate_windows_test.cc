#include "agent/config/rate_windows.h"

#include <gtest/gtest.h>

namespace litefleet::config {
namespace {

using std::chrono::hours;
using std::chrono::minutes;

std::tm At(int weekday, int hour, int minute) {
  std::tm time{};
  time.tm_wday = weekday;
  time.tm_hour = hour;
  time.tm_min = minute;
  return time;
}

TEST(RateWindowsTest, TimesOfTheDay) {
  EXPECT_EQ(ParseTimeOfDay("08:30"), hours(8) + minutes(30));
  EXPECT_EQ(ParseTimeOfDay("24:00"), hours(24));
  for (const char* wrong : {"", "8:30", "08:60", "24:01", "25:00", "08-30", "0a:00", "08:300"})
    EXPECT_FALSE(ParseTimeOfDay(wrong)) << wrong;
  EXPECT_EQ(ParseWeekday("sun"), 0);
  EXPECT_EQ(ParseWeekday("sat"), 6);
  EXPECT_FALSE(ParseWeekday("Monday"));
}

TEST(RateWindowsTest, TheFirstThatHoldsCounts) {
  const std::vector<RateWindow> windows = {{.from = hours(9), .to = hours(12), .days = 0b0111110, .bytes_per_second = 100},
                                           {.from = hours(8), .to = hours(18), .days = {}, .bytes_per_second = 200}};
  EXPECT_EQ(RateAt(windows, 7, At(1, 9, 0)), 100);
  EXPECT_EQ(RateAt(windows, 7, At(1, 12, 0)), 200);
  EXPECT_EQ(RateAt(windows, 7, At(0, 9, 0)), 200) << "not on a Sunday";
  EXPECT_EQ(RateAt(windows, 7, At(1, 7, 59)), 7);
  EXPECT_EQ(RateAt(windows, 7, At(1, 18, 0)), 7);
  EXPECT_EQ(RateAt({}, 7, At(1, 18, 0)), 7);
}

TEST(RateWindowsTest, OverMidnightItBelongsToTheDayOnWhichItBegan) {
  const std::vector<RateWindow> windows = {{.from = hours(22), .to = hours(6), .days = 0b1000000, .bytes_per_second = 0}};  // Saturday
  EXPECT_EQ(RateAt(windows, 7, At(6, 22, 0)), 0);
  EXPECT_EQ(RateAt(windows, 7, At(0, 5, 59)), 0);
  EXPECT_EQ(RateAt(windows, 7, At(0, 6, 0)), 7);
  EXPECT_EQ(RateAt(windows, 7, At(6, 5, 0)), 7) << "that night began on Friday";
  EXPECT_EQ(RateAt(windows, 7, At(0, 23, 0)), 7);
}

}  // namespace
}  // namespace litefleet::config
