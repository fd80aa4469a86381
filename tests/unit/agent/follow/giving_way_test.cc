// An application's FULL, RESTART and TRUNCATE wait for what the agent holds: it lets them go on, whatever the link and the interval are.
#include <gmock/gmock.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

class GivingWayTest : public FollowerTest {
 protected:
  GivingWayTest() {
    Make();
    lease_ = std::chrono::hours(1);  // it is not the lease that lets go
    app_ = std::make_unique<Application>(path_);
    app_->Run("endless");
    second_ = std::make_unique<Application>(path_, 20'000);
    app_->Run("pragma wal_autocheckpoint=0; insert into t values(2, 'b')");
    second_->Run("pragma wal_autocheckpoint=0; select count(*) from t");
  }
  // As Capturing has it, while it lives: a look each interval, and when peek_at() has come.
  class Steps {
   public:
    explicit Steps(GivingWayTest& test) : thread_([this, &test] { Run(test); }) {}
    ~Steps() {
      ended_.store(true);
      cancel_.Interrupt();
      thread_.join();
    }
    Steps(const Steps&) = delete;
    Steps& operator=(const Steps&) = delete;

   private:
    void Run(GivingWayTest& test) {
      SteadyTime look_at = test.clock_.Steady() + test.interval_;
      while (!ended_.load()) {
        bool wanted = false;
        if (test.clock_.Steady() >= look_at) {
          look_at = test.clock_.Steady() + test.interval_;
          wanted = test.follower_->Glance();
        } else if (test.clock_.Steady() >= test.follower_->peek_at()) {
          wanted = test.follower_->Peek();
        }
        if (wanted) test.follower_->Step(cancel_);
        std::this_thread::sleep_for(milliseconds(1));
      }
    }

    std::atomic<bool> ended_{false};
    CancelToken cancel_;
    std::thread thread_;
  };
  // Waits as long as it takes, which is not long.
  int Checkpoint(const std::string& kind) {
    const auto began = std::chrono::steady_clock::now();
    app_->Begin("checkpoint " + kind);
    const int rc = app_->End();
    EXPECT_LT(std::chrono::steady_clock::now() - began, kHeldUpAtMost) << kind;
    return rc;
  }
  int CheckpointBeside(const std::string& kind) {
    const Steps steps(*this);
    return Checkpoint(kind);
  }
  // From here on no commit of a sync is answered.
  void SwallowCommits() {
    silent_.store(true);
    controller_.swallow = [this](const v1::UploadRequest& request) {
      if (request.has_commit()) sent_.store(true);
      return request.has_commit() && silent_.load();
    };
  }
  void AwaitSent() {
    for (int i = 0; i < 10'000 && !sent_.load(); ++i) std::this_thread::sleep_for(milliseconds(1));
    ASSERT_TRUE(sent_.load());
  }

  std::unique_ptr<Application> app_, second_;
  std::atomic<bool> sent_{false}, silent_{false};
};

TEST_F(GivingWayTest, BesideAControllerThatIsSilent) {
  for (const std::string kind : {"full", "restart", "truncate"}) {
    SCOPED_TRACE(kind);
    Attach();
    SwallowCommits();
    app_->Run("insert into t values(null, randomblob(3000))");
    EXPECT_EQ(CheckpointBeside(kind), SQLITE_OK);
    EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
    EXPECT_TRUE(home_.gaps.empty()) << home_.gaps.front();
    EXPECT_EQ(doubts(), 0u);
    silent_.store(false);
    clock_.Advance(std::chrono::seconds(20));  // until the next attempt
    Settle();
    ExpectShipped();
    Stop();
  }
}

// What was asked for is not known to be done, and more was committed since, which cannot be added to it: FULL goes on, and for the others
// there is a gap.
TEST_F(GivingWayTest, BesideASyncOfWhichNothingIsKnown) {
  Attach();
  SwallowCommits();
  app_->Run("insert into t values(null, randomblob(3000))");
  {
    const Steps steps(*this);
    ASSERT_NO_FATAL_FAILURE(AwaitSent());
    second_->Run("insert into t values(null, randomblob(3000))");
    EXPECT_EQ(Checkpoint("full"), SQLITE_OK);
  }
  EXPECT_TRUE(home_.gaps.empty());
  EXPECT_EQ(CheckpointBeside("truncate"), SQLITE_OK);
  EXPECT_THAT(home_.gaps, testing::ElementsAre("CHECKPOINT_WAITED"));
  silent_.store(false);
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  Settle();
  ExpectShipped();
}

TEST_F(GivingWayTest, WhereTheNextSyncIsAnHourAway) {
  for (const std::string kind : {"full", "restart", "truncate"}) {
    SCOPED_TRACE(kind);
    interval_ = milliseconds(100);
    Start();
    Settle();
    Stop();
    interval_ = std::chrono::hours(1);
    Attach();
    app_->Run("insert into t values(null, randomblob(3000))");
    EXPECT_EQ(CheckpointBeside(kind), SQLITE_OK);
    // And where all had been shipped.
    Settle();
    EXPECT_EQ(CheckpointBeside(kind), SQLITE_OK);
    EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
    EXPECT_TRUE(home_.gaps.empty());
    EXPECT_EQ(doubts(), 0u);
    ExpectShipped();
    Stop();
  }
}

// The lease is the network's: what waits in memory for its interval has not been asked for.
TEST_F(GivingWayTest, WhatWasSavedMayWaitForItsIntervalForLongerThanALease) {
  lease_ = std::chrono::seconds(30);
  Start();
  Settle();
  Stop();
  interval_ = std::chrono::hours(1);
  checkpoint_bytes_ = 100 * uint64_t{4120};
  Attach();
  for (int i = 0; i < 400 && shipper_->saved_bytes() == 0; ++i) {
    app_->Run("update t set v = randomblob(90) where id = 2");
    clock_.Advance(milliseconds(50));
    if (follower_->Peek()) follower_->Step(cancel_);
  }
  ASSERT_GT(shipper_->saved_bytes(), 0u) << "for a checkpoint";
  std::atomic<int> late{0};
  controller_.on_request = [&](const v1::UploadRequest&) {
    if (late++ == 0) std::this_thread::sleep_for(milliseconds(700));  // the first answer is not there at the first look
    return absl::OkStatus();
  };
  clock_.Advance(interval_);
  Settle();
  EXPECT_GT(late.load(), 0);
  EXPECT_TRUE(home_.gaps.empty()) << home_.gaps.front();
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  EXPECT_EQ(doubts(), 0u);
  ExpectShipped();
}

TEST_F(GivingWayTest, ManyFramesOfAFewPagesAreSaved) {
  Attach();
  controller_.connected = false;
  std::string many;
  for (int i = 0; i < 1300; ++i) many += "update t set v = randomblob(90) where id = 2;";
  app_->Run(many);
  EXPECT_EQ(CheckpointBeside("restart"), SQLITE_OK);
  EXPECT_TRUE(home_.gaps.empty()) << home_.gaps.front();
  controller_.connected = true;
  clock_.Advance(std::chrono::seconds(20));
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 0u);
}

TEST_F(GivingWayTest, WhileTheControllerCannotBeReached) {
  Attach();
  controller_.connected = false;
  app_->Run("insert into t values(null, randomblob(3000))");
  EXPECT_EQ(CheckpointBeside("truncate"), SQLITE_OK);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  EXPECT_TRUE(home_.gaps.empty());
  controller_.connected = true;
  clock_.Advance(std::chrono::seconds(20));
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 0u);
}

// More than is kept in memory: RESTART needs the end of the hold, FULL only a newer one.
TEST_F(GivingWayTest, WhereItIsTooMuchToBeSaved) {
  Attach();
  controller_.connected = false;
  app_->Run("insert into t values(null, randomblob(6000000))");
  EXPECT_EQ(CheckpointBeside("full"), SQLITE_OK);
  EXPECT_TRUE(home_.gaps.empty());
  EXPECT_EQ(CheckpointBeside("restart"), SQLITE_OK);
  EXPECT_THAT(home_.gaps, testing::ElementsAre("CHECKPOINT_WAITED"));
  controller_.connected = true;
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  Settle();
  ExpectShipped();
}

TEST_F(GivingWayTest, WhilePagesAreCompared) {
  SwallowCommits();
  Start();
  {
    const Steps steps(*this);
    ASSERT_NO_FATAL_FAILURE(AwaitSent());
    second_->Run("insert into t values(null, randomblob(3000))");
    EXPECT_EQ(Checkpoint("full"), SQLITE_OK);
    EXPECT_EQ(Checkpoint("truncate"), SQLITE_OK);
  }
  silent_.store(false);
  clock_.Advance(std::chrono::seconds(20));
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  ExpectShipped();
}

TEST_F(GivingWayTest, WhileItWaitsForItsTurn) {
  Attach();
  app_->Run("insert into t values(null, randomblob(3000))");
  std::atomic<bool> ended{false};
  std::thread keeps([&] {
    while (!ended.load()) {
      follower_->KeepBounds(std::chrono::seconds(1));
      std::this_thread::sleep_for(milliseconds(5));
    }
  });
  EXPECT_EQ(Checkpoint("truncate"), SQLITE_OK);
  ended.store(true);
  keeps.join();
  EXPECT_TRUE(home_.gaps.empty());
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 0u);
}

}  // namespace
}  // namespace litefleet::follow
