// Wanted pages are found where all of them are still what they were, and only there.
#include "agent/heal/wanted_gatherer.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/format/extent.h"

namespace litefleet::heal {
namespace {

constexpr uint32_t kPageSize = 4096;

struct Pages {
  explicit Pages(uint32_t count) : seeds(count) {
    for (uint32_t i = 0; i < count; ++i) seeds[i] = i + 1;
  }
  Bytes Content(std::span<const uint32_t> pages) const {
    Bytes bytes;
    for (const uint32_t page : pages) {
      for (uint32_t i = 0; i < kPageSize; ++i) bytes.push_back(static_cast<std::byte>(seeds[page - 1] * 31 + i / 7));
    }
    return bytes;
  }
  std::vector<uint32_t> seeds;
};

v1::WantedPages Want(const Pages& database, const std::vector<uint32_t>& pages) {
  v1::WantedPages wanted;
  wanted.set_name(std::string(format::NameChunkOf(kPageSize, database.Content(pages)).AsString()));
  for (const uint32_t page : pages) {
    v1::PageRun& run = *wanted.add_runs();
    run.set_first_page(page);
    run.set_page_count(1);
  }
  return wanted;
}

std::vector<WantedGatherer::Found> ReadThrough(const v1::HealOrder& order, const Pages& database, std::vector<uint32_t>& positions) {
  EXPECT_TRUE(WantedGatherer::Check(order).ok()) << WantedGatherer::Check(order);
  WantedGatherer gatherer(order, positions);
  std::vector<WantedGatherer::Found> all;
  const auto count = static_cast<uint32_t>(database.seeds.size());
  for (uint32_t extent = 0; extent < format::ExtentCount(kPageSize, count); ++extent) {
    std::vector<uint32_t> pages;
    for (uint32_t i = 0; i < format::PagesIn(kPageSize, count, extent); ++i) pages.push_back(format::FirstPageOf(kPageSize, extent) + i);
    const Bytes content = database.Content(pages);
    std::vector<format::PageDigest> digests;
    format::DigestPages(kPageSize, content, digests);
    gatherer.Look(pages[0], content, digests);
    while (auto found = gatherer.TakeFound()) all.push_back(*std::move(found));
  }
  positions = gatherer.skipped();
  return all;
}

TEST(WantedGathererTest, FindsWhatIsUnchangedInAnyOrderOfPages) {
  Pages database(200);
  v1::HealOrder order;
  order.set_page_size(kPageSize);
  *order.add_wanted() = Want(database, {1, 2, 3});
  *order.add_wanted() = Want(database, {150, 7, 90});
  *order.add_wanted() = Want(database, {5, 120});
  *order.add_wanted() = Want(database, {9, 300 - 101});
  order.mutable_wanted(3)->mutable_runs(1)->set_first_page(500);  // behind its end now
  database.seeds[119] = 4711;
  std::vector<uint32_t> positions = {0, 1, 2, 3};
  const auto found = ReadThrough(order, database, positions);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].position, 0U);
  EXPECT_EQ(found[1].position, 1U);
  EXPECT_EQ(found[1].raw, database.Content(std::vector<uint32_t>{150, 7, 90}));
  EXPECT_EQ(found[1].name.AsString(), order.wanted(1).name());
  EXPECT_TRUE(positions.empty());
}

TEST(WantedGathererTest, PagesThatTheStoreHasAreNotSent) {
  Pages database(64);
  v1::HealOrder order;
  order.set_page_size(kPageSize);
  v1::WantedPages& wanted = *order.add_wanted();
  wanted = Want(database, {10, 11, 12, 13});
  std::vector<format::PageDigest> known;
  format::DigestPages(kPageSize, database.Content(std::vector<uint32_t>{11, 13}), known);
  for (const uint32_t position : {1U, 3U}) wanted.add_known_positions(position);
  for (const format::PageDigest& digest : known) wanted.mutable_known_digests()->append(digest.AsString());
  database.seeds[10] = 99;  // page 11: the store has the old one
  std::vector<uint32_t> positions = {0};
  const auto found = ReadThrough(order, database, positions);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].raw, database.Content(std::vector<uint32_t>{10, 12}));
  EXPECT_EQ(found[0].name, format::NameChunkOf(kPageSize, found[0].raw));
}

TEST(WantedGathererTest, WhatFindsNoRoomWantsAnotherPass) {
  const Pages database(200);
  v1::HealOrder order;
  order.set_page_size(kPageSize);
  std::vector<uint32_t> positions;
  for (uint32_t i = 0; i < 50; ++i) {
    *order.add_wanted() = Want(database, {i + 1, 190});
    positions.push_back(i);
  }
  std::vector<bool> got(50, false);
  for (int pass = 0; !positions.empty(); ++pass) {
    ASSERT_LT(pass, 5);
    for (const auto& found : ReadThrough(order, database, positions)) got[found.position] = true;
  }
  EXPECT_EQ(std::count(got.begin(), got.end(), true), 50);
}

TEST(WantedGathererTest, OrdersThatMakeNoSenseAreRefused) {
  const Pages database(64);
  v1::HealOrder good;
  good.set_page_size(kPageSize);
  *good.add_wanted() = Want(database, {1, 2});
  ASSERT_TRUE(WantedGatherer::Check(good).ok());
  const std::vector<void (*)(v1::HealOrder&)> faults = {
      [](v1::HealOrder& order) { order.set_page_size(1000); },
      [](v1::HealOrder& order) { order.mutable_wanted(0)->set_name("short"); },
      [](v1::HealOrder& order) { order.mutable_wanted(0)->clear_runs(); },
      [](v1::HealOrder& order) { order.mutable_wanted(0)->mutable_runs(0)->set_first_page(0); },
      [](v1::HealOrder& order) { order.mutable_wanted(0)->mutable_runs(0)->set_page_count(65); },
      [](v1::HealOrder& order) { order.mutable_wanted(0)->mutable_runs(0)->set_page_count(UINT32_MAX); },
      [](v1::HealOrder& order) { order.mutable_wanted(0)->add_known_positions(0); },
      [](v1::HealOrder& order) {
        order.mutable_wanted(0)->add_known_positions(2);
        order.mutable_wanted(0)->set_known_digests(std::string(32, 'x'));
      },
  };
  for (size_t i = 0; i < faults.size(); ++i) {
    v1::HealOrder bad = good;
    faults[i](bad);
    EXPECT_EQ(WantedGatherer::Check(bad).code(), absl::StatusCode::kInvalidArgument) << i;
  }
}

}  // namespace
}  // namespace litefleet::heal
