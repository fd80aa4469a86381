// Gaps of a device whose clock is put back while it runs.
#include <gmock/gmock.h>

#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

constexpr std::chrono::hours kBack{-1};

TEST_F(FollowerTest, AGapBeginsNotInTheFutureOfAClockThatWasPutBack) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  clock_.JumpSystem(kBack);
  ASSERT_FALSE(follower_->Glance()) << "nothing is new";
  follower_->KeepBounds(lease_ + std::chrono::seconds(1));
  ASSERT_THAT(home_.gaps, testing::ElementsAre("LEASE_EXPIRED"));
  EXPECT_LE(home_.last_gap.first.at, clock_.Now());
}

// Somebody commits between the agent's look at the clock and that at the WAL.
TEST_F(FollowerTest, AStateHoldsNothingThatCameAfterItsTime) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  app.Run("insert into t values(3, 'c')");
  SystemTime committed{};
  clock_.after_now = [&] {
    clock_.Advance(std::chrono::seconds(5));
    app.Run("insert into t values(4, 'd')");
    committed = clock_.Now();
  };
  follower_->Step(cancel_);
  ASSERT_NE(committed, SystemTime());
  ASSERT_NO_FATAL_FAILURE(ExpectShipped()) << "it holds both";
  EXPECT_GE(TimestampMillis(controller_.commits().back().taken_at()), ToUnixMillis(committed));
}

// By the boot clock, which nobody puts back, whoever writes it down knows how long it was.
TEST_F(FollowerTest, BothEndsOfAGapAreKnownByTheBootClock) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  follower_->KeepBounds(lease_ + std::chrono::seconds(1));
  const Moment begun = home_.last_gap.first;
  ASSERT_TRUE(begun.since_boot.has_value());
  clock_.JumpSystem(kBack);
  clock_.Advance(2 * interval_);
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
  ASSERT_THAT(home_.gaps, testing::ElementsAre("LEASE_EXPIRED", "LEASE_EXPIRED ended"));
  EXPECT_EQ(home_.last_gap.first.at, begun.at);
  EXPECT_EQ(home_.last_gap.first.since_boot, begun.since_boot);
  ASSERT_TRUE(home_.last_gap.second.has_value() && home_.last_gap.second->since_boot.has_value());
  EXPECT_LT(home_.last_gap.second->at, begun.at);
  EXPECT_GT(*home_.last_gap.second->since_boot, *begun.since_boot);
}

// In a boot before, and the clock was put back since: all that either time may mean.
TEST_F(FollowerTest, AGapOfABootBeforeIsFromTheEarlierToTheLaterOfItsTimes) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  const SystemTime from = clock_.Now() + std::chrono::hours(1);
  home_.rested.gap = {{from}, "LEASE_EXPIRED", "why"};
  Attach();
  ASSERT_THAT(home_.gaps, testing::ElementsAre("LEASE_EXPIRED ended"));
  EXPECT_LT(home_.last_gap.first.at, from);
  EXPECT_EQ(home_.last_gap.second->at, from);
}

// The clock is not set yet: it begins when it did, and its end is known by the boot clock.
TEST_F(FollowerTest, AGapOfABootBeforeEndsByAClockThatIsNotSetYet) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  const SystemTime from = clock_.Now() + std::chrono::hours(24 * 365 * 40);
  home_.rested.known_until = from;
  Attach();
  ASSERT_THAT(home_.gaps, testing::ElementsAre("AGENT_DOWN ended"));
  EXPECT_EQ(home_.last_gap.first.at, from);
  EXPECT_FALSE(home_.last_gap.first.since_boot.has_value());
  EXPECT_TRUE(home_.last_gap.second->since_boot.has_value());
}

}  // namespace
}  // namespace litefleet::follow
