// In which order scrub reads packs, and how fast: the newest that was never proven first, and no more than the rate allows.
#include <gmock/gmock.h>

#include "controller/scrub/pacer.h"
#include "tests/unit/controller/scrub/scrub_parts.h"

namespace litefleet::scrub {
namespace {

using fakes::FakeDatabase;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;

// Waiting is what moves the clock.
class WaitingTest : public ingest::IngestTest {
 protected:
  void Wait(std::chrono::nanoseconds time) {
    ++waits_;
    longest_ = std::max(longest_, time);
    clock_.Advance(time);
  }
  Pacer Make(int64_t rate) {
    return Pacer(rate, clock_, [this](std::chrono::nanoseconds time) { Wait(time); });
  }
  int waits_ = 0;
  std::chrono::nanoseconds longest_{0};
  const std::function<bool()> go_on_ = [] { return false; };
};

TEST_F(WaitingTest, BytesTakeTheirTime) {
  Pacer pacer = Make(1000);
  const SteadyTime begun = clock_.Steady();
  for (int i = 1; i <= 30; ++i) {
    ASSERT_TRUE(pacer.Spend(100, go_on_));
    EXPECT_EQ(clock_.Steady() - begun, milliseconds(100) * i);
  }
  EXPECT_LE(longest_, milliseconds(50)) << "a cancel is not kept waiting";
  // What takes time of its own is not waited for besides.
  clock_.Advance(milliseconds(400));
  ASSERT_TRUE(pacer.Spend(100, go_on_));
  EXPECT_EQ(clock_.Steady() - begun, milliseconds(3400));
  // And what was not used is not saved up: a burst would be at no rate at all.
  clock_.Advance(hours(1));
  const SteadyTime later = clock_.Steady();
  for (int i = 0; i < 11; ++i) ASSERT_TRUE(pacer.Spend(1000, go_on_));
  EXPECT_GE(clock_.Steady() - later, seconds(10));
}

TEST_F(WaitingTest, WithoutARateNothingWaits) {
  Pacer pacer = Make(0);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(pacer.Spend(1 << 30, go_on_));
  EXPECT_EQ(waits_, 0);
}

TEST_F(WaitingTest, ACancelEndsTheWait) {
  Pacer pacer = Make(1);
  EXPECT_FALSE(pacer.Spend(1'000'000, [this] { return waits_ == 3; }));
  EXPECT_EQ(waits_, 3);
}

class OrderTest : public WaitingTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    Open();
    parts_ = std::make_unique<ScrubParts>(*path_, clock_, ScrubberOptions{.wait = [this](std::chrono::nanoseconds time) { Wait(time); }});
  }
  void TearDown() override {
    parts_.reset();
    IngestTest::TearDown();
  }
  // A pack of its own; its number.
  uint64_t Fill() {
    EXPECT_TRUE(Upload(FakeDatabase::Make(4096, 64 * 2, ++seed_), device_).status.ok());
    EXPECT_TRUE(path_->store->SealOpenPack().ok());
    return path_->store->Packs().back().id;
  }
  // The packs that were read, in their order.
  std::vector<uint64_t> Read(const Scrubber::Scope& scope, size_t at_most = SIZE_MAX) {
    std::vector<uint64_t> read;
    const auto before = *parts_->catalog.ProvenPacks();
    CancelToken cancel;
    Scrubber::Report report;
    const auto note = [&] {
      const auto proven = parts_->catalog.ProvenPacks();
      for (const auto& [pack, at] : *proven) {
        const auto known = before.find(pack);
        const bool newly = known == before.end() || known->second != at;
        if (newly && std::find(read.begin(), read.end(), pack) == read.end()) read.push_back(pack);
      }
      if (read.size() >= at_most) cancel.Cancel();
    };
    parts_->scrubber->Run(scope, cancel, report, [&](uint64_t, uint64_t) { note(); }).IgnoreError();
    note();
    return read;
  }

  std::unique_ptr<ScrubParts> parts_;
  unsigned seed_ = 0;
};

TEST_F(OrderTest, TheNewestThatWasNeverProvenIsFirst) {
  const uint64_t a = Fill(), b = Fill(), c = Fill();
  EXPECT_THAT(Read({}, 2), ElementsAre(c, b)) << "cut off after two";
  clock_.Advance(hours(1));
  const uint64_t d = Fill(), e = Fill();
  EXPECT_THAT(Read({.all = false}), ElementsAre(e, d, a)) << "what was proven is not due";
  EXPECT_THAT(Read({.all = false}), ElementsAre());
  clock_.Advance(hours(24 * 30));
  EXPECT_THAT(Read({.all = false}), ElementsAre(c, b)) << "due again after 30 days: that of long ago first";
  clock_.Advance(hours(1));
  const uint64_t f = Fill();
  EXPECT_THAT(Read({}), ElementsAre(f, e, d, a, c, b)) << "all of them, by when they were proven";
}

TEST_F(OrderTest, WhatWasProvenInTheFutureIsDue) {
  const uint64_t a = Fill();
  clock_.JumpSystem(hours(24 * 365));
  EXPECT_THAT(Read({}), ElementsAre(a));
  clock_.JumpSystem(-hours(24 * 365));
  EXPECT_THAT(Read({.all = false}), ElementsAre(a)) << "the clock was a year ahead";
  EXPECT_THAT(Read({.all = false}), ElementsAre());
}

// A machine that has booted in 1970, or whose clock has jumped ahead, does not read the whole store for it.
TEST_F(OrderTest, NothingIsDueWhileTheTimeIsOnHold) {
  bool on_hold = false;
  ScrubParts parts(*path_, clock_, {.bytes_per_second = 0, .now = [&]() -> absl::StatusOr<ScrubTime> {
                                      return ScrubTime{clock_.Now(), on_hold};
                                    }});
  const auto run = [&](bool all) {
    const CancelToken cancel;
    Scrubber::Report report;
    EXPECT_TRUE(parts.scrubber->Run({.all = all}, cancel, report, [](uint64_t, uint64_t) {}).ok());
    return report.packs;
  };
  Fill();
  Fill();
  EXPECT_EQ(run(false), 2u);
  on_hold = true;
  clock_.JumpSystem(-hours(24 * 365 * 30));
  EXPECT_EQ(run(false), 0u);
  clock_.JumpSystem(hours(24 * 365 * 60));
  EXPECT_EQ(run(false), 0u);
  EXPECT_EQ(run(true), 2u) << "what is ordered is read";
  on_hold = false;
  clock_.Advance(hours(24 * 31));
  EXPECT_EQ(run(false), 2u);
}

TEST_F(OrderTest, APackThatStillGrowsIsReadWhereAllAreOrdered) {
  const uint64_t a = Fill();
  ASSERT_TRUE(Upload(FakeDatabase::Make(4096, 64 * 2, 77), device_).status.ok());
  const CancelToken cancel;
  Scrubber::Report due, all;
  ASSERT_TRUE(parts_->scrubber->Run({.all = false}, cancel, due, [](uint64_t, uint64_t) {}).ok());
  EXPECT_EQ(due.packs, 1u);
  EXPECT_TRUE(parts_->catalog.ProvenPacks()->contains(a));
  ASSERT_TRUE(parts_->scrubber->Run({}, cancel, all, [](uint64_t, uint64_t) {}).ok());
  EXPECT_EQ(all.packs, 2u);
  EXPECT_EQ(parts_->catalog.ProvenPacks()->size(), 1u) << "it is not proven by that";
}

TEST_F(OrderTest, ARunTakesAsLongAsItsRateSays) {
  Fill();
  Fill();
  const CancelToken cancel;
  Scrubber::Report report;
  const SteadyTime begun = clock_.Steady();
  ASSERT_TRUE(parts_->scrubber->Run({.bytes_per_second = 100'000}, cancel, report, [](uint64_t, uint64_t) {}).ok());
  const auto took = std::chrono::duration<double>(clock_.Steady() - begun).count();
  EXPECT_NEAR(took, static_cast<double>(report.stored_bytes) / 100'000, 0.01);
  EXPECT_GT(report.stored_bytes, 400'000u);
  const SteadyTime again = clock_.Steady();
  ASSERT_TRUE(parts_->scrubber->Run({.bytes_per_second = 0}, cancel, report, [](uint64_t, uint64_t) {}).ok());
  EXPECT_EQ(clock_.Steady(), again);
}

}  // namespace
}  // namespace litefleet::scrub
