// The state of before the last restore comes back, and can go again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tests/unit/agent/restore/kill_points.h"
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
  void Restore(v1::RestoreMode mode, const char* journal = "wal", const char* snapshot = "wal") {
    if (mode != v1::RESTORE_MODE_NEW) Make(path_, "old", journal, 3000);
    MakeSnapshot(snapshot, 6000);
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

TEST_F(UndoTest, TheLogOfACrashedApplicationGoesIntoTheNextUndo) {
  for (const v1::RestoreMode mode : {v1::RESTORE_MODE_LIVE, v1::RESTORE_MODE_REPLACE}) {
    SCOPED_TRACE(v1::RestoreMode_Name(mode));
    std::filesystem::remove_all(data_);
    std::filesystem::remove_all(folder_ + "/state");
    ASSERT_TRUE(io::MakeDirectory(data_, 0755).ok());
    Restore(mode);
    {
      Application application(path_, Application::kWriting);
      application.Kill();
    }
    ASSERT_TRUE(io::Exists(path_ + "-wal"));
    const Outcome undone = Undo();
    ASSERT_TRUE(undone.status.ok()) << undone.status;
    EXPECT_FALSE(io::Exists(path_ + "-wal"));
    EXPECT_FALSE(io::Exists(Kept() + "-wal"));
    EXPECT_EQ(Label(path_), "old");
    EXPECT_EQ(LogRows(path_), 0) << "no log of the restored database was taken for one of the old";
    EXPECT_EQ(Label(Kept()), "new");
    EXPECT_GT(LogRows(Kept()), 0) << "what it had committed";
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

// What was kept is removed by a descriptor of its directory. Where it cannot be proven that it is there the record stays.
TEST_F(UndoTest, ACancelLeavesTheKeptStateWhereItWas) {
  for (const auto mode : {v1::RESTORE_MODE_LIVE, v1::RESTORE_MODE_REPLACE}) {
    StartAnew("");
    Restore(mode);
    for (const char* phase : {"checking", "applying"}) {
      SCOPED_TRACE(fmt::format("{} {}", static_cast<int>(mode), phase));
      v1::UndoOrder order;
      order.set_database("app");
      order.set_new_timeline(3);
      CancelToken cancel;
      const std::string operation = fmt::format("01JD0000000000000000000{}{}2", static_cast<int>(mode), phase[0]);
      const Outcome outcome = Open()->Undo(operation, order, target_, cancel, [&](const v1::Progress& progress) {
        if (progress.phase() == phase) cancel.Cancel();
      });
      EXPECT_TRUE(cancel.cancelled());
      EXPECT_TRUE(absl::IsCancelled(outcome.status)) << outcome.status;
      EXPECT_TRUE(io::Exists(Kept()));
      EXPECT_EQ(Label(path_), "new");
      EXPECT_EQ(LeftOver(), "");
    }
    const Outcome undone = Undo();
    EXPECT_TRUE(undone.status.ok()) << undone.status;
    EXPECT_EQ(Label(path_), "old");
  }
}

TEST_F(UndoTest, ADropRemovesNothingButWhatWasKept) {
  Restore(v1::RESTORE_MODE_LIVE);
  const auto restorer = Open();
  const auto reason = [&] { return ReasonOf(restorer->DropUndo("app").status()); };
  const std::string moved = folder_ + "/moved";
  std::filesystem::rename(data_, moved);
  EXPECT_EQ(reason(), "DIRECTORY_MISSING") << "not mounted, for instance";
  std::filesystem::create_symlink(moved, data_);
  EXPECT_EQ(reason(), "FILE_REPLACED");
  std::filesystem::remove(data_);
  std::filesystem::rename(moved, data_);
  std::filesystem::rename(Kept(), folder_ + "/aside");
  Make(Kept(), "planted", "delete", 10);
  EXPECT_EQ(reason(), "UNDO_CHANGED");
  EXPECT_TRUE(io::Exists(Kept()));
  std::filesystem::rename(folder_ + "/aside", Kept());
  ASSERT_EQ(restorer->ListUndos()->size(), 1u) << "it is told as long as it is there";
  EXPECT_EQ(restorer->DropUndo("app", "01JD00000000000000000000ZZ").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(restorer->DropUndo("app", kOperation).value_or("?"), Kept());
  EXPECT_FALSE(io::Exists(Kept()));
  EXPECT_EQ(restorer->DropUndo("app").value_or("?"), "") << "nothing is kept";
}

TEST_F(UndoTest, ADropThatFindsNothingOnItsFileSystemForgetsIt) {
  Restore(v1::RESTORE_MODE_LIVE);
  std::filesystem::remove(Kept());
  EXPECT_EQ(Open()->DropUndo("app").value_or("?"), "");
  EXPECT_TRUE(Open()->ListUndos()->empty());
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
  EXPECT_EQ(plan.kept_by(), kOperation);
  EXPECT_EQ(plan.kept_path(), Kept());
  EXPECT_THAT(plan.steps(), Contains(HasSubstr("copy the kept state into")));
  EXPECT_EQ(Label(Kept()), "old");
}

// The journal modes of the target before the restore and of the snapshot; the first is empty where nothing was there.
struct UndoCell {
  v1::RestoreMode mode;  // of the restore
  const char* journal;
  const char* snapshot;
};

std::string UndoCellName(const ::testing::TestParamInfo<UndoCell>& info) {
  const v1::RestoreMode mode = info.param.mode;
  return fmt::format("{}_{}{}from_{}",
                     mode == v1::RESTORE_MODE_NEW    ? "removal"
                     : mode == v1::RESTORE_MODE_LIVE ? "live"
                                                     : "replace",
                     info.param.journal, *info.param.journal == 0 ? "" : "_", info.param.snapshot);
}

// At each point of a whole undo.
class UndoCrashTest : public UndoTest, public ::testing::WithParamInterface<UndoCell> {
 protected:
  void SetUp() override {
    UndoTest::SetUp();
    Restore(GetParam().mode, GetParam().journal, GetParam().snapshot);
    points_ = KillPointsOf(folder_ + "/points", [this] { return Undo().status.ok(); });
  }
  void Again() {
    StartAnew(GetParam().journal);
    ASSERT_TRUE(Run().status.ok());
  }
  std::string Parent() const override { return InMemory(); }
  bool removes() const { return GetParam().mode == v1::RESTORE_MODE_NEW; }

  std::vector<KillPoint> points_;
};

TEST_P(UndoCrashTest, AWholeUndoPassesTheseAtLeast) {
  const std::vector<std::string> passed = NamesOf(points_);
  std::vector<std::string> wanted = {"restore.prepared",     "restore.undo_part_installed", "restore.undo_installed",
                                     "restore.checkpointed", "restore.before_done",         "restore.done"};
  const std::vector<std::string> copied = {"restore.undo.taken",         "restore.checked",          "restore.live.before_versions",
                                           "restore.live.undo_created",  "restore.live.before_lock", "restore.live.locked",
                                           "restore.live.undo_complete", "restore.live.copying",     "restore.live.before_commit",
                                           "restore.live.after_commit",  "restore.live.applied"};
  const std::vector<std::string> renamed = {"restore.replace.folded", "restore.replace.before_link", "restore.replace.linked",
                                            "restore.replace.before_rename", "restore.replace.after_rename"};
  const auto& own = GetParam().mode == v1::RESTORE_MODE_LIVE ? copied : renamed;
  wanted.insert(wanted.end(), own.begin(), own.end());
  if (GetParam().mode == v1::RESTORE_MODE_REPLACE) wanted.insert(wanted.end(), {"restore.undo.taken", "restore.checked"});
  EXPECT_THAT(passed, ::testing::IsSupersetOf(wanted));
}

TEST_P(UndoCrashTest, OneOfTheTwoStatesThenFinished) {
  for (const KillPoint& point : points_) {
    SCOPED_TRACE(point.at);
    Again();
    ASSERT_TRUE(UndoAndCrashAt(point.at)) << "never came there";
    const std::string copy = folder_ + "/copy";
    std::filesystem::copy(data_, copy, std::filesystem::copy_options::recursive);
    if (std::filesystem::exists(copy + "/app.db")) {
      EXPECT_THAT(Label(copy + "/app.db"), AnyOf("old", "new"));
    } else {
      EXPECT_TRUE(removes()) << "a database that was there has gone";
    }
    const Outcome outcome = Undo();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_TRUE(outcome.applied);
    if (removes()) {
      EXPECT_FALSE(io::Exists(path_));
    } else {
      EXPECT_EQ(Label(path_), "old");
      EXPECT_EQ(JournalMode(path_), GetParam().journal);
    }
    EXPECT_EQ(Label(Kept()), "new");
    EXPECT_EQ(LeftOver(), "");
    ASSERT_TRUE(Open()->Forget(kUndoing).ok());
  }
}

// Nobody asks for it any more: what has reached the database stays, everything else is as it was, and can be undone again.
TEST_P(UndoCrashTest, AbandonedIsOneOfTheTwoStates) {
  for (const KillPoint& point : points_) {
    SCOPED_TRACE(point.at);
    Again();
    ASSERT_TRUE(UndoAndCrashAt(point.at));
    const auto restorer = Open();
    const LocalRestorer::Recovery recovery = restorer->Recover({kOperation});
    const bool undone = !recovery.ended.empty();
    if (undone) {
      EXPECT_TRUE(recovery.ended[0].undo);
      EXPECT_TRUE(recovery.ended[0].outcome.status.ok()) << recovery.ended[0].outcome.status;
      EXPECT_EQ(recovery.ended[0].order.new_timeline(), 3u);
      EXPECT_EQ(io::Exists(path_) ? Label(path_) : "none", removes() ? "none" : "old");
      EXPECT_EQ(Label(Kept()), "new");
    } else {
      EXPECT_EQ(Label(path_), "new");
      if (!removes()) {
        EXPECT_EQ(Label(Kept()), "old");
      }
    }
    EXPECT_EQ(LeftOver(), "");
    const Outcome again = Undo(kUndoingAgain);
    ASSERT_TRUE(again.status.ok()) << again.status;
    EXPECT_EQ(io::Exists(path_) ? Label(path_) : "none", undone ? "new" : removes() ? "none" : "old");
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, UndoCrashTest,
    ::testing::Values(UndoCell{v1::RESTORE_MODE_NEW, "", "wal"}, UndoCell{v1::RESTORE_MODE_NEW, "", "delete"},
                      UndoCell{v1::RESTORE_MODE_LIVE, "wal", "wal"}, UndoCell{v1::RESTORE_MODE_LIVE, "wal", "delete"},
                      UndoCell{v1::RESTORE_MODE_LIVE, "delete", "wal"}, UndoCell{v1::RESTORE_MODE_LIVE, "delete", "delete"},
                      UndoCell{v1::RESTORE_MODE_REPLACE, "wal", "wal"}, UndoCell{v1::RESTORE_MODE_REPLACE, "wal", "delete"},
                      UndoCell{v1::RESTORE_MODE_REPLACE, "delete", "wal"}, UndoCell{v1::RESTORE_MODE_REPLACE, "delete", "delete"}),
    UndoCellName);

}  // namespace
}  // namespace litefleet::restore
