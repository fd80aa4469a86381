// Two connections of one process, of which one writes and the other one checkpoints: their locks are as those of a FULL, and nobody waits.
#include "tests/unit/agent/follow/two_connections.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "agent/follow/attached.h"
#include "tests/unit/agent/capture/capture_fixture.h"
#include "tests/unit/agent/follow/application.h"
#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

// Until somebody has the write and the checkpoint lock.
std::optional<capture::WritingCheckpointer> AwaitWritingCheckpointer(const std::string& path) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  for (;;) {
    const auto index = capture::LockedFileOf(path + "-shm");
    const auto found = index.has_value() ? capture::FindWritingCheckpointer(capture::ReadLocks(), *index) : std::nullopt;
    if (found.has_value() || std::chrono::steady_clock::now() >= deadline) return found;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

class RuleTest : public capture::CaptureTest {
 protected:
  RuleTest() : path_(Path("app.db")) {
    Sql(path_, "pragma journal_mode=wal; create table t(id integer primary key, v); insert into t values(1, 'a')");
  }
  // On mark 0, with all that there is in the database.
  void Open(Application& application) {
    capture::UserDatabaseOptions options;
    options.path = path_;
    options.busy_timeout = std::chrono::milliseconds(100);
    auto opened = Attached::Open(options);
    ASSERT_TRUE(opened.ok()) << opened.status();
    attached_ = *std::move(opened);
    application.Run("insert into t values(2, 'b')");
    ASSERT_TRUE(HandOver().ok());
    const auto copied = attached_->Checkpoint();
    ASSERT_TRUE(copied.ok() && copied->ran);
    ASSERT_TRUE(HandOver().ok());
    ASSERT_TRUE(attached_->held().may_be_mark0);
  }
  bool AwaitInTheWay() {
    for (int i = 0; i < 10'000; ++i) {
      const auto look = attached_->Look();
      const auto in_the_way = look.ok() ? attached_->InTheWay(*look) : absl::StatusOr<bool>(look.status());
      if (in_the_way.ok() && *in_the_way) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
  absl::StatusOr<Attached::Rule> HandOver() {
    return attached_->HandOver([](const capture::WalState&) {});
  }

  const std::string path_;
  std::unique_ptr<Attached> attached_;
};

// The checkpointer has read a header before the WAL was started over, and would copy by it once mark 0 is free.
TEST_F(RuleTest, AStaleCheckpointerBesideAWriterOfItsProcessIsInDoubt) {
  Application application(path_, 0);
  application.Run("pragma wal_autocheckpoint=0");
  TwoConnections two(path_);
  ASSERT_NO_FATAL_FAILURE(Open(application));
  two.CheckpointToHeader();
  two.Run("insert into t values(3, 'c')");  // starts the WAL over
  two.Run("begin immediate");
  const auto found = AwaitWritingCheckpointer(path_);
  ASSERT_TRUE(found.has_value());
  EXPECT_FALSE(found->one_connection);
  const auto rule = HandOver();
  ASSERT_TRUE(rule.ok()) << rule.status();
  EXPECT_EQ(*rule, Attached::Rule::kNotSeenFree);
  two.Run("commit");
}

// A checkpoint that keeps writers out waits for mark 0, and is let go on.
TEST_F(RuleTest, ACheckpointWithTheWriteLockIsNot) {
  for (const char* kind : {"full", "restart", "truncate"}) {
    SCOPED_TRACE(kind);
    Application application(path_, 20'000);
    application.Run("pragma wal_autocheckpoint=0");
    ASSERT_NO_FATAL_FAILURE(Open(application));
    application.Run("insert into t values(3, 'c')");
    application.Begin(std::string("checkpoint ") + kind);
    const auto found = AwaitWritingCheckpointer(path_);
    ASSERT_TRUE(found.has_value());
    EXPECT_TRUE(found->one_connection);
    EXPECT_FALSE(found->copies);
    const auto rule = HandOver();
    ASSERT_TRUE(rule.ok()) << rule.status();
    EXPECT_EQ(*rule, Attached::Rule::kWriterCheckpoints);
    // RESTART and TRUNCATE wait for marks above 0, too, once all is copied.
    ASSERT_TRUE(AwaitInTheWay());
    ASSERT_TRUE(HandOver().ok());
    EXPECT_EQ(application.End(), SQLITE_OK);
    ASSERT_TRUE(attached_->Close().ok());
    application.Run("delete from t where id > 1");
  }
}

class NobodyWaitsTest : public FollowerTest {};

// A slow disk under a checkpoint thread, beside a long transaction of another one.
TEST_F(NobodyWaitsTest, APassiveCheckpointThatCopiesIsNotGivenWayTo) {
  Make();
  TwoConnections two(path_);
  Attach();
  two.Run("insert into t values(null, randomblob(30000))");  // pages that nobody writes again
  Settle();
  ExpectShipped();
  two.Run("insert into t values(null, randomblob(3000)); begin; insert into t values(null, 'long')");
  two.CheckpointToCopy();
  const auto found = AwaitWritingCheckpointer(path_);
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(found->copies);
  clock_.Advance(Attached::kLockWait);  // the locks are looked at now and then
  ASSERT_FALSE(follower_->Peek());
  clock_.Advance(2 * Attached::kLockWait);
  EXPECT_FALSE(follower_->Peek()) << "it waits for the disk";
  two.GoOn();
  two.Run("commit");
  Settle();
  ExpectShipped();
  EXPECT_TRUE(home_.gaps.empty());
  EXPECT_EQ(doubts(), 0u);
}

TEST_F(NobodyWaitsTest, ACheckpointThatWaitsIs) {
  Make();
  Application application(path_, 20'000);
  application.Run("pragma wal_autocheckpoint=0; select count(*) from t");
  Attach();
  application.Run("insert into t values(null, randomblob(3000))");
  Settle();
  application.Run("insert into t values(null, randomblob(3000))");
  application.Begin("checkpoint full");
  ASSERT_TRUE(AwaitWritingCheckpointer(path_).has_value());
  clock_.Advance(Attached::kLockWait);  // the locks are looked at now and then
  ASSERT_FALSE(follower_->Peek());
  clock_.Advance(2 * Attached::kLockWait);
  EXPECT_TRUE(follower_->Peek());
  Settle();
  EXPECT_EQ(application.End(), SQLITE_OK);
}

}  // namespace
}  // namespace litefleet::follow
