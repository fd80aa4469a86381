// A controller that can be reached and takes nothing: its disk is full, or the device's quota.
#include <gmock/gmock.h>

#include "common/base/status.h"
#include "tests/unit/agent/follow/spooling_fixture.h"

namespace litefleet::follow {
namespace {

class RefusedTest : public SpoolingTest {
 protected:
  // Everything is heard, up to what would be the end of an upload; and after a moment, in which what was sent is seen to have moved.
  void Refuse(const absl::Status& why) {
    controller_.on_request = [this, why](const v1::UploadRequest& request) -> absl::Status {
      if (!request.has_commit()) return absl::OkStatus();
      ++refused_;
      std::this_thread::sleep_for(milliseconds(150));
      return why;
    };
  }
  void Follow() {
    Make();
    app_ = std::make_unique<Application>(path_);
    app_->Run("insert into t values(2, 'b')");
    Attach();
  }
  void FollowRefused(const absl::Status& why = Error(absl::StatusCode::kResourceExhausted, "DISK_FULL", "the store is full")) {
    ASSERT_NO_FATAL_FAILURE(Follow());
    Refuse(why);
    app_->Run("insert into t values(null, randomblob(300000))");
  }
  void ExpectHoldEnds() {
    StepTill([this] { return !home_.gaps.empty(); });
    ASSERT_EQ(home_.gaps.size(), 1u);
    EXPECT_EQ(home_.gaps[0], "LEASE_EXPIRED");
    EXPECT_EQ(app_->Try("pragma wal_checkpoint(truncate)"), SQLITE_OK) << "the agent is in nobody's way";
  }
  // For so long at least, by the follower's own clock.
  std::chrono::milliseconds StepTill(const std::function<bool()>& done) {
    milliseconds waited{0};
    for (; waited < std::chrono::minutes(3) && !done(); waited += milliseconds(200)) {
      if (follower_->Glance()) follower_->Step(cancel_);
      clock_.AdvanceSteady(milliseconds(200));
    }
    return waited;
  }
  std::atomic<int> refused_{0};
};

TEST_F(RefusedTest, SyncsGoIntoTheSpool) {
  ASSERT_NO_FATAL_FAILURE(FollowRefused());
  const milliseconds waited = StepTill([this] { return Spooled() > 0; });
  EXPECT_EQ(Spooled(), 1u);
  EXPECT_LT(waited, short_gap_) << "by then a time without states is a gap";
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  EXPECT_GT(refused_, 1) << "it was tried for a while";
  EXPECT_TRUE(home_.gaps.empty());
  app_->Run("insert into t values(null, 'more')");
  StepTill([this] { return Spooled() > 1; });
  EXPECT_EQ(Spooled(), 2u);
  // There is room again.
  controller_.on_request = nullptr;
  StepTill([this] { return Spooled() == 0; });
  ASSERT_EQ(Spooled(), 0u);
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 0u);
}

TEST_F(RefusedTest, WithoutASpoolTheHoldEndsAndItIsAGap) {
  snapshots_ = nullptr;
  ASSERT_NO_FATAL_FAILURE(FollowRefused());
  ExpectHoldEnds();
}

// The lease ends while it is asked once more: what it said before is why.
TEST_F(RefusedTest, TheGapSaysWhyItTookNothing) {
  snapshots_ = nullptr;
  lease_ = std::chrono::seconds(5);
  no_progress_ = std::chrono::minutes(1);
  ASSERT_NO_FATAL_FAILURE(FollowRefused(Error(absl::StatusCode::kResourceExhausted, "QUOTA_EXCEEDED", "the device has used its quota")));
  controller_.swallow = [](const v1::UploadRequest& request) { return request.has_commit(); };
  controller_.on_request = [this, refuse = controller_.on_request](const v1::UploadRequest& request) -> absl::Status {
    if (refused_ == 0) return refuse(request);
    if (request.has_commit()) clock_.EachLook(milliseconds(20));  // time passes, without an answer
    return absl::OkStatus();
  };
  StepTill([this] { return !home_.gaps.empty(); });
  clock_.EachLook(milliseconds(0));
  EXPECT_EQ(refused_, 1);
  EXPECT_THAT(home_.gaps, testing::ElementsAre("LEASE_EXPIRED"));
  EXPECT_EQ(home_.gap_message, "the device has used its quota");
}

// One that has never said anything.
TEST_F(RefusedTest, TheGapSaysThatThereWasNoAnswer) {
  snapshots_ = nullptr;
  lease_ = std::chrono::seconds(5);
  no_progress_ = std::chrono::minutes(1);
  ASSERT_NO_FATAL_FAILURE(Follow());
  controller_.swallow = [](const v1::UploadRequest& request) { return request.has_commit(); };
  controller_.on_request = [this](const v1::UploadRequest& request) {
    if (request.has_commit()) clock_.EachLook(milliseconds(20));
    return absl::OkStatus();
  };
  app_->Run("insert into t values(null, randomblob(300000))");
  StepTill([this] { return !home_.gaps.empty(); });
  clock_.EachLook(milliseconds(0));
  EXPECT_THAT(home_.gaps, testing::ElementsAre("LEASE_EXPIRED"));
  EXPECT_EQ(home_.gap_message, "the controller did not answer");
}

// Its disk fails: that sounds as a proxy that cuts streams does, but nothing becomes durable any more.
TEST_F(RefusedTest, SoItDoesWhereTheControllerFailsAgainAndAgain) {
  snapshots_ = nullptr;
  ASSERT_NO_FATAL_FAILURE(FollowRefused(Error(absl::StatusCode::kInternal, "IO_ERROR", "the disk fails")));
  ExpectHoldEnds();
}

// A proxy resets each stream after a moment, and says that it was an error within: what has arrived by then is not sent again.
TEST_F(RefusedTest, WhatArrivesThroughStreamsThatAreResetIsProgress) {
  snapshots_ = nullptr;
  ASSERT_NO_FATAL_FAILURE(Follow());
  int messages = 0, resets = 0;
  controller_.on_request = [&](const v1::UploadRequest& request) -> absl::Status {
    if (request.has_begin()) messages = 0;
    if (!request.has_chunks() || ++messages < 2 || resets == 14) return absl::OkStatus();
    ++resets;
    std::this_thread::sleep_for(milliseconds(150));
    return absl::InternalError("RST_STREAM with error code 2");
  };
  app_->Run("insert into t values(null, randomblob(5000000))");
  const size_t commits = controller_.commits().size();
  const milliseconds took = StepTill([&] { return controller_.commits().size() > commits; });
  EXPECT_GT(took, lease_) << resets;
  EXPECT_TRUE(home_.gaps.empty()) << home_.gaps[0];
  controller_.on_request = nullptr;
  Settle();
  ExpectShipped();
}

}  // namespace
}  // namespace litefleet::follow
