// The WAL beside writers that leave the agent less and less room: the three ways of README.md, "Checkpoints".
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

// Which crash points were passed while it lives.
class CrashLog {
 public:
  explicit CrashLog(std::string path) : path_(std::move(path)) { setenv("LITEFLEET_CRASH_LOG", path_.c_str(), 1); }
  ~CrashLog() { unsetenv("LITEFLEET_CRASH_LOG"); }
  CrashLog(const CrashLog&) = delete;
  CrashLog& operator=(const CrashLog&) = delete;
  int Count(const std::string& name) const {
    std::ifstream file(path_);
    int count = 0;
    for (std::string line; std::getline(file, line);) count += line == name ? 1 : 0;
    return count;
  }

 private:
  const std::string path_;
};

TEST_F(FollowerTest, TheWalStaysSmallBesideAWriterThatNeverCheckpoints) {
  Make();
  Application app(path_, 0);
  app.Run("pragma wal_autocheckpoint=0; insert into t values(2, 'b')");
  checkpoint_bytes_ = 400 << 10;
  Attach();
  for (int i = 0; i < 60; ++i) {
    for (int k = 0; k < 5; ++k)
      app.Run(fmt::format("insert into t values(null, randomblob(20000)); update t set v = randomblob(500) where id = {}", k));
    Settle();
  }
  ExpectShipped();
  EXPECT_EQ(doubts(), 0u);
  EXPECT_LT(std::filesystem::file_size(path_ + "-wal"), 2u * checkpoint_bytes_ + (200u << 10));
}

// Somebody reads what is old for long: nothing that the agent does makes the WAL smaller, and it does it seldom.
TEST_F(FollowerTest, CheckpointsThatAReaderHoldsBackAreTriedSeldom) {
  Make();
  Application app(path_), reader(path_);
  checkpoint_bytes_ = 100 << 10;
  app.Run("pragma wal_autocheckpoint=0; insert into t values(2, 'b')");
  reader.Run("begin; select count(*) from t");
  Attach();
  int aside = 0;
  std::chrono::nanoseconds longest{0};
  while_aside_ = [&] { ++aside; };
  for (int i = 0; i < 400; ++i) {
    app.Run("insert into t values(null, randomblob(3000))");
    clock_.AdvanceSteady(milliseconds(50));
    if (follower_->Glance()) follower_->Step(cancel_);
    if (follower_->peek_at() != SteadyTime::max()) longest = std::max(longest, follower_->peek_at() - clock_.Steady());
  }
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  EXPECT_LE(aside, 8) << "it stands aside for nothing";
  EXPECT_GT(longest, std::chrono::seconds(2));
  EXPECT_LE(longest, std::chrono::seconds(5));
  // When he has gone it is found soon.
  reader.Run("commit");
  const auto size_before = capture::FileBytes(path_).size();
  clock_.AdvanceSteady(std::chrono::seconds(5));
  ASSERT_TRUE(follower_->Glance() || follower_->Peek());
  follower_->Step(cancel_);
  Settle();
  EXPECT_GT(capture::FileBytes(path_).size(), size_before) << "nothing was copied";
  ExpectShipped();
}

// The same beside a writer that leaves no gap: once the reader has gone the agent stands aside again, and the WAL is started over.
TEST_F(FollowerTest, WhereALongReaderHasGoneAWriterWithoutAnyPauseStartsItsWalOverAgain) {
  Make(512);
  checkpoint_bytes_ = 1000 * uint64_t{512 + 24};
  Application app(path_, 5000), reader(path_);
  // All the time is spent within transactions.
  app.Run(
      "pragma wal_autocheckpoint=1000; pragma synchronous=off; insert into t values(2, 'b'); create view w(v) as with recursive n(i) as "
      "(select 1 union all select i + 1 from n where i < 1000) select sum(i) from n");
  reader.Run("begin; select count(*) from t");
  Attach();
  std::atomic<int> aside{0};
  while_aside_ = [&] { ++aside; };
  std::string many;
  for (int i = 0; i < 900; ++i) many += "update t set v=randomblob(90)||(select v from w)where id=2;";
  std::atomic<bool> ended{false};
  std::thread writes([&] {
    while (!ended.load()) app.Run(many);
  });
  const auto salts = [&] {
    std::ifstream wal(path_ + "-wal", std::ios::binary);
    std::string of(8, '\0');
    wal.seekg(16).read(of.data(), 8);
    return of;
  };
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  const auto step_until = [&](const std::function<bool()>& done) {
    while (!done() && std::chrono::steady_clock::now() < deadline) {
      if (follower_->Glance() || (clock_.Steady() >= follower_->peek_at() && follower_->Peek())) follower_->Step(cancel_);
    }
    return done();
  };
  // It tries the less often the longer that comes to nothing; by how fast the WAL grows alone it would be looked at within a second.
  const bool seldom = step_until([&] {
    return aside.load() > 0 && follower_->peek_at() != SteadyTime::max() && follower_->peek_at() > clock_.Steady() + milliseconds(1100);
  });
  const int before = aside.load();
  const std::string generation = salts();
  reader.Run("commit");
  const bool again = step_until([&] { return aside.load() > before && salts() != generation; });
  ended.store(true);
  writes.join();
  EXPECT_TRUE(seldom);
  EXPECT_TRUE(again) << "it stood aside " << aside.load() << " times, " << before << " of them beside the reader";
  Settle();
  ExpectShipped();
}

// Pages come and go within what is kept in memory: no more is kept than may be.
TEST_F(FollowerTest, PagesWithoutAFrameThatCameBackAreNotKeptInMemory) {
  Make(4096, "pragma auto_vacuum=incremental;");
  Application app(path_, 0);
  app.Run(
      "pragma wal_autocheckpoint=0; create table d(v); with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000) "
      "insert "
      "into d select zeroblob(3600) from n; pragma wal_checkpoint(truncate); insert into t values(2, 'b')");
  checkpoint_bytes_ = 100 * uint64_t{4120};
  Attach();
  app.Run("delete from d; pragma incremental_vacuum");
  app.Run(
      "begin; create table x(v); insert into x values(zeroblob(10000000)); drop table x; commit; insert into t values(3, "
      "randomblob(500000))");
  uint64_t most = 0;
  for (int i = 0; i < 400 && follower_->Glance(); ++i) {
    follower_->Step(cancel_);
    most = std::max(most, shipper_->saved_bytes());
  }
  Settle();
  ExpectShipped();
  EXPECT_LE(most, Shipper::kSavedBytes);
}

// All turns are taken by other databases: from the WAL as it stands, by rounds that find room once there is a pause.
TEST_F(FollowerTest, WithoutATurnNothingIsKeptInMemory) {
  Make();
  Application app(path_, 0);
  app.Run("pragma wal_autocheckpoint=0; insert into t values(2, 'b')");
  checkpoint_bytes_ = 100 << 10;
  Attach();
  {
    const auto taken = saved_turns_.Take();
    ASSERT_NE(taken, nullptr);
    ASSERT_EQ(saved_turns_.Take(), nullptr);
    for (int i = 0; i < 20; ++i) {
      app.Run("insert into t values(null, randomblob(20000))");
      Settle();
      EXPECT_EQ(shipper_->saved_bytes(), 0u);
    }
    ExpectShipped();
  }
  for (int i = 0; i < 20; ++i) {
    app.Run("insert into t values(null, randomblob(20000))");
    Settle();
  }
  ExpectShipped();
  EXPECT_EQ(doubts(), 0u);
  follower_->LetGo("released");
  EXPECT_NE(saved_turns_.Take(), nullptr) << "what is dropped gives its turn back";
}

// It leaves no gap in which the agent could copy the rest: the agent stands aside, and the writer starts its WAL over as it would alone.
// How often the agent then doubts the end of what it left is the machine's: a doubt costs a comparison of pages, and loses nothing.
TEST_F(FollowerTest, AWriterWithoutAnyPauseStartsItsWalOver) {
  Make();
  Application app(path_, 0);
  app.Run("pragma wal_autocheckpoint=100; pragma synchronous=normal; insert into t values(2, 'b')");
  checkpoint_bytes_ = 100 * uint64_t{4120};
  Attach();
  std::string many;
  for (int i = 0; i < 700; ++i) many += "insert into t values(null, randomblob(900)); update t set v = randomblob(90) where id = 2;";
  uint64_t largest = 0;
  for (int round = 0; round < 3; ++round) {
    app.Begin(many);
    std::atomic<bool> done{false};
    int rc = -1;
    std::thread waits([&] {
      rc = app.End();
      done.store(true);
    });
    while (!done.load()) {
      if (follower_->Glance()) follower_->Step(cancel_);
      largest = std::max<uint64_t>(largest, std::filesystem::file_size(path_ + "-wal"));
    }
    waits.join();
    ASSERT_EQ(rc, SQLITE_OK) << "nothing of the agent's is in its way";
  }
  Settle();
  ASSERT_NO_FATAL_FAILURE(ExpectShipped());
  // 4,200 commits of two frames and more.
  EXPECT_LT(largest, 4200u * 2 * 4120 / 2) << "it was never started over";
}

// Two of them, neither of which checkpoints: without the write lock there is never a moment in which all has been copied. They write until
// the WAL is small beside what they wrote, which it never is where nobody starts it over.
TEST_F(FollowerTest, ARestartBoundsTheWalOfWritersWithoutAnyPauseWhereItIsAllowed) {
  Make();
  Application app(path_, 5000), second(path_, 5000);
  app.Run(
      "pragma wal_autocheckpoint=0; pragma synchronous=off; create table app(id integer primary key, v); create table second as select * "
      "from app");
  second.Run("pragma wal_autocheckpoint=0; pragma synchronous=off; select count(*) from t");
  checkpoint_bytes_ = 50 * uint64_t{4120};
  most_behind_ = 10'000;
  allow_restart_ = true;
  Attach();
  const CrashLog passed(Path("passed"));
  std::vector<std::string> states;
  controller_.on_request = [&](const v1::UploadRequest& request) -> absl::Status {
    if (request.message_case() == v1::UploadRequest::kBegin && states.size() < 12) states.push_back(controller_.Content());
    return absl::OkStatus();
  };
  // Of each its own, without a gap: a state that was committed has the first ones of both.
  const auto many = [](const std::string& who) {
    std::string sql;
    for (int i = 0; i < 600; ++i) sql += "insert into " + who + " select coalesce(max(rowid), 0) + 1, randomblob(90) from " + who + ";";
    return sql;
  };
  uint64_t written = 0, largest = 0;
  int rounds = 0;
  while (rounds < 60 && (passed.Count("follow.restart_advanced") < 2 || written < 2 * largest)) {
    ++rounds;
    app.Begin(many("app"));
    second.Begin(many("second"));
    std::atomic<int> done{0};
    int rc = -1, second_rc = -1;
    std::thread waits([&] {
      rc = app.End();
      ++done;
    });
    std::thread waits_too([&] {
      second_rc = second.End();
      ++done;
    });
    while (done.load() < 2) {
      if (follower_->Glance()) follower_->Step(cancel_);
      largest = std::max<uint64_t>(largest, std::filesystem::file_size(path_ + "-wal"));
    }
    waits.join();
    waits_too.join();
    ASSERT_EQ(rc, SQLITE_OK);
    ASSERT_EQ(second_rc, SQLITE_OK);
    written += uint64_t{1200} * 4120;  // at least
  }
  EXPECT_LT(rounds, 60) << "written " << written << ", and the WAL was " << largest;
  Settle();
  ASSERT_NO_FATAL_FAILURE(ExpectShipped());
  states.push_back(controller_.Content());
  for (const std::string& content : states) {
    const std::string copy = Store(Bytes(AsBytes(content).begin(), AsBytes(content).end()), "state.db");
    ASSERT_EQ(Query(copy, "pragma integrity_check"), "ok");
    for (const char* who : {"app", "second"})
      ASSERT_EQ(Query(copy, fmt::format("select coalesce(max(rowid), 0) = count(*) and coalesce(max(id), 0) = count(*) from {}", who)),
                "1");
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(copy + suffix);
  }
}

// An application reads what is old, so that nothing can be copied, and another one writes: what a RESTART would be for.
class RestartTest : public FollowerTest {
 protected:
  void Begin(bool allow_restart) {
    Make();
    checkpoint_bytes_ = 50 * uint64_t{4120};
    allow_restart_ = allow_restart;
    app_ = std::make_unique<Application>(path_);
    reader_ = std::make_unique<Application>(path_);
    app_->Run("pragma wal_autocheckpoint=0; insert into t values(2, 'b')");
    reader_->Run("begin; select count(*) from t");
    Attach();
  }
  // By so many thresholds of frames. The size of the file says less: room may be kept behind them.
  void Grow(uint64_t thresholds) {
    const uint64_t transactions = thresholds * checkpoint_bytes_ / (10 * 4120) + 1;
    // Nine pages of its own and the one that leads to them; the rest is in addition.
    for (uint64_t i = 0; i < transactions; ++i) app_->Run("insert into t values(null, zeroblob(36700))");
  }
  void StepFor(std::chrono::seconds most) {
    const auto deadline = clock_.Steady() + most;
    while (clock_.Steady() < deadline) Step();
  }
  void Step() {
    clock_.AdvanceSteady(milliseconds(200));
    if (follower_->Glance() || follower_->Peek()) follower_->Step(cancel_);
  }
  int Tried() const { return passed_.Count("follow.before_restart"); }

  const CrashLog passed_{Path("passed")};
  std::unique_ptr<Application> app_, reader_;
};

TEST_F(RestartTest, NoneWhereItIsNotAllowed) {
  Begin(false);
  Grow(6);
  ASSERT_GT(std::filesystem::file_size(path_ + "-wal"), 4 * checkpoint_bytes_);
  StepFor(std::chrono::seconds(40));
  EXPECT_GT(passed_.Count("follow.before_checkpoint"), 0) << "it is due";
  EXPECT_EQ(Tried(), 0);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
}

TEST_F(RestartTest, NoneUpToFourTimesTheThreshold) {
  Begin(true);
  Grow(2);
  ASSERT_GT(std::filesystem::file_size(path_ + "-wal"), 2 * checkpoint_bytes_);
  ASSERT_LT(std::filesystem::file_size(path_ + "-wal"), 4 * checkpoint_bytes_);
  StepFor(std::chrono::seconds(40));
  EXPECT_GT(passed_.Count("follow.before_checkpoint"), 0) << "it is due";
  EXPECT_EQ(Tried(), 0);
  Grow(3);
  StepFor(std::chrono::seconds(10));
  EXPECT_GT(Tried(), 0);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
}

// Writers wait for each: 250 ms after the first that came to nothing, twice as long each time, 30 s at most.
TEST_F(RestartTest, WhatComesToNothingIsTriedEverLaterAndNeverGivenUp) {
  Begin(true);
  Grow(6);
  std::vector<std::pair<SteadyTime, SteadyTime>> attempts;  // before the step, and after it
  const auto deadline = clock_.Steady() + std::chrono::seconds(200);
  while (clock_.Steady() < deadline) {
    const SteadyTime before = clock_.Steady();
    const int tried = Tried();
    Step();
    if (Tried() > tried) attempts.emplace_back(before, clock_.Steady());
  }
  ASSERT_GE(attempts.size(), 11u);
  milliseconds wait(250);
  for (size_t i = 1; i < attempts.size(); ++i, wait = std::min<milliseconds>(2 * wait, std::chrono::seconds(30))) {
    EXPECT_GE(attempts[i].second - attempts[i - 1].first, wait) << i;
    // A checkpoint that is held back is looked at every 5 s.
    EXPECT_LE(attempts[i].first - attempts[i - 1].second, wait + std::chrono::seconds(12)) << i;
  }
  // The reader goes, and the next one finds nobody in its way.
  reader_->Run("commit");
  StepFor(std::chrono::seconds(40));
  app_->Run("insert into t values(null, 'after')");
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 0u);
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
}

// A link that gives answers now and then, so that no lease ends, beside a writer that is faster than it.
class SlowLinkTest : public FollowerTest {
 protected:
  void Begin(bool allow_restart) {
    Make();
    checkpoint_bytes_ = 20 * uint64_t{4120};
    allow_restart_ = allow_restart;
    app_ = std::make_unique<Application>(path_, 5000);
    app_->Run("pragma wal_autocheckpoint=0; pragma synchronous=off; insert into t values(2, 'b')");
    Attach();
    controller_.swallow = [this](const v1::UploadRequest& request) { return slow_.load() && request.has_commit(); };
  }
  // Commits until `done`, which is told how large the WAL was at most, a step of the follower in another thread all the while.
  uint64_t WriteUntil(const std::function<bool(uint64_t wal_bytes)>& done) {
    std::atomic<bool> ended{false};
    std::thread steps([&] {
      while (!ended.load()) {
        if (follower_->Glance() || (std::chrono::steady_clock::now() >= follower_->peek_at() && follower_->Peek()))
          follower_->Step(cancel_);
        std::this_thread::sleep_for(milliseconds(1));
      }
    });
    uint64_t largest = 0;
    for (int i = 0; i < 60'000 && !done(largest); ++i) {
      app_->Run("insert into t values(null, randomblob(9000))");
      largest = std::max<uint64_t>(largest, std::filesystem::file_size(path_ + "-wal"));
    }
    ended.store(true);
    steps.join();
    return largest;
  }
  void ExpectAllInTheEnd() {
    slow_.store(false);
    clock_.Advance(behind_rest_);
    ASSERT_NO_FATAL_FAILURE(StepUntilGaps(2));
    EXPECT_EQ(home_.gaps[1], "BEHIND ended");
    Settle();
    ExpectShipped();
  }

  std::unique_ptr<Application> app_;
  std::atomic<bool> slow_{true};
};

TEST_F(SlowLinkTest, TheHoldEndsWhereFramesComeFasterThanTheyAreShipped) {
  behind_rest_ = milliseconds(60'000);
  Begin(false);
  WriteUntil([this](uint64_t) { return state() != v1::CAPTURE_STATE_FOLLOWING; });
  ASSERT_EQ(home_.gaps.size(), 1u);
  EXPECT_EQ(home_.gaps[0], "BEHIND");
  EXPECT_EQ(app_->Try("pragma wal_checkpoint(truncate)"), SQLITE_OK);
  EXPECT_EQ(std::filesystem::file_size(path_ + "-wal"), 0u) << "the agent is in nobody's way";
  ExpectAllInTheEnd();
}

// Each sync arrives, and brings more than is kept in memory meanwhile: no checkpoint ever comes about.
TEST_F(SlowLinkTest, TheHoldEndsWhereWhatComesDuringASyncIsNeverSmallEnoughToBeSaved) {
  behind_rest_ = milliseconds(60'000);
  most_behind_ = 300;  // times 20 frames: more than ever wait to be shipped
  slow_.store(false);
  Begin(false);
  std::atomic<int64_t> pages{0};
  controller_.on_request = [&](const v1::UploadRequest& request) {
    const int64_t from = pages.load();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (request.has_commit() && pages.load() < from + 1200 && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(milliseconds(1));
    if (request.has_commit()) clock_.Advance(milliseconds(3000));
    return absl::OkStatus();
  };
  WriteUntil([&](uint64_t) {
    pages += 3;
    return state() != v1::CAPTURE_STATE_FOLLOWING;
  });
  controller_.on_request = nullptr;
  ASSERT_EQ(home_.gaps.size(), 1u);
  EXPECT_EQ(home_.gaps[0], "BEHIND");
  EXPECT_EQ(app_->Try("pragma wal_checkpoint(truncate)"), SQLITE_OK);
  ExpectAllInTheEnd();
}

TEST_F(SlowLinkTest, ARestartBoundsTheWalAlsoWhereNothingCanBeShipped) {
  behind_rest_ = milliseconds(60'000);
  Begin(true);
  const CrashLog passed(Path("passed"));
  uint64_t written = 0;
  const uint64_t largest = WriteUntil([&](uint64_t wal_bytes) {
    written += 3 * uint64_t{4120};  // at least
    return passed.Count("follow.restart_advanced") >= 2 && written > 2 * wal_bytes;
  });
  ASSERT_GE(home_.gaps.size(), 1u);
  EXPECT_EQ(home_.gaps[0], "BEHIND");
  EXPECT_LT(largest, written / 2) << "nobody started it over";
  ExpectAllInTheEnd();
}

}  // namespace
}  // namespace litefleet::follow
