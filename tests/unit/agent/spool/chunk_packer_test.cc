#include "agent/spool/chunk_packer.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "agent/upload/page_gatherer.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/format/digest.h"
#include "fmt/format.h"

namespace litefleet::spool {
namespace {

constexpr uint32_t kPageBytes = 4096;
constexpr uint32_t kChunkPages = 8;

// Closed until somebody opens it.
class Gate {
 public:
  void Open() {
    MutexLock lock(mu_);
    open_ = true;
    changed_.SignalAll();
  }
  void Pass() {
    MutexLock lock(mu_);
    while (!open_) changed_.Wait(mu_);
  }

 private:
  Mutex mu_;
  CondVar changed_;
  bool open_ ABSL_GUARDED_BY(mu_) = false;
};

// Compressed no sooner than the gate lets it.
struct SlowPayload final : upload::PackablePayload {
  SlowPayload(std::string text, Gate& slow) : content(std::move(text)), gate(slow) {}
  absl::StatusOr<upload::PackedChunk> Pack(format::ChunkCompressor& compressor) override {
    gate.Pass();
    if (fails) return Error(absl::StatusCode::kInternal, "PACK_FAILED", "it does not compress");
    upload::PackedChunk packed;
    LF_ASSIGN_OR_RETURN(packed.codec, compressor.Compress(AsBytes(content), packed.data));
    return packed;
  }
  absl::StatusOr<std::string> Raw() const override { return content; }

  const std::string content;
  Gate& gate;
  bool fails = false;
};

class ChunkPackerTest : public testing::Test {
 protected:
  ChunkPackerTest() : directory_(testing::TempDir() + "/lf-packer-XXXXXX") {
    EXPECT_NE(mkdtemp(directory_.data()), nullptr);
    storage::v1::SpooledHeader header;
    header.set_session_id(NewUlid(clock_.Now()));
    header.set_operation_id(NewUlid(clock_.Now()));
    header.set_database("app");
    header.set_timeline(1);
    header.set_page_size(kPageBytes);
    header.set_page_count(kPages);
    auto writer = SpoolFileWriter::Create(path(), header, {.max_bytes = 64 << 20, .reserve = io::DiskReserve(0)});
    EXPECT_TRUE(writer.ok()) << writer.status();
    writer_ = *std::move(writer);
  }
  ~ChunkPackerTest() override { std::filesystem::remove_all(directory_); }
  std::string path() const { return directory_ + "/0000000000000001.spooled"; }

  // The chunk of this number, from 0: text of its own.
  std::pair<upload::Chunk, std::shared_ptr<SlowPayload>> Make(uint32_t number) {
    std::mt19937 dice(number);
    std::string content;
    while (content.size() < size_t{kChunkPages} * kPageBytes) content += fmt::format("{} of {}\n", dice() % 500, number);
    content.resize(size_t{kChunkPages} * kPageBytes);
    upload::Chunk chunk;
    chunk.name = format::NameChunkOf(kPageBytes, AsBytes(content));
    chunk.runs = {{.first_page = number * kChunkPages + 1, .page_count = kChunkPages}};
    chunk.raw_bytes = static_cast<uint32_t>(content.size());
    auto payload = std::make_shared<SlowPayload>(std::move(content), gate_);
    chunk.payload = payload;
    return {chunk, payload};
  }
  void ExpectWhole(uint32_t chunks) {
    v1::UploadCommit commit;
    commit.set_page_size(kPageBytes);
    commit.set_page_count(kPages);
    commit.set_root_digest(std::string(32, 'r'));
    ASSERT_TRUE(writer_->Finish(commit, 1).ok());
    const auto file = SpoolFileReader::Open(path());
    ASSERT_TRUE(file.ok()) << file.status();
    Bytes pages;
    for (uint32_t number = 0; number < chunks; ++number) {
      const auto stored = (*file)->Next();
      ASSERT_TRUE(stored.ok() && stored->has_value()) << stored.status();
      EXPECT_EQ((*stored)->name, Make(number).first.name);
      EXPECT_TRUE((*file)->Unpack(**stored, pages, nullptr).ok()) << number;
    }
    EXPECT_FALSE((*file)->Next().value().has_value());
  }

  static constexpr uint32_t kPages = 400;
  FakeClock clock_;
  CancelToken cancel_;
  std::string directory_;
  Gate gate_;
  std::unique_ptr<SpoolFileWriter> writer_;
};

TEST_F(ChunkPackerTest, ReadingNeverWaitsForTheCompressor) {
  constexpr uint32_t kChunks = kPages / kChunkPages;
  ChunkPacker packer(*writer_, 19);
  std::vector<std::weak_ptr<SlowPayload>> payloads;
  for (uint32_t number = 0; number < kChunks; ++number) {
    auto [chunk, payload] = Make(number);
    payloads.push_back(payload);
    payload.reset();
    // It would never come back: the compressor is at its first chunk.
    ASSERT_TRUE(packer.Add(std::move(chunk)).ok());
    const auto held = static_cast<size_t>(std::count_if(payloads.begin(), payloads.end(), [](const auto& one) { return !one.expired(); }));
    EXPECT_LE(held, ChunkPacker::kMaxWaiting + 2) << "those that wait, and the one that is compressed";
  }
  EXPECT_EQ(writer_->chunks(), kChunks - ChunkPacker::kMaxWaiting);
  gate_.Open();
  ASSERT_TRUE(packer.Finish(cancel_).ok());
  ExpectWhole(kChunks);
}

TEST_F(ChunkPackerTest, AFewChunksGetTheLevelThatIsAskedFor) {
  gate_.Open();
  uint64_t at_level_1 = 0;
  for (const int level : {1, 19}) {
    ChunkPacker packer(*writer_, level);
    const uint64_t before = writer_->bytes();
    const uint32_t first = level == 1 ? 0 : 4;
    for (uint32_t number = first; number < first + 4; ++number) ASSERT_TRUE(packer.Add(Make(number).first).ok());
    ASSERT_TRUE(packer.Finish(cancel_).ok());
    if (level == 1) {
      at_level_1 = writer_->bytes() - before;
    } else {
      EXPECT_LT((writer_->bytes() - before) * 100, at_level_1 * 90);
    }
  }
  ExpectWhole(8);
}

TEST_F(ChunkPackerTest, AnErrorOfAPayloadIsTold) {
  gate_.Open();
  ChunkPacker packer(*writer_, 19);
  auto [chunk, payload] = Make(0);
  payload->fails = true;
  absl::Status status = packer.Add(chunk);
  if (status.ok()) status = packer.Finish(cancel_);
  EXPECT_EQ(ReasonOf(status), "PACK_FAILED");
}

TEST_F(ChunkPackerTest, ACancelIsSeenWhileTheCompressorWorks) {
  ChunkPacker packer(*writer_, 19);
  ASSERT_TRUE(packer.Add(Make(0).first).ok());
  cancel_.Cancel();
  EXPECT_EQ(ReasonOf(packer.Finish(cancel_)), "CANCELLED");
  gate_.Open();
}

TEST_F(ChunkPackerTest, WhatIsNotFinishedIsDropped) {
  gate_.Open();
  {
    ChunkPacker packer(*writer_, 19);
    for (uint32_t number = 0; number < 5; ++number) ASSERT_TRUE(packer.Add(Make(number).first).ok());
  }
  writer_.reset();
  EXPECT_FALSE(std::filesystem::exists(path()));
}

}  // namespace
}  // namespace litefleet::spool
