// A power cut takes what was not synced: how much of what the controller has acknowledged that is.
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <string>

#include "fmt/format.h"
#include "tests/unit/agent/follow/spooling_fixture.h"

namespace {

std::atomic<int> ledger_syncs{0};

}  // namespace

// In the place of the C library's, for this whole program.
extern "C" int fsync(int fd) {
  std::array<char, 4096> name{};
  if (readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), name.data(), name.size() - 1) > 0 &&
      std::string(name.data()).ends_with("state/app.ledger-log"))
    ++ledger_syncs;
  return static_cast<int>(syscall(SYS_fsync, fd));
}

namespace litefleet::follow {
namespace {

TEST_F(FollowerTest, WhatWasAcknowledgedIsMadeDurableNowAndThen) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  const auto sync = [&] {
    app.Run("insert into t values(null, randomblob(3000))");
    Settle();
    ExpectShipped();
  };
  clock_.AdvanceSteady(std::chrono::seconds(6));
  sync();
  const int first = ledger_syncs;
  EXPECT_GE(first, 1);
  for (int i = 0; i < 3; ++i) sync();
  EXPECT_EQ(ledger_syncs, first) << "it costs too much to be done for each";
  clock_.AdvanceSteady(std::chrono::seconds(6));
  sync();
  EXPECT_EQ(ledger_syncs, first + 1);
  // The last one before the link was cut.
  sync();
  EXPECT_EQ(ledger_syncs, first + 1);
  controller_.connected = false;
  app.Run("insert into t values(null, 'offline')");
  follower_->Step(cancel_);
  EXPECT_EQ(ledger_syncs, first + 2);
  // The last one before nothing comes any more.
  controller_.connected = true;
  clock_.AdvanceSteady(std::chrono::seconds(1));
  Settle();
  ExpectShipped();
  EXPECT_EQ(ledger_syncs, first + 2);
  clock_.AdvanceSteady(std::chrono::seconds(11));
  ASSERT_TRUE(follower_->Glance());
  follower_->Step(cancel_);
  EXPECT_EQ(ledger_syncs, first + 3);
}

// What goes into the spool is built on it.
TEST_F(SpoolingTest, WhatWasAcknowledgedIsMadeDurableWhereASyncStalls) {
  spool_after_ = milliseconds(200);
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  clock_.AdvanceSteady(std::chrono::seconds(6));
  for (int i = 0; i < 2; ++i) {
    app.Run("insert into t values(null, randomblob(3000))");
    Settle();
    ExpectShipped();
  }
  const int before = ledger_syncs;
  controller_.swallow = [](const v1::UploadRequest& request) { return request.has_begin(); };
  ASSERT_NO_FATAL_FAILURE(Sync(app, "insert into t values(null, randomblob(3000))"));
  EXPECT_EQ(ledger_syncs, before + 1);
}

}  // namespace
}  // namespace litefleet::follow
