// A restore that is killed at each of its steps: the old state or the new one, and then the end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/agent/restore/kill_points.h"
#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::HasSubstr;

class RestoreCrashTest : public RestoreFixture {};

constexpr auto kNew = v1::RESTORE_MODE_NEW;
constexpr auto kLive = v1::RESTORE_MODE_LIVE;
constexpr auto kReplace = v1::RESTORE_MODE_REPLACE;

// The target's and the snapshot's journal mode; the target's is empty where nothing is there.
struct CrashCell {
  v1::RestoreMode mode;
  const char* journal;
  const char* snapshot;
};

std::string CellName(const ::testing::TestParamInfo<CrashCell>& info) {
  const std::string mode = info.param.mode == kNew ? "new" : info.param.mode == kLive ? "live" : "replace";
  return fmt::format("{}_{}{}from_{}", mode, info.param.journal, *info.param.journal == 0 ? "" : "_", info.param.snapshot);
}

// At each point of a whole restore.
class CrashTest : public RestoreFixture, public ::testing::WithParamInterface<CrashCell> {
 protected:
  void SetUp() override {
    RestoreFixture::SetUp();
    MakeSnapshot(GetParam().snapshot, 6000);
    order_.set_mode(GetParam().mode);
    StartAnew(GetParam().journal);
    points_ = KillPointsOf(folder_ + "/points", [this] { return Run().status.ok(); });
    for (const KillPoint& point : points_) {
      if (point.at == "restore.prepared") prepared_ = point.position;
    }
  }
  std::string Parent() const override { return InMemory(); }
  bool from_nothing() const { return GetParam().mode == kNew; }

  std::vector<KillPoint> points_;
  size_t prepared_ = 0;
};

TEST_P(CrashTest, AWholeRestorePassesTheseAtLeast) {
  const std::vector<std::string> passed = NamesOf(points_);
  std::vector<std::string> wanted = {"restore.prepared",     "restore.staging_created", "restore.fetching",
                                     "restore.staged",       "restore.checked",         "restore.undo_installed",
                                     "restore.checkpointed", "restore.before_done",     "restore.done"};
  const std::vector<std::string> placed = {"restore.new.before_move", "restore.new.before_rename", "restore.new.after_rename"};
  const std::vector<std::string> copied = {"restore.live.before_versions", "restore.live.undo_created",  "restore.live.before_lock",
                                           "restore.live.locked",          "restore.live.undo_complete", "restore.live.copying",
                                           "restore.live.before_commit",   "restore.live.after_commit",  "restore.live.applied",
                                           "restore.undo_part_installed"};
  const std::vector<std::string> renamed = {"restore.replace.folded",        "restore.replace.before_link",  "restore.replace.linked",
                                            "restore.replace.before_rename", "restore.replace.after_rename", "restore.undo_part_installed"};
  const auto& own = GetParam().mode == kNew ? placed : GetParam().mode == kLive ? copied : renamed;
  wanted.insert(wanted.end(), own.begin(), own.end());
  if (GetParam().mode == kReplace && std::string_view(GetParam().journal) == "wal") wanted.emplace_back("restore.replace.checkpointed");
  EXPECT_THAT(passed, ::testing::IsSupersetOf(wanted));
}

TEST_P(CrashTest, OldOrNewThenFinished) {
  for (const KillPoint& point : points_) {
    SCOPED_TRACE(point.at);
    StartAnew(GetParam().journal);
    ASSERT_TRUE(RunAndCrashAt(point.at)) << "never came there";
    // As an application finds it at its next start, on a copy so that recovery starts from what the crash left.
    const std::string copy = folder_ + "/copy";
    std::filesystem::copy(data_, copy, std::filesystem::copy_options::recursive);
    if (std::filesystem::exists(copy + "/app.db")) {
      EXPECT_THAT(Label(copy + "/app.db"), ::testing::AnyOf("old", "new"));
    } else {
      EXPECT_TRUE(from_nothing());
    }
    const Outcome outcome = Run();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(Label(path_), "new");
    if (!from_nothing()) {
      EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
    }
    if (GetParam().mode == kLive) {
      EXPECT_EQ(JournalMode(path_), GetParam().journal);
    }
    EXPECT_EQ(LeftOver(), "");
  }
}

TEST_P(CrashTest, OperationWithoutAnOrderIsFinishedOrRolledBackOffline) {
  for (const KillPoint& point : points_) {
    SCOPED_TRACE(point.at);
    StartAnew(GetParam().journal);
    ASSERT_TRUE(RunAndCrashAt(point.at)) << "never came there";
    fetcher_.calls = 0;
    const auto recovery = Open()->Recover({});
    ASSERT_EQ(recovery.said.size(), point.position < prepared_ ? 0u : 1u) << "nothing is known of it before it is written down";
    EXPECT_EQ(LeftOver(), "");
    EXPECT_EQ(fetcher_.calls, 0) << "nothing is fetched";
    const std::string label = std::filesystem::exists(path_) ? Label(path_) : "none";
    const std::string before = from_nothing() ? "none" : "old";
    if (recovery.ended.empty()) {
      EXPECT_EQ(label, before);
      if (!recovery.said.empty()) {
        EXPECT_THAT(recovery.said[0], HasSubstr("rolled"));
      }
    } else {
      EXPECT_EQ(label, "new") << recovery.said[0];
      EXPECT_TRUE(recovery.ended[0].outcome.status.ok()) << recovery.ended[0].outcome.status;
      EXPECT_TRUE(recovery.ended[0].outcome.applied);
      EXPECT_EQ(recovery.ended[0].order.new_timeline(), 2u);
      if (before == "old") {
        EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
      }
      ASSERT_TRUE(Open()->Forget(kOperation).ok());
    }
    EXPECT_TRUE(Open()->Recover({}).said.empty()) << "once";
    if (!recovery.ended.empty()) continue;
    // The same order again begins anew.
    EXPECT_TRUE(Run().status.ok());
    EXPECT_EQ(Label(path_), "new");
  }
}

INSTANTIATE_TEST_SUITE_P(All, CrashTest,
                         ::testing::Values(CrashCell{kNew, "", "wal"}, CrashCell{kNew, "", "delete"}, CrashCell{kLive, "wal", "wal"},
                                           CrashCell{kLive, "wal", "delete"}, CrashCell{kLive, "delete", "wal"},
                                           CrashCell{kLive, "delete", "delete"}, CrashCell{kReplace, "wal", "wal"},
                                           CrashCell{kReplace, "wal", "delete"}, CrashCell{kReplace, "delete", "wal"},
                                           CrashCell{kReplace, "delete", "delete"}),
                         CellName);

TEST_F(RestoreCrashTest, CrashWhileGarbageIsMovedAsideIsFinished) {
  for (const char* point : {"restore.replace.linked", "restore.companion_moved", "restore.replace.before_rename",
                            "restore.replace.after_rename", "restore.undo_part_installed:2"}) {
    for (const auto& entry : std::filesystem::directory_iterator(data_)) std::filesystem::remove(entry.path());
    std::filesystem::remove_all(folder_ + "/state");
    ASSERT_TRUE(io::WriteFileAtomic(path_, std::string(8192, 'x')).ok());
    ASSERT_TRUE(io::WriteFileAtomic(path_ + "-wal", "its log").ok());
    MakeSnapshot("wal");
    order_.set_mode(kReplace);
    ASSERT_TRUE(RunAndCrashAt(point)) << point;
    const Outcome outcome = Run();
    ASSERT_TRUE(outcome.status.ok()) << point << outcome.status;
    EXPECT_EQ(Label(path_), "new") << point;
    EXPECT_EQ(*io::ReadFile(path_ + ".litefleet-undo-wal"), "its log") << point;
    EXPECT_EQ(*io::ReadFile(path_ + ".litefleet-undo"), std::string(8192, 'x')) << point;
    EXPECT_EQ(LeftOver(), "") << point;
  }
}

// Somebody opens the database between two runs: his log overwrites nothing, and is not overwritten.
TEST_F(RestoreCrashTest, ALogThatComesWhileAnotherIsAsideIsKeptBesideIt) {
  const std::string aside = data_ + "/.litefleet-" + kOperation + ".undo-wal";
  for (const auto mode : {kReplace, kNew}) {
    SCOPED_TRACE(static_cast<int>(mode));
    StartAnew("");
    if (mode == kReplace) {
      ASSERT_TRUE(io::WriteFileAtomic(path_, std::string(8192, 'x')).ok());
    }
    ASSERT_TRUE(io::WriteFileAtomic(path_ + "-wal", "its log").ok());
    MakeSnapshot("wal");
    order_.set_mode(mode);
    ASSERT_TRUE(RunAndCrashAt("restore.companion_moved"));
    ASSERT_TRUE(io::WriteFileAtomic(path_ + "-wal", "other log").ok());
    const Outcome outcome = Run();
    EXPECT_EQ(ReasonOf(outcome.status), "LEFTOVER_CAME") << outcome.status;
    EXPECT_FALSE(outcome.applied);
    EXPECT_EQ(io::ReadFile(path_ + "-wal").value_or("gone"), "other log");
    EXPECT_EQ(io::ReadFile(aside).value_or("gone"), "its log");
    EXPECT_THAT(outcome.steps, ::testing::Contains(HasSubstr("it is kept as " + aside)).Times(1));
    EXPECT_EQ(io::Exists(path_), mode == kReplace);
    // Another order finds one alone.
    const Outcome again = Run("01JD0000000000000000000002");
    EXPECT_TRUE(again.status.ok()) << again.status;
    EXPECT_EQ(Label(path_), "new");
    EXPECT_EQ(io::ReadFile(path_ + ".litefleet-undo-wal").value_or("gone"), "other log");
    EXPECT_EQ(io::ReadFile(aside).value_or("gone"), "its log");
  }
}

TEST_F(RestoreCrashTest, WhatComesWithoutContentIsNoReasonToStop) {
  ASSERT_TRUE(io::WriteFileAtomic(path_, std::string(8192, 'x')).ok());
  for (const char* suffix : {"-wal", "-shm"}) ASSERT_TRUE(io::WriteFileAtomic(path_ + suffix, "its own").ok());
  MakeSnapshot("wal");
  order_.set_mode(kReplace);
  ASSERT_TRUE(RunAndCrashAt("restore.replace.before_rename"));
  ASSERT_TRUE(io::WriteFileAtomic(path_ + "-wal", "").ok());
  ASSERT_TRUE(io::WriteFileAtomic(path_ + "-shm", "other").ok());
  const Outcome outcome = Run();
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
  for (const char* suffix : {"-wal", "-shm"}) EXPECT_EQ(io::ReadFile(path_ + ".litefleet-undo" + suffix).value_or("gone"), "its own");
  EXPECT_EQ(LeftOver(), "");
}

// A process that has a file open, whatever is in it.
class Holder {
 public:
  explicit Holder(const std::string& path) {
    int ready[2];
    EXPECT_EQ(pipe(ready), 0);
    pid_ = fork();
    if (pid_ == 0) {
      if (open(path.c_str(), O_RDONLY | O_CLOEXEC) < 0 || write(ready[1], "r", 1) != 1) _exit(1);
      for (;;) pause();
    }
    close(ready[1]);
    char byte;
    EXPECT_EQ(read(ready[0], &byte, 1), 1);
    close(ready[0]);
  }
  ~Holder() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;

 private:
  pid_t pid_ = -1;
};

// The log belongs to the file that stays.
TEST_F(RestoreCrashTest, WhatWasMovedAsideComesBackWhereTheNextRunFails) {
  for (const auto& [mode, reason] : {std::pair(kReplace, "CANCELLED"), std::pair(kReplace, "IN_USE"), std::pair(kNew, "CANCELLED")}) {
    SCOPED_TRACE(fmt::format("{} {}", static_cast<int>(mode), reason));
    for (const auto& entry : std::filesystem::directory_iterator(data_)) std::filesystem::remove(entry.path());
    std::filesystem::remove_all(folder_ + "/state");
    if (mode == kReplace) {
      ASSERT_TRUE(io::WriteFileAtomic(path_, std::string(8192, 'x')).ok());
    }
    ASSERT_TRUE(io::WriteFileAtomic(path_ + "-wal", "its log").ok());
    MakeSnapshot("wal");
    order_.set_mode(mode);
    ASSERT_TRUE(RunAndCrashAt("restore.companion_moved"));
    ASSERT_FALSE(io::Exists(path_ + "-wal"));
    std::optional<Holder> holder;
    CancelToken cancel;
    if (std::string(reason) == "IN_USE") {
      holder.emplace(path_);
    } else {
      cancel.Cancel();
    }
    const Outcome outcome = Open()->Run(kOperation, order_, target_, cancel, [](const v1::Progress&) {});
    EXPECT_EQ(ReasonOf(outcome.status), reason) << outcome.status;
    EXPECT_FALSE(outcome.applied);
    EXPECT_EQ(io::ReadFile(path_ + "-wal").value_or("gone"), "its log");
    EXPECT_EQ(io::Exists(path_), mode == kReplace);
    EXPECT_EQ(LeftOver(), "");
  }
}

// Where a rename is a link and a removal the run may have ended between the two: the log is in its place, and has a name too many.
TEST_F(RestoreCrashTest, WhatWasHalfMovedAsideIsInItsPlaceWhereTheNextRunFails) {
  ASSERT_TRUE(io::WriteFileAtomic(path_, std::string(8192, 'x')).ok());
  ASSERT_TRUE(io::WriteFileAtomic(path_ + "-wal", "its log").ok());
  MakeSnapshot("wal");
  order_.set_mode(kReplace);
  ASSERT_TRUE(RunAndCrashAt("restore.companion_moved"));
  std::filesystem::create_hard_link(data_ + "/.litefleet-" + kOperation + ".undo-wal", path_ + "-wal");
  CancelToken cancel;
  cancel.Cancel();
  const Outcome outcome = Open()->Run(kOperation, order_, target_, cancel, [](const v1::Progress&) {});
  EXPECT_TRUE(absl::IsCancelled(outcome.status)) << outcome.status;
  EXPECT_THAT(outcome.steps, ::testing::Not(::testing::Contains(HasSubstr("could not move"))));
  EXPECT_EQ(io::ReadFile(path_ + "-wal").value_or("gone"), "its log");
  EXPECT_EQ(LeftOver(), "");
}

// Somebody has made a database meanwhile: the log is not put beside it.
TEST_F(RestoreCrashTest, WhatWasMovedAsideIsKeptBesideADatabaseThatCame) {
  ASSERT_TRUE(io::WriteFileAtomic(path_ + "-wal", "its log").ok());
  MakeSnapshot("wal");
  order_.set_mode(kNew);
  ASSERT_TRUE(RunAndCrashAt("restore.companion_moved"));
  Make(path_, "old", "delete", 100);
  const Outcome outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "TARGET_EXISTS") << outcome.status;
  EXPECT_EQ(Label(path_), "old");
  EXPECT_FALSE(io::Exists(path_ + "-wal"));
  EXPECT_EQ(io::ReadFile(path_ + ".litefleet-undo-wal").value_or("gone"), "its log");
  EXPECT_THAT(outcome.steps, ::testing::Contains(HasSubstr("kept the left-over -wal")).Times(1));
  EXPECT_EQ(LeftOver(), "");
}

// The disk with the state is full when the agent comes back behind the rename: what was replaced is no failure's to remove.
TEST_F(RestoreCrashTest, WhatWasReplacedIsKeptWhereTheStateCannotBeWritten) {
  Make(path_, "old", "delete", 300);
  MakeSnapshot("delete", 300);
  order_.set_mode(kReplace);
  ASSERT_TRUE(RunAndCrashAt("restore.replace.after_rename"));
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit none{0, 0};
    if (setrlimit(RLIMIT_FSIZE, &none) != 0) _exit(2);
    const Outcome outcome = Run();
    _exit(outcome.status.ok() && outcome.applied ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  const Outcome outcome = Run();
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
  EXPECT_EQ(LeftOver(), "");
}

// The journal that our own copy has left is rolled back, though a directory lies there as the VFS unix-dotfile makes one.
TEST_F(RestoreCrashTest, AnOwnJournalBesideADirectoryOfAnother) {
  Make(path_, "old", "delete", 3000);
  MakeSnapshot("delete", 40'000);  // more than the cache of the copy holds
  std::filesystem::create_directory(path_ + ".lock");
  ASSERT_TRUE(RunAndCrashAt("restore.live.copying:12"));
  const std::string journal = io::ReadFile(path_ + "-journal", 1 << 30).value_or("");
  ASSERT_TRUE(!journal.empty() && journal[0] != 0) << "nothing had got to the disk";
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
  EXPECT_EQ(LeftOver(), "");
}

// The commit is behind the point of no return, whoever asks for what before the next run has seen that it was made.
TEST_F(RestoreCrashTest, ACancelAfterTheCommitOfAnInterruptedLiveRestoreKeepsItsUndo) {
  for (const bool during : {false, true}) {
    SCOPED_TRACE(during);
    StartAnew("wal");
    MakeSnapshot("wal", 6000);
    order_.set_mode(kLive);
    ASSERT_TRUE(RunAndCrashAt("restore.live.after_commit"));
    CancelToken cancel;
    if (!during) cancel.Cancel();
    const Outcome outcome = Open()->Run(kOperation, order_, target_, cancel, [&](const v1::Progress&) { cancel.Cancel(); });
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_TRUE(outcome.applied);
    EXPECT_EQ(outcome.undo, path_ + ".litefleet-undo");
    EXPECT_EQ(Label(path_), "new");
    EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
    EXPECT_EQ(LeftOver(), "");
  }
}

TEST_F(RestoreCrashTest, ACancelBeforeTheCommitOfAnInterruptedLiveRestoreLeavesNothing) {
  StartAnew("wal");
  MakeSnapshot("wal", 6000);
  order_.set_mode(kLive);
  ASSERT_TRUE(RunAndCrashAt("restore.live.before_commit"));
  CancelToken cancel;
  cancel.Cancel();
  const Outcome outcome = Open()->Run(kOperation, order_, target_, cancel, nullptr);
  EXPECT_TRUE(absl::IsCancelled(outcome.status)) << outcome.status;
  EXPECT_FALSE(outcome.applied);
  EXPECT_EQ(outcome.undo, "");
  EXPECT_EQ(Label(path_), "old");
  EXPECT_FALSE(io::Exists(path_ + ".litefleet-undo"));
  EXPECT_EQ(LeftOver(), "");
}

// The look that no cancel ends may take minutes: at the end of the program it is the next run's, which ends as this one would have.
TEST_F(RestoreCrashTest, TheEndOfTheProgramIsHeardAfterACancel) {
  for (const bool committed : {true, false}) {
    SCOPED_TRACE(committed);
    StartAnew("wal");
    MakeSnapshot("wal", 6000);
    order_.set_mode(kLive);
    ASSERT_TRUE(RunAndCrashAt(committed ? "restore.live.after_commit" : "restore.live.before_commit"));
    CancelToken both;
    both.Cancel();
    both.Interrupt();
    const Outcome ended = Open()->Run(kOperation, order_, target_, both, nullptr);
    EXPECT_TRUE(absl::IsCancelled(ended.status)) << ended.status;
    EXPECT_TRUE(io::Exists(data_ + "/.litefleet-" + kOperation + ".undo")) << "nothing is decided";
    CancelToken cancel;
    cancel.Cancel();
    const Outcome outcome = Open()->Run(kOperation, order_, target_, cancel, nullptr);
    EXPECT_EQ(absl::IsCancelled(outcome.status), !committed) << outcome.status;
    EXPECT_EQ(outcome.applied, committed);
    EXPECT_EQ(Label(path_), committed ? "new" : "old");
    EXPECT_EQ(LeftOver(), "");
  }
}

TEST_F(RestoreCrashTest, CommitsAfterAnInterruptedLiveRestoreAreKept) {
  for (const char* point : {"restore.live.before_commit", "restore.live.after_commit"}) {
    for (const auto& entry : std::filesystem::directory_iterator(data_)) std::filesystem::remove(entry.path());
    std::filesystem::remove_all(folder_ + "/state");
    Make(path_, "old", "wal", 3000);
    MakeSnapshot("wal", 6000);
    ASSERT_TRUE(RunAndCrashAt(point)) << point;
    {
      Application application(path_, Application::kWriting);
      ASSERT_EQ(application.Stop(), 0);
    }
    const int64_t written = LogRows(path_);
    ASSERT_GT(written, 0);
    const bool committed = Label(path_) == "new";
    const Outcome outcome = Run();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(Label(path_), "new");
    // Committed before the crash: what the application wrote since stays. Not committed: the restore happens now, over it, and the undo has
    // it.
    EXPECT_EQ(LogRows(committed ? path_ : path_ + ".litefleet-undo"), written) << point;
  }
}

}  // namespace
}  // namespace litefleet::restore
