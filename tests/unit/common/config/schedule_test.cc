#include "common/config/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "common/base/status.h"

namespace litefleet::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

void SetZone(const char* zone) {
  setenv("TZ", zone, 1);
  tzset();
}

SystemTime Local(const char* text) {
  struct tm local {};
  strptime(text, "%Y-%m-%d %H:%M", &local);
  local.tm_isdst = -1;
  return SystemTime(std::chrono::seconds(mktime(&local)));
}

std::string Text(const std::optional<SystemTime>& at) {
  if (!at) return "never";
  const auto seconds = static_cast<time_t>(std::chrono::duration_cast<std::chrono::seconds>(at->time_since_epoch()).count());
  struct tm local {};
  localtime_r(&seconds, &local);
  char text[64];
  strftime(text, sizeof text, "%Y-%m-%d %H:%M %Z", &local);
  return text;
}

std::vector<std::string> Next(const char* schedule, const char* after, int count) {
  const auto parsed = Schedule::Parse(schedule);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  std::vector<std::string> times;
  std::optional<SystemTime> at = Local(after);
  for (int i = 0; i < count && at; ++i) {
    at = parsed->NextAfter(*at);
    times.push_back(Text(at));
  }
  return times;
}

std::string Problem(const char* text) {
  const auto parsed = Schedule::Parse(text);
  if (parsed.ok()) return "it was taken";
  EXPECT_EQ(ReasonOf(parsed.status()), "SCHEDULE_INVALID");
  return MessageOf(parsed.status());
}

class ScheduleTest : public ::testing::Test {
 protected:
  void SetUp() override { SetZone("UTC"); }
  void TearDown() override { SetZone("UTC"); }
};

TEST_F(ScheduleTest, Kinds) {
  EXPECT_EQ(Schedule::Parse("15m")->interval(), std::chrono::minutes(15));
  EXPECT_EQ(Schedule::Parse("7d")->kind(), Schedule::Kind::kInterval);
  EXPECT_EQ(Schedule::Parse("at-boot")->kind(), Schedule::Kind::kAtBoot);
  EXPECT_EQ(Schedule::Parse("never")->kind(), Schedule::Kind::kNever);
  EXPECT_EQ(Schedule::Parse("never")->text(), "");
  EXPECT_EQ(Schedule::Parse("90m")->text(), "90m");
  EXPECT_EQ(Schedule::Parse("120m")->text(), "2h");
  EXPECT_EQ(Schedule().kind(), Schedule::Kind::kNever);
  EXPECT_EQ(Schedule::Parse("@daily")->kind(), Schedule::Kind::kCron);
  EXPECT_EQ(Schedule::Parse("@daily")->text(), "@daily");
}

TEST_F(ScheduleTest, TimesOfTheDay) {
  EXPECT_THAT(Next("30 2 * * *", "2026-11-22 14:03", 2), ElementsAre("2026-11-23 02:30 UTC", "2026-11-24 02:30 UTC"));
  EXPECT_THAT(Next("30 2 * * *", "2026-11-22 02:29", 1), ElementsAre("2026-11-22 02:30 UTC"));
  EXPECT_THAT(Next("30 2 * * *", "2026-11-22 02:30", 1), ElementsAre("2026-11-23 02:30 UTC"));
  EXPECT_THAT(Next("*/20 8-9,17 * * *", "2026-11-22 08:30", 6),
              ElementsAre("2026-11-22 08:40 UTC", "2026-11-22 09:00 UTC", "2026-11-22 09:20 UTC", "2026-11-22 09:40 UTC",
                          "2026-11-22 17:00 UTC", "2026-11-22 17:20 UTC"));
  EXPECT_THAT(Next("0 8-18/4 * * *", "2026-11-22 00:00", 4),
              ElementsAre("2026-11-22 08:00 UTC", "2026-11-22 12:00 UTC", "2026-11-22 16:00 UTC", "2026-11-23 08:00 UTC"));
  EXPECT_THAT(Next("59 23 31 12 *", "2026-11-22 00:00", 2), ElementsAre("2026-12-31 23:59 UTC", "2027-12-31 23:59 UTC"));
}

TEST_F(ScheduleTest, DaysAndMonths) {
  EXPECT_THAT(Next("0 3 * * mon-fri", "2026-11-27 12:00", 2), ElementsAre("2026-11-30 03:00 UTC", "2026-12-01 03:00 UTC"));
  EXPECT_THAT(Next("0 3 * * SUN", "2026-11-27 12:00", 1), ElementsAre("2026-11-29 03:00 UTC"));
  EXPECT_THAT(Next("0 3 * * 7", "2026-11-27 12:00", 1), ElementsAre("2026-11-29 03:00 UTC"));
  EXPECT_THAT(Next("0 3 * * 0", "2026-11-27 12:00", 1), ElementsAre("2026-11-29 03:00 UTC"));
  EXPECT_THAT(Next("0 3 * * fri-sun", "2026-11-27 12:00", 3),
              ElementsAre("2026-11-28 03:00 UTC", "2026-11-29 03:00 UTC", "2026-12-04 03:00 UTC"));
  EXPECT_THAT(Next("0 0 29 feb *", "2026-11-22 00:00", 2), ElementsAre("2028-02-29 00:00 UTC", "2032-02-29 00:00 UTC"));
  EXPECT_THAT(Next("0 0 31 * *", "2026-11-22 00:00", 2), ElementsAre("2026-12-31 00:00 UTC", "2027-01-31 00:00 UTC"));
  // Both days restricted: either.
  EXPECT_THAT(Next("0 0 13 * fri", "2026-11-01 00:00", 3),
              ElementsAre("2026-11-06 00:00 UTC", "2026-11-13 00:00 UTC", "2026-11-20 00:00 UTC"));
  // One of them begins with a star: both.
  EXPECT_THAT(Next("0 0 */2 * fri", "2026-11-01 00:00", 2), ElementsAre("2026-11-13 00:00 UTC", "2026-11-27 00:00 UTC"));
  EXPECT_THAT(Next("0 0 30 2 *", "2026-11-22 00:00", 1), ElementsAre("never"));
}

TEST_F(ScheduleTest, WordsForCommonTimes) {
  EXPECT_THAT(Next("@hourly", "2026-11-22 14:03", 1), ElementsAre("2026-11-22 15:00 UTC"));
  EXPECT_THAT(Next("@weekly", "2026-11-22 14:03", 1), ElementsAre("2026-11-29 00:00 UTC"));
  EXPECT_THAT(Next("@monthly", "2026-11-22 14:03", 1), ElementsAre("2026-12-01 00:00 UTC"));
  EXPECT_THAT(Next("@yearly", "2026-11-22 14:03", 1), ElementsAre("2027-01-01 00:00 UTC"));
}

TEST_F(ScheduleTest, ClocksSetForward) {
  SetZone("CET-1CEST,M3.5.0,M10.5.0/3");  // 29 March 2026 02:00 -> 03:00
  EXPECT_THAT(Next("30 2 * * *", "2026-03-28 12:00", 2), ElementsAre("2026-03-29 03:00 CEST", "2026-03-30 02:30 CEST"));
  EXPECT_THAT(Next("30 2-3 * * *", "2026-03-29 00:00", 2), ElementsAre("2026-03-29 03:00 CEST", "2026-03-29 03:30 CEST"));
  EXPECT_THAT(Next("*/30 * * * *", "2026-03-29 01:00", 3),
              ElementsAre("2026-03-29 01:30 CET", "2026-03-29 03:00 CEST", "2026-03-29 03:30 CEST"));
  EXPECT_THAT(Next("45 * * * *", "2026-03-29 01:30", 2), ElementsAre("2026-03-29 01:45 CET", "2026-03-29 03:45 CEST"));
  EXPECT_THAT(Next("30 2 * * mon", "2026-03-28 12:00", 1), ElementsAre("2026-03-30 02:30 CEST")) << "Sunday's jump is not Monday's";
  EXPECT_THAT(Next("0 12 * * *", "2026-03-28 12:00", 1), ElementsAre("2026-03-29 12:00 CEST"));
}

TEST_F(ScheduleTest, ClocksSetBack) {
  SetZone("CET-1CEST,M3.5.0,M10.5.0/3");  // 25 October 2026 03:00 -> 02:00
  EXPECT_THAT(Next("30 2 * * *", "2026-10-24 12:00", 2), ElementsAre("2026-10-25 02:30 CEST", "2026-10-26 02:30 CET"));
  EXPECT_THAT(Next("*/30 * * * *", "2026-10-25 01:30", 5),
              ElementsAre("2026-10-25 02:00 CEST", "2026-10-25 02:30 CEST", "2026-10-25 02:00 CET", "2026-10-25 02:30 CET",
                          "2026-10-25 03:00 CET"));
  EXPECT_THAT(Next("0 3 * * *", "2026-10-25 00:00", 1), ElementsAre("2026-10-25 03:00 CET"));
}

TEST_F(ScheduleTest, ADayThatBeginsWithAJump) {
  SetZone("<-04>4<-03>,M9.1.6/24,M4.1.6/24");  // Chile: midnight does not exist on 6 September 2026
  EXPECT_THAT(Next("0 0 * * *", "2026-09-05 12:00", 2), ElementsAre("2026-09-06 01:00 -03", "2026-09-07 00:00 -03"));
}

TEST_F(ScheduleTest, HalfHours) {
  SetZone("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0");  // Lord Howe: 4 October 2026 02:00 -> 02:30
  EXPECT_THAT(Next("15 2 * * *", "2026-10-03 12:00", 2), ElementsAre("2026-10-04 02:30 +11", "2026-10-05 02:15 +11"));
  EXPECT_THAT(Next("45 1 * * *", "2026-04-04 12:00", 2), ElementsAre("2026-04-05 01:45 +11", "2026-04-06 01:45 +1030"));
}

TEST_F(ScheduleTest, WhatIsWrongIsNamed) {
  EXPECT_THAT(Problem("soon"), HasSubstr("\"soon\" is no schedule"));
  EXPECT_THAT(Problem(""), HasSubstr("is no schedule"));
  EXPECT_THAT(Problem("0s"), HasSubstr("1 second to 366 days"));
  EXPECT_THAT(Problem("400d"), HasSubstr("1 second to 366 days"));
  EXPECT_THAT(Problem("* * * *"), HasSubstr("4 fields instead of five"));
  EXPECT_THAT(Problem("* * * * * *"), HasSubstr("6 fields instead of five"));
  EXPECT_THAT(Problem("@often"), HasSubstr("no schedule"));
  EXPECT_THAT(Problem("60 * * * *"), HasSubstr("\"60\" is no minute: 0 to 59"));
  EXPECT_THAT(Problem("-1 * * * *"), HasSubstr("minute"));
  EXPECT_THAT(Problem("0 24 * * *"), HasSubstr("\"24\" is no hour"));
  EXPECT_THAT(Problem("0 0 0 * *"), HasSubstr("day of the month"));
  EXPECT_THAT(Problem("0 0 * 13 *"), HasSubstr("or jan to dec"));
  EXPECT_THAT(Problem("0 0 * * 8"), HasSubstr("or sun to sat"));
  EXPECT_THAT(Problem("0 0 * * mond"), HasSubstr("\"mond\""));
  EXPECT_THAT(Problem("0 5-3 * * *"), HasSubstr("goes backwards"));
  EXPECT_THAT(Problem("*/0 * * * *"), HasSubstr("no step"));
  EXPECT_THAT(Problem("*/x * * * *"), HasSubstr("no step"));
  EXPECT_THAT(Problem("5/10 * * * *"), HasSubstr("step without a range"));
  EXPECT_THAT(Problem("1,,2 * * * *"), HasSubstr("minute"));
  EXPECT_THAT(Problem("99999999999999999999 * * * *"), HasSubstr("minute"));
}

}  // namespace
}  // namespace litefleet::config
