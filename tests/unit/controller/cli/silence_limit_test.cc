#include "controller/cli/silence_limit.h"

#include <gtest/gtest.h>

#include <future>
#include <optional>

namespace litefleet::cli {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

TEST(SilenceLimitTest, AWaitThatIsTooLongIsEndedOnce) {
  std::promise<void> silent;
  SilenceLimit limit(milliseconds(20), [&] { silent.set_value(); });  // a second call would throw
  const SilenceLimit::Wait wait(limit);
  silent.get_future().wait();
  EXPECT_TRUE(limit.ran_out());
}

TEST(SilenceLimitTest, OnlyWaitsCount) {
  bool called = false;
  SilenceLimit limit(milliseconds(8), [&] { called = true; });
  // What is done between two answers takes longer than the limit: the limit's thread has looked meanwhile.
  for (int i = 0; i < 5; ++i) std::this_thread::sleep_for(milliseconds(8));
  EXPECT_FALSE(limit.ran_out());
  EXPECT_FALSE(called);
}

TEST(SilenceLimitTest, AnAnswerInTimeIsNoSilence) {
  SilenceLimit limit(hours(1), [] { ADD_FAILURE(); });
  for (int i = 0; i < 1000; ++i) const SilenceLimit::Wait wait(limit);
  EXPECT_FALSE(limit.ran_out());
}

}  // namespace
}  // namespace litefleet::cli
