#include "controller/cli/text.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <time.h>

#include <string>
#include <vector>

#include "controller/cli/command_support.h"
#include "controller/cli/json.h"
#include "controller/cli/plan_text.h"
#include "controller/cli/table.h"

namespace litefleet::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Text, SizesKeepThreeDigits) {
  EXPECT_EQ(SizeText(0), "0 B");
  EXPECT_EQ(SizeText(1023), "1023 B");
  EXPECT_EQ(SizeText(1024), "1.0 KiB");
  EXPECT_EQ(SizeText(12'900'000), "12.3 MiB");
  EXPECT_EQ(SizeText(130 << 20), "130 MiB");
  EXPECT_EQ(SizeText((int64_t{1} << 30) - 1), "1.0 GiB");
  EXPECT_EQ(SizeText(INT64_MAX), "8.0 EiB");
  EXPECT_EQ(SizeText(-2048), "-2.0 KiB");
  EXPECT_EQ(SizeText(INT64_MIN), "-8.0 EiB");
}

TEST(Text, DurationsAndAges) {
  EXPECT_EQ(DurationText(milliseconds(320)), "320 ms");
  EXPECT_EQ(DurationText(milliseconds(3210)), "3.2 s");
  EXPECT_EQ(DurationText(milliseconds(59'990)), "1 min");
  EXPECT_EQ(DurationText(seconds(125)), "2 min 5 s");
  EXPECT_EQ(DurationText(std::chrono::hours(52)), "2 d 4 h");
  EXPECT_EQ(DurationText(milliseconds(-1500)), "-1.5 s");
  const SystemTime now = FromUnixMillis(1'700'000'000'000);
  EXPECT_EQ(AgeText(now - seconds(12), now), "12 s ago");
  EXPECT_EQ(AgeText(now - std::chrono::hours(5), now), "5 h ago");
  EXPECT_EQ(AgeText(now + std::chrono::hours(72), now), "in 3 d");
}

TEST(Text, LocalTimesShowTheirOffset) {
  const auto in = [](const char* zone, int64_t unix_seconds) {
    setenv("TZ", zone, 1);
    tzset();
    return LocalTimeText(SystemTime(seconds(unix_seconds)));
  };
  EXPECT_EQ(in("Europe/Oslo", 1'795'360'000), "2026-11-22 16:06:40+01:00");
  EXPECT_EQ(in("America/St_Johns", 1'795'360'000), "2026-11-22 11:36:40-03:30");
  EXPECT_EQ(in("Asia/Kathmandu", 1'795'360'000), "2026-11-22 20:51:40+05:45");
  EXPECT_EQ(in("UTC", 0), "1970-01-01 00:00:00+00:00");
  EXPECT_EQ(Rfc3339Text(SystemTime(seconds(1'795'360'000))), "2026-11-22T15:06:40Z");
  EXPECT_EQ(Rfc3339Text(SystemTime(milliseconds(1'795'360'000'250))), "2026-11-22T15:06:40.250Z");
}

TEST(Text, WhatComesFromADeviceCannotDriveTheTerminal) {
  EXPECT_EQ(Printable("a\033[31mb\nc\x7f"), "a\\u001b[31mb c\\u007f");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "31m"),
            "\\u009b31m");
  EXPECT_EQ(Printable("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"), "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80");
  EXPECT_EQ(Printable("\xff\xfe"), "\\ufffd\\ufffd");
  // Right-to-left override, isolate, mark, zero width, byte order mark, a tag character.
  EXPECT_EQ(Printable("fdp.\u202egnp"), "fdp.\\u202egnp");
  EXPECT_EQ(Printable("\u2066\u200f\u200b\ufeff"), "\\u2066\\u200f\\u200b\\ufeff");
  EXPECT_EQ(Printable("\U000e0041"), "\\udb40\\udc41");
}

TEST(Text, OutputKeepsItsLinesAndItsOwnColoursOnly) {
  const std::vector<std::string_view> colours = {"\033[31m", "\033[0m"};
  EXPECT_EQ(PrintableLines("a\tb\n\033[31mc\033[0m\033[2Jd\u202e\r", colours), "a\tb\n\033[31mc\033[0m\\u001b[2Jd\\u202e\\u000d");
  EXPECT_EQ(PrintableLines("\033[31mc\033[0m", {}), "\\u001b[31mc\\u001b[0m");
  EXPECT_EQ(PrintableLines(Json("x\u202ey\033").Text(), {}), "\"x\\u202ey\\u001b\"") << "JSON means what it meant";
}

TEST(Text, Utf8) {
  EXPECT_EQ(Utf8Length("\xe2\x82\xac"), 3U);
  EXPECT_EQ(Utf8Length("\xc0\x80"), 0U) << "overlong";
  EXPECT_EQ(Utf8Length("\xed\xa0\x80"), 0U) << "surrogate";
  EXPECT_EQ(Utf8Length("\xf4\x90\x80\x80"), 0U) << "beyond Unicode";
  EXPECT_EQ(Utf8Length("\xe2\x82"), 0U) << "cut";
  EXPECT_EQ(Columns("\xe2\x82\xac"
                    "1"),
            2U);
}

TEST(Text, CutKeepsBothEnds) {
  EXPECT_EQ(Cut("kiosk-oslo-17/orders", 100, "..."), "kiosk-oslo-17/orders");
  EXPECT_EQ(Cut("kiosk-oslo-17/orders", 12, "..."), "kiosk-...ers");
  EXPECT_EQ(Columns(Cut("kiosk-oslo-17/orders", 12, "\xe2\x80\xa6")), 12U);
}

TEST(JsonText, EscapesAndKeepsOrder) {
  Json object = Json::Object();
  object.Set("b", int64_t{9'223'372'036'854'775'807}).Set("a", false).Set("n", nullptr).Set("t", "q\"\\\n\t\x01");
  object
      .Set("bad",
           "x\xff"
           "y")
      .Set("euro", "\xe2\x82\xac")
      .Set("zero", 0)
      .Set("none", Json::OrNull(""))
      .Set("list", Json::Array().Add(uint64_t{18'446'744'073'709'551'615U}).Add("s"));
  EXPECT_EQ(object.Text(),
            "{\"b\":9223372036854775807,\"a\":false,\"n\":null,\"t\":\"q\\\"\\\\\\n\\t\\u0001\",\"bad\":\"x\\ufffdy\",\"euro\":"
            "\"\xe2\x82\xac\",\"zero\":0,"
            "\"none\":null,\"list\":[18446744073709551615,\"s\"]}");
  EXPECT_EQ(Json::Object().Text(), "{}");
  EXPECT_EQ(Json::Array().Text(), "[]");
}

TEST(TableText, FitsItsWidthAndIsPlainWithoutColour) {
  Table table({{"ID"}, {"DATABASE", false, true}, {"SIZE", true}});
  table.Add({"01J9ZK", "a-rather-long-device-name/a-rather-long-database-name", Cell("1.0 KiB", Tone::kGood)});
  table.Add({"01J9ZL", "b/c", "12.0 MiB"});
  const std::string text = table.Text({.width = 40});
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  ASSERT_EQ(lines.size(), 6U);
  for (const std::string& line : lines) EXPECT_LE(line.size(), 40U) << line;
  EXPECT_EQ(lines[1], "01J9ZK  a-rather-long-device-n   1.0 KiB");
  EXPECT_EQ(lines[2], "        ame/");
  EXPECT_EQ(lines[3] + lines[4].substr(8), "        a-rather-long-database-name") << "nothing is left out";
  EXPECT_EQ(lines[5], "01J9ZL  b/c                     12.0 MiB");
  EXPECT_EQ(text.find('\033'), std::string::npos);
  EXPECT_NE(table.Text({.width = 0, .color = true}).find("\033[32m1.0 KiB\033[0m"), std::string::npos);
  EXPECT_NE(table.Text({.width = 0}).find("a-rather-long-device-name/a-rather-long-database-name"), std::string::npos);
}

TEST(TableText, SentencesBreakBetweenWords) {
  Table table({{"ALARM"}, {"WHAT", false, true}});
  table.Add({"SOURCE_DAMAGED", "SQLite finds damage in its newest snapshot 01J9ZK00000000000000000001"});
  EXPECT_EQ(table.Text({.width = 50}),
            "ALARM           WHAT\n"
            "SOURCE_DAMAGED  SQLite finds damage in its newest\n"
            "                snapshot\n"
            "                01J9ZK00000000000000000001\n");
}

TEST(FactsText, LongValuesHangBelowTheirFirstLine) {
  Facts facts;
  facts.Add("space", "12 MiB needed, 34 MiB free").Add("in use", "no");
  EXPECT_EQ(facts.Text(), "space:   12 MiB needed, 34 MiB free\nin use:  no\n");
  EXPECT_EQ(facts.Text(24), "space:   12 MiB needed,\n         34 MiB free\nin use:  no\n");
}

TEST(PlanTextTest, LinesAreBroken) {
  v1::RestorePlan plan;
  plan.set_from_device(true);
  plan.add_steps("fetch " + std::string(90, 'x') + " and " + std::string(90, 'y'));
  v1::ErrorDetail& obstacle = *plan.add_obstacles();
  obstacle.set_message("there is a reason " + std::string(60, 'z') + " that needs many words to be told, and more than a line has");
  obstacle.mutable_info()->set_hint("do something about it " + std::string(90, 'h'));
  const std::string text = PlanText("restore", Facts(), plan, 100);
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    EXPECT_LE(end - at, 100u) << text.substr(at, end - at);
    at = end + 1;
  }
  EXPECT_NE(text.find("\n    and yyy"), std::string::npos) << text;
  EXPECT_NE(PlanText("restore", Facts(), plan, 0).find(" and yyy"), std::string::npos);
}

}  // namespace
}  // namespace litefleet::cli
