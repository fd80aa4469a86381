// How a follower leaves, lets go and comes back: files that are replaced or removed under it, silent controllers, gaps.
#include <gmock/gmock.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <thread>

#include "common/io/file.h"
#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

TEST_F(FollowerTest, LeavesAsTheLastCloser) {
  Make();
  // The same statements, and nobody beside them.
  const std::string twin = Path("twin.db");
  ASSERT_EQ(capture::Shell(fmt::format("cp -p '{}' '{}'", path_, twin)), 0);
  {
    Application app(path_);
    Application alone(twin);
    const auto run = [&](const std::string& what) {
      app.Run(what);
      alone.Run(what);
    };
    run("insert into t values(2, 'b')");
    Attach();
    run("insert into t values(3, 'c')");
    run("close");
    follower_->Notice();
    Settle();
    EXPECT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
    EXPECT_FALSE(std::filesystem::exists(path_ + "-wal"));
    EXPECT_FALSE(std::filesystem::exists(path_ + "-shm"));
    EXPECT_TRUE(capture::FileBytes(path_) == capture::FileBytes(twin)) << "byte for byte";
    EXPECT_EQ(capture::Shell(fmt::format("test \"$(stat -c '%a %u %g' '{}')\" = \"$(stat -c '%a %u %g' '{}')\"", path_, twin)), 0);
    ExpectShipped();
    // It comes back: attached again, without any loss.
    app.Run("open");
    app.Run("insert into t values(4, 'd')");
    follower_->Notice();
    for (int i = 0; i < 100 && state() != v1::CAPTURE_STATE_FOLLOWING; ++i) follower_->Step(cancel_);
    Settle();
    ExpectShipped();
  }
}

TEST_F(FollowerTest, StopCopyAFileOverItStart) {
  Make();
  Sql(Path("good.db"), "create table good(v); insert into good values('good')");
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  app.Run("insert into t values(3, 'c')");
  app.Run("close");
  follower_->Notice();
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  ASSERT_EQ(capture::Shell(fmt::format("cp '{}' '{}'", Path("good.db"), path_)), 0);
  app.Run("open");
  app.Run("insert into good values('better')");
  EXPECT_EQ(Query(path_, "select count(*) from good"), "2");
}

class ReplacedTest : public FollowerTest {
 protected:
  // The application is followed and ends, and its WAL and wal-index go before the agent looks; another database stands at the path.
  void StopAndReplace(Application& app) {
    Sql(Path("good.db"), "pragma journal_mode=wal; create table t(id integer primary key, v); insert into t values(7, 'good')");
    app.Run("insert into t values(2, 'b')");
    Attach();
    app.Run("insert into t values(3, randomblob(60000))");
    app.Run("close");
    ASSERT_EQ(capture::Shell(fmt::format("rm -f '{0}-wal' '{0}-shm' && cp '{1}' '{0}'", path_, Path("good.db"))), 0);
  }
};

// Somebody who is thorough, and quicker than the agent looks: it must not go on with files that are at no path any more.
TEST_F(ReplacedTest, TheWalIsRemovedUnderIt) {
  Make();
  Application app(path_);
  ASSERT_NO_FATAL_FAILURE(StopAndReplace(app));
  app.Run("open");
  app.Run("insert into t values(8, 'better')");
  for (int i = 0; i < 200 && doubts() == 0; ++i) {
    if (follower_->Glance()) follower_->Step(cancel_);
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_EQ(doubts(), 1u);
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
  ExpectShipped();
  app.Run("insert into t values(9, 'best')");
  app.Run("close");
  follower_->Notice();
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  EXPECT_FALSE(std::filesystem::exists(path_ + "-wal"));
  EXPECT_EQ(Query(path_, "pragma integrity_check"), "ok");
  EXPECT_EQ(Query(path_, "select group_concat(v) from t"), "good,better,best");
  ExpectShipped();
}

// The same, and it leaves before it has looked again.
TEST_F(ReplacedTest, TheWalIsRemovedUnderItAndItLeaves) {
  Make();
  Application app(path_);
  ASSERT_NO_FATAL_FAILURE(StopAndReplace(app));
  follower_->Notice();
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  EXPECT_EQ(Query(path_, "pragma integrity_check"), "ok");
  EXPECT_EQ(Query(path_, "select group_concat(v) from t"), "good");
  ExpectShipped();
}

// The same where frames had come faster than they were shipped, so that a checkpoint is due: it would copy the old WAL into the new file.
TEST_F(ReplacedTest, TheWalIsRemovedUnderItWhileItIsBehind) {
  allow_restart_ = true;
  checkpoint_bytes_ = 2 * uint64_t{4120};
  most_behind_ = 1;
  behind_rest_ = milliseconds(60'000);
  Make();
  Application app(path_);
  ASSERT_NO_FATAL_FAILURE(StopAndReplace(app));
  follower_->Step(cancel_);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  EXPECT_EQ(doubts(), 1u);
  EXPECT_EQ(Query(path_, "pragma integrity_check"), "ok");
  EXPECT_EQ(Query(path_, "select group_concat(v) from t"), "good");
}

// Nobody writes any more: what is behind is not worth a checkpoint.
TEST_F(FollowerTest, WhoIsGoneIsLeftAlsoWhereItIsBehind) {
  allow_restart_ = true;
  checkpoint_bytes_ = 2 * uint64_t{4120};
  most_behind_ = 1;
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  app.Run("insert into t values(3, randomblob(60000))");
  app.Run("close");
  follower_->Step(cancel_);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  EXPECT_TRUE(home_.gaps.empty());
  EXPECT_FALSE(std::filesystem::exists(path_ + "-wal"));
  Settle();
  ExpectShipped();
}

// While it rests before pages are compared it stays attached where a RESTART may keep the WAL small, though not for nobody, nor for ever.
class RestsBehindTest : public FollowerTest {
 protected:
  void FallBehind() {
    allow_restart_ = true;
    checkpoint_bytes_ = 2 * uint64_t{4120};
    most_behind_ = 1;
    behind_rest_ = milliseconds(60'000);
    Make();
    app_ = std::make_unique<Application>(path_);
    app_->Run("insert into t values(2, 'b')");
    Attach();
    app_->Run("insert into t values(3, randomblob(60000))");
    follower_->Step(cancel_);
    EXPECT_THAT(home_.gaps, testing::ElementsAre("BEHIND"));
    ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
    ASSERT_TRUE(follower_->Peek()) << "it is looked at all the while";
  }
  std::unique_ptr<Application> app_;
};

TEST_F(RestsBehindTest, WhoGoesMeanwhileIsLeft) {
  ASSERT_NO_FATAL_FAILURE(FallBehind());
  app_->Run("close");
  follower_->Step(cancel_);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  EXPECT_FALSE(std::filesystem::exists(path_ + "-wal")) << "as the last closer";
  clock_.Advance(behind_rest_);
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  Settle();
  ExpectShipped();
}

TEST_F(RestsBehindTest, WithoutALinkTheHoldEndsBehindTheRest) {
  ASSERT_NO_FATAL_FAILURE(FallBehind());
  controller_.connected = false;
  for (int i = 0; i < 2; ++i) {
    clock_.Advance(behind_rest_ + lease_);
    follower_->Step(cancel_);
  }
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FAILED);
  EXPECT_EQ(app_->Try("checkpoint truncate"), SQLITE_OK) << "the agent is in nobody's way";
  EXPECT_EQ(std::filesystem::file_size(path_ + "-wal"), 0u);
}

// What it commits is in no file any more: nothing that is seen at the path is taken for it.
TEST_F(FollowerTest, TheWalIsRemovedUnderALivingApplication) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
  app.Run("insert into t values(3, 'c')");
  ASSERT_TRUE(follower_->Glance());
  follower_->Step(cancel_);
  EXPECT_EQ(doubts(), 1u);
  follower_->Step(cancel_);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FAILED);
  EXPECT_THAT(follower_->status().health.message(), testing::HasSubstr("was removed while an application (process "));
  EXPECT_THAT(home_.gaps, testing::ElementsAre("WAL_REMOVED"));
  follower_->Notice();
  EXPECT_FALSE(follower_->Glance()) << "what the agent itself opens and closes is noticed, too, and such a look is long";
  clock_.Advance(std::chrono::seconds(30));
  EXPECT_TRUE(follower_->Glance());
  app.Run("close");
  app.Run("open");
  app.Run("insert into t values(4, 'd')");
  follower_->Notice();
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
  EXPECT_THAT(home_.gaps, testing::ElementsAre("WAL_REMOVED", "WAL_REMOVED ended"));
  ExpectShipped();
}

// Of the WAL alone: beside the application's own wal-index a new one is not made, and nothing keeps it from folding in what it has.
TEST_F(FollowerTest, TheWalAloneIsRemovedUnderALivingApplication) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  std::filesystem::remove(path_ + "-wal");
  app.Run("insert into t values(3, 'c')");
  StepUntil(v1::CAPTURE_STATE_FAILED);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FAILED);
  EXPECT_THAT(home_.gaps, testing::ElementsAre("WAL_REMOVED"));
  EXPECT_FALSE(std::filesystem::exists(path_ + "-wal"));
  app.Run("close");
  EXPECT_EQ(Query(path_, "select group_concat(v) from t"), "a,b,c");
  follower_->Notice();
  Settle();
  EXPECT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  ExpectShipped();
}

// Another application makes them anew: what is seen there is its own.
TEST_F(FollowerTest, TheWalIsRemovedAndMadeAnewUnderALivingApplication) {
  Make();
  Application app(path_), second(path_);
  second.Run("close");
  app.Run("insert into t values(2, 'b')");
  Attach();
  for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
  second.Run("open");
  second.Run("insert into t values(5, 'e')");
  StepUntil(v1::CAPTURE_STATE_FAILED);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FAILED);
  EXPECT_THAT(home_.gaps, testing::ElementsAre("WAL_REMOVED"));
  // An agent that starts anew knows no more of it than what it sees.
  Stop();
  home_.gaps.clear();
  home_.rested.synced_at = clock_.Now();
  Start();
  StepUntil(v1::CAPTURE_STATE_FAILED);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FAILED);
  EXPECT_THAT(home_.gaps, testing::ElementsAre("WAL_REMOVED"));
  app.Kill();
  follower_->Notice();
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
  ExpectShipped();
}

// Files that are moved in, and have no WAL or nobody may open it, had none that was removed.
TEST_F(FollowerTest, WhatNeverHadAWalIsNotTakenForOneWhoseWalWasRemoved) {
  Make();
  Sql(Path("rollback.db"), "create table t(id integer primary key, v); insert into t values(1, 'a')");
  Application app(path_), reader(Path("rollback.db"));
  app.Run("insert into t values(2, 'b')");
  reader.Run("begin; select count(*) from t");
  Attach();
  app.Kill();
  for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
  std::filesystem::rename(Path("rollback.db"), path_);
  StepUntil(v1::CAPTURE_STATE_FAILED);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FAILED);
  EXPECT_THAT(home_.gaps, testing::ElementsAre("NOT_WAL"));
}

TEST_F(FollowerTest, AnApplicationThatIsAloneWithItsWalIsBusy) {
  Make();
  Application app(path_);
  app.Run("close");
  app.Run("open");
  app.Run("pragma locking_mode=exclusive; insert into t values(2, 'b')");
  ASSERT_FALSE(std::filesystem::exists(path_ + "-shm"));
  home_.rested.synced_at = clock_.Now();
  Start();
  StepUntil(v1::CAPTURE_STATE_FAILED);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FAILED);
  EXPECT_THAT(home_.gaps, testing::ElementsAre("DATABASE_BUSY"));
}

// The database file looks as it did at rest: all that was committed and shipped since was in the WAL.
TEST_F(FollowerTest, AWalThatIsGoneWithItsApplicationIsNotAtRest) {
  Make();
  Application app(path_);
  app.Run("close");
  Start();
  for (int i = 0; i < 500 && home_.rested.facts.empty(); ++i) {
    if (follower_->Glance()) follower_->Step(cancel_);
    std::this_thread::sleep_for(milliseconds(10));
  }
  ASSERT_FALSE(home_.rested.facts.empty());
  app.Run("open");
  app.Run("pragma wal_autocheckpoint=0; select count(*) from t");
  follower_->Notice();
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  app.Run("insert into t values(2, 'b')");
  Settle();
  ExpectShipped();
  for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
  app.Kill();
  follower_->Notice();
  for (int i = 0; i < 500 && (i < 10 || follower_->Glance()); ++i) {
    if (follower_->Glance()) follower_->Step(cancel_);
    std::this_thread::sleep_for(milliseconds(10));
  }
  ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  EXPECT_EQ(Query(path_, "select group_concat(v) from t"), "a");
  ExpectShipped();
}

// Pages are compared beside a hold: SQLite reads them by the wal-index of the hold, but from the WAL that is at the path.
TEST_F(FollowerTest, FilesThatAreReplacedWhilePagesAreComparedAreNotMixed) {
  Make();
  Application app(path_), second(path_);
  second.Run("close");
  app.Run("insert into t select null, randomblob(3000) from (values(1),(2),(3),(4))");
  Start();
  home_.on_timeline = [&] {
    app.Kill();
    for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
    second.Run("open");
    second.Run("insert into t values(7, 'other')");
  };
  follower_->Step(cancel_);
  EXPECT_EQ(home_.on_timeline, nullptr);
  EXPECT_TRUE(controller_.commits().empty());
  EXPECT_EQ(doubts(), 1u);
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
  ExpectShipped();
}

// What could not be sent when it was left is compared once.
TEST_F(FollowerTest, WhatIsComparedAfterItWasLeftIsComparedOnce) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  controller_.connected = false;
  app.Run("insert into t values(3, 'c')");
  app.Run("close");
  follower_->Notice();
  follower_->Step(cancel_);
  ASSERT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  controller_.connected = true;
  const int before = controller_.streams();
  for (int i = 0; i < 500 && home_.rested.facts.empty(); ++i) {
    if (follower_->Glance()) follower_->Step(cancel_);
    follower_->Notice(true);  // what the comparing itself opened
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_FALSE(home_.rested.facts.empty());
  EXPECT_EQ(controller_.streams(), before + 1);
  ExpectShipped();
}

TEST_F(FollowerTest, FilesThatNeverComeToRestAreCompared) {
  never_settles_ = milliseconds(1000);
  Make();
  Start();
  Settle();
  ExpectShipped();
  const int before = controller_.streams();
  for (int i = 0; i < 300 && controller_.streams() == before; ++i) {
    Sql(path_, "update t set v = hex(randomblob(8))");
    follower_->Notice();
    if (follower_->Glance()) follower_->Step(cancel_);
    std::this_thread::sleep_for(milliseconds(20));
  }
  EXPECT_GT(controller_.streams(), before);
}

// Whoever copies a file over the database now finds no WAL of the old one beside it, whatever the network does.
TEST_F(FollowerTest, AControllerThatIsSilentDoesNotKeepItWhenNobodyElseIsThere) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  std::atomic<bool> sent{false};
  controller_.swallow = [&](const v1::UploadRequest& request) {
    if (request.has_commit()) sent.store(true);
    return request.has_commit();
  };
  app.Run("insert into t values(3, 'c')");
  std::thread stepper([&] {
    EXPECT_TRUE(follower_->Glance());
    follower_->Step(cancel_);
  });
  while (!sent.load()) std::this_thread::sleep_for(milliseconds(1));
  app.Run("close");
  ASSERT_TRUE(std::filesystem::exists(path_ + "-wal"));
  follower_->Notice();
  stepper.join();
  EXPECT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  EXPECT_FALSE(std::filesystem::exists(path_ + "-wal"));
  controller_.swallow = nullptr;
  Settle();
  ExpectShipped();
}

TEST_F(FollowerTest, AControllerThatIsSilentDoesNotKeepTheWal) {
  lease_ = std::chrono::seconds(1);
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  controller_.swallow = [&](const v1::UploadRequest& request) { return request.has_commit(); };
  app.Run("insert into t values(3, 'c')");
  ASSERT_TRUE(follower_->Glance());
  follower_->Step(cancel_);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FAILED);
  EXPECT_THAT(home_.gaps, testing::ElementsAre("LEASE_EXPIRED"));
  controller_.swallow = nullptr;
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  Settle();
  ExpectShipped();
}

// What was committed while nobody could be told of it is a gap, whoever else has gone meanwhile.
TEST_F(FollowerTest, WhatWaitsForTheLinkAfterItWasLeftIsAGap) {
  lease_ = std::chrono::seconds(1);
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  controller_.connected = false;
  app.Run("insert into t values(3, 'c')");
  app.Run("close");
  follower_->Notice();
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(1));
  EXPECT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  EXPECT_EQ(home_.gaps[0], "LEASE_EXPIRED");
  controller_.connected = true;
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  EXPECT_EQ(home_.gaps[1], "LEASE_EXPIRED ended");
  ExpectShipped();
}

TEST_F(FollowerTest, WhatWaitsForOtherDatabasesIsAGap) {
  lease_ = std::chrono::seconds(1);
  Make();
  home_.may_compare = false;
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Start();
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(1));
  EXPECT_EQ(home_.gaps[0], "COMPARE_LATER");
  home_.may_compare = true;
  ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  ExpectShipped();
}

TEST_F(FollowerTest, WhatTheControllerLostIsComparedAgain) {
  Make();
  Start();
  Settle();
  std::this_thread::sleep_for(milliseconds(100));
  for (int i = 0; i < 500 && home_.rested.facts.empty(); ++i) {
    if (follower_->Glance()) follower_->Step(cancel_);
    std::this_thread::sleep_for(milliseconds(10));
  }
  ASSERT_FALSE(follower_->Glance()) << "at rest";
  const int before = controller_.streams();
  follower_->CompareAgain();
  ASSERT_TRUE(follower_->Glance());
  follower_->Step(cancel_);
  EXPECT_GT(controller_.streams(), before);
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  follower_->Notice();
  Settle();
  ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  follower_->CompareAgain();
  ASSERT_TRUE(follower_->Glance());
  follower_->Step(cancel_);
  EXPECT_EQ(doubts(), 1u);
  Settle();
  ExpectShipped();
}

// A sync waits for its next attempt, something is committed meanwhile, and everybody leaves: what waited is not all there is.
TEST_F(FollowerTest, WhatIsShippedAtTheEndIsAllThereIs) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  controller_.on_request = [](const v1::UploadRequest&) { return Error(absl::StatusCode::kUnavailable, "CUT", "cut"); };
  app.Run("insert into t values(3, 'c')");
  ASSERT_TRUE(follower_->Glance());
  follower_->Step(cancel_);
  controller_.on_request = nullptr;
  app.Run("insert into t values(4, 'd')");
  app.Kill();
  follower_->Notice();
  std::this_thread::sleep_for(milliseconds(120));
  Settle();
  EXPECT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  ExpectShipped();
}

TEST_F(FollowerTest, LetsGoWhenItIsAskedToAndComparesAfterwards) {
  Make();
  Application app(path_, 0);
  app.Run("insert into t values(2, 'b')");
  Attach();
  EXPECT_NE(app.Try("pragma locking_mode=exclusive; insert into t values(3, 'c')"), SQLITE_OK);
  follower_->LetGo("released");
  EXPECT_EQ(state(), v1::CAPTURE_STATE_RELEASED);
  EXPECT_FALSE(follower_->Glance());
  app.Run("insert into t values(4, 'd')");
  app.Run("pragma locking_mode=normal; select count(*) from t");
  follower_->Resume();
  for (int i = 0; i < 500 && state() != v1::CAPTURE_STATE_FOLLOWING; ++i) {
    if (follower_->Glance()) follower_->Step(cancel_);
    std::this_thread::sleep_for(milliseconds(10));
  }
  Settle();
  ExpectShipped();
  EXPECT_TRUE(home_.gaps.empty()) << "it was no longer than a few syncs";
}

TEST_F(FollowerTest, WhatChangesWhileItIsReleasedIsAGap) {
  short_gap_ = milliseconds(50);
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  const auto release = [&](const std::function<void()>& meanwhile) {
    follower_->LetGo("released");
    std::this_thread::sleep_for(milliseconds(100));
    meanwhile();
    follower_->Resume();
    for (int i = 0; i < 500 && state() != v1::CAPTURE_STATE_FOLLOWING; ++i) {
      if (follower_->Glance()) follower_->Step(cancel_);
      std::this_thread::sleep_for(milliseconds(10));
    }
    Settle();
    ExpectShipped();
  };
  release([] {});
  EXPECT_TRUE(home_.gaps.empty()) << "nothing was missed";
  release([&] { app.Run("insert into t values(3, 'c')"); });
  EXPECT_THAT(home_.gaps, testing::ElementsAre("RELEASED ended"));
}

}  // namespace
}  // namespace litefleet::follow
