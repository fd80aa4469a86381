// Continuous capture while the controller cannot be reached: what is spooled is what was committed, and arrives in its order, once.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "agent/spool/drain.h"
#include "common/base/proto_time.h"
#include "common/io/file.h"
#include "tests/unit/agent/follow/spooling_fixture.h"

namespace litefleet::follow {
namespace {

TEST_F(SpoolingTest, WhatIsCommittedWithoutTheControllerArrivesInItsOrder) {
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  std::mt19937_64 random(3);
  for (int i = 0; i < 50; ++i) {
    SCOPED_TRACE(i);
    switch (random() % 6) {
      case 0:
        app.Run("pragma wal_checkpoint(truncate)");
        break;
      case 1:
        app.Run("pragma wal_checkpoint(passive)");
        break;
      default:
        break;
    }
    switch (random() % 6) {
      case 0:
        ASSERT_NO_FATAL_FAILURE(Sync(app,
                                     "begin; create table x(v); insert into x values(zeroblob(200000)); drop table x; "
                                     "insert into t values(null, 'after'); commit"));
        break;
      case 1:
        ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(50000)); delete from t where id % 3 = 0; vacuum"));
        break;
      default:
        ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
    }
    ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  }
  EXPECT_TRUE(follower_->status().health.has_last_sync_at());
  EXPECT_FALSE(follower_->status().unchanged_at.has_value()) << "what the controller has is not what the database is";
  const size_t commits = controller_.commits().size();
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  EXPECT_EQ(controller_.commits().size(), commits + 50);
  ASSERT_NO_FATAL_FAILURE(ExpectArrived());
  EXPECT_EQ(doubts(), 0u);
  EXPECT_TRUE(home_.gaps.empty());
  EXPECT_TRUE(Reasons().empty());
  EXPECT_FALSE(io::Exists(spool_->LedgerFile("app")));
  // And on, without the spool.
  app.Run("insert into t values(null, 'on')");
  Settle();
  ExpectShipped();
  EXPECT_EQ(controller_.commits().size(), commits + 51);
  EXPECT_TRUE(follower_->status().unchanged_at.has_value());
  EXPECT_EQ(doubts(), 0u);
}

TEST_F(SpoolingTest, ALargeTransactionIsSpooledAsOne) {
  Make(512);
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  controller_.connected = false;
  // More frames than a batch, and pages twice.
  ASSERT_NO_FATAL_FAILURE(Sync(app,
                               "pragma cache_size=50; begin; with recursive n(i) as (select 1 union all select i + 1 from n where "
                               "i < 30000) insert into t select null, randomblob(300) from n; update t set v = 'x' where id % 7 = 0; "
                               "delete from t where id % 5 = 0; commit"));
  ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, 'small')"));
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  ASSERT_NO_FATAL_FAILURE(ExpectArrived());
  EXPECT_EQ(doubts(), 0u);
}

TEST_F(SpoolingTest, WhatComesWhileTheSpoolIsUploadedGoesBehindIt) {
  interval_ = milliseconds(1);
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  for (int i = 0; i < 10; ++i) ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  const size_t commits = controller_.commits().size();
  int more = 0;
  on_begin_ = [&](const v1::UploadBegin&) {
    if (++more > 10) return absl::OkStatus();
    app.Run("insert into t values(null, randomblob(2000))");
    std::this_thread::sleep_for(milliseconds(120));  // that it is looked at
    return absl::OkStatus();
  };
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 0u);
  EXPECT_TRUE(home_.gaps.empty());
  const auto all = controller_.commits();
  EXPECT_GT(all.size(), commits + 10) << "what came meanwhile has states of its own";
  for (size_t i = 1; i < all.size(); ++i) EXPECT_GE(TimestampMillis(all[i].taken_at()), TimestampMillis(all[i - 1].taken_at()));
  for (size_t i = 0; i < 10; ++i) EXPECT_TRUE(arrived_[commits + i] == wanted_[i]) << i;
}

TEST_F(SpoolingTest, AnAgentThatStartsWithoutTheControllerGoesOn) {
  spool_after_ = milliseconds(0);
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  for (int i = 0; i < 5; ++i) ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  Stop();
  OpenSpool();
  ASSERT_EQ(Spooled(), 5u);
  app.Run("insert into t values(null, 'while it was down'); pragma wal_checkpoint(truncate); insert into t values(null, 'twice')");
  home_.rested.synced_at = clock_.Now() - std::chrono::hours(1);  // the last that was acknowledged
  Start();
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
  ASSERT_EQ(Spooled(), 6u) << "the pages that differ";
  wanted_.emplace_back(AsText(capture::CheckpointedBytes(path_)));
  EXPECT_TRUE(home_.gaps.empty()) << "the newest spooled state was a moment ago";
  for (int i = 0; i < 3; ++i) ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  ASSERT_NO_FATAL_FAILURE(ExpectArrived());
  app.Run("insert into t values(null, 'on')");
  Settle();
  ExpectShipped();
}

TEST_F(SpoolingTest, ADatabaseThatIsReplacedWithoutTheControllerIsComparedIntoTheSpool) {
  spool_after_ = milliseconds(0);
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  Sql(Path("other.db"), "pragma journal_mode=wal; create table t(id integer primary key, v); insert into t values(9, randomblob(9000))");
  std::filesystem::rename(Path("other.db"), path_);
  for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
  Application newer(path_);
  newer.Run("insert into t values(10, 'y')");
  follower_->Notice();
  for (int i = 0; i < 200 && doubts() == 0; ++i) follower_->Step(cancel_);
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
  EXPECT_EQ(Spooled(), 2u);
  wanted_.emplace_back(AsText(capture::CheckpointedBytes(path_)));
  ASSERT_NO_FATAL_FAILURE(Sync(newer, "insert into t values(11, 'z')"));
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  ASSERT_NO_FATAL_FAILURE(ExpectArrived());
}

// Committed, and the answer lost with the link: the same session waits in the spool, and is found.
TEST_F(SpoolingTest, ALostAnswerIsNotASecondSnapshot) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  const size_t commits = controller_.commits().size();
  controller_.lose_answer = [&](const v1::UploadRequest& request) {
    if (!request.has_commit()) return false;
    controller_.connected = false;
    return true;
  };
  ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  ASSERT_EQ(controller_.commits().size(), commits + 1);
  controller_.lose_answer = nullptr;
  for (int i = 0; i < 2; ++i) ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  EXPECT_EQ(controller_.commits().size(), commits + 3);
  EXPECT_EQ(doubts(), 0u);
  app.Run("insert into t values(null, 'on')");
  Settle();
  ExpectShipped();
}

// Connected, but nothing moves: after a while what is pending waits in the spool, and no hold waits with it.
TEST_F(SpoolingTest, AStalledLinkIsNoReasonToLetGo) {
  spool_after_ = milliseconds(200);
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  controller_.swallow = [](const v1::UploadRequest& request) { return request.has_begin(); };
  ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  controller_.swallow = nullptr;
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  ASSERT_NO_FATAL_FAILURE(ExpectArrived());
  EXPECT_TRUE(home_.gaps.empty());
}

TEST_F(SpoolingTest, MoreSyncsThanAreKeptBecomeCoarserAndKeepTheirCommits) {
  most_spooled_ = 20;
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  uint32_t most = 0;
  for (int i = 0; i < 50; ++i) {
    app.Run("insert into t values(null, randomblob(2000)); insert into t values(null, 'x')");
    const auto newest = spool_->Newest("app");
    for (int k = 0;
         k < 200 && spool_->Newest("app").value_or(spool::SpooledSnapshot()).id() == newest.value_or(spool::SpooledSnapshot()).id(); ++k) {
      if (follower_->Glance()) follower_->Step(cancel_);
      std::this_thread::sleep_for(milliseconds(2));
    }
    most = std::max(most, Spooled());
  }
  EXPECT_LE(most, 20u);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  EXPECT_TRUE(home_.gaps.empty());
  const auto gap = gaps_->NextUnrecorded();
  ASSERT_TRUE(gap.has_value() && gap->has_until());
  EXPECT_EQ(gap->reason(), "SPOOL_FULL");
  const size_t before = controller_.commits().size();
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  uint32_t commits = 0;
  const auto all = controller_.commits();
  for (size_t i = before; i < all.size(); ++i) commits += all[i].commits();
  EXPECT_EQ(commits, 100u) << "what was merged says how many transactions it holds";
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 0u);
}

TEST_F(SpoolingTest, AFullSpoolIsOneGapThatEnds) {
  spool_bytes_ = 300 << 10;
  Make();
  Application app(path_);
  app.Run("create table b(v); insert into t values(2, 'b')");
  Attach();
  controller_.connected = false;
  for (int i = 0; i < 400 && state() == v1::CAPTURE_STATE_FOLLOWING; ++i) {
    app.Run("insert into b values(randomblob(12000))");  // other pages each time
    if (follower_->Glance()) follower_->Step(cancel_);
  }
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FAILED);
  EXPECT_EQ(home_.gaps, std::vector<std::string>{"CAPTURE_SPOOL_FULL"});
  EXPECT_GE(Spooled(), 1u);
  EXPECT_LE(spool_->Total().bytes, static_cast<int64_t>(spool_bytes_));
  // The application is alone.
  app.Run("pragma wal_checkpoint(truncate)");
  EXPECT_EQ(std::filesystem::file_size(path_ + "-wal"), 0u);
  for (int i = 0; i < 50; ++i) {
    if (follower_->Glance()) follower_->Step(cancel_);
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_EQ(home_.gaps.size(), 1u);
  controller_.connected = true;
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  EXPECT_EQ(home_.gaps[1], "CAPTURE_SPOOL_FULL ended");
  EXPECT_EQ(Spooled(), 0u);
  Settle();
  ExpectShipped();
  EXPECT_EQ(home_.gaps.size(), 2u);
}

TEST_F(SpoolingTest, WhatTheControllerHasNoBaseForIsGivenUpAndComparedAnew) {
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  for (int i = 0; i < 3; ++i) ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  on_begin_ = [&](const v1::UploadBegin& begin) {
    return begin.base_snapshot_id().empty() ? absl::OkStatus() : Error(absl::StatusCode::kFailedPrecondition, "BASE_GONE", "it is gone");
  };
  const size_t commits = controller_.commits().size();
  controller_.connected = true;
  StepWhile([&] { return controller_.commits().size() == commits; });
  on_begin_ = nullptr;
  EXPECT_EQ(doubts(), 1u);
  EXPECT_EQ(Spooled(), 0u);
  Settle();
  ExpectShipped();
  EXPECT_TRUE(Reasons().empty()) << "the gap has ended";
  const auto told = gaps_->NextUnrecorded();
  ASSERT_TRUE(told.has_value());
  EXPECT_EQ(told->reason(), "SPOOL_BASE_GONE");
  EXPECT_EQ(told->snapshots(), 3u);
}

// The ledger beside the spool stands for a snapshot that nobody has any more.
TEST_F(SpoolingTest, TheLedgerOfALostSnapshotIsNotBelieved) {
  spool_after_ = milliseconds(0);
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  for (int i = 0; i < 3; ++i) ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  Stop();
  {
    std::fstream file(spool_->Newest("app")->path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-3, std::ios::end);
    file << "xyz";
  }
  OpenSpool();
  ASSERT_EQ(said_.size(), 1u);
  ASSERT_EQ(Spooled(), 2u);
  EXPECT_EQ(Reasons(), std::vector<std::string>{"SPOOLED_DAMAGED"});
  wanted_.pop_back();
  Start();
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  ASSERT_EQ(Spooled(), 3u) << "what the lost one had is compared again";
  EXPECT_TRUE(Reasons().empty());
  wanted_.emplace_back(AsText(capture::CheckpointedBytes(path_)));
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  ASSERT_NO_FATAL_FAILURE(ExpectArrived());
  Settle();
  ExpectShipped();
}

// The whole chain is lost: the ledger of the controller's snapshots is what counts again.
TEST_F(SpoolingTest, WhereAllOfItIsLostTheControllersLedgerCounts) {
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  for (int i = 0; i < 3; ++i) ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  Stop();
  const std::string newest = spool_->LedgerFile("app");
  for (const auto& snapshot : spool_->List("app")) std::filesystem::remove(snapshot.path);
  ASSERT_TRUE(io::Exists(newest));
  OpenSpool();
  EXPECT_FALSE(io::Exists(newest));
  controller_.connected = true;
  Start();
  Settle();
  ExpectShipped();
  app.Run("insert into t values(null, 'on')");
  Settle();
  ExpectShipped();
}

// A checkpoint of the application's waits for no controller.
TEST_F(SpoolingTest, WhoCheckpointsIsNotHeldUpWithoutTheController) {
  Make();
  Application app(path_, 10'000);
  Application other(path_, 10'000);
  app.Run("pragma wal_autocheckpoint=0; insert into t values(2, 'b')");
  other.Run("select count(*) from t");
  Attach();
  controller_.connected = false;
  for (const char* kind : {"full", "restart", "truncate"}) {
    app.Run("insert into t values(null, randomblob(3000))");
    app.Begin(fmt::format("checkpoint {}", kind));
    std::atomic<bool> ended{false};
    std::thread stepper([&] {
      while (!ended.load()) {
        if (follower_->Glance()) follower_->Step(cancel_);
        std::this_thread::sleep_for(milliseconds(5));
      }
    });
    EXPECT_EQ(app.End(), SQLITE_OK) << kind;
    ended.store(true);
    stepper.join();
    other.Run("insert into t values(null, 'after')");
    Settle();
  }
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  EXPECT_TRUE(home_.gaps.empty());
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  Settle();
  ExpectShipped();
}

TEST_F(SpoolingTest, TheLastCommitsOfWhoLeavesWaitInTheSpool) {
  Make();
  {
    Application app(path_);
    app.Run("insert into t values(2, 'b')");
    Attach();
    controller_.connected = false;
    app.Run("insert into t values(3, 'c'); insert into t values(4, randomblob(9000))");
    app.Run("close");
  }
  follower_->Notice();
  for (int i = 0; i < 100 && state() != v1::CAPTURE_STATE_DETACHED; ++i) follower_->Step(cancel_);
  ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  EXPECT_EQ(Spooled(), 1u);
  EXPECT_FALSE(std::filesystem::exists(path_ + "-wal"));
  wanted_.emplace_back(AsText(capture::CheckpointedBytes(path_)));
  ASSERT_NO_FATAL_FAILURE(StepUntilDrained());
  ASSERT_NO_FATAL_FAILURE(ExpectArrived());
  EXPECT_TRUE(home_.gaps.empty());
}

TEST_F(SpoolingTest, WhatWasDrainedByOthersIsGoneOnFrom) {
  ASSERT_NO_FATAL_FAILURE(FollowOffline());
  Application& app = *app_;
  for (int i = 0; i < 3; ++i) ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  // A backup that somebody ordered.
  follower_->LetGo("a backup was ordered");
  controller_.connected = true;
  {
    auto ledger = ledger::Ledger::Open(Path("state/app.ledger"), {});
    ASSERT_TRUE(ledger.ok());
    spool::DrainJob job;
    job.database = "app";
    job.ledger = ledger->get();
    job.give_up_at = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    ASSERT_TRUE(spool::Drain(*spool_, job, {}, controller_, rate_, cancel_).ok());
  }
  ASSERT_EQ(Spooled(), 0u);
  follower_->Resume();
  Settle();
  ExpectShipped();
  app.Run("insert into t values(null, 'on')");
  Settle();
  ExpectShipped();
}

}  // namespace
}  // namespace litefleet::follow
