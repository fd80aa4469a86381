#include "controller/ingest/scratch.h"

#include <gtest/gtest.h>

namespace litefleet::ingest {
namespace {

TEST(ScratchTest, AsManyAsWereUsedAtOnceAndTheLastFirst) {
  Scratch<int> scratch;
  int* first = nullptr;
  {
    const auto one = scratch.Take();
    *one = 1;
    first = one.get();
  }
  const auto again = scratch.Take();
  EXPECT_EQ(again.get(), first);
  EXPECT_EQ(*again, 1);
  int* second = nullptr;
  {
    const auto other = scratch.Take();
    second = other.get();
    EXPECT_NE(second, first);
  }
  EXPECT_EQ(scratch.Take().get(), second);
}

}  // namespace
}  // namespace litefleet::ingest
