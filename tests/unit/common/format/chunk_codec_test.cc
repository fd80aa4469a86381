#include "common/format/chunk_codec.h"

#include <gtest/gtest.h>

#include <random>

#include "common/base/status.h"
#include "common/format/extent.h"

namespace litefleet::format {
namespace {

Bytes SomeContent(size_t size, bool random) {
  Bytes bytes(size);
  std::mt19937 generator(1);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(random ? generator() : i / 100);
  return bytes;
}

class ChunkCodecTest : public testing::TestWithParam<bool> {};

TEST_P(ChunkCodecTest, ThereAndBack) {
  const Bytes raw = SomeContent(kExtentBytes, GetParam());
  ChunkCompressor compressor(1);
  ChunkDecompressor decompressor;
  std::string stored;
  const auto codec = compressor.Compress(raw, stored);
  ASSERT_TRUE(codec.ok());
  EXPECT_EQ(*codec, GetParam() ? Codec::kRaw : Codec::kZstd);
  EXPECT_LE(stored.size(), raw.size());
  Bytes out;
  ASSERT_TRUE(decompressor.Open(*codec, AsBytes(stored), kExtentBytes, 4096, NameChunkOf(4096, raw), out).ok());
  EXPECT_EQ(out, raw);
}

TEST_P(ChunkCodecTest, EveryFlippedBitIsFound) {
  const Bytes raw = SomeContent(8192, GetParam());
  ChunkCompressor compressor(1);
  ChunkDecompressor decompressor;
  std::string stored;
  const auto codec = compressor.Compress(raw, stored);
  ASSERT_TRUE(codec.ok());
  const ChunkName name = NameChunkOf(4096, raw);
  Bytes out;
  for (size_t at = 0; at < stored.size(); ++at) {
    std::string bad = stored;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    const absl::Status status = decompressor.Open(*codec, AsBytes(bad), 8192, 4096, name, out);
    // A flip in what zstd does not use may leave the content as it was: then it is the right content.
    if (status.ok()) {
      EXPECT_EQ(out, raw);
    } else {
      EXPECT_EQ(ReasonOf(status), "CHUNK_DAMAGED");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Contents, ChunkCodecTest, testing::Bool());

TEST(ChunkCodecTest, HostileSizes) {
  ChunkDecompressor decompressor;
  Bytes out;
  const ChunkName name{};
  EXPECT_FALSE(decompressor.Open(Codec::kRaw, {}, 0, 4096, name, out).ok());
  EXPECT_FALSE(decompressor.Open(Codec::kZstd, {}, kExtentBytes + 4096, 4096, name, out).ok());
  EXPECT_FALSE(decompressor.Open(Codec::kZstd, AsBytes("nonsense"), 4096, 4096, name, out).ok());
  EXPECT_FALSE(decompressor.Open(Codec::kRaw, AsBytes("four"), 4096, 4096, name, out).ok());
  EXPECT_FALSE(decompressor.Open(static_cast<Codec>(9), AsBytes("four"), 4096, 4096, name, out).ok());
  EXPECT_FALSE(decompressor.Open(Codec::kRaw, AsBytes(std::string(5000, 'x')), 5000, 4096, name, out).ok());
  // A frame whose content is larger than was promised.
  ChunkCompressor compressor(1);
  std::string stored;
  ASSERT_TRUE(compressor.Compress(SomeContent(kExtentBytes, false), stored).ok());
  EXPECT_FALSE(decompressor.Decompress(Codec::kZstd, AsBytes(stored), 4096, out).ok());
}

}  // namespace
}  // namespace litefleet::format
