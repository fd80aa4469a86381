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
  // Whatever asks stays here while it is blocked: as in a sync of the disk, which no cancel ends.
  uint64_t Timeline(const std::string&) override {
    MutexLock lock(mu_);
    ++waiting_;
    while (blocked_) changed_.Wait(mu_);
    --waiting_;
    return 1;
  }
  void Block(bool blocked) {
    MutexLock lock(mu_);
    blocked_ = blocked;
    changed_.SignalAll();
  }
  bool waiting() const {
    MutexLock lock(mu_);
    return waiting_ > 0;
  }
  FollowerHome::Rested Remembered(const std::string&) override { return {}; }
  void Remember(const std::string&, const FollowerHome::Rested&) override {}
  void CheckChain(const v1::ChainCheck&) override {}
  void Gap(const std::string& database, const Moment&, const std::optional<Moment>&, std::string_view reason, const std::string&) override {
    MutexLock lock(mu_);
    gaps_.push_back(database + " " + std::string(reason));
  }
  bool Told(const std::string& gap) const {
    MutexLock lock(mu_);
    return std::find(gaps_.begin(), gaps_.end(), gap) != gaps_.end();
  }

 private:
  mutable Mutex mu_;
  CondVar changed_;
  bool blocked_ ABSL_GUARDED_BY(mu_) = false;
  int waiting_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<std::string> gaps_ ABSL_GUARDED_BY(mu_);
};

class CapturingTest : public CaptureTest {
 protected:
  CapturingTest() { std::filesystem::create_directory(Path("state")); }
  ~CapturingTest() override {
    memory_.Block(false);
    capturing_.reset();
  }

  std::string PathOf(const std::string& name) const { return Path(name + ".db"); }
  // Syncs wait in a spool without the controller.
  void Spool() {
    std::filesystem::create_directory(Path("state/gaps"));
    std::vector<std::string> said;
    auto gaps = state::GapBook::Open(Path("state/gaps"), said);
    ASSERT_TRUE(gaps.ok()) << gaps.status();
    gaps_ = *std::move(gaps);
    auto spool = spool::SnapshotSpool::Open(Path("state/spooled"), *gaps_, clock_, said);
    ASSERT_TRUE(spool.ok()) << spool.status();
    spool_ = *std::move(spool);
  }
  void Start(std::chrono::seconds lease, milliseconds interval = milliseconds(100)) {
    for (const std::string name : {"first", "second"}) {
      Sql(PathOf(name), "pragma journal_mode=wal; create table t(id integer primary key, v); insert into t values(1, 'a')");
      apps_.push_back(std::make_unique<Application>(PathOf(name), 5000));
      apps_.back()->Run("insert into t values(2, 'b')");
      Followed& one = followed_.emplace_back();
      one.follow.database = name;
      one.follow.source = Options(PathOf(name));
      one.follow.interval = interval;
      one.follow.attach_after = milliseconds(0);
      one.follow.lease = lease;
      one.shipper.database = name;
      one.shipper.ledger_file = Path("state/" + name + ".ledger");
      one.shipper.names_file = Path("state/" + name + ".names");
      one.shipper.spool_file = Path("state/" + name + ".spool");
      one.shipper.backup.attempt.no_progress = std::chrono::seconds(60);
      one.shipper.snapshots = spool_.get();
    }
    Capturing::Options options;
    options.shippers = shippers_;
    options.take_wait = take_wait_;
    capturing_ = std::make_unique<Capturing>(options, memory_, controller_, rate_, clock_);
    ASSERT_TRUE(capturing_->Set(followed_, never_).ok());
    Until([&] { return Follows("second"); });
    if (awaited_) Until([&] { return Follows("first"); });
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

  const CancelToken never_;
  int shippers_ = 1;
  milliseconds take_wait_ = std::chrono::seconds(30);
  bool awaited_ = true;  // the first is followed before the test begins
  std::unique_ptr<state::GapBook> gaps_;
  std::unique_ptr<spool::SnapshotSpool> spool_;
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
  ASSERT_TRUE(capturing_->Pause("second", "a restore", never_).ok());
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
        const auto paused = capturing_->Pause("first", "a restore", never_);
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

// What captures it is where no cancel reaches it: whoever waits for that is not kept by it.
TEST_F(CapturingTest, ACancelEndsTheWaitForACaptureThatDoesNotLetGo) {
  Start(std::chrono::seconds(60));
  memory_.Block(true);
  apps_[0]->Run("insert into t values(3, 'c')");
  Until([&] { return memory_.waiting(); });
  for (const bool for_good : {true, false}) {
    CancelToken cancel;
    std::thread operator_([&] { for_good ? cancel.Cancel() : cancel.Interrupt(); });
    // Without the cancel it would wait until the test had ended.
    const auto paused = capturing_->Pause("first", "a restore", cancel, std::chrono::hours(1));
    EXPECT_EQ(ReasonOf(paused.status()), "CANCELLED");
    EXPECT_EQ(paused.status().code(), absl::StatusCode::kCancelled);
    operator_.join();
  }
  EXPECT_EQ(ReasonOf(capturing_->Pause("first", "a restore", never_, milliseconds(1)).status()), "CAPTURE_BUSY");
  // So is a reload that would let go of it: the agent ends.
  CancelToken ends;
  ends.Interrupt();
  for (Followed& one : followed_) one.follow.source.max_pin = milliseconds(100'001);
  EXPECT_EQ(ReasonOf(capturing_->Set(followed_, ends)), "CANCELLED");
}

TEST_F(CapturingTest, ACaptureThatWasNotLetGoOfGoesOn) {
  Start(std::chrono::seconds(60));
  memory_.Block(true);
  apps_[0]->Run("insert into t values(3, 'c')");
  Until([&] { return memory_.waiting(); });
  CancelToken cancel;
  cancel.Cancel();
  ASSERT_FALSE(capturing_->Pause("first", "a restore", cancel).ok());
  const int streams = controller_.streams();
  memory_.Block(false);
  Until([&] { return controller_.streams() > streams && Follows("first"); });
  // Who has it to himself is not refused for a cancel that came before.
  EXPECT_TRUE(capturing_->Pause("first", "a restore", never_).ok());
}

// A reload while what captures it is in a sync of the disk that hangs: there are never two of them.
TEST_F(CapturingTest, WhatDoesNotEndIsTakenUpByItsNewSettingsWhenItHas) {
  take_wait_ = milliseconds(1);
  shippers_ = 4;
  Start(std::chrono::seconds(60));
  memory_.Block(true);
  apps_[0]->Run("insert into t values(3, 'c')");
  Until([&] { return memory_.waiting(); });
  for (int reload = 0; reload < 2; ++reload) {
    followed_[0].follow.source.max_pin = milliseconds(100'001 + reload);
    ASSERT_TRUE(capturing_->Set(followed_, never_).ok());
    EXPECT_FALSE(capturing_->StatusOf("first").has_value());
    ASSERT_TRUE(capturing_->TakeUp().ok());
    EXPECT_FALSE(capturing_->StatusOf("first").has_value());
    EXPECT_EQ(ReasonOf(capturing_->Pause("first", "a restore", never_, milliseconds(1)).status()), "CAPTURE_BUSY");
  }
  memory_.Block(false);
  Until([&] {
    EXPECT_TRUE(capturing_->TakeUp().ok());
    return Follows("first");
  });
}

// A reload takes its place while somebody waits to have it paused.
TEST_F(CapturingTest, WhatIsConfiguredAnewCanBePausedMeanwhile) {
  Start(std::chrono::seconds(60));
  std::atomic<bool> ended{false};
  std::thread pauses([&] {
    while (!ended) ASSERT_TRUE(capturing_->Pause("first", "a restore", never_).ok());
  });
  for (int i = 0; i < 20; ++i) {
    for (Followed& one : followed_) one.follow.source.max_pin = milliseconds(100'000 + i);
    ASSERT_TRUE(capturing_->Set(followed_, never_).ok());
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

// A first backup that takes hours: what others have spooled goes up beside it.
TEST_F(CapturingTest, WhatIsSpooledIsUploadedBesideALongComparison) {
  shippers_ = 4;
  awaited_ = false;
  ASSERT_NO_FATAL_FAILURE(Spool());
  controller_.swallow = [](const v1::UploadRequest& request) { return request.has_begin() && request.begin().database() == "first"; };
  Start(std::chrono::seconds(60));
  Until([&] { return controller_.streams() >= 2; });
  controller_.connected = false;
  apps_[1]->Run("insert into t values(3, 'c')");
  Until([&] { return spool_->UsageOf("second").snapshots > 0; });
  controller_.connected = true;
  Until([&] { return spool_->UsageOf("second").snapshots == 0; });
  EXPECT_FALSE(capturing_->StatusOf("first")->health.has_last_sync_at()) << "it is compared still";
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

// With an hour between two syncs a checkpoint of the application that waits is seen within a second or so.
TEST_F(CapturingTest, WhoWaitsForAHoldDoesNotWaitForTheNextLook) {
  Start(std::chrono::seconds(60), std::chrono::hours(1));
  Application& app = *apps_[0];
  app.Run("endless");
  app.Run("pragma wal_autocheckpoint=0");
  for (const std::string kind : {"full", "restart", "truncate"}) {
    app.Run("insert into t values(null, randomblob(3000))");
    const auto began = std::chrono::steady_clock::now();
    EXPECT_EQ(app.Try("checkpoint " + kind), SQLITE_OK) << kind;
    EXPECT_LT(std::chrono::steady_clock::now() - began, kHeldUpAtMost) << kind;
  }
  // On a machine that is busy what was new may not have been sent in the time: it was let go then, and is followed again.
  Until([&] { return Follows("first"); });
  EXPECT_EQ(capturing_->StatusOf("first")->health.doubts(), 0u);
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
