// States that come to be further apart than a gap is long, since one of them took so long to be sent: that is told.
#include <gmock/gmock.h>

#include <thread>

#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

class ApartTest : public FollowerTest {
 protected:
  // The answer to the next request of this kind takes 20 s, in which the application commits.
  void AnswerLate(Application& app, v1::UploadRequest::MessageCase kind) {
    controller_.on_request = [this, &app, kind](const v1::UploadRequest& request) {
      if (request.message_case() != kind || std::exchange(was_late_, true)) return absl::OkStatus();
      app.Run("insert into t values(null, 'meanwhile')");
      for (int i = 0; i < 20; ++i) {
        clock_.Advance(std::chrono::seconds(1));
        std::this_thread::sleep_for(milliseconds(20));  // that it is looked at
      }
      return absl::OkStatus();
    };
  }
  void ExpectOneGap() {
    EXPECT_TRUE(was_late_);
    EXPECT_THAT(home_.gaps, testing::ElementsAre("LINK_SLOW", "LINK_SLOW ended"));
    ASSERT_TRUE(home_.last_gap.second.has_value());
    EXPECT_GT(Between(home_.last_gap.first, *home_.last_gap.second), short_gap_);
    EXPECT_LT(Between(*home_.last_gap.second, Moment::Now(clock_)), short_gap_);
    Settle();
    ExpectShipped();
    EXPECT_EQ(home_.gaps.size(), 2u);
  }

  bool was_late_ = false;
};

TEST_F(ApartTest, AfterASyncThatTookLong) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  AnswerLate(app, v1::UploadRequest::kCommit);
  app.Run("insert into t values(3, 'c')");
  Settle();
  ExpectOneGap();
}

TEST_F(ApartTest, AlsoWhereWhoCommittedMeanwhileHasGone) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  AnswerLate(app, v1::UploadRequest::kCommit);
  app.Run("insert into t values(3, 'c')");
  follower_->Step(cancel_);
  app.Run("close");
  follower_->Notice();
  for (int i = 0; i < 100 && state() != v1::CAPTURE_STATE_DETACHED; ++i) follower_->Step(cancel_);
  ExpectOneGap();
}

// Nothing was committed meanwhile: the state of then is that of now.
TEST_F(ApartTest, WhereNothingCameMeanwhileThereIsNone) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  for (int i = 0; i < 3; ++i) {
    clock_.Advance(std::chrono::seconds(20));
    follower_->Notice();
    Settle();
    app.Run("insert into t values(null, 'c')");
    Settle();
  }
  ExpectShipped();
  EXPECT_TRUE(home_.gaps.empty());
}

TEST_F(ApartTest, AfterAComparisonThatTookLong) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  AnswerLate(app, v1::UploadRequest::kCommit);
  Start();
  Settle();
  ExpectOneGap();
}

// What does not fit into the spool of chunks is sent before a state is pinned.
TEST_F(ApartTest, WhereAStateIsPinnedAfterWhatTookLong) {
  spool_bytes_ = 128 << 10;
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  app.Run("insert into t values(3, randomblob(600000))");
  Settle();
  AnswerLate(app, v1::UploadRequest::kChunks);
  follower_->CompareAgain();
  Settle();
  EXPECT_EQ(doubts(), 1u);
  ExpectOneGap();
}

TEST_F(ApartTest, WhereNothingCameBeforeAStateIsPinnedLateThereIsNone) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  for (const bool commits : {false, true}) {
    home_.on_timeline = [&] {
      clock_.Advance(std::chrono::seconds(20));
      if (commits) app.Run("insert into t values(null, 'meanwhile')");
    };
    follower_->CompareAgain();
    Settle();
    EXPECT_EQ(doubts(), commits ? 2u : 1u);
    ExpectShipped();
    EXPECT_EQ(home_.gaps.size(), commits ? 2u : 0u);
  }
  EXPECT_THAT(home_.gaps, testing::ElementsAre("LINK_SLOW", "LINK_SLOW ended"));
}

}  // namespace
}  // namespace litefleet::follow
