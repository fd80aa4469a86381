// Text that is split and loaded, whoever wrote it.
#include "common/dump/statement_splitter.h"
#include "tests/unit/common/dump/dump_fixture.h"

namespace litefleet::dump {
namespace {

std::vector<std::string> Split(std::string_view text, size_t slice) {
  std::vector<std::string> statements;
  StatementSplitter splitter(1 << 20, [&](const std::string& statement) {
    statements.push_back(statement);
    return true;
  });
  while (!text.empty()) {
    const std::string_view part = text.substr(0, slice);
    EXPECT_TRUE(splitter.Add(part));
    text.remove_prefix(part.size());
  }
  EXPECT_TRUE(splitter.Finish());
  return statements;
}

TEST(StatementSplitter, CutsWhereSqliteDoes) {
  const std::vector<std::string> statements = {
      "select 1;",
      "\ninsert into t values('a;b',\"c;d\",[e;f],`g;h`,'it''s;');",
      "-- a comment; with semicolons\nselect 2;",
      " /* another; one * / ** */ select 3;",
      " create trigger a after insert on t begin select 1; select case when 1 then 2 end; end;",
      "CREATE TEMP TRIGGER b AFTER INSERT ON t BEGIN SELECT ';'; END ;",
      "create temporary trigger c after insert on t begin select 1;\n-- end;\nend\n;",
      "explain create trigger d after insert on t begin select 1; end;",
      "create table trigger_(a);",
      "select 1-1/1;",
      "begin;",
      "end;",
  };
  std::string all;
  for (const std::string& statement : statements) all += statement;
  for (const size_t slice : {size_t{1}, size_t{2}, size_t{7}, all.size()}) EXPECT_EQ(Split(all, slice), statements) << slice;
}

TEST(StatementSplitter, NothingIsNoStatementAndTheRestIsOne) {
  EXPECT_TRUE(Split(";; ; -- x\n /* y */ ;", 3).empty());
  EXPECT_EQ(Split("select 1", 3), std::vector<std::string>{"select 1"});
  EXPECT_EQ(Split("select 'x", 3), std::vector<std::string>{"select 'x"});
  EXPECT_TRUE(Split("  -- only a comment", 3).empty());
}

TEST(StatementSplitter, WhatIsTooLongEnds) {
  StatementSplitter splitter(100, [](const std::string&) { return true; });
  EXPECT_TRUE(splitter.Add("select 1;"));
  EXPECT_FALSE(splitter.Add("select '" + std::string(200, 'x')));
  EXPECT_TRUE(splitter.too_long());
}

using LoaderTest = DumpTest;

TEST_F(LoaderTest, WhatIsNotOfTheDatabaseIsRefusedOrPassedOver) {
  const auto db = Make("a.db", "");
  EXPECT_EQ(Load(db.get(), "attach '" + Path("other.db") + "' as x;").end, End::kRefused);
  EXPECT_FALSE(std::filesystem::exists(Path("other.db")));
  EXPECT_EQ(Load(db.get(), "select load_extension('/tmp/x');").end, End::kRefused);
  EXPECT_EQ(Load(db.get(), "vacuum into '" + Path("other.db") + "';").end, End::kRefused);
  EXPECT_FALSE(std::filesystem::exists(Path("other.db")));
  EXPECT_EQ(Load(db.get(), "pragma journal_mode=wal; pragma temp_store_directory='/'; create table t(a);").end, End::kOk);
  Query mode(db.get(), "pragma journal_mode");
  ASSERT_TRUE(mode.Step());
  EXPECT_EQ(mode.Text(0), "delete");
  EXPECT_EQ(Load(db.get(), "insert into nowhere values(1);").end, End::kRefused);
  EXPECT_EQ(Load(db.get(), "create index i on t(application_function(a));").end, End::kRefused);
  EXPECT_EQ(Load(db.get(), "this is no SQL;").end, End::kRefused);
}

TEST_F(LoaderTest, TextThatIsNotWholeIsDamaged) {
  const std::string whole = Dump(Make("a.db", "create table t(a unique); insert into t values(1),(2)").get());
  for (size_t end = 40; end + 1 < whole.size(); end += 7)
    EXPECT_NE(Load(Make("b.db", "").get(), std::string_view(whole).substr(0, end)).end, End::kOk) << end;
  EXPECT_EQ(Load(Make("b.db", "").get(), "BEGIN; create table t(a);").end, End::kDamaged);
  EXPECT_EQ(Load(Make("b.db", "").get(), "BEGIN; create table t(a); ROLLBACK; -- due to errors\n").end, End::kDamaged);
  EXPECT_EQ(Load(Make("b.db", "").get(), "create table t(a unique); insert into t values(1),(1);").end, End::kDamaged);
}

TEST_F(LoaderTest, RowsThatBreakAConstraintOfTheirTableComeBack) {
  const auto db = Make("a.db", "create table t(a check(a>0)); pragma ignore_check_constraints=on; insert into t values(-1)");
  const auto loaded = Make("b.db", "");
  EXPECT_EQ(Load(loaded.get(), Dump(db.get())).end, End::kOk);
  EXPECT_EQ(sqlite::QueryInt(loaded.get(), "select a from t").value(), -1);
}

// What the CLI of an SQLite with SQLITE_ENABLE_STAT4 writes, whose ANALYZE makes the table.
TEST_F(LoaderTest, StatisticsOfOtherSqlitesComeAlong) {
  const auto load = [&](const std::string& text) {
    const auto loaded = Make("b.db", "");
    const Ended ended = Load(loaded.get(), text);
    EXPECT_EQ(ended.end, End::kOk) << ended.message;
    const auto again = sqlite::Open(Path("b.db"), SQLITE_OPEN_READWRITE);
    EXPECT_EQ(Check(again->get()), "ok");
    Query rows(again->get(), "select group_concat(sample) from sqlite_stat4");
    return rows.Step() ? std::string(rows.Text(0)) : "nothing";
  };
  const std::string table =
      "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE t(a);\nINSERT INTO t VALUES(1);\nANALYZE sqlite_schema;\n";
  const std::string rows =
      "INSERT INTO sqlite_stat4 VALUES('t','i','1','0','0','s1');\nINSERT INTO sqlite_stat4 VALUES('t','i','1','1','1','s2');\n";
  EXPECT_EQ(load(table + "INSERT INTO sqlite_stat1 VALUES('t',NULL,'1');\n" + rows + "COMMIT;\n"), "s1,s2");
  EXPECT_EQ(load(table + "INSERT INTO \"main\".\"sqlite_stat4\" VALUES('t','i','1','0','0','s1');\nCOMMIT;\n"), "s1");
  // No other table is made, and writing the schema is as it was.
  EXPECT_EQ(Load(Make("b.db", "").get(), table + "INSERT INTO sqlite_stat5 VALUES(1);\nCOMMIT;\n").end, End::kRefused);
  EXPECT_EQ(Load(Make("b.db", "").get(), table + rows + "CREATE TABLE sqlite_x(a);\nCOMMIT;\n").end, End::kRefused);
  EXPECT_EQ(Load(Make("b.db", "").get(), table + "INSERT INTO sqlite_stat4 VALUES(1,2);\nCOMMIT;\n").end, End::kRefused);
}

// It is the database's, and not the cache of whoever loads it.
TEST_F(LoaderTest, TheSizeOfTheCacheIsForTheDatabase) {
  const auto loaded = Make("b.db", "pragma cache_size=-1000");
  EXPECT_EQ(Load(loaded.get(), "PRAGMA default_cache_size=100000000;\nBEGIN;\nCREATE TABLE t(a);\nCOMMIT;\n").end, End::kOk);
  EXPECT_EQ(sqlite::QueryInt(loaded.get(), "pragma cache_size").value(), -1000);
  const auto again = sqlite::Open(Path("b.db"), SQLITE_OPEN_READWRITE);
  EXPECT_EQ(sqlite::QueryInt(again->get(), "pragma default_cache_size").value(), 100000000);
}

}  // namespace
}  // namespace litefleet::dump
