// Who opens a database that nobody else has open finds nobody in his way: not a reading, and not the agent as one more of those attached.
#include <gmock/gmock.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

class ComingTest : public FollowerTest {
 protected:
  ComingTest() { attach_after_ = milliseconds(2000); }
  // Until it is at rest, or for a while.
  void Rest() {
    clock_.Advance(std::chrono::seconds(3));
    for (int i = 0; i < 100 && follower_->Glance(); ++i) follower_->Step(cancel_);
    ASSERT_FALSE(follower_->Glance());
    ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  }
  void Look() {
    follower_->Notice(true);
    for (int i = 0; i < 5; ++i) {
      if (follower_->Glance()) follower_->Step(cancel_);
    }
  }
};

TEST_F(ComingTest, WhoHasJustComeIsAlone) {
  Make();
  Application app(path_, 0);
  app.Run("close");
  Start();
  ASSERT_NO_FATAL_FAILURE(Rest());
  ExpectShipped();
  for (int start = 0; start < 20; ++start) {
    SCOPED_TRACE(start);
    app.Run("open");
    app.Run("select count(*) from t");
    Look();
    clock_.Advance(milliseconds(1900));
    Look();
    ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
    app.Run(start % 2 == 0 ? "pragma journal_mode=delete; insert into t values(null, 'x'); pragma journal_mode=wal"
                           : "pragma locking_mode=exclusive; insert into t values(null, 'y')");
    app.Run("close");
    Look();
    ASSERT_NO_FATAL_FAILURE(Rest());
    ASSERT_NO_FATAL_FAILURE(ExpectShipped());
  }
  EXPECT_TRUE(home_.gaps.empty());
}

TEST_F(ComingTest, WhoStaysIsFollowedAndNothingOfHisIsMissed) {
  Make();
  Application app(path_, 0);
  app.Run("close");
  Start();
  ASSERT_NO_FATAL_FAILURE(Rest());
  app.Run("open");
  app.Run("insert into t values(null, 'x')");
  Look();
  EXPECT_LE(follower_->peek_at(), clock_.Steady() + attach_after_) << "however long the interval is";
  clock_.Advance(attach_after_);
  EXPECT_TRUE(follower_->Peek());
  follower_->Step(cancel_);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
  ExpectShipped();
  EXPECT_TRUE(home_.gaps.empty());
}

TEST_F(ComingTest, WhoOpensItAnewHasJustComeToo) {
  Make();
  Application app(path_, 0);
  app.Run("close");
  Start();
  ASSERT_NO_FATAL_FAILURE(Rest());
  app.Run("open");
  app.Run("select count(*) from t");
  Look();
  clock_.Advance(milliseconds(1900));
  app.Run("close");
  app.Run("open");
  app.Run("select count(*) from t");
  Look();
  clock_.Advance(milliseconds(200));
  if (follower_->Peek()) follower_->Step(cancel_);
  ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  app.Run("pragma locking_mode=exclusive; insert into t values(null, 'y'); pragma locking_mode=normal; select count(*) from t");
  clock_.Advance(milliseconds(1900));
  EXPECT_TRUE(follower_->Peek());
  follower_->Step(cancel_);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
  ExpectShipped();
}

// One process after the other, none of which stays: some are there all the while.
TEST_F(ComingTest, ThoseWhoComeAndGoAreFollowedTooInTheEnd) {
  Make();
  Application first(path_), second(path_);
  first.Run("close");
  second.Run("close");
  Start();
  ASSERT_NO_FATAL_FAILURE(Rest());
  first.Run("open");
  first.Run("insert into t values(null, 'x')");
  for (int i = 0; i < 11; ++i) {
    ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED) << i;
    Look();
    (i % 2 == 0 ? second : first).Run("open");
    (i % 2 == 0 ? second : first).Run("insert into t values(null, 'x')");
    (i % 2 == 0 ? first : second).Run("close");
    clock_.Advance(milliseconds(1000));
  }
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
}

// None is there at the time of some looks: it is read then, without a lock.
TEST_F(ComingTest, AfterThoseWhoComeAndGoItIsReadAtTheFirstQuietMoment) {
  never_settles_ = milliseconds(5000);
  Make();
  Application app(path_, 0);
  app.Run("close");
  Start();
  for (int i = 0; i < 9; ++i) {
    app.Run("open");
    app.Run("pragma locking_mode=exclusive; insert into t values(null, 'x')");
    Look();
    app.Run("close");
    std::this_thread::sleep_for(milliseconds(150));
    Look();
    EXPECT_EQ(controller_.commits().size(), i < 5 ? 0u : 1u) << i;
    clock_.AdvanceSteady(milliseconds(1000));
  }
  EXPECT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
}

// Whoever opens it while it is read, be it for minutes, asks for the whole of it at once, and has it.
TEST_F(ComingTest, AReadingOfWhatNobodyHasOpenIsInNobodysWay) {
  Make();
  Sql(path_,
      "with recursive n(i) as (select 1 union all select i + 1 from n where i < 20) insert into t select null, randomblob(260000) from n");
  Application app(path_, 0);
  app.Run("close");
  std::filesystem::remove(Path("state/app.ledger"));
  Start();
  clock_.Advance(std::chrono::seconds(3));
  for (int start = 1; start <= 8; ++start) {
    SCOPED_TRACE(start);
    int looks = 0;
    clock_.on_look = [&] {
      if (++looks != 10 * start) return;
      app.Run("open");
      EXPECT_EQ(app.Try("pragma locking_mode=exclusive; begin immediate; select count(*) from t; rollback"), SQLITE_OK);
      EXPECT_EQ(app.Try("pragma journal_mode=delete"), SQLITE_OK);
      EXPECT_EQ(app.Try("pragma journal_mode=wal"), SQLITE_OK);
      app.Run("close");
    };
    clock_.EachLook(milliseconds(50));
    follower_->Step(cancel_);
    clock_.EachLook(milliseconds(0));
    EXPECT_GE(looks, 10 * start);
    EXPECT_TRUE(controller_.commits().empty()) << "what was read is of several states";
    clock_.Advance(std::chrono::seconds(3));
  }
  clock_.on_look = nullptr;
  ASSERT_NO_FATAL_FAILURE(Rest());
  ExpectShipped();
}

// What a crash has left is read under a lock: it is let go of when somebody comes.
TEST_F(ComingTest, AReadingUnderALockEndsWhenSomebodyComes) {
  Make();
  Application app(path_, 0);
  app.Run(
      "pragma wal_autocheckpoint=0; with recursive n(i) as (select 1 union all select i + 1 from n where i < 20) insert into t select "
      "null, "
      "randomblob(260000) from n");
  app.Kill();
  ASSERT_TRUE(std::filesystem::exists(path_ + "-wal"));
  Start();
  clock_.Advance(std::chrono::seconds(3));
  int looks = 0;
  clock_.on_look = [&] {
    // Its own open first, then that of another.
    if (++looks == 8 || looks == 30) follower_->Notice(true);
  };
  clock_.EachLook(milliseconds(100));
  follower_->Step(cancel_);
  EXPECT_GT(looks, 30);
  EXPECT_TRUE(controller_.commits().empty());
  clock_.EachLook(milliseconds(0));
  ASSERT_NO_FATAL_FAILURE(Rest());
  ExpectShipped();
}

// The open of who comes in its first second is taken for the agent's own: the reading goes on, and until he is followed states are missing.
class LongReadingTest : public ComingTest {
 protected:
  LongReadingTest() { lease_ = std::chrono::seconds(10); }
  // One under a lock, of what a crash has left, beside whom `other_` is; `later` happens when it has gone on for longer than a lease.
  void ReadBeside(const std::function<void()>& later, const CancelToken& cancel) {
    Make();
    Application app(path_, 0);
    other_ = std::make_unique<Application>(path_, 0);
    other_->Run("close");
    app.Run(
        "pragma wal_autocheckpoint=0; with recursive n(i) as (select 1 union all select i + 1 from n where i < 60) insert into t select "
        "null, "
        "randomblob(260000) from n");
    app.Kill();
    Start();
    clock_.Advance(std::chrono::seconds(3));
    int looks = 0;
    clock_.on_look = [&] {
      ++looks;
      if (looks == 8) {
        other_->Run("open");
        other_->Run("insert into t values(null, 'x')");
        follower_->Notice(true);
      }
      if (looks == 115) later();
    };
    clock_.EachLook(milliseconds(100));
    follower_->Step(cancel);
    clock_.EachLook(milliseconds(0));
    EXPECT_GT(milliseconds(100) * looks, lease_);
    EXPECT_GE(looks, 115);
    EXPECT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  }
  void ExpectTold() {
    follower_->Step(cancel_);
    clock_.Advance(attach_after_);
    ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
    EXPECT_THAT(home_.gaps, testing::ElementsAre("COMPARE_LATER", "COMPARE_LATER ended"));
    Settle();
    ExpectShipped();
  }
  std::unique_ptr<Application> other_;
};

TEST_F(LongReadingTest, WhoComesAsItBeginsIsNotMissedUntold) {
  ReadBeside([] {}, cancel_);
  ASSERT_EQ(controller_.commits().size(), 1u);
  other_->Run("insert into t values(null, 'y')");
  ExpectTold();
}

TEST_F(LongReadingTest, NorWhereSomebodyElseEndsIt) {
  ReadBeside([this] { follower_->Notice(true); }, cancel_);
  ASSERT_TRUE(controller_.commits().empty());
  ExpectTold();
}

TEST_F(LongReadingTest, NorWhereAPauseEndsIt) {
  CancelToken pause;
  ReadBeside([&] { pause.Cancel(); }, pause);
  ASSERT_TRUE(controller_.commits().empty());
  follower_->LetGo("released");
  follower_->Resume();
  ExpectTold();
}

TEST_F(LongReadingTest, NorWhereHeHasLeftByItsEnd) {
  ReadBeside(
      [this] {
        other_->Run("insert into t values(null, 'y')");
        other_->Run("close");
      },
      cancel_);
  ASSERT_EQ(controller_.commits().size(), 1u);
  ExpectTold();
}

// Neither a release, which has a gap of its own, nor a time without the file is a wait for a comparison; who is there then has just come.
TEST_F(ComingTest, WhatWasReleasedOrAwayDidNotWait) {
  Make();
  Application app(path_, 0);
  Start();
  const auto comes = [&] {
    app.Run("select count(*) from t");
    Look();
    ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  };
  const auto is_followed = [&] {
    clock_.Advance(attach_after_);
    StepUntil(v1::CAPTURE_STATE_FOLLOWING);
    Settle();
    ExpectShipped();
  };
  ASSERT_NO_FATAL_FAILURE(comes());
  is_followed();
  follower_->LetGo("released");
  follower_->Resume();
  ASSERT_NO_FATAL_FAILURE(comes());
  follower_->LetGo("released");
  clock_.Advance(2 * lease_);
  follower_->Resume();
  ASSERT_NO_FATAL_FAILURE(comes());
  is_followed();
  EXPECT_THAT(home_.gaps, testing::ElementsAre("RELEASED ended"));
  home_.gaps.clear();
  follower_->LetGo("released");
  follower_->Resume();
  ASSERT_NO_FATAL_FAILURE(comes());
  app.Run("close");
  std::filesystem::rename(path_, Path("away.db"));
  Look();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FAILED);
  clock_.Advance(2 * lease_);
  std::filesystem::rename(Path("away.db"), path_);
  app.Run("open");
  app.Run("insert into t values(null, 'x')");
  Look();
  is_followed();
  EXPECT_THAT(home_.gaps, testing::IsEmpty());
}

TEST_F(ComingTest, ADatabaseAtRestIsNotReadAgain) {
  Make();
  Start();
  ASSERT_NO_FATAL_FAILURE(Rest());
  ExpectShipped();
  EXPECT_EQ(home_.remembered, 1);
  for (int i = 0; i < 5; ++i) {
    clock_.Advance(std::chrono::seconds(31));
    ASSERT_TRUE(follower_->Glance());
    follower_->Step(cancel_);
  }
  EXPECT_EQ(home_.remembered, 1) << "the ledger is read for it";
  // Nor after the next start.
  Stop();
  Start();
  ASSERT_NO_FATAL_FAILURE(Rest());
  EXPECT_EQ(home_.remembered, 1);
  Sql(path_, "insert into t values(null, 'x')");
  follower_->Notice(true);
  ASSERT_NO_FATAL_FAILURE(Rest());
  EXPECT_EQ(home_.remembered, 2);
}

}  // namespace
}  // namespace litefleet::follow
