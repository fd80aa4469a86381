#include "common/base/ids.h"

#include <gtest/gtest.h>

#include <set>

namespace litefleet {
namespace {

TEST(IdsTest, UlidsSortByTimeAndDiffer) {
  const std::string early = NewUlid(FromUnixMillis(1'000));
  const std::string late = NewUlid(FromUnixMillis(2'000));
  EXPECT_TRUE(IsUlid(early)) << early;
  EXPECT_LT(early, late);
  // 1469918176385 ms is "01ARYZ6S41" in the specification of ULIDs.
  EXPECT_EQ(NewUlid(FromUnixMillis(1469918176385)).substr(0, 10), "01ARYZ6S41");
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(NewUlid(FromUnixMillis(1)));
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(IdsTest, UlidRejects) {
  EXPECT_FALSE(IsUlid(""));
  EXPECT_FALSE(IsUlid("81ARYZ6S41TSV4RRFFQ69G5FAV"));  // over 128 bits
  EXPECT_FALSE(IsUlid("01ARYZ6S41TSV4RRFFQ69G5FAU"));  // U is no digit
  EXPECT_FALSE(IsUlid("01ARYZ6S41TSV4RRFFQ69G5FA"));
}

TEST(IdsTest, Uuids) {
  const std::string uuid = NewUuid();
  EXPECT_TRUE(IsUuid(uuid)) << uuid;
  EXPECT_EQ(uuid[14], '4');
  EXPECT_FALSE(IsUuid("F47AC10B-58CC-4372-A567-0E02B2C3D479"));
  EXPECT_FALSE(IsUuid("f47ac10b58cc4372a5670e02b2c3d479"));
}

TEST(IdsTest, Names) {
  EXPECT_TRUE(IsName("a"));
  EXPECT_TRUE(IsName("Gate-7.eu_west"));
  EXPECT_TRUE(IsName(std::string(63, 'a')));
  EXPECT_FALSE(IsName(std::string(64, 'a')));
  for (const char* bad : {"", "-a", ".a", "_a", "a/b", "a b", "\xc3\xa4", "a\n"}) EXPECT_FALSE(IsName(bad)) << bad;
}

}  // namespace
}  // namespace litefleet
