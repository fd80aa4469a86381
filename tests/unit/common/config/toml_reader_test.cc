#include "common/config/toml_reader.h"

#include <gtest/gtest.h>

#include "common/base/status.h"
#include "controller/config/config.h"

namespace litefleet::config {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

TEST(ParseDurationTest, TakesTheUnitsOfTheContract) {
  EXPECT_EQ(*ParseDuration("90s"), seconds(90));
  EXPECT_EQ(*ParseDuration("15m"), minutes(15));
  EXPECT_EQ(*ParseDuration("1h"), hours(1));
  EXPECT_EQ(*ParseDuration("7d"), hours(168));
  EXPECT_EQ(*ParseDuration("250ms"), milliseconds(250));
  EXPECT_EQ(*ParseDuration("1.5s"), milliseconds(1500));
  for (const char* bad : {"", "5", "s", "-1s", "1 s", "1y", "1e9s", "99999999999999999999d", "1..5s"})
    EXPECT_FALSE(ParseDuration(bad).ok()) << bad;
}

TEST(FormatDurationTest, SaysItExactlyInTheLargestUnit) {
  for (const char* text : {"0s", "1ms", "82079ms", "82s", "90m", "1h", "36h", "366d"})
    EXPECT_EQ(FormatDuration(*ParseDuration(text)), text);
  EXPECT_EQ(FormatDuration(milliseconds(86'400'000)), "1d");
}

TEST(TomlReaderTest, RangesAndTablesAreNamedAsTheyAreWritten) {
  auto reader = TomlReader::Parse("[database.when]\nat_latest = \"5s\"\n", "a.toml");
  ASSERT_TRUE(reader.ok());
  TomlTable* const when = reader->root().Table("database")->Table("when");
  EXPECT_FALSE(when->OptionalDuration("at_latest", minutes(1), hours(24 * 366)).has_value());
  EXPECT_EQ(MessageOf(reader->Finish()), "a.toml:2: at_latest: 5s is not between 1m and 366d");
  auto other = TomlReader::Parse("[database.when]\npowr = \"any\"\n", "a.toml");
  ASSERT_TRUE(other.ok());
  other->root().Table("database")->Table("when")->String("power", "");
  EXPECT_EQ(MessageOf(other->Finish()), "a.toml:2: unknown key \"powr\" in [database.when]");
}

TEST(ParseSizeTest, TakesTheUnitsOfTheContract) {
  EXPECT_EQ(*ParseSize("64MiB"), 64 << 20);
  EXPECT_EQ(*ParseSize("4096"), 4096);
  EXPECT_EQ(*ParseSize("1.5GiB"), int64_t{3} << 29);
  EXPECT_EQ(*ParseSize("2kB"), 2000);
  for (const char* bad : {"", "MiB", "1mib", "-1", "1 MiB", "0x10", "99999999TiB"}) EXPECT_FALSE(ParseSize(bad).ok()) << bad;
}

TEST(TomlReaderTest, NamesLineAndNearestNameOfAnUnknownKey) {
  const auto config = ParseControllerConfig("# a comment\nlisten = \"[::]:1\"\n[log]\nlevle = \"info\"\n", "c.toml");
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(config.status()), "CONFIG_INVALID");
  EXPECT_EQ(MessageOf(config.status()), "c.toml:4: unknown key \"levle\" in [log]");
  EXPECT_EQ(HintOf(config.status()), "did you mean \"level\"?");
}

TEST(TomlReaderTest, ReportsTheFirstErrorOfTheFile) {
  const auto config = ParseControllerConfig("listen = 5\nunknown = 1\n", "c.toml");
  EXPECT_EQ(MessageOf(config.status()), "c.toml:1: listen is an integer, expected a string");
}

TEST(TomlReaderTest, ReportsSyntaxWithItsLine) {
  const auto config = ParseControllerConfig("listen = \"a:1\"\nlog = [\n", "c.toml");
  EXPECT_EQ(MessageOf(config.status()).substr(0, 7), "c.toml:");
  EXPECT_EQ(ReasonOf(config.status()), "CONFIG_INVALID");
}

TEST(ControllerConfigTest, EverythingHasADefault) {
  const auto config = ParseControllerConfig("", "c.toml");
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->listen, "[::]:8742");
  EXPECT_FALSE(config->allow_network_file_system);
}

TEST(ControllerConfigTest, ReadsAll) {
  const auto config = ParseControllerConfig(
      "listen = \"127.0.0.1:0\"\nallow_network_file_system = true\n[log]\nlevel = \"debug\"\nformat = \"json\"\n"
      "[limits]\nconnection_memory = \"64MiB\"\nstreams_per_connection = 8\nworkers = 4\nuploads = 9\n[store]\nreserve = 1000000\n",
      "c.toml");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->listen, "127.0.0.1:0");
  EXPECT_EQ(config->connection_memory, 64 << 20);
  EXPECT_EQ(config->uploads, 9);
  EXPECT_EQ(config->store_reserve, 1'000'000);
}

TEST(ControllerConfigTest, RefusesWrongValues) {
  for (const char* bad : {"listen = \"::1:5\"", "listen = \"unix:/a\"", "[log]\nlevel = \"loud\"", "[limits]\nworkers = 0",
                          "[store]\nreserve = \"much\"", "log = 1", "[[log]]\nlevel = \"info\""}) {
    const auto config = ParseControllerConfig(bad, "c.toml");
    EXPECT_EQ(ReasonOf(config.status()), "CONFIG_INVALID") << bad;
  }
}

}  // namespace
}  // namespace litefleet::config
