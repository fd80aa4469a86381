// On Btrfs, where stat() and the kernel's table of locks name another device for the same file: who has it open is seen all the same.
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "agent/follow/attached.h"
#include "tests/fakes/loop_mount.h"
#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

class BtrfsTest : public FollowerTest {
 protected:
  BtrfsTest() : FollowerTest("mount/app.db") {
    std::filesystem::create_directory(Path("mount"));
    mount_.emplace(Path("mount"), kBtrfs);
  }
  void SetUp() override {
    if (!mount_->mounted()) GTEST_SKIP() << mount_->why();
    Make();
    app_ = std::make_unique<Application>(path_);
    app_->Run("select count(*) from t");
  }
  void TearDown() override {
    app_.reset();
    Stop();
    mount_.reset();
  }

  std::optional<LoopMount> mount_;
  std::unique_ptr<Application> app_;
};

TEST_F(BtrfsTest, ADatabaseThatAnApplicationHasOpenIsFollowed) {
  Attach();
  app_->Run("insert into t values(2, 'b')");
  Settle();
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  ExpectShipped();
  app_->Run("close");
  for (int i = 0; i < 1000 && state() == v1::CAPTURE_STATE_FOLLOWING; ++i) {
    follower_->Notice();
    if (follower_->Glance()) follower_->Step(cancel_);
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_EQ(state(), v1::CAPTURE_STATE_DETACHED);
  EXPECT_FALSE(std::filesystem::exists(path_ + "-wal")) << "it is the last closer";
}

TEST_F(BtrfsTest, AWalThatWasRemovedIsNoticed) {
  app_->Run("insert into t values(2, 'b')");
  for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
  app_->Run("insert into t values(3, 'c')");
  capture::UserDatabaseOptions options;
  options.path = path_;
  options.busy_timeout = milliseconds(100);
  EXPECT_EQ(ReasonOf(Attached::Open(options).status()), "WAL_REMOVED");
}

// The write lock of the agent's own.
TEST_F(BtrfsTest, ARestartAdvancesTheAgentsHold) {
  app_->Run("pragma wal_autocheckpoint=0");
  capture::UserDatabaseOptions options;
  options.path = path_;
  options.busy_timeout = milliseconds(100);
  auto attached = Attached::Open(options);
  ASSERT_TRUE(attached.ok()) << attached.status();
  app_->Run("insert into t values(2, 'b')");
  ASSERT_TRUE((*attached)->HandOver([](const capture::WalState&) {}).ok());
  ASSERT_FALSE((*attached)->held().may_be_mark0);
  const auto done = (*attached)->Restart(std::chrono::seconds(30), [] { return true; });
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_TRUE(*done);
  ASSERT_TRUE((*attached)->Close().ok());
}

}  // namespace
}  // namespace litefleet::follow
