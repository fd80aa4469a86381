// What the spool leaves on the flash: what does not fit is not written again and again, and nothing stays for ever.
#include <fcntl.h>
#include <sys/stat.h>

#include <fstream>

#include "common/io/file.h"
#include "tests/unit/agent/spool/spool_fixture.h"

namespace litefleet::spool {
namespace {

class SpoolBoundsTest : public SpoolTest {
 protected:
  // What this process has written to files.
  static uint64_t BytesWritten() {
    std::ifstream io("/proc/self/io");
    std::string name;
    uint64_t bytes = 0;
    while (io >> name >> bytes) {
      if (name == "wchar:") return bytes;
    }
    return 0;
  }
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_ + "/spooled/app")) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  void SetWritten(const std::string& path, SystemTime at) {
    const struct timespec time { static_cast<time_t>(ToUnixMillis(at) / 1000), 0 };
    const struct timespec times[2] = {time, time};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }
  // Three snapshots, of which the last two cannot be used any more.
  std::vector<SpooledSnapshot> LoseTwo() {
    BackUp();
    for (const int changes : {5, 5, 30}) {
      Change(200, changes);
      EXPECT_TRUE(TakeNow().status.ok());
    }
    const std::vector<SpooledSnapshot> chain = spool_->List("app");
    std::ofstream(chain[1].path, std::ios::trunc) << "rubbish";
    Reopen();
    return chain;
  }
};

TEST_F(SpoolBoundsTest, WhatDidNotFitIsCountedBeforeItIsWritten) {
  constexpr uint64_t kCap = 100 << 10;
  BackUp();
  const std::string small = content_;
  Change(200, 3);
  ASSERT_TRUE(TakeNow(kCap).status.ok());
  Change(200, 150);
  ASSERT_EQ(ReasonOf(TakeNow(kCap).status), "SPOOL_FULL");
  // As whoever ran it does.
  ASSERT_TRUE(gaps_
                  ->Begin({.database = "app",
                           .from = spool_->Newest("app")->taken_at(),
                           .reason = std::string(kSpoolFull),
                           .message = "no room",
                           .snapshots = 0})
                  .ok());
  if (BytesWritten() == 0) GTEST_SKIP() << "the kernel does not count what a process writes";
  for (int run = 0; run < 3; ++run) {
    const uint64_t before = BytesWritten();
    ASSERT_EQ(ReasonOf(TakeNow(kCap).status), "SPOOL_FULL");
    EXPECT_LT(BytesWritten() - before, 16U << 10) << "run " << run;
  }
  content_ = small;
  Change(200, 2);
  const Taken fits = TakeNow(kCap);
  ASSERT_TRUE(fits.status.ok()) << fits.status;
  EXPECT_FALSE(fits.id.empty());
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_TRUE(controller_->Content() == content_);
}

TEST_F(SpoolBoundsTest, WhatTheControllerHasAgainTakesThePlaceOfAll) {
  Change(200, 1000);
  BackUp();
  const std::string first = content_;
  Change(200, 20);
  ASSERT_TRUE(TakeNow(60 << 10).status.ok());
  content_ = first;
  const Taken taken = TakeNow(60 << 10);
  ASSERT_TRUE(taken.status.ok()) << taken.status;
  EXPECT_FALSE(taken.id.empty()) << "what is spooled is not what the database is";
  ASSERT_EQ(spool_->List("app").size(), 1U);
  EXPECT_LT(spool_->Total().bytes, 2 << 10);
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_TRUE(controller_->Content() == first);
}

TEST_F(SpoolBoundsTest, TheLedgerGoesWithTheLastSnapshot) {
  const std::vector<std::string> empty{"state"};
  BackUp();
  Change(200);
  ASSERT_TRUE(TakeNow().status.ok());
  ASSERT_TRUE(io::Exists(spool_->LedgerFile("app")));
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_EQ(Files(), empty);
  // Of a run that found nothing new.
  ASSERT_TRUE(TakeNow().status.ok());
  EXPECT_EQ(Files(), empty);
  // Of a run that was cut.
  std::ofstream(spool_->LedgerFile("app") + "-new") << "half";
  Reopen();
  EXPECT_EQ(Files(), empty);
  Change(200);
  ASSERT_TRUE(TakeNow().status.ok());
  clock_.Advance(std::chrono::hours(2));
  ASSERT_TRUE(spool_->Expire("app", std::chrono::hours(1), io::DiskReserve(0)).ok());
  EXPECT_EQ(Files(), empty);
}

// Nobody else has what they hold.
TEST_F(SpoolBoundsTest, WhatIsBuiltOnNothingIsMovedAside) {
  BackUp();
  for (int i = 0; i < 2; ++i) {
    Change(200);
    ASSERT_TRUE(TakeNow().status.ok());
  }
  controller_ = std::make_unique<fakes::FakeUploadController>();  // one that knows nothing
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_EQ(Files(), (std::vector<std::string>{"0000000000000001.spooled.damaged", "0000000000000002.spooled.damaged"}));
  EXPECT_EQ(gaps_->OpenGaps("app").size(), 1U);
}

// Their numbers begin at 1 again once nothing is left: what lies there from before is not written over.
TEST_F(SpoolBoundsTest, WhatIsMovedAsideTakesNoNameOfAnother) {
  BackUp();
  controller_ = std::make_unique<fakes::FakeUploadController>();  // one that knows nothing
  int64_t bytes = 0;
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 2; ++i) {
      Change(200);
      ASSERT_TRUE(TakeNow().status.ok());
    }
    bytes += spool_->UsageOf("app").bytes;
    ASSERT_TRUE(DrainNow().ok());
  }
  EXPECT_EQ(Files(), (std::vector<std::string>{"0000000000000001.spooled.damaged", "0000000000000002.spooled.damaged",
                                               "0000000000000003.spooled.damaged", "0000000000000004.spooled.damaged"}));
  EXPECT_EQ(spool_->AsideBytes(), bytes);
}

TEST_F(SpoolBoundsTest, WhatWasMovedAsideExpires) {
  const std::vector<SpooledSnapshot> chain = LoseTwo();
  const std::string first = chain[1].path + ".damaged";
  const std::string second = chain[2].path + ".damaged";
  EXPECT_EQ(spool_->AsideBytes(), static_cast<int64_t>(std::filesystem::file_size(first) + std::filesystem::file_size(second)));
  // Written by a clock that was not set yet, which has been set since.
  SetWritten(first, SystemTime());
  clock_.JumpSystem(std::chrono::hours(24 * 365 * 50));
  const auto expire = [&] { return spool_->Expire("app", std::chrono::hours(1), io::DiskReserve(0)); };
  ASSERT_TRUE(expire().ok());
  EXPECT_TRUE(io::Exists(first) && io::Exists(second));
  // What comes later stays longer, also over a start, and over a boot.
  ASSERT_TRUE(spool_->KeepRunTime().ok());
  clock_.Advance(std::chrono::minutes(20));
  const std::string third = chain[0].path + ".damaged";
  std::ofstream(chain[0].path, std::ios::trunc) << "rubbish";
  Reopen();
  ASSERT_TRUE(spool_->KeepRunTime().ok());
  boot_id_ = "the next one";
  clock_.Reboot(std::chrono::hours(24), clock_.Now());
  Reopen();
  clock_.Advance(std::chrono::minutes(39));
  ASSERT_TRUE(expire().ok());
  EXPECT_TRUE(io::Exists(first) && io::Exists(second) && io::Exists(third));
  clock_.Advance(std::chrono::minutes(2));
  ASSERT_TRUE(expire().ok());
  EXPECT_FALSE(io::Exists(first) || io::Exists(second));
  EXPECT_TRUE(io::Exists(third));
  EXPECT_EQ(spool_->AsideBytes(), static_cast<int64_t>(std::filesystem::file_size(third)));
  clock_.Advance(std::chrono::minutes(20));
  ASSERT_TRUE(expire().ok());
  EXPECT_EQ(spool_->AsideBytes(), 0);
}

TEST_F(SpoolBoundsTest, WhatWasMovedAsideCountsAndGoesFirst) {
  content_ = wanted_[LoseTwo()[0].header.taken_at_ms()];
  ASSERT_GT(spool_->AsideBytes(), 50 << 10);
  const auto cap = static_cast<uint64_t>(spool_->Total().bytes + spool_->AsideBytes()) + (4 << 10);
  Change(200, 8);
  const Taken taken = TakeNow(cap);
  ASSERT_TRUE(taken.status.ok()) << taken.status;
  EXPECT_EQ(spool_->AsideBytes(), 0);
  EXPECT_EQ(spool_->Total().snapshots, 2U) << "no state was given away for it";
}

TEST_F(SpoolBoundsTest, WhatIsMissingBehindTheLastSpooledStateGoesOnWhenThatArrives) {
  BackUp();
  Change(200, 3);
  ASSERT_TRUE(TakeNow().status.ok());
  const SystemTime last = spool_->Newest("app")->taken_at();
  for (const std::string_view reason : {kRunFailed, kSpoolFull}) {
    ASSERT_TRUE(
        gaps_->Begin({.database = "app", .from = last, .reason = std::string(reason), .message = "it failed", .snapshots = 0}).ok());
  }
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_EQ(gaps_->OpenGaps("app").size(), 2U) << "nothing came after it yet";
  Change(200, 3);
  ASSERT_TRUE(TakeNow().status.ok());
  const SystemTime next = spool_->Newest("app")->taken_at();
  ASSERT_TRUE(DrainNow().ok());
  const auto gaps = Gaps();
  ASSERT_EQ(gaps.size(), 2U);
  for (const v1::CoverageGap& gap : gaps) {
    EXPECT_EQ(FromProtoTime(gap.from()), last);
    EXPECT_EQ(FromProtoTime(gap.until()), next);
  }
}

TEST_F(SpoolBoundsTest, ALostFirstSnapshotIsMissingSinceTheControllersState) {
  BackUp();
  Change(200);
  ASSERT_TRUE(TakeNow().status.ok());
  ASSERT_TRUE(DrainNow().ok());
  const int64_t known = acknowledged_at_ms_;
  clock_.Advance(std::chrono::hours(1));
  Change(200);
  ASSERT_TRUE(TakeNow().status.ok());
  std::ofstream(spool_->Newest("app")->path, std::ios::trunc) << "rubbish";
  clock_.Advance(std::chrono::hours(1));
  Reopen();
  const auto open = gaps_->OpenGaps("app");
  ASSERT_EQ(open.size(), 1U);
  EXPECT_EQ(TimestampMillis(open[0].from()), known);
}

}  // namespace
}  // namespace litefleet::spool
