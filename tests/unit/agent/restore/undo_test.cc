// The state of before the last restore comes back, and can go again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr char kUndoing[] = "01JD0000000000000000000002";
constexpr char kUndoingAgain[] = "01JD0000000000000000000003";

class UndoTest : public RestoreFixture {
 protected:
  std::string Kept() const { return path_ + ".litefleet-undo"; }
  Outcome Undo(const std::string& operation = kUndoing, const std::string& of = {}) {
    v1::UndoOrder order;
    order.set_database("app");
    order.set_restore_operation_id(of);
    order.set_new_timeline(3);
    return Open()->Undo(operation, order, target_, cancel_, [](const v1::Progress&) {});
  }
  bool UndoAndCrashAt(const std::string& point) {
    const pid_t pid = fork();
    if (pid == 0) {
      setenv("LITEFLEET_CRASH_AT", point.c_str(), 1);
      Undo();
      _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  }
  void Restore(v1::RestoreMode mode, const char* journal = "wal") {
    if (mode != v1::RESTORE_MODE_NEW) Make(path_, "old", journal, 3000);
    MakeSnapshot("wal", 6000);
    order_.set_mode(mode);
    const Outcome outcome = Run();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    ASSERT_EQ(Label(path_), "new");
  }
  static std::string Content(const std::string& path) { return io::ReadFile(path, 1 << 30).value_or("none"); }
  // A database that SQLite cannot open any more, with the log of an application that was killed.
  void MakeDamaged() {
    Make(path_, "old", "wal", 100);
    {
      Application application(path_, Application::kWriting);
      application.Kill();
    }
    auto fd = io::Open(path_, O_RDWR);
    ASSERT_TRUE(io::PwriteAll(fd->get(), AsBytes(std::string(4096, 'x')), 0, path_).ok());
  }
  void RestoreOverDamaged() {
    MakeSnapshot("wal");
    order_.set_mode(v1::RESTORE_MODE_REPLACE);
    const Outcome outcome = Run();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  }
  std::string Reason(const std::string& of = {}) { return ReasonOf(Undo(kUndoing, of).status); }
};

TEST_F(UndoTest, ALiveRestoreIsUndoneUnderTheApplication) {
  for (const char* journal : {"wal", "delete"}) {
    std::filesystem::remove_all(data_);
    std::filesystem::remove_all(folder_ + "/state");
    ASSERT_TRUE(io::MakeDirectory(data_, 0755).ok());
    Make(path_, "old", journal, 3000);
    MakeSnapshot("wal", 6000);
    Application application(path_, Application::kIdle);
    ASSERT_TRUE(Run().status.ok());
    ASSERT_EQ(Label(path_), "new");
    const Outcome undone = Undo();
    ASSERT_TRUE(undone.status.ok()) << undone.status;
    EXPECT_TRUE(undone.applied);
    EXPECT_EQ(undone.mode, v1::RESTORE_MODE_LIVE);
    EXPECT_EQ(undone.undo, Kept());
    EXPECT_EQ(Label(path_), "old") << journal;
    EXPECT_EQ(JournalMode(path_), journal);
    EXPECT_EQ(Label(Kept()), "new") << "what was taken away is the next undo";
    EXPECT_EQ(LeftOver(), "");
    EXPECT_EQ(application.Stop(), 0);
    // And back.
    ASSERT_TRUE(Undo(kUndoingAgain, kUndoing).status.ok());
    EXPECT_EQ(Label(path_), "new");
    EXPECT_EQ(Label(Kept()), "old");
  }
}

TEST_F(UndoTest, AWritingApplicationLosesNothingOfTheOldState) {
  Restore(v1::RESTORE_MODE_LIVE);
  Application application(path_, Application::kWriting);
  ASSERT_TRUE(Undo().status.ok());
  EXPECT_EQ(application.Stop(), 0);
  EXPECT_EQ(Label(path_), "old");
  EXPECT_GT(LogRows(path_), 0) << "it wrote on";
}

TEST_F(UndoTest, AReaderHoldsAnUndoUpInRollbackModeAlone) {
  for (const char* journal : {"wal", "delete"}) {
    const bool wal = std::string_view(journal) == "wal";
    std::filesystem::remove_all(data_);
    std::filesystem::remove_all(folder_ + "/state");
    ASSERT_TRUE(io::MakeDirectory(data_, 0755).ok());
    Restore(v1::RESTORE_MODE_LIVE, journal);
    Application application(path_, Application::kReading);
    EXPECT_EQ(ReasonOf(Undo().status), wal ? "" : "DATABASE_BUSY");
    EXPECT_EQ(application.Stop(), 0);
    EXPECT_EQ(Label(path_), wal ? "old" : "new");
    EXPECT_EQ(Label(Kept()), wal ? "new" : "old") << "still there for the next try";
    EXPECT_EQ(LeftOver(), "");
  }
}

TEST_F(UndoTest, AHotJournalIsRolledBackIntoTheNextUndo) {
  for (const v1::RestoreMode mode : {v1::RESTORE_MODE_LIVE, v1::RESTORE_MODE_REPLACE}) {
    std::filesystem::remove_all(data_);
    std::filesystem::remove_all(folder_ + "/state");
    ASSERT_TRUE(io::MakeDirectory(data_, 0755).ok());
    Make(path_, "old", "delete", 3000);
    MakeSnapshot("delete", 6000);
    order_.set_mode(mode);
    ASSERT_TRUE(Run().status.ok());
    LeaveHotJournal(path_);
    const Outcome undone = Undo();
    ASSERT_TRUE(undone.status.ok()) << undone.status;
    EXPECT_EQ(Label(path_), "old");
    EXPECT_EQ(Label(Kept()), "new");
    EXPECT_EQ(LeftOver(), "");
  }
}

TEST_F(UndoTest, AReplacedDatabaseIsRenamedBack) {
  Make(path_, "old", "delete", 3000);
  chmod(path_.c_str(), 0640);
  struct stat before {};
  ASSERT_EQ(stat(path_.c_str(), &before), 0);
  MakeSnapshot("wal", 6000);
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  ASSERT_TRUE(Run().status.ok());
  {
    Application application(path_, Application::kIdle);
    const Outcome refused = Undo();
    EXPECT_EQ(ReasonOf(refused.status), "IN_USE");
    EXPECT_EQ(Label(Kept()), "old") << "still there for the next try";
    EXPECT_EQ(LeftOver(), "");
  }
  const Outcome undone = Undo(kUndoingAgain);
  ASSERT_TRUE(undone.status.ok()) << undone.status;
  struct stat after {};
  ASSERT_EQ(stat(path_.c_str(), &after), 0);
  EXPECT_EQ(after.st_ino, before.st_ino) << "the very same file";
  EXPECT_EQ(after.st_mode, before.st_mode);
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(Label(Kept()), "new");
  EXPECT_EQ(LeftOver(), "");
}

TEST_F(UndoTest, ADamagedDatabaseComesBackWithItsLog) {
  MakeDamaged();
  const std::string damaged = Content(path_), log = Content(path_ + "-wal");
  RestoreOverDamaged();
  ASSERT_TRUE(io::Exists(Kept() + "-wal"));
  const Outcome undone = Undo();
  ASSERT_TRUE(undone.status.ok()) << undone.status;
  EXPECT_EQ(Content(path_), damaged);
  EXPECT_EQ(Content(path_ + "-wal"), log);
  EXPECT_FALSE(io::Exists(Kept() + "-wal"));
  EXPECT_EQ(Label(Kept()), "new");
  const Outcome again = Undo(kUndoingAgain);
  ASSERT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(Content(Kept()), damaged);
  EXPECT_EQ(Content(Kept() + "-wal"), log);
}

TEST_F(UndoTest, ACrashBesideADamagedDatabaseIsFinished) {
  MakeDamaged();
  const std::string damaged = Content(path_), log = Content(path_ + "-wal");
  RestoreOverDamaged();
  ASSERT_TRUE(UndoAndCrashAt("restore.undo.companion_placed"));
  const Outcome undone = Undo();
  ASSERT_TRUE(undone.status.ok()) << undone.status;
  EXPECT_EQ(Content(path_), damaged);
  EXPECT_EQ(Content(path_ + "-wal"), log);
  EXPECT_EQ(Label(Kept()), "new");
  EXPECT_EQ(LeftOver(), "");
}

TEST_F(UndoTest, WhereNothingWasNothingIsAgain) {
  ASSERT_TRUE(io::WriteFileAtomic(path_ + "-wal", "left over").ok());
  Restore(v1::RESTORE_MODE_NEW);
  const Outcome undone = Undo();
  ASSERT_TRUE(undone.status.ok()) << undone.status;
  EXPECT_FALSE(io::Exists(path_));
  EXPECT_EQ(*io::ReadFile(path_ + "-wal", 1 << 10), "left over");
  EXPECT_EQ(Label(Kept()), "new") << "taken away is not thrown away";
  EXPECT_EQ(LeftOver(), "");
  std::filesystem::remove(path_ + "-wal");
  ASSERT_TRUE(Undo(kUndoingAgain).status.ok());
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(ReasonOf(Undo("01JD0000000000000000000004").status), "") << "nothing was there, so it goes once more";
  EXPECT_FALSE(io::Exists(path_));
}

TEST_F(UndoTest, ADatabaseThatHasGoneSinceComesBackByName) {
  Restore(v1::RESTORE_MODE_LIVE);
  std::filesystem::remove(path_);
  const Outcome undone = Undo();
  ASSERT_TRUE(undone.status.ok()) << undone.status;
  EXPECT_EQ(undone.mode, v1::RESTORE_MODE_NEW);
  EXPECT_EQ(Label(path_), "old");
}

TEST_F(UndoTest, RefusalsSayWhy) {
  EXPECT_EQ(Reason(), "UNDO_MISSING");
  Restore(v1::RESTORE_MODE_LIVE);
  EXPECT_EQ(Reason("01JD00000000000000000000ZZ"), "UNDO_SUPERSEDED");
  EXPECT_EQ(Label(Kept()), "old");
  // Another file with the name: a link to something that the directory's owner may not read, for instance.
  std::filesystem::rename(Kept(), folder_ + "/aside");
  EXPECT_EQ(Reason(), "UNDO_MISSING");
  Make(Kept(), "planted", "delete", 10);
  EXPECT_EQ(Reason(), "UNDO_CHANGED");
  std::filesystem::remove(Kept());
  std::filesystem::create_symlink(folder_ + "/aside", Kept());
  EXPECT_EQ(Reason(), "UNDO_CHANGED") << "a link is no file of ours";
  std::filesystem::remove(Kept());
  std::filesystem::rename(folder_ + "/aside", Kept());
  const std::string elsewhere = data_ + "/other.db";
  Make(elsewhere, "other", "wal", 10);
  target_.path = elsewhere;
  EXPECT_EQ(Reason(), "UNDO_ELSEWHERE");
  target_.path = path_;
  EXPECT_EQ(Label(path_), "new") << "nothing was done";
  const auto restorer = Open();
  EXPECT_TRUE(restorer->DropUndosOlderThan(std::chrono::seconds(-10), RealClock(), [](const std::string&) { return true; }).empty())
      << "not while a restore may need it";
  ASSERT_TRUE(restorer->DropUndo("app").ok());
  EXPECT_EQ(Reason(), "UNDO_MISSING") << "keep_previous really drops it";
}

// A device without a clock of its own restores in 1970, and then its clock is set.
TEST_F(UndoTest, KeepPreviousCountsTheTimeThatTheMachineHasRun) {
  Restore(v1::RESTORE_MODE_LIVE);
  FakeClock clock;
  const auto idle = [](const std::string&) { return false; };
  const auto dropped = [&] { return !Open()->DropUndosOlderThan(std::chrono::hours(24), clock, idle).empty(); };
  const std::string age = folder_ + "/state/undo-app.age";
  EXPECT_FALSE(dropped());
  clock.JumpSystem(std::chrono::hours(24 * 365 * 50));
  EXPECT_FALSE(dropped());
  clock.Advance(std::chrono::hours(20));
  EXPECT_FALSE(dropped());
  clock.JumpSystem(-std::chrono::hours(24 * 365 * 60));
  EXPECT_FALSE(dropped());
  // A reboot: nobody knows how long the machine was off, but it has run since.
  std::string text = *io::ReadFile(age);
  const size_t boot = text.find(' ') + 1;
  text.replace(boot, text.find(' ', boot) - boot, "another-boot");
  ASSERT_TRUE(io::WriteFileAtomic(age, text).ok());
  FakeClock rebooted;
  EXPECT_TRUE(Open()->DropUndosOlderThan(std::chrono::hours(22), rebooted, idle).empty()) << "20 hours before it, 1 since";
  rebooted.Advance(std::chrono::hours(3));
  EXPECT_EQ(Open()->DropUndosOlderThan(std::chrono::hours(22), rebooted, idle).size(), 1u);
  EXPECT_FALSE(std::filesystem::exists(Kept()));
  EXPECT_FALSE(std::filesystem::exists(age));
}

TEST_F(UndoTest, OtherPagesInWalModeAreRefused) {
  Make(path_, "old", "delete", 300, 1024);
  MakeSnapshot("delete", 300, 4096);
  ASSERT_TRUE(Run().status.ok());
  {
    auto db = sqlite::Open(path_, SQLITE_OPEN_READWRITE);
    ASSERT_TRUE(sqlite::Execute(db->get(), "pragma journal_mode=wal").ok());
  }
  EXPECT_EQ(Reason(), "PAGE_SIZE_DIFFERS");
  EXPECT_EQ(Label(Kept()), "old");
  EXPECT_EQ(LeftOver(), "");
}

TEST_F(UndoTest, ThePlanSaysWhatWouldHappenAndChangesNothing) {
  v1::UndoOrder order;
  order.set_database("app");
  v1::RestorePlan plan = Open()->PlanUndo(order, target_);
  ASSERT_EQ(plan.obstacles_size(), 1);
  EXPECT_EQ(plan.obstacles(0).info().reason(), "UNDO_MISSING");
  Restore(v1::RESTORE_MODE_LIVE);
  plan = Open()->PlanUndo(order, target_);
  EXPECT_EQ(plan.obstacles_size(), 0);
  EXPECT_EQ(plan.mode(), v1::RESTORE_MODE_LIVE);
  EXPECT_EQ(plan.size_bytes(), static_cast<int64_t>(std::filesystem::file_size(Kept())));
  EXPECT_EQ(plan.staging_bytes(), 0);
  EXPECT_THAT(plan.steps(), Contains(HasSubstr("copy the kept state into")));
  EXPECT_EQ(Label(Kept()), "old");
}

struct UndoCrash {
  const char* point;
  v1::RestoreMode mode;  // of the restore
  const char* journal = "wal";
};

class UndoCrashTest : public UndoTest, public ::testing::WithParamInterface<UndoCrash> {};

TEST_P(UndoCrashTest, OneOfTheTwoStatesThenFinished) {
  const UndoCrash& c = GetParam();
  Restore(c.mode, c.journal);
  ASSERT_TRUE(UndoAndCrashAt(c.point)) << "never came to " << c.point;
  const std::string copy = folder_ + "/copy";
  std::filesystem::copy(data_, copy, std::filesystem::copy_options::recursive);
  if (std::filesystem::exists(copy + "/app.db")) {
    EXPECT_THAT(Label(copy + "/app.db"), AnyOf("old", "new"));
  } else {
    EXPECT_EQ(c.mode, v1::RESTORE_MODE_NEW) << "a database that was there has gone";
  }
  const Outcome outcome = Undo();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(outcome.applied);
  if (c.mode == v1::RESTORE_MODE_NEW) {
    EXPECT_FALSE(io::Exists(path_));
  } else {
    EXPECT_EQ(Label(path_), "old");
  }
  EXPECT_EQ(Label(Kept()), "new");
  EXPECT_EQ(LeftOver(), "");
  ASSERT_TRUE(Open()->Forget(kUndoing).ok());
}

// Nobody asks for it any more: what has reached the database stays, everything else is as it was, and can be undone again.
TEST_P(UndoCrashTest, AbandonedIsOneOfTheTwoStates) {
  const UndoCrash& c = GetParam();
  Restore(c.mode, c.journal);
  ASSERT_TRUE(UndoAndCrashAt(c.point));
  const auto restorer = Open();
  const LocalRestorer::Recovery recovery = restorer->Recover({kOperation});
  const bool undone = !recovery.ended.empty();
  if (undone) {
    EXPECT_TRUE(recovery.ended[0].undo);
    EXPECT_TRUE(recovery.ended[0].outcome.status.ok()) << recovery.ended[0].outcome.status;
    EXPECT_EQ(recovery.ended[0].order.new_timeline(), 3u);
    EXPECT_EQ(io::Exists(path_) ? Label(path_) : "none", c.mode == v1::RESTORE_MODE_NEW ? "none" : "old");
    EXPECT_EQ(Label(Kept()), "new");
  } else {
    EXPECT_EQ(Label(path_), "new");
    if (c.mode != v1::RESTORE_MODE_NEW) {
      EXPECT_EQ(Label(Kept()), "old");
    }
  }
  EXPECT_EQ(LeftOver(), "");
  const Outcome again = Undo(kUndoingAgain);
  ASSERT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(io::Exists(path_) ? Label(path_) : "none", undone ? "new" : c.mode == v1::RESTORE_MODE_NEW ? "none" : "old");
}

INSTANTIATE_TEST_SUITE_P(
    Live, UndoCrashTest,
    ::testing::Values(
        UndoCrash{"restore.prepared", v1::RESTORE_MODE_LIVE}, UndoCrash{"restore.undo.taken", v1::RESTORE_MODE_LIVE},
        UndoCrash{"restore.checked", v1::RESTORE_MODE_LIVE}, UndoCrash{"restore.live.before_versions", v1::RESTORE_MODE_LIVE},
        UndoCrash{"restore.live.undo_created", v1::RESTORE_MODE_LIVE}, UndoCrash{"restore.live.locked", v1::RESTORE_MODE_LIVE},
        UndoCrash{"restore.live.before_commit", v1::RESTORE_MODE_LIVE}, UndoCrash{"restore.live.after_commit", v1::RESTORE_MODE_LIVE},
        UndoCrash{"restore.live.applied", v1::RESTORE_MODE_LIVE}, UndoCrash{"restore.undo_part_installed", v1::RESTORE_MODE_LIVE},
        UndoCrash{"restore.undo_installed", v1::RESTORE_MODE_LIVE}, UndoCrash{"restore.checkpointed", v1::RESTORE_MODE_LIVE},
        UndoCrash{"restore.live.before_commit", v1::RESTORE_MODE_LIVE, "delete"},
        UndoCrash{"restore.live.after_commit", v1::RESTORE_MODE_LIVE, "delete"}));
INSTANTIATE_TEST_SUITE_P(Replace, UndoCrashTest,
                         ::testing::Values(UndoCrash{"restore.undo.taken", v1::RESTORE_MODE_REPLACE},
                                           UndoCrash{"restore.checked", v1::RESTORE_MODE_REPLACE},
                                           UndoCrash{"restore.replace.folded", v1::RESTORE_MODE_REPLACE},
                                           UndoCrash{"restore.replace.before_link", v1::RESTORE_MODE_REPLACE},
                                           UndoCrash{"restore.replace.linked", v1::RESTORE_MODE_REPLACE},
                                           UndoCrash{"restore.replace.before_rename", v1::RESTORE_MODE_REPLACE},
                                           UndoCrash{"restore.replace.after_rename", v1::RESTORE_MODE_REPLACE},
                                           UndoCrash{"restore.undo_installed", v1::RESTORE_MODE_REPLACE}));
INSTANTIATE_TEST_SUITE_P(Removal, UndoCrashTest,
                         ::testing::Values(UndoCrash{"restore.prepared", v1::RESTORE_MODE_NEW},
                                           UndoCrash{"restore.replace.folded", v1::RESTORE_MODE_NEW},
                                           UndoCrash{"restore.replace.linked", v1::RESTORE_MODE_NEW},
                                           UndoCrash{"restore.replace.after_rename", v1::RESTORE_MODE_NEW},
                                           UndoCrash{"restore.undo_installed", v1::RESTORE_MODE_NEW}));

}  // namespace
}  // namespace litefleet::restore
