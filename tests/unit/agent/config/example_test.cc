// deploy/etc/agent.toml has every key that the parser knows, no other, and shows the defaults.
#include <gtest/gtest.h>

#include "agent/config/config.h"
#include "tests/unit/example_config.h"

namespace litefleet::config {
namespace {

using testing_config::KeysOfExample;
using testing_config::KeysOfParser;
using testing_config::ReadSource;
using testing_config::Uncommented;

TEST(AgentExampleTest, HasTheKeysOfTheParser) {
  const auto keys = KeysOfParser(ReadSource("agent/config/config.cc"));
  EXPECT_GT(keys.size(), 15u);
  EXPECT_EQ(KeysOfExample(ReadSource("deploy/etc/agent.toml")), keys);
}

TEST(AgentExampleTest, ShowsTheDefaults) {
  const std::string text = ReadSource("deploy/etc/agent.toml");
  const auto shipped = ParseConfig(text, "agent.toml");
  ASSERT_TRUE(shipped.ok()) << shipped.status();
  ASSERT_NE(Uncommented(text), text);
  const auto shown = ParseConfig(Uncommented(text), "agent.toml");
  ASSERT_TRUE(shown.ok()) << shown.status();
  const AgentConfig defaults;
  for (const auto* config : {&*shipped, &*shown}) {
    EXPECT_EQ(config->state, defaults.state);
    EXPECT_EQ(config->log.level, defaults.log.level);
    EXPECT_EQ(config->log.format, defaults.log.format);
    EXPECT_EQ(config->allow_network_file_system, defaults.allow_network_file_system);
    EXPECT_EQ(config->nice, defaults.nice);
    EXPECT_EQ(config->keep_previous, defaults.keep_previous);
    EXPECT_EQ(config->spool_bytes, defaults.spool_bytes);
    ASSERT_EQ(config->databases.size(), 1u);
  }
  DatabaseConfig expected;
  expected.name = "app";
  expected.path = "/var/lib/app/app.db";
  EXPECT_EQ(shipped->databases[0], expected);
  // No limits and no schedule are defaults that cannot be written.
  EXPECT_EQ(shipped->upload_bytes_per_second, defaults.upload_bytes_per_second);
  EXPECT_GT(shown->upload_bytes_per_second, 0);
  EXPECT_TRUE(shipped->upload_windows.empty());
  EXPECT_EQ(shown->upload_windows.size(), 1u);
  EXPECT_TRUE(shown->databases[0].schedule.has_value());
  expected.schedule = shown->databases[0].schedule;
  expected.schedule_text = shown->databases[0].schedule_text;
  EXPECT_GT(shown->databases[0].max_pin.count(), 0);
  expected.max_pin = shown->databases[0].max_pin;
  EXPECT_EQ(shown->databases[0], expected);
}

}  // namespace
}  // namespace litefleet::config
