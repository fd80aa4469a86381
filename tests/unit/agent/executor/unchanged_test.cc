// A database whose files were not written is not opened, online or not, but for the reads that prove it.
#include <fcntl.h>
#include <sys/stat.h>

#include "agent/capture/file_facts.h"
#include "tests/unit/agent/executor/executor_fixture.h"

namespace litefleet {
namespace {

class UnchangedTest : public ExecutorTest {
 protected:
  void SetUp() override {
    ExecutorTest::SetUp();
    const v1::OperationResult first = Run();
    ASSERT_EQ(first.state(), v1::OPERATION_STATE_SUCCEEDED) << first.error().message();
    watch_ = std::make_unique<OpenWatch>(folder_ + "/data");
    if (!watch_->works()) GTEST_SKIP() << "the kernel does not tell who opens files";
  }
  // The same content, and other times.
  void Touch() { ASSERT_EQ(utimensat(AT_FDCWD, path().c_str(), nullptr, 0), 0); }
  // The content changes, and what is remembered of its times says that it was there before: as after a write that the file system did not
  // note.
  void ChangeUnseen(const std::string& sql) {
    Sql(sql);
    const auto facts = capture::FileFactsOf(path(), clock_.Now());
    ASSERT_TRUE(facts.has_value() && facts->settled);
    storage::v1::AgentDatabase kept = Kept();
    kept.set_file_facts(facts->text);
    ASSERT_TRUE(state_->WriteDatabase(kept).ok());
    storage::v1::SpoolState spooled = spool_->ReadState("app");
    spooled.set_file_facts(facts->text);
    ASSERT_TRUE(spool_->WriteState("app", spooled).ok());
    watch_->Take();
  }

  std::unique_ptr<OpenWatch> watch_;
};

TEST_F(UnchangedTest, NothingIsOpenedOrSent) {
  const int streams = controller_.streams();
  const std::string snapshot = Kept().last_snapshot_id();
  for (int run = 0; run < 3; ++run) {
    const v1::OperationResult result = Run();
    EXPECT_EQ(result.state(), v1::OPERATION_STATE_SUCCEEDED);
    EXPECT_EQ(result.snapshot_id(), snapshot);
    EXPECT_EQ(Kept().unchanged_at_ms(), NowMs());
  }
  EXPECT_EQ(watch_->Take(), 0);
  EXPECT_EQ(controller_.streams(), streams);
  Sql("insert into t values ('second')");
  watch_->Take();
  EXPECT_EQ(Run().state(), v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_GT(watch_->Take(), 0);
  EXPECT_TRUE(controller_.Content() == FileContent());
}

TEST_F(UnchangedTest, ItIsReadAllTheSameAfterTheInterval) {
  const int64_t read_at = Kept().read_at_ms();
  clock_.Advance(capture::kReadAnyway - std::chrono::minutes(2));
  Run();
  EXPECT_EQ(watch_->Take(), 0);
  EXPECT_EQ(Kept().read_at_ms(), read_at);
  Run();
  EXPECT_GT(watch_->Take(), 0);
  EXPECT_EQ(Kept().read_at_ms(), NowMs());
  EXPECT_EQ(Kept().times_misled_at_ms(), 0);
  Run();
  EXPECT_EQ(watch_->Take(), 0) << "and that proves it for another one";
}

TEST_F(UnchangedTest, TimesThatDidNotTellOfAChangeAreNotBelieved) {
  ChangeUnseen("insert into t values ('unseen')");
  Run();
  EXPECT_EQ(watch_->Take(), 0) << "nothing tells of it yet";
  clock_.Advance(capture::kReadAnyway);
  const v1::OperationResult result = Run();
  EXPECT_GT(watch_->Take(), 0);
  EXPECT_TRUE(controller_.Content() == FileContent());
  EXPECT_EQ(Kept().times_misled_at_ms(), NowMs());
  bool said = false;
  for (const std::string& step : result.steps()) said |= step.find("did not tell") != std::string::npos;
  EXPECT_TRUE(said) << result.DebugString();
  const int64_t misled_at = Kept().times_misled_at_ms();
  Run();
  EXPECT_GT(watch_->Take(), 0) << "it is read each time";
  EXPECT_EQ(Kept().times_misled_at_ms(), misled_at);
  clock_.Advance(std::chrono::hours(24 * 31));
  Run();  // the interval
  watch_->Take();
  Run();
  EXPECT_EQ(watch_->Take(), 0) << "not for ever";
}

TEST_F(UnchangedTest, AWriteThatTheTimesTellOfMisleadsNobody) {
  Sql("insert into t values ('second')");
  Run();
  clock_.Advance(capture::kReadAnyway);
  Run();
  EXPECT_EQ(Kept().times_misled_at_ms(), 0);
}

TEST_F(UnchangedTest, OfflineItIsSaidAsWell) {
  offline_ = true;
  EXPECT_EQ(Run().state(), v1::OPERATION_STATE_UNSPECIFIED);
  EXPECT_EQ(watch_->Take(), 0);
  EXPECT_EQ(Kept().unchanged_at_ms(), NowMs());
  EXPECT_EQ(Kept().last_success_at_ms(), NowMs());
  Touch();
  Run();
  EXPECT_GT(watch_->Take(), 0);
  EXPECT_EQ(Kept().unchanged_at_ms(), NowMs());
  EXPECT_EQ(Kept().read_at_ms(), NowMs());
  Run();
  EXPECT_EQ(watch_->Take(), 0) << "its new times are known";
  EXPECT_EQ(spool_->Total().snapshots, 0U);
}

TEST_F(UnchangedTest, OfWhatIsSpooledItIsSaidWhenThatArrives) {
  offline_ = true;
  Sql("insert into t values ('second')");
  Run();
  ASSERT_EQ(spool_->Total().snapshots, 1U);
  const int64_t taken = spool_->Newest("app")->header.taken_at_ms();
  const int64_t acknowledged = Kept().last_success_at_ms();
  watch_->Take();
  Run();
  EXPECT_EQ(watch_->Take(), 0);
  Touch();
  Run();
  EXPECT_GT(watch_->Take(), 0);
  Run();
  EXPECT_EQ(watch_->Take(), 0) << "its new times are known";
  EXPECT_EQ(Kept().last_success_at_ms(), acknowledged) << "the controller has it not yet";
  const int64_t unchanged = NowMs();
  offline_ = false;
  Run(/*drain=*/true);
  ASSERT_EQ(ended_.size(), 1U);
  EXPECT_EQ(spool_->Total().snapshots, 0U);
  EXPECT_GT(unchanged, taken);
  EXPECT_EQ(Kept().unchanged_at_ms(), unchanged);
  EXPECT_EQ(Kept().last_success_at_ms(), unchanged);
  EXPECT_EQ(Kept().last_snapshot_id(), ended_[0].snapshot_id());
  Run();
  EXPECT_EQ(watch_->Take(), 0);
}

TEST_F(UnchangedTest, OfflineTimesThatDidNotTellAreNotBelievedEither) {
  offline_ = true;
  Sql("insert into t values ('second')");
  Run();
  ASSERT_EQ(spool_->Total().snapshots, 1U);
  ChangeUnseen("insert into t values ('unseen')");
  clock_.Advance(capture::kReadAnyway);
  Run();
  EXPECT_EQ(spool_->Total().snapshots, 2U);
  EXPECT_EQ(Kept().times_misled_at_ms(), NowMs());
  watch_->Take();
  Run();
  EXPECT_GT(watch_->Take(), 0);
  EXPECT_EQ(spool_->Total().snapshots, 2U);
}

}  // namespace
}  // namespace litefleet
