// Several databases on fewer threads than there are databases.
#include "agent/follow/capturing.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

class Memory final : public CaptureMemory {
 public:
  uint64_t Timeline(const std::string&) override { return 1; }
  FollowerHome::Rested Remembered(const std::string&) override { return {}; }
  void Remember(const std::string&, const FollowerHome::Rested&) override {}
  void CheckChain(const v1::ChainCheck&) override {}
  void Gap(const std::string& database, SystemTime, std::optional<SystemTime>, std::string_view reason, const std::string&) override {
    MutexLock lock(mu_);
    gaps_.push_back(database + " " + std::string(reason));
  }
  bool Told(const std::string& gap) const {
    MutexLock lock(mu_);
    return std::find(gaps_.begin(), gaps_.end(), gap) != gaps_.end();
  }

 private:
  mutable Mutex mu_;
  std::vector<std::string> gaps_ ABSL_GUARDED_BY(mu_);
};

class CapturingTest : public CaptureTest {
 protected:
  CapturingTest() { std::filesystem::create_directory(Path("state")); }
  ~CapturingTest() override { capturing_.reset(); }

  std::string PathOf(const std::string& name) const { return Path(name + ".db"); }
  void Start(std::chrono::seconds lease, milliseconds interval = milliseconds(100)) {
    for (const std::string name : {"first", "second"}) {
      Sql(PathOf(name), "pragma journal_mode=wal; create table t(id integer primary key, v); insert into t values(1, 'a')");
      apps_.push_back(std::make_unique<Application>(PathOf(name), 5000));
      apps_.back()->Run("insert into t values(2, 'b')");
      Followed& one = followed_.emplace_back();
      one.follow.database = name;
      one.follow.source = Options(PathOf(name));
      one.follow.interval = interval;
      one.follow.lease = lease;
      one.shipper.database = name;
      one.shipper.ledger_file = Path("state/" + name + ".ledger");
      one.shipper.names_file = Path("state/" + name + ".names");
      one.shipper.spool_file = Path("state/" + name + ".spool");
      one.shipper.backup.attempt.no_progress = std::chrono::seconds(60);
    }
    Capturing::Options options;
    options.shippers = 1;
    capturing_ = std::make_unique<Capturing>(options, memory_, controller_, rate_, clock_);
    ASSERT_TRUE(capturing_->Set(followed_).ok());
    Until([&] { return Follows("first") && Follows("second"); });
  }
  bool Follows(const std::string& name) const {
    const auto status = capturing_->StatusOf(name);
    return status.has_value() && status->health.state() == v1::CAPTURE_STATE_FOLLOWING && status->health.has_last_sync_at();
  }
  // The only thread is within a sync of the first that gets no answer, the second waits for it.
  void HoldUp() {
    controller_.swallow = [](const v1::UploadRequest& request) { return request.has_begin() && request.begin().database() == "first"; };
    const int streams = controller_.streams();
    apps_[0]->Run("insert into t values(3, 'c')");
    Until([&] { return controller_.streams() > streams; });
    apps_[1]->Run("insert into t values(3, 'c')");
    std::this_thread::sleep_for(milliseconds(300));  // three looks
  }
  static void Until(const std::function<bool()>& true_now) {
    for (int i = 0; i < 2000 && !true_now(); ++i) std::this_thread::sleep_for(milliseconds(10));
    ASSERT_TRUE(true_now());
  }

  std::vector<Followed> followed_;
  Memory memory_;
  fakes::FakeUploadController controller_;
  RateLimit rate_{0};
  std::vector<std::unique_ptr<Application>> apps_;
  std::unique_ptr<Capturing> capturing_;
};

TEST_F(CapturingTest, WhatWaitsForItsTurnCanBePaused) {
  Start(std::chrono::seconds(60));
  HoldUp();
  const auto began = std::chrono::steady_clock::now();
  ASSERT_TRUE(capturing_->Pause("second", "a restore").ok());
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(20)) << "it waited for the sync of the other one";
}

// Whoever has it paused has it to himself, whoever else lets go of it just then.
TEST_F(CapturingTest, ManyWhoPauseAtOnce) {
  Start(std::chrono::seconds(60));
  std::atomic<bool> ended{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      while (!ended) {
        const auto paused = capturing_->Pause("first", "a restore");
        ASSERT_TRUE(paused.ok()) << paused.status();
        for (int look = 0; look < 10; ++look) ASSERT_EQ(capturing_->StatusOf("first")->health.state(), v1::CAPTURE_STATE_RELEASED);
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::seconds(1));
  ended = true;
  for (std::thread& thread : threads) thread.join();
  Until([&] { return Follows("first"); });
}

// A reload takes its place while somebody waits to have it paused.
TEST_F(CapturingTest, WhatIsConfiguredAnewCanBePausedMeanwhile) {
  Start(std::chrono::seconds(60));
  std::atomic<bool> ended{false};
  std::thread pauses([&] {
    while (!ended) ASSERT_TRUE(capturing_->Pause("first", "a restore").ok());
  });
  for (int i = 0; i < 20; ++i) {
    for (Followed& one : followed_) one.follow.source.max_pin = milliseconds(100'000 + i);
    ASSERT_TRUE(capturing_->Set(followed_).ok());
  }
  ended = true;
  pauses.join();
  Until([&] { return Follows("first"); });
}

TEST_F(CapturingTest, AHoldEndsWhileItsDatabaseWaitsForItsTurn) {
  Start(std::chrono::seconds(2));
  HoldUp();
  Until([&] { return memory_.Told("second LEASE_EXPIRED"); });
  // The gap is told before the hold is let go; from then on the agent is in nobody's way.
  Until([&] {
    apps_[1]->Run("pragma wal_checkpoint(truncate)");
    return std::filesystem::file_size(PathOf("second") + "-wal") == 0;
  });
}

// Who comes and goes beside the application costs no syncs of his own; that the last one went is seen at once.
TEST_F(CapturingTest, BetweenTwoLooksOnlyWhoLeftIsLookedAt) {
  Start(std::chrono::seconds(60), std::chrono::hours(1));
  const int streams = controller_.streams();
  for (int i = 0; i < 20; ++i) {
    Application visitor(PathOf("first"), 5000);
    visitor.Run("insert into t values(null, 'v')");
    std::this_thread::sleep_for(milliseconds(30));
  }
  EXPECT_EQ(controller_.streams(), streams);
  apps_[0]->Run("close");
  Until([&] { return !std::filesystem::exists(PathOf("first") + "-wal"); });
  Until([&] { return controller_.streams() > streams; });
}

// As a restore puts another file into its place: the one of before has a name yet, so that its watch lives on.
TEST_F(CapturingTest, WhoLeavesTheFileInItsPlaceIsSeenAtOnce) {
  Start(std::chrono::seconds(60));
  const std::string path = PathOf("first");
  Application& app = *apps_[0];
  app.Run("close");
  Until([&] { return !std::filesystem::exists(path + "-wal"); });
  Sql(Path("new.db"), "pragma journal_mode=wal; create table t(id integer primary key, v); insert into t values(1, 'new')");
  std::filesystem::create_hard_link(path, Path("undo.db"));
  std::filesystem::rename(Path("new.db"), path);
  std::this_thread::sleep_for(milliseconds(500));
  for (int i = 0; i < 3; ++i) {
    app.Run("open");
    app.Run("insert into t values(null, 'x')");
    const auto began = std::chrono::steady_clock::now();
    Until([&] { return Follows("first"); });
    app.Run("close");
    Until([&] { return !std::filesystem::exists(path + "-wal"); });
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(10)) << "only the look every 30 s saw it";
  }
}

}  // namespace
}  // namespace litefleet::follow
