#include "agent/capture_home.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/proto_time.h"
#include "common/base/rate_limit.h"
#include "common/io/file.h"
#include "fmt/format.h"
#include "tests/fakes/fake_upload_controller.h"
#include "tests/unit/agent/follow/application.h"

namespace litefleet {
namespace {

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
  ~CaptureHomeTest() override {
    home_.reset();
    std::filesystem::remove_all(path_);
  }
  void Begin() { home_ = std::make_unique<CaptureHome>(*state_, clock_, "device", controller_, rate_, *gaps_); }

  const std::string path_;
  RealClock clock_;
  RateLimit rate_{0};
  fakes::FakeUploadController controller_;
  std::unique_ptr<state::StateDirectory> state_;
  std::unique_ptr<state::GapBook> gaps_;
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
    storage::v1::AgentCaptures captures;
    captures.set_format(1);
    storage::v1::AgentCapture& one = *captures.add_captures();
    one.set_database("app");
    one.set_health(health.SerializeAsString());
    ASSERT_TRUE(state_->WriteCaptures(captures.SerializeAsString()).ok());
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
  const auto until = [&](const std::function<bool()>& reached) {
    for (int i = 0; i < 3000 && !reached(); ++i) {
      home_->Tick(config_);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_TRUE(reached());
  };
  until([&] {
    const auto status = home_->StatusOf("app");
    return status->health.state() == v1::CAPTURE_STATE_FOLLOWING && status->health.has_last_sync_at();
  });
  const SystemTime synced = FromProtoTime(home_->StatusOf("app")->health.last_sync_at());
  until([&] { return home_->StatusOf("app")->unchanged_at > synced; });
  for (int i = 0; i < 2; ++i) home_->Stop();  // as the agent does
  Begin();
  const auto rested = home_->Remembered("app");
  EXPECT_GT(rested.known_until, synced);
  EXPECT_LE(rested.synced_at, synced);
}

// A release that runs when the agent ends is given back to what it is of.
TEST_F(CaptureHomeTest, AReleaseMayOutlastTheAgent) {
  ASSERT_TRUE(home_->Follow(config_).ok());
  ASSERT_TRUE(io::WriteFileAtomic(state_->ReleaseFile("app"), "3600").ok());
  home_->Tick(config_);
  ASSERT_EQ(io::ReadFile(state_->ReleaseFile("app"), 64).value_or(""), "released");
  home_.reset();
}

}  // namespace
}  // namespace litefleet
