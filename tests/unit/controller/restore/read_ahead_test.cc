#include "controller/restore/read_ahead.h"

#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <thread>

#include "common/base/mutex.h"
#include "common/base/status.h"

namespace litefleet::restore {
namespace {

// Ten chunks, of which those with an even number are put together; an error in the place of one of them.
class TenChunks final : public SnapshotReader {
 public:
  struct Seen {
    std::atomic<int> read{0};
    std::atomic<bool> together{false};  // two threads at once
    std::atomic<bool> gone{false};
  };
  explicit TenChunks(Seen& seen, int bad = -1) : seen_(seen), bad_(bad) {}
  ~TenChunks() override { seen_.gone = true; }

  const SnapshotGeometry& geometry() const override { return geometry_; }
  absl::StatusOr<std::optional<StoredChunk>> Next() override {
    if (reading_.exchange(true)) seen_.together = true;
    const int number = seen_.read++;
    std::this_thread::yield();
    reading_ = false;
    if (number == bad_) return Error(absl::StatusCode::kDataLoss, "CHUNK_DAMAGED", "the chunk is damaged");
    if (number >= 10) return std::nullopt;
    StoredChunk chunk;
    chunk.first_page = static_cast<uint32_t>(number) + 1;
    chunk.page_count = 1;
    if (number % 2 != 0) chunk.data = "stored";
    return chunk;
  }

 private:
  Seen& seen_;
  const int bad_;
  const SnapshotGeometry geometry_{.page_size = 4096, .page_count = 10};
  std::atomic<bool> reading_{false};
};

// Keeps tasks until they are run, and takes no more than `room`.
class HeldExecutor final : public Executor {
 public:
  explicit HeldExecutor(size_t room) : room_(room) {}
  bool TryPost(absl::AnyInvocable<void()> task) override {
    if (tasks_.size() >= room_) return false;
    tasks_.push_back(std::move(task));
    return true;
  }
  size_t tasks() const { return tasks_.size(); }
  void RunAll() {
    while (!tasks_.empty()) {
      tasks_.front()();
      tasks_.pop_front();
    }
  }

 private:
  const size_t room_;
  std::deque<absl::AnyInvocable<void()>> tasks_;
};

std::vector<uint32_t> PagesOf(SnapshotReader& reader) {
  std::vector<uint32_t> pages;
  for (;;) {
    const auto chunk = reader.Next();
    EXPECT_TRUE(chunk.ok()) << chunk.status();
    if (!chunk.ok() || !chunk->has_value()) return pages;
    pages.push_back((*chunk)->first_page);
  }
}

const std::vector<uint32_t> kAll{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};

TEST(ReadAheadTest, GivesEverythingInItsOrder) {
  TenChunks::Seen seen;
  ThreadPoolExecutor executor(2, 16);
  const auto reader = ReadAhead(std::make_unique<TenChunks>(seen), executor);
  EXPECT_EQ(reader->geometry().page_count, 10u);
  EXPECT_EQ(PagesOf(*reader), kAll);
  EXPECT_FALSE(seen.together);
}

TEST(ReadAheadTest, ReadsOneAheadBehindWhatWasPutTogetherAlone) {
  TenChunks::Seen seen;
  HeldExecutor executor(16);
  const auto reader = ReadAhead(std::make_unique<TenChunks>(seen), executor);
  ASSERT_TRUE(reader->Next().ok());
  EXPECT_EQ(seen.read, 1);
  executor.RunAll();
  EXPECT_EQ(seen.read, 2) << "the next one, and no more";
  ASSERT_TRUE(reader->Next().ok());
  EXPECT_EQ(seen.read, 2) << "was there already";
  EXPECT_EQ(executor.tasks(), 0u) << "it is as it is stored";
}

TEST(ReadAheadTest, WhatNobodyHasBegunIsReadByWhoWantsIt) {
  for (const size_t room : {16u, 0u}) {
    TenChunks::Seen seen;
    HeldExecutor executor(room);
    auto reader = ReadAhead(std::make_unique<TenChunks>(seen), executor);
    EXPECT_EQ(PagesOf(*reader), kAll);
    const int read = seen.read;
    EXPECT_LE(executor.tasks(), 1u) << "of a reader one waits";
    executor.RunAll();
    EXPECT_EQ(seen.read, read) << "tasks that come late read nothing";
    reader.reset();
    EXPECT_TRUE(seen.gone);
  }
}

// As a pool whose last thread wants what waits behind it.
TEST(ReadAheadTest, ThePoolMayBeTheOneThatReads) {
  TenChunks::Seen seen;
  std::vector<uint32_t> pages;
  {
    ThreadPoolExecutor executor(1, 16);
    ASSERT_TRUE(executor.TryPost([&] { pages = PagesOf(*ReadAhead(std::make_unique<TenChunks>(seen), executor)); }));
  }
  EXPECT_EQ(pages, kAll);
}

TEST(ReadAheadTest, AnErrorComesInItsPlace) {
  for (const int bad : {0, 1, 4, 9}) {
    TenChunks::Seen seen;
    ThreadPoolExecutor executor(2, 16);
    const auto reader = ReadAhead(std::make_unique<TenChunks>(seen, bad), executor);
    for (int i = 0; i < bad; ++i) {
      const auto chunk = reader->Next();
      ASSERT_TRUE(chunk.ok() && chunk->has_value());
      EXPECT_EQ((*chunk)->first_page, static_cast<uint32_t>(i) + 1);
    }
    EXPECT_EQ(ReasonOf(reader->Next().status()), "CHUNK_DAMAGED");
  }
}

TEST(ReadAheadTest, WhoEndsEarlyLeavesNothingBehind) {
  TenChunks::Seen seen;
  HeldExecutor executor(16);
  auto reader = ReadAhead(std::make_unique<TenChunks>(seen), executor);
  ASSERT_TRUE(reader->Next().ok());
  reader.reset();
  EXPECT_TRUE(seen.gone) << "no task has it";
  executor.RunAll();
  EXPECT_EQ(seen.read, 1) << "nobody wants it any more";
}

}  // namespace
}  // namespace litefleet::restore
