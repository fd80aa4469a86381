#include "agent/capture/lock_table.h"

#include <sys/sysmacros.h>
#include <unistd.h>

#include "fmt/format.h"
#include "tests/unit/agent/capture/capture_fixture.h"

namespace litefleet::capture {
namespace {

TEST(LockTable, ParsesWhatTheKernelPrints) {
  const auto locks = ParseLocks(
      "1: POSIX  ADVISORY  READ 1234 fe:01:5678 1073741826 1073742335\n"
      "1: -> POSIX  ADVISORY  WRITE 77 fe:01:5678 0 EOF\n"
      "2: FLOCK  ADVISORY  WRITE 99 00:19:1 0 EOF\n"
      "3: OFDLCK ADVISORY  READ -1 08:10:18446744073709551615 0 EOF\n"
      "4: LEASE  ACTIVE    READ 5 08:10:3 0 EOF\n"
      "nonsense\n5: POSIX  ADVISORY  READ x y 0 EOF\n6: POSIX ADVISORY READ 8 fe:01:9 0 EOF");
  ASSERT_EQ(locks.size(), 4u);
  EXPECT_EQ(locks[0].pid, 1234);
  EXPECT_EQ(locks[0].file, (FileId{makedev(0xfe, 1), 5678}));
  EXPECT_EQ(locks[1].pid, 77);
  EXPECT_EQ(locks[2].pid, -1);
  EXPECT_EQ(locks[2].file.inode, 18446744073709551615u);
  EXPECT_EQ(locks[3].file.inode, 9u);
}

TEST(LockTable, WhoWritesAndCheckpointsAtOnce) {
  const FileId index{makedev(0xfe, 1), 9};
  const auto both = [&](const std::string& table) { return WriterCheckpoints(ParseLocks(table), index); };
  EXPECT_TRUE(both("1: POSIX  ADVISORY  WRITE 7 fe:01:9 120 121\n"));
  EXPECT_TRUE(both("1: POSIX  ADVISORY  WRITE 7 fe:01:9 120 120\n2: POSIX  ADVISORY  WRITE 7 fe:01:9 121 121\n"));
  EXPECT_FALSE(both("1: POSIX  ADVISORY  WRITE 7 fe:01:9 120 120\n2: POSIX  ADVISORY  WRITE 8 fe:01:9 121 121\n"));
  EXPECT_FALSE(both("1: POSIX  ADVISORY  READ 7 fe:01:9 120 121\n"));
  EXPECT_FALSE(both("1: POSIX  ADVISORY  WRITE 7 fe:01:9 120 120\n1: -> POSIX  ADVISORY  WRITE 7 fe:01:9 121 121\n"));
  EXPECT_FALSE(both("1: POSIX  ADVISORY  WRITE 7 fe:01:8 120 121\n"));
  EXPECT_FALSE(both(fmt::format("1: POSIX  ADVISORY  WRITE {} fe:01:9 120 121\n", getpid())));
  EXPECT_FALSE(both(""));
}

TEST(LockTable, WhoReadsWithoutTheWalIndex) {
  const FileId database{1, 10}, index{1, 11}, other{1, 12};
  const auto lock = [](pid_t pid, FileId file, uint64_t byte) {
    FileLock one;
    one.pid = pid;
    one.file = file;
    one.first = one.last = byte;
    return one;
  };
  constexpr uint64_t kShared = (1 << 30) + 2;
  const std::vector<FileLock> locks = {lock(100, database, kShared), lock(100, index, 128), lock(200, database, kShared),
                                       lock(300, other, kShared), lock(200, other, 128)};
  EXPECT_EQ(ReadersWithoutIndex(locks, database, index), std::set<pid_t>{200});
  EXPECT_EQ(ReadersWithoutIndex(locks, database, std::nullopt), (std::set<pid_t>{100, 200}));
}

class LockTableTest : public CaptureTest {};

TEST_F(LockTableTest, SeesAnAttachedProcessAndNotItself) {
  const std::string path = Path("a.db");
  Sql(path, "pragma journal_mode=wal; create table t(a)");
  const FileId file = FileIdOf(path).value();
  EXPECT_FALSE(LockedByOthers({&file, 1}));
  {
    Child app([&](const auto& ready, const auto& asked_to_stop) {
      Connection connection(path);
      connection.Int("select count(*) from t");  // attached, no transaction
      EXPECT_FALSE(LockedByOthers({&file, 1}));
      ready();
      while (!asked_to_stop()) usleep(1000);
      return 0;
    });
    EXPECT_TRUE(LockedByOthers({&file, 1}));
    EXPECT_EQ(app.Stop(), 0);
  }
  EXPECT_FALSE(LockedByOthers({&file, 1}));
  EXPECT_FALSE(FileIdOf(Path("missing")).has_value());
}

}  // namespace
}  // namespace litefleet::capture
