// Databases of which what is to be read at the path is not what their application has: no method makes a snapshot of it.
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "agent/capture/user_database.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "tests/unit/agent/capture/methods_fixture.h"
#include "tests/unit/agent/follow/application.h"

namespace litefleet::capture {
namespace {

class ForeignLockingTest : public MethodsTest {};

// SQLite's unix-dotfile locks by a directory, in which state nobody else may read; after it the database is one like any other.
TEST_P(ForeignLockingTest, File) {
  Sql(path_, kSixHundredRows);
  {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open_v2(path_.c_str(), &db, SQLITE_OPEN_READWRITE, "unix-dotfile"), SQLITE_OK);
    // More than its cache holds: a part of the transaction is in the file, and what it was in the journal.
    ASSERT_EQ(sqlite3_exec(db,
                           "pragma cache_size=2; begin immediate; create table half_made(a);"
                           "with recursive n(i) as (select 1 union all select i + 1 from n where i < 200)"
                           "insert into half_made select zeroblob(1000) from n",
                           nullptr, nullptr, nullptr),
              SQLITE_OK);
    EXPECT_EQ(Take("stored.db"), "FOREIGN_LOCKING");
    EXPECT_THAT(said_, testing::HasSubstr("unix-dotfile"));
    ASSERT_EQ(sqlite3_exec(db, "commit", nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(db);
  }
  std::ofstream(path_ + ".lock") << "the application's own";
  EXPECT_EQ(Take("stored.db"), "") << said_;
}

// What is called as a journal may be anything: looking at it waits for nobody.
TEST_P(ForeignLockingTest, APipeForAJournal) {
  Sql(path_, kSixHundredRows);
  std::filesystem::create_directory(path_ + ".lock");
  ASSERT_EQ(mkfifo((path_ + "-journal").c_str(), 0600), 0);
  const auto database = UserDatabase::Open({.path = path_, .allow_network_fs = true});
  EXPECT_TRUE(database.ok()) << database.status();
}

// A journal that is kept between transactions, and a directory that some other program calls so.
TEST_P(ForeignLockingTest, DirectoryOfAnother) {
  Sql(path_, fmt::format("pragma journal_mode=persist; {}", kSixHundredRows));
  ASSERT_TRUE(std::filesystem::exists(path_ + "-journal"));
  std::filesystem::create_directory(path_ + ".lock");
  EXPECT_EQ(Take("stored.db"), "") << said_;
}

INSTANTIATE_TEST_SUITE_P(Foreign, ForeignLockingTest,
                         testing::Values(Cell{"online", "delete", "x"}, Cell{"file", "delete", "x"}, Cell{"dump", "delete", "x"}), NameOf);

// What an application commits into a WAL that is at no path is in no snapshot: none is made then.
class RemovedWalTest : public MethodsTest {};

TEST_P(RemovedWalTest, UnderAnApplication) {
  Sql(path_, fmt::format("pragma journal_mode=wal; {}", kSixHundredRows));
  follow::Application application(path_);
  application.Run("update t set i = 1");
  for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
  application.Run("update t set i = 2");
  const std::string before = Listing(Path("place"));
  EXPECT_EQ(Take("stored.db"), "WAL_REMOVED");
  EXPECT_THAT(said_, testing::HasSubstr("an application (process "));
  EXPECT_EQ(Listing(Path("place")), before);
  application.Run("close");
  EXPECT_EQ(Take("stored.db"), "") << said_;
  EXPECT_EQ(Query(Path("stored.db"), "select min(i) from t"), "2");
}

// The wal-index at the path is the application's, so that its locks look right; the WAL beside it is another.
TEST_P(RemovedWalTest, AndMadeAnew) {
  Sql(path_, fmt::format("pragma journal_mode=wal; {}", kSixHundredRows));
  follow::Application application(path_);
  application.Run("update t set i = 1");
  std::filesystem::remove(path_ + "-wal");
  std::ofstream(path_ + "-wal").close();
  EXPECT_EQ(Take("stored.db"), "WAL_REMOVED");
  EXPECT_THAT(said_, testing::HasSubstr("is not the one that its wal-index is of"));
  std::ofstream(path_ + "-wal") << std::string(4096, 'x');
  EXPECT_EQ(Take("stored.db"), "WAL_REMOVED");
  application.Run("close");
  EXPECT_EQ(Take("stored.db"), "") << said_;
  EXPECT_EQ(Query(Path("stored.db"), "select min(i) from t"), "1");
}

// It has a wal-index in its own memory, and no lock on the one at the path: with the files of the path open it follows no other ones.
TEST_P(RemovedWalTest, AReaderThatMayNotWriteFollowsTheWalOfACrash) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can be another user, too";
  Sql(path_, fmt::format("pragma journal_mode=wal; {}", kSixHundredRows));
  {
    follow::Application application(path_);
    application.Run("update t set i = 1");
    application.Kill();
  }
  for (const std::string& folder : {directory(), Path("place")}) std::filesystem::permissions(folder, std::filesystem::perms(0755));
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::permissions(path_ + suffix, std::filesystem::perms(0644));
  Child reader([this](const std::function<void()>& ready, const std::function<bool()>& asked_to_stop) {
    if (setgid(65534) != 0 || setuid(65534) != 0) return 3;
    sqlite3* db = nullptr;
    if (sqlite3_open_v2(path_.c_str(), &db, SQLITE_OPEN_READONLY, nullptr) != SQLITE_OK) return 4;
    if (sqlite3_exec(db, "select count(*) from t", nullptr, nullptr, nullptr) != SQLITE_OK) return 5;  // within a transaction it has a lock
    ready();
    while (!asked_to_stop()) usleep(10'000);
    return 0;
  });
  EXPECT_EQ(Take("stored.db"), "") << said_;
  EXPECT_EQ(reader.Stop(), 0);
  EXPECT_EQ(Query(Path("stored.db"), "select min(i) from t"), "1");
}

// As above, but the agent may not look at the reader: its locks tell that it has no wal-index at all, and so none of another WAL.
TEST_P(RemovedWalTest, AReaderThatMayNotBeLookedAt) {
  // The method online needs no program.
  if (GetParam().method != "online" && !AnybodyMayComeToThePrograms())
    GTEST_SKIP() << "a directory above the programs is closed to other users";
  Sql(path_, fmt::format("pragma journal_mode=wal; {}", kSixHundredRows));
  {
    follow::Application application(path_);
    application.Run("update t set i = 1");
    application.Kill();
  }
  for (const std::string& folder : {directory(), Path("place"), Path("scratch")})
    std::filesystem::permissions(folder, std::filesystem::perms(0777));
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::permissions(path_ + suffix, std::filesystem::perms(0644));
  constexpr uid_t kReader = 65534, kAgent = 65533;
  if (geteuid() != 0 || chown(path_.c_str(), kAgent, kAgent) != 0 || chown((path_ + "-wal").c_str(), kAgent, kAgent) != 0 ||
      chown((path_ + "-shm").c_str(), kAgent, kAgent) != 0) {
    GTEST_SKIP() << "only root can be two other users";
  }
  Child reader([this](const std::function<void()>& ready, const std::function<bool()>& asked_to_stop) {
    if (setgid(kReader) != 0 || setuid(kReader) != 0) return 3;
    sqlite3* db = nullptr;
    if (sqlite3_open_v2(path_.c_str(), &db, SQLITE_OPEN_READONLY, nullptr) != SQLITE_OK) return 4;
    if (sqlite3_exec(db, "select count(*) from t", nullptr, nullptr, nullptr) != SQLITE_OK) return 5;  // within a transaction it has a lock
    ready();
    while (!asked_to_stop()) usleep(10'000);
    return 0;
  });
  Child agent([this](const std::function<void()>& ready, const std::function<bool()>&) {
    if (setgid(kAgent) != 0 || setuid(kAgent) != 0) return 3;
    const std::string reason = Take("stored.db");
    fmt::print(stderr, "{}", said_);
    ready();
    return reason.empty() ? 0 : 4;
  });
  EXPECT_EQ(agent.Stop(), 0);
  EXPECT_EQ(reader.Stop(), 0);
}

class ForeignWalTest : public CaptureTest {
 protected:
  void SetUp() override { path_ = Path("app.db"); }
  std::string path_;
};

// The wal-index holds nothing when the agent comes, and the WAL beside it is an old one. What the application commits then goes into the
// one that is at no path: with its death the wrong WAL has an index.
TEST_F(ForeignWalTest, IsNotFoldedWhenItsIndexIsFilledLater) {
  Sql(path_, fmt::format("pragma journal_mode=wal; {}", kSixHundredRows));
  Bytes before;
  {
    follow::Application application(path_);
    application.Run("update t set i = 1");
    std::filesystem::copy_file(path_ + "-wal", Path("old-wal"));
    application.Run("pragma wal_checkpoint(truncate)");
    std::filesystem::remove(path_ + "-wal");
    std::filesystem::copy_file(Path("old-wal"), path_ + "-wal");
    auto database = UserDatabase::Open({.path = path_, .allow_network_fs = true});
    ASSERT_TRUE(database.ok()) << database.status();
    ASSERT_TRUE((*database)->BeginRead().ok());
    (*database)->EndRead();
    application.Run("update t set i = 2 where id = 1");
    application.Kill();
    before = FileBytes(path_);
    EXPECT_TRUE((*database)->Close().ok());
  }
  EXPECT_TRUE(FileBytes(path_) == before) << "frames of another WAL are in it";
}

// With locking_mode=EXCLUSIVE there is no wal-index to look at.
TEST_P(RemovedWalTest, UnderAnApplicationThatLetsNobodyIn) {
  Sql(path_, fmt::format("pragma journal_mode=wal; {}", kSixHundredRows));
  follow::Application application(path_);
  application.Run("pragma locking_mode=exclusive");
  application.Run("update t set i = 1");
  std::filesystem::remove(path_ + "-wal");
  wait_ms_ = 1500;
  EXPECT_EQ(Take("stored.db"), GetParam().method == "file" ? "WAL_REMOVED" : "DATABASE_BUSY") << said_;
}

// There is none where nobody has the database open, and the copy of the files is made without a lock.
class NoWalTest : public MethodsTest {};

// Nobody has it open, and the agent may not write it: that there is no WAL is as it should be.
TEST_P(NoWalTest, OfAFileThatMayNotBeWritten) {
  if (!AnybodyMayComeToThePrograms()) GTEST_SKIP() << "a directory above the programs is closed to other users";
  Sql(path_, fmt::format("pragma journal_mode=wal; {}", kSixHundredRows));
  std::filesystem::permissions(path_, std::filesystem::perms(0444));
  constexpr uid_t kOwner = 65534;
  for (const std::string& folder : {directory(), Path("place"), Path("scratch")})
    std::filesystem::permissions(folder, std::filesystem::perms(0777));
  if (geteuid() == 0) {
    ASSERT_EQ(chown(path_.c_str(), kOwner, kOwner), 0);
  }
  Child agent([this](const std::function<void()>& ready, const std::function<bool()>&) {
    if (geteuid() == 0 && (setgid(kOwner) != 0 || setuid(kOwner) != 0)) return 3;
    const std::string reason = Take("stored.db");
    fmt::print(stderr, "{}", said_);
    ready();
    return reason.empty() ? 0 : 4;
  });
  EXPECT_EQ(agent.Stop(), 0);
}

// The last one who closes keeps everybody out while it folds the WAL in, and takes it away: busy, and nothing is lost.
TEST_P(NoWalTest, WhereTheLastOneCloses) {
  Sql(path_, fmt::format("pragma journal_mode=wal; {}", kSixHundredRows));
  Child closer([this](const std::function<void()>& ready, const std::function<bool()>& asked_to_stop) {
    const int fd = open(path_.c_str(), O_RDWR | O_CLOEXEC);
    struct flock all {};
    all.l_type = F_WRLCK;
    all.l_whence = SEEK_SET;
    all.l_start = 0x40000000;
    all.l_len = 512;
    if (fd < 0 || fcntl(fd, F_SETLK, &all) != 0) return 3;
    ready();
    while (!asked_to_stop()) usleep(1000);
    return 0;
  });
  wait_ms_ = 300;
  Child agent([this](const std::function<void()>& ready, const std::function<bool()>&) {
    setenv("LITEFLEET_STOP_AT", "capture.pinned", 1);  // it was locked out, and has begun to read without a lock
    ready();
    const std::string reason = Take("stored.db");
    fmt::print(stderr, "{}\n", said_);
    return reason == "DATABASE_BUSY" ? 0 : 4;
  });
  ASSERT_TRUE(agent.AwaitStopped());
  closer.Kill();
  agent.Continue();
  EXPECT_EQ(agent.Stop(), 0);
}

INSTANTIATE_TEST_SUITE_P(AtRest, NoWalTest, testing::Values(Cell{"file", "wal", "x"}), NameOf);

INSTANTIATE_TEST_SUITE_P(Removed, RemovedWalTest,
                         testing::Values(Cell{"online", "wal", "x"}, Cell{"file", "wal", "x"}, Cell{"dump", "wal", "x"}), NameOf);

}  // namespace
}  // namespace litefleet::capture
