// Fetches that were interrupted, restores whose order changed meanwhile, and copies that are not what was ordered.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>

#include "agent/restore/in_use.h"
#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

class InterruptedTest : public RestoreFixture {
 protected:
  int Extents() const { return static_cast<int>(format::ExtentCount(order_.page_size(), order_.page_count())); }
  std::string Staging() const { return data_ + "/.litefleet-" + kOperation + ".staging"; }
};

TEST_F(InterruptedTest, ACrashedFetchGoesOnBehindWhatTheStagingFileHolds) {
  MakeSnapshot("wal", 20000);
  ASSERT_GT(Extents(), 6);
  ASSERT_TRUE(RunAndCrashAt("restore.fetching:5"));
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(fetcher_.extents, Extents() - 5);
  EXPECT_THAT(outcome.steps, Contains(HasSubstr("found 5 of")));
  EXPECT_EQ(*io::ReadFile(path_, 1 << 30), *io::ReadFile(fetcher_.path, 1 << 30));
  EXPECT_EQ(LeftOver(), "");
  ASSERT_TRUE(Open()->Forget(kOperation).ok());
  EXPECT_TRUE(io::Exists(folder_ + "/state/undo-app.state")) << "that nothing was there before";
  std::filesystem::remove(folder_ + "/state/undo-app.state");
  EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/state"));
}

TEST_F(InterruptedTest, AFetchThatWasCompleteIsNotRepeated) {
  MakeSnapshot("wal", 20000);
  for (const char* point : {"restore.staged", "restore.checked"}) {
    std::filesystem::remove(path_);
    std::filesystem::remove_all(folder_ + "/state");
    fetcher_.extents = 0;
    ASSERT_TRUE(RunAndCrashAt(point));
    const Outcome outcome = Run();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(fetcher_.extents, 0) << point;
    EXPECT_EQ(Label(path_), "new");
  }
}

TEST_F(InterruptedTest, WhatAPowerCutTookIsFetchedAgain) {
  MakeSnapshot("wal", 20000);
  ASSERT_TRUE(RunAndCrashAt("restore.fetching:5"));
  {
    // The names were on the disk, the content of the fourth extent was not.
    auto fd = io::Open(Staging(), O_RDWR);
    ASSERT_TRUE(io::PwriteAll(fd->get(), Bytes(4096), 3 * format::kExtentBytes + 8192, "staging").ok());
  }
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(fetcher_.extents, Extents() - 3);
  EXPECT_EQ(*io::ReadFile(path_, 1 << 30), *io::ReadFile(fetcher_.path, 1 << 30));
}

TEST_F(InterruptedTest, NamesThatLieCostAFetchAndNothingElse) {
  MakeSnapshot("wal", 20000);
  ASSERT_TRUE(RunAndCrashAt("restore.fetching:5"));
  {
    // Content and name fit each other, and are of another snapshot.
    const Bytes other(format::kExtentBytes, std::byte{7});
    auto staging = io::Open(Staging(), O_RDWR);
    ASSERT_TRUE(io::PwriteAll(staging->get(), other, format::kExtentBytes, "staging").ok());
    auto log = io::Open(folder_ + "/state/" + kOperation + ".extents", O_RDWR);
    ASSERT_TRUE(io::PwriteAll(log->get(), AsBytes(format::NameChunkOf(order_.page_size(), other).AsString()), 8 + 32 + 32, "names").ok());
  }
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(fetcher_.extents, Extents() - 5 + Extents());
  EXPECT_EQ(*io::ReadFile(path_, 1 << 30), *io::ReadFile(fetcher_.path, 1 << 30));
}

TEST_F(InterruptedTest, ADamagedListOfNamesMeansAFetchFromTheBeginning) {
  MakeSnapshot("wal", 20000);
  for (const std::string& list : {std::string(), std::string("short"), std::string(200, 'x')}) {
    std::filesystem::remove(path_);
    std::filesystem::remove_all(folder_ + "/state");
    fetcher_.extents = 0;
    ASSERT_TRUE(RunAndCrashAt("restore.fetching:5"));
    ASSERT_TRUE(io::WriteFileAtomic(folder_ + "/state/" + kOperation + ".extents", list).ok());
    ASSERT_TRUE(Run().status.ok());
    EXPECT_EQ(fetcher_.extents, Extents());
  }
}

TEST_F(InterruptedTest, TheEndOfTheProgramKeepsWhatWasFetched) {
  Make(path_, "old", "wal", 100);
  MakeSnapshot("wal", 20000);
  for (const char* phase : {"fetching", "checking", "applying"}) {
    CancelToken ending;
    const Outcome stopped = Open()->Run(kOperation, order_, target_, ending, [&](const v1::Progress& progress) {
      if (progress.phase() == phase) ending.Interrupt();
    });
    ASSERT_EQ(stopped.status.code(), absl::StatusCode::kCancelled) << phase;
    EXPECT_TRUE(std::filesystem::exists(Staging())) << phase;
    EXPECT_EQ(Label(path_), "old") << phase;
  }
  const int fetched = fetcher_.sent_pages;
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(fetcher_.sent_pages, fetched);
  EXPECT_GT(fetched, 0);
  EXPECT_EQ(LeftOver(), "");
}

// The start of a program that is told to end meanwhile: what is left is the next one's.
TEST_F(InterruptedTest, ARecoveryThatIsInterruptedGoesOnAtTheNextStart) {
  Make(path_, "old", "wal", 100);
  MakeSnapshot("wal", 5000);
  order_.set_mode(v1::RESTORE_MODE_LIVE);
  ASSERT_TRUE(RunAndCrashAt("restore.live.after_commit"));
  CancelToken ending;
  ending.Interrupt();
  LocalRestorer::Recovery recovery = Open()->Recover({}, ending);
  EXPECT_TRUE(recovery.ended.empty());
  EXPECT_TRUE(Open()->HasBegun(kOperation));
  recovery = Open()->Recover({});
  ASSERT_EQ(recovery.ended.size(), 1U);
  EXPECT_TRUE(recovery.ended[0].outcome.status.ok()) << recovery.ended[0].outcome.status;
  EXPECT_EQ(Label(path_), "new");
}

TEST_F(InterruptedTest, ACancelAfterTheProgramsEndLeavesNothing) {
  MakeSnapshot("wal", 20000);
  CancelToken both;
  both.Interrupt();
  both.Cancel();
  EXPECT_FALSE(both.interrupted());
  const Outcome outcome = Open()->Run(kOperation, order_, target_, both, nullptr);
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(LeftOver(), "");
}

// ---- the order or the configuration changes between a crash and the next run

TEST_F(InterruptedTest, AConfigurationThatChangedSettlesTheRestoreWhereItBegan) {
  for (const char* point : {"restore.replace.linked", "restore.replace.after_rename", "restore.checked"}) {
    for (const auto& entry : std::filesystem::directory_iterator(data_)) std::filesystem::remove(entry.path());
    std::filesystem::remove_all(folder_ + "/state");
    Make(path_, "old", "wal", 100);
    MakeSnapshot("wal");
    order_.set_mode(v1::RESTORE_MODE_REPLACE);
    ASSERT_TRUE(RunAndCrashAt(point)) << point;
    ASSERT_TRUE(io::MakeDirectory(folder_ + "/elsewhere", 0755).ok());
    Target elsewhere = target_;
    elsewhere.path = folder_ + "/elsewhere/app.db";
    const Outcome outcome = Open()->Run(kOperation, order_, elsewhere, cancel_, nullptr);
    const bool placed = std::string(point) == "restore.replace.after_rename";
    EXPECT_EQ(outcome.status.ok(), placed) << outcome.status;
    EXPECT_EQ(Label(path_), placed ? "new" : "old") << point;
    EXPECT_EQ(LeftOver(), "") << point;
    EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/elsewhere")) << point;
  }
}

TEST_F(InterruptedTest, ARefusalAfterACrashDoesNotLeaveHalfARestore) {
  Make(path_, "old", "wal", 100);
  MakeSnapshot("wal");
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  ASSERT_TRUE(RunAndCrashAt("restore.replace.linked"));
  target_.push_restore = "never";
  EXPECT_EQ(ReasonOf(Run().status), "PUSH_RESTORE_DENIED");
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(LeftOver(), "");
}

TEST_F(InterruptedTest, ForgettingAnOperationThatNeverEndedSettlesIt) {
  Make(path_, "old", "wal", 100);
  MakeSnapshot("wal");
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  ASSERT_TRUE(RunAndCrashAt("restore.replace.linked"));
  ASSERT_TRUE(Open()->Forget(kOperation).ok());
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(LeftOver(), "");
  EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/state"));
}

TEST_F(InterruptedTest, ALostUndoAndStagingFileAreNoReasonToGuess) {
  Make(path_, "old", "wal", 3000);
  MakeSnapshot("wal", 6000);
  ASSERT_TRUE(RunAndCrashAt("restore.live.before_commit"));
  std::filesystem::remove(Staging());
  const Outcome outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "RESTORE_OUTCOME_UNKNOWN") << outcome.status;
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
  EXPECT_EQ(LeftOver(), "");
}

// ---- what was committed is not what was ordered

class ReadBackTest : public InterruptedTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    InterruptedTest::SetUp();
    Make(path_, "old", GetParam(), 3000);
    MakeSnapshot("wal", 6000);
    at_point_ = [this](std::string_view point) {
      if (point == "committed") SpoilACommittedPage();
      if (point == "differs" && others_commit_) CommitFromAnotherProcess();
    };
  }
  // By another process: closing a descriptor of the database here would drop SQLite's locks.
  void SpoilACommittedPage() const {
    const bool wal = std::string(GetParam()) == "wal";
    const uint64_t at = wal ? 32 + 40 * (4096 + 24) + 24 + 200 : 40 * 4096 + 200;
    const std::string command =
        fmt::format("printf damage | dd of='{}{}' bs=1 seek={} conv=notrunc 2>/dev/null", path_, wal ? "-wal" : "", at);
    ASSERT_EQ(std::system(command.c_str()), 0);
  }
  void CommitFromAnotherProcess() const {
    const pid_t pid = fork();
    if (pid == 0) {
      auto db = sqlite::Open(path_, SQLITE_OPEN_READWRITE);
      _exit(db.ok() && sqlite::Execute(db->get(), "insert into log values(1)").ok() ? 0 : 1);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    ASSERT_EQ(status, 0);
  }
  bool others_commit_ = false;
};

TEST_P(ReadBackTest, ADifferenceIsUndoneWhileNobodyHasCommitted) {
  const Outcome outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "READ_BACK_DIFFERS") << outcome.status;
  EXPECT_THAT(MessageOf(outcome.status), HasSubstr("the previous state was put back"));
  EXPECT_FALSE(outcome.applied);
  EXPECT_EQ(outcome.undo, "");
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(JournalMode(path_), GetParam());
  EXPECT_EQ(LeftOver(), "");
  EXPECT_FALSE(std::filesystem::exists(path_ + ".litefleet-undo"));
}

// Its commit is behind everything that a cancel or the end of the program could still change.
TEST_P(ReadBackTest, WhoAsksToStopAfterTheUndoIsToldOfIt) {
  for (const bool ends : {false, true}) {
    SCOPED_TRACE(ends);
    StartAnew(GetParam());
    CancelToken stop;
    const auto spoil = at_point_;
    at_point_ = [&](std::string_view point) {
      spoil(point);
      if (point == "undone") ends ? stop.Interrupt() : stop.Cancel();
    };
    const Outcome outcome = Open()->Run(kOperation, order_, target_, stop, nullptr);
    at_point_ = spoil;
    EXPECT_TRUE(stop.cancelled());
    EXPECT_EQ(ReasonOf(outcome.status), "READ_BACK_DIFFERS") << outcome.status;
    EXPECT_THAT(MessageOf(outcome.status), HasSubstr("the previous state was put back"));
    EXPECT_THAT(outcome.steps, Contains(HasSubstr("the read-back of the previous state was left out")));
    EXPECT_FALSE(outcome.applied);
    EXPECT_EQ(Label(path_), "old");
    EXPECT_EQ(LeftOver(), "");
  }
}

TEST_P(ReadBackTest, ADifferenceIsReportedAndTheUndoKeptWhereOthersHaveCommitted) {
  others_commit_ = true;
  const Outcome outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "READ_BACK_DIFFERS") << outcome.status;
  EXPECT_THAT(MessageOf(outcome.status), HasSubstr("others have committed since"));
  EXPECT_THAT(HintOf(outcome.status), HasSubstr(path_ + ".litefleet-undo"));
  EXPECT_TRUE(outcome.applied);
  EXPECT_EQ(outcome.undo, path_ + ".litefleet-undo");
  EXPECT_EQ(LogRows(path_), 1) << "nothing of theirs was undone";
  EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
  EXPECT_EQ(LeftOver(), "");
}

// Also where a cancel waits: it may not end the look at what the database holds.
TEST_P(ReadBackTest, ACrashWhileUndoingIsFinished) {
  for (const auto& [point, cancelled] : {std::pair("restore.live.undoing", false), std::pair("restore.live.undone", false),
                                         std::pair("restore.live.undoing", true), std::pair("restore.live.undone", true)}) {
    SCOPED_TRACE(cancelled);
    for (const auto& entry : std::filesystem::directory_iterator(data_)) std::filesystem::remove(entry.path());
    std::filesystem::remove_all(folder_ + "/state");
    Make(path_, "old", GetParam(), 3000);
    ASSERT_TRUE(RunAndCrashAt(point)) << point;
    const auto spoil = std::exchange(at_point_, nullptr);
    CancelToken cancel;
    if (cancelled) cancel.Cancel();
    const Outcome outcome = Open()->Run(kOperation, order_, target_, cancel, nullptr);
    at_point_ = spoil;
    EXPECT_EQ(ReasonOf(outcome.status), "READ_BACK_DIFFERS") << outcome.status;
    EXPECT_EQ(LeftOver(), "") << point;
    // A log of which a page is spoilt ends before that at the recovery, so that nothing was committed.
    EXPECT_EQ(outcome.applied, std::string_view(point) == "restore.live.undoing" && std::string(GetParam()) != "wal");
    if (outcome.applied) {
      EXPECT_EQ(outcome.undo, path_ + ".litefleet-undo");
      EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old") << point;
    } else {
      EXPECT_EQ(Label(path_), "old") << point;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ReadBackTest, ::testing::Values("wal", "delete"));

// What was renamed to the path is read back while a lease keeps everybody away.
class ReplacedReadBackTest : public InterruptedTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    InterruptedTest::SetUp();
    const std::string probe = folder_ + "/probe";
    ASSERT_TRUE(io::WriteFileAtomic(probe, "x").ok());
    const auto fd = io::Open(probe, O_RDWR);
    if (!OwnLease(fd->get()).held()) GTEST_SKIP() << "no leases are to be had on this file system";
    MakeSnapshot("wal", 6000);
    order_.set_mode(v1::RESTORE_MODE_REPLACE);
    StartAnew(GetParam());
    at_point_ = [this](std::string_view point) {
      if (point == "renaming" && spoils_) Spoil();
      if (point == come_at_) Come();
    };
  }
  void Spoil() const {
    auto fd = io::Open(Staging(), O_RDWR);
    ASSERT_TRUE(io::PwriteAll(fd->get(), AsBytes(std::string("damage")), 40 * 4096 + 200, "staging").ok());
  }
  // As an application that is started: it would wait, and here it does not want to.
  void Come() const {
    EXPECT_LT(open(path_.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC), 0);
    EXPECT_EQ(errno, EWOULDBLOCK);
  }

  bool spoils_ = true;
  std::string come_at_;
};

TEST_P(ReplacedReadBackTest, WhatIsTheSnapshotStays) {
  spoils_ = false;
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_THAT(outcome.steps, Contains(HasSubstr("read the database back: it is the snapshot")));
  EXPECT_EQ(Label(path_), "new");
}

TEST_P(ReplacedReadBackTest, ADifferenceIsTakenBack) {
  const Outcome outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "READ_BACK_DIFFERS") << outcome.status;
  EXPECT_THAT(MessageOf(outcome.status), HasSubstr("the previous state was put back"));
  EXPECT_FALSE(outcome.applied);
  EXPECT_EQ(outcome.undo, "");
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(JournalMode(path_), GetParam());
  EXPECT_EQ(LeftOver(), "");
  EXPECT_FALSE(io::Exists(path_ + ".litefleet-undo"));
  // The storage is as it should be again.
  spoils_ = false;
  ASSERT_TRUE(Open()->Forget(kOperation).ok());
  EXPECT_TRUE(Run().status.ok());
  EXPECT_EQ(Label(path_), "new");
}

TEST_P(ReplacedReadBackTest, WhoComesMeanwhileIsLetIn) {
  come_at_ = "renamed";
  spoils_ = false;
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_THAT(outcome.steps, Contains(HasSubstr("the read-back was left out: somebody opens the database already")));
  EXPECT_EQ(Label(path_), "new");
}

TEST_P(ReplacedReadBackTest, NothingIsTakenAwayFromWhoComes) {
  come_at_ = "differs";
  const Outcome outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "READ_BACK_DIFFERS") << outcome.status;
  EXPECT_THAT(HintOf(outcome.status), HasSubstr(path_ + ".litefleet-undo"));
  EXPECT_TRUE(outcome.applied);
  EXPECT_EQ(outcome.undo, path_ + ".litefleet-undo");
  EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
  EXPECT_EQ(LeftOver(), "");
}

// An application that opens the new file while the old one is on its way back waits for it: its log will lie beside what it has opened.
TEST_P(ReplacedReadBackTest, WhoComesWhileItIsTakenBackHasTheFileOfThePath) {
  int fd = -1;
  std::thread application;
  const auto spoil = at_point_;
  at_point_ = [&](std::string_view point) {
    spoil(point);
    if (point != "taking back") return;
    std::atomic<pid_t> id{0};
    application = std::thread([&] {
      id = gettid();
      fd = open(path_.c_str(), O_RDWR | O_CLOEXEC);
    });
    const auto waits = [&] {
      const std::string stat = io::ReadFile(fmt::format("/proc/self/task/{}/stat", id.load())).value_or("");
      return stat.find(") S ") != std::string::npos;
    };
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while ((id == 0 || !waits()) && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  };
  const Outcome outcome = Run();
  ASSERT_TRUE(application.joinable());
  application.join();
  ASSERT_GE(fd, 0);
  struct stat opened {
  }, there{};
  ASSERT_EQ(fstat(fd, &opened), 0);
  ASSERT_EQ(stat(path_.c_str(), &there), 0);
  close(fd);
  EXPECT_EQ(opened.st_ino, there.st_ino);
  EXPECT_EQ(ReasonOf(outcome.status), "READ_BACK_DIFFERS") << outcome.status;
  EXPECT_TRUE(outcome.applied);
  EXPECT_EQ(outcome.undo, path_ + ".litefleet-undo");
  EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
  EXPECT_EQ(LeftOver(), "");
}

TEST_P(ReplacedReadBackTest, ACrashWhileTheNewFileGetsThePathAgainIsFinished) {
  come_at_ = "taking back";
  for (const char* point : {"restore.replace.forth_linked", "restore.replace.forth"}) {
    SCOPED_TRACE(point);
    StartAnew(GetParam());
    ASSERT_TRUE(RunAndCrashAt(point));
    const Outcome outcome = Run();
    EXPECT_EQ(ReasonOf(outcome.status), "READ_BACK_DIFFERS") << outcome.status;
    EXPECT_EQ(outcome.applied, std::string_view(point) == "restore.replace.forth");
    EXPECT_EQ(Label(outcome.applied ? path_ + ".litefleet-undo" : path_), "old");
    EXPECT_EQ(LeftOver(), "");
  }
}

// Between the rename and the look at who came, to the old file: it gets the path back only where nobody came to the new one.
TEST_P(ReplacedReadBackTest, WhatIsTakenBackForWhoOpenedTheOldFileIsNotTakenFromOthers) {
  spoils_ = false;
  for (const bool both : {false, true}) {
    SCOPED_TRACE(both);
    StartAnew(GetParam());
    const auto come = at_point_;
    at_point_ = [&](std::string_view point) {
      if (point != "placed") return;
      const std::string old = data_ + "/.litefleet-" + kOperation + ".undo";
      EXPECT_LT(open(old.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC), 0);
      if (both) Come();
    };
    const Outcome outcome = Run();
    at_point_ = come;
    EXPECT_EQ(ReasonOf(outcome.status), both ? "" : "IN_USE") << outcome.status;
    EXPECT_EQ(outcome.applied, both);
    EXPECT_EQ(Label(path_), both ? "new" : "old");
    if (both) {
      EXPECT_THAT(outcome.steps, Contains(HasSubstr("could not be taken back: somebody opens the new database already")));
      EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
    }
    EXPECT_EQ(LeftOver(), "");
  }
}

// Also of a database that cannot be opened, whose log comes back with it.
TEST_P(ReplacedReadBackTest, ACrashWhileItIsTakenBackIsFinished) {
  for (const bool garbage : {false, true}) {
    // The third: of a run that comes then, and has just given the undo its name.
    const std::string installed = garbage ? "restore.undo_part_installed:4" : "restore.undo_part_installed";
    for (const auto& [point, again] : {std::pair<std::string, std::string>("restore.replace.undoing", ""),
                                       {"restore.replace.undone", ""},
                                       {"restore.replace.undoing", installed},
                                       {"restore.replace.undoing", "restore.before_done"}}) {
      SCOPED_TRACE(fmt::format("{} {} {}", point, again, garbage));
      StartAnew(garbage ? "" : GetParam());
      if (garbage) {
        ASSERT_TRUE(io::WriteFileAtomic(path_, std::string(8192, 'x')).ok());
        ASSERT_TRUE(io::WriteFileAtomic(path_ + "-wal", "its log").ok());
      }
      const auto old = [&](const std::string& path) {
        return garbage ? io::ReadFile(path).value_or("") == std::string(8192, 'x') && io::ReadFile(path + "-wal").value_or("") == "its log"
                       : Label(path) == "old";
      };
      ASSERT_TRUE(RunAndCrashAt(point));
      if (!again.empty()) {
        ASSERT_TRUE(RunAndCrashAt(again));
      }
      const Outcome outcome = Run();
      EXPECT_EQ(ReasonOf(outcome.status), "READ_BACK_DIFFERS") << outcome.status;
      EXPECT_EQ(outcome.applied, point == "restore.replace.undoing");
      EXPECT_EQ(outcome.undo, outcome.applied ? path_ + ".litefleet-undo" : "");
      EXPECT_THAT(MessageOf(outcome.status), HasSubstr(outcome.applied ? "was interrupted" : "the previous state was put back"));
      EXPECT_TRUE(old(outcome.applied ? path_ + ".litefleet-undo" : path_));
      EXPECT_EQ(LeftOver(), "");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ReplacedReadBackTest, ::testing::Values("wal", "delete"));

}  // namespace
}  // namespace litefleet::restore
