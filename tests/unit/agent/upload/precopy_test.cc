// How long a source is held does not depend on the network: a stream that spills, and rounds of pre-copying where the spool is too small.
#include <gmock/gmock.h>
#include <google/protobuf/util/time_util.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <random>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "agent/upload/backup.h"
#include "agent/upload/precopy_rounds.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"
#include "tests/fakes/fake_upload_controller.h"

namespace litefleet::upload {
namespace {

using std::chrono::milliseconds;

constexpr uint32_t kPage = 4096;
constexpr size_t kExtents = 40;

// A database in memory that changes while it is read ahead.
class Changing {
 public:
  explicit Changing(size_t extents) : content_(extents * format::kExtentBytes, '\0') { Change(content_.size() / kPage); }

  void Change(size_t pages) {
    MutexLock lock(mu_);
    for (size_t i = 0; i < pages; ++i) {
      const size_t page = pages * kPage == content_.size() ? i : random_() % (content_.size() / kPage);
      for (size_t at = 0; at < kPage; at += 16) {
        const uint64_t value = random_();
        std::memcpy(&content_[page * kPage + at], &value, sizeof value);
      }
    }
  }
  std::string Content() const { return MutexLock(mu_), content_; }

 private:
  mutable Mutex mu_;
  std::mt19937_64 random_{1};
  std::string content_;
};

// Pinned: one state until it is closed, counted in `open`. Not pinned: each extent as it is at that moment.
class Source final : public capture::PageSource {
 public:
  Source(const Changing& database, bool wal, bool pinned) : database_(database), pinned_(pinned), state_(database.Content()) {
    info_.page_size = kPage;
    info_.page_count = static_cast<uint32_t>(state_.size() / kPage);
    info_.wal = wal;
    if (pinned_) ++open;
  }
  ~Source() override { Close().IgnoreError(); }
  const capture::SourceInfo& info() const override { return info_; }
  absl::StatusOr<std::optional<capture::ExtentPages>> Next() override {
    const auto began = std::chrono::steady_clock::now();
    const absl::Cleanup counted = [&] { reading += std::chrono::steady_clock::now() - began; };
    std::this_thread::sleep_for(pause);
    if (pinned_ && on_next) on_next();
    if (next_ * format::kExtentBytes >= state_.size()) return std::nullopt;
    if (!pinned_) state_ = database_.Content();
    return capture::ExtentPages{static_cast<uint32_t>(next_),
                                AsBytes(state_).subspan(next_++ * format::kExtentBytes, format::kExtentBytes)};
  }
  absl::Status Close() override {
    if (pinned_ && !std::exchange(closed_, true)) {
      --open;
      pinned_for_ = std::chrono::steady_clock::now() - began_;
    }
    return absl::OkStatus();
  }
  const std::string& damage() const override { return damage_; }
  std::chrono::nanoseconds pinned_for() const override {
    if (!pinned_) return milliseconds(5);
    return closed_ ? pinned_for_ : std::chrono::steady_clock::now() - began_;
  }

  static inline std::atomic<int> open{0};
  static inline std::chrono::nanoseconds reading{0};  // by all of them
  milliseconds pause{0};                              // of each extent
  std::function<void()> on_next;                      // the same, where it is pinned

 private:
  const Changing& database_;
  const bool pinned_;
  const std::string damage_;
  std::string state_;
  capture::SourceInfo info_;
  size_t next_ = 0;
  bool closed_ = false;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  std::chrono::nanoseconds pinned_for_{0};
};

class PrecopyTest : public testing::TestWithParam<bool> {
 protected:
  PrecopyTest() : directory_(testing::TempDir() + fmt::format("/lf-precopy-{}", getpid())) {
    std::filesystem::create_directories(directory_);
    options_.backoff = {.first = milliseconds(5), .limit = milliseconds(20), .reset_after = milliseconds(1000)};
    options_.attempt.no_progress = std::chrono::seconds(20);
    options_.patience = milliseconds(0);
    job_.operation_id = "01JDAAAAAAAAAAAAAAAAAAAAAA";
    job_.session_id = "01JDBBBBBBBBBBBBBBBBBBBBBB";
    job_.database = "app";
    job_.spool_file = directory_ + "/spool";
    job_.give_up_at = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    auto ledger = ledger::Ledger::Open(directory_ + "/ledger", ledger::LedgerIdentity("device", "app", "/app.db"));
    EXPECT_TRUE(ledger.ok());
    ledger_ = *std::move(ledger);
    job_.ledger = ledger_.get();
    job_.open = [this]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> {
      ++pins_;
      pinned_ = database_.Content();
      auto source = std::make_unique<Source>(database_, GetParam(), true);
      if (pins_ == 1) source->pause = first_pause_;
      source->on_next = [this] { LookAtSpool(); };
      return source;
    };
    job_.open_precopy = [this]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> {
      ++rounds_;
      return std::make_unique<Source>(database_, GetParam(), false);
    };
    // A link that takes nothing as long as the database is pinned: whoever waits for it, waits for ever.
    controller_.on_request = [this](const v1::UploadRequest& request) {
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(15);
      while (Source::open.load() > 0 && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(milliseconds(1));
      held_ += Source::open.load();
      LookAtSpool();
      if (on_request_) return on_request_(request);
      return absl::OkStatus();
    };
  }
  ~PrecopyTest() override {
    EXPECT_EQ(Source::open.load(), 0) << "a lock is left";
    EXPECT_EQ(held_.load(), 0) << "the network was waited for while the database was pinned";
    EXPECT_FALSE(std::filesystem::exists(job_.spool_file));
    std::filesystem::remove_all(directory_);
  }
  void LookAtSpool() {
    struct stat st {};
    if (stat(job_.spool_file.c_str(), &st) != 0) return;
    int64_t seen = largest_spool_;
    while (seen < st.st_size && !largest_spool_.compare_exchange_weak(seen, st.st_size)) continue;
  }
  BackupOutcome Run() {
    last_.Clear();
    return RunBackup(job_, options_, controller_, rate_, clock_, cancel_, [this](const v1::Progress& progress) {
      EXPECT_GE(progress.done_bytes(), last_.done_bytes());
      EXPECT_LE(progress.done_bytes(), progress.total_bytes());
      last_ = progress;
    });
  }
  void ExpectExact(const BackupOutcome& outcome) {
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_TRUE(controller_.Content() == pinned_);
    EXPECT_FALSE(controller_.commits().back().precopied());
    EXPECT_EQ(ledger_->state()->snapshot_id, outcome.snapshot_id);
    EXPECT_EQ(outcome.progress.done_bytes(), outcome.progress.total_bytes());
  }

  static std::chrono::nanoseconds PinnedOf(const v1::UploadCommit& commit) {
    return std::chrono::nanoseconds(google::protobuf::util::TimeUtil::DurationToNanoseconds(commit.pinned()));
  }

  const std::string directory_;
  Changing database_{kExtents};
  fakes::FakeUploadController controller_;
  BackupOptions options_;
  BackupJob job_;
  std::unique_ptr<ledger::Ledger> ledger_;
  RateLimit rate_{0};
  RealClock clock_;
  CancelToken cancel_;
  std::function<absl::Status(const v1::UploadRequest&)> on_request_;
  int pins_ = 0, rounds_ = 0;
  milliseconds first_pause_{0};  // of the first pinned pass, at each extent
  std::string pinned_;           // the database at the last pin
  // The controller's thread counts.
  std::atomic<int> held_{0};
  std::atomic<int64_t> largest_spool_{0};
  v1::Progress last_;
};

TEST_P(PrecopyTest, ALinkThatTakesNothingDoesNotHoldTheDatabase) {
  ExpectExact(Run());
  EXPECT_EQ(pins_, 1);
  EXPECT_EQ(rounds_, 0);
  EXPECT_EQ(controller_.received_chunks(), static_cast<int64_t>(kExtents));
  // And what has changed.
  database_.Change(50);
  job_.session_id = NewUlid(clock_.Now());
  ExpectExact(Run());
  EXPECT_EQ(controller_.commits().size(), 2u);
}

TEST_P(PrecopyTest, ThePinLastsForTwiceTheReadingAtMost) {
  options_.patience = BackupOptions().patience;
  first_pause_ = milliseconds(10);
  Source::reading = {};
  ExpectExact(Run());
  EXPECT_EQ(pins_, 1);
  // And a little for what else the machine does.
  EXPECT_LT(PinnedOf(controller_.commits().back()), 2 * Source::reading + options_.patience + milliseconds(400));
}

TEST_P(PrecopyTest, ThePinOfAPassThatCameToNothingIsTold) {
  options_.spool.max_bytes = 1 << 20;
  first_pause_ = milliseconds(300);
  ExpectExact(Run());
  EXPECT_GE(pins_, 2);
  // In rollback mode it is clear before anything is read.
  if (GetParam()) {
    EXPECT_GE(PinnedOf(controller_.commits().back()), first_pause_);
  }
}

TEST_P(PrecopyTest, MoreThanTheSpoolHoldsIsUploadedAheadAndTheSnapshotIsExact) {
  options_.spool.max_bytes = 1 << 20;
  std::atomic<int> left{60};
  on_request_ = [&](const v1::UploadRequest& request) {
    // A writer at work while the network takes what it is given: 6 MiB of pages go, 400 KiB change.
    if (request.has_chunks() && left > 0 && --left % 2 == 0) database_.Change(5);
    return absl::OkStatus();
  };
  const BackupOutcome outcome = Run();
  ExpectExact(outcome);
  EXPECT_GE(rounds_, 1);
  EXPECT_LE(largest_spool_.load(), 1 << 20);
  EXPECT_TRUE(controller_.commits().front().precopied());
  ASSERT_EQ(outcome.steps.size(), 1u);
  EXPECT_THAT(outcome.steps[0], testing::HasSubstr("pre-copied"));
}

// More than twice what the spool holds: seen in what the first part takes, and not only when it is full.
TEST_P(PrecopyTest, WhatWillNotFitIsNotWritten) {
  options_.spool.max_bytes = 2 << 20;
  first_pause_ = milliseconds(5);  // the compressors keep up, so that nothing is spooled as it is
  const BackupOutcome outcome = Run();
  ExpectExact(outcome);
  EXPECT_GE(rounds_, 1);
  EXPECT_GT(largest_spool_.load(), 0);
  EXPECT_LT(largest_spool_.load(), 3 << 19);
}

TEST_P(PrecopyTest, ALargeChangeOfAKnownDatabaseToo) {
  ExpectExact(Run());
  options_.spool.max_bytes = 1 << 20;
  database_.Change(2000);
  largest_spool_ = 0;
  job_.session_id = NewUlid(clock_.Now());
  ExpectExact(Run());
  EXPECT_GE(rounds_, 1);
  EXPECT_LE(largest_spool_.load(), 1 << 20);
}

TEST_P(PrecopyTest, ChangesThatOutrunTheLinkEndItWithBothRates) {
  options_.spool.max_bytes = 1 << 20;
  on_request_ = [&](const v1::UploadRequest& request) {
    if (request.has_commit()) database_.Change(kExtents * format::kExtentBytes / kPage);
    return absl::OkStatus();
  };
  const BackupOutcome outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "CHANGES_OUTRUN_LINK") << outcome.status;
  EXPECT_THAT(MessageOf(outcome.status), testing::HasSubstr("KiB/s"));
  EXPECT_EQ(rounds_, 2);
}

TEST_P(PrecopyTest, ACutRoundGoesOnAndARestartFindsWhatWasUploadedAhead) {
  options_.spool.max_bytes = 1 << 20;
  int messages = 0;
  on_request_ = [&](const v1::UploadRequest& request) {
    return request.has_chunks() && ++messages % 7 == 0 ? Error(absl::StatusCode::kUnavailable, "", "cut") : absl::OkStatus();
  };
  ExpectExact(Run());
  EXPECT_LE(controller_.received_chunks(), static_cast<int64_t>(kExtents) + 8 * messages / 7);

  // The process ends between the round and the backup: the same operation begins again, with and without what the ledger knows.
  for (const bool with_ledger : {true, false}) {
    database_.Change(2000);
    job_.session_id = NewUlid(clock_.Now());
    on_request_ = [&, precopied = false](const v1::UploadRequest& request) mutable {
      if (precopied) return Error(absl::StatusCode::kPermissionDenied, "STOPPED", "stopped");
      precopied = request.has_commit() && request.commit().precopied();
      return absl::OkStatus();
    };
    EXPECT_EQ(ReasonOf(Run().status), "STOPPED");
    const int64_t before = controller_.received_chunks();
    if (!with_ledger) {
      ASSERT_TRUE(ledger_->Remove().ok());
    }
    on_request_ = nullptr;
    ExpectExact(Run());
    // Without the ledger the controller compares, which the fake does not.
    if (with_ledger) {
      EXPECT_LE(controller_.received_chunks() - before, 4) << "it was uploaded ahead already";
    }
  }
}

TEST_P(PrecopyTest, AnOlderControllerIsNotGivenWhatItWouldTakeForASnapshot) {
  options_.spool.max_bytes = 1 << 20;
  controller_.can_precopy = false;
  EXPECT_EQ(ReasonOf(Run().status), "CONTROLLER_TOO_OLD");
  EXPECT_TRUE(controller_.commits().empty());
}

TEST_P(PrecopyTest, WithoutALedgerItSaysWhatIsMissing) {
  options_.spool.max_bytes = 1 << 20;
  job_.ledger = nullptr;
  const BackupOutcome outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "LEDGER_NEEDED") << outcome.status;
  EXPECT_EQ(rounds_, 1) << "more of them would bring nothing";
}

INSTANTIATE_TEST_SUITE_P(Modes, PrecopyTest, testing::Bool(), [](const auto& mode) { return mode.param ? "Wal" : "Rollback"; });

TEST(PrecopyRounds, SessionsFollowEachOtherInOneWay) {
  const std::string first = "01JDBBBBBBBBBBBBBBBBBBBBBB";
  const std::string next = SessionAfter(first, "01JDCCCCCCCCCCCCCCCCCCCCCC");
  EXPECT_TRUE(IsUlid(next));
  EXPECT_EQ(next, SessionAfter(first, "01JDCCCCCCCCCCCCCCCCCCCCCC"));
  EXPECT_NE(next, SessionAfter(first, "01JDDDDDDDDDDDDDDDDDDDDDDD"));
}

TEST(PrecopyRounds, WithoutALedgerNoRoundFollows) {
  PrecopyRounds rounds;
  rounds.Ended(900, 500, std::chrono::seconds(9));
  rounds.WithoutLedger("the disk is full");
  const absl::Status status = rounds.MayBegin("app", 1 << 20);
  EXPECT_EQ(ReasonOf(status), "LEDGER_NEEDED");
  EXPECT_THAT(MessageOf(status), testing::HasSubstr("the disk is full"));
}

TEST(PrecopyRounds, GivesUpWhereARoundSendsMoreThanTwoThirdsOfTheOneBefore) {
  PrecopyRounds rounds;
  EXPECT_TRUE(rounds.MayBegin("app", 1 << 20).ok());
  rounds.Ended(900, 500, std::chrono::seconds(9));
  EXPECT_TRUE(rounds.MayBegin("app", 1 << 20).ok());
  rounds.Ended(600, 300, std::chrono::seconds(6));
  EXPECT_TRUE(rounds.MayBegin("app", 1 << 20).ok());
  rounds.Ended(401, 200, std::chrono::seconds(4));
  EXPECT_EQ(ReasonOf(rounds.MayBegin("app", 1 << 20)), "CHANGES_OUTRUN_LINK");
}

}  // namespace
}  // namespace litefleet::upload
