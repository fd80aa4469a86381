// What comes while the agent stands aside: every state that was committed is had, and none that never was.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <utility>

#include "agent/capture/wal_end.h"
#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

constexpr uint64_t kFrame = 4096 + 24;

class StandAsideTest : public FollowerTest {
 protected:
  // The connections of the application are made before the agent's: those of a child that is forked later would believe to have its locks.
  // Tables whose pages no other one shares; the WAL file is longer than what is written before the agent stands aside, as after some time.
  void Prepare(uint64_t frames, const std::string& more = "select 1") {
    Make();
    for (std::unique_ptr<Application>* one : {&app_, &second_, &reader_}) *one = std::make_unique<Application>(path_, 0);
    app_->Run(
        "pragma wal_autocheckpoint=0; pragma synchronous=off; create table a(v); create table b(v); create table c(v); create table d(v);"
        "insert into a values(0); insert into b values(0); insert into c values(0);" +
        more + "; pragma wal_checkpoint(truncate)");
    app_->Run("insert into t values(2, zeroblob(500000)); delete from t where id = 2; pragma wal_checkpoint(passive)");
    app_->Run("insert into t values(2, 'b')");
    second_->Run("pragma wal_autocheckpoint=0; pragma synchronous=off; select count(*) from t");
    reader_->Run("select count(*) from t");
    checkpoint_bytes_ = frames * kFrame;
    Attach();
  }
  uint64_t WalSize() const { return std::filesystem::file_size(path_ + "-wal"); }
  // Of the file's header: they change with the first frame after a WAL was started over.
  std::string Salts() const {
    std::ifstream wal(path_ + "-wal", std::ios::binary);
    std::string salts(8, '\0');
    wal.seekg(16);
    wal.read(salts.data(), static_cast<std::streamsize>(salts.size()));
    return salts;
  }
  // Where the frames of the newest generation end in the file.
  uint64_t EndOfFrames() const {
    std::ifstream wal(path_ + "-wal", std::ios::binary);
    const std::string salts = Salts();
    uint64_t end = 32;
    for (std::string frame(kFrame, '\0'); wal.seekg(static_cast<std::streamoff>(end)).read(frame.data(), kFrame); end += kFrame) {
      if (frame.compare(8, 8, salts) != 0) break;
    }
    return end;
  }
  // Somebody reads what is old, so that rounds come to nothing; then the agent stands aside, and `what` happens in that moment.
  void Aside(const std::function<void()>& what) {
    reader_->Run("begin; select count(*) from t");
    // Rounds are tried from three quarters on: in one step, in which all is sent as well. However long a step takes, those that came to
    // nothing are too few for the agent to stand aside no more.
    for (const uint64_t bytes : {checkpoint_bytes_ / 4, checkpoint_bytes_ / 4}) {
      app_->Run(fmt::format("insert into t values(null, randomblob({}))", bytes));
      Settle();
    }
    app_->Run(fmt::format("insert into t values(null, randomblob({}))", checkpoint_bytes_ / 2 + 10 * kFrame));
    bool rounds = false, stood = false;
    while_aside_ = [&] {
      if (!rounds) return;
      stood = true;
      while_aside_ = nullptr;
      what();
    };
    follower_->Step(cancel_);
    ASSERT_EQ(shipper_->saved_bytes(), 0u);
    reader_->Run("commit");
    rounds = true;
    StepUntil([&] { return stood; });
    while_aside_ = nullptr;
    ASSERT_TRUE(stood);
  }
  void StepUntil(const std::function<bool()>& done) {
    // Behind a reader that holds it back the agent tries again after up to 5 s.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!done() && std::chrono::steady_clock::now() < deadline) {
      follower_->Step(cancel_);
      std::this_thread::sleep_for(milliseconds(1));
    }
  }
  // By a cache so small that frames come before the commit.
  static std::string Large(const std::string& table, int pages, const std::string& blob) {
    return fmt::format(
        "pragma cache_size=10; with recursive n(i) as (select 1 union all select i + 1 from n where i < {0}) insert into {1} select "
        "{2}(3600) from n",
        pages, table, blob);
  }

  std::unique_ptr<Application> app_, second_, reader_;
};

TEST_F(StandAsideTest, TheEndOfAGenerationIsTakenWithoutDoubt) {
  ASSERT_NO_FATAL_FAILURE(Prepare(100));
  Aside([&] {
    const std::string before = Salts();
    app_->Run("update a set v = 1");
    app_->Run("update b set v = 1; pragma wal_checkpoint(passive)");
    // A page of the end is in the new generation as well, which the agent's own look at the checkpoint lock copies.
    app_->Run("begin; update c set v = 1; update a set v = 2; commit");
    EXPECT_NE(Salts(), before) << "it was started over";
  });
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 0u);
  EXPECT_EQ(controller_.commits().back().commits(), 3u);
}

// No generation before was as long, so that nothing older is behind its end.
TEST_F(StandAsideTest, TheEndOfTheLongestGenerationIsTakenToo) {
  ASSERT_NO_FATAL_FAILURE(Prepare(300));
  bool room = false;
  Aside([&] {
    const uint64_t end = EndOfFrames();
    app_->Run("update a set v = 1; update b set v = 1");
    EXPECT_GT(EndOfFrames(), end);
    room = EndOfFrames() < WalSize();
    app_->Run("pragma wal_checkpoint(passive); update c set v = 1");
  });
  Settle();
  ExpectShipped();
  EXPECT_EQ(Query(path_, "pragma integrity_check"), "ok");
  if (!room) GTEST_SKIP() << "of this file system it is not known that a file may be made longer beside its writers";
  EXPECT_EQ(doubts(), 0u);
}

// Somebody cuts the WAL that everything was sent from: no zeros come behind it, which a checkpoint would copy.
TEST_F(StandAsideTest, AWalThatWasCutStaysAsItIs) {
  ASSERT_NO_FATAL_FAILURE(Prepare(100));
  reader_->Run("begin; select count(*) from t");
  for (int i = 0; i < 8; ++i) {
    app_->Run(fmt::format("insert into t values(null, randomblob({}))", checkpoint_bytes_ / 6));
    Settle();
  }
  StepUntil([&] { return follower_->Peek(); });
  follower_->Step(cancel_);  // rounds come to nothing: the next time it stands aside
  Settle();
  reader_->Run("commit");
  const uint64_t cut = EndOfFrames() / 2;
  ASSERT_EQ(capture::Shell(fmt::format("truncate -s {} '{}-wal'", cut, path_)), 0);
  for (int i = 0; i < 200 && doubts() == 0 && state() == v1::CAPTURE_STATE_FOLLOWING; ++i) {
    follower_->Step(cancel_);
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_TRUE(doubts() == 1 || state() != v1::CAPTURE_STATE_FOLLOWING);
  EXPECT_EQ(WalSize(), cut);
}

TEST_F(StandAsideTest, RoomIsKeptBehindAWholeWalAlone) {
  ASSERT_NO_FATAL_FAILURE(Prepare(100));
  capture::UserDatabaseOptions options;
  options.path = path_;
  options.busy_timeout = milliseconds(100);
  auto database = capture::UserDatabase::Open(options);
  ASSERT_TRUE(database.ok()) << database.status();
  ASSERT_TRUE((*database)->BeginRead().ok());
  const uint64_t end = WalSize();
  if (!capture::KeepRoomBehind(**database, end, 1 << 16)) GTEST_SKIP() << "not on this file system";
  EXPECT_EQ(WalSize(), end + (1 << 16));
  ASSERT_EQ(capture::Shell(fmt::format("truncate -s {} '{}-wal'", end - kFrame, path_)), 0);
  EXPECT_FALSE(capture::KeepRoomBehind(**database, end, 1 << 16));
  EXPECT_EQ(WalSize(), end - kFrame);
  (*database)->EndRead();
}

// The application is stopped in that moment, and another database copied over its file: what is in the old WAL is not for it.
TEST_F(StandAsideTest, AFileThatIsCopiedOverMeanwhileIsLeftAsItIs) {
  Sql(Path("good.db"), "pragma journal_mode=wal; create table t(id integer primary key, v); insert into t values(7, 'good')");
  ASSERT_NO_FATAL_FAILURE(Prepare(100));
  Aside([&] {
    app_->Run("update a set v = 1");
    for (const auto* one : {&app_, &second_, &reader_}) (*one)->Run("close");
    ASSERT_EQ(capture::Shell(fmt::format("rm -f '{0}-wal' '{0}-shm' && cp '{1}' '{0}'", path_, Path("good.db"))), 0);
  });
  EXPECT_EQ(Query(path_, "pragma integrity_check"), "ok");
  EXPECT_EQ(Query(path_, "select group_concat(v) from t"), "good");
}

// A transaction too large to be kept commits meanwhile, and its own checkpoint copies all of it: the agent then holds mark 0 with frames
// that nobody has sent, and the next writer starts the WAL over while they are sent.
TEST_F(StandAsideTest, FramesThatAreOverwrittenWhileTheyAreSentAreNoSync) {
  ASSERT_NO_FATAL_FAILURE(Prepare(100, Large("d", 1200, "randomblob")));
  bool overwritten = false, sent = false;
  Aside([&] {
    app_->Run("pragma cache_size=10; update d set v = randomblob(3600); pragma wal_checkpoint(passive)");
    controller_.on_request = [&](const v1::UploadRequest& request) -> absl::Status {
      if (request.message_case() != v1::UploadRequest::kBegin || std::exchange(sent, true)) return absl::OkStatus();
      const std::string before = Salts();
      second_->Run(Large("b", 1400, "zeroblob"));
      overwritten = Salts() != before;
      return absl::OkStatus();
    };
  });
  Settle();
  EXPECT_TRUE(overwritten);
  ExpectShipped();
  EXPECT_EQ(doubts(), 1u);
}

// The same where nobody is in the way of the sending.
TEST_F(StandAsideTest, FramesOfAHoldOnMark0AreSentWhereNobodyOverwritesThem) {
  ASSERT_NO_FATAL_FAILURE(Prepare(100, Large("d", 1200, "randomblob")));
  Aside([&] { app_->Run("pragma cache_size=10; update d set v = randomblob(3600); pragma wal_checkpoint(passive)"); });
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 0u);
}

// The WAL was cut off and begun anew by one who has not committed yet: what is behind the place that is known is neither the old
// generation's nor has it the salts of the wal-index.
TEST_F(StandAsideTest, AnEndThatWhoHasNotCommittedYetOverwritesIsInDoubt) {
  ASSERT_NO_FATAL_FAILURE(Prepare(100));
  Aside([&] {
    app_->Run("update a set v = 1; pragma wal_checkpoint(truncate)");
    second_->Run("begin immediate; " + Large("d", 600, "randomblob"));
  });
  second_->Run("commit");
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 1u);
}

// A limit of the journal's size cuts just at the end of a commit, with another one behind it.
TEST_F(StandAsideTest, AnEndThatIsCutOffBetweenTwoCommitsIsInDoubt) {
  ASSERT_NO_FATAL_FAILURE(Prepare(300));
  Aside([&] {
    app_->Run("update a set v = 1");
    const uint64_t size = EndOfFrames();
    app_->Run("update b set v = 1");
    ASSERT_GT(EndOfFrames(), size);
    app_->Run(fmt::format("pragma journal_size_limit={}; pragma wal_checkpoint(passive); update c set v = 1", size));
    ASSERT_EQ(WalSize(), size);
  });
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 1u);
}

TEST_F(StandAsideTest, AnEndThatIsTooLargeToBeKeptIsInDoubt) {
  ASSERT_NO_FATAL_FAILURE(Prepare(100));
  Aside([&] { app_->Run(Large("d", 1100, "randomblob") + "; pragma wal_checkpoint(passive); update a set v = 1"); });
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 1u);
}

// The end was taken, and what follows cannot be: a snapshot of the end alone would have a time at which more had been committed.
TEST_F(StandAsideTest, ANewGenerationThatIsTooLargeToBeKeptIsInDoubt) {
  ASSERT_NO_FATAL_FAILURE(Prepare(1300));
  const size_t before = controller_.commits().size();
  Aside([&] { app_->Run("update a set v = 1; pragma wal_checkpoint(passive); " + Large("d", 1100, "randomblob")); });
  const size_t sent = controller_.commits().size();
  EXPECT_GT(sent, before);
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 1u);
  EXPECT_EQ(controller_.commits().size(), sent + 1) << "one state, with all of it";
}

TEST_F(StandAsideTest, StartedOverTwiceIsInDoubt) {
  ASSERT_NO_FATAL_FAILURE(Prepare(100));
  Aside([&] {
    app_->Run("update a set v = 1; pragma wal_checkpoint(passive); update b set v = 1");
    app_->Run("pragma wal_checkpoint(passive); update c set v = 1");
  });
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 1u);
}

// The hold is on mark 0 of the new generation, whose frames nobody has; the next writer starts that over as well.
TEST_F(StandAsideTest, ANewGenerationThatIsCopiedAtOnceIsFollowed) {
  ASSERT_NO_FATAL_FAILURE(Prepare(100));
  Aside([&] { app_->Run("update a set v = 1; pragma wal_checkpoint(passive); update b set v = 1; pragma wal_checkpoint(passive)"); });
  app_->Run("update c set v = 1");
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 0u);
}

TEST_F(StandAsideTest, AFileThatIsPutInItsPlaceIsFound) {
  ASSERT_NO_FATAL_FAILURE(Prepare(100));
  const std::string other = Path("other.db");
  Application later(other);
  later.Run("pragma journal_mode=wal; create table t(id integer primary key, v); insert into t values(9, 'z')");
  Aside([&] {
    app_->Run("update a set v = 1");
    std::filesystem::rename(other, path_);
    for (const char* suffix : {"-wal", "-shm"}) std::filesystem::rename(other + suffix, path_ + suffix);
  });
  later.Run("insert into t values(10, 'y')");
  follower_->Notice();
  Settle();
  for (int i = 0; i < 200 && state() != v1::CAPTURE_STATE_FOLLOWING; ++i) follower_->Step(cancel_);
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 1u);
}

// Nothing that a reader is in the way of is possible because nothing is held: the connection stays.
TEST_F(StandAsideTest, TheJournalModeStaysWhatItIs) {
  ASSERT_NO_FATAL_FAILURE(Prepare(100));
  Aside([&] {
    EXPECT_NE(app_->Try("pragma journal_mode=delete"), SQLITE_OK);
    EXPECT_NE(app_->Try("pragma locking_mode=exclusive; update a set v = 1"), SQLITE_OK);
    app_->Run("pragma locking_mode=normal; select count(*) from t; vacuum; update b set v = 1");
  });
  Settle();
  ExpectShipped();
}

// Whatever else comes in that moment, in any order: each snapshot is a state that was committed, and the last one has everything.
TEST_F(StandAsideTest, WhateverComesMeanwhileEachSnapshotIsAStateThatWas) {
  const bool slow = std::getenv("LITEFLEET_SLOW") != nullptr;
  const uint64_t seed = slow ? std::random_device()() : 20261128;
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937_64 random(seed);
  ASSERT_NO_FATAL_FAILURE(Prepare(60));
  constexpr int kDying = 6;
  std::vector<std::unique_ptr<Application>> dying;
  Stop();  // they open the database before the agent does
  for (int i = 0; i < kDying; ++i) dying.push_back(std::make_unique<Application>(path_, 0));
  ASSERT_NO_FATAL_FAILURE(Attach());
  std::set<std::string> states;
  size_t seen = 0;
  const auto note = [&] { states.insert(controller_.Content()); };
  const auto commit = [&](Application& who, int bytes) {
    who.Try(fmt::format(
        "pragma cache_size=10; begin immediate; update a set v = v + 1; insert into t values(null, randomblob({})); update b set "
        "v = v + 1; update c set v = v + 1; commit",
        bytes));
    who.Try("rollback");
  };
  bool open = false;
  const auto act = [&] {
    Application& who = random() % 3 == 0 ? *second_ : *app_;
    switch (random() % 12) {
      case 0:
        who.Try("pragma wal_checkpoint(truncate)");
        break;
      case 1:
        who.Try("pragma wal_checkpoint(restart)");
        break;
      case 2:
      case 3:
        who.Try("pragma wal_checkpoint(passive)");
        break;
      case 4:
        who.Try(fmt::format("pragma journal_size_limit={}", random() % 2 == 0 ? -1 : static_cast<int64_t>(random() % 100 * kFrame + 32)));
        break;
      case 5:
        commit(who, 600000);
        break;
      case 6:
        // Frames in the file that are no commit.
        who.Try("begin immediate; update a set v = v + 100; " + Large("d", static_cast<int>(random() % 120), "randomblob"));
        who.Try("rollback");
        break;
      case 7:
        open =
            open || second_->Try("begin immediate; update a set v = v + 1; " + Large("d", static_cast<int>(random() % 120), "randomblob") +
                                 "; update b set v = v + 1; update c set v = v + 1") == SQLITE_OK;
        if (!open) second_->Try("rollback");
        break;
      case 8:
        if (dying.empty() || random() % 3 != 0) break;
        dying.back()->Try("begin immediate; update a set v = v + 100; " + Large("d", 50, "randomblob"));
        dying.pop_back();
        break;
      default:
        commit(who, static_cast<int>(random() % 20000));
    }
  };
  controller_.on_request = [&](const v1::UploadRequest& request) -> absl::Status {
    if (request.message_case() == v1::UploadRequest::kBegin) note();
    return absl::OkStatus();
  };
  for (int round = 0; round < (slow ? 300 : 8); ++round) {
    ASSERT_NO_FATAL_FAILURE(Aside([&] {
      for (uint64_t i = random() % 6; i > 0; --i) act();
    })) << "round "
        << round;
    if (std::exchange(open, false)) second_->Try("commit");  // unless it went with what came later
    Settle();
    ASSERT_NO_FATAL_FAILURE(ExpectShipped()) << "round " << round;
    note();
    for (const std::string& content : states) {
      const std::string copy = Store(Bytes(AsBytes(content).begin(), AsBytes(content).end()), "state.db");
      ASSERT_EQ(Query(copy, "pragma integrity_check"), "ok");
      ASSERT_EQ(Query(copy, "select (select v from a) = (select v from b) and (select v from a) = (select v from c)"), "1");
      for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(copy + suffix);
    }
    seen += states.size();
    states.clear();
    app_->Run("pragma journal_size_limit=-1; delete from t where id > 3; delete from d");
  }
  EXPECT_GT(seen, 8u);
}

}  // namespace
}  // namespace litefleet::follow
