#include "agent/capture_home.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "agent/capture/lock_table.h"
#include "common/base/proto_time.h"
#include "common/base/rate_limit.h"
#include "common/io/file.h"
#include "fmt/format.h"
#include "tests/fakes/fake_upload_controller.h"
#include "tests/unit/agent/follow/application.h"

namespace litefleet {
namespace {

// The real one, which a test may put forward.
class AheadClock final : public Clock {
 public:
  SystemTime Now() const override { return real_.Now() + ahead(); }
  SteadyTime Steady() const override { return real_.Steady() + ahead(); }
  std::chrono::nanoseconds SinceBoot() const override { return real_.SinceBoot() + ahead(); }
  void Advance(std::chrono::nanoseconds by) { ahead_ns_ += by.count(); }

 private:
  std::chrono::nanoseconds ahead() const { return std::chrono::nanoseconds(ahead_ns_.load()); }

  RealClock real_;
  std::atomic<int64_t> ahead_ns_{0};
};

class CaptureHomeTest : public testing::Test {
 protected:
  CaptureHomeTest() : path_(testing::TempDir() + fmt::format("/lf-capture-home-{}", getpid())) {
    std::filesystem::create_directory(path_);
    auto state = state::StateDirectory::Open(path_);
    EXPECT_TRUE(state.ok()) << state.status();
    state_ = std::make_unique<state::StateDirectory>(*std::move(state));
    std::vector<std::string> damaged;
    auto gaps = state::GapBook::Open(state_->gaps_path(), damaged);
    EXPECT_TRUE(gaps.ok()) << gaps.status();
    gaps_ = *std::move(gaps);
    controller_.connected = false;
    config::DatabaseConfig database;
    database.name = "app";
    database.path = path_ + "/app.db";
    database.method = "continuous";
    config_.databases.push_back(database);
    Begin();
  }

 public:
  ~CaptureHomeTest() override {
    home_.reset();
    std::filesystem::remove_all(path_);
  }

 protected:
  // An agent that is there already is killed.
  void Begin() {
    home_.reset();
    home_ = std::make_unique<CaptureHome>(*state_, clock_, "device", controller_, rate_, *gaps_, spool_.get());
  }
  void Until(const std::function<bool()>& reached) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!reached() && std::chrono::steady_clock::now() < deadline) {
      home_->Tick(config_);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_TRUE(reached());
  }
  bool HasSynced() const {
    const auto status = home_->StatusOf("app");
    return status->health.state() == v1::CAPTURE_STATE_FOLLOWING && status->health.has_last_sync_at();
  }
  // What an agent that has ended left of its database.
  void Remember(const v1::CaptureHealth& health) {
    storage::v1::AgentCaptures captures;
    captures.set_format(1);
    storage::v1::AgentCapture& one = *captures.add_captures();
    one.set_database("app");
    one.set_health(health.SerializeAsString());
    ASSERT_TRUE(state_->WriteCaptures(captures.SerializeAsString()).ok());
  }

  const std::string path_;
  AheadClock clock_;
  RateLimit rate_{0};
  fakes::FakeUploadController controller_;
  std::unique_ptr<state::StateDirectory> state_;
  std::unique_ptr<state::GapBook> gaps_;
  std::unique_ptr<spool::SnapshotSpool> spool_;  // null: nothing is spooled
  config::AgentConfig config_;
  std::unique_ptr<CaptureHome> home_;
};

// What an agent does not run for is missed whether the database was open when it ended or not.
TEST_F(CaptureHomeTest, TheTimeOfTheLastSyncIsThatOfWhatWasCommitted) {
  const SystemTime acknowledged = FromUnixMillis(1'795'348'800'000);
  for (const auto capture_state : {v1::CAPTURE_STATE_FOLLOWING, v1::CAPTURE_STATE_DETACHED}) {
    v1::CaptureHealth health;
    health.set_state(capture_state);
    *health.mutable_last_sync_at() = ToProtoTime(acknowledged);
    *health.mutable_lag() = ToProtoDuration(std::chrono::milliseconds(7300));
    Remember(health);
    Begin();
    const auto rested = home_->Remembered("app");
    EXPECT_EQ(rested.synced_at, acknowledged - std::chrono::milliseconds(7300));
    EXPECT_FALSE(rested.agent_ran);
    ASSERT_TRUE(home_->Follow(config_).ok());
    EXPECT_TRUE(home_->Remembered("app").agent_ran) << "a reload is no time without the agent";
  }
}

// Nothing was committed for an hour, and then the agent was restarted: the hour is not missed.
TEST_F(CaptureHomeTest, AnEndInOrderKnowsHowFarItWasComplete) {
  follow::Application application(path_ + "/app.db");
  application.Run("pragma journal_mode=wal");
  application.Run("create table t(v)");
  controller_.connected = true;
  ASSERT_TRUE(home_->Follow(config_).ok());
  ASSERT_NO_FATAL_FAILURE(Until([&] { return HasSynced(); }));
  const SystemTime synced = FromProtoTime(home_->StatusOf("app")->health.last_sync_at());
  home_->Tick(config_);
  EXPECT_TRUE(home_->Remembered("app").synced_at.has_value()) << "an agent that is killed now could not tell that it was down";
  ASSERT_NO_FATAL_FAILURE(Until([&] { return home_->StatusOf("app")->unchanged_at > synced; }));
  for (int i = 0; i < 2; ++i) home_->Stop();  // as the agent does
  Begin();
  const auto rested = home_->Remembered("app");
  EXPECT_GT(rested.known_until, synced);
  EXPECT_LE(rested.synced_at, synced);
}

// The first snapshot may be at the controller, and the agent is killed before it hears of it.
TEST_F(CaptureHomeTest, BeforeTheFirstSyncAnAgentThatIsKilledWasDownSinceItTookTheDatabaseUp) {
  const SystemTime before = FromUnixMillis(ToUnixMillis(clock_.Now()));
  ASSERT_TRUE(home_->Follow(config_).ok());
  EXPECT_FALSE(home_->Remembered("app").known_until.has_value()) << "this agent was not down";
  home_->Tick(config_);
  for (int i = 0; i < 2; ++i) {
    Begin();  // as one that was killed, and one that was killed before its first sync too
    const auto rested = home_->Remembered("app");
    ASSERT_TRUE(rested.known_until.has_value());
    EXPECT_GE(*rested.known_until, before);
    EXPECT_LE(*rested.known_until, clock_.Now());
    EXPECT_FALSE(rested.synced_at.has_value());
    ASSERT_TRUE(home_->Follow(config_).ok());
    home_->Tick(config_);
    EXPECT_EQ(home_->Remembered("app").known_until, rested.known_until);
  }
}

// What was acknowledged is known by the ledger alone, as after a power cut, and the controller is away: nothing is acknowledged again
// before the agent is killed.
class WithoutASyncTest : public CaptureHomeTest {
 protected:
  WithoutASyncTest() : application_(path_ + "/app.db") {
    std::vector<std::string> said;
    auto spool = spool::SnapshotSpool::Open(state_->spooled_path(), *gaps_, clock_, said);
    EXPECT_TRUE(spool.ok()) << spool.status();
    spool_ = *std::move(spool);
    application_.Run("pragma journal_mode=wal");
    application_.Run("create table t(v)");
    // A look of less than a second ago counts, by a clock that no test puts forward: it may be that of another test, without this
    // application.
    capture::LocksOfLate(std::chrono::milliseconds(0));
  }

 public:
  ~WithoutASyncTest() override { home_.reset(); }

 protected:
  void ForgetCaptures() { EXPECT_TRUE(std::filesystem::remove(path_ + "/capture.state")); }
  void SyncAndForget() {
    controller_.connected = true;
    Begin();
    ASSERT_TRUE(home_->Follow(config_).ok());
    ASSERT_NO_FATAL_FAILURE(Until([&] { return HasSynced(); }));
    home_.reset();
    ForgetCaptures();
    controller_.connected = false;
    Begin();
    ASSERT_TRUE(home_->Follow(config_).ok());
  }
  // Until it goes on without the controller, and what it knows has been written down.
  void Capture(const std::function<bool()>& captured) {
    ASSERT_NO_FATAL_FAILURE(Until([&] {
      clock_.Advance(std::chrono::milliseconds(50));
      return home_->StatusOf("app")->known_until.has_value() && captured();
    }));
    EXPECT_FALSE(home_->StatusOf("app")->health.has_last_sync_at());
    clock_.Advance(std::chrono::seconds(11));
    home_->Tick(config_);
  }

  follow::Application application_;
};

TEST_F(WithoutASyncTest, AnAgentThatIsKilledAgainBeforeItComparesWasDownSinceWhatIsSpooled) {
  ASSERT_NO_FATAL_FAILURE(SyncAndForget());
  application_.Run("insert into t values(1)");
  ASSERT_NO_FATAL_FAILURE(Capture([&] { return spool_->UsageOf("app").snapshots > 0; }));
  home_.reset();
  const SystemTime killed = clock_.Now();
  const auto nothing_is_compared = spool_->TryUse("app");
  ASSERT_TRUE(nothing_is_compared.has_value());
  for (const bool forgotten : {false, true}) {
    if (forgotten) ForgetCaptures();
    for (int i = 0; i < 2; ++i) {
      clock_.Advance(std::chrono::minutes(1));
      Begin();
      ASSERT_TRUE(home_->Follow(config_).ok());
      home_->Tick(config_);
    }
    const auto rested = home_->Remembered("app");
    ASSERT_TRUE(rested.known_until.has_value());
    EXPECT_LE(*rested.known_until, killed);
    EXPECT_GT(*rested.known_until, killed - std::chrono::minutes(10)) << "what was spooled is known";
    home_.reset();
  }
}

// There is nothing new, and so nothing in the spool that would tell.
TEST_F(WithoutASyncTest, AnAgentThatIsKilledWasDownSinceItFoundNothingNew) {
  ASSERT_NO_FATAL_FAILURE(SyncAndForget());
  ASSERT_NO_FATAL_FAILURE(Capture([] { return true; }));
  EXPECT_EQ(spool_->UsageOf("app").snapshots, 0u);
  home_.reset();
  const SystemTime killed = clock_.Now();
  clock_.Advance(std::chrono::minutes(1));
  Begin();
  ASSERT_TRUE(home_->Follow(config_).ok());
  const auto rested = home_->Remembered("app");
  ASSERT_TRUE(rested.known_until.has_value());
  EXPECT_LE(*rested.known_until, killed);
}

// What rests is looked at in each interval, and flash is written for it every few minutes; what was spooled is known soon.
TEST_F(WithoutASyncTest, UntilWhenNothingIsNewIsWrittenDownRarely) {
  config_.databases[0].sync_interval = std::chrono::milliseconds(50);
  ASSERT_NO_FATAL_FAILURE(SyncAndForget());
  ASSERT_NO_FATAL_FAILURE(Capture([] { return true; }));
  const std::string file = path_ + "/capture.state";
  // Less than a lease: what waits just then for a thread would be let go of.
  constexpr std::chrono::seconds kStep{20};
  const auto looks_again = [&] {
    const auto known = home_->StatusOf("app")->known_until->at;
    clock_.Advance(kStep);
    Until([&] { return home_->StatusOf("app")->known_until->at > known + kStep - std::chrono::seconds(1); });
  };
  const auto written = [&] { return io::ReadFile(file, 1 << 20).value_or(""); };
  ASSERT_NO_FATAL_FAILURE(looks_again());
  int writes = 0;
  for (auto gone = std::chrono::seconds(0); gone < std::chrono::hours(1); gone += kStep) {
    const std::string before = written();
    ASSERT_NO_FATAL_FAILURE(looks_again());
    home_->Tick(config_);
    if (written() != before) ++writes;
  }
  EXPECT_GE(writes, 5);
  EXPECT_LE(writes, 20);
  application_.Run("insert into t values(1)");
  const SystemTime committed = clock_.Now();
  ASSERT_NO_FATAL_FAILURE(
      Until([&] { return spool_->UsageOf("app").snapshots > 0 && home_->StatusOf("app")->known_until->at > committed; }));
  clock_.Advance(std::chrono::seconds(11));
  home_->Tick(config_);
  home_.reset();
  Begin();
  ASSERT_TRUE(home_->Follow(config_).ok());
  EXPECT_GE(home_->Remembered("app").known_until, committed - std::chrono::seconds(2));
}

// A release that runs when the agent ends is given back to what it is of.
TEST_F(CaptureHomeTest, AReleaseMayOutlastTheAgent) {
  ASSERT_TRUE(home_->Follow(config_).ok());
  ASSERT_TRUE(io::WriteFileAtomic(state_->ReleaseFile("app"), "3600").ok());
  home_->Tick(config_);
  ASSERT_TRUE(io::ReadFile(state_->ReleaseFile("app"), 64).value_or("").starts_with("released "));
  home_.reset();
  // The next start keeps to it before anything is attached, and not to what nobody waits for any more.
  ASSERT_TRUE(io::WriteFileAtomic(state_->ReleaseFile("other"), "3600").ok());
  ASSERT_TRUE(state_->ClearSpool().ok());
  EXPECT_FALSE(std::filesystem::exists(state_->ReleaseFile("other")));
  Begin();
  ASSERT_TRUE(home_->Follow(config_).ok());
  EXPECT_EQ(home_->StatusOf("app")->health.state(), v1::CAPTURE_STATE_RELEASED);
  home_->Tick(config_);
  EXPECT_EQ(home_->StatusOf("app")->health.state(), v1::CAPTURE_STATE_RELEASED);
  EXPECT_TRUE(std::filesystem::exists(state_->ReleaseFile("app")));
}

// Its end is a time of a clock that has been put back since.
TEST_F(CaptureHomeTest, AReleaseLastsNoLongerThanItWasAskedFor) {
  const std::string file = state_->ReleaseFile("app");
  const SystemTime late = clock_.Now() + std::chrono::hours(24 * 365 * 40);
  ASSERT_TRUE(io::WriteFileAtomic(file, fmt::format("released {} 300", ToUnixMillis(late))).ok());
  ASSERT_TRUE(home_->Follow(config_).ok());
  ASSERT_NO_FATAL_FAILURE(
      Until([&] { return !std::filesystem::exists(file) && home_->StatusOf("app")->health.state() != v1::CAPTURE_STATE_RELEASED; }));
}

// It was taken by an agent that wrote no length.
TEST_F(CaptureHomeTest, AReleaseOfAnAgentOfBeforeIsKeptTo) {
  const std::string file = state_->ReleaseFile("app");
  ASSERT_TRUE(io::WriteFileAtomic(file, fmt::format("released {}", ToUnixMillis(clock_.Now()) + 600'000)).ok());
  ASSERT_TRUE(home_->Follow(config_).ok());
  EXPECT_EQ(home_->StatusOf("app")->health.state(), v1::CAPTURE_STATE_RELEASED);
  EXPECT_TRUE(std::filesystem::exists(file));
  // But no longer than one may be asked for.
  Begin();
  const SystemTime late = clock_.Now() + std::chrono::hours(24 * 365 * 40);
  ASSERT_TRUE(io::WriteFileAtomic(file, fmt::format("released {}", ToUnixMillis(late))).ok());
  ASSERT_TRUE(home_->Follow(config_).ok());
  EXPECT_EQ(home_->StatusOf("app")->health.state(), v1::CAPTURE_STATE_RELEASED);
  clock_.Advance(std::chrono::hours(1));
  ASSERT_NO_FATAL_FAILURE(
      Until([&] { return !std::filesystem::exists(file) && home_->StatusOf("app")->health.state() != v1::CAPTURE_STATE_RELEASED; }));
}

TEST_F(CaptureHomeTest, AReleaseThatIsOverIsNotTakenUpAgain) {
  const std::string file = state_->ReleaseFile("app");
  ASSERT_TRUE(io::WriteFileAtomic(file, fmt::format("released {} 300000", ToUnixMillis(clock_.Now()) - 1000)).ok());
  ASSERT_TRUE(home_->Follow(config_).ok());
  EXPECT_NE(home_->StatusOf("app")->health.state(), v1::CAPTURE_STATE_RELEASED);
  EXPECT_FALSE(std::filesystem::exists(file));
}

// Asked for once more while it runs, it begins anew.
TEST_F(CaptureHomeTest, AReleaseCanBeMadeLonger) {
  const std::string file = state_->ReleaseFile("app");
  ASSERT_TRUE(home_->Follow(config_).ok());
  const auto until_after = [&](const char* asked) -> int64_t {
    EXPECT_TRUE(io::WriteFileAtomic(file, asked).ok());
    home_->Tick(config_);
    const std::string text = io::ReadFile(file, 64).value_or("");
    return text.starts_with("released ") ? std::stoll(text.substr(9)) : 0;
  };
  const int64_t first = until_after("600");
  EXPECT_GT(first, ToUnixMillis(clock_.Now()) + 500'000);
  EXPECT_GT(until_after("3000"), first + 2'000'000);
  EXPECT_EQ(home_->StatusOf("app")->health.state(), v1::CAPTURE_STATE_RELEASED);
}

// The clock was put back while the gap lasted: it begins at the earlier of its two times, and not when it was told first.
TEST_F(CaptureHomeTest, AGapThatEndsBeforeItBeganIsAllOfBoth) {
  const SystemTime told = FromUnixMillis(1'795'348'800'000), back = told - std::chrono::hours(1);
  home_->Gap("app", {told}, std::nullopt, "LEASE_EXPIRED", "why");
  home_->Gap("app", {back}, follow::Moment{told}, "LEASE_EXPIRED", "why");
  EXPECT_TRUE(gaps_->OpenGaps("app").empty());
  const auto gap = gaps_->NextUnrecorded();
  ASSERT_TRUE(gap.has_value());
  EXPECT_EQ(FromProtoTime(gap->from()), back);
  EXPECT_EQ(FromProtoTime(gap->until()), told);
}

// A machine without a battery begins in 1970, captures, and lets go; then its clock is set. Both ends are of this boot.
TEST_F(CaptureHomeTest, TheTimesOfAGapAreThoseOfTheClockThatWasSetMeanwhile) {
  constexpr std::chrono::hours kSet(24 * 365 * 56);
  for (const bool told_at_once : {true, false}) {
    FakeClock clock;
    std::vector<std::string> damaged;
    const std::string folder = path_ + (told_at_once ? "/told" : "/not-told");
    std::filesystem::create_directory(folder);
    auto gaps = state::GapBook::Open(folder, damaged, &clock);
    ASSERT_TRUE(gaps.ok()) << gaps.status();
    CaptureHome home(*state_, clock, "device", controller_, rate_, **gaps);
    const auto from = follow::Moment::Now(clock);
    clock.Advance(std::chrono::minutes(3));
    if (told_at_once) home.Gap("app", from, std::nullopt, "LEASE_EXPIRED", "why");
    clock.JumpSystem(kSet);
    if (told_at_once) {
      const auto open = (*gaps)->NextUnrecorded();
      ASSERT_TRUE(open.has_value());
      EXPECT_EQ(FromProtoTime((*gaps)->OnThisClock(*open).from()), from.at + kSet);
    }
    clock.Advance(std::chrono::minutes(2));
    const auto until = follow::Moment::Now(clock);
    // A page diff ends it: the clock is set once more before it is acknowledged.
    clock.JumpSystem(std::chrono::hours(1));
    home.Gap("app", from, until, "LEASE_EXPIRED", "why");
    const auto gap = (*gaps)->NextUnrecorded();
    ASSERT_TRUE(gap.has_value() && gap->has_until());
    const v1::CoverageGap told = (*gaps)->OnThisClock(*gap);
    EXPECT_EQ(FromProtoTime(told.from()), from.at + kSet + std::chrono::hours(1));
    EXPECT_EQ(FromProtoTime(told.until()), until.at + std::chrono::hours(1));
  }
}

TEST_F(CaptureHomeTest, WhenTheChainWasCheckedOutlivesTheAgent) {
  v1::CaptureHealth health;
  const SystemTime checked = FromUnixMillis(1'795'348'800'000);
  *health.mutable_chain_checked_at() = ToProtoTime(checked);
  Remember(health);
  Begin();
  EXPECT_EQ(home_->Remembered("app").chain_checked_at, checked);
}

}  // namespace
}  // namespace litefleet
