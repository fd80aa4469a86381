// Spooled states are put together, of which a merge may take minutes on a slow disk: nobody waits for the end of one, and nothing that was
// committed meanwhile is missed untold.
#include <gmock/gmock.h>

#include <atomic>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "agent/capture/lock_table.h"
#include "common/io/file.h"
#include "tests/unit/agent/follow/spooling_fixture.h"

namespace litefleet::follow {
namespace {

class MergingTest : public SpoolingTest {
 protected:
  // So many are spooled that eight of them are put together next, and `what` happens in the midst of that.
  // `before_last`: how much later the last of them is taken than those before it.
  void Prepare(std::function<void()> what, std::chrono::hours before_last = {}) {
    most_spooled_ = 8;
    Make();
    for (std::unique_ptr<Application>* one : {&app_, &other_}) *one = std::make_unique<Application>(path_, 60'000);
    app_->Run("pragma wal_autocheckpoint=0; insert into t values(2, 'b')");
    other_->Run("select count(*) from t");
    Start();
    follower_->Step(cancel_);
    clock_.Advance(attach_after_);
    Settle();
    ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
    controller_.connected = false;
    for (int i = 0; i < 8; ++i) {
      if (i == 7) clock_.Advance(before_last);
      Settle();
      ASSERT_NO_FATAL_FAILURE(Sync(*app_, "insert into t values(null, randomblob(300000))"));
    }
    newest_ = spool_->Newest("app")->path;
    clock_.on_look = [this, what = std::move(what)] {
      if (!began_ && io::Exists(newest_ + ".tmp")) {
        began_ = true;
        what();
      }
    };
  }
  // Until it has begun beside a hold, and was cut off.
  void StepIntoTheMerge(const CancelToken& cancel) {
    app_->Run("insert into t values(null, 'and on')");
    clock_.EachLook(milliseconds(50));
    for (int i = 0; i < 100 && !began_; ++i) follower_->Step(cancel);
    clock_.EachLook(milliseconds(0));
    ASSERT_TRUE(began_);
    EXPECT_EQ(Spooled(), 8u) << "it went on to the end";
    EXPECT_FALSE(io::Exists(newest_ + ".tmp"));
  }
  void ExpectTheRestGoesOn() {
    for (int i = 0; i < 200 && Spooled() == 8; ++i) follower_->Step(cancel_);
    EXPECT_EQ(Spooled(), 2u);
    EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
    EXPECT_TRUE(home_.gaps.empty());
    ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
    Settle();
    ExpectShipped();
    EXPECT_EQ(doubts(), 0u);
  }

  std::unique_ptr<Application> other_;
  std::string newest_;
  bool began_ = false;
};

TEST_F(MergingTest, WhoCheckpointsDoesNotWaitForIt) {
  ASSERT_NO_FATAL_FAILURE(Prepare([&] {
    other_->Begin("checkpoint truncate");
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < deadline &&
           !capture::FindWritingCheckpointer(capture::ReadLocks(), *capture::LockedFileOf(path_ + "-shm")).has_value())
      std::this_thread::sleep_for(milliseconds(1));
  }));
  ASSERT_NO_FATAL_FAILURE(StepIntoTheMerge(cancel_));
  std::atomic<bool> ended{false};
  std::thread stepper([&] {
    while (!ended.load()) {
      if (follower_->Glance()) follower_->Step(cancel_);
      std::this_thread::sleep_for(milliseconds(5));
    }
  });
  EXPECT_EQ(other_->End(), SQLITE_OK);
  ended.store(true);
  stepper.join();
  ExpectTheRestGoesOn();
}

TEST_F(MergingTest, ACancelEndsIt) {
  CancelToken cancel;
  ASSERT_NO_FATAL_FAILURE(Prepare([&] { cancel.Interrupt(); }));
  ASSERT_NO_FATAL_FAILURE(StepIntoTheMerge(cancel));
  ExpectTheRestGoesOn();
}

// Longer than a hold may last: it comes to its end once nothing is held.
TEST_F(MergingTest, OneThatTakesLongComesToItsEnd) {
  lease_ = std::chrono::seconds(3);
  ASSERT_NO_FATAL_FAILURE(Prepare([] {}));
  app_->Run("insert into t values(null, 'and on')");
  clock_.EachLook(milliseconds(100));
  for (int i = 0; i < 300 && Spooled() >= 8; ++i) follower_->Step(cancel_);
  clock_.EachLook(milliseconds(0));
  EXPECT_TRUE(began_);
  EXPECT_LT(Spooled(), 8u);
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  Settle();
  ExpectShipped();
}

// Nothing is held, and eight states are to be put together before pages are compared, or the database is attached.
class MergingDetachedTest : public MergingTest {
 protected:
  // Nobody has it open any more, and it was written since the agent has left it.
  void LeaveAndWrite() {
    for (const auto* one : {&app_, &other_}) (*one)->Run("close");
    follower_->Notice();
    for (int i = 0; i < 100 && state() != v1::CAPTURE_STATE_DETACHED; ++i) follower_->Step(cancel_);
    clock_.Advance(std::chrono::seconds(3));
    for (int i = 0; i < 100 && follower_->Glance(); ++i) follower_->Step(cancel_);
    ASSERT_FALSE(follower_->Glance());
    ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
    Sql(path_, "insert into t values(null, 'meanwhile')");
    follower_->Notice(true);
    clock_.Advance(std::chrono::seconds(3));
  }
  // It has it open when it may be attached again, which is after `attach_after_`.
  void LetGoBesideApp() {
    other_->Run("close");
    follower_->LetGo("a backup was ordered");
    follower_->Resume();
    follower_->Step(cancel_);
    ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
    clock_.Advance(attach_after_);
  }
  void StepThroughTheMerge() {
    ASSERT_TRUE(follower_->Glance());
    clock_.EachLook(milliseconds(150));
    follower_->Step(cancel_);
    clock_.EachLook(milliseconds(0));
    ASSERT_TRUE(began_);
    EXPECT_FALSE(io::Exists(newest_ + ".tmp"));
    EXPECT_EQ(state(), v1::CAPTURE_STATE_DETACHED) << "who has just come is alone with it";
  }
  void ExpectAGapThatEnds() {
    clock_.Advance(attach_after_);
    ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
    EXPECT_THAT(home_.gaps, testing::ElementsAre("COMPARE_LATER", "COMPARE_LATER ended"));
    EXPECT_GT(Between(home_.last_gap.first, *home_.last_gap.second), lease_);
    EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
    ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
    Settle();
    ExpectShipped();
    EXPECT_EQ(home_.gaps.size(), 2u);
  }
};

TEST_F(MergingDetachedTest, WhatWhoComesMeanwhileCommitsIsNotMissedUntold) {
  attach_after_ = milliseconds(2000);
  ASSERT_NO_FATAL_FAILURE(Prepare([&] {
    app_->Run("open");
    app_->Run("insert into t values(null, 'came')");
    follower_->Notice(true);
    clock_.Advance(lease_ + std::chrono::seconds(1));
  }));
  ASSERT_NO_FATAL_FAILURE(LeaveAndWrite());
  ASSERT_NO_FATAL_FAILURE(StepThroughTheMerge());
  EXPECT_LT(Spooled(), 8u);
  app_->Run("insert into t values(null, 'stays')");
  ExpectAGapThatEnds();
}

// Nothing tells of them but the files.
TEST_F(MergingDetachedTest, NorWhatWhoComesAndGoesMeanwhileCommits) {
  ASSERT_NO_FATAL_FAILURE(Prepare([&] {
    app_->Run("open");
    app_->Run("insert into t values(null, 'came')");
    clock_.Advance(lease_ + std::chrono::seconds(1));
    app_->Run("insert into t values(null, 'went')");
    app_->Run("close");
  }));
  ASSERT_NO_FATAL_FAILURE(LeaveAndWrite());
  ASSERT_NO_FATAL_FAILURE(StepThroughTheMerge());
  clock_.Advance(std::chrono::seconds(3));
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  EXPECT_THAT(home_.gaps, testing::ElementsAre("COMPARE_LATER", "COMPARE_LATER ended"));
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  Settle();
  ExpectShipped();
}

// Another process than the one that stayed, which has it for itself at first; the merge alone is no longer than a gap is.
TEST_F(MergingDetachedTest, WhoHasJustComeIsAloneAndAllOfTheWaitCounts) {
  attach_after_ = milliseconds(4000);  // five times that have passed since somebody was seen first
  ASSERT_NO_FATAL_FAILURE(Prepare([&] {
    other_->Run("open");
    other_->Run("insert into t values(null, 'came')");
    app_->Run("close");
    clock_.Advance(std::chrono::seconds(25));
  }));
  ASSERT_NO_FATAL_FAILURE(LetGoBesideApp());
  ASSERT_NO_FATAL_FAILURE(StepThroughTheMerge());
  ExpectAGapThatEnds();
}

// What is spooled goes up, which a merge would keep it from.
TEST_F(MergingDetachedTest, ItEndsWhenTheLinkReturns) {
  ASSERT_NO_FATAL_FAILURE(Prepare([&] { controller_.connected = true; }));
  ASSERT_NO_FATAL_FAILURE(LeaveAndWrite());
  ASSERT_NO_FATAL_FAILURE(StepThroughTheMerge());
  EXPECT_GE(Spooled(), 8u) << "it went on to the end";
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  Settle();
  ExpectShipped();
  EXPECT_TRUE(home_.gaps.empty());
}

// Those that are too old, by a day: what was cut off begins anew with the next step, and comes to its end.
TEST_F(MergingDetachedTest, WhatIsTooOldIsMergedOnceNothingIsHeldToo) {
  spool_age_ = std::chrono::hours(24);
  CancelToken cancel;
  ASSERT_NO_FATAL_FAILURE(Prepare([&] { cancel.Interrupt(); }, std::chrono::hours(23)));
  ASSERT_NO_FATAL_FAILURE(LeaveAndWrite());
  clock_.Advance(std::chrono::hours(2));
  clock_.EachLook(milliseconds(500));
  follower_->Step(cancel);
  ASSERT_TRUE(began_);
  EXPECT_EQ(Spooled(), 8u);
  clock_.EachLook(milliseconds(0));
  follower_->Step(cancel_);
  EXPECT_EQ(Spooled(), 2u) << "the merged one, and what was compared";
  EXPECT_TRUE(Reasons().empty());
  const auto gap = gaps_->NextUnrecorded();
  ASSERT_TRUE(gap.has_value() && gap->has_until());
  EXPECT_EQ(gap->reason(), "SPOOL_EXPIRED");
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  Settle();
  ExpectShipped();
}

TEST_F(MergingDetachedTest, WhereAllIsTooOldPagesAreComparedWithWhatTheControllerHas) {
  spool_age_ = std::chrono::hours(24);
  ASSERT_NO_FATAL_FAILURE(Prepare([] {}));
  const size_t commits = controller_.commits().size();
  ASSERT_NO_FATAL_FAILURE(LeaveAndWrite());
  clock_.Advance(std::chrono::hours(25));
  follower_->Step(cancel_);
  ASSERT_EQ(Spooled(), 1u);
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  EXPECT_EQ(controller_.commits().size(), commits + 1);
  Settle();
  ExpectShipped();
}

// A merge that fails after a while, each time.
TEST_F(MergingDetachedTest, OneThatFailsKeepsNothingFromBeingAttached) {
  attach_after_ = milliseconds(2000);
  ASSERT_NO_FATAL_FAILURE(Prepare([&] { clock_.Advance(std::chrono::seconds(3)); }));
  {
    const spool::SpooledSnapshot damaged = spool_->List("app")[4];
    std::fstream file(damaged.path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(damaged.bytes) - (20 << 10));
    file << std::string(64, 'x');
  }
  ASSERT_NO_FATAL_FAILURE(LetGoBesideApp());
  int merges = 0;
  for (int i = 0; i < 20 && state() != v1::CAPTURE_STATE_FOLLOWING; ++i) {
    clock_.EachLook(milliseconds(50));
    follower_->Step(cancel_);
    clock_.EachLook(milliseconds(0));
    merges += std::exchange(began_, false) ? 1 : 0;
    clock_.Advance(attach_after_);
  }
  EXPECT_EQ(merges, 1);
  EXPECT_EQ(Spooled(), 8u);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
}

}  // namespace
}  // namespace litefleet::follow
