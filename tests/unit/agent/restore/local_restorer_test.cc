#include "agent/restore/local_restorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <optional>

#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

class LocalRestorerTest : public RestoreFixture {};

// ---- new

TEST_F(LocalRestorerTest, NewFileIsTheSnapshotByteForByte) {
  MakeSnapshot("wal");
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.mode, v1::RESTORE_MODE_NEW);
  EXPECT_EQ(*io::ReadFile(path_, 1 << 30), *io::ReadFile(fetcher_.path, 1 << 30));
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(LeftOver(), "");
  EXPECT_EQ(outcome.undo, "");
  EXPECT_EQ(last_.done_bytes(), last_.total_bytes());
  EXPECT_EQ(last_.total_bytes(), static_cast<int64_t>(std::filesystem::file_size(fetcher_.path)));
  EXPECT_GT(last_.wire_bytes(), 0);
  struct stat st {};
  ASSERT_EQ(stat(path_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
}

TEST_F(LocalRestorerTest, NewMovesLeftOverLogAside) {
  MakeSnapshot("wal");
  Make(path_, "old", "wal", 100);
  {
    Application application(path_, Application::kWriting);
    application.Kill();
  }
  ASSERT_TRUE(std::filesystem::exists(path_ + "-wal"));
  const std::string wal = *io::ReadFile(path_ + "-wal");
  std::filesystem::remove(path_);
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(LogRows(path_), 0);
  EXPECT_EQ(outcome.undo, "") << "there was no database, and no file of that name is there";
  EXPECT_EQ(std::count(outcome.steps.begin(), outcome.steps.end(), "kept the left-over -wal as " + path_ + ".litefleet-undo-wal"), 1);
  EXPECT_EQ(*io::ReadFile(path_ + ".litefleet-undo-wal"), wal);
}

TEST_F(LocalRestorerTest, NewMovesALeftOverJournalAside) {
  MakeSnapshot("delete");
  Make(path_, "old", "delete", 3000);
  LeaveHotJournal(path_);
  const std::string journal = *io::ReadFile(path_ + "-journal", 1 << 30);
  std::filesystem::remove(path_);
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new") << "SQLite would have rolled it back into the new file";
  EXPECT_EQ(*io::ReadFile(path_ + ".litefleet-undo-journal", 1 << 30), journal);
}

TEST_F(LocalRestorerTest, EmptyDatabaseIsRestored) {
  ASSERT_TRUE(io::WriteFileAtomic(fetcher_.path, "").ok());
  Order();
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(std::filesystem::file_size(path_), 0u);
}

// SQLite's backup of nothing commits at once: no lock was had, and the undo would be of what is there then.
TEST_F(LocalRestorerTest, AnEmptySnapshotIsNotRestoredLive) {
  for (const std::string journal : {"wal", "delete"}) {
    ASSERT_TRUE(io::WriteFileAtomic(fetcher_.path, "").ok());
    Make(path_, "old", journal, 10);
    Order();
    EXPECT_EQ(ReasonOf(Run().status), "SNAPSHOT_EMPTY") << journal;
    EXPECT_EQ(Label(path_), "old") << journal;
    EXPECT_EQ(LeftOver(), "");
    std::filesystem::remove(path_);
  }
}

TEST_F(LocalRestorerTest, NewRefusesAnExistingDatabase) {
  MakeSnapshot("wal");
  order_.set_mode(v1::RESTORE_MODE_NEW);
  for (const char* journal : {"wal", "delete"}) {
    for (const bool open : {false, true}) {
      SCOPED_TRACE(fmt::format("{} {}", journal, open ? "idle" : "stopped"));
      StartAnew(journal, 10);
      std::optional<Application> application;
      if (open) application.emplace(path_, Application::kIdle);
      EXPECT_EQ(ReasonOf(Run().status), "TARGET_EXISTS");
      EXPECT_EQ(Label(path_), "old");
      if (open) {
        EXPECT_EQ(application->Stop(), 0);
      }
      EXPECT_EQ(LeftOver(), "");
    }
  }
}

TEST_F(LocalRestorerTest, DatabaseThatAppearsDuringTheFetchIsNotOverwritten) {
  MakeSnapshot("wal");
  fetcher_.before_fetch = [&] { Make(path_, "old", "wal", 10); };
  EXPECT_EQ(ReasonOf(Run().status), "TARGET_EXISTS");
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(LeftOver(), "");
}

TEST_F(LocalRestorerTest, CutFetchGoesOnWhereItStopped) {
  MakeSnapshot("delete", 20000);
  fetcher_.cuts = 1;
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(fetcher_.calls, 2);
  EXPECT_EQ(Label(path_), "new");
}

TEST_F(LocalRestorerTest, OtherContentThanOrderedIsRefused) {
  MakeSnapshot("wal");
  fetcher_.spoil = true;
  EXPECT_EQ(ReasonOf(Run().status), "ROOT_MISMATCH");
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_EQ(LeftOver(), "");
}

TEST_F(LocalRestorerTest, SymbolicLinkIsResolvedOnce) {
  MakeSnapshot("wal");
  ASSERT_TRUE(io::MakeDirectory(folder_ + "/elsewhere", 0755).ok());
  std::filesystem::create_symlink("../elsewhere/real.db", path_);
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(std::filesystem::is_symlink(path_));
  EXPECT_EQ(Label(folder_ + "/elsewhere/real.db"), "new");
}

TEST_F(LocalRestorerTest, SameOperationAgainGivesTheSameOutcome) {
  MakeSnapshot("wal");
  ASSERT_TRUE(Run().status.ok());
  const Outcome again = Run();
  EXPECT_TRUE(again.status.ok());
  EXPECT_EQ(fetcher_.calls, 1);
  ASSERT_TRUE(Open()->Forget(kOperation).ok());
}

// Who owns the directory sees the staging file appear, and would have an agent with more rights write elsewhere.
TEST_F(LocalRestorerTest, ALinkThatIsPlantedDuringTheRestoreIsNotFollowed) {
  const std::string secret = folder_ + "/secret.db";
  for (const v1::RestoreMode mode : {v1::RESTORE_MODE_LIVE, v1::RESTORE_MODE_REPLACE}) {
    for (const bool crash : {false, true}) {
      std::filesystem::remove_all(folder_ + "/state");
      for (const auto& entry : std::filesystem::directory_iterator(data_)) std::filesystem::remove(entry.path());
      std::filesystem::remove(secret);
      Make(path_, "old", "delete", 100);
      Make(secret, "his", "delete", 100);
      MakeSnapshot("delete", 100);
      order_.set_mode(mode);
      const auto plant = [&] {
        std::filesystem::remove(path_);
        std::filesystem::create_symlink(secret, path_);
      };
      fetcher_.before_fetch = nullptr;
      if (crash) {
        ASSERT_TRUE(RunAndCrashAt("restore.checked"));
        plant();
      } else {
        fetcher_.before_fetch = plant;
      }
      const Outcome outcome = Run();
      EXPECT_EQ(ReasonOf(outcome.status), "FILE_REPLACED") << outcome.status;
      EXPECT_FALSE(outcome.applied);
      EXPECT_EQ(Label(secret), "his");
      EXPECT_FALSE(io::Exists(path_ + ".litefleet-undo"));
      EXPECT_FALSE(io::Exists(secret + ".litefleet-undo"));
    }
  }
}

// ---- orders and checks

TEST_F(LocalRestorerTest, DeviceMayRefuse) {
  MakeSnapshot("wal");
  target_.push_restore = "never";
  EXPECT_EQ(ReasonOf(Run().status), "PUSH_RESTORE_DENIED");
  EXPECT_EQ(fetcher_.calls, 0);
}

TEST_F(LocalRestorerTest, DamagedSnapshotNeedsAnOverride) {
  MakeSnapshot("delete");
  {
    auto fd = io::Open(fetcher_.path, O_RDWR);
    ASSERT_TRUE(io::PwriteAll(fd->get(), AsBytes(std::string(4096, 'x')), 4096 * 30, "snapshot").ok());
  }
  Order();
  EXPECT_EQ(ReasonOf(Run().status), "SNAPSHOT_DAMAGED");
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_EQ(LeftOver(), "");
  order_.set_check_override(true);
  EXPECT_TRUE(Run("01JD0000000000000000000002").status.ok());
  EXPECT_EQ(*io::ReadFile(path_, 1 << 30), *io::ReadFile(fetcher_.path, 1 << 30));
  std::filesystem::remove(path_);
  order_.set_check_override(false);
  order_.set_check_state(v1::CHECK_STATE_DAMAGED);
  EXPECT_TRUE(Run("01JD0000000000000000000003").status.ok());
}

TEST_F(LocalRestorerTest, TooLittleSpaceIsSeenBeforeTheFetch) {
  MakeSnapshot("wal");
  target_.reserve = io::DiskReserve(uint64_t{1} << 60);
  const Outcome outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "NOT_ENOUGH_SPACE");
  EXPECT_EQ(fetcher_.calls, 0);
}

TEST_F(LocalRestorerTest, FullDiskLeavesNothing) {
  if (geteuid() != 0 || mount("tmpfs", data_.c_str(), "tmpfs", 0, "size=3m") != 0) GTEST_SKIP() << "needs root and mounts";
  MakeSnapshot("wal", 4000);
  RestorerOptions options;
  options.state_folder = folder_ + "/state";
  target_.reserve = io::DiskReserve(0);
  {
    const auto restorer = LocalRestorer::Open(options, fetcher_);
    // Filled after the space was looked at.
    fetcher_.before_fetch = [&] {
      auto fd = io::Open(data_ + "/filler", O_RDWR | O_CREAT);
      const std::string block(65536, 'x');
      while (write(fd->get(), block.data(), block.size()) > 0) {}
    };
    ASSERT_GT(order_.page_count() * 4096u, 1u << 20);
    const Outcome outcome = (*restorer)->Run(kOperation, order_, target_, cancel_, nullptr);
    if (outcome.status.ok()) {
      // Its space was reserved before: the fetch does not need more.
      std::filesystem::remove(data_ + "/filler");
      EXPECT_EQ(Label(path_), "new");
    } else {
      EXPECT_EQ(outcome.status.code(), absl::StatusCode::kResourceExhausted) << outcome.status;
    }
    EXPECT_EQ(LeftOver(), "");
  }
  ASSERT_EQ(umount(data_.c_str()), 0);
}

// ---- live

TEST_F(LocalRestorerTest, LiveWithNobodyThereLeavesNoFilesBeside) {
  for (const char* mode : {"wal", "delete"}) {
    std::filesystem::remove(path_);
    Make(path_, "old", mode, 100);
    MakeSnapshot("wal");
    ASSERT_TRUE(Run(std::string("01JD00000000000000000000") + mode[0] + "3").status.ok());
    for (const std::string_view suffix : kCompanions) EXPECT_FALSE(std::filesystem::exists(path_ + std::string(suffix))) << mode;
    EXPECT_EQ(Label(path_), "new");
    EXPECT_EQ(JournalMode(path_), mode);
    EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
  }
}

TEST_F(LocalRestorerTest, LiveIntoADatabaseWithACrashedApplicationsHotJournal) {
  Make(path_, "old", "delete", 3000);
  LeaveHotJournal(path_);
  MakeSnapshot("wal");
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.mode, v1::RESTORE_MODE_LIVE);
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old") << "rolled back, not half of a transaction";
  EXPECT_FALSE(std::filesystem::exists(path_ + "-journal"));
}

TEST_F(LocalRestorerTest, LiveIntoADatabaseWithACrashedApplicationsLog) {
  Make(path_, "old", "wal", 100);
  {
    Application application(path_, Application::kWriting);
    application.Kill();
  }
  MakeSnapshot("wal");
  ASSERT_TRUE(Run().status.ok());
  EXPECT_EQ(Label(path_), "new");
  EXPECT_GT(LogRows(path_ + ".litefleet-undo"), 0);
}

TEST_F(LocalRestorerTest, LiveIntoAnotherPageSize) {
  Make(path_, "old", "wal", 100, 4096);
  MakeSnapshot("wal", 5000, 1024);
  const Outcome refused = Run();
  EXPECT_EQ(ReasonOf(refused.status), "PAGE_SIZE_DIFFERS");
  EXPECT_THAT(HintOf(refused.status), HasSubstr("--mode replace"));
  EXPECT_EQ(Label(path_), "old");
  std::filesystem::remove(path_);
  Make(path_, "old", "delete", 100, 4096);
  const Outcome outcome = Run("01JD0000000000000000000002");
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
}

TEST_F(LocalRestorerTest, LiveIntoGarbageNamesReplace) {
  ASSERT_TRUE(io::WriteFileAtomic(path_, std::string(8192, 'x')).ok());
  MakeSnapshot("wal");
  const Outcome outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "TARGET_NOT_OPENABLE");
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(HintOf(outcome.status), HasSubstr("--mode replace"));
}

TEST_F(LocalRestorerTest, LiveIntoAnEmptyFile) {
  ASSERT_TRUE(io::WriteFileAtomic(path_, "").ok());
  MakeSnapshot("wal");
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
}

TEST_F(LocalRestorerTest, CancelInEveryPhaseLeavesTheOldState) {
  MakeSnapshot("wal", 30000);
  for (const auto mode : {v1::RESTORE_MODE_NEW, v1::RESTORE_MODE_LIVE, v1::RESTORE_MODE_REPLACE}) {
    if (mode == v1::RESTORE_MODE_LIVE) Make(path_, "old", "wal", 100);
    order_.set_mode(mode);
    for (const char* phase : {"fetching", "checking", "applying"}) {
      CancelToken cancel;
      const std::string operation = fmt::format("01JD0000000000000000000{}{}1", static_cast<int>(mode), phase[0]);
      std::optional<std::chrono::steady_clock::time_point> cancelled;
      const Outcome outcome = Open()->Run(operation, order_, target_, cancel, [&](const v1::Progress& progress) {
        if (progress.phase() != phase || cancelled) return;
        cancelled = std::chrono::steady_clock::now();
        cancel.Cancel();
      });
      EXPECT_EQ(outcome.status.code(), absl::StatusCode::kCancelled) << mode << phase << outcome.status;
      ASSERT_TRUE(cancelled) << mode << phase;
      EXPECT_LT(std::chrono::steady_clock::now() - *cancelled, std::chrono::seconds(2)) << mode << phase;
      if (mode == v1::RESTORE_MODE_NEW) {
        EXPECT_FALSE(std::filesystem::exists(path_)) << phase;
      } else {
        EXPECT_EQ(Label(path_), "old") << mode << phase;
      }
      EXPECT_EQ(LeftOver(), "") << mode << phase;
    }
  }
}

// ---- replace

TEST_F(LocalRestorerTest, ReplaceFoldsTheLogOfACrashedApplicationIntoTheUndo) {
  Make(path_, "old", "wal", 100);
  {
    Application application(path_, Application::kWriting);
    application.Kill();
  }
  MakeSnapshot("delete");
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.mode, v1::RESTORE_MODE_REPLACE);
  EXPECT_EQ(*io::ReadFile(path_, 1 << 30), *io::ReadFile(fetcher_.path, 1 << 30));
  EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
  EXPECT_GT(LogRows(path_ + ".litefleet-undo"), 0);
  EXPECT_FALSE(std::filesystem::exists(path_ + "-wal"));
  EXPECT_EQ(LeftOver(), "");
}

// A supervisor starts it again and again, and it dies each time.
TEST_F(LocalRestorerTest, ReplaceFoldsAgainWhatAnApplicationCommittedAfterTheFold) {
  for (const char* mode : {"wal", "delete"}) {
    for (const auto& entry : std::filesystem::directory_iterator(data_)) std::filesystem::remove(entry.path());
    std::filesystem::remove_all(folder_ + "/state");
    Make(path_, "old", mode, 100);
    MakeSnapshot("wal");
    order_.set_mode(v1::RESTORE_MODE_REPLACE);
    const pid_t pid = fork();
    if (pid == 0) {
      setenv("LITEFLEET_STOP_AT", "restore.replace.folded", 1);
      _exit(Run().status.ok() ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, WUNTRACED), pid);
    ASSERT_TRUE(WIFSTOPPED(status));
    {
      Application application(path_, Application::kWriting);
      application.Kill();
    }
    kill(pid, SIGCONT);
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0) << mode;
    EXPECT_EQ(Label(path_), "new");
    EXPECT_EQ(LogRows(path_), 0) << "no log of the old file was taken for one of the new";
    EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
    EXPECT_GT(LogRows(path_ + ".litefleet-undo"), 0) << mode;
    EXPECT_EQ(LeftOver(), "");
  }
}

TEST_F(LocalRestorerTest, ReplaceRollsAHotJournalBack) {
  Make(path_, "old", "delete", 3000);
  LeaveHotJournal(path_);
  MakeSnapshot("wal");
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
}

TEST_F(LocalRestorerTest, ReplaceIsRefusedWhileSomebodyHasItOpen) {
  for (const char* mode : {"wal", "delete"}) {
    for (const auto kind : {Application::kIdle, Application::kWriting, Application::kReading}) {
      std::filesystem::remove(path_);
      Make(path_, "old", mode, 100);
      MakeSnapshot("wal");
      order_.set_mode(v1::RESTORE_MODE_REPLACE);
      Application application(path_, kind);
      const Outcome outcome = Run(fmt::format("01JD00000000000000000000{}{}", mode[0], static_cast<int>(kind)));
      EXPECT_EQ(ReasonOf(outcome.status), "IN_USE") << outcome.status;
      EXPECT_THAT(MessageOf(outcome.status), HasSubstr(std::to_string(application.pid())));
      EXPECT_EQ(application.Stop(), 0);
      EXPECT_EQ(Label(path_), "old");
      EXPECT_EQ(LeftOver(), "");
    }
  }
}

TEST_F(LocalRestorerTest, ReplaceOfGarbageMovesItAsideWithItsLog) {
  Make(path_, "old", "wal", 100);
  {
    Application application(path_, Application::kWriting);
    application.Kill();
  }
  {
    auto fd = io::Open(path_, O_RDWR);
    ASSERT_TRUE(io::PwriteAll(fd->get(), AsBytes(std::string(4096, 'x')), 0, path_).ok());
  }
  const std::string garbage = *io::ReadFile(path_, 1 << 30);
  const std::string wal = *io::ReadFile(path_ + "-wal", 1 << 30);
  MakeSnapshot("wal");
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(LogRows(path_), 0);
  EXPECT_EQ(*io::ReadFile(path_ + ".litefleet-undo", 1 << 30), garbage);
  EXPECT_EQ(*io::ReadFile(path_ + ".litefleet-undo-wal", 1 << 30), wal);
}

TEST_F(LocalRestorerTest, UndoIsReplacedByTheNextRestoreAndDroppedOnRequest) {
  Make(path_, "old", "wal", 100);
  MakeSnapshot("wal");
  ASSERT_TRUE(Run().status.ok());
  EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  ASSERT_TRUE(Run("01JD0000000000000000000002").status.ok());
  EXPECT_EQ(Label(path_ + ".litefleet-undo"), "new");
  const auto restorer = Open();
  ASSERT_EQ(restorer->ListUndos()->size(), 1u);
  const auto idle = [](const std::string&) { return false; };
  EXPECT_TRUE(restorer->DropUndosOlderThan(std::chrono::hours(24), RealClock(), idle).empty());
  EXPECT_EQ(restorer->DropUndosOlderThan(std::chrono::seconds(-10), RealClock(), idle), std::vector<std::string>{"app"});
  EXPECT_FALSE(std::filesystem::exists(path_ + ".litefleet-undo"));
  EXPECT_TRUE(restorer->ListUndos()->empty());
}

}  // namespace
}  // namespace litefleet::restore
