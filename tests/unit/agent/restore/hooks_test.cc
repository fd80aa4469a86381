// The device's own commands around the change of a database, and the undo where the one afterwards fails.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "agent/hooks/hook_runner.h"
#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Writes what it was asked into a file, since a crash takes the memory.
class ScriptedRunner final : public hooks::HookRunner {
 public:
  hooks::HookResult Run(const hooks::Hook& hook, const CancelToken&) override {
    std::string state;
    for (const auto& [name, value] : hook.environment) {
      if (name == "LITEFLEET_STATE") state = " " + value;
      if (name == "LITEFLEET_KIND") kind = value;
    }
    std::ofstream(log, std::ios::app) << kind << " " << hook.name << state << "\n";
    hooks::HookResult result;
    result.run.set_hook(hook.name);
    if (during) during(hook.name);
    result.run.set_exit_code(fails == kind + " " + hook.name ? 1 : 0);
    return result;
  }
  std::string log;
  std::string kind;
  std::string fails;  // "restore after-restore"
  std::function<void(const std::string&)> during;
};

class HooksTest : public RestoreFixture {
 protected:
  void SetUp() override {
    RestoreFixture::SetUp();
    runner_.log = folder_ + "/hooks.log";
    ASSERT_TRUE(io::MakeDirectory(folder_ + "/hooks", 0700).ok());
    for (const char* name : {"/before", "/after"}) ASSERT_TRUE(io::WriteFileAtomic(folder_ + "/hooks" + name, "#!/bin/true", 0700).ok());
  }
  std::unique_ptr<LocalRestorer> OpenWithHooks() {
    auto restorer = Open();
    restorer->SetHooks([this](const hooks::HookFacts& facts) {
      hooks::HookPrograms programs;
      programs.directory = folder_ + "/hooks";
      programs.before_restore = folder_ + "/hooks/before";
      programs.after_restore = folder_ + "/hooks/after";
      return std::make_unique<hooks::DatabaseHooks>(runner_, programs, facts);
    });
    return restorer;
  }
  Outcome Restore() {
    return OpenWithHooks()->Run(kOperation, order_, target_, cancel_, [](const v1::Progress&) {});
  }
  bool RestoreAndCrashAt(const std::string& point) {
    const pid_t pid = fork();
    if (pid == 0) {
      setenv("LITEFLEET_CRASH_AT", point.c_str(), 1);
      Restore();
      _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  }
  std::vector<std::string> Ran() const {
    std::vector<std::string> lines;
    std::ifstream file(runner_.log);
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    return lines;
  }

  ScriptedRunner runner_;
};

TEST_F(HooksTest, RunAroundTheChangeAndAreRecorded) {
  Make(path_, "old", "wal", 300);
  MakeSnapshot("wal", 300);
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  std::unique_ptr<Application> application = std::make_unique<Application>(path_, Application::kIdle);
  runner_.during = [&](const std::string& hook) {
    EXPECT_EQ(Label(path_), hook == "before-restore" ? "old" : "new");
    if (hook == "before-restore") application.reset();  // it stops the service
  };
  const Outcome outcome = Restore();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_THAT(Ran(), ElementsAre("restore before-restore", "restore after-restore succeeded"));
  ASSERT_EQ(outcome.hooks.size(), 2u);
  EXPECT_EQ(outcome.hooks[0].hook(), "before-restore");
  EXPECT_EQ(Label(path_), "new");
}

TEST_F(HooksTest, AFailureBeforeChangesNothingAndStartsTheApplicationAgain) {
  Make(path_, "old", "wal", 300);
  MakeSnapshot("wal", 300);
  runner_.fails = "restore before-restore";
  const Outcome outcome = Restore();
  EXPECT_EQ(ReasonOf(outcome.status), "HOOK_FAILED");
  EXPECT_FALSE(outcome.applied);
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(LeftOver(), "");
  EXPECT_THAT(Ran(), ElementsAre("restore before-restore", "restore after-restore failed"));
}

TEST_F(HooksTest, ARefusedRestoreStartsTheApplicationAgain) {
  Make(path_, "old", "wal", 300);
  MakeSnapshot("wal", 300);
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  Application application(path_, Application::kIdle);  // the hook did not stop it
  const Outcome outcome = Restore();
  EXPECT_EQ(ReasonOf(outcome.status), "IN_USE");
  EXPECT_THAT(Ran(), ElementsAre("restore before-restore", "restore after-restore failed"));
}

TEST_F(HooksTest, WhatEndsBeforeTheChangeStopsNothing) {
  Make(path_, "old", "wal", 300);
  MakeSnapshot("wal", 300);
  fetcher_.spoil = true;
  EXPECT_FALSE(Restore().status.ok());
  EXPECT_THAT(Ran(), ElementsAre());
}

class HooksModeTest : public HooksTest, public ::testing::WithParamInterface<v1::RestoreMode> {};

TEST_P(HooksModeTest, AFailureAfterwardsIsUndone) {
  if (GetParam() != v1::RESTORE_MODE_NEW) Make(path_, "old", "wal", 300);
  MakeSnapshot("wal", 300);
  order_.set_mode(GetParam());
  runner_.fails = "restore after-restore";
  const Outcome outcome = Restore();
  EXPECT_EQ(ReasonOf(outcome.status), "HOOK_FAILED");
  EXPECT_THAT(MessageOf(outcome.status), HasSubstr("its previous state was put back"));
  EXPECT_FALSE(outcome.applied) << "the database is on its old timeline";
  if (GetParam() == v1::RESTORE_MODE_NEW) {
    EXPECT_FALSE(io::Exists(path_));
  } else {
    EXPECT_EQ(Label(path_), "old");
  }
  EXPECT_EQ(Label(path_ + ".litefleet-undo"), "new");
  EXPECT_THAT(Ran(), ElementsAre("restore before-restore", "restore after-restore succeeded", "undo before-restore",
                                 "undo after-restore succeeded"));
  EXPECT_EQ(outcome.hooks.size(), 4u);
  EXPECT_EQ(LeftOver(), "");
  ASSERT_TRUE(OpenWithHooks()->Forget(kOperation).ok());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_ + "/state"), {}), 1) << "the record of the undo alone";
}
INSTANTIATE_TEST_SUITE_P(Modes, HooksModeTest, ::testing::Values(v1::RESTORE_MODE_NEW, v1::RESTORE_MODE_LIVE, v1::RESTORE_MODE_REPLACE));

TEST_F(HooksTest, WhatSomebodyHasCommittedSinceIsNotUndone) {
  Make(path_, "old", "wal", 300);
  MakeSnapshot("wal", 300);
  runner_.fails = "restore after-restore";
  runner_.during = [&](const std::string& hook) {
    if (hook != "after-restore") return;
    auto db = sqlite::Open(path_, SQLITE_OPEN_READWRITE);
    ASSERT_TRUE(sqlite::Execute(db->get(), "insert into log values(1)").ok());
  };
  const Outcome outcome = Restore();
  EXPECT_EQ(ReasonOf(outcome.status), "HOOK_FAILED");
  EXPECT_THAT(MessageOf(outcome.status), HasSubstr("somebody has written to it since"));
  EXPECT_TRUE(outcome.applied);
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(LogRows(path_), 1);
  EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
}

// Until its hook is run the application may do what it likes: it need not have been stopped.
TEST_P(HooksModeTest, WhatIsCommittedBeforeTheHookRunsIsNotUndone) {
  if (GetParam() != v1::RESTORE_MODE_NEW) Make(path_, "old", "wal", 300);
  MakeSnapshot("wal", 300);
  order_.set_mode(GetParam());
  runner_.fails = "restore after-restore";
  const auto write = [&] {
    auto db = sqlite::Open(path_, SQLITE_OPEN_READWRITE);
    ASSERT_TRUE(sqlite::Execute(db->get(), "insert into log values(1)").ok());
  };
  const bool live = GetParam() == v1::RESTORE_MODE_LIVE;
  if (live) {
    at_point_ = [&](std::string_view point) {
      if (point == "committed") write();
    };
  } else {
    // While the agent is down.
    ASSERT_TRUE(RestoreAndCrashAt("restore.undo_installed"));
    write();
  }
  const Outcome outcome = Restore();
  EXPECT_EQ(ReasonOf(outcome.status), "HOOK_FAILED");
  EXPECT_THAT(MessageOf(outcome.status), HasSubstr("somebody has written to it since"));
  EXPECT_TRUE(outcome.applied);
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(LogRows(path_), 1);
  EXPECT_EQ(LeftOver(), "");
}

TEST_F(HooksTest, ALiveRestoreIsNotUndoneForAHookWhereSomebodyHasCommittedWhileTheAgentWasDown) {
  for (const char* point : {"restore.live.applied", "restore.checkpointed"}) {
    for (const bool writes : {true, false}) {
      std::filesystem::remove_all(folder_ + "/state");
      for (const auto& entry : std::filesystem::directory_iterator(data_)) std::filesystem::remove(entry.path());
      Make(path_, "old", "wal", 300);
      MakeSnapshot("delete", 300);
      runner_.fails = "restore after-restore";
      ASSERT_TRUE(RestoreAndCrashAt(point));
      {
        Application application(path_, writes ? Application::kWriting : Application::kIdle);
        ASSERT_EQ(application.Stop(), 0);
      }
      const Outcome outcome = Restore();
      EXPECT_EQ(ReasonOf(outcome.status), "HOOK_FAILED");
      EXPECT_EQ(outcome.applied, writes) << point << outcome.status;
      EXPECT_EQ(Label(path_), writes ? "new" : "old") << point << outcome.status;
      EXPECT_EQ(LeftOver(), "");
    }
  }
}

TEST_F(HooksTest, AnUndoIsTheLastWord) {
  Make(path_, "old", "wal", 300);
  MakeSnapshot("wal", 300);
  runner_.fails = "restore after-restore";
  ASSERT_FALSE(Restore().status.ok());
  runner_.fails = "undo after-restore";
  v1::UndoOrder undo;
  undo.set_database("app");
  const Outcome outcome = OpenWithHooks()->Undo("01JD0000000000000000000009", undo, target_, cancel_, [](const v1::Progress&) {});
  EXPECT_EQ(ReasonOf(outcome.status), "HOOK_FAILED");
  EXPECT_TRUE(outcome.applied);
  EXPECT_EQ(Label(path_), "new");
}

struct HookCrash {
  const char* point;
  bool fails;  // the one afterwards
  v1::RestoreMode mode = v1::RESTORE_MODE_REPLACE;
};
class HooksCrashTest : public HooksTest, public ::testing::WithParamInterface<HookCrash> {};

TEST_P(HooksCrashTest, TheApplicationIsStartedAndOneStateIsThere) {
  Make(path_, "old", "wal", 300);
  MakeSnapshot("wal", 300);
  order_.set_mode(GetParam().mode);
  if (GetParam().fails) runner_.fails = "restore after-restore";
  ASSERT_TRUE(RestoreAndCrashAt(GetParam().point));
  EXPECT_THAT(Label(path_), AnyOf("old", "new"));
  const Outcome outcome = Restore();
  EXPECT_EQ(ReasonOf(outcome.status), GetParam().fails ? "HOOK_FAILED" : "");
  EXPECT_EQ(Label(path_), GetParam().fails ? "old" : "new");
  EXPECT_EQ(outcome.applied, !GetParam().fails);
  EXPECT_THAT(Ran().back(), HasSubstr("after-restore succeeded"));
  EXPECT_EQ(LeftOver(), "");
}

TEST_P(HooksCrashTest, AlsoWhereNobodyAsksForItAnyMore) {
  Make(path_, "old", "wal", 300);
  MakeSnapshot("wal", 300);
  order_.set_mode(GetParam().mode);
  if (GetParam().fails) runner_.fails = "restore after-restore";
  ASSERT_TRUE(RestoreAndCrashAt(GetParam().point));
  const auto recovery = OpenWithHooks()->Recover({});
  for (const auto& ended : recovery.ended) EXPECT_EQ(ended.operation_id, kOperation) << "nothing is told of the undo by itself";
  EXPECT_THAT(Ran().back(), HasSubstr("after-restore"));
  EXPECT_THAT(Label(path_), AnyOf("old", "new"));
  EXPECT_EQ(LeftOver(), "");
}
INSTANTIATE_TEST_SUITE_P(Points, HooksCrashTest,
                         ::testing::Values(HookCrash{"restore.hook.begun", false}, HookCrash{"restore.hook.before_ran", false},
                                           HookCrash{"restore.replace.linked", false}, HookCrash{"restore.replace.after_rename", false},
                                           HookCrash{"restore.hook.after_ran", false}, HookCrash{"restore.hook.undoing", true},
                                           HookCrash{"restore.undo.taken", true}, HookCrash{"restore.hook.undone", true},
                                           HookCrash{"restore.before_done", true}));
INSTANTIATE_TEST_SUITE_P(LivePoints, HooksCrashTest,
                         ::testing::Values(HookCrash{"restore.hook.begun", false, v1::RESTORE_MODE_LIVE},
                                           HookCrash{"restore.hook.before_ran", false, v1::RESTORE_MODE_LIVE},
                                           HookCrash{"restore.live.undo_complete", false, v1::RESTORE_MODE_LIVE},
                                           HookCrash{"restore.live.after_commit", true, v1::RESTORE_MODE_LIVE},
                                           HookCrash{"restore.checkpointed", true, v1::RESTORE_MODE_LIVE},
                                           HookCrash{"restore.hook.after_ran", false, v1::RESTORE_MODE_LIVE},
                                           HookCrash{"restore.hook.undoing", true, v1::RESTORE_MODE_LIVE},
                                           HookCrash{"restore.undo.taken", true, v1::RESTORE_MODE_LIVE},
                                           HookCrash{"restore.hook.undone", true, v1::RESTORE_MODE_LIVE},
                                           HookCrash{"restore.before_done", true, v1::RESTORE_MODE_LIVE}));

}  // namespace
}  // namespace litefleet::restore
