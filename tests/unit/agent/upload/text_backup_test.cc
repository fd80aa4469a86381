// Backups by the method dump: read once, sent as often as it takes, found again by name.
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "agent/upload/backup.h"
#include "agent/upload/text_feed.h"
#include "common/base/status.h"
#include "common/format/segment.h"
#include "fmt/format.h"
#include "tests/fakes/fake_upload_controller.h"

namespace litefleet::upload {
namespace {

using std::chrono::milliseconds;

class FakeText final : public capture::TextSource {
 public:
  explicit FakeText(const std::string& text) : text_(text) { info_.wal = true; }
  const capture::SourceInfo& info() const override { return info_; }
  absl::StatusOr<ByteView> Next() override {
    LF_RETURN_IF_ERROR(failure);
    const ByteView piece = AsBytes(text_).subspan(at_, std::min<size_t>(10'000, text_.size() - at_));
    at_ += piece.size();
    return piece;
  }
  absl::Status Close() override { return absl::OkStatus(); }
  const std::string& damage() const override { return damage_; }
  std::chrono::nanoseconds pinned_for() const override { return milliseconds(5); }
  int64_t read_bytes() const override { return 4096; }

  absl::Status failure;

 private:
  const std::string text_;
  size_t at_ = 0;
  capture::SourceInfo info_;
  const std::string damage_;
};

std::string Rows(size_t bytes) {
  std::mt19937 random(1);
  std::string text;
  while (text.size() < bytes) text += "INSERT INTO t VALUES(" + std::to_string(random()) + ");\n";
  return text;
}

class TextBackup : public testing::Test {
 protected:
  TextBackup() : directory_(testing::TempDir() + fmt::format("/lf-text-{}", getpid())) {
    std::filesystem::create_directories(directory_);
    options_.backoff = {.first = milliseconds(5), .limit = milliseconds(20), .reset_after = milliseconds(1000)};
    options_.attempt.no_progress = std::chrono::seconds(20);
    job_.operation_id = "01JDAAAAAAAAAAAAAAAAAAAAAA";
    job_.session_id = "01JDBBBBBBBBBBBBBBBBBBBBBB";
    job_.database = "app";
    job_.method = v1::METHOD_DUMP;
    job_.spool_file = directory_ + "/spool";
    job_.give_up_at = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    job_.open_text = [this]() -> absl::StatusOr<std::unique_ptr<capture::TextSource>> {
      ++opened_;
      auto source = std::make_unique<FakeText>(text_);
      source->failure = failure_;
      return source;
    };
  }
  ~TextBackup() override {
    EXPECT_TRUE(std::filesystem::is_empty(directory_)) << "a file is left";
    std::filesystem::remove_all(directory_);
  }
  BackupOutcome Run() {
    return RunBackup(job_, options_, controller_, rate_, clock_, cancel_, [](const v1::Progress&) {});
  }
  std::string Stored() const {
    format::SegmentReader reader(format::Content::kSql);
    std::string text;
    const absl::Status read = reader.Add(AsBytes(controller_.Content()), [&](ByteView piece) {
      text += AsText(piece);
      return absl::OkStatus();
    });
    EXPECT_TRUE(read.ok() && reader.Finish().ok()) << read;
    return text;
  }

  const std::string directory_;
  std::string text_ = Rows(2'000'000);
  absl::Status failure_;
  int opened_ = 0;
  BackupJob job_;
  BackupOptions options_;
  fakes::FakeUploadController controller_;
  RateLimit rate_{0};
  RealClock clock_;
  CancelToken cancel_;
};

TEST_F(TextBackup, TheControllerGetsTheTextAndWhatItIs) {
  job_.part = "tables a, b";
  v1::UploadBegin begin;
  controller_.on_request = [&](const v1::UploadRequest& request) {
    if (request.has_begin()) begin = request.begin();
    return absl::OkStatus();
  };
  const BackupOutcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Stored(), text_);
  EXPECT_EQ(begin.method(), v1::METHOD_DUMP);
  EXPECT_EQ(begin.content(), v1::SNAPSHOT_CONTENT_SQL);
  EXPECT_EQ(begin.page_size(), 512u);
  EXPECT_FALSE(begin.compare());
  ASSERT_EQ(controller_.commits().size(), 1u);
  const v1::UploadCommit commit = controller_.commits()[0];
  EXPECT_EQ(commit.content_bytes(), static_cast<int64_t>(text_.size()));
  EXPECT_EQ(commit.part(), "tables a, b");
  EXPECT_EQ(commit.page_count(), begin.page_count());
  EXPECT_EQ(commit.journal_mode(), v1::JOURNAL_MODE_WAL);
  EXPECT_EQ(outcome.progress.done_bytes(), outcome.progress.total_bytes());
}

TEST_F(TextBackup, WhatTheControllerHasIsNotSentAgain) {
  ASSERT_TRUE(Run().status.ok());
  const int64_t before = controller_.received_chunks();
  text_.insert(900'000, "-- a line more\n");
  job_.session_id = "01JDCCCCCCCCCCCCCCCCCCCCCC";
  ASSERT_TRUE(Run().status.ok());
  EXPECT_EQ(Stored(), text_);
  EXPECT_LE(controller_.received_chunks() - before, 3);
}

TEST_F(TextBackup, ACutLinkDoesNotReadTheDatabaseAgain) {
  int chunks = 0;
  controller_.on_request = [&](const v1::UploadRequest& request) {
    if (request.has_chunks() && ++chunks == 1) return Error(absl::StatusCode::kUnavailable, "CUT", "cut");
    return absl::OkStatus();
  };
  const BackupOutcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(opened_, 1);
  EXPECT_EQ(controller_.streams(), 2);
  EXPECT_EQ(Stored(), text_);
}

TEST_F(TextBackup, WhatTheSpoolCannotHoldIsSaid) {
  options_.spool.max_bytes = 100'000;
  job_.open_precopy = {};
  const BackupOutcome outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "SPOOL_FULL") << outcome.status;
  EXPECT_NE(HintOf(outcome.status).find("spool_bytes"), std::string::npos);
  EXPECT_EQ(opened_, 1);
}

TEST_F(TextBackup, AnErrorOfTheSourceIsTheBackups) {
  failure_ = Error(absl::StatusCode::kDataLoss, "DATABASE_DAMAGED", "malformed");
  EXPECT_EQ(ReasonOf(Run().status), "DATABASE_DAMAGED");
  EXPECT_EQ(opened_, 1);
}

}  // namespace
}  // namespace litefleet::upload
