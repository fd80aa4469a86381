#include "common/format/digest.h"

#include <gtest/gtest.h>

#include <vector>

#include "common/format/extent.h"

namespace litefleet::format {
namespace {

Bytes Page(uint32_t size, int fill) { return Bytes(size, static_cast<std::byte>(fill)); }

// The same digest, put together from its definition by plain SHA-256.
template <class T>
void Append(Bytes& out, T value) {
  std::byte raw[sizeof(T)];
  StoreLittleEndian(value, raw);
  out.insert(out.end(), raw, raw + sizeof(T));
}
void AppendBytes(Bytes& out, ByteView data) { out.insert(out.end(), data.begin(), data.end()); }

TEST(DigestTest, FollowsTheDefinition) {
  const Bytes page = Page(512, 7);
  Bytes input{std::byte{0}};
  Append<uint32_t>(input, 512);
  AppendBytes(input, page);
  const PageDigest digest = DigestPage(page);
  EXPECT_EQ(digest.bytes, Sha256(input));

  Bytes chunk{std::byte{1}};
  Append<uint32_t>(chunk, 512);
  Append<uint32_t>(chunk, 2);
  AppendBytes(chunk, digest.bytes);
  AppendBytes(chunk, digest.bytes);
  const PageDigest two[] = {digest, digest};
  const ChunkName name = NameChunk(512, two);
  EXPECT_EQ(name.bytes, Sha256(chunk));

  Bytes raw = page;
  AppendBytes(raw, page);
  EXPECT_EQ(NameChunkOf(512, raw), name);

  Bytes root{std::byte{2}, std::byte{1}};
  Append<uint32_t>(root, 512);
  Append<uint32_t>(root, 2);
  AppendBytes(root, name.bytes);
  RootBuilder builder(512, 2);
  builder.Add(name);
  EXPECT_EQ(builder.Finish().bytes, Sha256(root));
}

TEST(DigestTest, GoldenValues) {
  RootBuilder empty(4096, 0);
  EXPECT_EQ(empty.Finish().Hex(), "08b25a86b9e6f3e027a28eb5aaa3170f71eb023d1cc7d26c8d0591c44bf85621");
  EXPECT_EQ(DigestPage(Page(4096, 0)).Hex(), "235b990b5bc9840c08f3ff4323986b6e0bf57e759cc510c8e0262aaa0fcb5e6c");
  EXPECT_EQ(NameChunkOf(4096, Page(8192, 0)).Hex(), "c9d6b29a25962d62a026eb2fd8f56592892096829e596f69edc4f3dd64f16c1e");
}

TEST(DigestTest, FromBytesWantsTheExactSize) {
  EXPECT_FALSE(PageDigest::FromBytes("short").has_value());
  EXPECT_FALSE(PageDigest::FromBytes(std::string(33, 'x')).has_value());
  EXPECT_EQ(PageDigest::FromBytes(std::string(32, 'x'))->AsString(), std::string(32, 'x'));
}

TEST(ExtentTest, Geometry) {
  EXPECT_EQ(PagesPerExtent(512), 512u);
  EXPECT_EQ(PagesPerExtent(4096), 64u);
  EXPECT_EQ(PagesPerExtent(65536), 4u);
  EXPECT_EQ(ExtentCount(4096, 0), 0u);
  EXPECT_EQ(ExtentCount(4096, 64), 1u);
  EXPECT_EQ(ExtentCount(4096, 65), 2u);
  EXPECT_EQ(PagesIn(4096, 65, 0), 64u);
  EXPECT_EQ(PagesIn(4096, 65, 1), 1u);
  EXPECT_EQ(FirstPageOf(4096, 1), 65u);
  EXPECT_EQ(LockBytePage(4096), 262145u);
  EXPECT_EQ(LockBytePage(65536), 16385u);
  EXPECT_EQ(ExtentCount(512, kMaxPageCount), 8388608u);
  for (const uint32_t bad : {0u, 256u, 513u, 131072u}) EXPECT_FALSE(IsPageSize(bad));
}

}  // namespace
}  // namespace litefleet::format
