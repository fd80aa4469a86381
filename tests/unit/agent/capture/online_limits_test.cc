// How long a source may hold its locks, and that it lets go of them.
#include <sys/wait.h>

#include <thread>

#include "agent/capture/online_source.h"
#include "common/base/status.h"
#include "fmt/format.h"
#include "tests/unit/agent/capture/capture_fixture.h"

namespace litefleet::capture {
namespace {

using std::chrono::milliseconds;

class OnlineLimits : public CaptureTest {
 protected:
  std::string Make(const std::string& mode, int rows = 3000) {
    const std::string path = Path("a.db");
    Sql(path,
        fmt::format(
            "pragma journal_mode={}; create table t(id integer primary key, x blob);"
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) insert into t select i, randomblob(1000) from n",
            mode, rows));
    return path;
  }
  // Result code of one commit by another process that does not wait.
  static int CommitElsewhere(const std::string& path) {
    Child child([&](const auto& ready, const auto&) {
      Connection connection(path, 0);
      const int rc = connection.Try("insert into t(x) values (zeroblob(10))");
      ready();
      return rc;
    });
    return child.Stop();
  }
};

TEST_F(OnlineLimits, RollbackModeStallsWritersOnlyWithinItsBudget) {
  const std::string path = Make("delete");
  FakeClock clock;
  OnlineOptions options = Options(path);
  options.clock = &clock;
  auto source = OpenOnlineSource(options);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_FALSE((*source)->info().wal);
  ASSERT_TRUE((*source)->Next().ok());
  EXPECT_EQ(CommitElsewhere(path), SQLITE_BUSY);
  clock.Advance(milliseconds(2001));
  const auto next = (*source)->Next();
  EXPECT_EQ(ReasonOf(next.status()), "WRITER_STALL") << next.status();
  EXPECT_EQ(CommitElsewhere(path), SQLITE_OK);
  EXPECT_EQ(ReasonOf((*source)->Next().status()), "WRITER_STALL");
  EXPECT_TRUE((*source)->Close().ok());
}

TEST_F(OnlineLimits, RollbackModeLetsGoBeforeTheLastExtentIsUsed) {
  const std::string path = Make("delete", 50);
  auto source = OpenOnlineSource(Options(path));
  ASSERT_TRUE(source.ok());
  ASSERT_TRUE((*source)->Next().value().has_value());  // the only one
  EXPECT_EQ(CommitElsewhere(path), SQLITE_OK);
}

TEST_F(OnlineLimits, PinTooLong) {
  const std::string path = Make("wal");
  const std::string files = Listing(directory());
  FakeClock clock;
  OnlineOptions options = Options(path);
  options.clock = &clock;
  options.max_pin = std::chrono::minutes(10);
  auto source = OpenOnlineSource(options);
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_TRUE((*source)->Next().ok());
  clock.Advance(std::chrono::minutes(9));
  ASSERT_TRUE((*source)->Next().ok());
  clock.Advance(std::chrono::minutes(2));
  EXPECT_EQ(ReasonOf((*source)->Next().status()), "PIN_TOO_LONG");
  EXPECT_EQ(Listing(directory()), files);
}

TEST_F(OnlineLimits, WalGrowth) {
  const std::string path = Make("wal");
  OnlineOptions options = Options(path);
  options.reserve = io::DiskReserve(uint64_t{1} << 62);
  auto source = OpenOnlineSource(options);
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_TRUE((*source)->Next().ok());
  Child writer([&](const auto& ready, const auto&) {
    Connection connection(path, 0);
    connection.Run("insert into t(x) select randomblob(1000) from t limit 2000");
    ready();
    return 0;
  });
  EXPECT_EQ(writer.Stop(), 0);
  EXPECT_EQ(ReasonOf((*source)->Next().status()), "WAL_GROWTH");
}

TEST_F(OnlineLimits, CancelIsSeenInEveryNext) {
  const std::string path = Make("delete");
  bool cancelled = false;
  OnlineOptions options = Options(path);
  options.cancelled = [&] { return cancelled; };
  auto source = OpenOnlineSource(options);
  ASSERT_TRUE(source.ok());
  ASSERT_TRUE((*source)->Next().ok());
  cancelled = true;
  EXPECT_EQ((*source)->Next().status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(CommitElsewhere(path), SQLITE_OK);
}

TEST_F(OnlineLimits, LockedTooLongAndCancelledWhileWaiting) {
  const std::string path = Make("delete");
  Child holder([&](const auto& ready, const auto& asked_to_stop) {
    Connection connection(path);
    connection.Run("begin exclusive");
    ready();
    while (!asked_to_stop()) usleep(1000);
    return 0;
  });
  OnlineOptions options = Options(path);
  options.busy_timeout = milliseconds(50);
  EXPECT_EQ(ReasonOf(ReadAll(options).status), "DATABASE_BUSY");
  options.busy_timeout = std::chrono::minutes(5);
  int asked = 0;
  options.cancelled = [&] { return ++asked > 5; };
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(ReadAll(options).status.code(), absl::StatusCode::kCancelled);
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(2));
  EXPECT_EQ(holder.Stop(), 0);
  EXPECT_TRUE(Backup(path).status.ok());
}

TEST_F(OnlineLimits, ExclusiveLockingModeIsNamed) {
  for (const std::string mode : {"delete", "wal"}) {
    const std::string path = Make(mode, 10);
    Child holder([&](const auto& ready, const auto& asked_to_stop) {
      Connection connection(path);
      connection.Run("pragma locking_mode=exclusive; insert into t(x) values (1)");
      ready();
      while (!asked_to_stop()) usleep(1000);
      return 0;
    });
    OnlineOptions options = Options(path);
    options.busy_timeout = milliseconds(50);
    const Copy copy = ReadAll(options);
    EXPECT_EQ(ReasonOf(copy.status), "DATABASE_BUSY") << copy.status;
    EXPECT_NE(HintOf(copy.status).find("EXCLUSIVE"), std::string::npos);
    EXPECT_EQ(holder.Stop(), 0);
    Shell(fmt::format("rm -f '{}'*", path));
  }
}

}  // namespace
}  // namespace litefleet::capture
