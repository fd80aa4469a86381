// What becomes of what was spooled: its upload beside everything else, its age, its damage, and a controller that has not its base any
// more.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "common/io/file.h"
#include "tests/fakes/pretended_file_system.h"
#include "tests/unit/agent/follow/spooling_fixture.h"

namespace litefleet::follow {
namespace {

using DrainingTest = SpoolingTest;

// A link on which one upload takes longer than the interval is: more goes than comes all the same.
TEST_F(DrainingTest, WhatComesDoesNotOutrunWhatGoes) {
  interval_ = milliseconds(1);
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  for (int i = 0; i < 5; ++i) ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  int uploads = 0;
  on_begin_ = [&](const v1::UploadBegin&) {
    if (++uploads < 100) app.Run("insert into t values(null, randomblob(2000))");
    std::this_thread::sleep_for(milliseconds(150));  // that it is looked at
    return absl::OkStatus();
  };
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  EXPECT_LT(uploads, 100) << "each upload brought another one";
  on_begin_ = nullptr;
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 0u);
}

// As looks are by whole intervals, so are the syncs that wait behind older ones: none is left out.
TEST_F(DrainingTest, EachIntervalHasItsStateBehindOlderOnes) {
  interval_ = milliseconds(1000);
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  home_.may_drain = false;  // others upload
  ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  controller_.connected = true;
  for (uint32_t i = 0; i < 5; ++i) {
    app.Run("insert into t values(null, randomblob(3000))");
    const auto now = clock_.Steady().time_since_epoch();
    clock_.AdvanceSteady((now / interval_ + 1) * interval_ - now);
    ASSERT_TRUE(follower_->Glance());
    follower_->Step(cancel_);
    ASSERT_EQ(Spooled(), i + 2);
  }
  // Between them there is none.
  app.Run("insert into t values(null, randomblob(3000))");
  follower_->Step(cancel_);
  EXPECT_EQ(Spooled(), 6u);
}

// States that are far apart, since the link takes no more, are told.
TEST_F(DrainingTest, WhereSyncsAreFarApartForASlowLinkThereIsAGap) {
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  for (int i = 0; i < 4; ++i) ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  const Moment last = {spool_->Newest("app")->taken_at()};
  on_begin_ = [&](const v1::UploadBegin&) {
    app.Run("insert into t values(null, randomblob(2000))");
    for (int i = 0; i < 20; ++i) {
      clock_.Advance(std::chrono::seconds(1));
      std::this_thread::sleep_for(milliseconds(20));
    }
    return absl::OkStatus();
  };
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  on_begin_ = nullptr;
  ASSERT_FALSE(home_.gaps.empty());
  EXPECT_EQ(home_.gaps[0], "LINK_SLOW");
  app.Run("insert into t values(null, 'on')");
  Settle();
  app.Run("insert into t values(null, 'and on')");
  Settle();
  ExpectShipped();
  EXPECT_EQ(home_.gaps.back(), "LINK_SLOW ended");
  EXPECT_GE(home_.last_gap.first.at, last.at);
  EXPECT_GT(Between(home_.last_gap.first, *home_.last_gap.second), short_gap_);
  EXPECT_EQ(doubts(), 0u);
}

// Nothing more fits into the spool beside an upload that goes on: what is written for nothing again and again keeps no hold.
TEST_F(DrainingTest, AFullSpoolBesideALongUploadLetsGo) {
  spool_bytes_ = 64 << 10;
  no_progress_ = std::chrono::minutes(2);
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(30000))"));
  ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));  // that merging is tried
  on_begin_ = [&](const v1::UploadBegin&) {
    for (int i = 0; i < 60 && state() == v1::CAPTURE_STATE_FOLLOWING; ++i) {
      clock_.Advance(std::chrono::seconds(1));
      follower_->Notice();
      app.Run("insert into t values(null, randomblob(12000))");
      std::this_thread::sleep_for(milliseconds(20));  // that it is looked at
    }
    return absl::OkStatus();
  };
  controller_.connected = true;
  for (int i = 0; i < 200 && home_.gaps.empty(); ++i) follower_->Step(cancel_);
  EXPECT_THAT(home_.gaps, testing::ElementsAre("CAPTURE_SPOOL_FULL"));
  on_begin_ = nullptr;
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  Settle();
  ExpectShipped();
}

// With an hour between two looks, and nobody there: what is spooled goes up all the same.
TEST_F(DrainingTest, WhatIsSpooledOfADatabaseAtRestDoesNotWaitForTheNextLook) {
  Make();
  {
    Application app(path_);
    app.Run("insert into t values(2, 'b')");
    Attach();
    controller_.connected = false;
    ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(3, 'c')"));
    app.Run("close");
  }
  follower_->Notice();
  for (int i = 0; i < 100 && state() != v1::CAPTURE_STATE_DETACHED; ++i) follower_->Step(cancel_);
  Stop();
  interval_ = std::chrono::hours(1);
  Start();
  controller_.connected = true;
  home_.may_drain = false;
  follower_->Step(cancel_);
  ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  ASSERT_GE(Spooled(), 1u);
  home_.may_drain = true;
  for (int i = 0; i < 20 && Spooled() > 0; ++i) {
    ASSERT_LE(follower_->peek_at(), clock_.Steady() + std::chrono::seconds(1));
    clock_.AdvanceSteady(std::chrono::seconds(1));
    if (follower_->Peek()) follower_->Step(cancel_);
  }
  EXPECT_EQ(Spooled(), 0u);
}

// Nothing that came offline is dropped with what the controller does not have: what it has acknowledged is compared with.
TEST_F(DrainingTest, WhatIsTooOldIsDroppedAndComparedWithTheControllersNewest) {
  spool_age_ = std::chrono::hours(1);
  spool_after_ = milliseconds(0);
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  wanted_.clear();
  clock_.Advance(std::chrono::hours(2));
  follower_->Notice();
  Settle();  // nothing has come since
  app.Run("insert into t values(null, 'much later')");
  for (int i = 0; i < 200 && (doubts() == 0 || Spooled() == 0 || follower_->Glance()); ++i) {
    follower_->Step(cancel_);
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_EQ(doubts(), 1u);
  EXPECT_TRUE(io::Exists(Path("state/app.ledger")));
  ASSERT_EQ(Spooled(), 1u) << "pages are compared into the spool";
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  wanted_.emplace_back(AsText(capture::CheckpointedBytes(path_)));
  ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, 'on')"));
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  ASSERT_NO_FATAL_FAILURE(ExpectArrived());
  const auto told = gaps_->NextUnrecorded();
  ASSERT_TRUE(told.has_value());
  EXPECT_EQ(told->reason(), "SPOOL_EXPIRED");
}

// A spooled file that is damaged says nothing of what the controller has: where it is gone again, pages are compared with that.
TEST_F(DrainingTest, ADamagedFileIsNoReasonToDropTheControllersLedger) {
  spool_after_ = milliseconds(0);
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  for (int i = 0; i < 2; ++i) ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  {
    std::fstream file(spool_->Oldest("app")->path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(spool_->Oldest("app")->path) / 2));
    file << "xyzxyzxyz";
  }
  home_.on_begin_compare = [&] { controller_.connected = false; };
  controller_.connected = true;
  for (int i = 0; i < 400 && (doubts() == 0 || Spooled() != 1 || follower_->Glance()); ++i) {
    follower_->Step(cancel_);
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_EQ(doubts(), 1u);
  ASSERT_EQ(Spooled(), 1u) << "pages are compared into the spool";
  wanted_ = {std::string(AsText(capture::CheckpointedBytes(path_)))};
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  ASSERT_NO_FATAL_FAILURE(ExpectArrived());
}

// Nothing is built on what the controller says it has lost, also where it cannot be asked again for now.
TEST_F(DrainingTest, NothingIsSpooledOnASnapshotThatTheControllerHasLost) {
  spool_after_ = milliseconds(0);
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  ASSERT_TRUE(io::Exists(Path("state/app.ledger")));
  controller_.connected = false;
  follower_->CompareAgain();
  for (int i = 0; i < 200 && doubts() == 0; ++i) follower_->Step(cancel_);
  ASSERT_EQ(doubts(), 1u);
  EXPECT_FALSE(io::Exists(Path("state/app.ledger")));
  app.Run("insert into t values(null, 'x')");
  for (int i = 0; i < 20; ++i) follower_->Step(cancel_);
  EXPECT_EQ(Spooled(), 0u);
  const size_t commits = controller_.commits().size();
  controller_.connected = true;
  StepWhile([&] { return controller_.commits().size() == commits; });
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  ExpectShipped();
}

// The same of a spooled one: what it was built on is gone, and the link is too.
TEST_F(DrainingTest, NothingIsSpooledOnABaseThatIsGone) {
  spool_after_ = milliseconds(0);
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  for (int i = 0; i < 2; ++i) ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  on_begin_ = [&](const v1::UploadBegin&) {
    controller_.connected = false;
    return Error(absl::StatusCode::kFailedPrecondition, "BASE_GONE", "it is gone");
  };
  controller_.connected = true;
  for (int i = 0; i < 200 && doubts() == 0; ++i) follower_->Step(cancel_);
  ASSERT_EQ(doubts(), 1u);
  EXPECT_FALSE(io::Exists(Path("state/app.ledger")));
  EXPECT_EQ(Spooled(), 0u);
  EXPECT_GT(spool_->AsideBytes(), 0) << "nobody else has what they hold";
  on_begin_ = nullptr;
  controller_.connected = true;
  Settle();
  ExpectShipped();
}

// Somebody has had a database open since before its spool was uploaded: he does not wait for the end of that.
TEST_F(DrainingTest, WhoWasThereBeforeTheUploadBeganIsAttachedBesideIt) {
  attach_after_ = milliseconds(300);
  spool_after_ = milliseconds(0);
  no_progress_ = std::chrono::minutes(2);
  Make();
  {
    Application app(path_);
    app.Run("insert into t values(2, 'b')");
    Start();
    Settle();
    StepUntil(v1::CAPTURE_STATE_FOLLOWING);
    controller_.connected = false;
    ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(3, 'c')"));
    app.Run("close");
  }
  follower_->Notice();
  for (int i = 0; i < 100 && state() != v1::CAPTURE_STATE_DETACHED; ++i) follower_->Step(cancel_);
  ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  ASSERT_GE(Spooled(), 1u);
  Application later(path_);
  later.Run("insert into t values(4, 'd')");
  follower_->Notice(true);
  follower_->Step(cancel_);  // he is seen, and is coming
  ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  // An upload that gets no answer.
  controller_.swallow = [](const v1::UploadRequest& request) { return request.has_begin(); };
  controller_.connected = true;
  const auto began = std::chrono::steady_clock::now();
  for (int i = 0; i < 100 && state() != v1::CAPTURE_STATE_FOLLOWING; ++i) {
    follower_->Step(cancel_);
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(60)) << "the upload had to end first";
  controller_.swallow = nullptr;
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  Settle();
  ExpectShipped();
}

// Where pages cannot be compared yet the upload goes on, and that nothing is followed meanwhile is a gap.
TEST_F(DrainingTest, WithoutATurnToCompareTheUploadGoesOn) {
  attach_after_ = milliseconds(100);
  spool_after_ = milliseconds(0);
  lease_ = std::chrono::seconds(1);
  Make();
  {
    Application app(path_);
    app.Run("insert into t values(2, 'b')");
    Start();
    Settle();
    StepUntil(v1::CAPTURE_STATE_FOLLOWING);
    controller_.connected = false;
    ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(3, 'c')"));
    app.Run("close");
  }
  follower_->Notice();
  for (int i = 0; i < 100 && state() != v1::CAPTURE_STATE_DETACHED; ++i) follower_->Step(cancel_);
  ASSERT_GE(Spooled(), 1u);
  Application later(path_);
  later.Run("insert into t values(4, 'd')");
  follower_->Notice(true);
  follower_->Step(cancel_);
  home_.may_compare = false;
  // Longer than a hold lasts, and than who comes is only coming.
  on_begin_ = [&](const v1::UploadBegin&) {
    for (int i = 0; i < 20; ++i) {
      clock_.AdvanceSteady(milliseconds(200));
      std::this_thread::sleep_for(milliseconds(20));
    }
    return absl::OkStatus();
  };
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  EXPECT_EQ(home_.gaps, std::vector<std::string>{"COMPARE_LATER"});
  on_begin_ = nullptr;
  home_.may_compare = true;
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  Settle();
  ExpectShipped();
}

// The controller says that it lost something while the last of what is spooled is uploaded: what that advances is not believed.
TEST_F(DrainingTest, ALedgerThatIsDroppedBesideAnUploadStaysDropped) {
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  int commits = 0;
  controller_.on_request = [&](const v1::UploadRequest& request) {
    if (!request.has_commit() || ++commits > 1) return absl::OkStatus();
    follower_->CompareAgain();
    std::this_thread::sleep_for(milliseconds(250));  // that it is looked at
    return absl::OkStatus();
  };
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  Settle();
  for (int i = 0; i < 3; ++i) {
    app.Run("insert into t values(null, 'on')");
    Settle();
    shipper_->Rest();
  }
  const std::string wanted(AsText(capture::CheckpointedBytes(path_)));
  StepWhile([&] { return controller_.Content() != wanted; });
  ExpectShipped();
  EXPECT_EQ(doubts(), 1u) << "pages are compared once";
}

// Pages cannot be compared before what is spooled has arrived, and others have the database open: a drain that moves is no reason to hold
// their WAL beyond its bounds.
class HeldBesideADrainTest : public SpoolingTest {
 public:
  ~HeldBesideADrainTest() override { g_pretended_space = nullptr; }

 protected:
  // Some states are spooled, what is known is in question, and the controller is back.
  void HoldInDoubt() {
    ASSERT_NO_FATAL_FAILURE(FollowOffline());
    for (int i = 0; i < 12; ++i) ASSERT_NO_FATAL_FAILURE(Sync(*app_, "insert into t values(null, randomblob(3000))"));
    home_.may_drain = false;
    follower_->CompareAgain();
    follower_->Step(cancel_);
    ASSERT_EQ(doubts(), 1u);
    on_begin_ = [](const v1::UploadBegin&) {
      std::this_thread::sleep_for(milliseconds(60));
      return absl::OkStatus();
    };
    controller_.connected = true;
    home_.may_drain = true;
  }
  void ExpectLetGo(const std::string& reason) {
    StepWhile([this] { return home_.gaps.empty() && Spooled() > 0; });
    EXPECT_THAT(home_.gaps, testing::ElementsAre(reason));
    EXPECT_GT(Spooled(), 0u) << "it was held until all had gone";
    EXPECT_EQ(app_->Try("checkpoint truncate"), SQLITE_OK) << "the agent is in nobody's way";
    g_pretended_space = nullptr;
    on_begin_ = nullptr;
    ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
    ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
    Settle();
    ExpectShipped();
  }
};

TEST_F(HeldBesideADrainTest, ADiskThatFillsUpEndsIt) {
  ASSERT_NO_FATAL_FAILURE(HoldInDoubt());
  g_pretended_space = [](struct statvfs& space) { space.f_bavail = 0; };
  ExpectLetGo("DISK_RESERVE");
}

TEST_F(HeldBesideADrainTest, AWalThatGrowsBeyondWhatMayBeBehindEndsIt) {
  checkpoint_bytes_ = 20 * uint64_t{4120};
  most_behind_ = 4;
  ASSERT_NO_FATAL_FAILURE(HoldInDoubt());
  app_->Run("insert into t values(null, randomblob(2000000))");
  ExpectLetGo("BEHIND");
}

}  // namespace
}  // namespace litefleet::follow
