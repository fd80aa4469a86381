// A restore that is killed at each of its steps: the old state or the new one, and then the end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::HasSubstr;

class RestoreCrashTest : public RestoreFixture {};

struct CrashCase {
  const char* point;
  v1::RestoreMode mode;
  const char* journal;
};

class CrashTest : public RestoreFixture, public ::testing::WithParamInterface<CrashCase> {};

TEST_P(CrashTest, OldOrNewThenFinished) {
  const CrashCase& c = GetParam();
  if (c.mode != v1::RESTORE_MODE_NEW) Make(path_, "old", c.journal, 3000);
  MakeSnapshot("wal", 6000);
  order_.set_mode(c.mode);
  ASSERT_TRUE(RunAndCrashAt(c.point)) << "never came to " << c.point;
  // As an application finds it at its next start, on a copy so that recovery starts from what the crash left.
  const std::string copy = folder_ + "/copy";
  std::filesystem::copy(data_, copy, std::filesystem::copy_options::recursive);
  if (std::filesystem::exists(copy + "/app.db")) {
    EXPECT_THAT(Label(copy + "/app.db"), ::testing::AnyOf("old", "new")) << c.point;
  } else {
    EXPECT_EQ(c.mode, v1::RESTORE_MODE_NEW);
  }
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
  if (c.mode != v1::RESTORE_MODE_NEW) {
    EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
  }
  EXPECT_EQ(LeftOver(), "");
}

TEST_P(CrashTest, OperationWithoutAnOrderIsFinishedOrRolledBackOffline) {
  const CrashCase& c = GetParam();
  if (c.mode != v1::RESTORE_MODE_NEW) Make(path_, "old", c.journal, 3000);
  MakeSnapshot("wal", 6000);
  order_.set_mode(c.mode);
  ASSERT_TRUE(RunAndCrashAt(c.point)) << "never came to " << c.point;
  const auto recovery = Open()->Recover({});
  EXPECT_EQ(recovery.said.size(), 1u);
  EXPECT_EQ(LeftOver(), "") << c.point;
  EXPECT_EQ(fetcher_.calls, 0) << "nothing is fetched";
  const std::string label = std::filesystem::exists(path_) ? Label(path_) : "none";
  const std::string before = c.mode == v1::RESTORE_MODE_NEW ? "none" : "old";
  if (recovery.ended.empty()) {
    EXPECT_EQ(label, before) << c.point;
    EXPECT_THAT(recovery.said[0], HasSubstr("rolled")) << c.point;
  } else {
    EXPECT_EQ(label, "new") << c.point << recovery.said[0];
    EXPECT_TRUE(recovery.ended[0].outcome.status.ok()) << recovery.ended[0].outcome.status;
    EXPECT_TRUE(recovery.ended[0].outcome.applied);
    EXPECT_EQ(recovery.ended[0].order.new_timeline(), 2u);
    if (before == "old") {
      EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
    }
    ASSERT_TRUE(Open()->Forget(kOperation).ok());
  }
  EXPECT_TRUE(Open()->Recover({}).said.empty()) << "once";
  if (!recovery.ended.empty()) return;
  // The same order again begins anew.
  EXPECT_TRUE(Run().status.ok());
  EXPECT_EQ(Label(path_), "new");
}

constexpr auto kNew = v1::RESTORE_MODE_NEW;
constexpr auto kLive = v1::RESTORE_MODE_LIVE;
constexpr auto kReplace = v1::RESTORE_MODE_REPLACE;

INSTANTIATE_TEST_SUITE_P(
    All, CrashTest,
    ::testing::Values(CrashCase{"restore.prepared", kNew, ""}, CrashCase{"restore.staging_created", kNew, ""},
                      CrashCase{"restore.fetching:2", kNew, ""}, CrashCase{"restore.staged", kNew, ""},
                      CrashCase{"restore.checked", kNew, ""}, CrashCase{"restore.new.before_move", kNew, ""},
                      CrashCase{"restore.new.before_rename", kNew, ""}, CrashCase{"restore.new.after_rename", kNew, ""},
                      CrashCase{"restore.undo_installed", kNew, ""}, CrashCase{"restore.before_done", kNew, ""},
                      CrashCase{"restore.done", kNew, ""}, CrashCase{"restore.live.before_versions", kLive, "wal"},
                      CrashCase{"restore.live.undo_created", kLive, "wal"}, CrashCase{"restore.live.before_lock", kLive, "wal"},
                      CrashCase{"restore.live.locked", kLive, "wal"}, CrashCase{"restore.live.undo_complete", kLive, "wal"},
                      CrashCase{"restore.live.copying", kLive, "wal"}, CrashCase{"restore.live.before_commit", kLive, "wal"},
                      CrashCase{"restore.live.after_commit", kLive, "wal"}, CrashCase{"restore.live.applied", kLive, "wal"},
                      CrashCase{"restore.undo_part_installed", kLive, "wal"}, CrashCase{"restore.undo_installed", kLive, "wal"},
                      CrashCase{"restore.checkpointed", kLive, "wal"}, CrashCase{"restore.done", kLive, "wal"},
                      CrashCase{"restore.live.before_versions", kLive, "delete"}, CrashCase{"restore.live.locked", kLive, "delete"},
                      CrashCase{"restore.live.undo_complete", kLive, "delete"}, CrashCase{"restore.live.copying", kLive, "delete"},
                      CrashCase{"restore.live.before_commit", kLive, "delete"}, CrashCase{"restore.live.after_commit", kLive, "delete"},
                      CrashCase{"restore.checkpointed", kLive, "delete"}, CrashCase{"restore.replace.checkpointed", kReplace, "wal"},
                      CrashCase{"restore.replace.folded", kReplace, "wal"}, CrashCase{"restore.replace.before_link", kReplace, "wal"},
                      CrashCase{"restore.replace.linked", kReplace, "wal"}, CrashCase{"restore.replace.before_rename", kReplace, "wal"},
                      CrashCase{"restore.replace.after_rename", kReplace, "wal"}, CrashCase{"restore.undo_part_installed", kReplace, "wal"},
                      CrashCase{"restore.undo_installed", kReplace, "wal"}, CrashCase{"restore.before_done", kReplace, "wal"},
                      CrashCase{"restore.replace.folded", kReplace, "delete"}, CrashCase{"restore.prepared", kLive, "wal"},
                      CrashCase{"restore.fetching:2", kLive, "delete"}, CrashCase{"restore.staged", kLive, "wal"},
                      CrashCase{"restore.checked", kLive, "delete"}, CrashCase{"restore.prepared", kReplace, "delete"},
                      CrashCase{"restore.fetching:2", kReplace, "wal"}, CrashCase{"restore.staged", kReplace, "delete"},
                      CrashCase{"restore.checked", kReplace, "wal"}, CrashCase{"restore.live.undo_created", kLive, "delete"},
                      CrashCase{"restore.live.before_lock", kLive, "delete"}, CrashCase{"restore.live.applied", kLive, "delete"},
                      CrashCase{"restore.undo_installed", kLive, "delete"}, CrashCase{"restore.replace.before_link", kReplace, "delete"},
                      CrashCase{"restore.replace.linked", kReplace, "delete"},
                      CrashCase{"restore.replace.before_rename", kReplace, "delete"},
                      CrashCase{"restore.undo_part_installed", kReplace, "delete"}, CrashCase{"restore.undo_installed", kReplace, "delete"},
                      CrashCase{"restore.before_done", kReplace, "delete"}, CrashCase{"restore.replace.after_rename", kReplace, "delete"}));

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
