// A device whose database is a string, a spool, and a controller that keeps what it is sent.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_SPOOL_SPOOL_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_AGENT_SPOOL_SPOOL_FIXTURE_H_

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "agent/spool/drain.h"
#include "agent/spool/snapshot_spool.h"
#include "agent/spool/take.h"
#include "agent/upload/chunk_feed.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"
#include "tests/fakes/fake_upload_controller.h"

namespace litefleet::spool {

inline constexpr uint32_t kPage = 4096;

class ContentSource final : public capture::PageSource {
 public:
  ContentSource(std::string content, const Clock& clock) : content_(std::move(content)) {
    info_.page_size = kPage;
    info_.page_count = static_cast<uint32_t>(content_.size() / kPage);
    info_.wal = true;
    info_.pinned_at = clock.Now();
    info_.pinned_since_boot = clock.SinceBoot();
  }
  const capture::SourceInfo& info() const override { return info_; }
  absl::StatusOr<std::optional<capture::ExtentPages>> Next() override {
    const size_t begin = next_ * format::kExtentBytes;
    if (begin >= content_.size()) return std::nullopt;
    const size_t size = std::min<size_t>(format::kExtentBytes, content_.size() - begin);
    return capture::ExtentPages{static_cast<uint32_t>(next_++), AsBytes(content_).subspan(begin, size)};
  }
  absl::Status Close() override { return absl::OkStatus(); }
  const std::string& damage() const override { return damage_; }
  std::chrono::nanoseconds pinned_for() const override { return std::chrono::milliseconds(5); }

 private:
  const std::string content_;
  const std::string damage_;
  capture::SourceInfo info_;
  size_t next_ = 0;
};

// A machine's clocks, and its boots.
class DeviceClock final : public Clock {
 public:
  SystemTime Now() const override { return clock_.Now(); }
  SteadyTime Steady() const override { return clock_.Steady(); }
  std::chrono::nanoseconds SinceBoot() const override { return clock_.SinceBoot() - booted_; }
  void Advance(std::chrono::nanoseconds by) { clock_.Advance(by); }
  void JumpSystem(std::chrono::nanoseconds by) { clock_.JumpSystem(by); }
  // It is off for so long, and then its clock says this.
  void Reboot(std::chrono::nanoseconds off, SystemTime says) {
    clock_.Advance(off);
    booted_ = clock_.SinceBoot();
    Set(says);
  }
  void Set(SystemTime says) { clock_.JumpSystem(says - Now()); }
  // What a clock says that was never wrong.
  SystemTime True() const { return began_ + std::chrono::duration_cast<SystemTime::duration>(clock_.SinceBoot()); }

 private:
  FakeClock clock_;
  const SystemTime began_ = clock_.Now() - std::chrono::duration_cast<SystemTime::duration>(clock_.SinceBoot());
  std::chrono::nanoseconds booted_{0};
};

class SpoolTest : public testing::Test {
 protected:
  SpoolTest() : directory_(testing::TempDir() + "/lf-spool-XXXXXX") {
    EXPECT_NE(mkdtemp(directory_.data()), nullptr);
    std::filesystem::create_directory(directory_ + "/gaps");
    std::filesystem::create_directory(directory_ + "/ledgers");
    options_.backoff = {
        .first = std::chrono::milliseconds(5), .limit = std::chrono::milliseconds(20), .reset_after = std::chrono::milliseconds(1000)};
    Reopen();
    Change(200);
  }
  ~SpoolTest() override { std::filesystem::remove_all(directory_); }

  void Reopen() {
    spool_.reset();
    ledger_.reset();
    gaps_.reset();
    std::vector<std::string> damaged;
    auto gaps = state::GapBook::Open(directory_ + "/gaps", damaged);
    ASSERT_TRUE(gaps.ok()) << gaps.status();
    gaps_ = *std::move(gaps);
    said_.clear();
    auto spool = SnapshotSpool::Open(directory_ + "/spooled", *gaps_, clock_, said_, boot_id_);
    ASSERT_TRUE(spool.ok()) << spool.status();
    spool_ = *std::move(spool);
    auto ledger = ledger::Ledger::Open(ledger_file(), identity_);
    ASSERT_TRUE(ledger.ok()) << ledger.status();
    ledger_ = *std::move(ledger);
  }
  std::string ledger_file() const { return directory_ + "/ledgers/app.ledger"; }

  // The database becomes this many pages, and some of them change.
  void Change(uint32_t pages, int changes = 5) {
    content_.resize(size_t{pages} * kPage);
    for (int i = 0; i < changes; ++i) {
      const size_t page = dice_() % pages;
      for (size_t at = 0; at < kPage; at += 16) {
        const uint64_t value = dice_();
        std::memcpy(&content_[page * kPage + at], &value, sizeof value);
      }
    }
  }
  // Of another database of so many pages, of which so many are written anew: nothing of it is known to the controller.
  Taken TakeOther(const std::string& database, uint32_t pages, uint32_t changed) {
    clock_.Advance(std::chrono::minutes(1));
    std::string& content = others_[database];
    content.resize(size_t{pages} * kPage);
    for (size_t at = 0; at < size_t{changed} * kPage; at += 16) {
      const uint64_t value = dice_();
      std::memcpy(&content[at], &value, sizeof value);
    }
    TakeJob job;
    job.database = database;
    job.operation_id = NewUlid(clock_.Now());
    job.started_at = clock_.Now();
    job.ledger_file = directory_ + "/ledgers/" + database + ".ledger";
    job.ledger_identity = ledger::LedgerIdentity("device", database, "/" + database);
    job.spool_bytes = 64 << 20;
    job.open = [&]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> { return std::make_unique<ContentSource>(content, clock_); };
    return Take(*spool_, job, cancel_);
  }
  Taken TakeNow(uint64_t spool_bytes = 64 << 20) {
    clock_.Advance(std::chrono::minutes(1));
    TakeJob job;
    job.database = "app";
    job.operation_id = NewUlid(clock_.Now());
    job.started_at = clock_.Now();
    job.ledger = ledger_.get();
    job.ledger_file = ledger_file();
    job.ledger_identity = identity_;
    job.acknowledged_taken_at_ms = acknowledged_at_ms_;
    job.spool_bytes = spool_bytes;
    job.compression_level = level_;
    job.method = method_;
    job.open = [&]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> { return std::make_unique<ContentSource>(content_, clock_); };
    Taken taken = Take(*spool_, job, cancel_);
    if (taken.status.ok() && !taken.id.empty()) wanted_[ToUnixMillis(taken.taken_at)] = content_;
    return taken;
  }
  // What the controller has after each acknowledgement is what the database was then.
  absl::Status DrainNow() {
    DrainJob job;
    job.database = "app";
    job.ledger = ledger_.get();
    job.give_up_at = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    job.offline_after = std::chrono::milliseconds(30);
    job.acknowledged = [&](const SpooledSnapshot& snapshot, const std::string& id, const v1::Progress&) {
      EXPECT_FALSE(id.empty());
      // A repeated acknowledgement brings nothing: what the controller has may be newer.
      if (!check_content_) return absl::OkStatus();
      const auto wanted = wanted_.find(snapshot.header.taken_at_ms());
      EXPECT_TRUE(wanted != wanted_.end() && controller_->Content() == wanted->second) << snapshot.header.taken_at_ms();
      acknowledged_at_ms_ = snapshot.header.taken_at_ms();
      order_.push_back(snapshot.header.taken_at_ms());
      return absl::OkStatus();
    };
    return Drain(*spool_, job, options_, *controller_, rate_, cancel_);
  }
  // A backup with the controller: the base of what is spooled afterwards.
  void BackUp() {
    clock_.Advance(std::chrono::minutes(1));
    upload::BackupJob job;
    job.operation_id = NewUlid(clock_.Now());
    job.session_id = NewUlid(clock_.Now());
    job.database = "app";
    job.spool_file = directory_ + "/chunks";
    job.ledger = ledger_.get();
    job.open = [&]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> { return std::make_unique<ContentSource>(content_, clock_); };
    job.give_up_at = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    const upload::BackupOutcome outcome =
        upload::RunBackup(job, options_, *controller_, rate_, clock_, cancel_, [](const v1::Progress&) {});
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    ASSERT_TRUE(controller_->Content() == content_);
    acknowledged_at_ms_ = ToUnixMillis(clock_.Now());
  }
  // "from-until(snapshots)" in minutes of the fake clock since the start of the test, each; empties the book.
  std::vector<v1::CoverageGap> Gaps() {
    std::vector<v1::CoverageGap> list = gaps_->OpenGaps("");
    while (const auto gap = gaps_->NextUnrecorded()) {
      if (gap->has_until()) list.push_back(*gap);
      EXPECT_TRUE(gaps_->Recorded(*gap).ok());
    }
    return list;
  }

  std::string directory_;
  DeviceClock clock_;
  std::string boot_id_ = BootId();
  std::mt19937_64 dice_{7};
  std::string content_;
  int level_ = 1;
  v1::Method method_ = v1::METHOD_ONLINE;
  std::map<std::string, std::string> others_;  // content by database
  std::map<int64_t, std::string> wanted_;      // by taken_at
  std::vector<int64_t> order_;                 // of acknowledgements
  int64_t acknowledged_at_ms_ = 0;
  bool check_content_ = true;
  CancelToken cancel_;
  RateLimit rate_{0};
  upload::BackupOptions options_;
  const std::array<std::byte, 32> identity_ = ledger::LedgerIdentity("device", "app", "/app.db");
  std::vector<std::string> said_;
  std::unique_ptr<state::GapBook> gaps_;
  std::unique_ptr<SnapshotSpool> spool_;
  std::unique_ptr<ledger::Ledger> ledger_;
  std::unique_ptr<fakes::FakeUploadController> controller_ = std::make_unique<fakes::FakeUploadController>();
};

}  // namespace litefleet::spool

#endif  // LITEFLEET_TESTS_UNIT_AGENT_SPOOL_SPOOL_FIXTURE_H_
