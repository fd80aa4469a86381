// Other processes write, come and go while the source reads: the copy is one committed state, nobody waits, nothing is left behind.
#include <signal.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "agent/capture/online_source.h"
#include "common/base/status.h"
#include "fmt/format.h"
#include "tests/unit/agent/capture/capture_fixture.h"

namespace litefleet::capture {
namespace {

constexpr int kAccounts = 200;

class Writers : public CaptureTest {
 protected:
  std::string MakeBank(const std::string& mode, int filler = 4000) {
    const std::string path = Path("bank.db");
    Sql(path, fmt::format(
                  "pragma auto_vacuum=incremental; pragma journal_mode={};"
                  "create table account(id integer primary key, balance integer);"
                  "create table commits(n integer); insert into commits values (0);"
                  "create table filler(id integer primary key, x blob);"
                  "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) insert into account select i, 1000 from n;"
                  "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) insert into filler select i, "
                  "randomblob(1000) from n",
                  mode, kAccounts, filler));
    return path;
  }
  // Transfers as fast as it can; grows and shrinks. Exit code: SQLite's of the first failure.
  static int Transfer(const std::string& path, int busy_timeout, const std::function<void()>& ready,
                      const std::function<bool()>& asked_to_stop) {
    Connection connection(path, busy_timeout);
    connection.Run("pragma synchronous=normal; pragma wal_autocheckpoint=200");
    bool said = false;
    for (int i = 0; !asked_to_stop(); ++i) {
      std::string sql = fmt::format(
          "begin immediate; update account set balance = balance - 7 where id = {0} % {2} + 1;"
          "update account set balance = balance + 7 where id = {1} % {2} + 1; update commits set n = n + 1;",
          i * 31, i * 17 + 5, kAccounts);
      if (i % 20 == 0) sql += "insert into filler(x) select randomblob(1500) from filler limit 100;";
      if (i % 20 == 10)
        sql += "delete from filler where id in (select id from filler order by id desc limit 110); pragma incremental_vacuum(50);";
      sql += "commit";
      if (const int rc = connection.Try(sql); rc != SQLITE_OK) return rc;
      if (!said) ready();
      said = true;
    }
    return 0;
  }
  // The number of commits in a copy that must be whole.
  int64_t CheckBank(const Copy& copy) {
    EXPECT_TRUE(copy.status.ok()) << copy.status;
    EXPECT_EQ(copy.damage, "");
    const std::string path = Store(copy.bytes);
    EXPECT_EQ(Query(path, "pragma integrity_check"), "ok");
    EXPECT_EQ(Query(path, "select sum(balance) from account"), std::to_string(kAccounts * 1000));
    const int64_t commits = std::stoll(Query(path, "select n from commits"));
    Shell(fmt::format("rm -f '{}'*", path));
    return commits;
  }
};

TEST_F(Writers, WalCopiesAreStatesAndWritersNeverSeeBusy) {
  const std::string path = MakeBank("wal");
  Child writer([&](const auto& ready, const auto& asked_to_stop) { return Transfer(path, 0, ready, asked_to_stop); });
  int64_t last = 0;
  for (int round = 0; round < 15; ++round) {
    const int64_t commits = CheckBank(Backup(path));
    EXPECT_GE(commits, last);
    last = commits;
  }
  EXPECT_GT(last, 0);
  EXPECT_EQ(writer.Stop(), 0);
  EXPECT_EQ(Listing(directory()).find("-wal"), std::string::npos);
}

TEST_F(Writers, RollbackCopiesAreStates) {
  for (const std::string mode : {"delete", "truncate", "persist"}) {
    const std::string path = MakeBank(mode);
    Child writer([&](const auto& ready, const auto& asked_to_stop) {
      Connection(path).Run("pragma journal_mode=" + mode);
      return Transfer(path, 60000, ready, asked_to_stop);
    });
    for (int round = 0; round < 3; ++round) {
      OnlineOptions options = Options(path);
      options.rollback_stall = std::chrono::seconds(60);
      options.busy_timeout = std::chrono::seconds(60);
      CheckBank(ReadAll(options));
    }
    EXPECT_EQ(writer.Stop(), 0);
    Shell(fmt::format("rm -f '{}'*", path));
  }
}

// The reader is on mark 0, the writer starts the WAL over and changes every page meanwhile.
TEST_F(Writers, WalStartedOverWhileReading) {
  const std::string path = MakeBank("wal");
  Child app([&](const auto& ready, const auto& asked_to_stop) {
    Connection connection(path, 0);
    connection.Run("update account set balance = balance; create table fresh(a); pragma wal_checkpoint(passive)");
    ready();
    while (!asked_to_stop()) usleep(1000);
    return 0;
  });
  const Bytes expected = CheckpointedBytes(path);
  auto source = OpenOnlineSource(Options(path));
  ASSERT_TRUE(source.ok()) << source.status();
  {
    Child writer([&](const auto& ready, const auto&) {
      Connection connection(path, 0);
      for (int i = 0; i < 5; ++i)
        connection.Run(fmt::format("update filler set x = randomblob(900); create table more{}(a); pragma wal_checkpoint(passive)", i));
      ready();
      return 0;
    });
    EXPECT_EQ(writer.Stop(), 0);
  }
  Bytes bytes;
  for (;;) {
    auto next = (*source)->Next();
    ASSERT_TRUE(next.ok()) << next.status();
    if (!next->has_value()) break;
    bytes.insert(bytes.end(), (*next)->data.begin(), (*next)->data.end());
  }
  EXPECT_TRUE(bytes == expected);
  EXPECT_EQ(app.Stop(), 0);
}

TEST_F(Writers, NothingChangesBesideAQuietDatabase) {
  for (const std::string mode : {"delete", "wal"}) {
    const std::string path = MakeBank(mode, 10);
    if (geteuid() == 0) {
      ASSERT_EQ(Shell(fmt::format("chown 1234:2345 '{0}' && chmod 0640 '{0}'", path)), 0);
    }
    struct stat before {
    }, after{};
    ASSERT_EQ(stat(path.c_str(), &before), 0);
    const std::string files = Listing(directory());
    for (int round = 0; round < 5; ++round) EXPECT_TRUE(Backup(path).status.ok());
    EXPECT_EQ(Listing(directory()), files);
    ASSERT_EQ(stat(path.c_str(), &after), 0);
    EXPECT_EQ(before.st_mtim.tv_sec, after.st_mtim.tv_sec);
    EXPECT_EQ(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
    Shell(fmt::format("rm -f '{}'*", path));
  }
}

TEST_F(Writers, FilesMadeMeanwhileHaveTheOwnerAndModeOfTheDatabase) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to give files away";
  const std::string path = MakeBank("wal", 2000);
  ASSERT_EQ(Shell(fmt::format("chown 1234:2345 '{0}' && chmod 0640 '{0}'", path)), 0);
  const mode_t mask = umask(0077);
  auto source = OpenOnlineSource(Options(path));
  umask(mask);
  ASSERT_TRUE(source.ok()) << source.status();
  for (const std::string suffix : {"-wal", "-shm"}) {
    struct stat st {};
    ASSERT_EQ(stat((path + suffix).c_str(), &st), 0) << suffix;
    EXPECT_EQ(st.st_uid, 1234u);
    EXPECT_EQ(st.st_gid, 2345u);
    EXPECT_EQ(st.st_mode & 0777, 0640u);
  }
  EXPECT_TRUE((*source)->Close().ok());
  EXPECT_FALSE(std::filesystem::exists(path + "-wal"));
  EXPECT_FALSE(std::filesystem::exists(path + "-shm"));
}

// The application closes while the agent reads: the agent is the last closer, and folds the WAL in.
TEST_F(Writers, LastCloserFoldsTheWal) {
  const std::string path = MakeBank("wal", 2000);
  Child app([&](const auto& ready, const auto& asked_to_stop) {
    Connection connection(path);
    connection.Run("pragma wal_autocheckpoint=0; update commits set n = 4711");
    ready();
    while (!asked_to_stop()) usleep(1000);
    return 0;
  });
  auto source = OpenOnlineSource(Options(path));
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(app.Stop(), 0);
  EXPECT_TRUE(std::filesystem::exists(path + "-wal"));
  EXPECT_TRUE((*source)->Close().ok());
  EXPECT_FALSE(std::filesystem::exists(path + "-wal"));
  EXPECT_FALSE(std::filesystem::exists(path + "-shm"));
  EXPECT_EQ(Query(path, "select n from commits"), "4711");
}

TEST_F(Writers, StopCopyStartIsNotUndone) {
  const std::string path = MakeBank("wal", 500);
  const std::string good = Path("good.copy");
  ASSERT_EQ(Shell(fmt::format("cp '{}' '{}'", path, good)), 0);
  {
    Child app([&](const auto& ready, const auto& asked_to_stop) {
      Connection connection(path);
      connection.Run("update commits set n = 99; delete from account");
      ready();
      while (!asked_to_stop()) usleep(1000);
      return 0;
    });
    EXPECT_TRUE(Backup(path).status.ok());
    EXPECT_TRUE(std::filesystem::exists(path + "-wal"));  // the application's: left alone
    EXPECT_EQ(app.Stop(), 0);
  }
  ASSERT_EQ(Shell(fmt::format("cp '{}' '{}'", good, path)), 0);
  EXPECT_EQ(Query(path, "select n from commits"), "0");
  EXPECT_EQ(Query(path, "select count(*) from account"), std::to_string(kAccounts));
  EXPECT_EQ(Query(path, "pragma integrity_check"), "ok");
}

TEST_F(Writers, WalLeftByAKilledApplication) {
  const std::string path = MakeBank("wal", 500);
  Child app([&](const auto& ready, const auto&) {
    Connection connection(path);
    connection.Run("pragma wal_autocheckpoint=0; update commits set n = 12");
    ready();
    pause();
    return 0;
  });
  app.Kill();
  ASSERT_TRUE(std::filesystem::exists(path + "-wal"));
  const Bytes expected = CheckpointedBytes(path);
  const Copy copy = Backup(path);
  ASSERT_TRUE(copy.status.ok()) << copy.status;
  EXPECT_TRUE(copy.bytes == expected);
  EXPECT_EQ(Query(path, "select n from commits"), "12");
  EXPECT_FALSE(std::filesystem::exists(path + "-wal"));
}

TEST_F(Writers, HotJournalLeftByAKilledApplication) {
  const std::string path = MakeBank("delete", 500);
  const Bytes before = FileBytes(path);
  Child app([&](const auto& ready, const auto&) {
    Connection connection(path);
    connection.Run("pragma cache_size=2; begin; update filler set x = randomblob(800); update account set balance = 0");
    ready();
    pause();
    return 0;
  });
  app.Kill();
  ASSERT_TRUE(std::filesystem::exists(path + "-journal"));
  ASSERT_FALSE(FileBytes(path) == before);
  const Copy copy = Backup(path);
  ASSERT_TRUE(copy.status.ok()) << copy.status;
  EXPECT_TRUE(copy.bytes == before);
}

// A power cut at any step: the application, and the next backup, find a database as it was.
TEST_F(Writers, KilledAtCrashPoints) {
  for (const std::string point : {"capture.pinned", "capture.unpinned", "capture.before_close"}) {
    for (const std::string mode : {"delete", "wal"}) {
      const std::string path = MakeBank(mode, 500);
      const Bytes before = FileBytes(path);
      Child agent([&](const auto& ready, const auto&) {
        setenv("LITEFLEET_CRASH_AT", point.c_str(), 1);
        ready();
        static_cast<void>(Backup(path));
        return 0;
      });
      EXPECT_EQ(agent.Stop(), 128) << point;
      EXPECT_TRUE(FileBytes(path) == before);
      const Copy copy = Backup(path);
      EXPECT_TRUE(copy.status.ok()) << copy.status;
      EXPECT_TRUE(copy.bytes == before);
      EXPECT_EQ(Query(path, "pragma integrity_check"), "ok");
      EXPECT_FALSE(std::filesystem::exists(path + "-wal"));
      Shell(fmt::format("rm -f '{}'*", path));
    }
  }
}

// The others leave while the agent does, and take it for the one that stays: it comes back as the last closer, and is killed there.
TEST_F(Writers, KilledAsTheLastCloserAfterAll) {
  const std::string path = MakeBank("wal", 500);
  const auto application = [&path](const char* sql) {
    return [&path, sql](const auto& ready, const auto&) {
      Connection connection(path);
      connection.Run(sql);
      ready();
      pause();
      return 0;
    };
  };
  Child app(application("pragma wal_autocheckpoint=0; update commits set n = 13"));
  const auto agent = [&](const char* point) {
    return [this, &path, point](const auto& ready, const auto&) {
      setenv("LITEFLEET_STOP_AT", "capture.before_close", 1);
      if (point != nullptr) setenv("LITEFLEET_CRASH_AT", point, 1);
      ready();
      return static_cast<int>(Backup(path).status.ok());
    };
  };
  Child killed(agent("capture.before_last_close"));
  ASSERT_TRUE(killed.AwaitStopped());
  app.Kill();
  ASSERT_TRUE(std::filesystem::exists(path + "-wal"));
  const Bytes expected = CheckpointedBytes(path);
  killed.Continue();
  EXPECT_EQ(killed.Stop(), 128);
  ASSERT_TRUE(std::filesystem::exists(path + "-wal"));
  EXPECT_TRUE(CheckpointedBytes(path) == expected);
  // The same once more, without the kill: nothing is left beside the file.
  Child second(application("pragma wal_autocheckpoint=0; update commits set n = 14"));
  Child whole(agent(nullptr));
  ASSERT_TRUE(whole.AwaitStopped());
  second.Kill();
  whole.Continue();
  EXPECT_EQ(whole.Stop(), 1);
  EXPECT_FALSE(std::filesystem::exists(path + "-wal"));
  EXPECT_EQ(Query(path, "select n from commits"), "14");
  EXPECT_EQ(Query(path, "pragma integrity_check"), "ok");
}

}  // namespace
}  // namespace litefleet::capture
