#include "agent/follow/follower.h"

#include <gmock/gmock.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <thread>

#include "common/base/proto_time.h"
#include "common/io/file.h"
#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

TEST_F(FollowerTest, EachSyncIsWhatWasCommitted) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  for (int i = 0; i < 20; ++i) {
    app.Run(fmt::format("insert into t values({}, randomblob(3000)); insert into t values({}, 'x')", 10 + 2 * i, 11 + 2 * i));
    ASSERT_TRUE(follower_->Glance());
    follower_->Step(cancel_);
    ExpectShipped();
    EXPECT_EQ(controller_.commits().back().commits(), 2u);
    ASSERT_FALSE(follower_->Glance());
  }
  EXPECT_EQ(doubts(), 0u);
  EXPECT_EQ(controller_.commits().size(), 21u);
}

TEST_F(FollowerTest, AnIdleDatabaseCostsNothingOnTheWire) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  const int streams = controller_.streams();
  for (int i = 0; i < 50; ++i) {
    if (follower_->Glance()) follower_->Step(cancel_);
  }
  // Reading is no change either, and neither is a transaction that is rolled back.
  app.Run("select count(*) from t; begin immediate; insert into t values(77, 'no'); rollback");
  Settle();
  EXPECT_EQ(controller_.streams(), streams);
}

TEST_F(FollowerTest, WhatChangedNothingMakesNoSnapshot) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  const size_t before = controller_.commits().size();
  app.Run("update t set v = 'b' where id = 2");
  Settle();
  ExpectShipped();
  EXPECT_EQ(controller_.commits().size(), before);
}

// Statements of an application in random order, with every kind of checkpoint, in every geometry: never in doubt, and always exact.
TEST_F(FollowerTest, WhateverTheApplicationDoesIsFollowedWithoutDoubt) {
  const bool slow = std::getenv("LITEFLEET_SLOW") != nullptr;
  for (const uint32_t page_size : {512u, 4096u, 65536u}) {
    for (uint64_t seed = 1; seed <= (slow ? 3 : 1); ++seed) {
      SCOPED_TRACE(fmt::format("page size {}, seed {}", page_size, seed));
      std::mt19937_64 random(seed);
      std::filesystem::remove(path_);
      Make(page_size, seed == 2 ? "pragma auto_vacuum=full;" : "");
      Application app(path_);
      Application second(path_);
      app.Run("pragma wal_autocheckpoint=50; insert into t values(2, 'b')");
      second.Run("pragma wal_autocheckpoint=0; select count(*) from t");
      checkpoint_bytes_ = uint64_t{40} * page_size;
      Attach();
      int id = 10;
      const int steps = slow ? 80 : 14;
      for (int i = 0; i < steps; ++i) {
        Application& who = random() % 4 == 0 ? second : app;
        switch (random() % 12) {
          case 0:
            who.Try("pragma wal_checkpoint(truncate)");
            break;
          case 1:
            who.Try("pragma wal_checkpoint(restart)");
            break;
          case 2:
            who.Try("pragma wal_checkpoint(full)");
            break;
          case 3:
            who.Try("pragma wal_checkpoint(passive)");
            break;
          case 4:
            who.Run("delete from t where id % 3 = 0");
            break;
          case 5:
            if (i % 5 == 0) who.Run("vacuum");
            break;
          case 6:
            // Pages that are made and freed in one transaction.
            who.Run(
                "begin; create table x(v); insert into x values(zeroblob(200000)); drop table x; insert into t values(null, 'after'); "
                "commit");
            break;
          case 7:
            // More than the cache holds: frames before the commit, some written twice.
            who.Run(fmt::format(
                "pragma cache_size=5; begin; insert into t select null, randomblob({0}) from t limit 60; update t set v = randomblob({0}) "
                "where id % 2 = 0; savepoint s; delete from t; rollback to s; commit",
                page_size / 2));
            break;
          default:
            for (int k = 0; k < 3; ++k) who.Run(fmt::format("insert or replace into t values({}, randomblob(900))", ++id));
        }
        if (random() % 3 == 0) continue;
        Settle();
        ASSERT_EQ(doubts(), 0u) << "after step " << i;
        ASSERT_NO_FATAL_FAILURE(ExpectShipped()) << "after step " << i;
      }
      Settle();
      ASSERT_NO_FATAL_FAILURE(ExpectShipped());
      EXPECT_EQ(doubts(), 0u);
      Stop();
      app.Kill();
      second.Kill();
      for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
      std::filesystem::remove(Path("state/app.ledger"));
      std::filesystem::remove(Path("state/app.ledger-log"));
    }
  }
}

TEST_F(FollowerTest, WhatChangedBehindTheWalIsFoundByReadingTheDatabase) {
  prove_every_ = milliseconds(200);
  Make();
  Application app(path_);
  app.Run("insert into t select null, randomblob(3000) from (values(1),(2),(3),(4)); pragma wal_checkpoint(truncate)");
  app.Run("insert into t values(2000, 'b')");
  Attach();
  std::this_thread::sleep_for(milliseconds(250));
  Settle();
  EXPECT_EQ(doubts(), 0u) << "nothing has changed";
  ASSERT_FALSE(home_.chain_checks.empty());
  EXPECT_EQ(home_.chain_checks.back().root_digest(), controller_.commits().back().root_digest());
  // A bit of a page that the WAL does not have, by another process.
  ASSERT_EQ(capture::Shell(fmt::format("python3 -c \"f=open('{}','r+b');f.seek(3*4096+2000);f.write(b'xyzzy')\"", path_)), 0);
  StepWhile([&] { return doubts() == 0; });
  EXPECT_EQ(doubts(), 1u);
  StepWhile([&] { return controller_.Content().find("xyzzy") == std::string::npos; });
  EXPECT_NE(controller_.Content().find("xyzzy"), std::string::npos);
}

// It reads for minutes where a database is large: whoever leaves then, or checkpoints, does not wait for it.
TEST_F(FollowerTest, TheProofIsInNobodysWay) {
  prove_every_ = milliseconds(300);
  Make();
  Application app(path_, 10'000);
  app.Run("pragma wal_autocheckpoint=0; insert into t values(2, 'b')");
  Attach();
  app.Run("insert into t values(3, randomblob(60000))");
  Settle();
  home_.chain_checks.clear();
  std::this_thread::sleep_for(prove_every_);
  home_.on_begin_compare = [&] {
    const auto before = std::filesystem::file_size(path_);
    app.Begin("pragma wal_checkpoint(truncate)");
    for (int i = 0; i < 1000 && std::filesystem::file_size(path_) == before; ++i) std::this_thread::sleep_for(milliseconds(5));
    std::this_thread::sleep_for(milliseconds(200));  // it has copied everything, and waits for the hold
  };
  follower_->Step(cancel_);
  EXPECT_EQ(home_.on_begin_compare, nullptr);
  EXPECT_TRUE(home_.chain_checks.empty());
  follower_->Step(cancel_);
  EXPECT_EQ(app.End(), SQLITE_OK);
  Settle();
  std::this_thread::sleep_for(prove_every_);
  home_.chain_checks.clear();
  home_.on_begin_compare = [&] {
    app.Run("close");
    follower_->Notice();
  };
  follower_->Step(cancel_);
  EXPECT_EQ(home_.on_begin_compare, nullptr);
  EXPECT_TRUE(home_.chain_checks.empty());
  EXPECT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  EXPECT_FALSE(std::filesystem::exists(path_ + "-wal"));
  EXPECT_EQ(doubts(), 0u);
}

// The root of what was read is what was shipped, but the controller has something else: a base is sent without the ledger's word.
TEST_F(FollowerTest, WhatTheControllerHasOtherwiseIsSentAnew) {
  prove_every_ = milliseconds(50);
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  std::this_thread::sleep_for(milliseconds(60));
  Settle();
  ASSERT_FALSE(home_.chain_checks.empty());
  const size_t commits = controller_.commits().size();
  v1::ChainChecked answer;
  answer.set_database("app");
  answer.set_snapshot_id("of another time");
  follower_->ChainChecked(answer);
  answer.set_snapshot_id(home_.chain_checks.back().snapshot_id());
  answer.set_equal(true);
  follower_->ChainChecked(answer);
  EXPECT_EQ(doubts(), 0u);
  std::this_thread::sleep_for(milliseconds(60));
  Settle();
  answer.set_snapshot_id(home_.chain_checks.back().snapshot_id());
  answer.set_equal(false);
  follower_->ChainChecked(answer);
  Settle();
  EXPECT_EQ(doubts(), 1u);
  ExpectShipped();
  EXPECT_GE(controller_.commits().size(), commits);
}

TEST_F(FollowerTest, AReplacedFileIsComparedAndFollowed) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  Sql(Path("other.db"), "pragma journal_mode=wal; create table t(id integer primary key, v); insert into t values(9, 'z')");
  std::filesystem::rename(Path("other.db"), path_);
  for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
  Application newer(path_);
  newer.Run("insert into t values(10, 'y')");
  follower_->Notice();
  for (int i = 0; i < 200 && doubts() == 0; ++i) follower_->Step(cancel_);
  EXPECT_EQ(doubts(), 1u);
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
  ExpectShipped();
}

TEST_F(FollowerTest, ACutLinkIsGoneOnFromAndAnUnreachableControllerEndsTheHold) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  // Cut at each message once.
  for (const auto kind : {v1::UploadRequest::kBegin, v1::UploadRequest::kOffer, v1::UploadRequest::kChunks, v1::UploadRequest::kCommit}) {
    bool cut = false;
    controller_.on_request = [&](const v1::UploadRequest& request) -> absl::Status {
      if (cut || request.message_case() != kind) return absl::OkStatus();
      cut = true;
      return Error(absl::StatusCode::kUnavailable, "CUT", "cut");
    };
    app.Run("insert into t values(null, randomblob(5000))");
    StepWhile([&] { return follower_->Glance() || !cut || follower_->status().health.state() != v1::CAPTURE_STATE_FOLLOWING; });
    std::this_thread::sleep_for(milliseconds(120));
    Settle();
    EXPECT_TRUE(cut);
    ExpectShipped();
  }
  EXPECT_EQ(doubts(), 0u);
  EXPECT_TRUE(home_.gaps.empty());
}

// The first snapshot is committed and its answer lost; an application writes once more before the link is back.
TEST_F(FollowerTest, ALostAnswerDoesNotStandForWhatWasCommittedSince) {
  lease_ = std::chrono::seconds(1);
  Make();
  controller_.lose_answer = [&](const v1::UploadRequest& request) {
    if (!request.has_commit()) return false;
    controller_.connected = false;
    return true;
  };
  Start();
  StepWhile([&] { return state() != v1::CAPTURE_STATE_FAILED; });
  ASSERT_EQ(controller_.commits().size(), 1u);
  controller_.lose_answer = nullptr;
  Sql(path_, "insert into t values(3, 'c')");
  controller_.connected = true;
  follower_->Notice();
  for (int i = 0; i < 300 && (i < 30 || follower_->Glance()); ++i) {
    if (follower_->Glance()) follower_->Step(cancel_);
    std::this_thread::sleep_for(milliseconds(10));
  }
  ExpectShipped();
  EXPECT_EQ(controller_.commits().size(), 2u);
}

// The application only read while the controller could not be reached: nothing was missed.
TEST_F(FollowerTest, WhatWasOnlyReadMeanwhileEndsTheGap) {
  lease_ = std::chrono::seconds(1);
  Make();
  Start();
  Settle();
  ExpectShipped();
  std::this_thread::sleep_for(milliseconds(1200));  // until the files are at rest
  for (int i = 0; i < 20; ++i) {
    if (follower_->Glance()) follower_->Step(cancel_);
  }
  home_.gaps.clear();  // files settle for longer than this lease is
  controller_.connected = false;
  {
    Application app(path_);
    app.Run("select count(*) from t");
    follower_->Notice();
    ASSERT_NO_FATAL_FAILURE(StepUntilGaps(1));
    app.Run("close");
  }
  controller_.connected = true;
  follower_->Notice();
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  EXPECT_EQ(home_.gaps[1], "LEASE_EXPIRED ended");
  EXPECT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  EXPECT_EQ(controller_.commits().size(), 1u);
}

// An agent that starts anew ends the gap that the one before it began, and tells of a time without it that nobody had told.
TEST_F(FollowerTest, AGapOutlivesTheAgent) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  home_.rested.synced_at = clock_.Now() - std::chrono::hours(5);
  home_.rested.gap = {{clock_.Now() - std::chrono::hours(4)}, "BEHIND", "frames come faster than they are shipped"};
  Attach();
  EXPECT_EQ(home_.gaps, std::vector<std::string>{"BEHIND ended"});
  Stop();
  home_.gaps.clear();
  home_.rested.gap.reset();
  lease_ = std::chrono::seconds(1);
  controller_.connected = false;
  Start();
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(1));
  ASSERT_EQ(home_.gaps, std::vector<std::string>{"LEASE_EXPIRED"}) << "the agent could not tell that it had been down";
  EXPECT_TRUE(follower_->status().health.has_last_sync_at()) << "it would be forgotten with the next start";
}

TEST_F(FollowerTest, TheLeaseEndsAHoldAndTheGapIsRecorded) {
  lease_ = std::chrono::seconds(1);
  Make();
  Application app(path_, 2000);
  app.Run("insert into t values(2, 'b')");
  Attach();
  controller_.connected = false;
  app.Run("insert into t values(3, 'c')");
  StepWhile([&] { return state() == v1::CAPTURE_STATE_FOLLOWING; });
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FAILED);
  ASSERT_EQ(home_.gaps.size(), 1u);
  EXPECT_EQ(home_.gaps[0], "LEASE_EXPIRED");
  // Nothing of the agent is in the way of anybody.
  app.Run("insert into t values(4, 'd'); pragma wal_checkpoint(truncate)");
  EXPECT_EQ(std::filesystem::file_size(path_ + "-wal"), 0u);
  controller_.connected = true;
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  EXPECT_EQ(home_.gaps[1], "LEASE_EXPIRED ended");
  ExpectShipped();
}

TEST_F(FollowerTest, NothingIsAttachedBeforeTheControllerIsThere) {
  lease_ = std::chrono::seconds(1);
  controller_.connected = false;
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Start();
  for (int i = 0; i < 1000 && home_.gaps.empty(); ++i) {
    if (follower_->Glance()) follower_->Step(cancel_);
    // No reader keeps the WAL.
    app.Run("insert into t values(null, 'x'); pragma wal_checkpoint(restart)");
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FAILED);
  EXPECT_EQ(home_.gaps.size(), 1u);
  controller_.connected = true;
  StepWhile([&] { return state() != v1::CAPTURE_STATE_FOLLOWING; });
  Settle();
  ExpectShipped();
  EXPECT_EQ(home_.gaps.size(), 2u);
}

TEST_F(FollowerTest, WhatTheAgentMissedWhileItWasDownIsAGapAndNoLoss) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  Stop();
  app.Run("insert into t values(3, 'c'); pragma wal_checkpoint(truncate); insert into t values(4, 'd')");
  home_.rested.synced_at = clock_.Now() - std::chrono::minutes(1);
  Start();
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  ExpectShipped();
  ASSERT_EQ(home_.gaps.size(), 1u);
  EXPECT_EQ(home_.gaps[0], "AGENT_DOWN ended");
}

TEST_F(FollowerTest, AnEndlessRestartOfTheApplicationIsNotHeldUp) {
  Make();
  Application app(path_);
  Application other(path_, 10'000);
  app.Run("endless");
  app.Run("pragma wal_autocheckpoint=0; insert into t values(2, 'b')");
  other.Run("select count(*) from t");
  Attach();
  for (const char* kind : {"full", "restart", "truncate"}) {
    app.Run("insert into t values(null, randomblob(3000))");
    const auto began = std::chrono::steady_clock::now();
    app.Begin(fmt::format("checkpoint {}", kind));
    std::atomic<bool> ended{false};
    std::thread stepper([&] {
      while (!ended.load()) {
        if (follower_->Glance()) follower_->Step(cancel_);
        std::this_thread::sleep_for(milliseconds(5));
      }
    });
    EXPECT_EQ(app.End(), SQLITE_OK) << kind;
    EXPECT_LT(std::chrono::steady_clock::now() - began, kHeldUpAtMost) << kind;
    ended.store(true);
    stepper.join();
    other.Run("insert into t values(null, 'after')");
    Settle();
    ExpectShipped();
  }
}

TEST_F(FollowerTest, ADatabaseInRollbackModeIsNotFollowed) {
  Sql(path_, "create table t(id integer primary key, v); insert into t values(1, 'a')");
  Application app(path_);
  app.Run("begin; select * from t");
  Start();
  StepUntil(v1::CAPTURE_STATE_FAILED);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FAILED);
  EXPECT_NE(follower_->status().health.message().find("WAL"), std::string::npos) << follower_->status().health.message();
  app.Run("commit; insert into t values(2, 'b')");
}

TEST_F(FollowerTest, AWriterThatDiesLeavesNothingBehindThatIsNotFollowed) {
  Make();
  // All before the database is opened here: SQLite of a child that is forked later would believe that it has this process's locks.
  Application other(path_);
  std::vector<std::unique_ptr<Application>> writers;
  writers.reserve(5);
  for (int i = 0; i < 5; ++i) writers.push_back(std::make_unique<Application>(path_));
  other.Run("select count(*) from t");
  Attach();
  for (int round = 0; round < 5; ++round) {
    Application& writer = *writers[static_cast<size_t>(round)];
    writer.Run("pragma cache_size=5; insert into t values(null, 'b')");
    writer.Begin(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000) insert into t select null, randomblob(100) from "
        "n");
    std::this_thread::sleep_for(milliseconds(10 * round));
    writer.Kill();
    other.Run("insert into t values(null, 'after')");
    follower_->Notice();
    Settle();
    ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
    ASSERT_NO_FATAL_FAILURE(ExpectShipped());
  }
}

}  // namespace
}  // namespace litefleet::follow
