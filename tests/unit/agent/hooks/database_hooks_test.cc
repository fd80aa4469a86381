#include "agent/hooks/database_hooks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "common/base/status.h"

namespace litefleet::hooks {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class DatabaseHooksTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "dbhooks-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = std::filesystem::canonical(pattern);
    programs_.directory = folder_ + "/hooks";
    std::filesystem::create_directory(programs_.directory);
    chmod(programs_.directory.c_str(), 0700);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Script(const std::string& name, const std::string& body) {
    const std::string path = name.front() == '/' ? name : programs_.directory + "/" + name;
    std::ofstream(path) << "#!/bin/sh\n" << body;
    chmod(path.c_str(), 0700);
    return path;
  }
  DatabaseHooks Make(const std::string& kind) {
    return DatabaseHooks(runner_, programs_, {"01JDAAAAAAAAAAAAAAAAAAAAAA", "app", "/srv/my app.db", kind});
  }
  std::string Told() const {
    std::ifstream file(folder_ + "/told");
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }

  std::string folder_;
  ProcessHookRunner runner_;
  HookPrograms programs_;
  CancelToken cancel_;
};

TEST_F(DatabaseHooksTest, AreToldWhatIsGoingOn) {
  const std::string tell =
      "echo $LITEFLEET_HOOK,$LITEFLEET_OPERATION,$LITEFLEET_DATABASE,$LITEFLEET_PATH,$LITEFLEET_KIND,$LITEFLEET_STATE,"
      "$LITEFLEET_SNAPSHOT >> " +
      folder_ + "/told\n";
  programs_.before_backup = Script("bb", tell);
  programs_.after_backup = Script("ab", tell);
  programs_.before_restore = Script("br", tell);
  programs_.after_restore = Script("ar", tell);
  DatabaseHooks backup = Make("backup");
  EXPECT_TRUE(backup.Before(cancel_).ok());
  EXPECT_TRUE(backup.After("succeeded", "S1", cancel_).ok());
  DatabaseHooks undo = Make("undo");
  EXPECT_TRUE(undo.Before(cancel_).ok());
  EXPECT_TRUE(undo.After("failed", "", cancel_).ok());
  const std::string about = "01JDAAAAAAAAAAAAAAAAAAAAAA,app,/srv/my app.db,";
  EXPECT_EQ(Told(), "before-backup," + about + "backup,,\nafter-backup," + about + "backup,succeeded,S1\nbefore-restore," + about +
                        "undo,,\nafter-restore," + about + "undo,failed,\n");
  EXPECT_EQ(backup.runs().size(), 2u);
  EXPECT_THAT(undo.Describe(), ElementsAre("before-restore: " + programs_.before_restore, "after-restore: " + programs_.after_restore));
}

TEST_F(DatabaseHooksTest, WithoutAnyNothingRuns) {
  DatabaseHooks hooks = Make("backup");
  EXPECT_TRUE(hooks.none());
  EXPECT_TRUE(hooks.Before(cancel_).ok());
  EXPECT_TRUE(hooks.After("succeeded", "", cancel_).ok());
  EXPECT_TRUE(hooks.runs().empty());
}

TEST_F(DatabaseHooksTest, AFailureSaysHowAndWhatItWrote) {
  programs_.before_backup = Script("bb", "echo no such service >&2\nexit 3\n");
  DatabaseHooks hooks = Make("backup");
  const absl::Status failed = hooks.Before(cancel_);
  EXPECT_EQ(ReasonOf(failed), "HOOK_FAILED");
  EXPECT_THAT(MessageOf(failed), HasSubstr("exit code 3: no such service"));
  ASSERT_EQ(hooks.runs().size(), 1u);
  EXPECT_EQ(hooks.runs()[0].exit_code(), 3);
}

TEST_F(DatabaseHooksTest, TimeIsLimitedAndACancelEndsIt) {
  programs_.timeout = std::chrono::milliseconds(200);
  programs_.before_backup = Script("bb", "sleep 60\n");
  DatabaseHooks late = Make("backup");
  EXPECT_THAT(MessageOf(late.Before(cancel_)), HasSubstr("did not end within"));
  EXPECT_TRUE(late.runs()[0].timed_out());
  programs_.timeout = std::chrono::minutes(5);
  cancel_.Cancel();
  EXPECT_TRUE(absl::IsCancelled(Make("backup").Before(cancel_)));
}

TEST_F(DatabaseHooksTest, ACancelDoesNotKeepTheApplicationStopped) {
  programs_.after_restore = Script("ar", "touch " + folder_ + "/started\n");
  cancel_.Cancel();
  EXPECT_TRUE(Make("restore").After("cancelled", "", cancel_).ok());
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/started"));
  programs_.after_restore = Script("ar", "sleep 60\n");
  CancelToken ending;
  ending.Interrupt();
  EXPECT_TRUE(absl::IsCancelled(Make("restore").After("succeeded", "", ending)))
      << "the end of the program does: it runs again at the start";
}

TEST_F(DatabaseHooksTest, NothingOutsideTheDirectoryRuns) {
  const std::string outside = Script(folder_ + "/outside", "touch " + folder_ + "/ran\n");
  const auto reason = [&](const std::string& program) {
    programs_.before_backup = program;
    DatabaseHooks hooks = Make("backup");
    const absl::Status status = hooks.Before(cancel_);
    EXPECT_EQ(ReasonOf(status), "HOOK_FAILED");
    EXPECT_EQ(hooks.runs().size(), 1u);
    EXPECT_EQ(hooks.runs()[0].exit_code(), -1);
    return MessageOf(status);
  };
  EXPECT_THAT(reason(outside), HasSubstr("not below"));
  EXPECT_THAT(reason(programs_.directory + "/../outside"), HasSubstr("not below"));
  std::filesystem::create_symlink(outside, programs_.directory + "/link");
  EXPECT_THAT(reason(programs_.directory + "/link"), HasSubstr("not below"));
  std::filesystem::create_directory(folder_ + "/hooks-evil");
  EXPECT_THAT(reason(Script(folder_ + "/hooks-evil/x", "true\n")), HasSubstr("not below")) << "a name that begins alike";
  EXPECT_THAT(reason(programs_.directory + "/absent"), HasSubstr("there is no"));
  const std::string loose = Script("loose", "true\n");
  chmod(loose.c_str(), 0777);
  EXPECT_THAT(reason(loose), HasSubstr("can be written by others"));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/ran"));
}

}  // namespace
}  // namespace litefleet::hooks
