// The text against the sqlite3 CLI's, and what comes back of it.
#include <gmock/gmock.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <random>

#include "common/dump/check_clauses.h"
#include "tests/unit/common/dump/dump_fixture.h"

namespace litefleet::dump {
namespace {

enum class Cli {
  kLossless,  // the CLI's text loses nothing: ours is the same
  kLoses,     // it does, ours differs
  kMay,       // what of it is lost is a matter of opinion; compatible text is the same all the same
};

struct Case {
  const char* name;
  Cli cli;
  std::string sql;
};

// As an SQLite with SQLITE_ENABLE_STAT4 leaves it, which this one need not be.
constexpr const char* kStatistics4 =
    "create table t(a,b); create index i on t(a); insert into t values('x',1),('y',2); analyze; create table "
    "y(tbl,idx,neq,nlt,ndlt,sample); insert into y values('t','i','1 1','0 0','0 0',x'0302010178'),('t','i','1 1','1 1','1 1',x'030201'); "
    "pragma writable_schema=on; update sqlite_schema set name='sqlite_stat4',tbl_name='sqlite_stat4',sql='CREATE TABLE "
    "sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)' where name='y'; pragma writable_schema=reset";

const std::vector<Case>& Zoo() {
  using namespace std::string_literals;
  static const std::vector<Case> zoo = {
      {"empty", Cli::kLossless, "create table t(a); drop table t"},
      {"values", Cli::kLossless, "create table t(a,b); insert into t values(1,2),(null,x''),('x','y''z'),(1.5,-2),('','a;b--c/*')"},
      {"lines", Cli::kLossless,
       "create table t(a); insert into t values('a'||char(10)||'b'),('\\n'||char(10)),('\\n\\012'||char(10)),"
       "('\\n\\012(\\n0)'||char(10)||char(13)),(char(13)||'\\r'),('\\'||char(10))"},
      {"nul", Cli::kLoses,
       "create table t(a); insert into t values('a'||char(0)||'b'),(char(0)),('\\000'||char(0)||char(10)||char(0,13,0)||'''')"},
      {"user_version", Cli::kLoses, "pragma user_version=5; create table t(a)"},
      {"application_id", Cli::kLoses, "pragma application_id=-5; create table t(a)"},
      {"page_size_512", Cli::kLoses, "pragma page_size=512; create table t(a); insert into t values(zeroblob(3000))"},
      {"page_size_65536", Cli::kLoses, "pragma page_size=65536; create table t(a)"},
      {"auto_vacuum_full", Cli::kLoses, "pragma auto_vacuum=1; create table t(a); insert into t values(zeroblob(9000))"},
      {"auto_vacuum_incremental", Cli::kLoses, "pragma auto_vacuum=2; create table t(a)"},
      {"utf16le", Cli::kLoses,
       "pragma encoding='UTF-16le'; create table t(a); insert into t values('h\xc3\xa4\xc3\x9f\xf0\x9f\x98\x80'),(char(0)||'x'),"
       "('n'||char(10)||'l'),(cast(x'00d8' as text)),(cast(x'd8004100' as text))"},
      {"utf16be", Cli::kLoses,
       "pragma encoding='UTF-16be'; create table t(a); insert into t values('h\xc3\xa4'),(cast(x'd800' as text)),(cast(x'0041dc00' as "
       "text))"},
      {"no_utf8", Cli::kLossless,
       "create table t(a); insert into t values('\xff\xfe\x80'),(cast(x'c328' as text)),(cast(x'eda080' as text))"},
      {"rowids", Cli::kLoses,
       "create table t(a); insert into t(rowid,a) values(1,'a'),(2,'b'),(5,'c'),(6,'d'),(-7,'m'),(9223372036854775807,'z')"},
      {"rowid_gap", Cli::kLoses, "create table t(a); insert into t values(1),(2),(3); delete from t where a=2"},
      {"column_rowid", Cli::kLoses, "create table t(rowid,a); insert into t values('x',1),('y',2),('z',3); delete from t where a=1"},
      {"columns_rowid_oid", Cli::kLoses, "create table t(rowid,oid,a); insert into t values('x',1,1),('y',2,2); delete from t where a=1"},
      {"all_names_of_rowid", Cli::kLossless,
       "create table t(rowid,oid,_rowid_); insert into t values('x',1,1),('y',2,2); delete from t where oid=1"},
      {"integer_key", Cli::kLossless, "create table t(id integer primary key, a); insert into t values(5,'x'),(9,'y'),(-1,'z')"},
      {"integer_key_desc", Cli::kLoses,
       "create table t(id integer primary key desc, a); insert into t values(5,'x'),(9,'y'),(-1,'z'); delete from t where id=5"},
      {"text_key", Cli::kLossless, "create table t(id text primary key, a); insert into t values('5','x'),('9','y'),('1','z')"},
      {"covering_index", Cli::kMay, "create table t(a); create index i on t(a); insert into t values(3),(1),(2)"},
      {"covering_index_of_key", Cli::kLossless,
       "create table t(id integer primary key, a); create index i on t(a); insert into t values(1,3),(2,1),(3,2)"},
      {"without_rowid", Cli::kLossless,
       "create table t(a text,b int, primary key(b,a)) without rowid; insert into t values('x',2),('y',1)"},
      {"strict", Cli::kLossless, "create table t(a int, b text, c any, d real, e blob) strict; insert into t values(1,'x',1.5,2,x'00')"},
      {"generated", Cli::kLossless, "create table t(a, b as (a*2), c as (a||'x') stored, d); insert into t values(1,2),(3,4)"},
      {"generated_gap", Cli::kLoses,
       "create table t(a, b as (a*2), c as (a||'x') stored, d); insert into t values(1,2),(3,4); delete from t where a=1"},
      {"autoincrement", Cli::kLossless,
       "create table t(id integer primary key autoincrement, a); insert into t values(5,'x'),(100,'y'); delete from t where id=100;"
       "create table u(id integer primary key autoincrement)"},
      {"autoincrement_gone", Cli::kLoses,
       "create table t(id integer primary key autoincrement, a); insert into t values(5,'x'); drop table t; create table "
       "litefleet_sequence(a)"},
      {"names", Cli::kLossless,
       "create table \"a b\"(\"c d\", \"e\"\"f\", \"select\", [x y], `q``r`); insert into \"a b\" values(1,2,3,4,5); create table "
       "'quo''te'(\"'\");"
       "insert into \"quo'te\" values(1); create table \"\"\"\"(a); insert into \"\"\"\" values(1); create table \"select\"(\"from\");"
       "create table \xc3\xbcn(\xc3\xb6); insert into \xc3\xbcn values('\xc3\xa4'); create table \"x;y--z/*\"(a); insert into \"x;y--z/*\" "
       "values(1)"},
      {"comments", Cli::kLossless,
       "create table t(a, -- c1\n b /* c2 ; */, c) ; create table u(a) -- end\n; create view v as select 1 -- end;\n;"
       "create table w(a /* ' */, b -- \"\n)"},
      {"triggers", Cli::kLossless,
       "create table t(a); create table log(x); create trigger tr after insert on t begin insert into log values(new.a); select case when "
       "1 "
       "then 2 end; end; insert into t values(1),(2); create view v(a) as select a from t; create trigger iv instead of insert on v begin "
       "insert into t values(new.a); end; create trigger t2 before delete on t when old.a > 5 begin select raise(abort,'no; end;'); end"},
      {"foreign_keys", Cli::kLossless,
       "create table a(id integer primary key, b references b(id)); create table b(id integer primary key, a references a(id) deferrable "
       "initially deferred); create table s(id integer primary key, p references s); insert into a values(1,1); insert into b values(1,1);"
       "insert into s values(1,2),(2,1)"},
      {"virtual", Cli::kMay,
       "create virtual table f5 using fts5(a,b,content='',tokenize='porter'); insert into f5 values('hello world','x');"
       "create virtual table f4 using fts4(a); insert into f4 values('some text'); create virtual table f3 using fts3(a); insert into f3 "
       "values('abc');"
       "create virtual table rt using rtree(id,x0,x1); insert into rt values(1,2,3); create virtual table \"odd ' name\" using fts5(z);"
       "insert into \"odd ' name\" values('q'); create virtual table fv using fts5vocab(f5,'row')"},
      {"statistics", Cli::kMay,
       "create table t(a,b); create unique index i1 on t(a) where b > 1; create index i2 on t(a collate nocase, b desc); create index i3 "
       "on "
       "t(lower(a)); insert into t values('x',1),('y',2); analyze"},
      {"statistics_4", Cli::kLoses, std::string(kStatistics4)},
      {"statistics_3_behind_virtual", Cli::kLoses,
       "create virtual table f using fts5(a); insert into f values('w'); create table y(tbl,idx,neq,nlt,ndlt,sample); insert into y "
       "values('f_data',null,'1','0','0',x'00'); create virtual table g using fts5(a); pragma writable_schema=on; update sqlite_schema set "
       "name='sqlite_stat3',tbl_name='sqlite_stat3',sql='CREATE TABLE sqlite_stat3(tbl,idx,neq,nlt,ndlt,sample)' where name='y'; pragma "
       "writable_schema=reset"},
      {"default_cache_size", Cli::kLoses, "pragma default_cache_size=1234; create table t(a)"},
      {"check_kept", Cli::kLossless,
       "create table t(a integer check(a>0) check(b is null or a<b), b constraint x check /* ( */ (b <> ')' and t.b <> \"none\" or "
       "rowid=1), 'check' text, check(typeof(a)='integer')); insert into t values(1,2,null),(2,null,3),(3,'x',4)"},
      {"check_broken", Cli::kLoses,
       "create table before(a check(a)); insert into before values(1); create table t(a, [check] text, constraint c CHECK (length(a) < 3 "
       "-- (no\n and \"check\" <> 'it''s (')); pragma ignore_check_constraints=on; insert into t values('long','x'),('a','it''s "
       "('),('b','y'); create table after(a check(a)); insert into after values(1)"},
      {"check_broken_computed", Cli::kLoses,
       "create table t(id integer primary key, a, g as (a*2) check(g<10)) ; pragma ignore_check_constraints=on; insert into t "
       "values(1,1),(2,7)"},
      {"check_broken_without_rowid", Cli::kLoses,
       "create table t(a text primary key check(a <> 'x')) without rowid; pragma ignore_check_constraints=on; insert into t "
       "values('w'),('x')"},
      {"check_fails", Cli::kLoses,
       "create table t(a check(json_extract(a,'$.x')=1)); pragma ignore_check_constraints=on; insert into t values('{\"x\":1}'),('no')"},
      {"altered", Cli::kLossless,
       "create table t(a); insert into t values(1); alter table t add column b default 7; alter table t rename to t2; alter table t2 "
       "rename "
       "column a to z; insert into t2 values(2,3)"},
      {"integers", Cli::kLossless, "create table t(a int); insert into t values(9223372036854775807),(-9223372036854775808),(0),(-1)"},
      {"floats", Cli::kLossless,
       "create table t(a); insert into t values(1.0),(-1.0),(0.0),(1e15),(1e18),(-9.223372036854775808e18),(9e999),(-9e999),(0.1)"},
      {"negative_zero", Cli::kLoses, "create table t(a); insert into t values(-0.0)"},
      {"denormal", Cli::kMay, "create table t(a); insert into t values(5e-324),(1e-310),(2.2250738585072014e-308)"},
      {"wal", Cli::kLossless, "pragma journal_mode=wal; create table t(a); insert into t values(1)"},
      {"views", Cli::kLossless, "create view v as select 1 a; create view w as select * from missing"},
  };
  return zoo;
}

TEST_F(DumpTest, EqualsTheCliWhereThatIsLosslessAndComesBackAlways) {
  for (const Case& each : Zoo()) {
    SCOPED_TRACE(each.name);
    const auto db = Make("a.db", each.sql);
    const std::string text = Dump(db.get());
    const std::string check = Check("a.db");  // "ok", but for rows that break a constraint
    if (HasCli()) {
      const std::string cli = CliDump("a.db");
      EXPECT_EQ(Dump(db.get(), {.compatible = true}), cli);
      if (each.cli == Cli::kLossless) {
        EXPECT_EQ(text, cli);
      }
      if (each.cli == Cli::kLoses) {
        EXPECT_NE(text, cli);
      }
    }
    for (const size_t slice : {size_t{1}, size_t{1 << 20}}) {
      const auto loaded = Make("b.db", "");
      const Ended ended = Load(loaded.get(), text, slice);
      EXPECT_EQ(ended.end, End::kOk) << ended.message;
      // The schema that was written into sqlite_schema is seen by the next connection.
      const auto again = sqlite::Open(Path("b.db"), SQLITE_OPEN_READWRITE);
      ASSERT_TRUE(again.ok());
      EXPECT_EQ(Dump(again->get()), text);
      EXPECT_EQ(Check(again->get()), check);
    }
    if (HasCli()) {
      EXPECT_EQ(DumpOfWhatTheCliLoads(text), text);
    }
  }
  if (!HasCli()) GTEST_SKIP() << "the program sqlite3 is not here: only the round trip was tested";
}

// All rows as SQLite has them, types included.
std::string Content(sqlite3* db, const std::string& table) {
  std::string content;
  Query rows(db, "select * from \"" + table + "\"");
  while (rows.Step()) {
    sqlite3_stmt* row = rows.get();
    for (int i = 0; i < sqlite3_column_count(row); ++i) {
      content += std::to_string(sqlite3_column_type(row, i)) + ":";
      if (sqlite3_column_type(row, i) == SQLITE_FLOAT) {
        content += std::to_string(std::bit_cast<uint64_t>(sqlite3_column_double(row, i)));
      } else {
        const auto* bytes = static_cast<const char*>(sqlite3_column_blob(row, i));
        content.append(bytes == nullptr ? "" : bytes, static_cast<size_t>(sqlite3_column_bytes(row, i)));
      }
      content += '|';
    }
  }
  return content;
}

TEST_F(DumpTest, EveryNumberReadsBack) {
  const auto db = Make("a.db", "create table t(a); begin");
  Query insert(db.get(), "insert into t values(?)");
  std::mt19937_64 random(7);
  for (int i = 0; i < 5'000; ++i) {
    const double value = i % 3 == 0 ? static_cast<double>(random() % 1'000'000'000) / 1000 : std::bit_cast<double>(random());
    if (std::isnan(value)) continue;
    sqlite3_bind_double(insert.get(), 1, i == 1 ? 5e-324 : i == 2 ? -1.7976931348623157e308 : value);
    ASSERT_EQ(sqlite3_step(insert.get()), SQLITE_DONE);
    sqlite3_reset(insert.get());
  }
  ASSERT_TRUE(sqlite::Execute(db.get(), "commit").ok());
  const auto loaded = Make("b.db", "");
  EXPECT_EQ(Load(loaded.get(), Dump(db.get())).end, End::kOk);
  EXPECT_EQ(Content(loaded.get(), "t"), Content(db.get(), "t"));
}

// A database of random tables, names and values.
std::string RandomSql(std::mt19937& random) {
  const auto pick = [&](auto... words) {
    const std::array<std::string, sizeof...(words)> all = {words...};
    return all[random() % all.size()];
  };
  const auto value = [&]() -> std::string {
    switch (random() % 8) {
      case 0:
        return "null";
      case 1:
        return std::to_string(static_cast<int64_t>(random()) - 2'000'000'000);
      case 2:
        return std::to_string(random() % 1000) + "." + std::to_string(random() % 1000) + "e" +
               std::to_string(static_cast<int>(random() % 600) - 300);
      case 3:
        return "randomblob(" + std::to_string(random() % 40) + ")";
      case 4:
        return "'it''s'||char(" + std::to_string(random() % 4 == 0 ? 0 : random() % 14 + 1) + ")||'\\n'";
      case 5:
        return "char(" + std::to_string(random() % 0x20000 + 1) + ")";
      default:
        return "'" + std::string(random() % 30, 'v') + "'";
    }
  };
  std::string sql;
  if (random() % 4 == 0) sql += "pragma page_size=" + pick("512", "1024", "8192") + ";";
  if (random() % 4 == 0) sql += "pragma encoding='" + pick("UTF-16le", "UTF-16be") + "';";
  if (random() % 4 == 0) sql += "pragma auto_vacuum=" + pick("1", "2") + ";";
  if (random() % 4 == 0) sql += "pragma user_version=" + std::to_string(random() % 100) + ";";
  // Rows that break a CHECK get in while it is not looked at.
  if (random() % 2 == 0) sql += "pragma ignore_check_constraints=on;";
  const int tables = static_cast<int>(random() % 4) + 1;
  for (int t = 0; t < tables; ++t) {
    const std::string name = "\"" + pick("t", "a b", "select", "x''y", "\"\"q\"\"", "\xc3\xa4") + std::to_string(t) + "\"";
    const int columns = static_cast<int>(random() % 4) + 1;
    const bool without = random() % 5 == 0;
    const bool strict = random() % 5 == 0;
    const bool composite = random() % 5 == 0;
    const std::string key = composite || strict ? " int"
                            : without           ? " int primary key"
                                      : pick("", " integer primary key", " integer primary key autoincrement", " text", " unique");
    const std::string key_name = "\"k" + std::string(random() % 3 == 0 ? " y" : "") + "\"";
    std::string list = key_name + key;
    // Values are of any type, which no other type of a STRICT table takes.
    for (int c = 0; c < columns; ++c)
      list +=
          ", c" + std::to_string(c) + (strict ? " any" : pick("", " int", " text", " real", " blob", " collate nocase", " default 'd'"));
    if (random() % 5 == 0) list += std::string(", g") + (strict ? " any" : "") + " as (c0)" + pick("", " stored");
    if (random() % 5 == 0) list += ", check(typeof(c0) <> 'blob' or length(c0) < 20 /* ) */)";
    if (composite || (strict && without)) list += ", primary key(" + key_name + (composite ? ", c0" : "") + ")";
    if (random() % 4 == 0) list += ", foreign key(c0) references t" + std::to_string(random() % tables) + pick("", " on delete cascade");
    sql += "create table " + name + "(" + list + ")" +
           (without && strict ? " without rowid, strict"
            : without         ? " without rowid"
            : strict          ? " strict"
                              : "") +
           ";";
    const int rows = static_cast<int>(random() % 20);
    for (int r = 0; r < rows; ++r) {
      sql += "insert or ignore into " + name + " values(" + std::to_string(random() % 1000);
      for (int c = 0; c < columns; ++c) sql += "," + value();
      sql += ");";
    }
    if (random() % 2 == 0)
      sql += "delete from " + name + " where c0 in (select c0 from " + name + " limit " + std::to_string(random() % 3) + ");";
    if (random() % 2 == 0)
      sql += "create index i" + std::to_string(t) + " on " + name + "(c0" + pick("", " desc", " collate nocase") + ");";
    if (random() % 3 == 0) sql += "create trigger tr" + std::to_string(t) + " after delete on " + name + " begin select 1; end;";
    if (random() % 4 == 0) sql += "create view v" + std::to_string(t) + " as select * from " + name + ";";
  }
  if (random() % 5 == 0) sql += "create virtual table ft using fts5(z); insert into ft values('some words');";
  if (random() % 5 == 0)
    sql += "create virtual table f4 using fts4(z, y); insert into f4 values('some words', 'more'); delete from f4 where 0;";
  if (random() % 5 == 0) {
    sql += "create virtual table r using rtree(id, x0, x1, +more);";
    for (auto rows = random() % 60; rows > 0; --rows) {
      const auto from = random() % 1000;
      sql += "insert or ignore into r values(" + std::to_string(random() % 100) + "," + std::to_string(from) + "," +
             std::to_string(from + random() % 9) + ",'m');";
    }
  }
  if (random() % 5 == 0) sql += "analyze;";
  return sql;
}

uint32_t FromEnvironment(const char* name, uint32_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : static_cast<uint32_t>(std::atoi(text));
}

TEST_F(DumpTest, RandomDatabasesComeBack) {
  const uint32_t first = FromEnvironment("LITEFLEET_DUMP_SEED", 1);
  const uint32_t count = FromEnvironment("LITEFLEET_DUMP_DATABASES", 40);
  for (uint32_t seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("LITEFLEET_DUMP_DATABASES=1 LITEFLEET_DUMP_SEED=" + std::to_string(seed));
    std::mt19937 random(seed);
    const auto db = Make("a.db", RandomSql(random));
    const std::string text = Dump(db.get());
    if (HasCli()) {
      EXPECT_EQ(Dump(db.get(), {.compatible = true}), CliDump("a.db"));
    }
    const auto loaded = Make("b.db", "");
    const Ended ended = Load(loaded.get(), text);
    ASSERT_EQ(ended.end, End::kOk) << ended.message << "\n" << text;
    const auto again = sqlite::Open(Path("b.db"), SQLITE_OPEN_READWRITE);
    ASSERT_TRUE(again.ok());
    ASSERT_EQ(Dump(again->get()), text);
    EXPECT_EQ(Check(again->get()), Check("a.db"));
    if (HasCli()) {
      EXPECT_EQ(DumpOfWhatTheCliLoads(text), text);
    }
  }
}

TEST_F(DumpTest, TablesAreTakenAndLeftOutWithWhatBelongsToThem) {
  const auto db =
      Make("a.db",
           "create table t(id integer primary key autoincrement, a); create index ti on t(a); create trigger tt after insert on t begin "
           "select 1; end; insert into t values(7,1); create table u(id integer primary key autoincrement); insert into u values(3);"
           "create view v as select * from t; create virtual table ft using fts5(z); insert into ft values('w'); analyze");
  const auto has = [](const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; };
  std::string text = Dump(db.get(), {.tables = {"T"}});
  EXPECT_TRUE(has(text, "CREATE TABLE t(") && has(text, "CREATE INDEX ti") && has(text, "CREATE TRIGGER tt"));
  EXPECT_TRUE(has(text, "sqlite_sequence VALUES('t',7)"));
  EXPECT_FALSE(has(text, "TABLE u") || has(text, "VIEW") || has(text, "ft_") || has(text, "'u'") || has(text, "sqlite_stat1 VALUES('u'"));
  EXPECT_EQ(Load(Make("b.db", "").get(), text).end, End::kOk);
  text = Dump(db.get(), {.tables = {"ft"}});
  EXPECT_TRUE(has(text, "CREATE VIRTUAL TABLE ft") && has(text, "ft_content"));
  EXPECT_FALSE(has(text, "TABLE t("));
  EXPECT_EQ(Load(Make("b.db", "").get(), text).end, End::kOk);
  text = Dump(db.get(), {.without = {"t", "ft"}});
  EXPECT_TRUE(has(text, "TABLE u(") && has(text, "CREATE VIEW v"));
  EXPECT_FALSE(has(text, "TABLE t(") || has(text, "ft_") || has(text, "INDEX ti"));
  EXPECT_EQ(Load(Make("b.db", "").get(), text).end, End::kOk);
  text = Dump(db.get(), {.schema_only = true});
  EXPECT_TRUE(has(text, "TABLE t(") && has(text, "INDEX ti") && !has(text, "INSERT INTO t "));
  EXPECT_EQ(Load(Make("b.db", "").get(), text).end, End::kOk);
  text = Dump(db.get(), {.data_only = true});
  EXPECT_TRUE(has(text, "INSERT INTO t VALUES(7,1)") && !has(text, "CREATE") && !has(text, "BEGIN"));
  TextOutput out([](std::string_view) { return true; });
  const Ended ended = WriteDump(db.get(), {.tables = {"t", "nothing"}}, out);
  EXPECT_EQ(ended.end, End::kNoTable);
  EXPECT_TRUE(has(ended.message, "nothing"));
}

TEST_F(DumpTest, APartIsSaidInWords) {
  EXPECT_EQ(PartOf({}), "");
  EXPECT_EQ(PartOf({.compatible = true}), "") << "what is lost is no part";
  EXPECT_EQ(PartOf({.schema_only = true}), "schema only");
  EXPECT_EQ(PartOf({.tables = {"a"}}), "table a");
  EXPECT_EQ(PartOf({.tables = {"a", "b"}, .without = {"b"}, .data_only = true}), "tables a, b, without table b, data only");
  const std::string most = PartOf({.tables = std::vector<std::string>(1000, "\xc3\xa4")});
  EXPECT_TRUE(most.size() > 900 && most.size() <= 1000) << most.size();
}

TEST_F(DumpTest, SchemaAndRowsApartMakeTheWhole) {
  const auto db = Make("a.db",
                       "create table t(a integer primary key autoincrement, b); insert into t values(7,1),(9,2); delete from t where a = 9;"
                       "create table u(t references t); insert into u values(7); create index ti on t(b);"
                       "create virtual table ft using fts5(z); insert into ft values('w'); analyze");
  const auto halves = Make("b.db", "");
  EXPECT_EQ(Load(halves.get(), Dump(db.get(), {.schema_only = true})).end, End::kOk);
  const Ended rows = Load(halves.get(), Dump(db.get(), {.data_only = true}));
  EXPECT_EQ(rows.end, End::kOk) << rows.message;
  EXPECT_EQ(Dump(halves.get()), Dump(db.get()));
}

TEST_F(DumpTest, RowsComeWithTheStatisticsOfOtherSqlites) {
  const auto db = Make("a.db", kStatistics4);
  const auto halves = Make("b.db", "");
  EXPECT_EQ(Load(halves.get(), Dump(db.get(), {.schema_only = true})).end, End::kOk);
  const Ended rows = Load(halves.get(), Dump(db.get(), {.data_only = true}));
  EXPECT_EQ(rows.end, End::kOk) << rows.message;
  EXPECT_EQ(Dump(halves.get()), Dump(db.get()));
}

// Around the rows that need it, and nowhere else.
TEST_F(DumpTest, ChecksAreIgnoredForTheTableThatNeedsItAlone) {
  const auto db = Make("a.db",
                       "create table a(x check(x)); insert into a values(1); create table b(x check(x)); pragma "
                       "ignore_check_constraints=on; insert into b values(1),(0); create table c(x check(x)); insert into c values(1)");
  EXPECT_EQ(Dump(db.get()),
            "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE a(x check(x));\nINSERT INTO a VALUES(1);\n"
            "CREATE TABLE b(x check(x));\nPRAGMA ignore_check_constraints=ON;\nINSERT INTO b VALUES(1);\nINSERT INTO b VALUES(0);\n"
            "PRAGMA ignore_check_constraints=OFF;\nCREATE TABLE c(x check(x));\nINSERT INTO c VALUES(1);\nCOMMIT;\n");
}

TEST(BrokenChecks, AreTheConstraintsOfTheTable) {
  EXPECT_EQ(BrokenChecks("CREATE TABLE t(a, \"check\" , c DEFAULT ('check(' || (1)), d 'check(')"), "");
  EXPECT_EQ(BrokenChecks("CREATE TABLE 'check('(a check--(\n(a > (1)), Check/*)*/ (x'29' <> \")\" and [)] <> `)`))"),
            "(a > (1)) IS FALSE OR (x'29' <> \")\" and [)] <> `)`) IS FALSE");
  EXPECT_EQ(BrokenChecks("CREATE TABLE t(a DEFAULT (check(1)), xcheck (2), checks (3), \xc3\xa4"
                         "check (4))"),
            "");
  for (const char* torn :
       {"", "CREATE TABLE t(a check(", "CREATE TABLE t(a check('", "))))check(1)", "check", "CREATE TABLE t(a check(a)/*"})
    EXPECT_LE(BrokenChecks(torn).size(), 20u) << torn;
}

// Of a full-text table whose content lies in another one, the index comes along: it is in tables of its own, which go with it.
TEST_F(DumpTest, AnIndexOfOutsideContentComesBack) {
  const auto db = Make("a.db",
                       "create table docs(id integer primary key, body); insert into docs values(1,'one two'),(2,'two three');"
                       "create virtual table ft using fts5(body, content='docs', content_rowid='id');"
                       "create virtual table f4 using fts4(body, content='docs');"
                       "insert into ft(ft) values('rebuild'); insert into f4(f4) values('rebuild')");
  for (const DumpOptions& what : {DumpOptions{}, DumpOptions{.tables = {"docs", "ft", "f4"}}}) {
    const auto loaded = Make("b.db", "");
    ASSERT_EQ(Load(loaded.get(), Dump(db.get(), what)).end, End::kOk);
    const auto again = sqlite::Open(Path("b.db"), SQLITE_OPEN_READWRITE);
    ASSERT_TRUE(again.ok());
    const absl::Status whole = sqlite::Execute(
        again->get(), "insert into ft(ft, rank) values('integrity-check', 1); insert into f4(f4) values('integrity-check')");
    EXPECT_TRUE(whole.ok()) << whole;
    const auto found = [&](const std::string& table) {
      Query count(again->get(), "select count(*) from " + table + " where " + table + " match 'two'");
      return count.Step() ? std::string(count.Text(0)) : "nothing";
    };
    EXPECT_EQ(found("ft"), "2");
    EXPECT_EQ(found("f4"), "2");
  }
}

TEST_F(DumpTest, NobodyReadingIsAnError) {
  const auto db = Make("a.db", "create table t(a); insert into t values(zeroblob(1000000))");
  TextOutput out([](std::string_view) { return false; });
  EXPECT_EQ(WriteDump(db.get(), {}, out).end, End::kFailed);
}

TEST_F(DumpTest, CsvIsWhatOthersRead) {
  const auto db = Make(
      "a.db",
      "create table \"t \"\"1\"(a,\"b,c\"); insert into \"t \"\"1\" values(1,'plain'),(null,''),(1.5,'q\"uote'),(x'00ff',char(10)||',')");
  std::string text;
  TextOutput out([&](std::string_view piece) {
    text += piece;
    return true;
  });
  EXPECT_EQ(WriteCsv(db.get(), "t \"1", out).end, End::kOk);
  EXPECT_EQ(text, "a,\"b,c\"\r\n1,plain\r\n,\"\"\r\n1.5,\"q\"\"uote\"\r\n00ff,\"\n,\"\r\n");
  text.clear();
  EXPECT_EQ(WriteTableNames(db.get(), out).end, End::kOk);
  EXPECT_EQ(text, std::string("tt \"1\0", 6));
  EXPECT_EQ(WriteCsv(db.get(), "missing", out).end, End::kNoTable);
}

TEST_F(DumpTest, NamesSayWhatTheyAre) {
  auto db = Make("a.db", "create table t(a); create view v as select * from missing; create virtual table f using fts5(a);");
  std::string text;
  TextOutput out([&](std::string_view piece) {
    text += piece;
    return true;
  });
  EXPECT_EQ(WriteTableNames(db.get(), out).end, End::kOk);
  EXPECT_EQ(text, std::string("xf\0tt\0vv\0", 9));
}

// A name that begins as that of a virtual table is not all that makes a table one of its own.
TEST_F(DumpTest, AVirtualTableTakesItsOwnTablesAlong) {
  auto db = Make("a.db",
                 "create virtual table log using fts5(a); create table log_archive(a); create virtual table log_x using fts5(a);"
                 "insert into log_archive values(77);");
  const std::string without = Dump(db.get(), {.without = {"log"}});
  EXPECT_THAT(without, ::testing::HasSubstr("INSERT INTO log_archive VALUES(77)"));
  EXPECT_THAT(without, ::testing::HasSubstr("log_x_data"));
  EXPECT_THAT(without, ::testing::Not(::testing::HasSubstr("'log_data'")));
  const std::string with = Dump(db.get(), {.tables = {"log"}});
  EXPECT_THAT(with, ::testing::HasSubstr("'log_data'"));
  EXPECT_THAT(with, ::testing::Not(::testing::HasSubstr("log_x")));
  EXPECT_THAT(with, ::testing::Not(::testing::HasSubstr("log_archive")));
}

}  // namespace
}  // namespace litefleet::dump
