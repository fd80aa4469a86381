// Backups by the method dump: read once, sent as often as it takes, found again by name.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <random>
#include <thread>
#include <vector>

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
  FakeText(const std::string& text, bool wal, uint64_t database_bytes) : text_(text) {
    info_.wal = wal;
    info_.page_size = 4096;
    info_.page_count = static_cast<uint32_t>(database_bytes / 4096);
  }
  const capture::SourceInfo& info() const override { return info_; }
  absl::StatusOr<ByteView> Next() override {
    std::this_thread::sleep_for(slow);
    if (pieces != nullptr) ++*pieces;
    if (at_ >= fails_at) LF_RETURN_IF_ERROR(failure);
    const ByteView piece = AsBytes(text_).subspan(at_, std::min<size_t>(10'000, text_.size() - at_));
    at_ += piece.size();
    return piece;
  }
  absl::Status Close() override { return absl::OkStatus(); }
  const std::string& damage() const override { return damage_; }
  std::chrono::nanoseconds pinned_for() const override { return milliseconds(5); }
  int64_t read_bytes() const override { return 4096; }

  void Detach() { info_.detached = true; }
  std::string note() const override { return at_ == text_.size() ? "it needs its application" : ""; }

  absl::Status failure;
  size_t fails_at = 0;
  milliseconds slow{0};
  int* pieces = nullptr;

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
      auto source = std::make_unique<FakeText>(text_, wal_, database_bytes_);
      source->failure = failure_;
      source->slow = slow_;
      source->pieces = &pieces_;
      return source;
    };
  }
  // From now on there can be a copy.
  void MayCopy() {
    job_.open_text_of_copy = [this]() -> absl::StatusOr<std::unique_ptr<capture::TextSource>> {
      ++copies_;
      LF_RETURN_IF_ERROR(copy_failure_);
      auto source = std::make_unique<FakeText>(text_, wal_, database_bytes_);
      source->Detach();
      source->failure = copy_read_failure_;
      source->fails_at = text_.size() / 2;
      return source;
    };
    job_.drop_copy = [this] { ++dropped_; };
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
  absl::Status copy_failure_;
  absl::Status copy_read_failure_;  // half way
  milliseconds slow_{0};            // a piece
  int opened_ = 0;
  int pieces_ = 0;  // read of the database itself
  int copies_ = 0;
  int dropped_ = 0;
  uint64_t database_bytes_ = 64 << 20;
  bool wal_ = true;
  BackupJob job_;
  BackupOptions options_;
  fakes::FakeUploadController controller_;
  RateLimit rate_{0};
  RealClock clock_;
  CancelToken cancel_;
};

TEST_F(TextBackup, TheControllerGetsTheTextAndWhatItIs) {
  job_.part = "tables a, b";
  job_.compatible = true;
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
  EXPECT_TRUE(commit.compatible());
  EXPECT_EQ(commit.page_count(), begin.page_count());
  EXPECT_EQ(commit.journal_mode(), v1::JOURNAL_MODE_WAL);
  EXPECT_EQ(outcome.progress.done_bytes(), outcome.progress.total_bytes());
  EXPECT_EQ(outcome.steps, std::vector<std::string>{"it needs its application"});
}

// A dump of minutes is not silent: what is read into the spool is half of the way.
TEST_F(TextBackup, ProgressGrowsWhileTheSpoolIsFilled) {
  slow_ = milliseconds(5);
  std::vector<v1::Progress> seen;
  const BackupOutcome outcome =
      RunBackup(job_, options_, controller_, rate_, clock_, cancel_, [&](const v1::Progress& progress) { seen.push_back(progress); });
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  int64_t done = 0;
  int steps = 0;
  for (const v1::Progress& progress : seen) {
    EXPECT_GE(progress.done_bytes(), done);
    if (progress.phase() == "reading" && progress.done_bytes() > done) {
      ++steps;
      EXPECT_EQ(progress.total_bytes(), 0) << "not known yet";
      EXPECT_LE(progress.done_bytes(), outcome.progress.total_bytes() / 2);
    }
    done = progress.done_bytes();
  }
  EXPECT_GE(steps, 2);
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

// Whoever reads in rollback mode keeps writers out: nobody waits for the network then.
TEST_F(TextBackup, WhatTheSpoolCannotHoldOfADatabaseInRollbackModeIsSaid) {
  wal_ = false;
  options_.spool.max_bytes = 100'000;
  const BackupOutcome outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "SPOOL_FULL") << outcome.status;
  EXPECT_NE(HintOf(outcome.status).find("spool_bytes"), std::string::npos);
  EXPECT_TRUE(outcome.outgrew_spool);
  EXPECT_EQ(outcome.outgrown_database_bytes, database_bytes_);
  EXPECT_EQ(opened_, 1);
  EXPECT_EQ(controller_.streams(), 0) << "nobody was told of what cannot be";
}

// The spool is not filled for nothing once more, nor a writer held up.
TEST_F(TextBackup, WhatDidNotFitIsNotReadAgainInRollbackMode) {
  wal_ = false;
  options_.spool.max_bytes = 100'000;
  job_.stream_text = true;
  job_.outgrown_database_bytes = 70 << 20;
  const BackupOutcome outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "SPOOL_FULL") << outcome.status;
  EXPECT_NE(HintOf(outcome.status).find("spool_bytes"), std::string::npos);
  EXPECT_TRUE(outcome.outgrew_spool);
  EXPECT_EQ(outcome.outgrown_database_bytes, uint64_t{70} << 20) << "as it was when it was tried";
  EXPECT_EQ(opened_, 1);
  EXPECT_EQ(pieces_, 0);
  EXPECT_EQ(controller_.streams(), 0);

  // Smaller by an eighth it may fit.
  database_bytes_ = 60 << 20;
  EXPECT_EQ(ReasonOf(Run().status), "SPOOL_FULL");
  EXPECT_GT(pieces_, 0);
  options_.spool.max_bytes = 100 << 20;
  const BackupOutcome fits = Run();
  ASSERT_TRUE(fits.status.ok()) << fits.status;
  EXPECT_FALSE(fits.outgrew_spool);
  EXPECT_EQ(Stored(), text_);
}

// It was sent in WAL mode, where that holds nobody up.
TEST_F(TextBackup, WhatWasSentWhileItWasReadIsNotSpooledWhenTheModeHasChanged) {
  options_.spool.max_bytes = 100'000;
  const BackupOutcome sent = Run();
  ASSERT_TRUE(sent.status.ok()) << sent.status;
  ASSERT_TRUE(sent.outgrew_spool);
  job_.stream_text = true;
  job_.outgrown_database_bytes = sent.outgrown_database_bytes;
  wal_ = false;
  pieces_ = 0;
  EXPECT_EQ(ReasonOf(Run().status), "SPOOL_FULL");
  EXPECT_EQ(pieces_, 0);
}

TEST_F(TextBackup, InRollbackModeACopyIsReadOfWhatTheSpoolCannotHold) {
  wal_ = false;
  options_.spool.max_bytes = 100'000;
  MayCopy();
  v1::UploadBegin begin;
  int chunks = 0;
  controller_.on_request = [&](const v1::UploadRequest& request) {
    if (request.has_begin()) begin = request.begin();
    if (request.has_chunks() && ++chunks == 2) return Error(absl::StatusCode::kUnavailable, "CUT", "cut");
    return absl::OkStatus();
  };
  const BackupOutcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(outcome.outgrew_spool);
  EXPECT_EQ(outcome.outgrown_database_bytes, database_bytes_);
  EXPECT_EQ(outcome.steps.size(), 3U);
  EXPECT_EQ(Stored(), text_);
  EXPECT_EQ(opened_, 1);
  EXPECT_EQ(copies_, 2) << "opened again after the cut";
  EXPECT_TRUE(begin.size_at_commit());
  EXPECT_EQ(begin.method(), v1::METHOD_DUMP);
  EXPECT_EQ(controller_.commits()[0].journal_mode(), v1::JOURNAL_MODE_ROLLBACK);

  // The next one reads nothing of the database itself.
  job_.stream_text = true;
  job_.outgrown_database_bytes = outcome.outgrown_database_bytes;
  job_.session_id = "01JDCCCCCCCCCCCCCCCCCCCCCC";
  pieces_ = 0;
  text_.insert(900'000, "-- a line more\n");
  ASSERT_TRUE(Run().status.ok());
  EXPECT_EQ(Stored(), text_);
  EXPECT_EQ(pieces_, 0);
}

TEST_F(TextBackup, WhatCannotBeCopiedEitherIsSaid) {
  wal_ = false;
  options_.spool.max_bytes = 100'000;
  MayCopy();
  copy_failure_ = Error(absl::StatusCode::kResourceExhausted, "SPOOL_FULL", "the copy is too large", "use the method online");
  BackupOutcome outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "SPOOL_FULL") << outcome.status;
  EXPECT_NE(MessageOf(outcome.status).find("the copy is too large"), std::string::npos) << outcome.status;
  EXPECT_NE(HintOf(outcome.status).find("spool_bytes"), std::string::npos);
  EXPECT_TRUE(outcome.outgrew_spool);
  EXPECT_EQ(copies_, 1);
  copy_failure_ = Error(absl::StatusCode::kResourceExhausted, "DISK_FULL", "no space");
  EXPECT_EQ(ReasonOf(Run().status), "DISK_FULL");
}

TEST_F(TextBackup, ACopyIsReadWhereWritersWouldWaitForTooLong) {
  wal_ = false;
  MayCopy();
  failure_ = Error(absl::StatusCode::kAborted, "WRITER_STALL", "too long");
  const BackupOutcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_FALSE(outcome.outgrew_spool) << "nothing is known of that";
  EXPECT_EQ(outcome.steps.size(), 2U);
  EXPECT_EQ(Stored(), text_);
  EXPECT_EQ(opened_, 1);
  EXPECT_EQ(copies_, 1);
}

TEST_F(TextBackup, WithoutACopyItIsTriedAgainWhereWritersWouldWaitForTooLong) {
  wal_ = false;
  MayCopy();
  failure_ = Error(absl::StatusCode::kAborted, "WRITER_STALL", "too long");
  options_.stall_retries = 2;
  for (const absl::Status& none : {Error(absl::StatusCode::kResourceExhausted, "SPOOL_FULL", "the copy is too large"),
                                   Error(absl::StatusCode::kUnimplemented, "UNNAMED_FILES", "no files without names there")}) {
    opened_ = copies_ = 0;
    copy_failure_ = none;
    EXPECT_EQ(ReasonOf(Run().status), "WRITER_STALL") << none;
    EXPECT_EQ(opened_, 3);
    EXPECT_EQ(copies_, 1);
  }
}

// What is written meanwhile takes the disk below its reserve: the copy goes, and the backup goes on as without one.
TEST_F(TextBackup, ACopyThatCannotBeKeptIsLetGo) {
  wal_ = false;
  MayCopy();
  failure_ = Error(absl::StatusCode::kAborted, "WRITER_STALL", "too long");
  copy_read_failure_ = Error(absl::StatusCode::kResourceExhausted, "COPY_GROWTH", "no space");
  // The writer was there once.
  job_.drop_copy = [this] {
    ++dropped_;
    failure_ = absl::OkStatus();
  };
  const BackupOutcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Stored(), text_);
  EXPECT_EQ(opened_, 2);
  EXPECT_EQ(copies_, 1);
  EXPECT_EQ(dropped_, 1);

  // What does not fit into the spool has no other way.
  options_.spool.max_bytes = 100'000;
  job_.session_id = "01JDCCCCCCCCCCCCCCCCCCCCCC";
  text_.insert(900'000, "-- a line more\n");
  EXPECT_EQ(ReasonOf(Run().status), "COPY_GROWTH");
}

// While the link is away nobody reads of the copy, and its disk fills up: it is let go, and taken anew.
TEST_F(TextBackup, ACopyThatCannotBeKeptIsLetGoWhileTheLinkIsAway) {
  wal_ = false;
  options_.spool.max_bytes = 100'000;
  MayCopy();
  controller_.on_request = [&](const v1::UploadRequest& request) {
    if (!request.has_chunks() || dropped_ > 0) return absl::OkStatus();
    controller_.connected = false;
    return Error(absl::StatusCode::kUnavailable, "CUT", "cut");
  };
  // Not before the upload has ended with the link: that would be the test above.
  job_.still_kept = [this] {
    return controller_.connected || !controller_.was_awaited ? absl::OkStatus()
                                                             : Error(absl::StatusCode::kResourceExhausted, "COPY_GROWTH", "no space");
  };
  job_.drop_copy = [this] {
    ++dropped_;
    controller_.connected = true;
  };
  const BackupOutcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Stored(), text_);
  EXPECT_EQ(dropped_, 1);
  EXPECT_EQ(copies_, 2);
}

// A link that is there and takes nothing.
TEST_F(TextBackup, ACopyThatCannotBeKeptEndsAnUploadThatWaits) {
  wal_ = false;
  options_.spool.max_bytes = 100'000;
  MayCopy();
  std::atomic<bool> waits{false};
  // Without an answer to its first offer it reads no more than a few chunks of the text.
  controller_.swallow = [&](const v1::UploadRequest& request) { return (waits = request.has_offer()); };
  job_.still_kept = [&] { return waits ? Error(absl::StatusCode::kResourceExhausted, "COPY_GROWTH", "no space") : absl::OkStatus(); };
  EXPECT_EQ(ReasonOf(Run().status), "COPY_GROWTH");
  EXPECT_EQ(copies_, 1);
  EXPECT_EQ(dropped_, 1);
}

// All of it was read, and its last chunks and the commit may take long: nobody needs the copy, and the backup does not end with it.
TEST_F(TextBackup, ACopyThatWasReadGoesAndTheUploadStays) {
  wal_ = false;
  options_.spool.max_bytes = 100'000;
  MayCopy();
  std::atomic<bool> committing{false}, dropped{false};
  controller_.on_request = [&](const v1::UploadRequest& request) {
    if (!request.has_commit()) return absl::OkStatus();
    committing = true;
    for (const SteadyTime until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
         !dropped && std::chrono::steady_clock::now() < until;)
      std::this_thread::sleep_for(milliseconds(1));
    return absl::OkStatus();
  };
  job_.still_kept = [&] {
    return !committing || dropped ? absl::OkStatus() : Error(absl::StatusCode::kResourceExhausted, "COPY_GROWTH", "no space");
  };
  job_.drop_copy = [&] { dropped = true; };
  const BackupOutcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(dropped);
  EXPECT_EQ(copies_, 1);
  EXPECT_EQ(Stored(), text_);
}

TEST_F(TextBackup, WhatTheSpoolCannotHoldIsSentWhileItIsRead) {
  options_.spool.max_bytes = 100'000;
  v1::UploadBegin begin;
  controller_.on_request = [&](const v1::UploadRequest& request) {
    if (request.has_begin()) begin = request.begin();
    return absl::OkStatus();
  };
  const BackupOutcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(outcome.outgrew_spool);
  EXPECT_EQ(outcome.steps.size(), 2U);
  EXPECT_EQ(Stored(), text_);
  EXPECT_EQ(opened_, 2);
  EXPECT_TRUE(begin.size_at_commit());
  EXPECT_EQ(begin.page_count(), 0U);
  EXPECT_GE(int64_t{controller_.commits()[0].page_count()} * 512, static_cast<int64_t>(text_.size()));
  EXPECT_EQ(outcome.progress.done_bytes(), outcome.progress.total_bytes());
  EXPECT_GE(outcome.progress.total_bytes(), static_cast<int64_t>(text_.size()));

  // The next one does not try it again, and shares what it has in common.
  const int64_t before = controller_.received_chunks();
  job_.stream_text = true;
  job_.session_id = "01JDCCCCCCCCCCCCCCCCCCCCCC";
  text_.insert(900'000, "-- a line more\n");
  ASSERT_TRUE(Run().status.ok());
  EXPECT_EQ(Stored(), text_);
  EXPECT_EQ(opened_, 3);
  EXPECT_LE(controller_.received_chunks() - before, 3);
}

TEST_F(TextBackup, FilesPinNothingAndAreSentWhileTheyAreRead) {
  wal_ = false;
  job_.text = v1::SNAPSHOT_CONTENT_FILES;
  job_.stream_text = true;
  const BackupOutcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(opened_, 1);
}

TEST_F(TextBackup, ACutLinkReadsAgainWhatNobodyKeeps) {
  job_.stream_text = true;
  int chunks = 0;
  controller_.on_request = [&](const v1::UploadRequest& request) {
    if (request.has_chunks() && ++chunks == 2) return Error(absl::StatusCode::kUnavailable, "CUT", "cut");
    return absl::OkStatus();
  };
  const BackupOutcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(opened_, 2);
  EXPECT_EQ(Stored(), text_);
}

TEST_F(TextBackup, AnOlderControllerCannotBeSentWhatHasNoSizeYet) {
  controller_.can_size_at_commit = false;
  options_.spool.max_bytes = 100'000;
  int offers = 0;
  controller_.on_request = [&](const v1::UploadRequest& request) {
    offers += request.has_offer() ? 1 : 0;
    return absl::OkStatus();
  };
  const BackupOutcome outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "CONTROLLER_TOO_OLD") << outcome.status;
  EXPECT_EQ(offers, 0);
}

TEST_F(TextBackup, AnErrorOfTheSourceEndsWhatIsSentWhileItIsRead) {
  job_.stream_text = true;
  failure_ = Error(absl::StatusCode::kDataLoss, "DATABASE_DAMAGED", "malformed");
  EXPECT_EQ(ReasonOf(Run().status), "DATABASE_DAMAGED");
  EXPECT_EQ(opened_, 1);
}

TEST_F(TextBackup, AnErrorOfTheSourceIsTheBackups) {
  failure_ = Error(absl::StatusCode::kDataLoss, "DATABASE_DAMAGED", "malformed");
  EXPECT_EQ(ReasonOf(Run().status), "DATABASE_DAMAGED");
  EXPECT_EQ(opened_, 1);
}

}  // namespace
}  // namespace litefleet::upload
