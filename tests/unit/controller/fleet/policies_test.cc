// What devices are told of policies, and what they answer.
#include <gtest/gtest.h>

#include "tests/unit/controller/fleet/fleet_fixture.h"

namespace litefleet::fleet {
namespace {

class PoliciesTest : public FleetTest {
 protected:
  void Rule(const DeviceId& device, int64_t version) {
    MutexLock lock(reports_.mu_);
    policies_[device].set_version(version);
    policies_[device].set_name("shops");
  }
  std::shared_ptr<FakeLink> ConnectWith(int64_t version) {
    auto link = std::make_shared<FakeLink>();
    v1::Hello hello;
    hello.set_protocol_version(1);
    hello.set_policy_version(version);
    EXPECT_TRUE(fleet_->Connected(kDevice, link, hello).ok());
    return link;
  }
  absl::Status Health(FakeLink& link, std::optional<int64_t> version, const std::vector<std::string>& problems = {}) {
    v1::ControlRequest message;
    if (version) message.mutable_health()->set_policy_version(*version);
    message.mutable_health()->set_free_bytes(1);
    for (const std::string& problem : problems) message.mutable_health()->add_policy_problems(problem);
    return fleet_->Received(kDevice, link, message);
  }
};

TEST_F(PoliciesTest, ComesAfterTheWelcomeAndBeforeTheOrders) {
  Rule(kDevice, 7);
  const std::string order = Backup(kDevice);
  EXPECT_EQ(ConnectWith(0)->TakeWords(), (Words{"welcome", "policy 7", "order " + order}));
}

TEST_F(PoliciesTest, IsNotSentToADeviceThatHasIt) {
  Rule(kDevice, 7);
  EXPECT_EQ(ConnectWith(7)->TakeWords(), Words{"welcome"});
  Rule(kDevice, 3);  // another policy rules it now, which was applied earlier
  EXPECT_EQ(ConnectWith(7)->TakeWords(), (Words{"welcome", "policy 3"}));
  policies_.clear();
  EXPECT_EQ(ConnectWith(3)->TakeWords(), (Words{"welcome", "policy 0"})) << "none rules it any more";
}

TEST_F(PoliciesTest, AChangeIsToldToThoseThatItConcerns) {
  const auto link = Connect(kDevice);
  const auto other = Connect(kOther);
  link->Take();
  other->Take();
  Rule(kDevice, 8);
  fleet_->PoliciesChanged();
  fleet_->Tick();
  EXPECT_EQ(link->TakeWords(), Words{"policy 8"});
  EXPECT_EQ(other->TakeWords(), Words{});
  fleet_->PoliciesChanged();
  fleet_->Tick();
  EXPECT_EQ(link->TakeWords(), Words{}) << "it was told already";
}

TEST_F(PoliciesTest, ATieLeavesTheDeviceWhatItHas) {
  Rule(kDevice, 8);
  policy_error_ = Error(absl::StatusCode::kFailedPrecondition, "POLICY_TIE", "two");
  const auto link = ConnectWith(5);
  EXPECT_EQ(link->TakeWords(), Words{"welcome"});
  policy_error_ = absl::OkStatus();
  fleet_->PoliciesChanged();
  fleet_->Tick();
  EXPECT_EQ(link->TakeWords(), Words{"policy 8"});
}

TEST_F(PoliciesTest, TheAnswerIsKeptAtOnceAndWithItsProblems) {
  Rule(kDevice, 8);
  const auto link = ConnectWith(0);
  link->Take();
  ASSERT_TRUE(Health(*link, 8, {"a limit is out of range"}).ok());
  EXPECT_EQ(reports_.healths, 1) << "although the hello was just now";
  EXPECT_EQ(reports_.last_health.policy_version(), 8);
  ASSERT_EQ(reports_.last_health.policy_problems_size(), 1);
  EXPECT_EQ(link->TakeWords(), Words{});
  ASSERT_TRUE(Health(*link, 8, {"a limit is out of range"}).ok());
  EXPECT_EQ(reports_.healths, 1) << "the same again is no news";
}

TEST_F(PoliciesTest, WhatTheDeviceCouldNotKeepIsSentAgain) {
  Rule(kDevice, 8);
  const auto link = ConnectWith(5);
  EXPECT_EQ(link->TakeWords(), (Words{"welcome", "policy 8"}));
  ASSERT_TRUE(Health(*link, 5, {"the policy could not be kept"}).ok());
  EXPECT_EQ(link->TakeWords(), Words{"policy 8"});
}

TEST_F(PoliciesTest, AnAgentThatKnowsNoPoliciesIsLeftAlone) {
  Rule(kDevice, 8);
  const auto link = ConnectWith(0);
  link->Take();
  clock_.Advance(std::chrono::minutes(1));
  ASSERT_TRUE(Health(*link, std::nullopt).ok());
  EXPECT_EQ(link->TakeWords(), Words{});
}

TEST_F(PoliciesTest, WhatADeviceSaysOfItIsCut) {
  Rule(kDevice, 8);
  const auto link = ConnectWith(0);
  ASSERT_TRUE(Health(*link, 8, std::vector<std::string>(100, std::string(10'000, 'x'))).ok());
  ASSERT_EQ(reports_.last_health.policy_problems_size(), 16);
  EXPECT_LE(reports_.last_health.policy_problems(0).size(), 256u);
}

}  // namespace
}  // namespace litefleet::fleet
