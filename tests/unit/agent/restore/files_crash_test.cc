// Plain files: what a crash at each point leaves, and a cancel.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <memory>
#include <thread>

#include "agent/hooks/database_hooks.h"
#include "tests/unit/agent/restore/files_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

TEST_F(FilesRestoreTest, ACrashAtAnyPointLeavesEachFileOldOrNew) {
  const struct {
    const char* point;
    bool fetched;
  } cases[] = {{"files.prepared", false},  {"files.fetching", false}, {"files.fetched", true},  {"files.staged", true},
               {"files.probed", true},     {"files.unpacked", true},  {"files.applying", true}, {"files.renamed", true},
               {"files.renamed:3", true},  {"files.renamed:5", true}, {"files.applied", true},  {"files.after", true},
               {"files.before_done", true}};
  for (const auto& each : cases) {
    SCOPED_TRACE(each.point);
    Begin();
    MakeFilesSnapshot(Archive(Whole()));
    ASSERT_TRUE(RunAndCrashAt(each.point));
    EXPECT_THAT(Read("a.conf"), testing::AnyOf("old", "new"));
    EXPECT_THAT(Read("sub/large").size(), testing::AnyOf(2U << 20, std::string("nothing").size()));
    fetcher_.extents = 0;
    const Outcome outcome = Run();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(fetcher_.extents == 0, each.fetched);
    EXPECT_EQ(Read("a.conf"), "new");
    EXPECT_EQ(Read("sub/-rf"), "option");
    EXPECT_EQ(Read("sub/large"), std::string(2 << 20, 'l'));
    EXPECT_EQ(Read("other"), "stays");
    EXPECT_EQ(LeftOver(), "");
    ASSERT_TRUE(Open()->Forget(kOperation).ok());
    EXPECT_TRUE(fs::is_empty(folder_ + "/state"));
  }
}

// All files are in their places, and the application works with them: what is left to do has nothing to do with them.
TEST_F(FilesRestoreTest, WhatWasWrittenSinceStays) {
  for (const char* point : {"files.applied", "files.after", "files.before_done"}) {
    for (const bool asked : {true, false}) {
      SCOPED_TRACE(std::string(point) + (asked ? "" : ", and nobody asks for it"));
      Begin();
      MakeFilesSnapshot(Archive(Whole()));
      ASSERT_TRUE(RunAndCrashAt(point));
      Write("a.conf", "written since");
      fetcher_.extents = 0;
      Outcome outcome;
      if (asked) {
        outcome = Run();
      } else {
        const auto recovery = Open()->Recover({});
        ASSERT_EQ(recovery.ended.size(), 1U);
        outcome = recovery.ended[0].outcome;
      }
      EXPECT_TRUE(outcome.status.ok()) << outcome.status;
      EXPECT_TRUE(outcome.applied);
      EXPECT_THAT(outcome.steps, Contains(HasSubstr("put 3 files")));
      EXPECT_EQ(Read("a.conf"), "written since");
      EXPECT_EQ(fetcher_.extents, 0);
      EXPECT_EQ(LeftOver(), "");
    }
  }
}

TEST_F(FilesRestoreTest, WhatWasProvenAndIsLostIsFetchedAgain) {
  Begin();
  MakeFilesSnapshot(Archive(Whole()));
  ASSERT_TRUE(RunAndCrashAt("files.renamed:2"));
  std::ofstream(data_ + "/.litefleet-" + kOperation + ".staging", std::ios::binary) << "damaged";
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_THAT(outcome.steps, Contains(HasSubstr("fetched again")));
  EXPECT_EQ(Read("sub/large"), std::string(2 << 20, 'l'));
}

// Who has another name of it, or made it, could change it once it is proven.
TEST_F(FilesRestoreTest, AnArchiveOfSomebodyElseIsFetchedAgain) {
  Begin();
  MakeFilesSnapshot(Archive(Whole()));
  ASSERT_TRUE(RunAndCrashAt("files.fetched"));
  fs::create_hard_link(data_ + "/.litefleet-" + kOperation + ".staging", folder_ + "/held");
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_THAT(outcome.steps, Contains(HasSubstr("fetched again")));
}

TEST_F(FilesRestoreTest, OneThatNobodyAsksForAnyMoreIsCleanedUp) {
  for (const char* point : {"files.fetched", "files.unpacked", "files.renamed"}) {
    SCOPED_TRACE(point);
    Begin();
    MakeFilesSnapshot(Archive(Whole()));
    ASSERT_TRUE(RunAndCrashAt(point));
    const auto recovery = Open()->Recover({});
    EXPECT_EQ(LeftOver(), "");
    if (std::string_view(point) != "files.renamed") {
      EXPECT_EQ(recovery.ended.size(), 0U);
      ExpectUntouched();
      continue;
    }
    ASSERT_EQ(recovery.ended.size(), 1U);
    EXPECT_EQ(ReasonOf(recovery.ended[0].outcome.status), "RESTORE_ABANDONED");
    EXPECT_EQ(Read("a.conf"), "new");
  }
}

// Some files are new: no cancel and no refusal makes that undone, and none may look so.
TEST_F(FilesRestoreTest, WhatEndsInTheMiddleOfTheRenamesTellsSo) {
  const struct {
    const char* what;
    std::function<void(CancelToken&)> happens;
  } cases[] = {
      {"a cancel", [](CancelToken& cancel) { cancel.Cancel(); }},
      {"a cancel after a second crash, of what was fetched again",
       [&](CancelToken& cancel) {
         std::ofstream(data_ + "/.litefleet-" + kOperation + ".staging", std::ios::binary) << "damaged";
         ASSERT_TRUE(RunAndCrashAt("files.fetched"));
         cancel.Cancel();
       }},
      {"a refusal", [&](CancelToken&) { target_.push_restore = "never"; }},
      {"another root", [&](CancelToken&) { target_.path = folder_ + "/elsewhere"; }},
  };
  for (const auto& each : cases) {
    SCOPED_TRACE(each.what);
    Begin();
    MakeFilesSnapshot(Archive(Whole()));
    ASSERT_TRUE(RunAndCrashAt("files.renamed:2"));
    CancelToken cancel;
    each.happens(cancel);
    const Outcome outcome = Open()->Run(kOperation, order_, target_, cancel, [](const v1::Progress&) {});
    EXPECT_EQ(ReasonOf(outcome.status), "RESTORE_ABANDONED") << outcome.status;
    EXPECT_THAT(MessageOf(outcome.status), HasSubstr("some of the files are those of the snapshot: "));
    EXPECT_NE(HintOf(outcome.status), "");
    EXPECT_EQ(Read("a.conf"), "new");
    EXPECT_EQ(LeftOver(), "");
    target_.push_restore.clear();
    target_.path = data_;
  }
}

TEST_F(FilesRestoreTest, ACancelOfWhatWasNotBegunLeavesNoJournal) {
  for (const char* point : {"files.prepared", "files.fetched", "files.unpacked"}) {
    SCOPED_TRACE(point);
    Begin();
    MakeFilesSnapshot(Archive(Whole()));
    ASSERT_TRUE(RunAndCrashAt(point));
    const auto restorer = Open();
    for (int i = 0; i < 2; ++i) EXPECT_FALSE(restorer->Settle(kOperation).has_value());
    ExpectUntouched();
    ASSERT_TRUE(restorer->Forget(kOperation).ok());
    EXPECT_TRUE(fs::is_empty(folder_ + "/state"));
  }
}

TEST_F(FilesRestoreTest, ACancelOfWhatWasBegunHasItsOutcome) {
  Begin();
  MakeFilesSnapshot(Archive(Whole()));
  ASSERT_TRUE(RunAndCrashAt("files.renamed"));
  const auto restorer = Open();
  for (int i = 0; i < 2; ++i) {
    const std::optional<Outcome> outcome = restorer->Settle(kOperation);
    ASSERT_TRUE(outcome.has_value());
    EXPECT_EQ(ReasonOf(outcome->status), "RESTORE_ABANDONED");
  }
  EXPECT_EQ(LeftOver(), "");
  ASSERT_TRUE(restorer->Forget(kOperation).ok());
  EXPECT_FALSE(restorer->Settle(kOperation).has_value());
}

TEST_F(FilesRestoreTest, WhatCannotBeReachedIsLeftForTheNextStart) {
  for (const char* point : {"files.fetched", "files.renamed"}) {
    SCOPED_TRACE(point);
    Begin();
    MakeFilesSnapshot(Archive(Whole()));
    ASSERT_TRUE(RunAndCrashAt(point));
    fs::rename(data_, folder_ + "/unmounted");
    auto recovery = Open()->Recover({});
    EXPECT_EQ(recovery.ended.size(), 0U);
    EXPECT_THAT(recovery.said, Contains(HasSubstr("next start")));
    ASSERT_TRUE(Open()->Forget(kOperation).ok());
    fs::rename(folder_ + "/unmounted", data_);
    EXPECT_NE(LeftOver(), "");
    recovery = Open()->Recover({});
    EXPECT_EQ(recovery.ended.size(), std::string_view(point) == "files.renamed" ? 1U : 0U);
    EXPECT_EQ(LeftOver(), "");
  }
}

// As the above, where the order is repeated while the root is away.
TEST_F(FilesRestoreTest, WhatARunCannotReachIsLeftForTheNextStart) {
  for (const char* point : {"files.fetching", "files.fetched", "files.renamed", "files.applied"}) {
    SCOPED_TRACE(point);
    const bool applied = std::string_view(point) == "files.applied";
    Begin();
    MakeFilesSnapshot(Archive(Whole()));
    ASSERT_TRUE(RunAndCrashAt(point));
    fs::rename(data_, folder_ + "/unmounted");
    const Outcome outcome = Run();
    EXPECT_EQ(outcome.status.ok(), applied) << outcome.status;
    EXPECT_EQ(outcome.applied, applied);
    ASSERT_TRUE(Open()->Forget(kOperation).ok());
    fs::rename(folder_ + "/unmounted", data_);
    EXPECT_NE(LeftOver(), "");
    static_cast<void>(Open()->Recover({}));
    EXPECT_EQ(LeftOver(), "");
  }
}

// The agent starts before the file system of the root is mounted: the empty directory that it sees is another root.
TEST_F(FilesRestoreTest, AnotherRootIsLeftAsItIs) {
  for (const char* point : {"files.fetched", "files.unpacked", "files.renamed:2"}) {
    for (const bool asked : {true, false}) {
      SCOPED_TRACE(std::string(point) + (asked ? "" : ", and nobody asks for it"));
      Begin();
      MakeFilesSnapshot(Archive(Whole()));
      ASSERT_TRUE(RunAndCrashAt(point));
      fs::rename(data_, folder_ + "/unmounted");
      fs::create_directory(data_);
      fetcher_.extents = 0;
      if (asked) {
        const Outcome outcome = Run();
        EXPECT_EQ(ReasonOf(outcome.status), "RESTORE_ABANDONED") << outcome.status;
        EXPECT_THAT(MessageOf(outcome.status), HasSubstr("is it mounted?"));
        EXPECT_FALSE(outcome.applied);
        ASSERT_TRUE(Open()->Forget(kOperation).ok());
      } else {
        const auto recovery = Open()->Recover({});
        EXPECT_EQ(recovery.ended.size(), 0U);
        EXPECT_THAT(recovery.said, Contains(HasSubstr("next start")));
      }
      EXPECT_EQ(fetcher_.extents, 0);
      EXPECT_TRUE(fs::is_empty(data_));
      fs::remove(data_);
      fs::rename(folder_ + "/unmounted", data_);
      EXPECT_NE(LeftOver(), "");
      static_cast<void>(Open()->Recover({}));
      EXPECT_EQ(LeftOver(), "");
      EXPECT_TRUE(fs::is_empty(folder_ + "/state") || std::string_view(point) == "files.renamed:2");
    }
  }
}

// The state directory takes nothing any more while the files are put in their places.
TEST_F(FilesRestoreTest, WhatCannotBeWrittenDownIsDoneAndTold) {
  Begin();
  MakeFilesSnapshot(Archive(Whole()));
  int said = 0;
  const Outcome outcome = Open()->Run(kOperation, order_, target_, cancel_, [&](const v1::Progress& progress) {
    if (progress.phase() != "replacing") return;
    if (++said == 1) std::this_thread::sleep_for(std::chrono::milliseconds(300));  // until the next is said
    if (said == 2) fs::rename(folder_ + "/state", folder_ + "/gone");
  });
  ASSERT_GE(said, 2);
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(outcome.applied);
  EXPECT_THAT(outcome.steps, Contains(HasSubstr("/state/")));
  EXPECT_EQ(LeftOver(), "");
  // The order is found again later: what the application has written since is not replaced.
  fs::remove_all(folder_ + "/state");
  fs::rename(folder_ + "/gone", folder_ + "/state");
  Write("a.conf", "written since");
  fetcher_.extents = 0;
  EXPECT_EQ(ReasonOf(Run().status), "RESTORE_ABANDONED");
  EXPECT_EQ(fetcher_.extents, 0);
  EXPECT_EQ(Read("a.conf"), "written since");
}

// A disk that is full when all is in its place: the archive goes, so that its end is written down before a hook may be killed.
TEST_F(FilesRestoreTest, WhatAFullDiskDidNotTakeIsWrittenDownBeforeTheHook) {
  if (geteuid() != 0) GTEST_SKIP() << "only root mounts";
  const pid_t pid = fork();
  if (pid == 0) {
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("none", folder_.c_str(), "tmpfs", 0, "size=16m") != 0)
      _exit(77);
    fs::create_directory(data_);
    fetcher_.path = folder_ + "/snapshot";
    Begin();
    MakeFilesSnapshot(Archive(Whole()));
    int said = 0;
    const auto restore = [&] {
      return Open()->Run(kOperation, order_, target_, cancel_, [&](const v1::Progress& progress) {
        if (progress.phase() != "replacing") return;
        if (++said == 1) std::this_thread::sleep_for(std::chrono::milliseconds(300));  // until the next is said
        if (said != 2) return;
        std::ofstream filler(folder_ + "/filler", std::ios::app);
        for (const std::string piece(4096, 'x'); filler << piece << std::flush;) continue;
      });
    };
    const pid_t killed = fork();
    if (killed == 0) {
      setenv("LITEFLEET_CRASH_AT", "files.after", 1);
      restore();
      _exit(0);
    }
    int status = 0;
    waitpid(killed, &status, 0);
    const bool was_full = fs::exists(folder_ + "/filler");
    fs::remove(folder_ + "/filler");
    Write("a.conf", "written since");
    const Outcome outcome = Run();
    const bool right = WIFSIGNALED(status) && was_full && outcome.status.ok() && outcome.applied && Read("a.conf") == "written since" &&
                       LeftOver().empty();
    if (!right) std::cerr << status << " " << was_full << " " << outcome.status << " " << Read("a.conf") << " " << LeftOver() << "\n";
    _exit(right ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "nothing can be mounted here";
  EXPECT_EQ(status, 0);
}

TEST_F(FilesRestoreTest, WhatTheJournalCannotReadIsNeitherWrittenNorSilent) {
  auto journal = RestoreJournal::Open(folder_ + "/state");
  ASSERT_TRUE(journal.ok());
  storage::v1::RestoreState state;
  state.set_operation_id(kOperation);
  state.set_message(std::string(2 << 20, 'x'));
  EXPECT_EQ(ReasonOf(journal->Save(state)), "STATE_TOO_LARGE");
  EXPECT_FALSE(journal->Load(kOperation)->has_value());
  std::ofstream(folder_ + "/state/" + kOperation + ".state") << "nonsense";
  EXPECT_THAT(Open()->Recover({}).said, Contains(HasSubstr(std::string(kOperation) + ".state")));
}

TEST_F(FilesRestoreTest, ACancelLeavesNothing) {
  Begin();
  MakeFilesSnapshot(Archive(Whole()));
  const Outcome outcome = Open()->Run(kOperation, order_, target_, cancel_, [&](const v1::Progress& progress) {
    if (progress.phase() == "unpacking") cancel_.Cancel();
  });
  EXPECT_TRUE(absl::IsCancelled(outcome.status)) << outcome.status;
  ExpectUntouched();
}

// The kernel is asked with a file of ours in a directory of the application.
TEST_F(FilesRestoreTest, WhatADirectoryIsAskedWithDoesNotStayThere) {
  const auto in = [&](const std::string& directory) {
    int found = 0;
    for (const auto& entry : fs::directory_iterator(directory)) found += entry.path().filename().string().ends_with("-probe") ? 1 : 0;
    return found;
  };
  for (const char* point : {"files.probed", "files.probed:2"}) {
    for (const bool asked : {true, false}) {
      SCOPED_TRACE(std::string(point) + (asked ? "" : ", and nobody asks for it"));
      Begin();
      fs::create_directory(data_ + "/sub");
      MakeFilesSnapshot(Archive(Whole()));
      ASSERT_TRUE(RunAndCrashAt(point));
      EXPECT_EQ(in(data_) + in(data_ + "/sub"), 1);
      if (asked) {
        target_.push_restore = "never";  // it ends before the directories are asked again
        EXPECT_EQ(ReasonOf(Run().status), "PUSH_RESTORE_DENIED");
        target_.push_restore.clear();
      } else {
        EXPECT_EQ(Open()->Recover({}).ended.size(), 0U);
      }
      EXPECT_EQ(in(data_) + in(data_ + "/sub"), 0);
      EXPECT_EQ(LeftOver(), "");
    }
  }
}

// Hooks that write into a file that they ran, since a crash takes the memory.
class FilesHooksTest : public FilesRestoreTest, public hooks::HookRunner {
 protected:
  void SetUp() override {
    FilesRestoreTest::SetUp();
    ASSERT_TRUE(io::MakeDirectory(folder_ + "/hooks", 0700).ok());
    for (const char* name : {"/before", "/after"}) ASSERT_TRUE(io::WriteFileAtomic(folder_ + "/hooks" + name, "#!/bin/true", 0700).ok());
  }
  hooks::HookResult Run(const hooks::Hook& hook, const CancelToken& cancel) override {
    hooks::HookResult result;
    result.run.set_hook(hook.name);
    result.run.set_exit_code(hook.name == fails_ ? 1 : 0);
    std::ofstream(folder_ + "/ran", std::ios::app) << hook.name << " ";
    if (during_) result.status = during_(hook.name, cancel);
    return result;
  }
  std::unique_ptr<LocalRestorer> OpenWithHooks() {
    auto restorer = Open();
    restorer->SetHooks([this](const hooks::HookFacts& facts) {
      hooks::HookPrograms programs;
      programs.directory = folder_ + "/hooks";
      programs.before_restore = folder_ + "/hooks/before";
      programs.after_restore = folder_ + "/hooks/after";
      return std::make_unique<hooks::DatabaseHooks>(*this, programs, facts);
    });
    return restorer;
  }
  Outcome Restore() {
    return OpenWithHooks()->Run(kOperation, order_, target_, cancel_, [](const v1::Progress&) {});
  }
  bool RestoreAndCrashAt(const char* point) {
    const pid_t pid = fork();
    if (pid == 0) {
      setenv("LITEFLEET_CRASH_AT", point, 1);
      Restore();
      _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  }
  std::string Ran() const { return io::ReadFile(folder_ + "/ran").value_or(""); }

  std::string fails_;
  std::function<absl::Status(const std::string&, const CancelToken&)> during_;
};

// The archive is gone by then: what the restore failed with is in the journal.
TEST_F(FilesHooksTest, WhatFailedIsToldAfterACrashAtTheEnd) {
  for (const bool renamed : {false, true}) {
    for (const char* point : {"files.after", "files.before_done"}) {
      for (const bool asked : {true, false}) {
        SCOPED_TRACE(std::string(point) + (renamed ? ", a rename failed" : ", a hook failed") + (asked ? "" : ", and nobody asks for it"));
        Begin();
        fs::remove(folder_ + "/ran");
        MakeFilesSnapshot(Archive(Whole()));
        fails_ = renamed ? "" : "before-restore";
        during_ = [&](const std::string& hook, const CancelToken&) {
          if (renamed && hook == "before-restore") fs::create_directories(data_ + "/sub/-rf");
          return absl::OkStatus();
        };
        ASSERT_TRUE(RestoreAndCrashAt(point));
        EXPECT_EQ(LeftOver(), "");
        const auto restorer = OpenWithHooks();
        Outcome outcome;
        if (asked) {
          outcome = restorer->Run(kOperation, order_, target_, cancel_, [](const v1::Progress&) {});
        } else {
          const auto recovery = restorer->Recover({});
          ASSERT_EQ(recovery.ended.size(), 1U);
          outcome = recovery.ended[0].outcome;
        }
        EXPECT_EQ(ReasonOf(outcome.status) == "HOOK_FAILED", !renamed) << outcome.status;
        EXPECT_THAT(MessageOf(outcome.status),
                    HasSubstr(renamed ? "2 of 5 files and directories were put in their places, then" : "before"));
        EXPECT_EQ(Read("a.conf"), renamed ? "new" : "old");
        EXPECT_THAT(Ran(), testing::StartsWith("before-restore after-restore "));
        ASSERT_TRUE(restorer->Forget(kOperation).ok());
        EXPECT_TRUE(fs::is_empty(folder_ + "/state"));
      }
    }
  }
}

// The program ends while the hook runs: another Settle, or Run, goes on there.
TEST_F(FilesHooksTest, AnInterruptOfASettleIsNotItsEnd) {
  for (const char* point : {"files.renamed:3", "files.applied"}) {
    for (const bool run : {false, true}) {
      SCOPED_TRACE(std::string(point) + (run ? ", then a run" : ", then a settle"));
      const bool applied = std::string_view(point) == "files.applied";
      Begin();
      fs::remove(folder_ + "/ran");
      MakeFilesSnapshot(Archive(Whole()));
      ASSERT_TRUE(RestoreAndCrashAt(point));
      CancelToken stop;
      during_ = [&](const std::string&, const CancelToken& cancel) {
        stop.Interrupt();
        while (!cancel.cancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
        return Error(absl::StatusCode::kCancelled, "CANCELLED", "the hook was interrupted");
      };
      const std::optional<Outcome> interrupted = OpenWithHooks()->Settle(kOperation, stop);
      ASSERT_TRUE(interrupted.has_value());
      EXPECT_TRUE(absl::IsCancelled(interrupted->status)) << interrupted->status;
      during_ = nullptr;
      const auto restorer = OpenWithHooks();
      const Outcome outcome = run ? restorer->Run(kOperation, order_, target_, cancel_, [](const v1::Progress&) {})
                                  : restorer->Settle(kOperation).value_or(Outcome{});
      EXPECT_EQ(ReasonOf(outcome.status), applied ? "" : "RESTORE_ABANDONED") << outcome.status;
      EXPECT_EQ(outcome.applied, applied);
      EXPECT_EQ(Ran(), "before-restore after-restore after-restore ");
      EXPECT_EQ(Read("a.conf"), "new");
      EXPECT_EQ(LeftOver(), "");
      ASSERT_TRUE(restorer->Forget(kOperation).ok());
      EXPECT_TRUE(fs::is_empty(folder_ + "/state"));
    }
  }
}

// It came too late to stop anything, and what is to be undone by the hook is not forgotten for it.
TEST_F(FilesHooksTest, TheEndOfTheProgramIsHeardBehindACancel) {
  Begin();
  MakeFilesSnapshot(Archive(Whole()));
  CancelToken stop;
  during_ = [&](const std::string& hook, const CancelToken& cancel) -> absl::Status {
    if (hook == "before-restore") return absl::OkStatus();
    stop.Cancel();
    stop.Interrupt();
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!cancel.cancelled() && std::chrono::steady_clock::now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return Error(absl::StatusCode::kCancelled, "CANCELLED", "the hook was interrupted");
  };
  const Outcome interrupted = OpenWithHooks()->Run(kOperation, order_, target_, stop, [](const v1::Progress&) {});
  EXPECT_TRUE(absl::IsCancelled(interrupted.status)) << interrupted.status;
  during_ = nullptr;
  const Outcome outcome = Restore();
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(outcome.applied);
  EXPECT_EQ(Ran(), "before-restore after-restore after-restore ");
  EXPECT_EQ(Read("a.conf"), "new");
  EXPECT_EQ(LeftOver(), "");
}

// A later run would not know that it is about to be removed.
TEST_F(FilesHooksTest, TheArchiveStaysWhereTheEndCannotBeSaved) {
  Begin();
  MakeFilesSnapshot(Archive(Whole()));
  fails_ = "before-restore";
  during_ = [&](const std::string& hook, const CancelToken&) {
    if (hook == "before-restore") fs::rename(folder_ + "/state", folder_ + "/gone");
    return absl::OkStatus();
  };
  EXPECT_EQ(ReasonOf(Restore().status), "HOOK_FAILED");
  EXPECT_NE(LeftOver(), "");
  fs::remove_all(folder_ + "/state");
  fs::rename(folder_ + "/gone", folder_ + "/state");
  fails_.clear();
  during_ = nullptr;
  const Outcome outcome = Restore();
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Read("a.conf"), "new");
  EXPECT_EQ(LeftOver(), "");
}

}  // namespace
}  // namespace litefleet::restore
