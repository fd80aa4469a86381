#include "agent/device_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>

namespace litefleet {
namespace {

using testing::HasSubstr;

class DevicePolicyTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "policy-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    own_.databases.push_back(Database("app", "/a"));
    auto state = state::StateDirectory::Open(folder_);
    ASSERT_TRUE(state.ok()) << state.status();
    state_.emplace(*std::move(state));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static config::DatabaseConfig Database(const std::string& name, const std::string& path) {
    config::DatabaseConfig database;
    database.name = name;
    database.path = path;
    return database;
  }
  v1::DevicePolicy Policy(int64_t version, const std::string& schedule) {
    v1::DevicePolicy policy;
    policy.set_version(version);
    policy.set_name("shops");
    policy.mutable_defaults()->set_schedule(schedule);
    return policy;
  }

  std::string folder_;
  FakeClock clock_;
  config::AgentConfig own_;
  std::optional<state::StateDirectory> state_;
};

TEST_F(DevicePolicyTest, IsInForceAndSurvivesARestart) {
  {
    DevicePolicyKeeper keeper(*state_, clock_, own_);
    EXPECT_EQ(keeper.version(), 0);
    const uint64_t before = keeper.generation();
    keeper.Receive(Policy(7, "15m"));
    EXPECT_NE(keeper.generation(), before);
    EXPECT_EQ(keeper.Config()->databases[0].schedule.text(), "15m");
  }
  DevicePolicyKeeper keeper(*state_, clock_, own_);
  EXPECT_EQ(keeper.version(), 7);
  EXPECT_EQ(keeper.Config()->databases[0].schedule.text(), "15m") << "without a connection too";
  keeper.Receive(v1::DevicePolicy());
  EXPECT_EQ(keeper.version(), 0);
  EXPECT_EQ(keeper.Config()->databases[0].schedule.text(), "") << "no policy rules it any more";
}

TEST_F(DevicePolicyTest, TheConfigurationThatIsReadAgainIsRuledToo) {
  DevicePolicyKeeper keeper(*state_, clock_, own_);
  keeper.Receive(Policy(7, "15m"));
  own_.databases.push_back(Database("new", "/b"));
  keeper.SetOwn(own_);
  ASSERT_EQ(keeper.Config()->databases.size(), 2u);
  EXPECT_EQ(keeper.Config()->databases[1].schedule.text(), "15m");
}

TEST_F(DevicePolicyTest, ADamagedOneIsPutAsideAndAskedForAgain) {
  {
    DevicePolicyKeeper keeper(*state_, clock_, own_);
    keeper.Receive(Policy(7, "15m"));
  }
  std::ofstream(folder_ + "/policy.state") << "not a message";
  DevicePolicyKeeper keeper(*state_, clock_, own_);
  EXPECT_EQ(keeper.version(), 0) << "so that the controller sends it";
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/policy.state.damaged"));
  EXPECT_EQ(keeper.Config()->databases.size(), 1u);
}

TEST_F(DevicePolicyTest, WhatCannotBeKeptIsNotFollowed) {
  DevicePolicyKeeper keeper(*state_, clock_, own_);
  keeper.Receive(Policy(7, "15m"));
  v1::DevicePolicy huge = Policy(9, "30m");
  for (int i = 0; i < 10'000; ++i) huge.add_databases()->set_database(std::string(60, 'a'));
  keeper.Receive(huge);
  EXPECT_EQ(keeper.version(), 7);
  EXPECT_EQ(keeper.Config()->databases[0].schedule.text(), "15m");
  ASSERT_EQ(keeper.problems().size(), 1u);
  EXPECT_THAT(keeper.problems()[0], HasSubstr("could not be kept"));
}

TEST_F(DevicePolicyTest, ProblemsAreTold) {
  DevicePolicyKeeper keeper(*state_, clock_, own_);
  keeper.Receive(Policy(8, "whenever"));
  EXPECT_EQ(keeper.version(), 8) << "it has it, and says what of it it does not follow";
  ASSERT_EQ(keeper.problems().size(), 1u);
  EXPECT_THAT(keeper.problems()[0], HasSubstr("whenever"));
}

}  // namespace
}  // namespace litefleet
