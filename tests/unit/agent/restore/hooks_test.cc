// The device's own commands around the change of a database, and the undo where the one afterwards fails.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "agent/hooks/hook_runner.h"
#include "tests/unit/agent/restore/kill_points.h"
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
  hooks::HookResult Run(const hooks::Hook& hook, const CancelToken& cancel) override {
    std::string state;
    for (const auto& [name, value] : hook.environment) {
      if (name == "LITEFLEET_STATE") state = " " + value;
      if (name == "LITEFLEET_KIND") kind = value;
    }
    std::ofstream(log, std::ios::app) << kind << " " << hook.name << state << "\n";
    hooks::HookResult result;
    result.run.set_hook(hook.name);
    if (during) during(hook.name);
    if (waits == kind + " " + hook.name) {
      // As a program that goes on until it is stopped; it is by the end of this one.
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (!cancel.cancelled() && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      stopped = cancel.cancelled();
      if (stopped) result.status = Error(absl::StatusCode::kCancelled, "CANCELLED", "it was stopped");
    }
    result.run.set_exit_code(fails == kind + " " + hook.name ? 1 : 0);
    return result;
  }
  std::string log;
  std::string kind;
  std::string fails;  // "restore after-restore"
  std::string waits;  // the same, until it is told to stop
  bool stopped = false;
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

// A service as hooks stop and start it: an application that has the database open meanwhile.
class Service {
 public:
  Service(ScriptedRunner& runner, std::string path) : path_(std::move(path)) {
    runner.during = [this](const std::string& hook) {
      if (hook == "before-restore") {
        EXPECT_TRUE(!application_.has_value() || application_->Stop() == 0);
        application_.reset();
      } else if (std::filesystem::exists(path_)) {
        application_.emplace(path_, Application::kIdle);
      }
    };
    if (std::filesystem::exists(path_)) application_.emplace(path_, Application::kIdle);
  }
  bool runs() const { return application_.has_value(); }

 private:
  const std::string path_;
  std::optional<Application> application_;
};

TEST_F(HooksTest, RunAroundTheChangeAndAreRecorded) {
  for (const char* journal : {"wal", "delete"}) {
    SCOPED_TRACE(journal);
    StartAnew(journal, 300);
    std::filesystem::remove(runner_.log);
    MakeSnapshot("wal", 300);
    order_.set_mode(v1::RESTORE_MODE_REPLACE);
    Service service(runner_, path_);
    const auto stop_and_start = runner_.during;
    runner_.during = [&](const std::string& hook) {
      EXPECT_EQ(Label(path_), hook == "before-restore" ? "old" : "new");
      stop_and_start(hook);
    };
    const Outcome outcome = Restore();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_THAT(Ran(), ElementsAre("restore before-restore", "restore after-restore succeeded"));
    ASSERT_EQ(outcome.hooks.size(), 2u);
    EXPECT_EQ(outcome.hooks[0].hook(), "before-restore");
    EXPECT_EQ(Label(path_), "new");
    EXPECT_TRUE(service.runs());
  }
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

// A run before it was killed when it had moved the log of a file that cannot be opened aside.
TEST_F(HooksTest, AFailureBeforePutsBackWhatAnEarlierRunHadMovedAside) {
  ASSERT_TRUE(io::WriteFileAtomic(path_, std::string(8192, 'x')).ok());
  ASSERT_TRUE(io::WriteFileAtomic(path_ + "-wal", "its log").ok());
  MakeSnapshot("wal", 300);
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  ASSERT_TRUE(RestoreAndCrashAt("restore.companion_moved"));
  ASSERT_FALSE(io::Exists(path_ + "-wal"));
  runner_.fails = "restore before-restore";
  const Outcome outcome = Restore();
  EXPECT_EQ(ReasonOf(outcome.status), "HOOK_FAILED") << outcome.status;
  EXPECT_EQ(io::ReadFile(path_ + "-wal").value_or("gone"), "its log");
  EXPECT_EQ(LeftOver(), "");
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
  const bool is_new = GetParam() == v1::RESTORE_MODE_NEW;
  for (const char* journal : {"wal", "delete"}) {
    SCOPED_TRACE(journal);
    StartAnew(is_new ? "" : journal, 300);
    std::filesystem::remove(runner_.log);
    MakeSnapshot("wal", 300);
    order_.set_mode(GetParam());
    runner_.fails = "restore after-restore";
    const Service service(runner_, path_);
    const Outcome outcome = Restore();
    EXPECT_EQ(ReasonOf(outcome.status), "HOOK_FAILED");
    EXPECT_THAT(MessageOf(outcome.status), HasSubstr("its previous state was put back"));
    EXPECT_FALSE(outcome.applied) << "the database is on its old timeline";
    EXPECT_EQ(service.runs(), !is_new) << "started again, on what is there";
    if (is_new) {
      EXPECT_FALSE(io::Exists(path_));
    } else {
      EXPECT_EQ(Label(path_), "old");
      EXPECT_EQ(JournalMode(path_), journal);
    }
    EXPECT_EQ(Label(path_ + ".litefleet-undo"), "new");
    EXPECT_THAT(Ran(), ElementsAre("restore before-restore", "restore after-restore succeeded", "undo before-restore",
                                   "undo after-restore succeeded"));
    EXPECT_EQ(outcome.hooks.size(), 4u);
    EXPECT_EQ(LeftOver(), "");
    ASSERT_TRUE(OpenWithHooks()->Forget(kOperation).ok());
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_ + "/state"), {}), 1) << "the record of the undo alone";
  }
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

// A cancel that comes while the hook afterwards runs wants what its failure brings about. The end of the program behind it is heard all the
// same, and the next start goes on.
TEST_F(HooksTest, TheEndOfTheProgramIsHeardBehindACancel) {
  for (const char* waits : {"restore after-restore", "undo before-restore", "undo after-restore"}) {
    SCOPED_TRACE(waits);
    StartAnew("wal", 300);
    MakeSnapshot("wal", 300);
    std::filesystem::remove(runner_.log);
    order_.set_mode(v1::RESTORE_MODE_REPLACE);
    CancelToken stop;
    runner_.fails = "restore after-restore";
    runner_.waits = waits;
    runner_.during = [&](const std::string& hook) {
      if (hook == "after-restore") stop.Cancel();
      if (runner_.kind + " " + hook == waits) stop.Interrupt();
    };
    const Outcome ended = OpenWithHooks()->Run(kOperation, order_, target_, stop, [](const v1::Progress&) {});
    EXPECT_TRUE(absl::IsCancelled(ended.status)) << ended.status;
    EXPECT_TRUE(std::exchange(runner_.stopped, false));
    EXPECT_EQ(Ran().back().substr(0, std::string(waits).size()), waits);
    runner_.waits.clear();
    runner_.during = nullptr;
    const Outcome outcome = Restore();
    EXPECT_EQ(ReasonOf(outcome.status), "HOOK_FAILED") << outcome.status;
    EXPECT_THAT(MessageOf(outcome.status), HasSubstr("its previous state was put back"));
    EXPECT_FALSE(outcome.applied);
    EXPECT_EQ(Label(path_), "old");
    EXPECT_EQ(LeftOver(), "");
  }
}

// A cancel alone that comes in the middle of the undo does not keep it from its end.
TEST_F(HooksTest, ACancelDoesNotEndTheUndo) {
  Make(path_, "old", "wal", 300);
  MakeSnapshot("wal", 300);
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  CancelToken stop;
  runner_.fails = "restore after-restore";
  runner_.during = [&](const std::string& hook) {
    if (runner_.kind == "undo" && hook == "before-restore") stop.Cancel();
  };
  const Outcome outcome = OpenWithHooks()->Run(kOperation, order_, target_, stop, [](const v1::Progress&) {});
  EXPECT_EQ(ReasonOf(outcome.status), "HOOK_FAILED") << outcome.status;
  EXPECT_FALSE(outcome.applied);
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(LeftOver(), "");
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

// Between the record of what is kept and the state that says so lies a crash, and then nobody comes to the directory any more.
TEST_F(HooksTest, WhatWasKeptIsToldBehindALinkThatIsNotFollowed) {
  Make(path_, "old", "wal", 300);
  MakeSnapshot("wal", 300);
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  ASSERT_TRUE(RestoreAndCrashAt("restore.undo_installed"));
  std::filesystem::rename(data_, folder_ + "/moved");
  std::filesystem::create_symlink(folder_ + "/moved", data_);
  const Outcome outcome = Restore();
  EXPECT_EQ(ReasonOf(outcome.status), "FILE_REPLACED") << outcome.status;
  EXPECT_EQ(outcome.undo, path_ + ".litefleet-undo");
  EXPECT_EQ(Open()->ListUndos()->size(), 1u);
}

struct HooksCell {
  v1::RestoreMode mode;
  const char* journal;  // of the target; empty: nothing is there
  const char* snapshot;
  bool fails;  // the one afterwards
};

std::string HooksCellName(const ::testing::TestParamInfo<HooksCell>& info) {
  const v1::RestoreMode mode = info.param.mode;
  return fmt::format("{}_{}{}from_{}{}",
                     mode == v1::RESTORE_MODE_NEW    ? "new"
                     : mode == v1::RESTORE_MODE_LIVE ? "live"
                                                     : "replace",
                     info.param.journal, *info.param.journal == 0 ? "" : "_", info.param.snapshot, info.param.fails ? "_fails" : "");
}

// At each point of a whole restore with hooks, and of the undo by itself where the one afterwards fails.
class HooksCrashTest : public HooksTest, public ::testing::WithParamInterface<HooksCell> {
 protected:
  void SetUp() override {
    HooksTest::SetUp();
    MakeSnapshot(GetParam().snapshot, 300);
    order_.set_mode(GetParam().mode);
    if (GetParam().fails) runner_.fails = "restore after-restore";
    Again();
    points_ = KillPointsOf(folder_ + "/points", [this] { return ReasonOf(Restore().status) == (GetParam().fails ? "HOOK_FAILED" : ""); });
    for (const KillPoint& point : points_) {
      if (point.at == "restore.hook.begun") begun_ = point.position;
    }
  }
  void Again() {
    StartAnew(GetParam().journal, 300);
    std::filesystem::remove(runner_.log);
  }
  std::string Parent() const override { return InMemory(); }
  std::string Found() const { return io::Exists(path_) ? Label(path_) : "none"; }
  std::string Before() const { return GetParam().mode == v1::RESTORE_MODE_NEW ? "none" : "old"; }

  std::vector<KillPoint> points_;
  size_t begun_ = SIZE_MAX;
};

TEST_P(HooksCrashTest, AWholeRestorePassesTheseAtLeast) {
  const std::vector<std::string> passed = NamesOf(points_);
  EXPECT_THAT(passed, ::testing::IsSupersetOf(std::vector<std::string>{"restore.hook.begun", "restore.hook.before_ran",
                                                                       "restore.hook.after_ran", "restore.before_done"}));
  if (GetParam().fails) {
    EXPECT_THAT(passed, ::testing::IsSupersetOf(std::vector<std::string>{"restore.hook.undoing", "restore.hook.undone"}));
    EXPECT_EQ(std::count(passed.begin(), passed.end(), "restore.undo.taken"), GetParam().mode == v1::RESTORE_MODE_NEW ? 0 : 1);
  }
}

TEST_P(HooksCrashTest, TheApplicationIsStartedAndOneStateIsThere) {
  for (const KillPoint& point : points_) {
    SCOPED_TRACE(point.at);
    Again();
    ASSERT_TRUE(RestoreAndCrashAt(point.at));
    EXPECT_THAT(Found(), AnyOf(Before(), "new"));
    const Outcome outcome = Restore();
    EXPECT_EQ(ReasonOf(outcome.status), GetParam().fails ? "HOOK_FAILED" : "") << outcome.status;
    EXPECT_EQ(Found(), GetParam().fails ? Before() : "new");
    EXPECT_EQ(outcome.applied, !GetParam().fails);
    const std::vector<std::string> ran = Ran();
    ASSERT_FALSE(ran.empty());
    EXPECT_THAT(ran.back(), HasSubstr("after-restore succeeded"));
    EXPECT_EQ(LeftOver(), "");
  }
}

TEST_P(HooksCrashTest, AlsoWhereNobodyAsksForItAnyMore) {
  for (const KillPoint& point : points_) {
    SCOPED_TRACE(point.at);
    Again();
    ASSERT_TRUE(RestoreAndCrashAt(point.at));
    const auto recovery = OpenWithHooks()->Recover({});
    for (const auto& ended : recovery.ended) EXPECT_EQ(ended.operation_id, kOperation) << "nothing is told of the undo by itself";
    const std::vector<std::string> ran = Ran();
    EXPECT_EQ(ran.empty(), point.position < begun_) << "what was stopped is started again, and nothing else";
    if (!ran.empty()) {
      EXPECT_THAT(ran.back(), HasSubstr("after-restore"));
    }
    EXPECT_THAT(Found(), AnyOf(Before(), "new"));
    EXPECT_EQ(LeftOver(), "");
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cells, HooksCrashTest,
    ::testing::Values(HooksCell{v1::RESTORE_MODE_NEW, "", "wal", false}, HooksCell{v1::RESTORE_MODE_NEW, "", "delete", true},
                      HooksCell{v1::RESTORE_MODE_NEW, "", "wal", true}, HooksCell{v1::RESTORE_MODE_LIVE, "wal", "delete", false},
                      HooksCell{v1::RESTORE_MODE_LIVE, "wal", "wal", true}, HooksCell{v1::RESTORE_MODE_LIVE, "delete", "wal", false},
                      HooksCell{v1::RESTORE_MODE_LIVE, "delete", "delete", true},
                      HooksCell{v1::RESTORE_MODE_REPLACE, "wal", "delete", false}, HooksCell{v1::RESTORE_MODE_REPLACE, "wal", "wal", true},
                      HooksCell{v1::RESTORE_MODE_REPLACE, "delete", "wal", false},
                      HooksCell{v1::RESTORE_MODE_REPLACE, "delete", "delete", true}),
    HooksCellName);

}  // namespace
}  // namespace litefleet::restore
