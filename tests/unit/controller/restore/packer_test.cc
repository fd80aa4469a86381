// What is put together is compressed the same whoever helps, also where nobody does.
#include "controller/restore/packer.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace litefleet::restore {
namespace {

constexpr size_t kBytes = 256 << 10;

// A help that comes when the test lets it, or never.
class LateExecutor final : public Executor {
 public:
  bool TryPost(absl::AnyInvocable<void()> task) override {
    if (!taking) return false;
    tasks.push_back(std::move(task));
    return true;
  }
  bool taking = true;
  std::vector<absl::AnyInvocable<void()>> tasks;
};

// Each third is as it is stored.
std::vector<StoredChunk> Chunks(size_t count) {
  std::vector<StoredChunk> chunks(count);
  for (size_t i = 0; i < count; ++i) {
    chunks[i].raw_bytes = kBytes;
    if (i % 3 == 2) {
      chunks[i].codec = format::Codec::kZstd;
      chunks[i].data = "as stored " + std::to_string(i);
      continue;
    }
    for (size_t at = 0; at < kBytes; ++at) chunks[i].raw.push_back(static_cast<std::byte>(at * at % (7 + i)));
  }
  return chunks;
}

void ExpectPacked(const std::vector<StoredChunk>& chunks) {
  std::vector<StoredChunk> expected = Chunks(chunks.size());
  format::ChunkCompressor compressor(1);
  for (size_t i = 0; i < chunks.size(); ++i) {
    ASSERT_TRUE(Pack(expected[i], compressor).ok());
    EXPECT_EQ(chunks[i].codec, expected[i].codec) << i;
    EXPECT_TRUE(chunks[i].data == expected[i].data) << i;
  }
}

TEST(PackerTest, NobodyIsWaitedForWhoHasNotBegun) {
  LateExecutor late;
  Packer packer(&late, 1);
  std::vector<StoredChunk> chunks = Chunks(7);
  ASSERT_TRUE(packer.Pack(chunks).ok());
  ExpectPacked(chunks);
  ASSERT_EQ(late.tasks.size(), 1U);
  chunks.clear();
  late.tasks[0]();  // what it would have helped with is gone
  late.taking = false;
  chunks = Chunks(4);
  ASSERT_TRUE(packer.Pack(chunks).ok());
  ExpectPacked(chunks);
}

TEST(PackerTest, OneChunkOrNoneNeedsNoHelp) {
  LateExecutor late;
  Packer packer(&late, 1);
  for (const size_t count : {0U, 1U}) {
    std::vector<StoredChunk> chunks = Chunks(count);
    ASSERT_TRUE(packer.Pack(chunks).ok());
    ExpectPacked(chunks);
  }
  EXPECT_TRUE(late.tasks.empty());
  Packer alone(nullptr, 1);
  std::vector<StoredChunk> chunks = Chunks(5);
  ASSERT_TRUE(alone.Pack(chunks).ok());
  ExpectPacked(chunks);
}

// Threads of a pool that other packers use, too, message after message.
TEST(PackerTest, ManyShareTheirHelpers) {
  ThreadPoolExecutor pool(2, 4);
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&pool] {
      Packer packer(&pool, 1);
      for (size_t count = 1; count < 12; ++count) {
        std::vector<StoredChunk> chunks = Chunks(count);
        ASSERT_TRUE(packer.Pack(chunks).ok());
        ExpectPacked(chunks);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// While the caller waits for the last chunk, which a helper has, nothing of it is touched.
TEST(PackerTest, WhatAHelperHasBegunIsWaitedFor) {
  ThreadPoolExecutor pool(1, 1);
  for (int round = 0; round < 50; ++round) {
    Packer packer(&pool, 1);
    std::vector<StoredChunk> chunks = Chunks(2);
    ASSERT_TRUE(packer.Pack(chunks).ok());
    ExpectPacked(chunks);
  }
}

}  // namespace
}  // namespace litefleet::restore
