#include "agent/upload/backup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <atomic>
#include <filesystem>
#include <random>
#include <set>
#include <thread>

#include "agent/capture/online_source.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/io/file.h"
#include "fmt/format.h"
#include "tests/fakes/fake_upload_controller.h"

namespace litefleet::upload {
namespace {

using std::chrono::milliseconds;

constexpr uint32_t kPage = 4096;

std::string RandomContent(size_t extents, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string content(extents * format::kExtentBytes, '\0');
  // Half of it compresses.
  for (size_t at = 0; at < content.size(); at += 16) {
    const uint64_t value = random();
    std::memcpy(content.data() + at, &value, sizeof value);
  }
  return content;
}

// Yields `content`, which may be given an error in the middle.
class FakeSource final : public capture::PageSource {
 public:
  FakeSource(std::string content, bool wal) : content_(std::move(content)) {
    info_.page_size = kPage;
    info_.page_count = static_cast<uint32_t>(content_.size() / kPage);
    info_.wal = wal;
    ++open;
  }
  ~FakeSource() override { Close().IgnoreError(); }
  const capture::SourceInfo& info() const override { return info_; }
  absl::StatusOr<std::optional<capture::ExtentPages>> Next() override {
    if (next_ == fail_at) return failure;
    if (pause.count() > 0) std::this_thread::sleep_for(pause);
    const size_t begin = next_ * format::kExtentBytes;
    if (begin >= content_.size()) return std::nullopt;
    const size_t size = std::min<size_t>(format::kExtentBytes, content_.size() - begin);
    return capture::ExtentPages{static_cast<uint32_t>(next_++), AsBytes(content_).subspan(begin, size)};
  }
  absl::Status Close() override {
    if (!std::exchange(closed_, true)) --open;
    return absl::OkStatus();
  }
  const std::string& damage() const override { return damage_text; }
  std::chrono::nanoseconds pinned_for() const override { return milliseconds(5); }

  static inline std::atomic<int> open{0};  // sources that hold their lock
  size_t fail_at = SIZE_MAX;
  absl::Status failure;
  milliseconds pause{0};
  std::string damage_text;

 private:
  const std::string content_;
  capture::SourceInfo info_;
  size_t next_ = 0;
  bool closed_ = false;
};

class BackupTest : public testing::Test {
 protected:
  BackupTest() : directory_(testing::TempDir() + fmt::format("/lf-backup-{}", getpid())) {
    std::filesystem::create_directories(directory_);
    options_.backoff = {.first = milliseconds(5), .limit = milliseconds(20), .reset_after = milliseconds(1000)};
    options_.attempt.no_progress = std::chrono::seconds(20);
    options_.attempt.commit_wait = std::chrono::seconds(20);
    job_.operation_id = "01JDAAAAAAAAAAAAAAAAAAAAAA";
    job_.session_id = "01JDBBBBBBBBBBBBBBBBBBBBBB";
    job_.database = "app";
    job_.spool_file = directory_ + "/spool";
    job_.give_up_at = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    Content(RandomContent(40, 1), true);
  }
  ~BackupTest() override {
    EXPECT_EQ(FakeSource::open.load(), 0) << "a lock is left";
    EXPECT_TRUE(std::filesystem::is_empty(directory_)) << "a file is left";
    std::filesystem::remove_all(directory_);
  }

  void Content(std::string content, bool wal) {
    content_ = std::move(content);
    job_.open = [this, wal]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> {
      ++opened_;
      auto source = std::make_unique<FakeSource>(content_, wal);
      if (prepare_) prepare_(*source);
      return source;
    };
  }
  BackupOutcome Run() {
    last_ = {};
    return RunBackup(job_, options_, controller_, rate_, clock_, cancel_, [this](const v1::Progress& progress) {
      EXPECT_GE(progress.done_bytes(), last_.done_bytes());
      EXPECT_LE(progress.done_bytes(), progress.total_bytes());
      last_ = progress;
    });
  }
  void ExpectDone(const BackupOutcome& outcome) {
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(outcome.progress.done_bytes(), static_cast<int64_t>(content_.size()));
    EXPECT_EQ(outcome.progress.total_bytes(), static_cast<int64_t>(content_.size()));
    EXPECT_TRUE(controller_.Content() == content_);
    format::RootBuilder root(kPage, static_cast<uint32_t>(content_.size() / kPage));
    for (size_t at = 0; at < content_.size(); at += format::kExtentBytes) {
      root.Add(format::NameChunkOf(kPage, AsBytes(content_).subspan(at, std::min<size_t>(format::kExtentBytes, content_.size() - at))));
    }
    EXPECT_EQ(controller_.commits().back().root_digest(), root.Finish().AsString());
  }
  // A silence ends an attempt soon. On a slow machine this may also end one that was merely slow, so attempts are not counted exactly.
  void SoonTiredOfSilence() {
    options_.attempt.no_progress = options_.attempt.commit_wait = milliseconds(400);
    options_.attempt.slowest_link = int64_t{1} << 30;
  }
  // Cancels once `state` was reached; the backup must end soon.
  void CancelAfter(milliseconds delay) {
    std::thread canceller([this, delay] {
      std::this_thread::sleep_for(delay);
      cancel_.Cancel();
    });
    const auto began = std::chrono::steady_clock::now();
    const BackupOutcome outcome = Run();
    EXPECT_EQ(outcome.status.code(), absl::StatusCode::kCancelled) << outcome.status;
    EXPECT_LT(std::chrono::steady_clock::now() - began, delay + milliseconds(1500));
    canceller.join();
  }

  const std::string directory_;
  fakes::FakeUploadController controller_;
  BackupOptions options_;
  BackupJob job_;
  RateLimit rate_{0};
  RealClock clock_;
  CancelToken cancel_;
  std::string content_;
  std::function<void(FakeSource&)> prepare_;
  int opened_ = 0;
  v1::Progress last_;
};

TEST_F(BackupTest, SendsEverythingOnceAndNothingTheSecondTime) {
  ExpectDone(Run());
  EXPECT_EQ(controller_.received_chunks(), 40);
  EXPECT_LE(controller_.largest_message(), size_t{1} << 20);
  EXPECT_EQ(controller_.commits()[0].pages_sent(), content_.size() / kPage);
  last_.Clear();
  job_.session_id = "01JDCCCCCCCCCCCCCCCCCCCCCC";
  const BackupOutcome again = Run();
  ExpectDone(again);
  EXPECT_EQ(controller_.received_chunks(), 40);
  EXPECT_EQ(again.progress.wire_bytes(), 0);
  EXPECT_EQ(controller_.commits()[1].pages_sent(), 0u);
}

TEST_F(BackupTest, AShortLastExtentAndASmallDatabase) {
  for (const size_t bytes : {size_t{kPage}, size_t{format::kExtentBytes} + kPage, size_t{0}}) {
    last_.Clear();
    job_.session_id = NewUlid(clock_.Now());
    Content(RandomContent(2, bytes + 5).substr(0, bytes), true);
    ExpectDone(Run());
  }
}

TEST_F(BackupTest, StaysInTheWindow) {
  controller_.window_bytes = 600 << 10;
  ExpectDone(Run());
  EXPECT_LE(controller_.max_undurable(), 600 << 10);
}

TEST_F(BackupTest, ACutLinkResumesWithoutSendingAgain) {
  std::atomic<int> left{4};
  controller_.on_request = [&](const v1::UploadRequest& request) {
    if (request.has_chunks() && --left == 0) return Error(absl::StatusCode::kUnavailable, "", "cut");
    return absl::OkStatus();
  };
  ExpectDone(Run());
  EXPECT_EQ(controller_.streams(), 2);
  EXPECT_EQ(opened_, 2) << "the pin was let go in between";
  // What was on its way at the cut may come again.
  EXPECT_LE(controller_.received_chunks(), 40 + 8);
}

TEST_F(BackupTest, APauseLetsGoOfThePinAndGoesOnInTheSameSession) {
  std::atomic<int> left{4};
  std::atomic<bool> paused{false};
  std::atomic<int> asked{0};
  controller_.on_request = [&](const v1::UploadRequest& request) {
    if (request.has_chunks() && --left == 0) paused = true;
    return absl::OkStatus();
  };
  // It is over when it was seen from outside an upload: asked again and again with nothing pinned.
  job_.paused = [&] {
    if (paused && FakeSource::open.load() == 0 && ++asked == 3) paused = false;
    return paused.load();
  };
  std::vector<bool> waits;
  job_.waits = [&](bool begins) { waits.push_back(begins); };
  ExpectDone(Run());
  EXPECT_EQ(controller_.streams(), 2);
  EXPECT_EQ(opened_, 2) << "the pin was let go in between";
  EXPECT_FALSE(waits.empty()) << "others had their turn";
  EXPECT_LE(controller_.received_chunks(), 40 + 8);
}

TEST_F(BackupTest, APauseBeforeItBeginsOpensNothingAndEndsWithTheDay) {
  job_.paused = [] { return true; };
  job_.give_up_at = std::chrono::steady_clock::now() + milliseconds(200);
  EXPECT_EQ(ReasonOf(Run().status), "BACKUP_PAUSED");
  EXPECT_EQ(opened_, 0);
  EXPECT_EQ(last_.phase(), "paused");
  job_.give_up_at = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  CancelAfter(milliseconds(100));
  EXPECT_EQ(opened_, 0);
}

TEST_F(BackupTest, ADatabaseThatChangesBetweenAttemptsIsExact) {
  controller_.on_request = [&, cut = false](const v1::UploadRequest& request) mutable {
    if (!request.has_commit() || cut) return absl::OkStatus();
    cut = true;
    content_ = RandomContent(37, 2);
    return Error(absl::StatusCode::kUnavailable, "", "cut");
  };
  const BackupOutcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(controller_.Content() == content_);
}

TEST_F(BackupTest, ALostAnswerToTheCommitIsNoSecondSnapshot) {
  controller_.lose_answer = [cut = false](const v1::UploadRequest& request) mutable {
    return request.has_commit() && !std::exchange(cut, true);
  };
  ExpectDone(Run());
  EXPECT_EQ(controller_.streams(), 2);
  EXPECT_EQ(controller_.commits().size(), 1);
}

TEST_F(BackupTest, ACommitThatIsNotAnsweredIsSentAgain) {
  SoonTiredOfSilence();
  controller_.swallow = [cut = false](const v1::UploadRequest& request) mutable {
    return request.has_commit() && !std::exchange(cut, true);
  };
  ExpectDone(Run());
  EXPECT_GE(controller_.streams(), 2);
}

TEST_F(BackupTest, ASilentControllerIsLeftAndTriedAgain) {
  SoonTiredOfSilence();
  controller_.swallow = [cut = 0](const v1::UploadRequest& request) mutable { return request.has_chunks() && ++cut == 3; };
  ExpectDone(Run());
  EXPECT_GE(controller_.streams(), 2);
}

// A message takes longer than a silence may last: it is waited for as long as it takes on the slowest link.
TEST_F(BackupTest, ASlowLinkIsNoSilence) {
  Content(RandomContent(1, 4), true);
  options_.attempt.no_progress = milliseconds(1500);
  controller_.on_request = [this](const v1::UploadRequest& request) {
    if (request.has_chunks()) std::this_thread::sleep_for(2 * options_.attempt.no_progress);
    return absl::OkStatus();
  };
  ExpectDone(Run());
  EXPECT_EQ(controller_.streams(), 1);
}

// How long ago the state was is true when the commit leaves, and not when the last page was read: chunks go before it.
TEST_F(BackupTest, TheAgeGrowsWhileChunksGoBeforeTheCommit) {
  FakeClock clock;
  std::atomic<int64_t> left_at{0};
  controller_.on_request = [&](const v1::UploadRequest& request) {
    if (request.has_chunks()) clock.Advance(std::chrono::seconds(10));
    if (request.has_commit()) left_at = std::chrono::duration_cast<std::chrono::seconds>(clock.SinceBoot()).count();
    return absl::OkStatus();
  };
  const BackupOutcome outcome = RunBackup(job_, options_, controller_, rate_, clock, cancel_, [](const v1::Progress&) {});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  // The source was pinned when the machine started.
  EXPECT_EQ(controller_.commits()[0].age().seconds(), left_at.load());
}

TEST_F(BackupTest, GivesUpInTheEnd) {
  job_.give_up_at = std::chrono::steady_clock::now() + milliseconds(300);
  controller_.on_request = [](const v1::UploadRequest&) { return Error(absl::StatusCode::kUnavailable, "DOWN", "down"); };
  EXPECT_EQ(ReasonOf(Run().status), "DOWN");
}

TEST_F(BackupTest, ARefusalIsFinal) {
  controller_.on_request = [](const v1::UploadRequest&) { return Error(absl::StatusCode::kPermissionDenied, "DEVICE_REVOKED", "revoked"); };
  EXPECT_EQ(ReasonOf(Run().status), "DEVICE_REVOKED");
  EXPECT_EQ(controller_.streams(), 1);
}

TEST_F(BackupTest, AnErrorThatStaysIsNotTriedForever) {
  controller_.on_request = [](const v1::UploadRequest&) { return Error(absl::StatusCode::kInternal, "BUG", "bug"); };
  EXPECT_EQ(ReasonOf(Run().status), "BUG");
  EXPECT_EQ(controller_.streams(), options_.fruitless_attempts);
}

TEST_F(BackupTest, AnErrorOfTheSourceIsFinalAndKeepsItsReason) {
  prepare_ = [](FakeSource& source) {
    source.fail_at = 20;
    source.failure = Error(absl::StatusCode::kUnavailable, "DATABASE_BUSY", "busy");
  };
  EXPECT_EQ(ReasonOf(Run().status), "DATABASE_BUSY");
  EXPECT_EQ(opened_, 1);
  EXPECT_TRUE(controller_.commits().empty());
}

// The next run of a schedule may be a night away, and the lock a transaction of six seconds.
TEST_F(BackupTest, AScheduledRunComesBackToALockedDatabase) {
  job_.waits_for_locks = true;
  const auto busy = Error(absl::StatusCode::kUnavailable, "DATABASE_BUSY", "busy");
  const auto open = job_.open;
  job_.open = [&]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> {
    if (opened_ == 3) return open();
    ++opened_;
    return busy;
  };
  ExpectDone(Run());
  EXPECT_EQ(opened_, 4);
  opened_ = 0;
  last_ = {};
  job_.open = [&]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> {
    ++opened_;
    return busy;
  };
  EXPECT_EQ(ReasonOf(Run().status), "DATABASE_BUSY");
  EXPECT_EQ(opened_, 6);
}

TEST_F(BackupTest, DamageIsReportedWithTheSnapshot) {
  prepare_ = [](FakeSource& source) { source.damage_text = "page 3 is odd"; };
  ExpectDone(Run());
  EXPECT_EQ(controller_.commits()[0].source_check(), v1::CHECK_STATE_DAMAGED);
  EXPECT_EQ(controller_.commits()[0].source_check_message(), "page 3 is odd");
}

TEST_F(BackupTest, RollbackModeLetsGoBeforeAnythingIsSent) {
  Content(RandomContent(40, 3), false);
  std::atomic<int> open_at_begin{-1};
  controller_.on_request = [&](const v1::UploadRequest& request) {
    if (request.has_begin()) open_at_begin = FakeSource::open.load();
    return absl::OkStatus();
  };
  ExpectDone(Run());
  EXPECT_EQ(open_at_begin, 0);
  EXPECT_EQ(controller_.commits()[0].journal_mode(), v1::JOURNAL_MODE_ROLLBACK);
}

// A file of the device that does not come back is none of the link's errors, which are tried again for a day.
TEST_F(BackupTest, WhatIsLostOnTheDeviceIsReadAgainOnce) {
  Content(RandomContent(40, 3), false);
  controller_.on_request = [this, once = false](const v1::UploadRequest& request) mutable {
    if (request.has_begin() && !std::exchange(once, true)) std::filesystem::resize_file(job_.spool_file, 0);
    return absl::OkStatus();
  };
  ExpectDone(Run());
  EXPECT_EQ(opened_, 2);
  last_.Clear();
  opened_ = 0;
  job_.session_id = "01JDCCCCCCCCCCCCCCCCCCCCCC";
  Content(RandomContent(40, 4), false);
  controller_.on_request = [this](const v1::UploadRequest& request) {
    if (request.has_begin()) std::filesystem::resize_file(job_.spool_file, 0);
    return absl::OkStatus();
  };
  EXPECT_EQ(ReasonOf(Run().status), "FILE_TOO_SHORT");
  EXPECT_EQ(opened_, 2);
}

// One chunk that the controller wants, and that the device cannot read.
class UnreadableFeed final : public ChunkFeed {
 public:
  absl::StatusOr<std::optional<Chunk>> Next() override {
    if (std::exchange(given_, true)) return std::nullopt;
    Chunk chunk;
    chunk.runs = {{.first_page = 1, .page_count = 1}};
    chunk.raw_bytes = kPage;
    chunk.payload = std::make_shared<Unreadable>();
    return chunk;
  }
  v1::UploadCommit Commit() override { return {}; }
  std::chrono::nanoseconds pinned_since_boot() const override { return {}; }
  uint32_t page_size() const override { return kPage; }
  uint32_t page_count() const override { return 1; }
  int64_t read_bytes() const override { return 0; }

 private:
  struct Unreadable final : PackablePayload {
    absl::StatusOr<PackedChunk> Pack(format::ChunkCompressor&) override { return ErrnoError(EIO, "read /spooled"); }
    absl::StatusOr<std::string> Raw() const override { return ErrnoError(EIO, "read /spooled"); }
  };
  bool given_ = false;
};

TEST_F(BackupTest, WhatWasSpooledAndCannotBeReadEndsAtOnce) {
  SpooledSource spooled;
  int opened = 0;
  spooled.open = [&]() -> absl::StatusOr<std::unique_ptr<ChunkFeed>> {
    ++opened;
    return std::make_unique<UnreadableFeed>();
  };
  job_.spooled = &spooled;
  EXPECT_EQ(ReasonOf(Run().status), "IO_ERROR");
  EXPECT_EQ(opened, 1);
}

TEST_F(BackupTest, RollbackModeReadsOnceHoweverOftenTheLinkIsCut) {
  Content(RandomContent(40, 3), false);
  controller_.on_request = [left = 9](const v1::UploadRequest& request) mutable {
    return request.has_chunks() && --left % 4 == 0 && left > 0 ? Error(absl::StatusCode::kUnavailable, "", "cut") : absl::OkStatus();
  };
  ExpectDone(Run());
  EXPECT_EQ(opened_, 1);
  EXPECT_GE(controller_.streams(), 2);
}

TEST_F(BackupTest, AStallIsTriedFiveTimesMore) {
  Content(RandomContent(40, 3), false);
  prepare_ = [](FakeSource& source) {
    source.fail_at = 7;
    source.failure = Error(absl::StatusCode::kFailedPrecondition, "WRITER_STALL", "2.1 s");
  };
  EXPECT_EQ(ReasonOf(Run().status), "WRITER_STALL");
  EXPECT_EQ(opened_, 6);
  prepare_ = [n = 0](FakeSource& source) mutable {
    if (++n == 1) source.fail_at = 7, source.failure = Error(absl::StatusCode::kFailedPrecondition, "WRITER_STALL", "2.1 s");
  };
  ExpectDone(Run());
}

TEST_F(BackupTest, ProgressGrowsUnderARateLimit) {
  rate_.SetRate(4 << 20);
  std::atomic<int> reports{0};
  const auto began = std::chrono::steady_clock::now();
  const BackupOutcome outcome = RunBackup(job_, options_, controller_, rate_, clock_, cancel_, [&](const v1::Progress& progress) {
    EXPECT_GE(progress.done_bytes(), last_.done_bytes());
    last_ = progress;
    ++reports;
  });
  ExpectDone(outcome);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  EXPECT_GE(seconds, static_cast<double>(outcome.progress.wire_bytes()) / (4 << 20) - 0.6);
  EXPECT_GE(reports.load(), 3);
}

TEST_F(BackupTest, ProgressGrowsWhileADatabaseInRollbackModeIsSpooled) {
  Content(RandomContent(40, 3), false);
  prepare_ = [](FakeSource& source) { source.pause = milliseconds(25); };
  std::set<int64_t> read, sent;
  const BackupOutcome outcome = RunBackup(job_, options_, controller_, rate_, clock_, cancel_, [&](const v1::Progress& progress) {
    EXPECT_GE(progress.done_bytes(), last_.done_bytes());
    EXPECT_LE(progress.done_bytes(), progress.total_bytes());
    last_ = progress;
    if (progress.phase() == "reading") read.insert(progress.done_bytes());
    if (progress.phase() == "uploading") sent.insert(progress.done_bytes());
  });
  ExpectDone(outcome);
  EXPECT_GE(read.size(), 3u);
  EXPECT_LE(*read.rbegin(), outcome.progress.total_bytes() / 2);
  ASSERT_FALSE(sent.empty());
  EXPECT_GE(*sent.rbegin(), outcome.progress.total_bytes() / 2);
}

TEST_F(BackupTest, CancelWhileOffline) {
  controller_.connected = false;
  CancelAfter(milliseconds(50));
}

TEST_F(BackupTest, CancelWhileReading) {
  prepare_ = [](FakeSource& source) { source.pause = milliseconds(20); };
  CancelAfter(milliseconds(150));
}

TEST_F(BackupTest, CancelWhileSpooling) {
  Content(RandomContent(40, 3), false);
  prepare_ = [](FakeSource& source) { source.pause = milliseconds(20); };
  CancelAfter(milliseconds(150));
}

TEST_F(BackupTest, CancelWhileTheControllerIsSilent) {
  controller_.swallow = [](const v1::UploadRequest& request) { return request.has_offer(); };
  CancelAfter(milliseconds(150));
}

TEST_F(BackupTest, CancelWhileCommitting) {
  controller_.swallow = [](const v1::UploadRequest& request) { return request.has_commit(); };
  CancelAfter(milliseconds(500));
}

TEST_F(BackupTest, CancelBetweenAttempts) {
  options_.backoff.first = options_.backoff.limit = std::chrono::seconds(20);
  controller_.on_request = [](const v1::UploadRequest&) { return Error(absl::StatusCode::kUnavailable, "DOWN", "down"); };
  CancelAfter(milliseconds(150));
}

TEST_F(BackupTest, AFullDiskEndsTheSpool) {
  Content(RandomContent(4, 3), false);
  options_.spool.reserve = io::DiskReserve(uint64_t{1} << 62);
  const absl::Status full = Run().status;
  EXPECT_EQ(ReasonOf(full), "DISK_FULL");
  EXPECT_THAT(HintOf(full), testing::HasSubstr("disk_reserve"));
}

TEST_F(BackupTest, AHugeReserveDoesNotWrapAround) {
  Content(RandomContent(4, 3), false);
  options_.spool.reserve = io::DiskReserve(UINT64_MAX);
  EXPECT_EQ(ReasonOf(Run().status), "DISK_FULL");
}

// The real source: what arrives is a database with the same content, in both journal modes.
class RealDatabaseTest : public BackupTest, public testing::WithParamInterface<const char*> {};

TEST_P(RealDatabaseTest, ArrivesExactly) {
  const std::string folder = directory_ + "-db";
  std::filesystem::create_directories(folder);
  const std::string path = folder + "/app.db";
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  const std::string sql = fmt::format(
      "pragma journal_mode={}; create table t(a, b); with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) "
      "insert into t select i, hex(randomblob(100)) from n; create index x on t(b);",
      GetParam());
  char* error = nullptr;
  ASSERT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &error), SQLITE_OK) << error;
  job_.open = [&]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> {
    capture::OnlineOptions options;
    options.path = path;
    options.clock = &clock_;
    options.allow_network_fs = true;
    return capture::OpenOnlineSource(options);
  };
  const BackupOutcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  const std::string copy = folder + "/copy.db";
  ASSERT_TRUE(io::WriteFileAtomic(copy, controller_.Content()).ok());
  sqlite3_close(db);
  ASSERT_EQ(sqlite3_open(copy.c_str(), &db), SQLITE_OK);
  sqlite3_stmt* check = nullptr;
  ASSERT_EQ(sqlite3_prepare_v2(db, "select (select count(*) from t), (select * from pragma_integrity_check)", -1, &check, nullptr),
            SQLITE_OK);
  ASSERT_EQ(sqlite3_step(check), SQLITE_ROW);
  EXPECT_EQ(sqlite3_column_int(check, 0), 20000);
  EXPECT_STREQ(reinterpret_cast<const char*>(sqlite3_column_text(check, 1)), "ok");
  sqlite3_finalize(check);
  sqlite3_close(db);
  std::filesystem::remove_all(folder);
}

INSTANTIATE_TEST_SUITE_P(Modes, RealDatabaseTest, testing::Values("wal", "delete"));

}  // namespace
}  // namespace litefleet::upload
