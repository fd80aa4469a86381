// Syncs of continuous capture in the spool: what is old becomes coarser, and a cut in the midst of that leaves a chain.
#include "agent/spool/snapshot_spool.h"

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "agent/spool/room.h"
#include "common/io/file.h"
#include "tests/unit/agent/spool/spool_fixture.h"

namespace litefleet::spool {
namespace {

class SpoolSyncsTest : public SpoolTest {
 protected:
  SpoolSyncsTest() { method_ = v1::METHOD_CONTINUOUS; }
  void TakeMany(int count) {
    for (int i = 0; i < count; ++i) {
      Change(200 + static_cast<uint32_t>(dice_() % 40), 3);
      ASSERT_TRUE(TakeNow().status.ok());
    }
  }
  // How many states went into each.
  std::vector<uint32_t> States() const {
    std::vector<uint32_t> states;
    for (const SpooledSnapshot& snapshot : spool_->List("app")) states.push_back(snapshot.header.merged() + 1);
    return states;
  }
  void ExpectChain() const {
    const std::vector<SpooledSnapshot> chain = spool_->List("app");
    int64_t bytes = 0;
    for (size_t i = 0; i < chain.size(); ++i) {
      bytes += static_cast<int64_t>(chain[i].bytes);
      if (i > 0) {
        EXPECT_EQ(chain[i].header.base_spooled_id(), chain[i - 1].id()) << i;
      }
    }
    EXPECT_EQ(spool_->UsageOf("app").snapshots, chain.size());
    EXPECT_EQ(spool_->UsageOf("app").bytes, bytes);
    EXPECT_EQ(spool_->Total().bytes, bytes);
  }
};

TEST_F(SpoolSyncsTest, WhatIsOldBecomesCoarserStepByStep) {
  BackUp();
  ASSERT_NO_FATAL_FAILURE(TakeMany(90));
  ExpectChain();
  const auto merge = [&] {
    const auto merged = spool_->MergeSome("app", kSpoolFull, io::DiskReserve(0));
    ASSERT_TRUE(merged.ok()) << merged.status();
    ASSERT_TRUE(*merged);
  };
  while (spool_->UsageOf("app").snapshots > 34) ASSERT_NO_FATAL_FAILURE(merge());
  const std::vector<uint32_t> states = States();
  EXPECT_EQ(std::accumulate(states.begin(), states.end(), 0U), 90U) << "none is lost without a word";
  EXPECT_EQ(states.front(), 8U);
  EXPECT_EQ(states.back(), 1U);
  EXPECT_TRUE(std::is_sorted(states.rbegin(), states.rend())) << "the newest are the finest";
  ExpectChain();
  Reopen();
  EXPECT_EQ(States(), states);
  ExpectChain();
  const std::vector<v1::CoverageGap> gaps = Gaps();
  ASSERT_EQ(gaps.size(), 1U) << "one time after the other is one gap";
  EXPECT_EQ(gaps[0].reason(), kSpoolFull);
  EXPECT_EQ(gaps[0].snapshots(), 90 - states.size());
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_EQ(order_.size(), states.size());
}

TEST_F(SpoolSyncsTest, InTheEndOneIsLeft) {
  BackUp();
  ASSERT_NO_FATAL_FAILURE(TakeMany(30));
  for (uint32_t before = 30; before > 1;) {
    const auto merged = spool_->MergeSome("app", kSpoolFull, io::DiskReserve(0));
    ASSERT_TRUE(merged.ok() && *merged);
    const uint32_t now = spool_->UsageOf("app").snapshots;
    ASSERT_LT(now, before);
    before = now;
  }
  const auto none = spool_->MergeSome("app", kSpoolFull, io::DiskReserve(0));
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(*none);
  EXPECT_EQ(States(), std::vector<uint32_t>{30U});
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_TRUE(controller_->Content() == content_);
}

// Its ledger was lost by a power cut: what the controller has, and the files, make it anew.
TEST_F(SpoolSyncsTest, ALedgerThatIsBehindIsMadeFromTheFiles) {
  BackUp();
  ASSERT_NO_FATAL_FAILURE(TakeMany(4));
  ASSERT_TRUE(spool_->RemoveLedger("app").ok());
  ASSERT_NO_FATAL_FAILURE(TakeMany(1));
  EXPECT_FALSE(spool_->Newest("app")->full());
  ExpectChain();
  ASSERT_TRUE(DrainNow().ok());
}

// ---- merges that take long

class SpoolLargeSyncsTest : public SpoolSyncsTest {
 protected:
  static constexpr uint32_t kPages = 3000;
  // A large one, and so many small ones behind it, a minute from one to the next.
  void TakeLarge(int small) {
    BackUp();
    Change(kPages, kPages);
    ASSERT_TRUE(TakeNow().status.ok());
    auto file = SpoolFileReader::Open(spool_->Oldest("app")->path);
    ASSERT_TRUE(file.ok()) << file.status();
    for (;;) {
      const auto chunk = (*file)->Next();
      ASSERT_TRUE(chunk.ok()) << chunk.status();
      if (!chunk->has_value()) break;
      ++of_oldest_;
    }
    for (int i = 0; i < small; ++i) {
      Change(kPages, 3);
      ASSERT_TRUE(TakeNow().status.ok());
    }
  }
  absl::Status Expire(std::chrono::milliseconds age) {
    return spool_->Expire("app", age, io::DiskReserve(0), kMergeLevel, [this] {
      ++written_;
      return absl::OkStatus();
    });
  }
  bool AnyTemporary() const {
    const std::filesystem::directory_iterator folder(directory_ + "/spooled/app");
    return std::any_of(begin(folder), end(folder), [](const auto& entry) { return entry.path().extension() == ".tmp"; });
  }

  int of_oldest_ = 0, written_ = 0;  // chunks
};

TEST_F(SpoolLargeSyncsTest, WhatIsTooOldIsWrittenAFewTimesAndNotOnceForEach) {
  ASSERT_NO_FATAL_FAILURE(TakeLarge(60));
  ASSERT_TRUE(Expire(std::chrono::seconds(30)).ok());
  EXPECT_EQ(States(), std::vector<uint32_t>{61U});
  EXPECT_LT(written_, 4 * of_oldest_);
  ExpectChain();
  const auto gaps = Gaps();
  ASSERT_EQ(gaps.size(), 1U);
  EXPECT_EQ(gaps[0].reason(), kSpoolExpired);
  EXPECT_EQ(gaps[0].snapshots(), 60U);
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_TRUE(controller_->Content() == content_);
}

// They come of age one after the other: the large one does not go into each of them.
TEST_F(SpoolLargeSyncsTest, FewThatAreTooOldWaitUntilTheyAreMore) {
  ASSERT_NO_FATAL_FAILURE(TakeLarge(20));
  clock_.Advance(std::chrono::hours(4) - std::chrono::seconds(17 * 60 + 30));
  ASSERT_TRUE(Expire(std::chrono::hours(4)).ok());
  EXPECT_EQ(spool_->UsageOf("app").snapshots, 21U);
  clock_.Advance(std::chrono::minutes(6));
  ASSERT_TRUE(Expire(std::chrono::hours(4)).ok());
  EXPECT_EQ(spool_->UsageOf("app").snapshots, 12U);
  // No longer than a sixteenth of the age.
  ASSERT_TRUE(Expire(std::chrono::hours(4) - std::chrono::minutes(2)).ok());
  EXPECT_EQ(spool_->UsageOf("app").snapshots, 12U);
  clock_.Advance(std::chrono::minutes(3));
  ASSERT_TRUE(Expire(std::chrono::hours(4) - std::chrono::minutes(18)).ok());
  EXPECT_LT(spool_->UsageOf("app").snapshots, 12U);
  ExpectChain();
}

TEST_F(SpoolLargeSyncsTest, WhatIsDroppedIsNotPutTogetherBefore) {
  ASSERT_NO_FATAL_FAILURE(TakeLarge(10));
  clock_.Advance(std::chrono::hours(1));
  ASSERT_TRUE(Expire(std::chrono::minutes(30)).ok());
  EXPECT_EQ(spool_->UsageOf("app").snapshots, 0U);
  EXPECT_EQ(written_, 0);
  const auto gaps = Gaps();
  ASSERT_EQ(gaps.size(), 1U);
  EXPECT_EQ(gaps[0].snapshots(), 11U);
}

TEST_F(SpoolLargeSyncsTest, AMergeThatIsEndedLeavesEverything) {
  ASSERT_NO_FATAL_FAILURE(TakeLarge(9));
  const std::vector<uint32_t> before = States();
  const auto ended = spool_->MergeSome("app", kSpoolFull, io::DiskReserve(0), kMergeLevel, false,
                                       [this] { return ++written_ < 5 ? absl::OkStatus() : absl::UnavailableError("a checkpoint waits"); });
  EXPECT_TRUE(absl::IsUnavailable(ended.status())) << ended.status();
  EXPECT_EQ(written_, 5);
  EXPECT_EQ(States(), before);
  EXPECT_FALSE(AnyTemporary());
  EXPECT_TRUE(Gaps().empty());
  ExpectChain();
  Reopen();
  EXPECT_EQ(States(), before);
  ASSERT_TRUE(DrainNow().ok());
}

TEST_F(SpoolLargeSyncsTest, ACancelEndsAMergeThatMakesRoom) {
  ASSERT_NO_FATAL_FAILURE(TakeLarge(9));
  const std::vector<uint32_t> before = States();
  CancelToken cancel;
  RoomJob job;
  job.database = "app";
  job.reserve = io::DiskReserve(0);
  job.goes_on = [&] {
    if (++written_ == 5) cancel.Interrupt();
    return absl::OkStatus();
  };
  EXPECT_TRUE(absl::IsCancelled(MakeRoom(*spool_, job, cancel).status()));
  EXPECT_EQ(written_, 5);
  EXPECT_EQ(States(), before);
  EXPECT_FALSE(AnyTemporary());
}

// ---- cuts

class SpoolSyncsCutTest : public SpoolSyncsTest, public testing::WithParamInterface<const char*> {};

TEST_P(SpoolSyncsCutTest, InTheMidstOfAChainLeavesAChain) {
  BackUp();
  ASSERT_NO_FATAL_FAILURE(TakeMany(12));
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    controller_.release();  // its thread is not here
    setenv("LITEFLEET_CRASH_AT", GetParam(), 1);
    // The oldest is being uploaded.
    spool_->MergeSome("app", kSpoolFull, io::DiskReserve(0), kMergeLevel, /*keep_oldest=*/true).status().IgnoreError();
    _exit(1);  // it should not come here
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "the crash point was not passed";
  Reopen();
  ExpectChain();
  const bool begun = std::string(GetParam()) != "spooled.writing";
  EXPECT_EQ(States(), begun ? (std::vector<uint32_t>{1, 8, 1, 1, 1}) : std::vector<uint32_t>(12, 1));
  EXPECT_EQ(Gaps().size(), begun ? 1U : 0U);
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_TRUE(controller_->Content() == content_);
}

INSTANTIATE_TEST_SUITE_P(Points, SpoolSyncsCutTest,
                         testing::Values("spooled.writing", "spooled.merged", "spooled.gap", "spooled.dropped", "spooled.dropped:4"),
                         [](const auto& point) {
                           std::string name = point.param;
                           for (char& c : name) c = c == '.' || c == ':' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace litefleet::spool
