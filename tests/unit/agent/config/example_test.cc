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
    EXPECT_EQ(config->order_keys, defaults.order_keys);
    EXPECT_EQ(config->hooks_directory, defaults.hooks_directory);
    EXPECT_EQ(config->spool_bytes, defaults.spool_bytes);
    ASSERT_EQ(config->databases.size(), config == &*shipped ? 1u : 2u);
  }
  EXPECT_EQ(shipped->spool_age, defaults.spool_age);
  EXPECT_GT(shown->spool_age, defaults.spool_age);
  DatabaseConfig expected;
  expected.name = "app";
  expected.path = "/var/lib/app/app.db";
  EXPECT_EQ(shipped->databases[0], expected);
  // No limits and no schedule are defaults that cannot be written.
  EXPECT_EQ(shipped->upload_bytes_per_second, defaults.upload_bytes_per_second);
  EXPECT_GT(shown->upload_bytes_per_second.value_or(0), 0);
  EXPECT_FALSE(shipped->download_bytes_per_second.has_value());
  EXPECT_GT(shown->download_bytes_per_second.value_or(0), 0);
  EXPECT_TRUE(shipped->upload_windows.empty());
  EXPECT_EQ(shown->upload_windows.size(), 1u);
  EXPECT_EQ(shown->download_windows.size(), 1u);
  EXPECT_FALSE(shipped->compression_level.has_value());
  EXPECT_TRUE(shown->compression_level.has_value());
  EXPECT_EQ(shipped->pause_hook, "");
  EXPECT_NE(shown->pause_hook, "");
  EXPECT_EQ(shown->databases[0].schedule.text(), "1h");
  expected.schedule = shown->databases[0].schedule;
  EXPECT_TRUE(shown->databases[0].window.has_value());
  expected.window = shown->databases[0].window;
  EXPECT_FALSE(shown->databases[0].hooks.before_restore.empty());
  expected.hooks = shown->databases[0].hooks;
  expected.schedule_set = expected.method_set = expected.sync_set = expected.restart_set = true;
  expected.compression_level = shown->databases[0].compression_level;
  EXPECT_GT(shown->databases[0].max_pin.count(), 0);
  expected.max_pin = shown->databases[0].max_pin;
  EXPECT_FALSE(expected.when.any());
  expected.when = shown->databases[0].when;
  EXPECT_TRUE(expected.when.any() && expected.when.at_latest.has_value());
  expected.dump.tables = {"orders"};
  expected.dump.without = {"cache"};
  EXPECT_EQ(shown->databases[0], expected);
  files::Rules rules;
  rules.include = {"*.conf", "attachments/**"};
  rules.exclude = {"**/*.tmp"};
  EXPECT_EQ(shown->databases[1].files, rules);
}

}  // namespace
}  // namespace litefleet::config
