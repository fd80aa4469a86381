// What a doubt costs: one reading of the database here, and of its pages only those on the wire that differ.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <string>

#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

class DoubtTest : public FollowerTest {
 protected:
  static constexpr int64_t kExtent = 256 << 10;

  DoubtTest() {
    Make();
    Sql(path_,
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000) insert into t select i + 1, randomblob(1000) from "
        "n");
    size_ = static_cast<int64_t>(capture::FileBytes(path_).size());
    controller_.on_request = [this](const v1::UploadRequest& request) {
      sent_ += static_cast<int64_t>(request.ByteSizeLong());
      return absl::OkStatus();
    };
    app_ = std::make_unique<Application>(path_);
    app_->Run("update t set v = 'b' where id = 2");
    Attach();
    Rest();
  }
  void Rest() {
    if (size_ < 7 * kExtent || sent_.load() < size_ / 2)
      GTEST_FAIL() << "of the first state, which has " << size_ << ", all is sent: " << sent_.load();
    sent_ = 0;
    chunks_ = controller_.received_chunks();
  }
  // Rows in the midst of it, each in a page of its own.
  static std::string Few() { return "update t set v = randomblob(1000) where id in (500, 1000, 1500)"; }
  void ExpectFollowedAgain(int64_t bytes, int64_t chunks) {
    StepWhile([&] { return state() != v1::CAPTURE_STATE_FOLLOWING; });
    Settle();
    ASSERT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING) << follower_->status().health.message();
    ASSERT_NO_FATAL_FAILURE(ExpectShipped());
    EXPECT_GT(controller_.received_chunks(), chunks_);
    EXPECT_LE(controller_.received_chunks() - chunks_, chunks);
    EXPECT_LE(sent_.load(), bytes) << "of a database of " << size_;
  }
  // Pages that differ, and not the extents that they are in.
  void ExpectPagesSent() { ExpectFollowedAgain(64 << 10, 6); }

  int64_t size_ = 0, chunks_ = 0;
  std::atomic<int64_t> sent_{0};
  std::unique_ptr<Application> app_;
};

TEST_F(DoubtTest, AnotherFileIsSentByThePagesInWhichItDiffers) {
  app_->Run("pragma wal_checkpoint(truncate)");
  const std::string other = Path("other.db");
  ASSERT_EQ(capture::Shell(fmt::format("cp '{}' '{}'", path_, other)), 0);
  Sql(other, Few());
  std::filesystem::rename(other, path_);
  for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
  Application newer(path_);
  newer.Run("update t set v = 'y' where id = 10");
  follower_->Notice();
  StepWhile([&] { return doubts() == 0; });
  EXPECT_EQ(doubts(), 1u);
  ExpectPagesSent();
}

TEST_F(DoubtTest, WhatTheAgentMissedIsSentByThePagesThatChanged) {
  Stop();
  app_->Run(Few() + "; pragma wal_checkpoint(truncate); update t set v = 'd' where id = 10");
  Start();
  ExpectPagesSent();
}

TEST_F(DoubtTest, AnotherJournalModeMeanwhileIsSentByThePagesThatChanged) {
  follower_->LetGo("released");
  app_->Run("pragma journal_mode=delete; " + Few() + "; pragma journal_mode=wal; update t set v = 'd' where id = 10");
  follower_->Resume();
  ExpectPagesSent();
}

// Nothing of the ledger is believed: names of all extents, and those of them that the controller does not have.
TEST_F(DoubtTest, AChainThatDiffersIsSentByTheExtentsThatDiffer) {
  Stop();
  prove_every_ = milliseconds(50);
  Start();
  StepWhile([&] { return home_.chain_checks.empty(); });
  ASSERT_FALSE(home_.chain_checks.empty());
  sent_ = 0;
  chunks_ = controller_.received_chunks();
  v1::ChainChecked answer;
  answer.set_database("app");
  answer.set_snapshot_id(home_.chain_checks.back().snapshot_id());
  answer.set_equal(false);
  follower_->ChainChecked(answer);
  app_->Run("update t set v = randomblob(1000) where id = 1000");
  StepWhile([&] { return doubts() == 0; });
  EXPECT_EQ(doubts(), 1u);
  ExpectFollowedAgain(2 * kExtent + (32 << 10), 2);
}

}  // namespace
}  // namespace litefleet::follow
