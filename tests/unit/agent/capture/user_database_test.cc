// What the agent refuses to open, and why it says so; under other uids too.
#include "agent/capture/user_database.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "common/base/status.h"
#include "fmt/format.h"
#include "tests/fakes/pretended_file_system.h"
#include "tests/unit/agent/capture/capture_fixture.h"

namespace litefleet::capture {
namespace {

constexpr uid_t kNobody = 65534;

class UserDatabaseTest : public CaptureTest {
 protected:
  std::string ReasonFor(const std::string& path) const { return ReasonOf(Backup(path).status); }
  std::string Make(const std::string& mode) const {
    const std::string path = Path("a.db");
    Shell(fmt::format("rm -f '{}'*", path));
    Sql(path, fmt::format("pragma journal_mode={}; create table t(a); insert into t values (randomblob(5000))", mode));
    return path;
  }
  // The reason of a backup by an unprivileged process, empty for success. REQUIRES: root.
  std::string ReasonAsNobody(const std::string& path) const {
    const std::string answer = Path("answer");
    Shell(fmt::format("rm -f '{0}' && touch '{0}' && chmod 666 '{0}'", answer));
    Child child([&](const auto& ready, const auto&) {
      if (setgid(kNobody) != 0 || setuid(kNobody) != 0) return 1;
      const Copy copy = Backup(path);
      if (!copy.status.ok()) fmt::print(stderr, "as nobody: {}\n", copy.status.ToString());
      FILE* file = std::fopen(answer.c_str(), "w");
      std::fputs(ReasonOf(copy.status).c_str(), file);
      std::fclose(file);
      ready();
      return 0;
    });
    EXPECT_EQ(child.Stop(), 0);
    const Bytes bytes = FileBytes(answer);
    return std::string(AsText(bytes));
  }
};

// A connection that has rolled a journal back goes on with what it found there, and another one takes its place; a writer's is left alone.
TEST_F(UserDatabaseTest, TheFirstReadOpensItOnceMoreWhereItRolledAJournalBack) {
  constexpr int kMark = 123'456;
  const auto is_the_same = [&](const std::string& path) {
    auto database = UserDatabase::Open({path});
    EXPECT_TRUE(database.ok()) << database.status();
    sqlite3_limit((*database)->db(), SQLITE_LIMIT_LENGTH, kMark);
    EXPECT_TRUE((*database)->BeginRead().ok());
    const bool same = sqlite3_limit((*database)->db(), SQLITE_LIMIT_LENGTH, -1) == kMark;
    (*database)->EndRead();
    return same;
  };
  const std::string path = Make("delete");
  EXPECT_TRUE(is_the_same(path));
  {
    Child writer([&](const auto& ready, const auto& asked_to_stop) {
      Connection db(path);
      db.Run("pragma synchronous=off; begin immediate; insert into t values (1)");
      ready();
      while (!asked_to_stop()) usleep(1000);
      return 0;
    });
    ASSERT_GT(FileBytes(path + "-journal").size(), 0u);
    EXPECT_TRUE(is_the_same(path));
    EXPECT_EQ(writer.Stop(), 0);
  }
  Child crashes([&](const auto& ready, const auto& asked_to_stop) {
    Connection db(path);
    db.Run("pragma cache_size=5; begin; update t set a = randomblob(100000)");
    ready();
    while (!asked_to_stop()) usleep(1000);
    return 0;
  });
  crashes.Kill();
  ASSERT_TRUE(std::filesystem::exists(path + "-journal"));
  EXPECT_FALSE(is_the_same(path));
  EXPECT_FALSE(std::filesystem::exists(path + "-journal"));
}

// What lies there when it has been rolled back is of a transaction that has begun since: it is not taken for one that was left alone.
TEST_F(UserDatabaseTest, ItIsOpenedOnceMoreAlsoWhereSomebodyHasBegunToWriteMeanwhile) {
  const std::string path = Make("delete");
  Child([&](const auto& ready, const auto&) {
    Connection db(path);
    db.Run("pragma cache_size=5; begin; update t set a = randomblob(100000)");
    ready();
    for (;;) usleep(1000);
    return 0;
  }).Kill();
  ASSERT_TRUE(std::filesystem::exists(path + "-journal"));
  constexpr int kMark = 123'456;
  Child agent([&](const auto& ready, const auto&) {
    setenv("LITEFLEET_STOP_AT", "capture.read_beside_journal", 1);
    ready();
    auto database = UserDatabase::Open({path});
    if (!database.ok()) return 2;
    sqlite3_limit((*database)->db(), SQLITE_LIMIT_LENGTH, kMark);
    if (!(*database)->BeginRead().ok()) return 3;
    return sqlite3_limit((*database)->db(), SQLITE_LIMIT_LENGTH, -1) == kMark ? 1 : 0;
  });
  ASSERT_TRUE(agent.AwaitStopped());
  EXPECT_FALSE(std::filesystem::exists(path + "-journal"));
  Child writer([&](const auto& ready, const auto& asked_to_stop) {
    Connection db(path);
    db.Run("pragma synchronous=off; begin immediate; insert into t values (1)");
    ready();
    while (!asked_to_stop()) usleep(1000);
    return 0;
  });
  const Bytes journal = FileBytes(path + "-journal");
  ASSERT_GT(journal.size(), 0u);
  ASSERT_NE(journal[0], std::byte{0});
  agent.Continue();
  EXPECT_EQ(agent.Stop(), 0);
  EXPECT_EQ(writer.Stop(), 0);
}

TEST_F(UserDatabaseTest, RefusalsHaveReasons) {
  EXPECT_EQ(ReasonFor("relative.db"), "INVALID_PATH");
  EXPECT_EQ(ReasonFor(""), "INVALID_PATH");
  EXPECT_EQ(ReasonFor(Path("missing.db")), "DATABASE_MISSING");
  EXPECT_EQ(ReasonFor(Path("no/such/directory.db")), "DATABASE_MISSING");
  EXPECT_EQ(ReasonFor(directory()), "NOT_REGULAR_FILE");
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(ReasonFor(Path("pipe")), "NOT_REGULAR_FILE");
  EXPECT_EQ(ReasonFor("/dev/null"), "NOT_REGULAR_FILE");
  ASSERT_EQ(Shell(fmt::format("ln -s nowhere '{}'", Path("dangling.db"))), 0);
  EXPECT_EQ(ReasonFor(Path("dangling.db")), "DATABASE_MISSING");
  EXPECT_EQ(ReasonFor(Path("a.db")), "DATABASE_MISSING");
  EXPECT_FALSE(std::filesystem::exists(Path("missing.db")));
}

TEST_F(UserDatabaseTest, EncryptedOrForeignFilesAreNoDatabases) {
  std::mt19937 random(7);
  for (const size_t size : {2u, 16u, 99u, 512u, 4096u, 300000u}) {
    Bytes bytes(size);
    for (auto& byte : bytes) byte = static_cast<std::byte>(random());
    const std::string path = Store(bytes, "random.db");
    const std::string files = Listing(directory());
    EXPECT_EQ(ReasonFor(path), size == 4096 ? "ENCRYPTED" : "NOT_A_DATABASE") << size;  // 300000 are no whole pages
    EXPECT_EQ(Listing(directory()), files);
  }
  const ByteView text = AsBytes("This is a text, and no database at all.\n");
  EXPECT_EQ(ReasonFor(Store(Bytes(text.begin(), text.end()), "text.db")), "NOT_A_DATABASE");
  // The first 16 bytes and no more.
  const ByteView magic = AsBytes(std::string_view("SQLite format 3\0", 16));
  EXPECT_NE(ReasonFor(Store(Bytes(magic.begin(), magic.end()), "magic.db")), "");
}

TEST_F(UserDatabaseTest, SettingsAreThoseOfTheDesign) {
  const std::string path = Make("wal");
  auto database = UserDatabase::Open({.path = path, .allow_network_fs = true});
  ASSERT_TRUE(database.ok()) << database.status();
  sqlite3* db = (*database)->db();
  EXPECT_FALSE(std::filesystem::exists(path + "-wal"));  // nothing before the first read
  for (const auto& [option, expected] :
       {std::pair{SQLITE_DBCONFIG_DEFENSIVE, 1}, std::pair{SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
        std::pair{SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0}, std::pair{SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1}}) {
    int value = -1;
    ASSERT_EQ(sqlite3_db_config(db, option, -1, &value), SQLITE_OK);
    EXPECT_EQ(value, expected) << option;
  }
  ASSERT_TRUE((*database)->BeginRead().ok());
  EXPECT_NE((*database)->wal_file(), nullptr);
  (*database)->EndRead();
  EXPECT_EQ(sqlite3_exec(db, "insert into t values (1)", nullptr, nullptr, nullptr) & 0xff, SQLITE_READONLY);
  EXPECT_EQ(sqlite::QueryInt(db, "pragma wal_autocheckpoint").value(), 0);
  EXPECT_TRUE((*database)->Close().ok());
  EXPECT_TRUE((*database)->Close().ok());
  EXPECT_FALSE(std::filesystem::exists(path + "-wal"));
}

// Whatever the order in which connections of this process close, the last one removes what was not there before.
TEST_F(UserDatabaseTest, SeveralConnectionsOfOneProcess) {
  for (const bool first_closes_first : {true, false}) {
    for (const bool second_reads : {true, false}) {
      const std::string path = Make("wal");
      const std::string files = Listing(directory());
      auto first = UserDatabase::Open({.path = path, .allow_network_fs = true});
      auto second = UserDatabase::Open({.path = path, .allow_network_fs = true});
      ASSERT_TRUE(first.ok() && second.ok());
      ASSERT_TRUE((*first)->BeginRead().ok());
      if (second_reads) {
        ASSERT_TRUE((*second)->BeginRead().ok());
      }
      EXPECT_TRUE((first_closes_first ? *first : *second)->Close().ok());
      EXPECT_TRUE(std::filesystem::exists(path + "-wal"));
      EXPECT_TRUE((first_closes_first ? *second : *first)->Close().ok());
      EXPECT_EQ(Listing(directory()), files) << first_closes_first << second_reads;
    }
  }
}

TEST_F(UserDatabaseTest, NetworkFileSystemsAreRefusedUnlessAllowed) {
  const std::string path = Make("wal");
  const std::string before = Listing(directory());
  for (const auto& [magic, name] : {std::pair{0x6969u, "nfs"}, std::pair{0xff534d42u, "cifs"}, std::pair{0xfe534d42u, "smb2"},
                                    std::pair{0x01021997u, "9p"}, std::pair{0x00c36400u, "ceph"}}) {
    g_pretended_magic = magic;
    const auto refused = UserDatabase::Open({.path = path});
    const auto allowed = UserDatabase::Open({.path = path, .allow_network_fs = true});
    g_pretended_magic = 0;
    EXPECT_EQ(ReasonOf(refused.status()), "NETWORK_FILE_SYSTEM") << name;
    EXPECT_NE(MessageOf(refused.status()).find(fmt::format("lies on {}", name)), std::string::npos) << refused.status();
    EXPECT_TRUE(allowed.ok()) << allowed.status();
  }
  EXPECT_EQ(Listing(directory()), before);
  EXPECT_TRUE(UserDatabase::Open({.path = path}).ok()) << "a local one needs no leave";
}

TEST_F(UserDatabaseTest, OtherOwner) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to become somebody else";
  ASSERT_EQ(chmod(directory().c_str(), 0777), 0);

  const std::string rollback = Make("delete");
  ASSERT_EQ(chmod(rollback.c_str(), 0644), 0);
  EXPECT_EQ(ReasonAsNobody(rollback), "");
  ASSERT_EQ(chmod(rollback.c_str(), 0600), 0);
  EXPECT_EQ(ReasonAsNobody(rollback), "NO_PERMISSION");

  const std::string wal = Make("wal");
  ASSERT_EQ(chmod(wal.c_str(), 0666), 0);
  Shell(fmt::format("rm '{}'", Path("answer")));
  const std::string files = Listing(directory());
  EXPECT_EQ(ReasonAsNobody(wal), "NOT_OWNER");
  EXPECT_EQ(Shell(fmt::format("rm -f '{}'", Path("answer"))), 0);
  EXPECT_EQ(Listing(directory()), files);

  // The application is attached, and its files are there.
  Child app([&](const auto& ready, const auto& asked_to_stop) {
    Connection connection(wal);
    connection.Run("insert into t values (1)");
    ready();
    while (!asked_to_stop()) usleep(1000);
    return 0;
  });
  EXPECT_EQ(ReasonAsNobody(wal), "");
  EXPECT_TRUE(std::filesystem::exists(wal + "-shm"));
  EXPECT_EQ(app.Stop(), 0);

  // As its owner.
  ASSERT_EQ(chown(wal.c_str(), kNobody, kNobody), 0);
  ASSERT_EQ(chmod(wal.c_str(), 0600), 0);
  EXPECT_EQ(ReasonAsNobody(wal), "");
  EXPECT_FALSE(std::filesystem::exists(wal + "-wal"));
}

TEST_F(UserDatabaseTest, DirectoryWhereNothingMayBeCreated) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to become somebody else";
  ASSERT_EQ(chmod(directory().c_str(), 0777), 0);
  ASSERT_EQ(mkdir(Path("sealed").c_str(), 0755), 0);
  const std::string made = Make("wal");
  const std::string path = Path("sealed/a.db");
  ASSERT_EQ(rename(made.c_str(), path.c_str()), 0);
  ASSERT_EQ(chown(path.c_str(), kNobody, kNobody), 0);
  EXPECT_EQ(ReasonAsNobody(path), "NO_PERMISSION");
  ASSERT_EQ(chmod(Path("sealed").c_str(), 0700), 0);
  EXPECT_EQ(ReasonAsNobody(path), "NO_PERMISSION");
}

TEST_F(UserDatabaseTest, ReadOnlyMedium) {
  const std::string mount_point = Path("medium");
  ASSERT_EQ(mkdir(mount_point.c_str(), 0755), 0);
  if (mount("tmpfs", mount_point.c_str(), "tmpfs", 0, "size=16m") != 0) GTEST_SKIP() << "needs the right to mount";
  for (const std::string mode : {"delete", "wal"}) {
    Sql(mount_point + "/" + mode + " ?&%41.db",
        fmt::format("pragma journal_mode={}; create table t(a); insert into t values (randomblob(9000))", mode));
  }
  const std::string leftover = mount_point + "/leftover.db";
  Child app([&](const auto& ready, const auto&) {
    Connection connection(leftover);
    connection.Run("pragma journal_mode=wal; create table t(a)");
    ready();
    pause();
    return 0;
  });
  app.Kill();
  ASSERT_EQ(mount(nullptr, mount_point.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr), 0);
  for (const std::string mode : {"delete", "wal"}) {
    const std::string path = mount_point + "/" + mode + " ?&%41.db";
    const Copy copy = Backup(path);
    EXPECT_TRUE(copy.status.ok()) << copy.status;
    EXPECT_EQ(copy.info.wal, mode == "wal");
    EXPECT_TRUE(copy.bytes == FileBytes(path));
  }
  const Copy copy = Backup(leftover);
  EXPECT_TRUE(copy.status.ok() || ReasonOf(copy.status) == "NO_PERMISSION") << copy.status;
  EXPECT_EQ(umount(mount_point.c_str()), 0);
}

}  // namespace
}  // namespace litefleet::capture
