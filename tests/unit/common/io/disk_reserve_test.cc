#include "common/io/disk_reserve.h"

#include <gtest/gtest.h>

namespace litefleet::io {
namespace {

TEST(DiskReserveTest, IsATenthOfASmallFileSystem) {
  const DiskReserve reserve;
  EXPECT_EQ(reserve.Of(uint64_t{1} << 40), 64U << 20);
  EXPECT_EQ(reserve.Of(640U << 20), 64U << 20);
  EXPECT_EQ(reserve.Of(100'000'000), 10'000'000U);
  EXPECT_EQ(reserve.Of(4 << 20), 1U << 20);
  EXPECT_EQ(reserve.Of(0), 1U << 20);
}

TEST(DiskReserveTest, IsWhatWasConfiguredWhateverTheFileSystem) {
  EXPECT_EQ(DiskReserve(uint64_t{1} << 40).Of(1 << 20), uint64_t{1} << 40);
  EXPECT_EQ(DiskReserve(0).Of(uint64_t{1} << 40), 0U);
}

TEST(DiskReserveTest, LooksAtTheFileSystemOfAPath) {
  EXPECT_EQ(*DiskReserve(5).At("/"), 5U);
  EXPECT_GE(*DiskReserve().At("/"), DiskReserve::kLeastBytes);
  EXPECT_FALSE(DiskReserve().At("/there/is/nothing").ok());
}

}  // namespace
}  // namespace litefleet::io
