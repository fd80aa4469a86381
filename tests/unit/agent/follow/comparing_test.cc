// For how long pages may be compared beside a hold: as long as it goes on, and as the WAL stays within its bounds.
#include <gmock/gmock.h>

#include <memory>
#include <thread>

#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

class ComparingTest : public FollowerTest {
 protected:
  void Prepare(int extents) {
    Make();
    app_ = std::make_unique<Application>(path_);
    app_->Run(
        fmt::format("pragma wal_autocheckpoint=0; with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) insert into "
                    "t select null, randomblob(260000) from n",
                    extents));
  }

  std::unique_ptr<Application> app_;
};

// For longer than what may stand still for ten seconds.
TEST_F(ComparingTest, ADatabaseThatIsReadForLongerThanALeaseIsFollowed) {
  lease_ = std::chrono::seconds(10);
  Prepare(60);
  Start();
  clock_.EachLook(milliseconds(100));
  follower_->Step(cancel_);
  EXPECT_GT(clock_.ahead(), 2 * lease_);
  clock_.EachLook(milliseconds(0));
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
  EXPECT_TRUE(home_.gaps.empty());
  Settle();
  ExpectShipped();
}

TEST_F(ComparingTest, AComparisonThatStandsStillLetsGo) {
  lease_ = std::chrono::seconds(10);
  Prepare(4);
  Start();
  controller_.on_request = [this](const v1::UploadRequest& request) -> absl::Status {
    // It is told at least once while it waits for the answer.
    if (request.has_commit()) {
      for (int i = 0; i < 2000 && state() != v1::CAPTURE_STATE_FAILED; ++i) {
        if (i % 100 == 0) clock_.Advance(std::chrono::seconds(11));
        std::this_thread::sleep_for(milliseconds(5));
      }
    }
    return absl::OkStatus();
  };
  follower_->Step(cancel_);
  EXPECT_THAT(home_.gaps, testing::ElementsAre("LEASE_EXPIRED"));
  controller_.on_request = nullptr;
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  Settle();
  ExpectShipped();
}

// It cannot be compared yet, since the link is lost just then: what lay in the WAL before the agent came is nothing that it is behind with.
TEST_F(ComparingTest, AWalThatWasLongBeforeIsNotBehind) {
  checkpoint_bytes_ = 20 * uint64_t{4120};
  most_behind_ = 4;
  Prepare(8);
  Start();
  // It is attached, and then its first comparison is cut off.
  CancelToken cut;
  controller_.on_request = [this, &cut](const v1::UploadRequest&) -> absl::Status {
    controller_.connected = false;
    cut.Interrupt();
    return absl::UnavailableError("the link is lost");
  };
  follower_->Step(cut);
  ASSERT_TRUE(cut.cancelled());
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
  follower_->Step(cancel_);
  EXPECT_TRUE(home_.gaps.empty()) << home_.gaps[0];
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
  // What comes from here on is.
  app_->Run("insert into t values(null, randomblob(2000000))");
  follower_->Step(cancel_);
  EXPECT_THAT(home_.gaps, testing::ElementsAre("BEHIND"));
  controller_.on_request = nullptr;
  controller_.connected = true;
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  Settle();
  ExpectShipped();
}

TEST_F(ComparingTest, AWalThatGrowsMeanwhileHasItsBounds) {
  checkpoint_bytes_ = 20 * uint64_t{4120};
  most_behind_ = 4;
  Prepare(4);
  Start();
  controller_.on_request = [this](const v1::UploadRequest& request) -> absl::Status {
    if (!request.has_commit()) return absl::OkStatus();
    app_->Run("insert into t values(null, randomblob(2000000))");
    for (int i = 0; i < 2000 && state() != v1::CAPTURE_STATE_FAILED; ++i) std::this_thread::sleep_for(milliseconds(5));
    return absl::OkStatus();
  };
  follower_->Step(cancel_);
  EXPECT_THAT(home_.gaps, testing::ElementsAre("BEHIND"));
  app_->Run("checkpoint truncate");
  controller_.on_request = nullptr;
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  ExpectShipped();
}

}  // namespace
}  // namespace litefleet::follow
