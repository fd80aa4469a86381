// A database that others hold locked for longer than busy_timeout.
#include "tests/unit/agent/executor/executor_fixture.h"

namespace litefleet {
namespace {

class LockedTest : public ExecutorTest {
 protected:
  void SetUp() override {
    ExecutorTest::SetUp();
    config_.databases[0].busy_timeout = std::chrono::milliseconds(20);
    auto application = sqlite::Open(path(), SQLITE_OPEN_READWRITE);
    ASSERT_TRUE(application.ok()) << application.status();
    application_ = *std::move(application);
    ASSERT_TRUE(sqlite::Execute(application_.get(), "begin exclusive; insert into t values ('second')").ok());
  }
  // The application commits as soon as the backup waits.
  v1::OperationResult Backup(bool by_schedule) {
    storage::v1::AgentOperation operation;
    operation.set_operation_id(NewUlid(clock_.Now()));
    operation.set_session_id(NewUlid(clock_.Now()));
    operation.set_by_schedule(by_schedule);
    v1::Order order;
    order.mutable_backup()->set_database("app");
    const auto told = [this](const v1::Progress& progress) {
      if (progress.phase() != "waiting") return;
      waited_ = true;
      EXPECT_TRUE(sqlite::Execute(application_.get(), "commit").ok());
    };
    return executor_->Execute(operation, order, cancel_, cancel_, told, turn_);
  }

  sqlite::DatabaseHandle application_;
  bool waited_ = false;
};

TEST_F(LockedTest, AScheduledRunComesBack) {
  const v1::OperationResult result = Backup(true);
  EXPECT_EQ(result.state(), v1::OPERATION_STATE_SUCCEEDED) << result.error().message();
  EXPECT_TRUE(waited_);
  EXPECT_TRUE(controller_.Content() == FileContent());
}

TEST_F(LockedTest, WhoHasOrderedABackupIsToldAtOnce) {
  EXPECT_EQ(Backup(false).error().info().reason(), "DATABASE_BUSY");
  EXPECT_FALSE(waited_);
}

}  // namespace
}  // namespace litefleet
