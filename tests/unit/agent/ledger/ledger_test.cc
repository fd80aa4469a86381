#include "agent/ledger/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>

#include "agent/ledger/page_index.h"
#include "common/base/bytes.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/format/crc32c.h"

namespace litefleet::ledger {
namespace {

format::PageDigest Digest(uint64_t seed) {
  format::PageDigest digest;
  std::minstd_rand random(static_cast<unsigned>(seed * 2654435761u + 1));
  for (std::byte& byte : digest.bytes) byte = static_cast<std::byte>(random() >> 8);
  return digest;
}

std::string SnapshotName(uint64_t number) {
  std::string id = "01ARZ3NDEKTSV4RRFFQ6900000";
  for (size_t i = id.size(); number > 0; number /= 10) id[--i] = static_cast<char>('0' + number % 10);
  return id;
}

format::RootDigest Root(uint64_t seed) {
  format::RootDigest root;
  root.bytes = Digest(seed).bytes;
  return root;
}

class LedgerTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/litefleet-ledger-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory_ = name;
    path_ = directory_ + "/main.ledger";
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::unique_ptr<Ledger> Open(const std::string& device = "device", const std::string& name = "main",
                               const std::string& database = "/srv/main.db") {
    auto ledger = Ledger::Open(path_, LedgerIdentity(device, name, database));
    EXPECT_TRUE(ledger.ok()) << ledger.status();
    return ledger.ok() ? *std::move(ledger) : nullptr;
  }
  static void WriteAll(Ledger& ledger, const std::vector<uint64_t>& pages, uint64_t number, uint32_t page_size = 4096) {
    ASSERT_TRUE(ledger.Begin(page_size, static_cast<uint32_t>(pages.size()), Ledger::kAll).ok());
    std::vector<format::PageDigest> digests;
    for (size_t i = 0; i < pages.size(); ++i) {
      digests.push_back(Digest(pages[i]));
      if (digests.size() == 64 || i + 1 == pages.size()) {
        ASSERT_TRUE(ledger.Put(static_cast<uint32_t>(i + 2 - digests.size()), digests).ok());
        digests.clear();
      }
    }
    ASSERT_TRUE(ledger.Commit(SnapshotName(number), Root(number)).ok());
  }
  static absl::Status WriteChanges(Ledger& ledger, const std::vector<uint64_t>& before, const std::vector<uint64_t>& pages) {
    LF_RETURN_IF_ERROR(ledger.Begin(4096, static_cast<uint32_t>(pages.size()), Ledger::kChanges));
    for (size_t i = 0; i < pages.size(); ++i) {
      if (i < before.size() && before[i] == pages[i]) continue;
      const format::PageDigest digest = Digest(pages[i]);
      LF_RETURN_IF_ERROR(ledger.Put(static_cast<uint32_t>(i + 1), std::span(&digest, 1)));
    }
    return absl::OkStatus();
  }
  static bool Holds(Ledger& ledger, const std::vector<uint64_t>& pages) {
    if (!ledger.state().has_value() || ledger.state()->page_count != pages.size()) return false;
    std::vector<format::PageDigest> read;
    for (size_t i = 0; i < pages.size(); i += 64) {
      read.resize(std::min<size_t>(64, pages.size() - i));
      if (!ledger.Read(static_cast<uint32_t>(i + 1), read).ok()) return false;
      for (size_t k = 0; k < read.size(); ++k) {
        if (read[k] != Digest(pages[i + k])) return false;
      }
    }
    return true;
  }
  // What was put and not committed lies over it.
  static bool HoldsNext(Ledger& ledger, const std::vector<uint64_t>& pages) {
    std::vector<format::PageDigest> read;
    for (size_t i = 0; i < pages.size(); i += 64) {
      read.resize(std::min<size_t>(64, pages.size() - i));
      if (!ledger.ReadNext(static_cast<uint32_t>(i + 1), read).ok()) return false;
      for (size_t k = 0; k < read.size(); ++k) {
        if (read[k] != Digest(pages[i + k])) return false;
      }
    }
    return true;
  }
  static std::vector<uint64_t> Pages(size_t count) {
    std::vector<uint64_t> pages;
    for (size_t i = 0; i < count; ++i) pages.push_back(i + 1);
    return pages;
  }

  std::string directory_;
  std::string path_;
};

TEST_F(LedgerTest, RandomHistoriesWithFoldsAndReopens) {
  std::minstd_rand random(5);
  std::vector<uint64_t> pages = Pages(9000);
  auto ledger = Open();
  EXPECT_FALSE(ledger->state().has_value());
  EXPECT_EQ(ledger->problem(), "");
  WriteAll(*ledger, pages, 1);
  uint64_t seed = 1'000'000;
  uint64_t most = 0;  // bytes a page, but for a small log
  for (uint64_t step = 2; step < 250; ++step) {
    const std::vector<uint64_t> before = pages;
    switch (random() % 6) {
      case 0:
        for (unsigned n = random() % 700; n > 0; --n) pages.push_back(++seed);
        break;
      case 1:
        pages.resize(pages.size() - random() % 500);
        break;
      default:
        for (unsigned n = random() % 120; n > 0; --n) pages[random() % pages.size()] = ++seed;
    }
    if (random() % 5 == 0) {  // an attempt that came to nothing
      ASSERT_TRUE(WriteChanges(*ledger, before, Pages(pages.size())).ok());
      if (random() % 2 == 0) ledger = Open();
      ASSERT_TRUE(Holds(*ledger, before)) << step;
    }
    ASSERT_TRUE(WriteChanges(*ledger, before, pages).ok());
    if (random() % 4 == 0) {
      ASSERT_TRUE(HoldsNext(*ledger, pages)) << step;
      ASSERT_TRUE(Holds(*ledger, before)) << step;
      ASSERT_TRUE(HoldsNext(*ledger, pages)) << step;
    }
    ASSERT_TRUE(ledger->Commit(SnapshotName(step), Root(step), /*lazily=*/random() % 2 == 0).ok());
    if (random() % 3 == 0) ledger = Open();
    ASSERT_TRUE(Holds(*ledger, pages)) << step;
    EXPECT_EQ(ledger->state()->snapshot_id, SnapshotName(step));
    EXPECT_EQ(ledger->state()->root, Root(step));
    most = std::max(most, (ledger->bytes() - std::min<uint64_t>(ledger->bytes(), 64 << 10)) / pages.size());
  }
  EXPECT_LE(most, 45u);
}

TEST_F(LedgerTest, ManyPagesTakeNoMore) {
  auto ledger = Open();
  std::vector<uint64_t> pages = Pages(200'000);
  WriteAll(*ledger, pages, 1, 512);
  EXPECT_LE(ledger->bytes(), 45 * pages.size());
  const auto before = pages;
  for (size_t i = 0; i < pages.size(); i += 30) pages[i] += 10'000'000;
  pages.resize(150'000);
  ASSERT_TRUE(ledger->Begin(512, 150'000, Ledger::kChanges).ok());
  for (size_t i = 0; i < pages.size(); i += 30) {
    const auto digest = Digest(pages[i]);
    ASSERT_TRUE(ledger->Put(static_cast<uint32_t>(i + 1), std::span(&digest, 1)).ok());
  }
  ASSERT_TRUE(ledger->Commit(SnapshotName(2), Root(2)).ok());
  EXPECT_TRUE(Holds(*ledger, pages));
  EXPECT_TRUE(Holds(*Open(), pages));
  EXPECT_LE(ledger->bytes(), 44 * pages.size() + (64 << 10));  // FORMAT.md
}

// What this process has read of files, in bytes.
uint64_t BytesRead() {
  std::ifstream io("/proc/self/io");
  std::string name;
  uint64_t bytes = 0;
  io >> name >> bytes;
  return bytes;
}

TEST_F(LedgerTest, TheLogIsReadOnceHoweverManyGroupsThereAre) {
  constexpr uint32_t kPages = 32 * Ledger::kGroupPages;
  const std::vector<uint64_t> pages = Pages(kPages);
  WriteAll(*Open(), pages, 1, 512);
  // Each in a snapshot of its own: more than the map of the log has places for.
  constexpr uint32_t kSnapshots = 5000;
  auto changed = pages;
  auto ledger = Open();
  for (uint32_t number = 0; number < kSnapshots; ++number) {
    ASSERT_TRUE(ledger->Begin(512, kPages, Ledger::kChanges).ok());
    std::vector<format::PageDigest> digests;
    const uint32_t first = number * (kPages / kSnapshots);
    for (uint32_t i = 0; i < 20; ++i) digests.push_back(Digest(changed[first + i] += 10'000'000));
    ASSERT_TRUE(ledger->Put(first + 1, digests).ok());
    ASSERT_TRUE(ledger->Commit(SnapshotName(2), Root(2), /*lazily=*/true).ok());
  }
  for (int turn = 0; turn < 2; ++turn) {
    const uint64_t log_bytes = std::filesystem::file_size(path_ + "-log");
    ASSERT_GT(log_bytes, 3u << 20);
    const uint64_t before = BytesRead();
    std::vector<format::PageDigest> read(64);
    for (uint32_t page = 1; page < kPages; page += 64) {
      ASSERT_TRUE(ledger->Read(page, read).ok());
      for (uint32_t i = 0; i < 64; i += 7) ASSERT_EQ(read[i], Digest(changed[page - 1 + i])) << page + i;
    }
    EXPECT_LE(BytesRead() - before, ledger->bytes() + log_bytes / 2);
    // What is put is read through the same map, and forgotten with it.
    ASSERT_TRUE(ledger->Begin(512, kPages, Ledger::kChanges).ok());
    const format::PageDigest coming = Digest(5);
    ASSERT_TRUE(ledger->Put(70'000, std::span(&coming, 1)).ok());
    ASSERT_TRUE(ledger->ReadNext(70'000, std::span(read.data(), 1)).ok());
    EXPECT_EQ(read[0], coming);
    ASSERT_TRUE(ledger->Read(70'000, std::span(read.data(), 1)).ok());
    EXPECT_EQ(read[0], Digest(changed[70'000 - 1]));
    EXPECT_EQ(*ledger->ReadAside(70'000), Digest(changed[70'000 - 1]));
    ledger = Open();
  }
}

TEST_F(LedgerTest, DamageAndStrangersAreNoticed) {
  const std::vector<uint64_t> pages = Pages(5000);
  {
    auto ledger = Open();
    WriteAll(*ledger, pages, 1);
    auto changed = pages;
    changed[7] = 99;
    ASSERT_TRUE(WriteChanges(*ledger, pages, changed).ok());
    ASSERT_TRUE(ledger->Commit(SnapshotName(2), Root(2)).ok());
  }
  for (const auto& stranger : {Open("another device"), Open("device", "other"), Open("device", "main", "/srv/other.db")}) {
    EXPECT_FALSE(stranger->state().has_value());
    EXPECT_THAT(stranger->problem(), testing::HasSubstr("of another database or device"));
  }
  const auto flip = [&](const std::string& path, uint64_t at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const char byte = static_cast<char>(file.get() ^ 0x10);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(byte);
  };
  flip(path_, 256 + 32 * 4000 + 5);  // a digest
  {
    auto ledger = Open();
    ASSERT_TRUE(ledger->state().has_value());
    std::vector<format::PageDigest> read(64);
    EXPECT_EQ(ReasonOf(ledger->Read(1, read)), "LEDGER_DAMAGED");
  }
  flip(path_, 256 + 32 * 4000 + 5);
  flip(path_, 60);  // the header
  EXPECT_FALSE(Open()->state().has_value());
  flip(path_, 60);
  flip(path_ + "-log", 50);  // a record: what follows does not count, the base does
  EXPECT_TRUE(Holds(*Open(), pages));
  EXPECT_EQ(Open()->state()->snapshot_id, SnapshotName(1));
  std::filesystem::resize_file(path_, 1000);
  auto cut = Open();
  EXPECT_FALSE(cut->state().has_value());
  // And it can be written anew.
  WriteAll(*cut, pages, 3);
  EXPECT_TRUE(Holds(*Open(), pages));
  ASSERT_TRUE(cut->Remove().ok());
  EXPECT_FALSE(Open()->state().has_value());
  EXPECT_EQ(Open()->problem(), "");
}

TEST_F(LedgerTest, WhatALaterVersionHasWrittenIsNotReadAndCanBeWrittenAnew) {
  const std::vector<uint64_t> pages = Pages(3000);
  std::vector<uint64_t> changed = pages;
  changed[7] = 99;
  const std::string log = path_ + "-log";
  // A number of so many bits in the header, whose checksum is right.
  const auto set = [](const std::string& path, uint64_t at, uint32_t number, size_t header_bytes) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    Bytes header(header_bytes);
    file.read(reinterpret_cast<char*>(header.data()), static_cast<std::streamsize>(header.size()));
    StoreLittleEndian<uint32_t>(number, &header[at]);
    StoreLittleEndian<uint32_t>(format::Crc32c(ByteView(header).first(header_bytes - 4)), &header[header_bytes - 4]);
    file.seekp(0);
    file.write(reinterpret_cast<const char*>(header.data()), static_cast<std::streamsize>(header.size()));
    ASSERT_TRUE(file.good());
  };
  const auto write = [&] {
    auto ledger = Open();
    WriteAll(*ledger, pages, 1);
    ASSERT_TRUE(WriteChanges(*ledger, pages, changed).ok());
    ASSERT_TRUE(ledger->Commit(SnapshotName(2), Root(2)).ok());
    ASSERT_TRUE(Holds(*Open(), changed));
  };
  struct Later {
    std::string file;
    uint64_t at;
    uint32_t number;
    size_t header_bytes;
  };
  for (const Later& later : {Later{path_, 8, 2, 256}, Later{path_, 16, 1, 256}, Later{path_, 20, 1u << 31, 256}, Later{log, 8, 2, 32}}) {
    write();
    set(later.file, later.at, later.number, later.header_bytes);
    auto ledger = Open();
    EXPECT_FALSE(ledger->state().has_value()) << later.file << " " << later.at;
    EXPECT_THAT(ledger->problem(), testing::HasSubstr("later version")) << later.file << " " << later.at;
    WriteAll(*ledger, pages, 3);
    EXPECT_TRUE(Holds(*ledger, pages));
    EXPECT_TRUE(Holds(*Open(), pages));
    EXPECT_EQ(Open()->state()->snapshot_id, SnapshotName(3));
  }
}

// As a sector that fails while the ledger is open: the bytes do not come back.
TEST_F(LedgerTest, WhatCannotBeReadIsDamage) {
  const std::vector<uint64_t> pages = Pages(5000);
  std::vector<uint64_t> changed = pages;
  for (size_t i = 0; i < 500; ++i) changed[i * 3] += 50'000;
  {
    auto ledger = Open();
    WriteAll(*ledger, pages, 1);
    ASSERT_TRUE(WriteChanges(*ledger, pages, changed).ok());
    ASSERT_TRUE(ledger->Commit(SnapshotName(2), Root(2)).ok());
  }
  std::vector<format::PageDigest> read(64);
  const std::string kept = directory_ + "/kept";
  for (const std::string& file : {path_, path_ + "-log"}) {
    std::filesystem::copy(file, kept);
    auto ledger = Open();
    ASSERT_TRUE(ledger->state().has_value()) << ledger->problem();
    std::filesystem::resize_file(file, 1000);
    const absl::Status status = ledger->Read(1, read);
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_EQ(ReasonOf(status), "LEDGER_DAMAGED") << file;
    EXPECT_EQ(ReasonOf(ledger->ReadAside(1).status()), "LEDGER_DAMAGED") << file;
    std::filesystem::rename(kept, file);
  }
  EXPECT_TRUE(Holds(*Open(), changed));
  // A directory can be opened, and not read; to write, not even that.
  for (const std::string& file : {path_ + "-log", path_}) {
    std::filesystem::rename(file, kept);
    std::filesystem::create_directory(file);
    auto ledger = Open();
    ASSERT_NE(ledger, nullptr) << file;
    EXPECT_FALSE(ledger->state().has_value()) << file;
    EXPECT_NE(ledger->problem(), "") << file;
    std::filesystem::remove(file);
    std::filesystem::rename(kept, file);
  }
  EXPECT_TRUE(Holds(*Open(), changed));
}

TEST_F(LedgerTest, WhatIsCommittedStaysWhereItCannotBeFolded) {
  std::vector<uint64_t> before = Pages(8000);
  auto ledger = Open();
  WriteAll(*ledger, before, 1);
  std::filesystem::create_directory(path_ + "-new");
  uint64_t number = 1;
  const auto change = [&](size_t count) {
    std::vector<uint64_t> pages = before;
    for (size_t i = 0; i < count; ++i) pages[i * 2] += 50'000;
    ++number;
    EXPECT_TRUE(WriteChanges(*ledger, before, pages).ok());
    const absl::Status committed = ledger->Commit(SnapshotName(number), Root(number));
    EXPECT_TRUE(committed.ok()) << committed;
    before = pages;
  };
  change(3500);
  EXPECT_TRUE(Holds(*ledger, before));
  EXPECT_EQ(ledger->state()->snapshot_id, SnapshotName(2));
  EXPECT_TRUE(Holds(*Open(), before)) << "durably";
  std::filesystem::remove(path_ + "-new");
  change(10);
  EXPECT_TRUE(std::filesystem::exists(path_ + "-log")) << "not with every commit";
  change(3500);
  EXPECT_FALSE(std::filesystem::exists(path_ + "-log")) << "folded after all";
  EXPECT_TRUE(Holds(*ledger, before));
  EXPECT_TRUE(Holds(*Open(), before));
}

class LedgerKillTest : public LedgerTest, public testing::WithParamInterface<const char*> {};

TEST_P(LedgerKillTest, OldOrNew) {
  const std::vector<uint64_t> pages = Pages(4000);
  std::vector<uint64_t> changed = pages;
  for (size_t i = 0; i < changed.size(); i += 2) changed[i] += 50'000;  // more than a quarter: folded
  WriteAll(*Open(), pages, 1);
  const pid_t child = fork();
  if (child == 0) {
    setenv("LITEFLEET_CRASH_AT", GetParam(), 1);
    auto ledger = Open();
    if (!WriteChanges(*ledger, pages, changed).ok()) _exit(3);
    static_cast<void>(ledger->Commit(SnapshotName(2), Root(2)));
    _exit(4);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status)) << status;
  auto ledger = Open();
  EXPECT_FALSE(std::filesystem::exists(path_ + "-new")) << "what was being made goes";
  ASSERT_TRUE(ledger->state().has_value()) << ledger->problem();
  const bool advanced = ledger->state()->snapshot_id == SnapshotName(2);
  EXPECT_TRUE(Holds(*ledger, advanced ? changed : pages));
  EXPECT_EQ(advanced, std::string(GetParam()) != "ledger.before_commit");
  // It goes on from there.
  ASSERT_TRUE(WriteChanges(*ledger, advanced ? changed : pages, pages).ok());
  ASSERT_TRUE(ledger->Commit(SnapshotName(3), Root(3)).ok());
  EXPECT_TRUE(Holds(*Open(), pages));
}

INSTANTIATE_TEST_SUITE_P(Points, LedgerKillTest,
                         testing::Values("ledger.before_commit", "ledger.committed", "ledger.before_rename", "ledger.renamed"),
                         [](const auto& test) {
                           std::string name = test.param;
                           for (char& c : name) c = c == '.' ? '_' : c;
                           return name;
                         });

TEST_F(LedgerTest, ALogOfALostBaseIsNotThatOfTheNextOne) {
  const std::vector<uint64_t> pages = Pages(4000);
  std::vector<uint64_t> changed = pages;
  changed[7] = 77'000;
  WriteAll(*Open(), pages, 1);
  {
    auto ledger = Open();
    ASSERT_TRUE(WriteChanges(*ledger, pages, changed).ok());
    ASSERT_TRUE(ledger->Commit(SnapshotName(2), Root(2)).ok());
  }
  std::ofstream(path_, std::ios::trunc) << "rubbish";
  const std::vector<uint64_t> others = Pages(3000);
  const pid_t child = fork();
  if (child == 0) {
    setenv("LITEFLEET_CRASH_AT", "ledger.renamed", 1);
    WriteAll(*Open(), others, 3);
    _exit(4);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status)) << status;
  auto ledger = Open();
  ASSERT_TRUE(ledger->state().has_value()) << ledger->problem();
  EXPECT_EQ(ledger->state()->snapshot_id, SnapshotName(3));
  EXPECT_TRUE(Holds(*ledger, others));
}

TEST_F(LedgerTest, ALogThatNeverReachedTheDiskLeavesTheBase) {
  const std::vector<uint64_t> pages = Pages(4000);
  std::vector<uint64_t> changed = pages;
  changed[7] = 77'000;
  WriteAll(*Open(), pages, 1);
  {
    auto ledger = Open();
    ASSERT_TRUE(WriteChanges(*ledger, pages, changed).ok());
    ASSERT_TRUE(ledger->Commit(SnapshotName(2), Root(2), /*lazily=*/true).ok());
  }
  // As after a power cut: its length is there, its bytes are not.
  const uint64_t bytes = std::filesystem::file_size(path_ + "-log");
  std::filesystem::resize_file(path_ + "-log", 0);
  std::filesystem::resize_file(path_ + "-log", bytes);
  auto ledger = Open();
  ASSERT_TRUE(ledger->state().has_value()) << ledger->problem();
  EXPECT_EQ(ledger->state()->snapshot_id, SnapshotName(1));
  EXPECT_TRUE(Holds(*ledger, pages));
  // And it goes on from there.
  ASSERT_TRUE(WriteChanges(*ledger, pages, changed).ok());
  ASSERT_TRUE(ledger->Commit(SnapshotName(4), Root(4)).ok());
  EXPECT_TRUE(Holds(*Open(), changed));
}

TEST_F(LedgerTest, AnIndexFindsPagesByTheirDigests) {
  auto ledger = Open();
  std::vector<uint64_t> pages;
  for (uint64_t i = 0; i < 5000; ++i) pages.push_back(i % 10 == 9 ? 7 : i);  // every tenth is the same
  WriteAll(*ledger, pages, 1);
  std::vector<uint64_t> changed = pages;
  changed[1234] = 100'000;
  changed.resize(4000);
  ASSERT_TRUE(WriteChanges(*ledger, pages, changed).ok());
  ASSERT_TRUE(ledger->Commit(SnapshotName(2), Root(2)).ok());
  // What a running backup has put is not yet what the controller has.
  ASSERT_TRUE(ledger->Begin(4096, 4000, Ledger::kChanges).ok());
  const format::PageDigest coming = Digest(200'000);
  ASSERT_TRUE(ledger->Put(5, std::span(&coming, 1)).ok());
  const auto index = PageIndex::Build(*ledger);
  ASSERT_TRUE(index.ok()) << index.status();
  for (uint32_t page = 1; page <= 4000; ++page) {
    const auto found = index->Find(Digest(changed[page - 1]));
    ASSERT_TRUE(found.has_value()) << page;
    EXPECT_EQ(changed[*found - 1], changed[page - 1]);
  }
  EXPECT_EQ(index->Find(Digest(7)), 8u) << "the first of equal ones";
  for (const uint64_t other : {4500u, 1234u, 200'000u, 300'000u}) EXPECT_FALSE(index->Find(Digest(other)).has_value()) << other;
  // As many as there is room for: all of them.
  const auto full = PageIndex::Build(*ledger, 4000);
  for (uint32_t page = 1; page <= 4000; ++page) EXPECT_TRUE(full->Find(Digest(changed[page - 1])).has_value()) << page;
  ASSERT_TRUE(ledger->Remove().ok());
  WriteAll(*ledger, {}, 3);
  EXPECT_FALSE(PageIndex::Build(*ledger)->Find(Digest(1)).has_value());
}

// What an index says of a whole database of these pages, an extent of 64 at a time.
std::vector<uint32_t> FindAll(PageIndex& index, const std::vector<uint64_t>& pages) {
  std::vector<uint32_t> all;
  std::vector<format::PageDigest> digests;
  std::vector<uint32_t> sources;
  for (size_t first = 0; first < pages.size(); first += 64) {
    digests.clear();
    for (size_t i = first; i < std::min(first + 64, pages.size()); ++i) digests.push_back(Digest(pages[i]));
    EXPECT_TRUE(index.Find(static_cast<uint32_t>(first + 1), digests, sources).ok());
    all.insert(all.end(), sources.begin(), sources.end());
  }
  return all;
}

TEST_F(LedgerTest, AnIndexOfEveryThirtiethPageFindsWhatMovedBesideThem) {
  auto ledger = Open();
  std::vector<uint64_t> pages = Pages(30'000);
  for (size_t i = 40; i < pages.size(); i += 50) pages[i] = 3;  // some are equal
  WriteAll(*ledger, pages, 1);
  auto index = PageIndex::Build(*ledger, 1000);
  ASSERT_TRUE(index.ok()) << index.status();
  // A table is gone, what follows moves up; some pages are new; a stretch has moved to the end.
  std::vector<uint64_t> moved(pages.begin() + 777, pages.begin() + 9000);
  moved.insert(moved.end(), pages.begin() + 20'000, pages.end());
  moved.insert(moved.end(), pages.begin() + 9000, pages.begin() + 20'000);
  for (size_t i = 0; i < moved.size(); i += 100) moved[i] = 50'000 + i;
  const std::vector<uint32_t> sources = FindAll(*index, moved);
  size_t found = 0;
  for (size_t i = 0; i < moved.size(); ++i) {
    if (sources[i] == 0) continue;
    ++found;
    ASSERT_EQ(pages[sources[i] - 1], moved[i]) << i;
  }
  EXPECT_GT(found * 100, moved.size() * 98);
}

TEST_F(LedgerTest, PagesThatMovedInEveryDirectionCostBoundedReading) {
  auto ledger = Open();
  std::vector<uint64_t> pages = Pages(4 * Ledger::kGroupPages);
  WriteAll(*ledger, pages, 1);
  auto index = PageIndex::Build(*ledger, 64 << 10);
  ASSERT_TRUE(index.ok()) << index.status();
  std::shuffle(pages.begin(), pages.end(), std::minstd_rand(3));
  const uint64_t before = BytesRead();
  const std::vector<uint32_t> sources = FindAll(*index, pages);
  EXPECT_LE(BytesRead() - before, 16 * ledger->bytes() + (9u << 20));
  const auto found = pages.size() - static_cast<size_t>(std::count(sources.begin(), sources.end(), 0u));
  EXPECT_GE(found * 4, pages.size());
}

}  // namespace
}  // namespace litefleet::ledger
