// Chosen tables of a snapshot: into a new database, and into a live one in one transaction.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

class TablesTest : public RestoreFixture {
 protected:
  // Table t with its index is as the label says; the table log is the application's own.
  void Begin(const std::string& journal, int live_page_size = 4096) {
    std::filesystem::remove_all(folder_ + "/state");
    std::filesystem::remove_all(data_);
    std::filesystem::create_directory(data_);
    Make(path_, "old", journal, 3000, live_page_size);
    Sql("insert into log values(1),(2),(3)");
    MakeSnapshot("wal", 6000);
    order_.add_tables("t");
    order_.add_tables("label");
  }
  void Sql(const std::string& sql) {
    auto db = sqlite::Open(path_, SQLITE_OPEN_READWRITE);
    sqlite3_busy_timeout(db->get(), 10'000);
    const absl::Status done = sqlite::Execute(db->get(), sql);
    EXPECT_TRUE(done.ok()) << done;
  }
  int64_t Count(const std::string& path, const std::string& sql) {
    auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE);
    sqlite3_busy_timeout(db->get(), 10'000);
    return sqlite::QueryInt(db->get(), sql).value_or(-1);
  }
};

TEST_F(TablesTest, IntoALiveDatabaseInEitherMode) {
  for (const char* journal : {"wal", "delete"}) {
    for (const int page_size : {4096, 1024}) {
      SCOPED_TRACE(fmt::format("{} {}", journal, page_size));
      Begin(journal, page_size);
      const Outcome outcome = Run();
      ASSERT_TRUE(outcome.status.ok()) << outcome.status;
      EXPECT_EQ(outcome.mode, v1::RESTORE_MODE_LIVE);
      EXPECT_EQ(Label(path_), "new");
      EXPECT_EQ(Count(path_, "select count(*) from t"), 6000);
      EXPECT_EQ(Count(path_, "select count(*) from sqlite_schema where name = 'tv'"), 1);
      EXPECT_EQ(LogRows(path_), 3);
      EXPECT_EQ(JournalMode(path_), journal);
      EXPECT_EQ(Count(path_, "pragma page_size"), page_size);
      EXPECT_THAT(outcome.steps, Contains(HasSubstr("replaced 2 tables")));
      EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
      EXPECT_EQ(LeftOver(), "");
    }
  }
}

TEST_F(TablesTest, WhatWasMadeSinceTheSnapshotIsToldWhereItGoes) {
  Begin("wal");
  Sql("create index since on t(v)");
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_THAT(outcome.steps, Contains(HasSubstr("they are gone: index since")));
}

TEST_F(TablesTest, ItCanBeUndone) {
  Begin("wal");
  ASSERT_TRUE(Run().status.ok());
  v1::UndoOrder undo;
  undo.set_database("app");
  undo.set_new_timeline(3);
  const Outcome outcome = Open()->Undo("01JD0000000000000000000002", undo, target_, cancel_, [](const v1::Progress&) {});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(LogRows(path_), 3);
}

// What others commit until the lock is had is not lost, and what they commit afterwards neither.
TEST_F(TablesTest, AWritingApplicationLosesNothing) {
  for (const char* journal : {"wal", "delete"}) {
    SCOPED_TRACE(journal);
    Begin(journal);
    lock_timeout_ = std::chrono::seconds(30);
    Application application(path_, Application::kWriting);
    const Outcome outcome = Run();
    const int64_t during = LogRows(path_);
    EXPECT_EQ(application.Stop(), 0);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(Label(path_), "new");
    const int64_t after = LogRows(path_);
    EXPECT_GE(during, 3);
    EXPECT_GE(after, during);
    // Its rows count up: one that is missing would be a hole.
    EXPECT_EQ(Count(path_, "select max(rowid) - count(*) from log"), 0);
  }
}

// In rollback mode whoever reads holds writers up: nothing of the database is copied before its lock is had.
TEST_F(TablesTest, InRollbackModeTheDatabaseIsReadUnderTheLockAlone) {
  for (const char* journal : {"wal", "delete"}) {
    SCOPED_TRACE(journal);
    Begin(journal, 1024);
    const auto whole = std::filesystem::file_size(path_);
    ASSERT_TRUE(RunAndCrashAt("restore.live.before_lock"));
    const auto ahead = std::filesystem::file_size(fmt::format("{}/{}", data_, TargetPlace::StagingName(kOperation)));
    if (journal == std::string("wal")) {
      EXPECT_GE(ahead, whole);
    } else {
      EXPECT_EQ(ahead, 1024U) << "one page, to lock with";
    }
    const Outcome outcome = Run();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(Label(path_), "new");
    EXPECT_EQ(LogRows(path_), 3);
    EXPECT_EQ(Count(path_, "pragma page_size"), 1024);
  }
}

// What is merged may have far fewer pages than there were when the lock was had.
TEST_F(TablesTest, AMergeThatShrinksTheDatabase) {
  for (const char* journal : {"wal", "delete"}) {
    SCOPED_TRACE(journal);
    Begin(journal);
    Sql("delete from t where id > 10; pragma auto_vacuum=1; vacuum; insert into log select zeroblob(1000) from "
        "(with recursive c(n) as (select 1 union all select n+1 from c where n < 2000) select n from c)");
    MakeSnapshot("delete", 10);
    order_.add_tables("log");
    const Outcome outcome = Run();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_TRUE(outcome.applied);
    EXPECT_EQ(LogRows(path_), 0);
    EXPECT_EQ(Label(path_), "old");
    EXPECT_LT(Count(path_, "pragma page_count"), 256);
    EXPECT_EQ(LogRows(path_ + ".litefleet-undo"), 2003);
    EXPECT_EQ(LeftOver(), "");
  }
}

TEST_F(TablesTest, IntoANewDatabase) {
  std::filesystem::remove_all(data_);
  std::filesystem::create_directory(data_);
  MakeSnapshot("wal", 500, 1024);
  order_.add_tables("t");
  order_.set_mode(v1::RESTORE_MODE_NEW);
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Count(path_, "select count(*) from t"), 500);
  EXPECT_EQ(Count(path_, "select count(*) from sqlite_schema"), 2);  // t and its index
  EXPECT_EQ(Count(path_, "pragma page_size"), 1024);
  EXPECT_THAT(outcome.steps, Contains(HasSubstr("took 1 tables")));
  EXPECT_EQ(LeftOver(), "");
}

// Without the parents of its rows.
TEST_F(TablesTest, AChildIntoANewDatabase) {
  const auto begin = [&](const std::string& rows) {
    std::filesystem::remove_all(folder_ + "/state");
    std::filesystem::remove_all(data_);
    std::filesystem::create_directory(data_);
    std::filesystem::remove(fetcher_.path);
    {
      auto db = sqlite::Open(fetcher_.path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
      ASSERT_TRUE(sqlite::Execute(db->get(),
                                  "create table customer(id integer primary key); create table item(id integer primary key);"
                                  "create table orders(id integer primary key, customer references Customer(id), item "
                                  "references item(id));" +
                                      rows)
                      .ok());
    }
    Order();
    order_.add_tables("orders");
    order_.set_mode(v1::RESTORE_MODE_NEW);
  };
  const std::string rows = "insert into customer values(1); insert into item values(2); insert into orders values(5,1,null),(6,1,2);";
  begin(rows);
  Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Count(path_, "select count(*) from orders"), 2);
  EXPECT_THAT(outcome.steps,
              Contains(HasSubstr("rows refer to tables that were not chosen: rows of table orders refer to table Customer")));
  // Where no row does there is nothing to say.
  begin("insert into orders values(5,null,null);");
  outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_THAT(outcome.steps, Not(Contains(HasSubstr("refer to"))));
  // What is among the chosen ones is looked at.
  begin(rows + "insert into orders values(7,1,3);");
  order_.add_tables("item");
  outcome = Run();
  EXPECT_EQ(ReasonOf(outcome.status), "SNAPSHOT_DAMAGED") << outcome.status;
}

TEST_F(TablesTest, ReplaceIsRefused) {
  Begin("wal");
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  EXPECT_EQ(ReasonOf(Run().status), "TABLES_MODE");
  EXPECT_EQ(Label(path_), "old");
}

TEST_F(TablesTest, AFailureLeavesTheOldState) {
  const struct {
    std::function<void()> prepare;
    const char* reason;
  } cases[] = {
      {[&] { order_.add_tables("nothing"); }, "TABLE_NOT_FOUND"},
      {[&] { Sql("drop table t; create table x(a); create view t as select * from x"); }, "LOAD_REFUSED"},
      {[&] { Sql("create table child(a references t(id)); insert into child values(7001)"); }, ""},
      {[&] {
         Sql("create table child(a references t(id)); insert into child values(2999); insert into t values(7000,'old'); insert into child "
             "values(7000)");
       },
       "FOREIGN_KEYS_BROKEN"},
  };
  for (const auto& each : cases) {
    SCOPED_TRACE(each.reason);
    Begin("wal");
    each.prepare();
    const int64_t before = Count(path_, "select count(*) from sqlite_schema");
    const Outcome outcome = Run();
    EXPECT_EQ(ReasonOf(outcome.status), each.reason) << outcome.status;
    EXPECT_EQ(LeftOver(), "");
    if (outcome.status.ok()) continue;
    EXPECT_FALSE(outcome.applied);
    EXPECT_EQ(Count(path_, "select count(*) from sqlite_schema"), before);
    EXPECT_EQ(Count(path_, "select count(*) from label where v = 'old'"), 1);
    EXPECT_FALSE(std::filesystem::exists(path_ + ".litefleet-undo"));
    // The lock is let go.
    Sql("insert into log values(9)");
  }
  // The last one again, with the operator's word.
  Begin("wal");
  cases[3].prepare();
  order_.set_check_override(true);
  EXPECT_TRUE(Run().status.ok());
}

// The text of the tables may be many times their size.
TEST_F(TablesTest, ADiskThatFillsUpMeanwhileEndsIt) {
  const auto begin = [&] {
    Begin("wal");
    std::filesystem::remove(fetcher_.path);
    Make(fetcher_.path, "new", "delete", 10, 4096);
    {
      auto db = sqlite::Open(fetcher_.path, SQLITE_OPEN_READWRITE);
      ASSERT_TRUE(sqlite::Execute(db->get(), "create table big(a); insert into big values(zeroblob(5000000))").ok());
    }
    Order();
    order_.add_tables("big");
  };
  begin();
  target_.reserve = io::DiskReserve(3 << 20);
  free_bytes_ = [](const std::string&) -> absl::StatusOr<uint64_t> { return 2 << 20; };
  const Outcome full = Run();
  EXPECT_EQ(ReasonOf(full.status), "NOT_ENOUGH_SPACE") << full.status;
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(LeftOver(), "");
  // What is to stay free is what is configured.
  begin();
  free_bytes_ = [](const std::string&) -> absl::StatusOr<uint64_t> { return 12 << 20; };
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Count(path_, "select length(a) from big"), 5000000);
}

TEST_F(TablesTest, IntoADatabaseWithoutThem) {
  Begin("delete");
  Sql("drop table t; drop table label");
  ASSERT_TRUE(Run().status.ok());
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(LogRows(path_), 3);
}

TEST_F(TablesTest, IntoAnEmptyFile) {
  Begin("wal");
  std::filesystem::remove(path_);
  for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
  ASSERT_TRUE(io::WriteFileAtomic(path_, "").ok());
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Count(path_, "select count(*) from t"), 6000);
}

TEST_F(TablesTest, ThePlanSaysWhatWillHappen) {
  Begin("wal");
  const auto plan = Open()->Plan(order_, target_);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->mode(), v1::RESTORE_MODE_LIVE);
  EXPECT_EQ(plan->obstacles_size(), 0) << plan->DebugString();
  EXPECT_THAT(plan->steps(), Contains(HasSubstr("replace the tables t, label")));
  EXPECT_THAT(plan->steps(), Contains(HasSubstr("foreign keys")));
  EXPECT_TRUE(plan->has_expected_stall());
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  const auto refused = Open()->Plan(order_, target_);
  ASSERT_EQ(refused->obstacles_size(), 1);
  EXPECT_EQ(refused->obstacles(0).info().reason(), "TABLES_MODE");
}

struct TablesCrash {
  const char* point;
  const char* journal;
};
class TablesCrashTest : public TablesTest, public ::testing::WithParamInterface<TablesCrash> {};

TEST_P(TablesCrashTest, OldOrNewThenFinished) {
  Begin(GetParam().journal);
  ASSERT_TRUE(RunAndCrashAt(GetParam().point)) << "never came to " << GetParam().point;
  EXPECT_THAT(Label(path_), AnyOf("old", "new"));
  EXPECT_EQ(LogRows(path_), 3);
  // Somebody goes on meanwhile: what he commits stays.
  Sql("insert into log values(4)");
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(LogRows(path_), 4);
  EXPECT_EQ(LeftOver(), "");
}

TEST_P(TablesCrashTest, WithoutAnOrderItIsFinishedOrRolledBack) {
  Begin(GetParam().journal);
  ASSERT_TRUE(RunAndCrashAt(GetParam().point)) << "never came to " << GetParam().point;
  const auto recovery = Open()->Recover({});
  EXPECT_EQ(LeftOver(), "");
  EXPECT_EQ(Label(path_), recovery.ended.empty() ? "old" : "new");
  EXPECT_EQ(LogRows(path_), 3);
}

INSTANTIATE_TEST_SUITE_P(All, TablesCrashTest,
                         ::testing::Values(TablesCrash{"restore.checked", "wal"}, TablesCrash{"restore.merge.created", "wal"},
                                           TablesCrash{"restore.live.before_lock", "wal"}, TablesCrash{"restore.merging", "wal"},
                                           TablesCrash{"restore.merged", "wal"}, TablesCrash{"restore.live.before_commit", "wal"},
                                           TablesCrash{"restore.live.after_commit", "wal"}, TablesCrash{"restore.live.applied", "wal"},
                                           TablesCrash{"restore.merge.created", "delete"}, TablesCrash{"restore.merging", "delete"},
                                           TablesCrash{"restore.merged", "delete"}, TablesCrash{"restore.live.before_commit", "delete"},
                                           TablesCrash{"restore.live.after_commit", "delete"}));

}  // namespace
}  // namespace litefleet::restore
