// deploy/etc/controller.toml has every key that the parser knows, no other, and shows the defaults.
#include <gtest/gtest.h>

#include "controller/config/config.h"
#include "tests/unit/example_config.h"

namespace litefleet::config {
namespace {

using testing_config::KeysOfExample;
using testing_config::KeysOfParser;
using testing_config::ReadSource;
using testing_config::Uncommented;

TEST(ControllerExampleTest, HasTheKeysOfTheParser) {
  const auto keys = KeysOfParser(ReadSource("controller/config/config.cc"));
  EXPECT_GT(keys.size(), 12u);
  EXPECT_EQ(KeysOfExample(ReadSource("deploy/etc/controller.toml")), keys);
}

// What a reload takes up; all other settings need a restart, and have to say so.
TEST(ControllerConfigTest, ASettingThatNeedsARestartIsToldAtAReload) {
  const std::string source = ReadSource("controller/config/config.cc");
  std::set<std::string> settings = testing_config::AllOf(source, "config\\.([a-z_]+) = ");
  EXPECT_GT(settings.size(), 20u);
  EXPECT_EQ(settings.erase("log_level") + settings.erase("log_format"), 2u);
  EXPECT_EQ(testing_config::AllOf(source, "wanted\\.([a-z_]+) != running\\."), settings);
  ControllerConfig changed;
  changed.drill_every += std::chrono::hours(1);
  changed.workers = 7;
  EXPECT_EQ(NeedRestart({}, changed), (std::vector<std::string>{"limits.workers", "drill.every"}));
  EXPECT_EQ(NeedRestart(changed, changed), std::vector<std::string>());
}

TEST(ControllerExampleTest, ShowsTheDefaults) {
  const std::string text = ReadSource("deploy/etc/controller.toml");
  ASSERT_NE(Uncommented(text), text);
  const ControllerConfig defaults;
  for (const std::string& form : {text, Uncommented(text)}) {
    const auto config = ParseControllerConfig(form, "controller.toml");
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->listen, defaults.listen);
    EXPECT_EQ(config->allow_network_file_system, defaults.allow_network_file_system);
    EXPECT_EQ(config->log_level, defaults.log_level);
    EXPECT_EQ(config->log_format, defaults.log_format);
    EXPECT_EQ(config->connection_memory, defaults.connection_memory);
    EXPECT_EQ(config->streams_per_connection, defaults.streams_per_connection);
    EXPECT_EQ(config->workers, defaults.workers);
    EXPECT_EQ(config->uploads, defaults.uploads);
    EXPECT_EQ(config->upload_rate, defaults.upload_rate);
    EXPECT_EQ(config->fetch_rate, defaults.fetch_rate);
    EXPECT_EQ(config->store_reserve, defaults.store_reserve);
    EXPECT_EQ(config->scrub_rate, defaults.scrub_rate);
    EXPECT_EQ(config->scrub_every, defaults.scrub_every);
    EXPECT_EQ(config->catalog_backup_every, defaults.catalog_backup_every);
    EXPECT_EQ(config->catalog_backup_keep, defaults.catalog_backup_keep);
    EXPECT_EQ(config->quota_device_bytes, defaults.quota_device_bytes);
    EXPECT_EQ(config->quota_device_snapshots, defaults.quota_device_snapshots);
    EXPECT_EQ(config->metrics_listen, defaults.metrics_listen);
    EXPECT_EQ(config->metrics_databases, defaults.metrics_databases);
  }
}

}  // namespace
}  // namespace litefleet::config
