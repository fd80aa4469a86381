#include "common/base/executor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace litefleet {
namespace {

TEST(ExecutorTest, RunsAllThatIsQueuedBeforeItEnds) {
  std::atomic<int> ran{0};
  {
    ThreadPoolExecutor executor(2, 4);
    for (int i = 0; i < 100; ++i) executor.Post([&ran] { ++ran; });
  }
  EXPECT_EQ(ran, 100);
}

TEST(ExecutorTest, RefusesWhenFull) {
  std::promise<void> gate;
  std::promise<void> started;
  std::shared_future<void> open = gate.get_future().share();
  ThreadPoolExecutor executor(1, 2);
  ASSERT_TRUE(executor.TryPost([&started, open] {
    started.set_value();
    open.wait();
  }));
  started.get_future().wait();
  EXPECT_TRUE(executor.TryPost([] {}));
  EXPECT_TRUE(executor.TryPost([] {}));
  EXPECT_FALSE(executor.TryPost([] {}));
  gate.set_value();
}

}  // namespace
}  // namespace litefleet
