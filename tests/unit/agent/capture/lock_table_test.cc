#include "agent/capture/lock_table.h"

#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "fmt/format.h"
#include "tests/fakes/loop_mount.h"
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

// On a file system that stat() and the table name alike.
LockedFile Plain(FileId file) { return {file, file.device}; }

TEST(LockTable, WhoWritesAndCheckpointsAtOnce) {
  const LockedFile index = Plain({makedev(0xfe, 1), 9});
  const auto both = [&](const std::string& table) { return FindWritingCheckpointer(ParseLocks(table), index).has_value(); };
  EXPECT_TRUE(both("1: POSIX  ADVISORY  WRITE 7 fe:01:9 120 121\n"));
  EXPECT_TRUE(both("1: POSIX  ADVISORY  WRITE 7 fe:01:9 120 120\n2: POSIX  ADVISORY  WRITE 7 fe:01:9 121 121\n"));
  EXPECT_FALSE(both("1: POSIX  ADVISORY  WRITE 7 fe:01:9 120 120\n2: POSIX  ADVISORY  WRITE 8 fe:01:9 121 121\n"));
  EXPECT_FALSE(both("1: POSIX  ADVISORY  READ 7 fe:01:9 120 121\n"));
  EXPECT_FALSE(both("1: POSIX  ADVISORY  WRITE 7 fe:01:9 120 120\n1: -> POSIX  ADVISORY  WRITE 7 fe:01:9 121 121\n"));
  EXPECT_FALSE(both("1: POSIX  ADVISORY  WRITE 7 fe:01:8 120 121\n"));
  EXPECT_FALSE(both(fmt::format("1: POSIX  ADVISORY  WRITE {} fe:01:9 120 121\n", getpid())));
  EXPECT_FALSE(both(""));
}

TEST(LockTable, WhetherAWritingCheckpointerWaitsAndIsOneConnection) {
  const LockedFile index = Plain({makedev(0xfe, 1), 9});
  const std::string both = "1: POSIX  ADVISORY  WRITE 7 fe:01:9 120 121\n2: POSIX  ADVISORY  READ 7 fe:01:9 128 128\n";
  const auto found = [&](const std::string& more) { return FindWritingCheckpointer(ParseLocks(both + more), index).value(); };
  EXPECT_FALSE(found("").copies);
  EXPECT_TRUE(found("").one_connection);
  EXPECT_TRUE(found("3: POSIX  ADVISORY  WRITE 7 fe:01:9 123 123\n").copies);
  EXPECT_TRUE(found("3: POSIX  ADVISORY  WRITE 7 fe:01:9 124 127\n").one_connection) << "it looks whether the marks are free";
  EXPECT_FALSE(found("3: POSIX  ADVISORY  WRITE 8 fe:01:9 123 123\n").copies);
  for (const char* mark : {"123 123", "124 124", "127 128", "123 128"})
    EXPECT_FALSE(found(fmt::format("3: POSIX  ADVISORY  READ 7 fe:01:9 {}\n", mark)).one_connection) << mark;
  EXPECT_TRUE(found("3: POSIX  ADVISORY  READ 8 fe:01:9 124 124\n").one_connection) << "another process reads";
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
  EXPECT_EQ(ReadersWithoutIndex(locks, Plain(database), Plain(index)), std::set<pid_t>{200});
  EXPECT_EQ(ReadersWithoutIndex(locks, Plain(database), std::nullopt), (std::set<pid_t>{100, 200}));
}

TEST(LockTable, WhoHasAWalIndexForEachDatabase) {
  const std::string attached = "1: POSIX  ADVISORY  READ 7 fe:01:10 1073741826 1073742335\n2: POSIX  ADVISORY  READ 7 fe:01:11 128 128\n";
  const std::string other = "3: POSIX  ADVISORY  READ 7 fe:01:20 1073741826 1073742335\n";
  const auto each = [](const std::string& table, pid_t pid) { return HasIndexOfEach(ParseLocks(table), pid); };
  EXPECT_TRUE(each(attached, 7));
  EXPECT_FALSE(each(attached + other, 7)) << "one of the two has none";
  EXPECT_TRUE(each(attached + other + "4: POSIX  ADVISORY  READ 7 fe:01:21 128 128\n", 7));
  EXPECT_FALSE(each(other + "2: POSIX  ADVISORY  READ 8 fe:01:11 128 128\n", 7)) << "another process's";
  EXPECT_FALSE(each(other + "2: POSIX  ADVISORY  READ 7 fe:01:11 123 123\n", 7)) << "the lock of a moment";
}

TEST(LockTable, ADeviceOfItsOwn) {
  // Nobody has these numbers: who cannot be looked at may have the file open, who has gone has not.
  const LockedFile file{{makedev(0, 50), 9}, makedev(0, 40)};
  const auto others = [&](const std::string& table) { return OthersWithLocks(ParseLocks(table), std::span(&file, 1)); };
  EXPECT_TRUE(file.ambiguous());
  EXPECT_EQ(others("1: OFDLCK ADVISORY  READ -1 00:28:9 0 EOF\n"), std::set<pid_t>{-1});
  EXPECT_TRUE(others("1: OFDLCK ADVISORY  READ -1 00:32:9 0 EOF\n").empty());
  EXPECT_TRUE(others("1: POSIX  ADVISORY  READ 4194305 00:28:9 0 EOF\n").empty()) << "there is no such process";
}

class LockTableTest : public CaptureTest {
 protected:
  // Another process has a database open, which it has read, and closes it.
  void ExpectSeen(const std::string& path) const {
    EXPECT_EQ(LocksShow(std::filesystem::path(path).parent_path()), true);
    const LockedFile file = LockedFileOf(path).value();
    EXPECT_FALSE(LockedByOthers({&file, 1}));
    {
      Child app([&](const auto& ready, const auto& asked_to_stop) {
        Connection connection(path);
        connection.Int("select count(*) from t");  // attached, no transaction
        const LockedFile opened = LockedFileOf(path).value();
        EXPECT_FALSE(LockedByOthers({&opened, 1}));
        ready();
        while (!asked_to_stop()) usleep(1000);
        return 0;
      });
      const LockedFile opened = LockedFileOf(path).value();
      const LockedFile index = LockedFileOf(path + "-shm", &opened).value();
      EXPECT_TRUE(LockedByOthers({&opened, 1}));
      EXPECT_TRUE(LockedByOthers({&index, 1}));
      EXPECT_TRUE(ReadersWithoutIndex(ReadLocks(), opened, index).empty());
      EXPECT_EQ(ReadersWithoutIndex(ReadLocks(), opened, std::nullopt).size(), 1u);
      EXPECT_EQ(app.Stop(), 0);
    }
    EXPECT_FALSE(LockedByOthers({&file, 1}));
  }
};

TEST_F(LockTableTest, SeesAnAttachedProcessAndNotItself) {
  const std::string path = Path("a.db");
  Sql(path, "pragma journal_mode=wal; create table t(a)");
  ExpectSeen(path);
  EXPECT_FALSE(FileIdOf(Path("missing")).has_value());
  EXPECT_FALSE(LockedFileOf(Path("missing")).has_value());
}

// stat() tells the subvolume's device there, the table that of the file system, and files of two subvolumes have the same number.
TEST_F(LockTableTest, OnBtrfs) {
  std::filesystem::create_directory(Path("mount"));
  const LoopMount mount(Path("mount"), kBtrfs);
  if (!mount.mounted()) GTEST_SKIP() << mount.why();
  const std::string one = Path("mount/one"), two = Path("mount/two");
  for (const std::string& subvolume : {one, two}) {
    ASSERT_EQ(Shell(fmt::format("btrfs subvolume create '{}' >/dev/null", subvolume)), 0);
    Sql(subvolume + "/a.db", "pragma journal_mode=wal; create table t(a)");
  }
  const LockedFile other = LockedFileOf(two + "/a.db").value();
  EXPECT_TRUE(other.ambiguous());
  EXPECT_EQ(other.id.inode, FileIdOf(one + "/a.db")->inode) << "else the following tells nothing";
  ExpectSeen(one + "/a.db");
  Child app([&](const auto& ready, const auto& asked_to_stop) {
    Connection connection(one + "/a.db");
    connection.Int("select count(*) from t");
    ready();
    while (!asked_to_stop()) usleep(1000);
    return 0;
  });
  EXPECT_FALSE(LockedByOthers({&other, 1})) << "it has the file with that number of the other subvolume open";
  EXPECT_TRUE(ReadersWithoutIndex(ReadLocks(), other, std::nullopt).empty());
  EXPECT_EQ(app.Stop(), 0);
}

// Where the layers are of two file systems each has a device of its own.
TEST_F(LockTableTest, OnOverlayfs) {
  for (const char* name : {"lower", "upper", "merged"}) std::filesystem::create_directory(Path(name));
  if (mount("none", Path("lower").c_str(), "tmpfs", 0, nullptr) != 0) GTEST_SKIP() << "needs the right to mount";
  const auto unmount = [&](const char* name) { static_cast<void>(umount2(Path(name).c_str(), MNT_DETACH)); };
  const absl::Cleanup lower = [&] { unmount("lower"); };
  ASSERT_EQ(mount("none", Path("upper").c_str(), "tmpfs", 0, nullptr), 0);
  const absl::Cleanup upper = [&] { unmount("upper"); };
  for (const char* name : {"upper/files", "upper/work"}) std::filesystem::create_directory(Path(name));
  Sql(Path("lower/of_image.db"), "pragma journal_mode=wal; create table t(a)");
  const std::string layers =
      fmt::format("lowerdir={},upperdir={},workdir={},xino=off", Path("lower"), Path("upper/files"), Path("upper/work"));
  if (mount("none", Path("merged").c_str(), "overlay", 0, layers.c_str()) != 0) GTEST_SKIP() << "no overlayfs here";
  const absl::Cleanup merged = [&] { unmount("merged"); };
  ExpectSeen(Path("merged/of_image.db"));
  Sql(Path("merged/own.db"), "pragma journal_mode=wal; create table t(a)");
  ExpectSeen(Path("merged/own.db"));
}

}  // namespace
}  // namespace litefleet::capture
