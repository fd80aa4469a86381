// Syncs that are one message, and controllers that take them or do not.
#include <gmock/gmock.h>

#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

using Kind = v1::UploadRequest::MessageCase;
using testing::Each;
using testing::ElementsAre;

class WholeSyncTest : public FollowerTest {
 protected:
  // What is sent from here on.
  void Listen() {
    controller_.on_request = [this](const v1::UploadRequest& request) {
      kinds_.push_back(request.message_case());
      return absl::OkStatus();
    };
  }
  void Write(Application& app) {
    const size_t before = controller_.commits().size();
    app.Run("insert into t values(null, randomblob(3000))");
    // A stream that is cut is tried again after a moment.
    for (int i = 0; i < 4000 && controller_.commits().size() == before; ++i) {
      if (follower_->Glance()) follower_->Step(cancel_);
      std::this_thread::sleep_for(milliseconds(5));
    }
    Settle();
    ExpectShipped();
  }
  std::vector<Kind> kinds_;  // the controller's thread's, read when nothing is on its way
};

TEST_F(WholeSyncTest, OneMessageASync) {
  controller_.takes_whole = true;
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  Listen();
  Write(app);
  Write(app);
  EXPECT_THAT(kinds_, ElementsAre(v1::UploadRequest::kWhole, v1::UploadRequest::kWhole));
  kinds_.clear();
  app.Run("insert into t values(null, randomblob(300000))");
  std::this_thread::sleep_for(milliseconds(120));
  Settle();
  ExpectShipped();
  EXPECT_THAT(kinds_, testing::Not(testing::Contains(v1::UploadRequest::kWhole))) << "that is no small one";
  EXPECT_EQ(doubts(), 0U);
}

TEST_F(WholeSyncTest, WhatIsAskedForAfterwardsIsSent) {
  controller_.takes_whole = true;
  controller_.drops_chunks_of_whole = true;
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  Listen();
  Write(app);
  EXPECT_THAT(kinds_, ElementsAre(v1::UploadRequest::kWhole, v1::UploadRequest::kChunks, v1::UploadRequest::kCommit));
  EXPECT_EQ(doubts(), 0U);
}

TEST_F(WholeSyncTest, AnOlderControllerInItsPlaceGetsParts) {
  controller_.says_takes_whole = true;
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  controller_.says_takes_whole = false;
  Listen();
  Write(app);
  ASSERT_FALSE(kinds_.empty());
  EXPECT_EQ(kinds_[0], v1::UploadRequest::kWhole);
  kinds_.clear();
  Write(app);
  EXPECT_THAT(kinds_, Each(testing::Ne(v1::UploadRequest::kWhole)));
  EXPECT_EQ(doubts(), 0U);
  EXPECT_TRUE(home_.gaps.empty());
}

TEST_F(WholeSyncTest, ALostAnswerIsAskedForAgain) {
  controller_.takes_whole = true;
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  const size_t commits = controller_.commits().size();
  bool lost = false;
  controller_.lose_answer = [&](const v1::UploadRequest& request) {
    if (!request.has_whole() || lost) return false;
    return lost = true;
  };
  Write(app);
  EXPECT_TRUE(lost);
  EXPECT_EQ(controller_.commits().size(), commits + 1);
  EXPECT_EQ(doubts(), 0U);
}

}  // namespace
}  // namespace litefleet::follow
