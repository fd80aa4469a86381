#include "common/base/nearest.h"

#include <gtest/gtest.h>

#include <vector>

namespace litefleet {
namespace {

TEST(NearestTest, FindsSlipsAndBeginnings) {
  const std::vector<std::string> names = {"snapshot", "status", "device", "database", "restore", "operation", "listen", "log", "path"};
  EXPECT_EQ(Nearest("snapshots", names), "snapshot");
  EXPECT_EQ(Nearest("snap", names), "snapshot");
  EXPECT_EQ(Nearest("stauts", names), "status");
  EXPECT_EQ(Nearest("devcie", names), "device");
  EXPECT_EQ(Nearest("lisen", names), "listen");
  EXPECT_EQ(Nearest("pth", names), "path");
  EXPECT_EQ(Nearest("lag", names), "log");
}

TEST(NearestTest, SaysNothingRatherThanSomethingWrong) {
  const std::vector<std::string> names = {"listen", "log", "limits", "store", "prune", "metrics"};
  for (const char* typed : {"foo", "tls", "xyzzy", "logging_level", "entirely_different", "data", "port", "l", ""}) {
    EXPECT_EQ(Nearest(typed, names), "") << typed;
  }
}

}  // namespace
}  // namespace litefleet
