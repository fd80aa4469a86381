#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "agent/restore/plan.h"
#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

class PlanTest : public RestoreFixture {};

TEST_F(PlanTest, PlanSaysWhatWouldHappenAndChangesNothing) {
  Make(path_, "old", "wal", 3000);
  MakeSnapshot("wal", 6000);
  Application application(path_, Application::kIdle);
  const auto plan = Open()->Plan(order_, target_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->mode(), v1::RESTORE_MODE_LIVE);
  EXPECT_TRUE(plan->in_use());
  EXPECT_EQ(plan->journal_mode(), v1::JOURNAL_MODE_WAL);
  EXPECT_GT(plan->staging_bytes(), 0);
  EXPECT_GT(plan->undo_bytes(), 0);
  EXPECT_GT(plan->journal_bytes(), 0);
  EXPECT_GT(plan->free_bytes(), 0);
  EXPECT_GT(plan->expected_stall().seconds() + plan->expected_stall().nanos(), 0);
  EXPECT_THAT(plan->steps(), Contains(HasSubstr("a sample of 8.0 MiB")));
  EXPECT_TRUE(plan->obstacles().empty()) << plan->DebugString();
  EXPECT_GE(plan->steps_size(), 4);
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  const auto replace = Open()->Plan(order_, target_);
  ASSERT_EQ(replace->obstacles_size(), 1);
  EXPECT_EQ(replace->obstacles(0).info().reason(), "IN_USE");
  EXPECT_EQ(application.Stop(), 0);
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(data_), {}), 1) << "the sample had no name";
}

TEST_F(PlanTest, PlanGoesByTheLastRestoreWhereThereWasOne) {
  Make(path_, "old", "wal", 3000);
  MakeSnapshot("wal", 6000);
  target_.rate.bytes_per_second = 1000;
  const auto plan = Open()->Plan(order_, target_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->expected_stall().seconds(), int64_t{order_.page_count()} * order_.page_size() / 1000);
  EXPECT_THAT(plan->steps(), Contains(HasSubstr("as the last live restore of this database took")));
  // Without room for a sample a slow disk is assumed.
  target_.rate.bytes_per_second = 0;
  target_.reserve = io::DiskReserve(uint64_t{1} << 60);
  const auto assumed = Open()->Plan(order_, target_);
  EXPECT_THAT(assumed->steps(), Contains(HasSubstr("assumed")));
  EXPECT_EQ(assumed->obstacles(0).info().reason(), "NOT_ENOUGH_SPACE");
}

// The old pages go into the undo copy and into the journal; in WAL mode the new ones alone are written while others wait.
TEST_F(PlanTest, InRollbackModeTheOldPagesCountTwice) {
  for (const char* journal : {"delete", "truncate", "wal"}) {
    SCOPED_TRACE(journal);
    std::filesystem::remove(path_);
    Make(path_, "old", journal, 3000);
    MakeSnapshot(journal, 6000);
    target_.rate.bytes_per_second = 1000;
    const auto plan = Open()->Plan(order_, target_);
    ASSERT_TRUE(plan.ok()) << plan.status();
    ASSERT_EQ(plan->mode(), v1::RESTORE_MODE_LIVE);
    const bool wal = std::string_view(journal) == "wal";
    EXPECT_EQ(plan->journal_mode(), wal ? v1::JOURNAL_MODE_WAL : v1::JOURNAL_MODE_ROLLBACK);
    const int64_t after = int64_t{order_.page_count()} * order_.page_size();
    const auto before = static_cast<int64_t>(std::filesystem::file_size(path_));
    EXPECT_GT(before, 100'000);
    EXPECT_NE(before, after);
    EXPECT_EQ(plan->expected_stall().seconds(), (after + (wal ? 0 : 2 * before)) / 1000);
  }
}

TEST_F(PlanTest, PlanSeesADirectoryThatTheAgentMayNotWrite) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to become another user";
  Make(path_, "old", "delete", 300);
  MakeSnapshot("delete", 300);
  for (const std::string& folder : {folder_, data_}) chmod(folder.c_str(), 0755);
  const auto place = TargetPlace::Resolve(path_);
  ASSERT_TRUE(place.ok()) << place.status();
  EXPECT_TRUE(place->CheckWritable().ok());
  const pid_t pid = fork();
  if (pid == 0) {
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(2);
    const auto plan = MakePlan(order_, target_, ApplyOptions());
    const bool seen = plan.ok() && std::any_of(plan->obstacles().begin(), plan->obstacles().end(), [](const v1::ErrorDetail& each) {
                        return each.info().reason() == "DIRECTORY_NOT_WRITABLE" && !each.info().hint().empty();
                      });
    _exit(seen ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(PlanTest, ALiveRestoreSaysHowFastItWas) {
  Make(path_, "old", "wal", 3000);
  MakeSnapshot("wal", 6000);
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(outcome.applied);
  EXPECT_EQ(outcome.stall_bytes, int64_t{order_.page_count()} * order_.page_size());
}

}  // namespace
}  // namespace litefleet::restore
