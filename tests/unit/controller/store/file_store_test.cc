#include "controller/store/file_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <thread>
#include <utility>

#include "common/base/status.h"
#include "common/format/crc32c.h"
#include "common/format/store_names.h"
#include "tests/fakes/closed_files.h"

namespace litefleet::store {
namespace {

namespace fs = std::filesystem;

Bytes Content(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (auto& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

// Fails where it is told to; everything else is the real one.
class FaultyFiles final : public FileSystem {
 public:
  std::atomic<int> fail_syncs{0};
  std::atomic<int> fail_writes{0};
  std::atomic<uint64_t> free_bytes{UINT64_MAX / 2};
  std::atomic<bool> read_only{false};
  std::atomic<int> syncs{0};
  std::atomic<int> open{0};  // files
  std::function<void()> after_open_for_reading;

  class Wrapped final : public File {
   public:
    Wrapped(std::unique_ptr<File> file, FaultyFiles& owner) : file_(std::move(file)), owner_(owner) { ++owner_.open; }
    ~Wrapped() override { --owner_.open; }
    absl::StatusOr<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) override { return file_->ReadAt(offset, out); }
    absl::Status WriteAt(uint64_t offset, ByteView first, ByteView second) override {
      if (owner_.fail_writes > 0 && owner_.fail_writes-- > 0) {
        file_->WriteAt(offset, first.first(first.size() / 2), {}).IgnoreError();  // a part of it arrives
        return ErrnoError(ENOSPC, "write");
      }
      return file_->WriteAt(offset, first, second);
    }
    absl::Status Truncate(uint64_t size) override { return file_->Truncate(size); }
    absl::StatusOr<uint64_t> Size() override { return file_->Size(); }
    absl::Status Sync() override {
      ++owner_.syncs;
      if (owner_.fail_syncs > 0 && owner_.fail_syncs-- > 0) return ErrnoError(EIO, "fsync");
      return file_->Sync();
    }
    void StartWriteback(uint64_t offset, uint64_t size) override { file_->StartWriteback(offset, size); }

   private:
    const std::unique_ptr<File> file_;
    FaultyFiles& owner_;
  };

  absl::StatusOr<std::unique_ptr<File>> Create(const std::string& path) override { return Wrap(PosixFileSystem().Create(path)); }
  absl::StatusOr<std::unique_ptr<File>> OpenForWriting(const std::string& path) override {
    if (read_only) return ErrnoError(EROFS, "open " + path);
    return Wrap(PosixFileSystem().OpenForWriting(path));
  }
  absl::StatusOr<std::unique_ptr<File>> OpenForReading(const std::string& path) override {
    auto file = Wrap(PosixFileSystem().OpenForReading(path));
    if (const auto hook = std::exchange(after_open_for_reading, nullptr)) hook();
    return file;
  }
  absl::Status Rename(const std::string& from, const std::string& to) override { return PosixFileSystem().Rename(from, to); }
  absl::Status Remove(const std::string& path) override {
    return read_only ? ErrnoError(EROFS, "unlink " + path) : PosixFileSystem().Remove(path);
  }
  absl::Status SyncDirectory(const std::string& path) override { return PosixFileSystem().SyncDirectory(path); }
  absl::Status MakeDirectory(const std::string& path) override { return PosixFileSystem().MakeDirectory(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override { return PosixFileSystem().List(path); }
  absl::StatusOr<uint64_t> FreeBytes(const std::string&) override { return free_bytes.load(); }

 private:
  absl::StatusOr<std::unique_ptr<File>> Wrap(absl::StatusOr<std::unique_ptr<File>> file) {
    if (!file.ok()) return file;
    return std::make_unique<Wrapped>(*std::move(file), *this);
  }
};

class FileStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/litefleet-store-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory_ = name;
    options_.directory = directory_;
    options_.reserve_bytes = 0;
  }
  void TearDown() override {
    store_.reset();
    fs::remove_all(directory_);
  }
  void Open() {
    store_.reset();
    auto store = FileStore::Open(options_, clock_, files_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  static absl::StatusOr<Placed> Put(Store& store, const Bytes& content) {
    return store.PutChunk({.name = format::NameChunkOf(512, content),
                           .codec = format::Codec::kRaw,
                           .page_size = 512,
                           .page_count = static_cast<uint32_t>(content.size() / 512),
                           .stored = content});
  }
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory_ + "/packs")) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  void ExpectHolds(const Location& location, const Bytes& content) {
    const auto record = store_->Read(location);
    ASSERT_TRUE(record.ok()) << record.status();
    EXPECT_EQ(record->header.name, format::NameChunkOf(512, content));
    EXPECT_TRUE(std::ranges::equal(AsBytes(record->payload), content));
  }

  std::string directory_;
  FileStoreOptions options_;
  FakeClock clock_;
  FaultyFiles files_;
  std::unique_ptr<FileStore> store_;
};

TEST_F(FileStoreTest, PutSyncReadReopen) {
  Open();
  std::vector<std::pair<Location, Bytes>> chunks;
  for (unsigned i = 0; i < 20; ++i) {
    const Bytes content = Content(512 * (i + 1), i);
    const auto placed = Put(*store_, content);
    ASSERT_TRUE(placed.ok()) << placed.status();
    ASSERT_TRUE(store_->Sync(placed->epoch).ok());
    chunks.emplace_back(placed->location, content);
  }
  for (const auto& [location, content] : chunks) ExpectHolds(location, content);
  Open();
  for (const auto& [location, content] : chunks) ExpectHolds(location, content);
  const auto more = Put(*store_, Content(512, 99));
  ASSERT_TRUE(more.ok());
  EXPECT_EQ(more->location.pack, chunks[0].first.pack) << "a pack that was not full is appended to again";
}

// Each thread asks as soon as it has its answer: who comes too late for a sync is taken along by the next one, and none is forgotten.
TEST_F(FileStoreTest, ManyWhoAskAtOnceShareASync) {
  constexpr int kThreads = 24;
  constexpr int kEach = 40;
  Open();
  const int before = files_.syncs;
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (int number = 0; number < kThreads; ++number) {
    threads.emplace_back([&, number] {
      for (int i = 0; i < kEach; ++i) {
        const auto placed = Put(*store_, Content(512, static_cast<unsigned>(number * kEach + i)));
        if (!placed.ok() || !store_->Sync(placed->epoch).ok()) ++failed;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failed, 0);
  EXPECT_LE(files_.syncs - before, kThreads * kEach / 4);
  // Who is alone afterwards has a sync for each.
  const int then = files_.syncs;
  for (unsigned i = 0; i < 5; ++i) {
    const auto placed = Put(*store_, Content(512, 1'000'000 + i));
    ASSERT_TRUE(placed.ok());
    ASSERT_TRUE(store_->Sync(placed->epoch).ok());
  }
  EXPECT_EQ(files_.syncs - then, 5);
}

TEST_F(FileStoreTest, SealsByRenameAndGoesOn) {
  options_.seal_bytes = 10'000;
  Open();
  std::vector<std::pair<Location, Bytes>> chunks;
  for (unsigned i = 0; i < 30; ++i) {
    const Bytes content = Content(2048, i);
    const auto placed = Put(*store_, content);
    ASSERT_TRUE(placed.ok());
    ASSERT_TRUE(store_->Sync(placed->epoch).ok());
    chunks.emplace_back(placed->location, content);
  }
  const auto names = Files();
  EXPECT_EQ(std::count_if(names.begin(), names.end(), [](const std::string& n) { return n.ends_with(".open"); }), 1);
  EXPECT_GT(names.size(), 5u);
  for (const auto& [location, content] : chunks) ExpectHolds(location, content);
  Open();
  for (const auto& [location, content] : chunks) ExpectHolds(location, content);
  size_t seen = 0;
  ASSERT_TRUE(store_
                  ->ForEachRecord([&](const Location&, const format::ScannedRecord& record) {
                    EXPECT_EQ(record.header.type, format::RecordType::kChunk);
                    ++seen;
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_EQ(seen, chunks.size());
  const auto stats = store_->Stats();
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->packs, names.size());
  EXPECT_THAT(stats->problems, testing::IsEmpty());
}

TEST_F(FileStoreTest, TornTailIsCutAndAppendedTo) {
  Open();
  const auto first = Put(*store_, Content(1024, 1));
  ASSERT_TRUE(first.ok());
  const auto second = Put(*store_, Content(1024, 2));
  ASSERT_TRUE(second.ok());
  ASSERT_TRUE(store_->Sync(second->epoch).ok());
  store_.reset();
  const std::string path = directory_ + "/packs/" + Files()[0];
  fs::resize_file(path, second->location.offset + 500);
  Open();
  ExpectHolds(first->location, Content(1024, 1));
  EXPECT_EQ(ReasonOf(store_->Read(second->location).status()), "CHUNK_MISSING");
  const auto third = Put(*store_, Content(2048, 3));
  ASSERT_TRUE(third.ok());
  EXPECT_EQ(third->location, second->location);
  ExpectHolds(third->location, Content(2048, 3));
}

TEST_F(FileStoreTest, DamageIsNotCut) {
  Open();
  std::vector<Location> at;
  for (unsigned i = 0; i < 3; ++i) at.push_back(Put(*store_, Content(1024, i))->location);
  ASSERT_TRUE(store_->Sync(1).ok());
  store_.reset();
  {
    std::fstream file(directory_ + "/packs/" + Files()[0], std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at[1].offset + 200));
    file.put('x');
    file.put('y');
  }
  Open();
  ExpectHolds(at[0], Content(1024, 0));
  EXPECT_EQ(ReasonOf(store_->Read(at[1]).status()), "CHUNK_DAMAGED");
  ExpectHolds(at[2], Content(1024, 2));
  EXPECT_THAT(Files(), testing::ElementsAre("0000000000000001.pack"));
  EXPECT_GT(store_->Stats()->damaged_bytes, 0u);
  EXPECT_EQ(Put(*store_, Content(512, 9))->location.pack, 2u);
}

TEST_F(FileStoreTest, ForeignFilesAndUnreadablePacksAreLeftAlone) {
  fs::create_directories(directory_ + "/packs");
  std::ofstream(directory_ + "/packs/notes.txt") << "hello";
  std::ofstream(directory_ + "/packs/0000000000000005.open") << std::string(100, 'z');
  std::ofstream(directory_ + "/packs/0000000000000006.open") << "short";
  Open();
  EXPECT_THAT(Files(), testing::ElementsAre("0000000000000005.open", "notes.txt"));
  EXPECT_EQ(store_->Stats()->problems.size(), 2u);
  EXPECT_EQ(Put(*store_, Content(512, 1))->location.pack, 7u);
}

// A file system that errors=remount-ro has made read-only, or files of another user.
TEST_F(FileStoreTest, AStoreThatCannotBeWrittenToIsRead) {
  Open();
  const auto there = Put(*store_, Content(4096, 1));
  ASSERT_TRUE(there.ok());
  ASSERT_TRUE(store_->Sync(there->epoch).ok());
  store_.reset();
  std::ofstream(directory_ + "/packs/0000000000000005.open") << "short";
  std::ofstream(directory_ + "/packs/0000000000000006.open") << std::string(300'000, '\0');
  files_.read_only = true;
  Open();
  ExpectHolds(there->location, Content(4096, 1));
  ASSERT_EQ(store_->Packs().size(), 1u);
  EXPECT_FALSE(store_->Packs()[0].sealed);
  EXPECT_GT(store_->Packs()[0].size, 4096u);
  EXPECT_EQ(store_->Stats()->problems.size(), 4u) << "one is not appended to, one had more, and two cannot be removed";
  store_->SealGivenUpPacks();
  EXPECT_FALSE(store_->Packs()[0].sealed);
  files_.read_only = false;
  store_->SealGivenUpPacks();
  EXPECT_TRUE(store_->Packs()[0].sealed);
  EXPECT_EQ(Put(*store_, Content(512, 2))->location.pack, 7u);
  ExpectHolds(there->location, Content(4096, 1));
}

// Files of another user, after a rebuild or a copy.
TEST_F(FileStoreTest, PacksThatCannotBeOpenedRefuseNoStart) {
  fakes::ClosedFiles files;
  const auto open = [&] {
    store_.reset();
    auto store = FileStore::Open(options_, clock_, files);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  };
  open();
  std::vector<Location> at;
  for (unsigned i = 0; i < 3; ++i) {
    at.push_back(Put(*store_, Content(4096, i))->location);
    ASSERT_TRUE(i == 2 ? store_->Sync(1).ok() : store_->SealOpenPack().ok());
  }
  const std::vector<PackInfo> before = store_->Packs();
  files.closed = {"0000000000000001.pack", "0000000000000003.open"};
  open();
  EXPECT_EQ(ReasonOf(store_->Read(at[0]).status()), "NO_PERMISSION") << "no damage";
  ExpectHolds(at[1], Content(4096, 1));
  EXPECT_EQ(ReasonOf(store_->Read(at[2]).status()), "NO_PERMISSION");
  EXPECT_EQ(store_->Stats()->problems.size(), 2U);
  store_->SealGivenUpPacks();
  EXPECT_EQ(store_->Stats()->problems.size(), 2U) << "told once";
  const std::vector<PackInfo> packs = store_->Packs();
  ASSERT_EQ(packs.size(), 3U);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(packs[i].size, before[i].size) << "what there may be in it counts";
  EXPECT_FALSE(packs[2].sealed);
  EXPECT_EQ(Put(*store_, Content(512, 9))->location.pack, 4U);
  // Once the mode is right they are as any, without a start.
  files.closed.clear();
  ExpectHolds(at[0], Content(4096, 0));
  store_->SealGivenUpPacks();
  EXPECT_TRUE(store_->Packs()[2].sealed);
  ExpectHolds(at[2], Content(4096, 2));
}

TEST_F(FileStoreTest, IdsThatTheCatalogKnowsAreNotUsedAgain) {
  options_.first_pack_id = 12;
  Open();
  EXPECT_EQ(Put(*store_, Content(512, 1))->location.pack, 12u);
}

TEST_F(FileStoreTest, DiskFullRefusesUploadsAndKeepsReading) {
  options_.reserve_bytes = 1 << 20;
  Open();
  const auto placed = Put(*store_, Content(512, 1));
  ASSERT_TRUE(placed.ok());
  files_.free_bytes = (1 << 20) + 100;
  clock_.Advance(std::chrono::seconds(5));
  EXPECT_TRUE(store_->CheckSpace().ok());
  EXPECT_EQ(ReasonOf(Put(*store_, Content(512, 2)).status()), "DISK_FULL");
  files_.free_bytes = 1000;
  clock_.Advance(std::chrono::seconds(5));
  EXPECT_EQ(store_->CheckSpace().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(store_->PutRecord(format::RecordType::kManifestPart, Content(10, 1)).ok());
  EXPECT_TRUE(store_->PutRecord(format::RecordType::kSnapshot, Content(10, 1)).ok()) << "the reserve is for such records";
  ExpectHolds(placed->location, Content(512, 1));
  files_.free_bytes = 10 << 20;
  EXPECT_TRUE(Put(*store_, Content(512, 2)).ok());
}

TEST_F(FileStoreTest, FailedWriteIsOverwritten) {
  Open();
  const auto first = Put(*store_, Content(512, 1));
  ASSERT_TRUE(first.ok());
  files_.fail_writes = 1;
  EXPECT_EQ(ReasonOf(Put(*store_, Content(4096, 2)).status()), "DISK_FULL");
  const auto third = Put(*store_, Content(512, 3));
  ASSERT_TRUE(third.ok());
  ASSERT_TRUE(store_->Sync(first->epoch).ok());
  Open();
  ExpectHolds(first->location, Content(512, 1));
  ExpectHolds(third->location, Content(512, 3));
}

// After a failed fsync the kernel may have dropped the data and forgotten about it: a later fsync that returns OK proves nothing.
TEST_F(FileStoreTest, FailedSyncIsNeverForgotten) {
  Open();
  const auto durable = Put(*store_, Content(512, 0));
  ASSERT_TRUE(store_->Sync(durable->epoch).ok());
  const auto lost = Put(*store_, Content(512, 1));
  ASSERT_TRUE(lost.ok());
  files_.fail_syncs = 1;
  EXPECT_EQ(ReasonOf(store_->Sync(lost->epoch)), "STORE_FAILED");
  EXPECT_FALSE(store_->Sync(lost->epoch).ok());
  const auto next = Put(*store_, Content(512, 2));
  ASSERT_TRUE(next.ok());
  EXPECT_NE(next->location.pack, lost->location.pack);
  EXPECT_TRUE(store_->Sync(next->epoch).ok());
  EXPECT_FALSE(store_->Sync(lost->epoch).ok());
  ExpectHolds(durable->location, Content(512, 0));
}

// A prune removes a pack in the moment in which somebody opens it: who reads it reads on, and then its bytes are free.
TEST_F(FileStoreTest, AReaderThatIsOpenedWhileItsPackIsRemovedIsNotKept) {
  Open();
  Location location;
  {
    const auto placed = Put(*store_, Content(2048, 1));
    ASSERT_TRUE(placed.ok() && store_->Sync(placed->epoch).ok());
    location = placed->location;
  }
  ASSERT_TRUE(store_->SealOpenPack().ok());
  const int before = files_.open;
  files_.after_open_for_reading = [&] {
    const absl::Status removed = store_->RemovePack(location.pack);
    EXPECT_TRUE(removed.ok()) << removed;
  };
  ExpectHolds(location, Content(2048, 1));
  EXPECT_EQ(files_.open, before);
  EXPECT_EQ(ReasonOf(store_->Read(location).status()), "CHUNK_MISSING");
}

TEST_F(FileStoreTest, ManyThreadsShareFsyncs) {
  options_.seal_bytes = 1 << 20;
  Open();
  constexpr int kThreads = 16;
  constexpr unsigned kEach = 40;
  std::vector<std::thread> threads;
  std::vector<std::vector<Placed>> placed(kThreads);
  files_.syncs = 0;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < kEach; ++i) {
        const auto put = Put(*store_, Content(4096, static_cast<unsigned>(t) * 1000 + i));
        ASSERT_TRUE(put.ok()) << put.status();
        ASSERT_TRUE(store_->Sync(put->epoch).ok());
        placed[static_cast<size_t>(t)].push_back(*put);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_LT(files_.syncs.load(), kThreads * static_cast<int>(kEach) * 3 / 4);
  for (int t = 0; t < kThreads; ++t) {
    for (unsigned i = 0; i < kEach; ++i)
      ExpectHolds(placed[static_cast<size_t>(t)][i].location, Content(4096, static_cast<unsigned>(t) * 1000 + i));
  }
}

TEST_F(FileStoreTest, SealsBesideSyncsOfOthers) {
  options_.seal_records = 2;
  Open();
  constexpr unsigned kThreads = 8;
  constexpr unsigned kEach = 60;
  std::vector<std::thread> threads;
  std::vector<std::vector<Placed>> placed(kThreads);
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < kEach; ++i) {
        const auto put = Put(*store_, Content(512, t * 1000 + i));
        ASSERT_TRUE(put.ok()) << put.status();
        const absl::Status synced = store_->Sync(put->epoch);
        ASSERT_TRUE(synced.ok()) << synced;
        placed[t].push_back(*put);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (unsigned t = 0; t < kThreads; ++t) {
    for (unsigned i = 0; i < kEach; ++i) ExpectHolds(placed[t][i].location, Content(512, t * 1000 + i));
  }
  EXPECT_TRUE(store_->Stats()->problems.empty());
}

// A child puts, syncs and reports until it is killed at a point; then everything that it reported is there.
class StoreKillTest : public FileStoreTest, public testing::WithParamInterface<const char*> {};

TEST_P(StoreKillTest, WhatWasSyncedIsThere) {
  options_.seal_bytes = 8'000;
  for (int round = 1; round <= 6; ++round) {
    int pipe_fds[2];
    ASSERT_EQ(pipe(pipe_fds), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      setenv("LITEFLEET_CRASH_AT", (std::string(GetParam()) + ":" + std::to_string(round)).c_str(), 1);
      auto store = FileStore::Open(options_, clock_, PosixFileSystem());
      if (!store.ok()) _exit(3);
      for (unsigned i = 0; i < 60; ++i) {
        const unsigned seed = static_cast<unsigned>(round) * 1000 + i;
        const auto placed = Put(**store, Content(1024, seed));
        if (!placed.ok() || !(*store)->Sync(placed->epoch).ok()) _exit(4);
        const uint64_t report[3] = {placed->location.pack, placed->location.offset, seed};
        if (write(pipe_fds[1], report, sizeof report) != sizeof report) _exit(5);
      }
      _exit(0);
    }
    close(pipe_fds[1]);
    std::vector<std::array<uint64_t, 3>> reports;
    std::array<uint64_t, 3> report;
    while (read(pipe_fds[0], report.data(), sizeof report) == sizeof report) reports.push_back(report);
    close(pipe_fds[0]);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "round " << round << " ended by itself: " << WEXITSTATUS(status);
    Open();
    for (const auto& [pack, offset, seed] : reports)
      ExpectHolds({.pack = pack, .offset = offset}, Content(1024, static_cast<unsigned>(seed)));
    EXPECT_THAT(store_->Stats()->problems, testing::IsEmpty());
    store_.reset();
  }
}

INSTANTIATE_TEST_SUITE_P(Points, StoreKillTest,
                         testing::Values("store.after_append", "store.before_sync", "store.after_sync", "store.seal.after_footer",
                                         "store.seal.after_sync", "store.seal.after_rename"));

TEST_F(FileStoreTest, KilledWhileAPackIsMade) {
  const pid_t child = fork();
  if (child == 0) {
    setenv("LITEFLEET_CRASH_AT", "store.after_create", 1);
    auto store = FileStore::Open(options_, clock_, PosixFileSystem());
    if (store.ok()) Put(**store, Content(512, 1)).IgnoreError();
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(Files().size(), 1u);
  Open();
  EXPECT_THAT(Files(), testing::IsEmpty());
  EXPECT_TRUE(Put(*store_, Content(512, 1)).ok());
}

}  // namespace
}  // namespace litefleet::store
