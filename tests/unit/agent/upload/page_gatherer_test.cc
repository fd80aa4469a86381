#include "agent/upload/page_gatherer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::upload {
namespace {

constexpr uint32_t kPage = 4096;

// Pages of a database, each with a content of its own.
Bytes ContentOf(uint32_t page_size, uint32_t page, unsigned version = 0) {
  std::minstd_rand random(page * 31 + version + 1);
  Bytes bytes(page_size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() >> 8);
  return bytes;
}

// Runs are handed over whole, as far as their extent reaches.
std::vector<Chunk> Gather(uint32_t page_size, const std::set<uint32_t>& pages) {
  PageGatherer gatherer(page_size);
  std::vector<Chunk> chunks;
  for (auto at = pages.begin(); at != pages.end();) {
    const uint32_t first = *at;
    Bytes run;
    std::vector<format::PageDigest> digests;
    for (uint32_t next = first; at != pages.end() && *at == next; ++next, ++at) {
      if (next > first && (next - 1) % format::PagesPerExtent(page_size) == 0) break;
      const Bytes content = ContentOf(page_size, next);
      run.insert(run.end(), content.begin(), content.end());
      digests.push_back(format::DigestPage(content));
    }
    if (std::optional<Chunk> chunk = gatherer.Add(first, run, digests)) chunks.push_back(*std::move(chunk));
  }
  if (std::optional<Chunk> chunk = gatherer.Flush()) chunks.push_back(*std::move(chunk));
  return chunks;
}

std::set<std::string> NamesOf(const std::vector<Chunk>& chunks) {
  std::set<std::string> names;
  for (const Chunk& chunk : chunks) names.insert(std::string(chunk.name.AsString()));
  return names;
}

// Every third page, say: nothing of it is an extent.
std::set<uint32_t> Scattered(uint32_t page_size, size_t bytes, uint32_t most_beside) {
  std::minstd_rand random(7);
  std::set<uint32_t> pages;
  for (uint32_t page = 5; pages.size() * page_size < bytes; page += 2 + random() % 4) {
    for (uint32_t run = 1 + random() % most_beside; run > 0; --run) pages.insert(page++);
  }
  return pages;
}

class PageGathererTest : public testing::TestWithParam<uint32_t> {};

TEST_P(PageGathererTest, ChunksAreLargeAndHoldEveryPageOnce) {
  const std::set<uint32_t> pages = Scattered(GetParam(), 8 << 20, GetParam() == 65536 ? 1 : 4);
  std::set<uint32_t> seen;
  const std::vector<Chunk> chunks = Gather(GetParam(), pages);
  for (size_t i = 0; i < chunks.size(); ++i) {
    EXPECT_LE(chunks[i].raw_bytes, format::kExtentBytes);
    if (i + 1 < chunks.size()) {
      EXPECT_GT(chunks[i].raw_bytes, format::kExtentBytes / 2) << i;
    }
    uint32_t count = 0;
    for (const PageRun& run : chunks[i].runs) {
      for (uint32_t page = run.first_page; page < run.first_page + run.page_count; ++page, ++count) EXPECT_TRUE(seen.insert(page).second);
    }
    EXPECT_EQ(count * GetParam(), chunks[i].raw_bytes);
  }
  EXPECT_EQ(seen, pages);
  // Not many more than the fewest that there could be.
  EXPECT_LT(chunks.size() * format::kExtentBytes, pages.size() * size_t{GetParam()} * 17 / 10);
}

// What was gathered once, and again with one page more, or less, near its begin.
TEST_P(PageGathererTest, OnePageMoreOrLessLeavesTheOtherChunksAsTheyWere) {
  const std::set<uint32_t> pages = Scattered(GetParam(), 16 << 20, 1);
  const std::set<std::string> names = NamesOf(Gather(GetParam(), pages));
  std::set<uint32_t> more = pages;
  more.insert(1);
  std::set<uint32_t> less = pages;
  less.erase(less.begin());
  for (const std::set<uint32_t>& other : {more, less}) {
    size_t differ = 0;
    for (const std::string& name : NamesOf(Gather(GetParam(), other))) differ += names.contains(name) ? 0 : 1;
    EXPECT_GE(differ, 1u);
    EXPECT_LE(differ, names.size() / 4) << "of " << names.size();
  }
}

INSTANTIATE_TEST_SUITE_P(PageSizes, PageGathererTest, testing::Values(512, 1024, kPage, 16384, 65536));

// Whole extents are chunks of their own, whatever comes before them: these names are the controller's.
TEST(PageGatherer, AWholeExtentIsAChunk) {
  std::set<uint32_t> pages = {3, 4, 5};
  for (uint32_t page = 65; page <= 5 * 64; ++page) pages.insert(page);
  const std::vector<Chunk> chunks = Gather(kPage, pages);
  ASSERT_EQ(chunks.size(), 5u);
  for (size_t i = 1; i < chunks.size(); ++i) EXPECT_EQ(chunks[i].raw_bytes, format::kExtentBytes);
}

}  // namespace
}  // namespace litefleet::upload
