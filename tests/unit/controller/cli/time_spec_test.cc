#include "controller/cli/time_spec.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/status.h"
#include "controller/cli/text.h"

namespace litefleet::cli {
namespace {

// 2026-11-22T13:03:00Z
const SystemTime kNow = SystemTime(std::chrono::seconds(1'795'352'580));

void In(const char* zone) {
  setenv("TZ", zone, 1);
  tzset();
}

std::string Parsed(std::string_view text, SystemTime now = kNow) {
  const auto time = ParseTime(text, now);
  return time.ok() ? Rfc3339Text(*time) : ReasonOf(time.status());
}

TEST(ParseTime, Rfc3339) {
  In("Asia/Tokyo");
  EXPECT_EQ(Parsed("2026-11-22T14:03:05+01:00"), "2026-11-22T13:03:05Z");
  EXPECT_EQ(Parsed("2026-11-22T14:03:05Z"), "2026-11-22T14:03:05Z");
  EXPECT_EQ(Parsed("2026-11-22t14:03:05.25z"), "2026-11-22T14:03:05.250Z");
  EXPECT_EQ(Parsed("2026-11-22 14:03:05-03:30"), "2026-11-22T17:33:05Z");
  EXPECT_EQ(Parsed("2026-11-22T14:03+01:00"), "2026-11-22T13:03:00Z");
}

TEST(ParseTime, WithoutAZoneItIsLocal) {
  In("Asia/Tokyo");
  EXPECT_EQ(Parsed("2026-11-22 14:03"), "2026-11-22T05:03:00Z");
  EXPECT_EQ(Parsed("2026-11-22T14:03:07"), "2026-11-22T05:03:07Z");
  EXPECT_EQ(Parsed("yesterday 23:00"), "2026-11-21T14:00:00Z");
  EXPECT_EQ(Parsed("today 08:30:15"), "2026-11-21T23:30:15Z");
  In("UTC");
  EXPECT_EQ(Parsed("yesterday 23:00"), "2026-11-21T23:00:00Z");
}

TEST(ParseTime, YesterdayIsALocalDay) {
  In("Pacific/Auckland");  // there it is the 23rd already
  EXPECT_EQ(Parsed("yesterday 23:00"), "2026-11-22T10:00:00Z");
  In("America/New_York");
  // The first of March: yesterday is the 28th of February.
  EXPECT_EQ(Parsed("yesterday 12:00", SystemTime(std::chrono::seconds(1'772'384'400))), "2026-02-28T17:00:00Z");
}

TEST(ParseTime, Relative) {
  EXPECT_EQ(Parsed("-15m"), "2026-11-22T12:48:00Z");
  EXPECT_EQ(Parsed("-1d12h"), "2026-11-21T01:03:00Z");
  EXPECT_EQ(Parsed("-30s"), "2026-11-22T13:02:30Z");
  EXPECT_EQ(Parsed("now"), "2026-11-22T13:03:00Z");
}

TEST(ParseTime, ATimeThatNeverWas) {
  In("Europe/Oslo");
  EXPECT_EQ(Parsed("2026-03-29 02:30"), "TIME_DOES_NOT_EXIST");
  EXPECT_EQ(Parsed("2026-03-29 01:59:59"), "2026-03-29T00:59:59Z");
  EXPECT_EQ(Parsed("2026-03-29 03:00"), "2026-03-29T01:00:00Z");
  In("America/New_York");
  EXPECT_EQ(Parsed("2026-03-08 02:00"), "TIME_DOES_NOT_EXIST");
  In("Pacific/Apia");  // a whole day was left out
  EXPECT_EQ(Parsed("2011-12-30 12:00"), "TIME_DOES_NOT_EXIST");
  EXPECT_EQ(Parsed("2011-12-31 12:00"), "2011-12-30T22:00:00Z");
  In("Australia/Lord_Howe");  // half an hour
  EXPECT_EQ(Parsed("2026-10-04 02:15"), "TIME_DOES_NOT_EXIST");
  EXPECT_EQ(Parsed("2026-10-04 02:45"), "2026-10-03T15:45:00Z");
}

TEST(ParseTime, ATimeThatWasTwice) {
  In("Europe/Oslo");
  const auto twice = ParseTime("2026-10-25 02:30", kNow);
  EXPECT_EQ(ReasonOf(twice.status()), "TIME_IS_AMBIGUOUS");
  EXPECT_EQ(HintOf(twice.status()), "write 2026-10-25T02:30:00+02:00 for the first, 2026-10-25T02:30:00+01:00 for the second");
  EXPECT_EQ(Parsed("2026-10-25T02:30:00+02:00"), "2026-10-25T00:30:00Z");
  EXPECT_EQ(Parsed("2026-10-25 03:00"), "2026-10-25T02:00:00Z");
  EXPECT_EQ(Parsed("yesterday 02:30", SystemTime(std::chrono::seconds(1'793'010'000))), "TIME_IS_AMBIGUOUS");
  In("Australia/Lord_Howe");
  EXPECT_EQ(Parsed("2026-04-05 01:45"), "TIME_IS_AMBIGUOUS");
}

TEST(ParseTime, Refuses) {
  In("UTC");
  for (const char* text : {"",
                           "-",
                           "-15",
                           "-15x",
                           "--15m",
                           "15m",
                           "2026-11-22",
                           "2026-13-01 00:00",
                           "2026-02-29 00:00",
                           "2026-11-22 24:00",
                           "2026-11-22 14:60",
                           "2026-11-22 14:03:60",
                           "2026-11-22 14:03 ",
                           " 2026-11-22 14:03",
                           "2026-11-22T14:03:05+25:00",
                           "2026-11-22T14:03:05.Z",
                           "2026-11-22T14:03:05+0100",
                           "1969-12-31 23:59",
                           "tomorrow 10:00",
                           "yesterday",
                           "yesterday 25:00",
                           "22.11.2026 14:03",
                           "-999999999999999999999m",
                           "-200000000000h"}) {
    EXPECT_EQ(Parsed(text), "TIME_INVALID") << text;
  }
}

TEST(ParseDuration, UnitsAddUp) {
  EXPECT_EQ(ParseDuration("90s").value(), std::chrono::seconds(90));
  EXPECT_EQ(ParseDuration("1h30m").value(), std::chrono::minutes(90));
  EXPECT_EQ(ParseDuration("7d").value(), std::chrono::hours(168));
  EXPECT_EQ(ParseDuration("2w").value(), std::chrono::hours(336));
  for (const char* text : {"", "0s", "10", "h", "1.5h", "-1h", "1h-5m", "99999999999999999999s", "101000w", "1 h"}) {
    EXPECT_EQ(ReasonOf(ParseDuration(text).status()), "DURATION_INVALID") << text;
  }
}

}  // namespace
}  // namespace litefleet::cli
