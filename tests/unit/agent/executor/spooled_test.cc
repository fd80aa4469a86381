// What a device does with its spool: gaps, and databases that nobody names any more.
#include "tests/unit/agent/executor/executor_fixture.h"

namespace litefleet {
namespace {

using SpooledTest = ExecutorTest;

TEST_F(SpooledTest, WhatFailedAfterTheLastSpooledStateIsMissingUntilThereIsAnother) {
  ASSERT_EQ(Run().state(), v1::OPERATION_STATE_SUCCEEDED);
  offline_ = true;
  Sql("insert into t values ('second')");
  Run();
  ASSERT_EQ(spool_->Total().snapshots, 1U);
  const SystemTime spooled = spool_->Newest("app")->taken_at();
  std::filesystem::rename(path(), path() + ".away");
  Run();
  std::filesystem::rename(path() + ".away", path());
  auto open = gaps_->OpenGaps("app");
  ASSERT_EQ(open.size(), 1U);
  EXPECT_EQ(open[0].reason(), "RUN_FAILED");
  offline_ = false;
  Run(/*drain=*/true);
  EXPECT_EQ(spool_->Total().snapshots, 0U);
  open = gaps_->OpenGaps("app");
  ASSERT_EQ(open.size(), 1U) << "what was spooled is from before it";
  EXPECT_EQ(FromProtoTime(open[0].from()), spooled);
  ASSERT_EQ(Run().state(), v1::OPERATION_STATE_SUCCEEDED);
  const auto gap = gaps_->NextUnrecorded();
  ASSERT_TRUE(gap.has_value());
  EXPECT_EQ(FromProtoTime(gap->from()), spooled);
  EXPECT_EQ(TimestampMillis(gap->until()), NowMs());
}

// What DeviceHealth::SnapshotGone keeps.
TEST_F(SpooledTest, NothingIsBuiltOnWhatTheControllerHasNotAnyMore) {
  ASSERT_EQ(Run().state(), v1::OPERATION_STATE_SUCCEEDED);
  storage::v1::AgentDatabase kept = Kept();
  kept.set_gone_snapshot_id(kept.last_snapshot_id());
  kept.clear_last_snapshot_id();
  kept.clear_unchanged_at_ms();
  ASSERT_TRUE(state_->WriteDatabase(kept).ok());
  offline_ = true;
  Run();
  ASSERT_EQ(spool_->Total().snapshots, 1U) << "nothing has changed, and nobody has it";
  EXPECT_TRUE(spool_->Newest("app")->full());
  Sql("insert into t values ('second')");
  Run();
  ASSERT_EQ(spool_->Total().snapshots, 2U);
  EXPECT_FALSE(spool_->Newest("app")->full());
  const std::string content = FileContent();
  offline_ = false;
  Run(/*drain=*/true);
  EXPECT_EQ(spool_->Total().snapshots, 0U);
  EXPECT_TRUE(controller_.Content() == content);
  EXPECT_TRUE(gaps_->OpenGaps("app").empty());
  // The next one is built on what is there.
  offline_ = true;
  Sql("insert into t values ('third')");
  Run();
  ASSERT_EQ(spool_->Total().snapshots, 1U);
  EXPECT_FALSE(spool_->Newest("app")->full());
}

// An agent that is killed behind a spooled snapshot begins its run again: the operation has its snapshot, and ends with that.
TEST_F(SpooledTest, ARunThatIsBegunAgainBehindItsSnapshotTakesNoOther) {
  ASSERT_EQ(Run().state(), v1::OPERATION_STATE_SUCCEEDED);
  storage::v1::AgentOperation operation;
  operation.set_operation_id(NewUlid(clock_.Now()));
  operation.set_by_schedule(true);
  v1::Order order;
  order.mutable_backup()->set_database("app");
  const auto execute = [&] {
    clock_.Advance(std::chrono::minutes(1));
    return executor_->Execute(
        operation, order, cancel_, cancel_, [](const v1::Progress&) {}, turn_);
  };
  offline_ = true;
  Sql("insert into t values ('second')");
  const std::string second = FileContent();
  execute();
  ASSERT_EQ(spool_->Total().snapshots, 1U);
  Sql("insert into t values ('third')");
  const size_t commits = controller_.commits().size();
  for (const bool offline : {true, false}) {
    offline_ = offline;
    EXPECT_EQ(execute().state(), v1::OPERATION_STATE_UNSPECIFIED) << "its end comes with what is spooled";
    EXPECT_EQ(spool_->Total().snapshots, 1U);
    EXPECT_EQ(controller_.commits().size(), commits);
  }
  Run(/*drain=*/true);
  EXPECT_EQ(spool_->Total().snapshots, 0U);
  EXPECT_TRUE(controller_.Content() == second);
  ASSERT_EQ(ended_.size(), 1U);
  EXPECT_EQ(ended_[0].operation_id(), operation.operation_id());
  EXPECT_EQ(ended_[0].state(), v1::OPERATION_STATE_SUCCEEDED);
  // The next one has what came since.
  EXPECT_EQ(Run().state(), v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_TRUE(controller_.Content() == FileContent());
}

TEST_F(SpooledTest, WhatIsNotConfiguredAnyMoreIsUploadedAllTheSame) {
  ASSERT_EQ(Run().state(), v1::OPERATION_STATE_SUCCEEDED);
  offline_ = true;
  for (const char* word : {"second", "third"}) {
    Sql(std::string("insert into t values ('") + word + "')");
    Run();
  }
  ASSERT_EQ(spool_->Total().snapshots, 2U);
  const std::string content = FileContent();
  config_.databases.clear();
  offline_ = false;
  EXPECT_EQ(Run().error().info().reason(), "DATABASE_UNKNOWN");
  EXPECT_EQ(Run(/*drain=*/true).state(), v1::OPERATION_STATE_UNSPECIFIED);
  EXPECT_EQ(spool_->Total().snapshots, 0U);
  EXPECT_EQ(ended_.size(), 2U);
  EXPECT_TRUE(controller_.Content() == content);
}

TEST_F(SpooledTest, WhatIsNotConfiguredAnyMoreExpires) {
  ASSERT_EQ(Run().state(), v1::OPERATION_STATE_SUCCEEDED);
  offline_ = true;
  Sql("insert into t values ('second')");
  Run();
  ASSERT_EQ(spool_->Total().snapshots, 1U);
  // Another one is backed up from now on.
  config_.spool_age = std::chrono::hours(1);
  config::DatabaseConfig other = config_.databases[0];
  other.name = "other";
  std::filesystem::copy_file(path(), folder_ + "/data/other.db");
  other.path = folder_ + "/data/other.db";
  config_.databases = {other};
  clock_.Advance(std::chrono::hours(2));
  storage::v1::AgentOperation operation;
  operation.set_operation_id(NewUlid(clock_.Now()));
  operation.set_session_id(NewUlid(clock_.Now()));
  operation.set_by_schedule(true);
  v1::Order order;
  order.mutable_backup()->set_database("other");
  executor_->Execute(
      operation, order, cancel_, cancel_, [](const v1::Progress&) {}, turn_);
  EXPECT_EQ(spool_->UsageOf("other").snapshots, 1U);
  EXPECT_EQ(spool_->UsageOf("app").snapshots, 0U);
  ASSERT_EQ(gaps_->OpenGaps("app").size(), 1U);
  EXPECT_EQ(gaps_->OpenGaps("app")[0].reason(), "SPOOL_EXPIRED");
}

// What is too old is merged, which may take minutes: of the database itself, and of one that is not configured any more.
TEST_F(SpooledTest, ACancelEndsTheMergeOfWhatIsTooOld) {
  ASSERT_EQ(Run().state(), v1::OPERATION_STATE_SUCCEEDED);
  offline_ = true;
  for (const char* word : {"second", "third", "fourth", "fifth"}) {
    Sql(std::string("insert into t values ('") + word + "')");
    Run();
  }
  ASSERT_EQ(spool_->UsageOf("app").snapshots, 4U);
  config_.spool_age = std::chrono::seconds(150);
  config::DatabaseConfig other = config_.databases[0];
  other.name = "other";
  std::filesystem::copy_file(path(), folder_ + "/data/other.db");
  other.path = folder_ + "/data/other.db";
  clock_.Advance(std::chrono::minutes(1));
  for (const bool left : {false, true}) {
    SCOPED_TRACE(left);
    if (left) config_.databases = {other};
    CancelToken cancel;
    when_offline_ = [&] { cancel.Cancel(); };
    storage::v1::AgentOperation operation;
    operation.set_operation_id(NewUlid(clock_.Now()));
    operation.set_session_id(NewUlid(clock_.Now()));
    operation.set_by_schedule(true);
    v1::Order order;
    order.mutable_backup()->set_database(left ? "other" : "app");
    const v1::OperationResult result = executor_->Execute(
        operation, order, cancel, cancel, [](const v1::Progress&) {}, turn_);
    EXPECT_EQ(result.state(), v1::OPERATION_STATE_CANCELLED);
    EXPECT_EQ(spool_->UsageOf("app").snapshots, 4U);
  }
  ASSERT_TRUE(spool_->Expire("app", config_.spool_age, config_.disk_reserve).ok());
  EXPECT_LT(spool_->UsageOf("app").snapshots, 4U) << "nothing was too old";
}

}  // namespace
}  // namespace litefleet
