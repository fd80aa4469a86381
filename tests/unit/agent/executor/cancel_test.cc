// A cancel, or the end of the program, while continuous capture has not let go of the database yet.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/end_watch.h"
#include "common/format/extent.h"
#include "tests/unit/agent/executor/executor_fixture.h"

namespace litefleet {
namespace {

constexpr char kOperation[] = "01JD0000000000000000000001";

struct CountingTurn final : control::Turn {
  void Yield() override { ++yielded; }
  void Resume(const CancelToken&) override { ++resumed; }
  int yielded = 0, resumed = 0;
};

class CancelTest : public ExecutorTest {
 protected:
  void SetUp() override {
    ExecutorTest::SetUp();
    // As Capturing::Pause, where what captures it does not end.
    pause_ = [this](const CancelToken& cancel) -> absl::StatusOr<std::shared_ptr<void>> {
      seen_ = &cancel;
      if (when_asked_) when_asked_();
      if (cancel.cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "cancelled");
      return std::shared_ptr<void>();
    };
  }
  static v1::Order RestoreOrder() {
    v1::Order order;
    order.set_operation_id(kOperation);
    v1::RestoreOrder& restore = *order.mutable_restore();
    restore.set_database("app");
    restore.set_snapshot_id("01JD00000000000000000000S1");
    restore.set_page_size(4096);
    restore.set_page_count(1);
    restore.set_root_version(format::kRootVersion);
    restore.set_root_digest(std::string(32, 'r'));
    restore.set_new_timeline(2);
    restore.set_mode(v1::RESTORE_MODE_REPLACE);
    return order;
  }
  v1::OperationResult Execute(const v1::Order& order) {
    storage::v1::AgentOperation operation;
    operation.set_operation_id(kOperation);
    operation.set_session_id(NewUlid(clock_.Now()));
    return executor_->Execute(
        operation, order, cancel_, stop_,
        [this](const v1::Progress&) {
          if (on_progress_) on_progress_();
        },
        counting_);
  }

  CancelToken stop_;
  CountingTurn counting_;
  const CancelToken* seen_ = nullptr;
  std::function<void()> when_asked_, on_progress_;
};

TEST_F(CancelTest, ABackupAndARestoreThatHaveNotBegunEndAtOnce) {
  v1::Order backup;
  backup.mutable_backup()->set_database("app");
  config_.databases[0].push_restore = "allow";
  for (const v1::Order& order : {backup, RestoreOrder()}) {
    seen_ = nullptr;
    when_asked_ = [this] { cancel_.Cancel(); };
    const v1::OperationResult result = Execute(order);
    EXPECT_EQ(result.state(), v1::OPERATION_STATE_CANCELLED);
    EXPECT_EQ(seen_, &cancel_);
  }
}

// What a former run has begun to change is settled, and for that capture has to have let go: only the program's end leaves it. Others have
// its turn meanwhile.
TEST_F(CancelTest, ARestoreThatHasBegunWaitsUntilItCanBeSettled) {
  // A run that the end of the program interrupts, with its journal written.
  pause_ = nullptr;
  on_progress_ = [this] { cancel_.Interrupt(); };
  Execute(RestoreOrder());
  ASSERT_TRUE(executor_->HasBegun(kOperation));
  on_progress_ = nullptr;

  int asked = 0;
  pause_ = [&](const CancelToken& cancel) -> absl::StatusOr<std::shared_ptr<void>> {
    EXPECT_EQ(&cancel, &stop_);
    // A cancel comes while it waits, and it waits on.
    cancel_.Cancel();
    if (++asked < 3) return Error(absl::StatusCode::kDeadlineExceeded, "CAPTURE_BUSY", "busy");
    return std::shared_ptr<void>();
  };
  EXPECT_EQ(Execute(RestoreOrder()).state(), v1::OPERATION_STATE_CANCELLED);
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(counting_.yielded, 1);
  EXPECT_EQ(counting_.resumed, 1);
}

TEST_F(CancelTest, TheEndOfTheProgramLeavesARestoreThatHasBegunToTheNextStart) {
  pause_ = nullptr;
  on_progress_ = [this] { cancel_.Interrupt(); };
  Execute(RestoreOrder());
  ASSERT_TRUE(executor_->HasBegun(kOperation));
  pause_ = [&](const CancelToken& cancel) -> absl::StatusOr<std::shared_ptr<void>> {
    stop_.Interrupt();
    EXPECT_TRUE(cancel.interrupted());
    return Error(absl::StatusCode::kCancelled, "CANCELLED", "cancelled");
  };
  EXPECT_EQ(Execute(RestoreOrder()).state(), v1::OPERATION_STATE_CANCELLED);
  EXPECT_TRUE(executor_->HasBegun(kOperation));
}

// The signal stays for whoever waits for signals.
TEST(EndWatchTest, InterruptsWhenTheProgramIsToldToEnd) {
  for (const int number : {SIGTERM, SIGINT}) {
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      sigset_t set;
      sigemptyset(&set);
      sigaddset(&set, SIGTERM);
      sigaddset(&set, SIGINT);
      pthread_sigmask(SIG_BLOCK, &set, nullptr);
      alarm(60);
      const EndWatch end;
      if (end.token().cancelled()) _exit(1);
      kill(getpid(), number);
      while (!end.token().interrupted()) usleep(1000);
      _exit(sigwaitinfo(&set, nullptr) == number ? 0 : 2);
    }
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  const EndWatch never;
  EXPECT_FALSE(never.token().cancelled());
}

}  // namespace
}  // namespace litefleet
