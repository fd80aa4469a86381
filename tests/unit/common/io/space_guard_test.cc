#include "common/io/space_guard.h"

#include <gtest/gtest.h>

#include "common/base/status.h"

namespace litefleet::io {
namespace {

TEST(SpaceGuardTest, LooksAgainAfterSomeBytes) {
  uint64_t available = 1000;
  int looks = 0;
  SpaceGuard guard("/somewhere", 100, "free some", [&](const std::string& path) -> absl::StatusOr<uint64_t> {
    EXPECT_EQ(path, "/somewhere");
    ++looks;
    return available;
  });
  for (int i = 0; i < 7; ++i) EXPECT_TRUE(guard.Wrote(1 << 20).ok());
  EXPECT_EQ(looks, 0);
  EXPECT_TRUE(guard.Wrote(1 << 20).ok());
  EXPECT_EQ(looks, 1);
  available = 99;
  EXPECT_TRUE(guard.Wrote(SpaceGuard::kEvery - 1).ok());
  const absl::Status full = guard.Wrote(1);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full), "NOT_ENOUGH_SPACE");
  EXPECT_EQ(HintOf(full), "free some");
}

}  // namespace
}  // namespace litefleet::io
