// Times of what was spooled beside a clock that is set: how late it arrived, and from when on the agent was down.
#include <gmock/gmock.h>

#include "tests/unit/agent/follow/spooling_fixture.h"

namespace litefleet::follow {
namespace {

using std::chrono::hours;
using std::chrono::minutes;

class SpooledTimesTest : public SpoolingTest {
 protected:
  // One state, while the clock is wrong by that much.
  void SyncWith(std::chrono::nanoseconds wrong) {
    Make();
    app_ = std::make_unique<Application>(path_);
    app_->Run("insert into t values(2, 'b')");
    Attach();
    controller_.connected = false;
    clock_.JumpSystem(wrong);
    ASSERT_NO_FATAL_FAILURE(Sync(*app_, "insert into t values(3, 'c')"));
    clock_.JumpSystem(-wrong);
  }
  // Who is there is looked at anew then, and not in a table that another test has read a moment ago.
  void Wait(std::chrono::nanoseconds passes) {
    clock_.Advance(passes);
    follower_->Notice();
  }
  milliseconds Lag() const {
    const google::protobuf::Duration lag = follower_->status().health.lag();
    return std::chrono::seconds(lag.seconds()) + milliseconds(lag.nanos() / 1'000'000);
  }

  std::unique_ptr<Application> app_;
};

TEST_F(SpooledTimesTest, OfAClockThatWasNotSetTheLagIsWhatHasPassed) {
  ASSERT_NO_FATAL_FAILURE(SyncWith(SystemTime(hours(1)) - clock_.Now()));
  Wait(minutes(10));
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  EXPECT_GE(Lag(), minutes(10));
  EXPECT_LT(Lag(), minutes(20));
}

TEST_F(SpooledTimesTest, AndOfOneThatWasSetBack) {
  ASSERT_NO_FATAL_FAILURE(SyncWith(hours(3)));
  Wait(minutes(10));
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  EXPECT_GE(Lag(), minutes(10));
  EXPECT_LT(Lag(), minutes(20));
}

// The boot clock of then says nothing now: what the machine has run since is what is known.
TEST_F(SpooledTimesTest, OfAFormerBootItIsWhatTheMachineHasRun) {
  ASSERT_NO_FATAL_FAILURE(SyncWith(SystemTime(hours(1)) - clock_.Now()));
  Stop();
  OpenSpool("another boot");
  home_.may_compare = false;  // which is a newer state
  Start();
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  EXPECT_GE(Lag(), milliseconds(0));
  EXPECT_LE(Lag(), clock_.SinceBoot());
}

// The clock was set back since the newest state was spooled, and the agent looked once more behind it.
TEST_F(SpooledTimesTest, TheAgentWasDownSinceItsLastLook) {
  ASSERT_NO_FATAL_FAILURE(SyncWith(minutes(90)));
  Stop();
  OpenSpool();
  const SystemTime now = clock_.Now();
  home_.rested.known_until = now - minutes(25);
  app_->Run("insert into t values(4, 'd')");
  controller_.connected = true;
  Start();
  Settle();
  EXPECT_THAT(home_.gaps, testing::ElementsAre("AGENT_DOWN ended"));
  EXPECT_LE(home_.last_gap.first.at, now - minutes(25));
  ASSERT_TRUE(home_.last_gap.second.has_value());
  EXPECT_GE(home_.last_gap.second->at, now);
}

// Nothing but the newest spooled state is known: how long ago that was says the boot clock.
TEST_F(SpooledTimesTest, TheAgentWasDownSinceTheNewestSpooledState) {
  ASSERT_NO_FATAL_FAILURE(SyncWith(minutes(90)));
  Stop();
  OpenSpool();
  home_.rested.synced_at = clock_.Now() - hours(2);
  app_->Run("insert into t values(4, 'd')");
  controller_.connected = true;
  Start();
  Settle();
  EXPECT_TRUE(home_.gaps.empty()) << "it was a moment ago";
}

}  // namespace
}  // namespace litefleet::follow
