#include "common/format/segment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>

#include "common/base/status.h"

namespace litefleet::format {
namespace {

struct Written {
  std::vector<SegmentWriter::Segment> segments;
  uint32_t page_count = 0;
  RootDigest root;
  Bytes Pages() const {
    Bytes all;
    for (const SegmentWriter::Segment& segment : segments) all.insert(all.end(), segment.pages.begin(), segment.pages.end());
    return all;
  }
};

Written Write(std::string_view text, size_t slice = 1 << 20) {
  SegmentWriter writer(Content::kSql);
  Written written;
  const auto take = [&] {
    while (std::optional<SegmentWriter::Segment> segment = writer.Take()) written.segments.push_back(*std::move(segment));
  };
  while (!text.empty()) {
    const std::string_view part = text.substr(0, slice);
    EXPECT_TRUE(writer.Add(AsBytes(part)).ok());
    text.remove_prefix(part.size());
    take();
  }
  EXPECT_TRUE(writer.Finish().ok());
  take();
  written.page_count = writer.page_count();
  written.root = writer.Root();
  return written;
}

absl::StatusOr<std::string> Read(ByteView pages, size_t slice = 4096) {
  SegmentReader reader(Content::kSql);
  std::string text;
  while (!pages.empty()) {
    const ByteView part = pages.first(std::min(slice, pages.size()));
    LF_RETURN_IF_ERROR(reader.Add(part, [&](ByteView piece) {
      text += AsText(piece);
      return absl::OkStatus();
    }));
    pages = pages.subspan(part.size());
  }
  LF_RETURN_IF_ERROR(reader.Finish());
  return text;
}

// Lines as a dump has them.
std::string Lines(size_t bytes, uint32_t seed) {
  std::mt19937 random(seed);
  std::string text;
  while (text.size() < bytes) {
    text += "INSERT INTO readings VALUES(" + std::to_string(text.size()) + ",'" + std::to_string(random()) + "'," +
            std::to_string(random() % 1000) + ");\n";
  }
  text.resize(bytes);
  return text;
}

TEST(Segment, GoldenBytes) {
  const Written written = Write("SELECT 1;\n");
  ASSERT_EQ(written.segments.size(), 1u);
  ASSERT_EQ(written.page_count, 1u);
  const Bytes& page = written.segments[0].pages;
  ASSERT_EQ(page.size(), 512u);
  EXPECT_EQ(ToHex(ByteView(page).first(28)),
            "4c465331020000000a000000010000005345"
            "4c45435420313b0a0000");
  EXPECT_TRUE(std::all_of(page.begin() + 26, page.end(), [](std::byte b) { return b == std::byte{0}; }));
  EXPECT_EQ(written.segments[0].name, NameChunkOf(512, page));
  RootBuilder root(512, 1);
  root.Add(written.segments[0].name);
  EXPECT_EQ(written.root, root.Finish());
}

// The cuts are part of the format: a program that makes others shares nothing with what was stored before.
TEST(Segment, GoldenCuts) {
  std::string text;
  uint64_t state = 1;
  for (int i = 0; i < 400'000; ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    text += static_cast<char>('a' + (state >> 40) % 26);
  }
  std::vector<size_t> sizes;
  for (const SegmentWriter::Segment& segment : Write(text).segments) {
    const auto header = DecodeSegmentHeader(std::span<const std::byte, kSegmentHeaderBytes>(segment.pages.data(), kSegmentHeaderBytes));
    ASSERT_TRUE(header.has_value());
    sizes.push_back(header->text_bytes);
  }
  const std::vector<size_t> expected = {99988, 143304, 20539, 136169};
  EXPECT_EQ(sizes, expected);
}

TEST(Segment, EveryTextComesBackHoweverItIsSliced) {
  for (const size_t bytes : {0, 1, 495, 496, 497, 16383, 16384, 16385, 262127, 262128, 262129, 1'000'000}) {
    const std::string text = Lines(bytes, 7);
    const Written whole = Write(text);
    const Written sliced = Write(text, 777);
    EXPECT_EQ(whole.root, sliced.root) << bytes;
    EXPECT_EQ(whole.Pages(), sliced.Pages()) << bytes;
    EXPECT_EQ(whole.page_count * size_t{512}, whole.Pages().size());
    for (const size_t slice : {1, 15, 512, 100'000}) {
      if (slice == 1 && bytes > 20'000) continue;
      const auto read = Read(whole.Pages(), slice);
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_EQ(*read, text);
    }
  }
}

TEST(Segment, TheRootIsThatOfThePagesInExtents) {
  const Written written = Write(Lines(1'500'000, 3));
  const Bytes pages = written.Pages();
  RootBuilder root(512, written.page_count);
  for (size_t at = 0; at < pages.size(); at += kExtentBytes)
    root.Add(NameChunkOf(512, ByteView(pages).subspan(at, std::min<size_t>(kExtentBytes, pages.size() - at))));
  EXPECT_EQ(written.root, root.Finish());
}

TEST(Segment, SegmentsKeepToTheirBoundsAndToStretches) {
  const std::string text = Lines(70 << 20, 11);
  const Written written = Write(text);
  uint32_t next = 1;
  size_t padding = 0;
  for (size_t i = 0; i < written.segments.size(); ++i) {
    const SegmentWriter::Segment& segment = written.segments[i];
    const auto header = DecodeSegmentHeader(std::span<const std::byte, kSegmentHeaderBytes>(segment.pages.data(), kSegmentHeaderBytes));
    ASSERT_TRUE(header.has_value());
    EXPECT_EQ(segment.first_page, next);
    EXPECT_EQ(header->pages * size_t{512}, segment.pages.size());
    next += header->pages;
    EXPECT_EQ(StretchOf(512, segment.first_page), StretchOf(512, next - 1));
    padding += header->text_bytes == 0 ? 1 : 0;
    if (header->text_bytes != 0 && i + 1 < written.segments.size()) {
      EXPECT_GE(header->text_bytes, kMinSegmentText);
    }
  }
  EXPECT_LE(padding, 1u);
  // What the container costs.
  EXPECT_LT(written.page_count * uint64_t{512}, text.size() + text.size() / 100);
  EXPECT_EQ(*Read(written.Pages(), 1 << 20), text);
}

TEST(Segment, RunsThatNeverCutEndAtTheLongest) {
  const Written written = Write(std::string(1'000'000, 'x'));
  ASSERT_GE(written.segments.size(), 3u);
  EXPECT_EQ(written.segments[0].pages.size(), kExtentBytes);
  EXPECT_EQ(written.segments[0].name, written.segments[1].name);
}

TEST(Segment, AChangeLeavesTheOthersWhereverTheyMoveTo) {
  const std::string before = Lines(20 << 20, 5);
  std::string after = before;
  after.insert(9'000'000, "INSERT INTO readings VALUES(-1,'a row more',0);\n");
  after.erase(100, 20);
  std::set<std::string> known;
  for (const SegmentWriter::Segment& segment : Write(before).segments) known.insert(segment.name.Hex());
  size_t fresh = 0;
  for (const SegmentWriter::Segment& segment : Write(after).segments) fresh += known.contains(segment.name.Hex()) ? 0 : 1;
  EXPECT_LE(fresh, 6u);
  EXPECT_GE(fresh, 2u);
}

TEST(Segment, DamagedContentIsRefused) {
  const Written written = Write(Lines(100'000, 2));
  const Bytes good = written.Pages();
  const auto refused = [](const Bytes& pages) {
    const auto read = Read(pages);
    EXPECT_FALSE(read.ok());
    EXPECT_EQ(ReasonOf(read.status()), "CONTENT_DAMAGED") << read.status();
  };
  // Not the lowest byte of the length: another one that fits is another segment, which its name tells apart.
  for (const size_t at : {0, 3, 4, 5, 7, 11, 12, 15}) {
    Bytes bad = good;
    bad[at] ^= std::byte{0x41};
    refused(bad);
  }
  refused(Bytes(good.begin(), good.end() - 512));
  refused(Bytes(good.begin(), good.begin() + 5));
  Bytes behind = good;
  behind.back() = std::byte{1};
  refused(behind);
  Bytes more = good;
  more.resize(more.size() + 512);
  refused(more);
  // Content of another kind.
  SegmentReader files(Content::kFiles);
  EXPECT_EQ(ReasonOf(files.Add(good, [](ByteView) { return absl::OkStatus(); })), "CONTENT_DAMAGED");
}

TEST(Segment, HeadersThatNobodyWritesAreRefused) {
  std::array<std::byte, kSegmentHeaderBytes> raw{};
  const auto decoded = [&](const SegmentHeader& header) {
    EncodeSegmentHeader(header, raw);
    return DecodeSegmentHeader(raw).has_value();
  };
  EXPECT_TRUE(decoded({Content::kSql, 496, 1}));
  EXPECT_FALSE(decoded({Content::kSql, 497, 1}));
  EXPECT_FALSE(decoded({Content::kSql, 1, 2}));
  EXPECT_TRUE(decoded({Content::kSql, kMaxSegmentText, 512}));
  EXPECT_FALSE(decoded({Content::kSql, kMaxSegmentText + 1, 513}));
  EXPECT_TRUE(decoded({Content::kFiles, 0, 512}));
  EXPECT_FALSE(decoded({Content::kFiles, 0, 513}));
  EXPECT_FALSE(decoded({Content::kFiles, 0, 0}));
  EXPECT_FALSE(decoded({static_cast<Content>(1), 1, 1}));
}

}  // namespace
}  // namespace litefleet::format
