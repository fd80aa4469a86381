// A database whose very first transaction was killed after some of its pages had gone into the file: it has pages and no page 1, beside a
// journal that says that there was nothing. SQLite makes it the empty database that it was, and that is what is backed up.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <utility>

#include "agent/capture/database_header.h"
#include "agent/capture/hot_journal.h"
#include "tests/unit/agent/capture/methods_fixture.h"

namespace litefleet::capture {
namespace {

class FirstTransactionTest : public MethodsTest {
 protected:
  // The transaction goes on until the child is asked to stop, or killed.
  Child::Body Begin(const std::string& path) const {
    return [path](const auto& ready, const auto& stop) {
      Connection db(path);
      db.Run(
          "pragma page_size=4096; pragma journal_mode=delete; pragma cache_size=5; pragma cache_spill=1; begin; create table t(x);"
          "with recursive n(i) as (select 1 union all select i + 1 from n where i < 400) insert into t select randomblob(2000) from n");
      ready();
      while (!stop()) usleep(1000);
      db.Run("commit");
      return 0;
    };
  }
  void Kill() {
    Child(Begin(path_)).Kill();
    const Bytes file = FileBytes(path_);
    ASSERT_GT(file.size(), 40u * 4096) << "pages have gone into the file";
    ASSERT_TRUE(std::all_of(file.begin(), file.begin() + kHeaderBytes, [](std::byte byte) { return byte == std::byte{0}; }));
    const Bytes journal = FileBytes(path_ + "-journal");
    ASSERT_GE(journal.size(), 512u);
    ASSERT_TRUE(std::equal(kJournalMagic.begin(), kJournalMagic.end(), journal.begin()));
    ASSERT_EQ(LoadBigEndian<uint32_t>(&journal[16]), 0u) << "of a database of no pages";
  }
  // In place, of files that nobody has open.
  static void Change(const std::string& path, uint64_t at, const std::string& bytes) {
    std::fstream(path, std::ios::binary | std::ios::in | std::ios::out).seekp(static_cast<std::streamoff>(at)) << bytes;
  }
  void Leave(const std::string& state) {
    ASSERT_NO_FATAL_FAILURE(Kill());
    const std::string journal = path_ + "-journal";
    const uint64_t bytes = std::filesystem::file_size(path_);
    if (state == "torn") std::filesystem::resize_file(path_, bytes - 1234);
    if (state == "short") std::filesystem::resize_file(path_, 700);
    if (state == "garbage") Change(path_, 0, std::string(5000, 'x'));
    if (state == "none") std::filesystem::remove(journal);
    if (state == "cleared") Change(journal, 0, std::string(28, '\0'));
    if (state == "magic") Change(journal, 3, "?");
    if (state == "page_size") Change(journal, 24, std::string("\0\0\x10\x01", 4));
    if (state == "sector_size") Change(journal, 20, std::string("\0\0\x02\x01", 4));
    if (state == "half") std::filesystem::resize_file(journal, 300);
    if (state == "link") {
      std::filesystem::rename(journal, path_ + ".elsewhere");
      std::filesystem::create_symlink(path_ + ".elsewhere", journal);
    }
  }
};

TEST_P(FirstTransactionTest, WhatSqliteMakesOfItIsBackedUp) {
  ASSERT_NO_FATAL_FAILURE(Leave(GetParam().state));
  for (const char* suffix : {"", "-journal"}) std::filesystem::copy_file(path_ + suffix, Path("copy.db") + suffix);
  const std::string before = Listing(Path("place"));
  ASSERT_EQ(Take("taken.db"), "") << said_;
  // By SQLite, on a copy.
  const char* const content = "select (select count(*) from sqlite_schema) || ' ' || (select page_count from pragma_page_count)";
  EXPECT_EQ(Query(Path("copy.db"), content), "0 0");
  EXPECT_EQ(std::filesystem::file_size(Path("copy.db")), 0u);
  EXPECT_EQ(Query(Path("taken.db"), content), "0 0");
  EXPECT_EQ(damage_, "");
  EXPECT_FALSE(wal_);
  if (GetParam().method == "file") {
    EXPECT_EQ(Listing(Path("place")), before) << "it is rolled back in the copy";
  } else {
    EXPECT_EQ(std::filesystem::file_size(path_), 0u) << "as by any opener";
    EXPECT_FALSE(std::filesystem::exists(path_ + "-journal"));
  }
  // Its application begins anew.
  Sql(path_, "create table t(x); insert into t values('again')");
  EXPECT_EQ(Take("later.db"), "") << said_;
  EXPECT_EQ(Query(Path("later.db"), "select x from t"), "again");
}

std::vector<Cell> Recovered() {
  std::vector<Cell> cells;
  for (const char* method : {"online", "file", "dump"}) {
    for (const char* state : {"spilled", "torn", "short", "garbage"}) cells.push_back({method, "delete", state});
  }
  return cells;
}
INSTANTIATE_TEST_SUITE_P(Each, FirstTransactionTest, testing::ValuesIn(Recovered()), NameOf);

class NotRecoveredTest : public FirstTransactionTest {};

// What SQLite would not roll back, or only as another file, is no database, and nothing of it is touched.
TEST_P(NotRecoveredTest, IsNoDatabase) {
  ASSERT_NO_FATAL_FAILURE(Leave(GetParam().state));
  if (GetParam().state == "older") Change(path_ + "-journal", 16, std::string("\0\0\0\x05", 4));
  const std::string before = Listing(Path("place"));
  EXPECT_EQ(Take("taken.db"), "NOT_A_DATABASE") << said_;
  EXPECT_EQ(Listing(Path("place")), before);
}

std::vector<Cell> Refused() {
  std::vector<Cell> cells;
  for (const char* method : {"online", "file", "dump"}) {
    for (const char* state : {"none", "cleared", "magic", "page_size", "sector_size", "half", "link", "older"})
      cells.push_back({method, "delete", state});
  }
  return cells;
}
INSTANTIATE_TEST_SUITE_P(Each, NotRecoveredTest, testing::ValuesIn(Refused()), NameOf);

class FirstTransactionMomentTest : public FirstTransactionTest {};

// Its application is at that transaction: it is waited for, as any writer is.
TEST_P(FirstTransactionMomentTest, IsWaitedFor) {
  Child application(Begin(path_));
  ASSERT_FALSE(HasMagic(FileBytes(path_)));
  const Bytes journal = FileBytes(path_ + "-journal");
  wait_ms_ = 200;
  EXPECT_EQ(Take("taken.db"), "DATABASE_BUSY") << said_;
  EXPECT_EQ(FileBytes(path_ + "-journal"), journal) << "it is the application's";
  ASSERT_EQ(application.Stop(), 0);
  EXPECT_EQ(Take("later.db"), "") << said_;
  EXPECT_EQ(Query(Path("later.db"), "select count(*) from t"), "400");
}

// It commits between the look at the file and the look at the journal.
TEST_P(FirstTransactionMomentTest, MayEndMeanwhile) {
  // Forked first: it would keep the other one's pipe open.
  Child agent([&](const auto& ready, const auto& stop) {
    setenv("LITEFLEET_STOP_AT", "capture.no_header", 1);
    ready();
    while (!std::filesystem::exists(Path("begun")) && !stop()) usleep(1000);
    return Take("taken.db").empty() ? 0 : 1;
  });
  Child application(Begin(path_));
  Store({}, "begun");
  ASSERT_TRUE(agent.AwaitStopped());
  ASSERT_EQ(application.Stop(), 0);
  ASSERT_FALSE(std::filesystem::exists(path_ + "-journal"));
  agent.Continue();
  EXPECT_EQ(agent.Stop(), 0);
  EXPECT_EQ(Query(Path("taken.db"), "select count(*) from t"), "400");
}

// The agent is killed on its way: the next one finds what SQLite makes of it all the same.
TEST_P(FirstTransactionMomentTest, TheAgentIsKilled) {
  for (const std::string point : {"capture.no_header", "capture.read_beside_journal"}) {
    SCOPED_TRACE(point);
    for (const char* suffix : {"", "-journal"}) std::filesystem::remove(path_ + suffix);
    ASSERT_NO_FATAL_FAILURE(Kill());
    Child agent([&](const auto& ready, const auto&) {
      setenv("LITEFLEET_CRASH_AT", point.c_str(), 1);
      ready();
      static_cast<void>(Take("killed.db"));
      return 0;
    });
    // The method file leaves the file as it is.
    const bool passes = GetParam().method == "file" && point == "capture.read_beside_journal";
    EXPECT_EQ(agent.Stop() == 0, passes);
    EXPECT_EQ(Take("taken.db"), "") << said_;
    EXPECT_EQ(std::filesystem::file_size(Path("taken.db")), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Each, FirstTransactionMomentTest,
                         testing::Values(Cell{"online", "delete", "spilled"}, Cell{"file", "delete", "spilled"},
                                         Cell{"dump", "delete", "spilled"}),
                         NameOf);

}  // namespace
}  // namespace litefleet::capture
