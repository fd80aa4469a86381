// Disks that lose what they should have written, or cannot read what they have.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "common/base/status.h"
#include "controller/store/file_store.h"
#include "tests/fakes/volatile_files.h"

namespace litefleet::store {
namespace {

using fakes::FileCall;
using fakes::FileFault;

Bytes Content(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (auto& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

class BadDiskTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/litefleet-disk-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory_ = name;
  }
  void TearDown() override {
    store_.reset();
    std::filesystem::remove_all(directory_);
  }
  void Open() {
    store_.reset();
    auto store = FileStore::Open({.directory = directory_, .reserve_bytes = 0}, clock_, files_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  void CutPower() {
    store_.reset();
    files_.Forget();
    Open();
  }
  Placed Put(unsigned seed, size_t bytes = 64 << 10) {
    const Bytes content = Content(bytes, seed);
    const auto placed = store_->PutChunk({.name = format::NameChunkOf(512, content),
                                          .codec = format::Codec::kRaw,
                                          .page_size = 512,
                                          .page_count = static_cast<uint32_t>(bytes / 512),
                                          .stored = content});
    EXPECT_TRUE(placed.ok()) << placed.status();
    return placed.value_or(Placed());
  }
  Placed PutDurably(unsigned seed) {
    const Placed placed = Put(seed);
    EXPECT_TRUE(store_->Sync(placed.epoch).ok());
    return placed;
  }
  std::string Path(uint64_t pack, const char* ending) { return directory_ + "/packs/000000000000000" + std::to_string(pack) + ending; }
  absl::StatusOr<PackScan> Scan(uint64_t pack) {
    return store_->ScanPack(pack, [](const Location&, const format::ScannedRecord&) { return absl::OkStatus(); });
  }
  std::string ReasonOfRead(const Placed& placed) { return ReasonOf(store_->Read(placed.location).status()); }

  std::string directory_;
  FakeClock clock_;
  std::function<void()> at_sync_, at_remove_;  // once
  int fail_syncs_ = 0;
  int fail_directory_syncs_ = 0;
  bool no_reads_ = false;
  bool no_writes_ = false;
  bool no_opens_ = false;
  fakes::VolatileFiles files_{1, 0, [this](FileCall call) {
                                if (call == FileCall::kSync && at_sync_ != nullptr) std::exchange(at_sync_, nullptr)();
                                if (call == FileCall::kSync && fail_syncs_ > 0 && fail_syncs_-- > 0) return FileFault::kIo;
                                if (call == FileCall::kRemove && at_remove_ != nullptr) std::exchange(at_remove_, nullptr)();
                                if (call == FileCall::kSyncDirectory && fail_directory_syncs_ > 0 && fail_directory_syncs_-- > 0)
                                  return FileFault::kIo;
                                if (call == FileCall::kRead && no_reads_) return FileFault::kIo;
                                if (call == FileCall::kWrite && no_writes_) return FileFault::kFull;
                                if (call == FileCall::kOpen && no_opens_) return FileFault::kDenied;
                                return FileFault::kNone;
                              }};
  std::unique_ptr<FileStore> store_;
};

// The first sync of a pack fails, its header with it, and the program ends: the kernel has it in its cache and takes it for written.
TEST_F(BadDiskTest, WhatAFailedSyncLostIsWrittenAgainByTheNextStart) {
  Open();
  const Placed lost = Put(1);
  fail_syncs_ = 1;
  EXPECT_EQ(ReasonOf(store_->Sync(lost.epoch)), "STORE_FAILED");
  Open();
  const Placed next = PutDurably(2);
  const Placed last = PutDurably(3);
  CutPower();
  EXPECT_EQ(ReasonOfRead(next), "");
  EXPECT_EQ(ReasonOfRead(last), "");
  EXPECT_EQ(ReasonOfRead(lost), "") << "it was found, so it counts";
  EXPECT_THAT(store_->Stats()->problems, testing::IsEmpty());
}

TEST_F(BadDiskTest, APackThatIsSealedByTheNextStartIsWrittenAgainToo) {
  Open();
  const Placed lost = Put(1);
  fail_syncs_ = 1;
  EXPECT_EQ(ReasonOf(store_->Sync(lost.epoch)), "STORE_FAILED");
  const Placed next = PutDurably(2);  // in a pack of its own
  ASSERT_NE(next.location.pack, lost.location.pack);
  Open();
  CutPower();
  EXPECT_EQ(ReasonOfRead(next), "");
  // What is sealed is whole: a scrub would find fault with anything else for ever.
  for (const PackInfo& pack : store_->Packs()) {
    const auto scan = Scan(pack.id);
    ASSERT_TRUE(scan.ok()) << scan.status();
    EXPECT_EQ(scan->damaged_bytes, 0U);
  }
}

TEST_F(BadDiskTest, APackThatCannotBeWrittenAgainIsReadAndNotAppendedTo) {
  Open();
  const Placed there = PutDurably(1);
  no_writes_ = true;
  Open();
  no_writes_ = false;
  EXPECT_EQ(ReasonOfRead(there), "");
  EXPECT_EQ(store_->Stats()->problems.size(), 1U);
  const Placed next = PutDurably(2);
  EXPECT_NE(next.location.pack, there.location.pack);
  Open();
  EXPECT_THAT(store_->Stats()->problems, testing::IsEmpty());
  EXPECT_EQ(ReasonOfRead(there), "");
  EXPECT_EQ(ReasonOfRead(next), "");
}

TEST_F(BadDiskTest, APackThatWasGivenUpIsSealedWithoutAStart) {
  Open();
  const Placed there = PutDurably(1);
  const Placed lost = Put(2);
  fail_syncs_ = 1;
  EXPECT_EQ(ReasonOf(store_->Sync(lost.epoch)), "STORE_FAILED");
  const Placed next = PutDurably(3);
  no_writes_ = true;
  store_->SealGivenUpPacks();
  EXPECT_FALSE(store_->Packs()[0].sealed);
  no_writes_ = false;
  store_->SealGivenUpPacks();
  ASSERT_EQ(store_->Packs().size(), 2U);
  EXPECT_TRUE(store_->Packs()[0].sealed);
  EXPECT_TRUE(store_->Packs()[0].held) << "who has put something into it goes on";
  EXPECT_FALSE(store_->Packs()[1].sealed);
  EXPECT_EQ(PutDurably(4).location.pack, next.location.pack) << "the open one is not touched";
  CutPower();
  EXPECT_EQ(ReasonOfRead(there), "");
  EXPECT_EQ(ReasonOfRead(next), "");
}

TEST_F(BadDiskTest, WhilePacksThatWereGivenUpAreSealedIngestGoesOn) {
  Open();
  const Placed lost = Put(1);
  fail_syncs_ = 1;
  EXPECT_EQ(ReasonOf(store_->Sync(lost.epoch)), "STORE_FAILED");
  Placed beside;
  at_sync_ = [&] { beside = Put(2); };  // of the pack that is sealed
  store_->SealGivenUpPacks();
  EXPECT_NE(beside.location.pack, lost.location.pack);
  EXPECT_TRUE(store_->Packs()[0].sealed);
  EXPECT_TRUE(store_->Sync(beside.epoch).ok());
  CutPower();
  EXPECT_EQ(ReasonOfRead(lost), "") << "it was found, so it counts";
  EXPECT_EQ(ReasonOfRead(beside), "");
}

// A start finds two open packs, and the disk fills up between them: the older one cannot be sealed, and the newer one goes on.
TEST_F(BadDiskTest, WhereTheOlderOfTwoPacksCannotBeSealedTheNewerOneIsAppendedToAndLeftAlone) {
  Open();
  const Placed there = PutDurably(1);
  fail_syncs_ = 1;
  EXPECT_EQ(ReasonOf(store_->Sync(Put(2).epoch)), "STORE_FAILED");
  const Placed newer = PutDurably(3);
  ASSERT_NE(newer.location.pack, there.location.pack);
  at_sync_ = [&] { at_sync_ = [&] { no_writes_ = true; }; };
  Open();
  no_writes_ = false;
  EXPECT_EQ(store_->Stats()->problems.size(), 1U);
  const Placed before = PutDurably(4);
  store_->SealGivenUpPacks();
  const Placed behind = PutDurably(5);
  EXPECT_EQ(before.location.pack, newer.location.pack);
  EXPECT_EQ(behind.location.pack, newer.location.pack);
  const std::vector<PackInfo> packs = store_->Packs();
  ASSERT_EQ(packs.size(), 2U);
  EXPECT_TRUE(packs[0].sealed);
  EXPECT_FALSE(packs[1].sealed);
  CutPower();
  for (const Placed& placed : {there, newer, before, behind}) EXPECT_EQ(ReasonOfRead(placed), "");
  for (const PackInfo& pack : store_->Packs()) {
    const auto scan = Scan(pack.id);
    ASSERT_TRUE(scan.ok()) << scan.status();
    EXPECT_EQ(scan->damaged_bytes, 0U);
  }
}

// What was acknowledged last stands last: a rebuild goes by that.
TEST_F(BadDiskTest, NothingIsAppendedToAnOlderPackThanTheNewest) {
  Open();
  const Placed there = PutDurably(1);
  fail_syncs_ = 1;
  EXPECT_EQ(ReasonOf(store_->Sync(Put(2).epoch)), "STORE_FAILED");
  const Placed newer = PutDurably(3);
  at_sync_ = [&] { no_opens_ = true; };  // of the older one
  Open();
  no_opens_ = false;
  const Placed next = PutDurably(4);
  EXPECT_GT(next.location.pack, newer.location.pack);
  store_->SealGivenUpPacks();
  ASSERT_EQ(store_->Packs().size(), 3U);
  EXPECT_TRUE(store_->Packs()[0].sealed);
  EXPECT_TRUE(store_->Packs()[1].sealed);
  EXPECT_EQ(PutDurably(5).location.pack, next.location.pack);
  for (const Placed& placed : {there, newer, next}) EXPECT_EQ(ReasonOfRead(placed), "");
}

// Its footer was written by the process before; the rename is all that was missing.
TEST_F(BadDiskTest, APackWhoseNewNameCouldNotBeSyncedIsSealedAndStaysRemoved) {
  Open();
  const Placed there = PutDurably(1);
  ASSERT_TRUE(store_->SealOpenPack().ok());
  const uint64_t size = store_->Packs()[0].size;
  store_.reset();
  files_.Forget();
  std::filesystem::rename(Path(1, ".pack"), Path(1, ".open"));
  fail_directory_syncs_ = 1;
  Open();
  for (int round = 0; round < 2; ++round) {
    store_->SealGivenUpPacks();
    ASSERT_EQ(store_->Packs().size(), 1U);
    EXPECT_TRUE(store_->Packs()[0].sealed);
    EXPECT_EQ(store_->Packs()[0].size, size);
  }
  EXPECT_EQ(ReasonOfRead(there), "");
  ASSERT_TRUE(store_->RemovePack(1).ok());
  store_->SealGivenUpPacks();
  EXPECT_TRUE(store_->Packs().empty());
}

TEST_F(BadDiskTest, DamageIsCountedOnceHoweverOftenAPackIsTriedAgain) {
  Open();
  const Placed first = PutDurably(1);
  PutDurably(2);
  files_.Flip(Path(1, ".open"), first.location.offset + 10'000);
  no_writes_ = true;
  Open();
  const uint64_t damaged = store_->Stats()->damaged_bytes;
  EXPECT_GT(damaged, 0U);
  for (int round = 0; round < 2; ++round) store_->SealGivenUpPacks();
  no_writes_ = false;
  store_->SealGivenUpPacks();
  EXPECT_TRUE(store_->Packs()[0].sealed);
  EXPECT_EQ(store_->Stats()->damaged_bytes, damaged);
}

TEST_F(BadDiskTest, APackThatIsJustBeingRemovedIsMissingAndNotDamaged) {
  Open();
  PutDurably(1);
  ASSERT_TRUE(store_->SealOpenPack().ok());
  std::string reason;
  at_remove_ = [&] { reason = ReasonOf(Scan(1).status()); };
  ASSERT_TRUE(store_->RemovePack(1).ok());
  EXPECT_EQ(reason, "CHUNK_MISSING");
}

TEST_F(BadDiskTest, APackWhoseRemovalCouldNotBeSyncedIsGoneAndRemovedAgain) {
  Open();
  PutDurably(1);
  ASSERT_TRUE(store_->SealOpenPack().ok());
  fail_directory_syncs_ = 1;
  EXPECT_FALSE(store_->RemovePack(1).ok());
  EXPECT_TRUE(store_->Packs().empty());
  EXPECT_EQ(ReasonOf(Scan(1).status()), "CHUNK_MISSING");
  EXPECT_TRUE(store_->RemovePack(1).ok());
}

TEST_F(BadDiskTest, ABadPlaceIsDamageOfWhatStandsThereAndOfNothingElse) {
  Open();
  std::vector<Placed> placed;
  for (unsigned i = 0; i < 4; ++i) placed.push_back(PutDurably(i));
  files_.Spoil(Path(1, ".open"), placed[1].location.offset + 10'000);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(ReasonOfRead(placed[0]), "");
    EXPECT_EQ(ReasonOfRead(placed[1]), "CHUNK_DAMAGED");
    EXPECT_TRUE(absl::IsDataLoss(store_->Read(placed[1].location).status()));
    EXPECT_EQ(ReasonOfRead(placed[2]), "");
    EXPECT_EQ(ReasonOfRead(placed[3]), "");
    std::vector<uint64_t> seen;
    const auto scan = store_->ScanPack(1, [&](const Location& at, const format::ScannedRecord&) {
      seen.push_back(at.offset);
      return absl::OkStatus();
    });
    ASSERT_TRUE(scan.ok()) << scan.status();
    EXPECT_THAT(seen, testing::ElementsAre(placed[0].location.offset, placed[2].location.offset, placed[3].location.offset));
    EXPECT_EQ(scan->damaged_bytes, placed[2].location.offset - placed[1].location.offset);
    Open();  // it is sealed
    EXPECT_TRUE(store_->Packs()[0].sealed);
  }
}

TEST_F(BadDiskTest, ABadPlaceAtTheEndIsNoTornTail) {
  Open();
  const Placed first = PutDurably(1);
  const Placed last = PutDurably(2);
  const uint64_t end = last.location.offset + format::kRecordHeaderBytes + (64 << 10);
  files_.Spoil(Path(1, ".open"), last.location.offset + 20'000);
  Open();
  EXPECT_EQ(ReasonOfRead(first), "");
  EXPECT_EQ(ReasonOfRead(last), "CHUNK_DAMAGED") << "and not cut off";
  ASSERT_EQ(store_->Packs().size(), 1U);
  EXPECT_TRUE(store_->Packs()[0].sealed);
  EXPECT_GT(store_->Packs()[0].size, end);
  EXPECT_EQ(PutDurably(3).location.pack, 2U);
}

TEST_F(BadDiskTest, AHeaderThatCannotBeReadIsKnownByTheFooter) {
  Open();
  const Placed first = PutDurably(1);
  const Placed second = PutDurably(2);
  ASSERT_TRUE(store_->SealOpenPack().ok());
  const Placed other = PutDurably(3);
  files_.Spoil(Path(1, ".pack"), 0);
  for (int round = 0; round < 2; ++round) {
    EXPECT_TRUE(absl::IsDataLoss(store_->Read(first.location).status())) << "it begins in the same 4 KiB";
    EXPECT_EQ(ReasonOfRead(second), "");
    EXPECT_EQ(ReasonOfRead(other), "");
    std::vector<uint64_t> seen;
    const auto scan = store_->ScanPack(1, [&](const Location& at, const format::ScannedRecord&) {
      seen.push_back(at.offset);
      return absl::OkStatus();
    });
    ASSERT_TRUE(scan.ok()) << scan.status();
    EXPECT_THAT(seen, testing::ElementsAre(second.location.offset));
    EXPECT_EQ(scan->damaged_bytes, second.location.offset) << "with the header";
    EXPECT_EQ(scan->unknown_bytes, second.location.offset - first.location.offset);
    Open();
  }
}

TEST_F(BadDiskTest, AnOpenPackWithoutAHeaderIsReadUntilTheNextStart) {
  Open();
  PutDurably(1);
  const Placed second = PutDurably(2);
  files_.Spoil(Path(1, ".open"), 0);
  store_->ForgetCached(1);
  EXPECT_EQ(ReasonOfRead(second), "");
  // Then it is left alone; it is the only pack, and its other places say that the disk is there.
  Open();
  EXPECT_EQ(store_->Stats()->problems.size(), 1U);
  EXPECT_TRUE(absl::IsDataLoss(store_->Read(second.location).status()));
  EXPECT_EQ(PutDurably(3).location.pack, 2U);
}

// The disk is gone; what was written last is in the cache all the same.
TEST_F(BadDiskTest, WhatIsOnlyInTheCacheSaysNothingOfTheDisk) {
  Open();
  const Placed there = PutDurably(1);
  ASSERT_TRUE(store_->SealOpenPack().ok());
  const Placed cached = Put(2);
  ASSERT_EQ(cached.location.pack, 2U);
  const uint64_t size = store_->Packs()[0].size;
  for (uint64_t at = 0; at < size; at += 4096) files_.Spoil(Path(1, ".pack"), at);
  EXPECT_EQ(ReasonOfRead(there), "IO_ERROR");
  ASSERT_TRUE(store_->Sync(cached.epoch).ok());
  EXPECT_EQ(ReasonOfRead(there), "CHUNK_DAMAGED") << "the disk is there";
}

TEST_F(BadDiskTest, ADiskThatGivesNothingProvesNothing) {
  Open();
  const Placed there = PutDurably(1);
  ASSERT_EQ(ReasonOfRead(there), "");
  no_reads_ = true;
  EXPECT_EQ(ReasonOfRead(there), "IO_ERROR");
  EXPECT_EQ(ReasonOf(Scan(1).status()), "IO_ERROR");
  store_.reset();
  EXPECT_EQ(ReasonOf(FileStore::Open({.directory = directory_, .reserve_bytes = 0}, clock_, files_).status()), "IO_ERROR");
  no_reads_ = false;
  Open();
  EXPECT_EQ(ReasonOfRead(there), "");
}

TEST_F(BadDiskTest, AnOpenPackOfNothingButZerosIsRemoved) {
  std::filesystem::create_directories(directory_ + "/packs");
  std::ofstream(Path(5, ".open")) << std::string(300'000, '\0');
  std::ofstream(Path(6, ".open")) << std::string(300'000, '\0') << "x";
  Open();
  ASSERT_EQ(store_->Packs().size(), 1U);
  EXPECT_EQ(store_->Packs()[0].id, 6U) << "something was written to it";
  EXPECT_EQ(store_->Stats()->problems.size(), 2U) << "neither is passed over in silence";
  EXPECT_EQ(store_->Stats()->cut_bytes, 300'000U);
  EXPECT_EQ(PutDurably(1).location.pack, 7U);
}

}  // namespace
}  // namespace litefleet::store
