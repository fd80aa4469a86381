#include "agent/hooks/pause_watch.h"

#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "common/base/status.h"

namespace litefleet::hooks {
namespace {

using std::chrono::milliseconds;

class ScriptedRunner final : public HookRunner {
 public:
  HookResult Run(const Hook& hook, const CancelToken& cancel) override {
    HookResult result;
    result.run.set_hook(hook.name);
    MutexLock lock(mu_);
    ++asked;
    if (cancel.cancelled()) result.status = absl::CancelledError();
    result.run.set_exit_code(code);
    if (code < 0) result.status = Error(absl::StatusCode::kPermissionDenied, "HOOK_NOT_TRUSTED", "no");
    return result;
  }
  void Answer(int now) {
    MutexLock lock(mu_);
    code = now;
  }
  int Asked() {
    MutexLock lock(mu_);
    return asked;
  }

 private:
  Mutex mu_;
  int code ABSL_GUARDED_BY(mu_) = 0;
  int asked ABSL_GUARDED_BY(mu_) = 0;
};

bool WaitFor(const std::function<bool()>& condition) {
  for (int i = 0; i < 3000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

Hook PauseHook() {
  Hook hook;
  hook.name = "pause";
  hook.program = "/etc/pause";
  return hook;
}

TEST(PauseWatchTest, AsksBeforeAndAgainAndFollowsTheAnswer) {
  ScriptedRunner runner;
  CancelToken cancel;
  runner.Answer(kPauseExitCode);
  PauseWatch watch(runner, PauseHook(), cancel, milliseconds(5));
  EXPECT_FALSE(watch.paused()) << "nobody was asked yet";
  watch.Begin();
  EXPECT_TRUE(watch.paused());
  runner.Answer(0);
  EXPECT_TRUE(WaitFor([&] { return !watch.paused(); }));
  runner.Answer(kPauseExitCode);
  EXPECT_TRUE(WaitFor([&] { return watch.paused(); }));
  const auto runs = watch.runs();
  ASSERT_EQ(runs.size(), 3u) << "the changes alone";
  EXPECT_EQ(runs[0].exit_code(), kPauseExitCode);
  EXPECT_EQ(runs[1].exit_code(), 0);
}

TEST(PauseWatchTest, ABrokenHookKeepsNothingUp) {
  ScriptedRunner runner;
  CancelToken cancel;
  for (const int code : {1, 127, 137, -1}) {
    runner.Answer(code);
    PauseWatch watch(runner, PauseHook(), cancel);
    watch.Begin();
    EXPECT_FALSE(watch.paused()) << code;
    ASSERT_EQ(watch.runs().size(), 1u) << "it is recorded";
    EXPECT_EQ(watch.runs()[0].exit_code(), code);
  }
}

TEST(PauseWatchTest, WithoutAHookNobodyIsAsked) {
  ScriptedRunner runner;
  CancelToken cancel;
  PauseWatch watch(runner, Hook(), cancel, milliseconds(1));
  watch.Begin();
  EXPECT_FALSE(watch.paused());
  EXPECT_EQ(runner.Asked(), 0);
}

TEST(PauseWatchTest, WhatIsKeptIsBounded) {
  ScriptedRunner runner;
  CancelToken cancel;
  PauseWatch watch(runner, PauseHook(), cancel, milliseconds(1));
  watch.Begin();
  for (int i = 0; i < 40; ++i) {
    runner.Answer(i % 2 == 0 ? kPauseExitCode : 0);
    ASSERT_TRUE(WaitFor([&] { return watch.paused() == (i % 2 == 0); }));
  }
  EXPECT_EQ(watch.runs().size(), PauseWatch::kMaxRuns);
  EXPECT_EQ(watch.runs()[0].exit_code(), 0) << "the first one stays";
}

}  // namespace
}  // namespace litefleet::hooks
