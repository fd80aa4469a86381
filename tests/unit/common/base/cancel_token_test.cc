#include "common/base/cancel_token.h"

#include <gtest/gtest.h>

namespace litefleet {
namespace {

TEST(CancelToken, ACancelCountsMoreThanTheEndOfTheProgramAndDoesNotHideIt) {
  CancelToken token;
  EXPECT_FALSE(token.cancelled() || token.interrupted() || token.ending());
  token.Interrupt();
  EXPECT_TRUE(token.cancelled() && token.interrupted() && token.ending());
  token.Cancel();
  EXPECT_TRUE(token.cancelled() && token.ending());
  EXPECT_FALSE(token.interrupted());
  CancelToken other;
  other.Cancel();
  EXPECT_FALSE(other.ending());
  other.Interrupt();
  EXPECT_TRUE(other.ending());
  EXPECT_FALSE(other.interrupted());
}

TEST(CancelToken, BehindThePointOfNoReturnTheEndAloneIsHeard) {
  CancelToken of;
  const CancelToken token = CancelToken::EndOf(of);
  of.Cancel();
  EXPECT_FALSE(token.cancelled() || token.interrupted() || token.ending());
  of.Interrupt();
  EXPECT_TRUE(token.cancelled() && token.interrupted() && token.ending());
}

}  // namespace
}  // namespace litefleet
