#include "agent/config/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace litefleet::config {
namespace {

using testing::HasSubstr;

AgentConfig Own(const std::string& database_lines, const std::string& limits = "") {
  auto config = ParseConfig("controller = \"c:1\"\n[limits]\n" + limits + "[[database]]\nname = \"app\"\npath = \"/a\"\n" + database_lines +
                                "[[database]]\nname = \"other\"\npath = \"/b\"\n",
                            "agent.toml");
  EXPECT_TRUE(config.ok()) << config.status();
  return config.value_or(AgentConfig());
}

v1::DevicePolicy Policy() {
  v1::DevicePolicy policy;
  policy.set_version(3);
  policy.mutable_defaults()->set_schedule("6h");
  policy.mutable_defaults()->set_compression_level(5);
  policy.set_upload_bytes_per_second(1 << 20);
  policy.set_download_bytes_per_second(2 << 20);
  v1::DatabasePolicy& app = *policy.add_databases();
  app.set_database("app");
  app.set_schedule("15m");
  policy.add_databases()->set_database("nobody has this");
  return policy;
}

TEST(PolicyTest, FillsInWhatTheDeviceLeavesOpen) {
  const RuledConfig ruled = ApplyPolicy(Own(""), Policy());
  EXPECT_TRUE(ruled.problems.empty());
  EXPECT_EQ(ruled.config.databases[0].schedule.text(), "15m") << "of the database before that of all";
  EXPECT_EQ(ruled.config.databases[0].compression_level, 5) << "of all where that of the database says nothing";
  EXPECT_EQ(ruled.config.databases[1].schedule.interval(), std::chrono::hours(6));
  EXPECT_EQ(ruled.config.upload_bytes_per_second, 1 << 20);
  EXPECT_EQ(ruled.config.download_bytes_per_second, 2 << 20);
}

TEST(PolicyTest, TheDeviceSaysItself) {
  const RuledConfig ruled = ApplyPolicy(Own("schedule = \"never\"\ncompression_level = 1\n", "upload = 0\n"), Policy());
  EXPECT_EQ(ruled.config.databases[0].schedule.kind(), Schedule::Kind::kNever);
  EXPECT_EQ(ruled.config.databases[0].compression_level, 1);
  EXPECT_EQ(ruled.config.databases[1].schedule.text(), "6h");
  EXPECT_EQ(ruled.config.upload_bytes_per_second, 0);
  EXPECT_EQ(ApplyPolicy(Own("", "compression_level = 7\n"), Policy()).config.databases[1].compression_level, std::nullopt);
}

TEST(PolicyTest, ContinuousCaptureComesFromThePolicyWhereTheDeviceDoesNotSay) {
  v1::DevicePolicy policy;
  policy.mutable_defaults()->set_method(v1::METHOD_CONTINUOUS);
  policy.mutable_defaults()->mutable_sync_interval()->set_nanos(250'000'000);
  const RuledConfig ruled = ApplyPolicy(Own("method = \"online\"\n"), policy);
  EXPECT_TRUE(ruled.problems.empty());
  EXPECT_EQ(ruled.config.databases[0].method, "online");
  EXPECT_EQ(ruled.config.databases[1].method, "continuous");
  EXPECT_EQ(ruled.config.databases[1].sync_interval, std::chrono::milliseconds(250));
  EXPECT_FALSE(ruled.config.databases[1].allow_restart_checkpoint) << "nobody said so";
  policy.mutable_defaults()->set_allow_restart_checkpoint(true);
  v1::DatabasePolicy& other = *policy.add_databases();
  other.set_database("other");
  other.set_allow_restart_checkpoint(false);
  other.mutable_sync_interval()->set_seconds(5);
  const RuledConfig named = ApplyPolicy(Own(""), policy);
  EXPECT_TRUE(named.config.databases[0].allow_restart_checkpoint) << "of all where that of the database says nothing";
  EXPECT_FALSE(named.config.databases[1].allow_restart_checkpoint) << "of the database before that of all";
  EXPECT_EQ(named.config.databases[1].sync_interval, std::chrono::seconds(5));
  EXPECT_EQ(named.config.databases[1].method, "continuous");
  const RuledConfig own = ApplyPolicy(Own("allow_restart_checkpoint = false\nsync_interval = \"2s\"\n"), policy);
  EXPECT_FALSE(own.config.databases[0].allow_restart_checkpoint) << "the device says itself";
  EXPECT_EQ(own.config.databases[0].sync_interval, std::chrono::seconds(2));
  policy.mutable_databases()->Clear();
  policy.mutable_defaults()->mutable_sync_interval()->set_nanos(1);
  EXPECT_EQ(ApplyPolicy(Own(""), policy).problems.size(), 1u);
}

TEST(PolicyTest, NoneChangesNothing) {
  const AgentConfig own = Own("schedule = \"1h\"\n");
  const RuledConfig ruled = ApplyPolicy(own, v1::DevicePolicy());
  EXPECT_TRUE(ruled.problems.empty());
  EXPECT_EQ(ruled.config.databases, own.databases);
  EXPECT_EQ(ruled.config.upload_bytes_per_second, own.upload_bytes_per_second);
}

TEST(PolicyTest, WhatIsOutOfRangeIsRefusedAndSaid) {
  v1::DevicePolicy policy;
  policy.mutable_defaults()->set_schedule("0s\x1b[2J");
  policy.mutable_defaults()->set_compression_level(-5);
  policy.mutable_defaults()->set_method(static_cast<v1::Method>(99));
  policy.set_upload_bytes_per_second(-1);
  policy.set_download_bytes_per_second(INT64_MAX);
  const AgentConfig own = Own("");
  const RuledConfig ruled = ApplyPolicy(own, policy);
  EXPECT_EQ(ruled.config.databases, own.databases);
  EXPECT_FALSE(ruled.config.upload_bytes_per_second.has_value());
  EXPECT_FALSE(ruled.config.download_bytes_per_second.has_value());
  ASSERT_EQ(ruled.problems.size(), 5u) << "each once, although there are two databases";
  EXPECT_THAT(ruled.problems[0], HasSubstr("-1 bytes"));
  EXPECT_THAT(ruled.problems[3], HasSubstr("0s?[2J")) << "nothing for a terminal to obey";
}

TEST(PolicyTest, ProblemsAreBounded) {
  AgentConfig own = Own("");
  v1::DevicePolicy policy;
  own.databases.resize(100, own.databases[0]);
  for (size_t i = 0; i < own.databases.size(); ++i) {
    own.databases[i].name = "d" + std::to_string(i);
    policy.add_databases()->set_database(own.databases[i].name);
    policy.mutable_databases(static_cast<int>(i))->set_schedule(std::string(100'000, 'x'));
  }
  const RuledConfig ruled = ApplyPolicy(own, policy);
  EXPECT_EQ(ruled.problems.size(), kMaxProblems);
  EXPECT_LT(ruled.problems[0].size(), 256u);
}

}  // namespace
}  // namespace litefleet::config
