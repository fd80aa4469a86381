#include "agent/hooks/hook_runner.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::hooks {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class HookRunnerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "hooks-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = std::filesystem::canonical(pattern);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Script(const std::string& body, const std::string& name = "hook") {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << "#!/bin/sh\n" << body;
    chmod(path.c_str(), 0700);
    return path;
  }
  Hook Of(const std::string& program) {
    Hook hook;
    hook.name = "before-backup";
    hook.program = program;
    hook.timeout = seconds(60);
    hook.grace = milliseconds(200);
    return hook;
  }
  // For a state that another process brings about.
  static bool WaitFor(const std::function<bool()>& condition) {
    for (int i = 0; i < 3000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(milliseconds(10));
    }
    return false;
  }

  std::string folder_;
  ProcessHookRunner runner_;
  CancelToken cancel_;
};

TEST_F(HookRunnerTest, SaysHowItEndedAndWhatItWrote) {
  const HookResult result = runner_.Run(Of(Script("echo out; echo err >&2; exit 75\n")), cancel_);
  EXPECT_TRUE(result.status.ok()) << result.status;
  EXPECT_FALSE(result.succeeded());
  EXPECT_EQ(result.run.hook(), "before-backup");
  EXPECT_EQ(result.run.exit_code(), 75);
  EXPECT_EQ(result.run.output(), "out\nerr\n");
  EXPECT_FALSE(result.run.timed_out());
  EXPECT_TRUE(runner_.Run(Of(Script("exit 0\n")), cancel_).succeeded());
}

TEST_F(HookRunnerTest, GetsItsOwnEnvironmentAndNothingOfTheAgents) {
  ASSERT_EQ(setenv("LITEFLEET_TOKEN", "secret", 1), 0);
  Hook hook = Of(Script("echo $# $1; env | sort; pwd; ls /proc/self/fd | wc -l\n"));
  hook.arguments = {"a b"};
  hook.environment = {{"LITEFLEET_DATABASE", "orders"}};
  const io::UniqueFd open(::open("/dev/null", O_RDONLY));  // without close-on-exec
  const HookResult result = runner_.Run(hook, cancel_);
  unsetenv("LITEFLEET_TOKEN");
  ASSERT_TRUE(result.succeeded()) << result.status;
  EXPECT_THAT(result.run.output(), StartsWith("1 a b\n"));
  EXPECT_THAT(result.run.output(), HasSubstr("LITEFLEET_DATABASE=orders\n"));
  EXPECT_THAT(result.run.output(), HasSubstr("LITEFLEET_HOOK=before-backup\n"));
  EXPECT_THAT(result.run.output(), Not(HasSubstr("secret")));
  EXPECT_THAT(result.run.output(), EndsWith("/\n4\n"));  // 0, 1, 2, and the directory that ls reads
}

TEST_F(HookRunnerTest, EndsWithItsWholeGroupWhenItsTimeIsOver) {
  const std::string pid = folder_ + "/pid";
  Hook hook =
      Of(Script(fmt::format("trap '' TERM\n(trap '' TERM; echo $$ > {0}.tmp; mv {0}.tmp {0}; while :; do sleep 1; done) &\n"
                            "echo waiting\nwhile :; do sleep 1; done\n",
                            pid)));
  hook.timeout = milliseconds(300);
  const HookResult result = runner_.Run(hook, cancel_);
  EXPECT_EQ(ReasonOf(result.status), "HOOK_TIMEOUT");
  EXPECT_TRUE(result.run.timed_out());
  EXPECT_EQ(result.run.exit_code(), 128 + SIGKILL);
  EXPECT_EQ(result.run.output(), "waiting\n");
  int group = 0;
  ASSERT_TRUE(std::ifstream(pid) >> group);
  EXPECT_TRUE(WaitFor([&] { return kill(-group, 0) != 0 && errno == ESRCH; }));
}

TEST_F(HookRunnerTest, MayCleanUpWhenItIsToldToEnd) {
  const std::string path = Script("trap 'echo bye; exit 3' TERM\necho ready\nwhile :; do sleep 0.05; done\n");
  Hook hook = Of(path);
  hook.grace = seconds(60);
  hook.timeout = milliseconds(500);
  const HookResult result = runner_.Run(hook, cancel_);
  EXPECT_EQ(ReasonOf(result.status), "HOOK_TIMEOUT");
  EXPECT_EQ(result.run.exit_code(), 3);
  EXPECT_THAT(result.run.output(), StartsWith("ready\n"));
  EXPECT_THAT(result.run.output(), EndsWith("bye\n"));  // the shell may say between that its sleep was ended
}

TEST_F(HookRunnerTest, ACancelEndsIt) {
  const std::string begun = folder_ + "/begun";
  const Hook hook = Of(Script(fmt::format("touch {}\nwhile :; do sleep 1; done\n", begun)));
  HookResult result;
  std::thread run([&] { result = runner_.Run(hook, cancel_); });
  EXPECT_TRUE(WaitFor([&] { return io::Exists(begun); }));
  cancel_.Cancel();
  run.join();
  EXPECT_EQ(result.status.code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(result.run.timed_out());
}

TEST_F(HookRunnerTest, WhatItLeavesBehindDoesNotHoldItUp) {
  const std::string done = folder_ + "/done";
  const std::string go = folder_ + "/go";
  Hook hook = Of(Script(fmt::format("(while [ ! -e {0} ]; do sleep 0.05; done; touch {1}) &\necho started\n", go, done)));
  const HookResult result = runner_.Run(hook, cancel_);
  EXPECT_TRUE(result.succeeded()) << result.status;
  EXPECT_EQ(result.run.output(), "started\n");
  std::ofstream(go) << "";
  EXPECT_TRUE(WaitFor([&] { return io::Exists(done); })) << "what an application's start left behind goes on";
}

TEST_F(HookRunnerTest, KeepsTheEndOfManyWordsAlone) {
  const HookResult result = runner_.Run(Of(Script("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done\n")), cancel_);
  ASSERT_TRUE(result.succeeded()) << result.status;
  EXPECT_LE(result.run.output().size(), kMaxHookOutput);
  EXPECT_GT(result.run.output().size(), kMaxHookOutput / 2);
  EXPECT_THAT(result.run.output(), EndsWith("line 19999\n"));
}

TEST_F(HookRunnerTest, SaysWhatCannotBeStarted) {
  EXPECT_EQ(ReasonOf(runner_.Run(Of(folder_ + "/absent"), cancel_).status), "HOOK_NOT_FOUND");
  const std::string plain = Script("exit 0\n");
  chmod(plain.c_str(), 0600);
  EXPECT_EQ(ReasonOf(runner_.Run(Of(plain), cancel_).status), "HOOK_NOT_STARTED");
  EXPECT_EQ(ReasonOf(runner_.Run(Of(folder_), cancel_).status), "HOOK_NOT_STARTED");
  const std::string text = folder_ + "/text";
  std::ofstream(text) << "no program\n";
  chmod(text.c_str(), 0700);
  const HookResult result = runner_.Run(Of(text), cancel_);
  EXPECT_EQ(ReasonOf(result.status), "HOOK_NOT_STARTED");
  EXPECT_EQ(result.run.exit_code(), -1);
  EXPECT_THAT(result.run.output(), HasSubstr(text));
}

TEST_F(HookRunnerTest, RunsNothingThatOthersCouldReplace) {
  const auto reason = [&](const std::string& path) { return ReasonOf(runner_.Run(Of(path), cancel_).status); };
  EXPECT_EQ(reason("hook"), "HOOK_NOT_TRUSTED");
  const std::string path = Script("exit 0\n");
  EXPECT_EQ(reason(path), "");
  chmod(path.c_str(), 0702);
  EXPECT_EQ(reason(path), "HOOK_NOT_TRUSTED");
  chmod(path.c_str(), 0700);
  chmod(folder_.c_str(), 0707);
  EXPECT_EQ(reason(path), "HOOK_NOT_TRUSTED") << "who may write to the directory puts another file there";
  chmod(folder_.c_str(), 0700);
  // Through a link too.
  std::filesystem::create_directory(folder_ + "/open");
  std::filesystem::copy_file(path, folder_ + "/open/hook");
  std::filesystem::create_symlink(folder_ + "/open/hook", folder_ + "/link");
  chmod((folder_ + "/open").c_str(), 0707);
  EXPECT_EQ(reason(folder_ + "/link"), "HOOK_NOT_TRUSTED");
  chmod((folder_ + "/open").c_str(), 0700);
  EXPECT_EQ(reason(folder_ + "/link"), "");
}

TEST_F(HookRunnerTest, RunsNothingOfAnotherUsers) {
  if (geteuid() != 0) GTEST_SKIP() << "only root gives a file away";
  const std::string path = Script("exit 0\n");
  ASSERT_EQ(chown(path.c_str(), 65534, 65534), 0);
  EXPECT_EQ(ReasonOf(CheckHookProgram(path, 0)), "HOOK_NOT_TRUSTED");
  EXPECT_EQ(ReasonOf(CheckHookProgram(path, 65534)), "");
}

TEST(OutputTailTest, IsTextOfWholeCharacters) {
  EXPECT_EQ(OutputTail("a\tb\n", 100), "a\tb\n");
  EXPECT_EQ(OutputTail(std::string_view("a\0b\x1b[1m\x7f", 7), 100), "a?b?[1m");
  EXPECT_EQ(OutputTail("gr\xc3\xbc\xc3\x9f\x65 \xf0\x9f\x92\xa1", 100), "gr\xc3\xbc\xc3\x9f\x65 \xf0\x9f\x92\xa1");
  EXPECT_EQ(OutputTail("\xc3\xbc\xc3\x9f", 3), "\xc3\x9f") << "half a character is left out";
  EXPECT_EQ(OutputTail("\xff\xc0\xaf\xed\xa0\x80\xe2\x82", 100), "????????") << "overlong, surrogate, cut";
  EXPECT_EQ(OutputTail("abcdef", 3), "def");
  EXPECT_EQ(OutputTail("", 3), "");
}

}  // namespace
}  // namespace litefleet::hooks
