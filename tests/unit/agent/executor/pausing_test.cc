// What `[limits] pause_hook` and `compression_level` do to what a device uploads.
#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "agent/hooks/pause_watch.h"
#include "tests/unit/agent/executor/executor_fixture.h"

namespace litefleet {
namespace {

// A link that is metered from a certain message on, until an upload says that it pauses.
class PausingTest : public ExecutorTest {
 protected:
  void SetUp() override {
    ExecutorTest::SetUp();
    config_.pause_hook = "/etc/litefleet/pause";
    hooks_.answer = [this](const hooks::Hook& hook) {
      if (hook.name != "pause" || hook.program != config_.pause_hook) return 1;
      ++asked_;
      return metered_ ? hooks::kPauseExitCode : 0;
    };
    on_progress_ = [this](const v1::Progress& progress) {
      if (progress.phase() != "paused" || !metered_) return;
      ++paused_;
      metered_ = false;
    };
    controller_.on_request = [this](const v1::UploadRequest& request) {
      if (request.has_begin()) ++begins_[request.begin().session_id()];
      return absl::OkStatus();
    };
  }
  // From the chunks of the so-manieth session on nothing is answered any more, and the link is metered.
  void MeterAtSession(size_t session) {
    controller_.swallow = [this, session, done = false](const v1::UploadRequest& request) mutable {
      if (done || !request.has_chunks() || begins_.size() != session) return false;
      done = true;
      metered_ = true;
      return true;
    };
  }
  static std::vector<int> CodesOf(const v1::OperationResult& result) {
    std::vector<int> codes;
    for (const v1::HookRun& run : result.hooks()) codes.push_back(run.exit_code());
    return codes;
  }

  std::atomic<bool> metered_{false};
  std::atomic<int> asked_{0};
  std::atomic<int> paused_{0};
  std::map<std::string, int> begins_;  // of the controller's thread while something runs; by session, which is by age
};

TEST_F(PausingTest, AScheduledBackupLetsGoInTheMiddleAndGoesOn) {
  MeterAtSession(1);
  const v1::OperationResult result = Run();
  ASSERT_EQ(result.state(), v1::OPERATION_STATE_SUCCEEDED) << result.error().message();
  EXPECT_EQ(paused_, 1);
  ASSERT_EQ(begins_.size(), 1U) << "in the same session";
  EXPECT_EQ(begins_.begin()->second, 2);
  EXPECT_TRUE(controller_.Content() == FileContent());
  EXPECT_EQ(CodesOf(result), (std::vector<int>{0, hooks::kPauseExitCode, 0})) << "the changes are told";
}

TEST_F(PausingTest, ItDoesNotBeginWhileTheLinkIsMetered) {
  metered_ = true;
  controller_.on_request = [this](const v1::UploadRequest&) {
    EXPECT_FALSE(metered_);
    return absl::OkStatus();
  };
  EXPECT_EQ(Run().state(), v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_EQ(paused_, 1);
}

TEST_F(PausingTest, WhatIsSpooledLetsGoInTheMiddleAndGoesOn) {
  ASSERT_EQ(Run().state(), v1::OPERATION_STATE_SUCCEEDED);
  offline_ = true;
  for (const char* word : {"second", "third", "fourth"}) {
    Sql(std::string("insert into t values ('") + word + "')");
    Run();
  }
  ASSERT_EQ(spool_->Total().snapshots, 3U);
  const std::string content = FileContent();
  std::vector<std::string> sessions;
  for (const spool::SpooledSnapshot& snapshot : spool_->List("app")) sessions.push_back(snapshot.id());
  offline_ = false;
  begins_.clear();
  asked_ = 0;
  MeterAtSession(2);
  Run(/*drain=*/true);
  EXPECT_EQ(spool_->Total().snapshots, 0U);
  EXPECT_EQ(ended_.size(), 3U);
  EXPECT_TRUE(controller_.Content() == content);
  EXPECT_GE(asked_, 3) << "at the beginning, and while it lasts";
  EXPECT_EQ(paused_, 1);
  EXPECT_EQ(begins_, (std::map<std::string, int>{{sessions[0], 1}, {sessions[1], 2}, {sessions[2], 1}}));
}

TEST_F(PausingTest, AnOrderedBackupDoesNotAsk) {
  metered_ = true;
  EXPECT_EQ(RunOrdered().state(), v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_EQ(asked_, 0);
  EXPECT_TRUE(metered_);
}

// It would stay stopped for as long as the link is metered.
TEST_F(PausingTest, AnApplicationThatAHookHasStoppedIsNotLeftSo) {
  config_.databases[0].hooks.before_backup = "/etc/litefleet/hooks/stop";
  controller_.on_request = [this](const v1::UploadRequest& request) {
    if (!request.has_commit()) return absl::OkStatus();
    metered_ = true;
    // The second answer comes after the first one was taken in.
    for (const int before = asked_; asked_ < before + 2;) std::this_thread::yield();
    return absl::OkStatus();
  };
  EXPECT_EQ(Run().state(), v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_EQ(paused_, 0);
  EXPECT_TRUE(metered_);
}

class LevelTest : public ExecutorTest {
 protected:
  // Bytes of chunks on the wire for as much text, which is new each time.
  int64_t Sent(int level, bool full) {
    config_.compression_level = level;
    Write();
    received_ = 0;
    controller_.on_request = [this](const v1::UploadRequest& request) {
      for (const v1::ChunkData& chunk : request.chunks().chunks()) received_ += static_cast<int64_t>(chunk.data().size());
      return absl::OkStatus();
    };
    EXPECT_EQ(RunOrdered(full).state(), v1::OPERATION_STATE_SUCCEEDED);
    EXPECT_TRUE(controller_.Content() == FileContent());
    return received_;
  }
  void Write() {
    std::string sql = "begin; delete from t;";
    for (int row = 0; row < 200; ++row) {
      std::string text;
      while (text.size() < 4000) text += std::to_string(dice_() % 1000) + " items of kind " + std::to_string(dice_() % 50) + "\n";
      sql += "insert into t values ('" + text + "');";
    }
    Sql(sql + "commit");
  }

  std::mt19937_64 dice_{11};
  std::atomic<int64_t> received_{0};
};

TEST_F(LevelTest, OfTheConfigurationCountsForWhatIsNewAndForWhatHasChanged) {
  for (const bool full : {true, false}) {
    const int64_t fast = Sent(1, full);
    const int64_t small = Sent(19, full);
    EXPECT_GT(fast, 50'000) << full;
    EXPECT_LT(small * 100, fast * 90) << full;
  }
}

TEST_F(LevelTest, OfTheDatabaseIsStronger) {
  const int64_t fast = Sent(1, false);
  config_.databases[0].compression_level = 19;
  EXPECT_LT(Sent(1, false) * 100, fast * 90);
}

}  // namespace
}  // namespace litefleet
