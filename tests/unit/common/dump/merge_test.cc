// Tables of one database that replace those of another.
#include <gmock/gmock.h>

#include "tests/unit/common/dump/dump_fixture.h"

namespace litefleet::dump {
namespace {

using ::testing::HasSubstr;

class MergeTest : public DumpTest {
 protected:
  static Ended Merge(sqlite3* db, const std::vector<std::string>& tables, std::string_view text, bool may_break = false) {
    return MergeText(db, {.tables = tables, .may_break_keys = may_break}, {.statement_bytes = 1 << 20}, [&](std::string_view& piece) {
      piece = text.substr(0, 100);
      text.remove_prefix(piece.size());
      return true;
    });
  }
  static std::string Part(sqlite3* db, const std::vector<std::string>& tables) {
    std::string text;
    const Ended ended = PartInto(db, tables, text);
    EXPECT_EQ(ended.end, End::kOk) << ended.message;
    return text;
  }
  static Ended PartInto(sqlite3* db, const std::vector<std::string>& tables, std::string& text) {
    TextOutput out([&](std::string_view piece) {
      text += piece;
      return true;
    });
    return WritePart(db, tables, out);
  }
  static std::string One(sqlite3* db, const std::string& sql) {
    Query query(db, sql);
    std::string found;
    while (query.Step()) found += (found.empty() ? "" : ",") + std::string(query.Text(0));
    EXPECT_TRUE(query.ok()) << sql << ": " << sqlite3_errmsg(db);
    return found;
  }
};

constexpr char kShop[] =
    "create table customer(id integer primary key, name text);"
    "create table orders(id integer primary key autoincrement, customer references customer(id), total);"
    "create index orders_customer on orders(customer);"
    "create table log(t);"
    "create trigger orders_new after insert on orders begin insert into log values('new ' || new.id); end;"
    "create table other(id integer primary key autoincrement, v);"
    "create view sums as select customer, sum(total) from orders group by 1;";

TEST_F(MergeTest, ATableComesWithWhatBelongsToIt) {
  auto source =
      Make("s.db", std::string(kShop) +
                       "insert into customer values(1,'a'),(2,'b');"
                       "insert into orders(customer,total) values(1,10),(2,20),(1,30); delete from orders where id = 3; delete from log;"
                       "insert into other(v) values(1);");
  auto live =
      Make("l.db",
           "pragma page_size=1024; pragma user_version=7; pragma application_id=9; create table customer(id integer primary key, name);"
           "insert into customer values(1,'x'),(2,'y'); create table orders(id integer primary key, customer, total, more);"
           "create index orders_more on orders(more); insert into orders values(77,1,1,1); create table mine(a);"
           "insert into mine values('kept'); create table other(id integer primary key autoincrement, v); insert into other values(500,1);"
           "create view sums as select count(*) from orders; create table log(t);");
  const Ended ended = Merge(live.get(), {"Orders"}, Part(source.get(), {"orders"}));
  ASSERT_EQ(ended.end, End::kOk) << ended.message;
  EXPECT_EQ(One(live.get(), "select id || ':' || total from orders order by id"), "1:10,2:20");
  EXPECT_EQ(One(live.get(), "select name from sqlite_schema where tbl_name = 'orders' and type <> 'table' order by 1"),
            "orders_customer,orders_new");
  EXPECT_EQ(One(live.get(), "select seq from sqlite_sequence where name = 'orders'"), "3");
  // What is not theirs stays.
  EXPECT_EQ(One(live.get(), "select seq from sqlite_sequence where name = 'other'"), "500");
  EXPECT_EQ(One(live.get(), "select a from mine"), "kept");
  EXPECT_EQ(One(live.get(), "select name from customer order by id"), "x,y");
  EXPECT_EQ(One(live.get(), "select * from sums"), "2");
  EXPECT_EQ(One(live.get(), "pragma user_version"), "7");
  EXPECT_EQ(One(live.get(), "pragma application_id"), "9");
  EXPECT_EQ(One(live.get(), "pragma page_size"), "1024");
  EXPECT_EQ(One(live.get(), "select count(*) from log"), "0");  // no trigger ran
  EXPECT_EQ(Check(live.get()), "ok");
}

TEST_F(MergeTest, WhatWasDefinedOtherwiseIsSaid) {
  auto source = Make("s.db", "create table a(x); create table b(y); create index bi on b(y); create table c(z); insert into a values(1);");
  auto live = Make("l.db",
                   "create table A(x, added); create index since on a(added); create trigger notes after insert on a begin select 1; end;"
                   "create table b(y); create index bi on b(y desc);");
  const Ended ended = Merge(live.get(), {"a", "b", "c"}, Part(source.get(), {"a", "b", "c"}));
  EXPECT_EQ(ended.end, End::kOk);
  EXPECT_EQ(ended.message,
            "the snapshot has other definitions, which the database has now: index bi, table A; "
            "the snapshot did not have these, they are gone: index since, trigger notes");
  const Ended again = Merge(live.get(), {"a", "b", "c"}, Part(source.get(), {"a", "b", "c"}));
  EXPECT_EQ(again.end, End::kOk);
  EXPECT_EQ(again.message, "");
}

// A trigger that was dropped since writes again; of a table that was not there that is no surprise.
TEST_F(MergeTest, WhatIsThereAgainIsSaid) {
  auto source = Make("s.db",
                     "create table a(x); create index ai on a(x); create trigger noted after insert on a begin select 1; end;"
                     "create table b(y); create index bi on b(y);");
  auto live = Make("l.db", "create table A(x);");
  const Ended ended = Merge(live.get(), {"a", "b"}, Part(source.get(), {"a", "b"}));
  EXPECT_EQ(ended.end, End::kOk);
  EXPECT_THAT(ended.message, HasSubstr("the database did not have these any more, they are there again: index ai, trigger noted"));
  EXPECT_THAT(ended.message, testing::Not(HasSubstr("index bi")));
}

// In another encoding it would be another text.
TEST_F(MergeTest, TextThatIsNoUnicodeStaysInItsEncoding) {
  for (const char* encoding : {"UTF-16le", "UTF-16be"}) {
    const std::string set = std::string("pragma encoding='") + encoding + "';";
    auto source = Make("s.db", set +
                                   "create table a(x); insert into a values(cast(x'00d8d800' as text)),('b'); create table b(x);"
                                   "insert into b values('\xc3\xa4');");
    auto live = Make("l.db", "create table c(z);");
    const Ended ended = Merge(live.get(), {"a"}, Part(source.get(), {"a"}));
    EXPECT_EQ(ended.end, End::kRefused);
    EXPECT_THAT(ended.message, HasSubstr(encoding));
    EXPECT_EQ(Merge(live.get(), {"b"}, Part(source.get(), {"b"})).end, End::kOk);
    EXPECT_EQ(One(live.get(), "select x from b"), "\xc3\xa4");
    live = Make("l.db", set + "create table c(z);");
    EXPECT_EQ(Merge(live.get(), {"a"}, Part(source.get(), {"a"})).end, End::kOk);
    EXPECT_EQ(One(live.get(), "select hex(cast(x as blob)) from a"), One(source.get(), "select hex(cast(x as blob)) from a"));
  }
}

TEST_F(MergeTest, BytesThatAreNoUnicodeStayInUtf8) {
  for (const char* bytes : {"e4", "eda080", "efbfbf"}) {
    SCOPED_TRACE(bytes);
    auto source = Make("s.db", std::string("create table a(x); insert into a values('b'),(cast(x'") + bytes +
                                   "' as text)); create table b(x); insert into b values('\xc3\xa4');");
    auto live = Make("l.db", "pragma encoding='UTF-16le'; create table c(z);");
    const Ended ended = Merge(live.get(), {"a"}, Part(source.get(), {"a"}));
    EXPECT_EQ(ended.end, End::kRefused);
    EXPECT_THAT(ended.message, HasSubstr("UTF-8"));
    EXPECT_EQ(Merge(live.get(), {"b"}, Part(source.get(), {"b"})).end, End::kOk);
    live = Make("l.db", "create table c(z);");
    EXPECT_EQ(Merge(live.get(), {"a"}, Part(source.get(), {"a"})).end, End::kOk);
    EXPECT_EQ(One(live.get(), "select hex(x) from a"), One(source.get(), "select hex(x) from a"));
  }
}

TEST_F(MergeTest, ATableThatIsNotThereIsMade) {
  auto source = Make("s.db", "create table a(x unique); insert into a values(1); create table b(y); insert into b values(2);");
  auto live = Make("l.db", "create table c(z); insert into c values(3);");
  ASSERT_EQ(Merge(live.get(), {"a", "b"}, Part(source.get(), {"a", "b"})).end, End::kOk);
  EXPECT_EQ(One(live.get(), "select x from a union all select y from b union all select z from c"), "1,2,3");
  // And one whose database has no counters yet.
  auto counted = Make("t.db", "create table k(i integer primary key autoincrement); insert into k values(9);");
  const Ended ended = Merge(live.get(), {"k"}, Part(counted.get(), {"k"}));
  ASSERT_EQ(ended.end, End::kOk) << ended.message;
  EXPECT_EQ(One(live.get(), "select seq from sqlite_sequence"), "9");
}

TEST_F(MergeTest, OddNamesAndValues) {
  const char* odd =
      "create table \"select \"\" ;--\"(\"a b\", c); insert into \"select \"\" ;--\" values('it''s;', x'00ff'), (null, 1e300);";
  auto source = Make("s.db", odd);
  auto live = Make("l.db", "create table x(a);");
  ASSERT_EQ(Merge(live.get(), {"select \" ;--"}, Part(source.get(), {"select \" ;--"})).end, End::kOk);
  EXPECT_EQ(Part(live.get(), {"select \" ;--"}), Part(source.get(), {"select \" ;--"}));
}

TEST_F(MergeTest, RowsMayNotLoseTheirParents) {
  auto source =
      Make("s.db", std::string(kShop) + "insert into customer values(1,'a'),(2,'b'); insert into orders(customer,total) values(2,5);");
  // A child without its parent in the database.
  auto live = Make("l.db", std::string(kShop) + "insert into customer values(1,'x');");
  Ended ended = Merge(live.get(), {"orders"}, Part(source.get(), {"orders"}));
  EXPECT_EQ(ended.end, End::kBrokenKeys);
  EXPECT_THAT(ended.message, HasSubstr("1 rows of table orders"));
  // Both together are whole.
  live = Make("l.db", std::string(kShop) + "insert into customer values(1,'x');");
  EXPECT_EQ(Merge(live.get(), {"orders", "customer"}, Part(source.get(), {"orders", "customer"})).end, End::kOk);
  // A parent that goes from under its children.
  live = Make("l.db", std::string(kShop) + "insert into customer values(1,'x'),(9,'z'); insert into orders(customer,total) values(9,1);");
  ended = Merge(live.get(), {"customer"}, Part(source.get(), {"customer"}));
  EXPECT_EQ(ended.end, End::kBrokenKeys) << ended.message;
  // What was broken before is nobody's fault; more of it is.
  live = Make("l.db", std::string(kShop) + "insert into orders(customer,total) values(4,1);");
  EXPECT_EQ(Merge(live.get(), {"log"}, Part(source.get(), {"log"})).end, End::kOk);
  live = Make("l.db", std::string(kShop) + "insert into orders(customer,total) values(4,1);");
  EXPECT_EQ(Merge(live.get(), {"orders"}, Part(source.get(), {"orders"})).end, End::kOk);
  // Allowed on demand.
  live = Make("l.db", kShop);
  EXPECT_EQ(Merge(live.get(), {"orders"}, Part(source.get(), {"orders"}), true).end, End::kOk);
}

// One row that gets its parent back does not stand for another that loses its own.
TEST_F(MergeTest, OrphansAreTheSameRowsAsBefore) {
  auto source = Make("s.db", std::string(kShop) + "insert into customer values(1,'a'),(2,'b');");
  const std::string part = Part(source.get(), {"customer"});
  const char* orphans = "insert into customer values(9,'z'); insert into orders(id,customer,total) values(10,1,1),(11,2,1),(12,9,1);";
  auto live = Make("l.db", std::string(kShop) + orphans);
  const Ended ended = Merge(live.get(), {"customer"}, part);
  EXPECT_EQ(ended.end, End::kBrokenKeys);
  EXPECT_THAT(ended.message, HasSubstr("1 rows of table orders"));
  // The same row, still without it.
  live = Make("l.db", std::string(kShop) + "insert into orders(id,customer,total) values(10,1,1),(12,9,1);");
  EXPECT_EQ(Merge(live.get(), {"customer"}, part).end, End::kOk);
  EXPECT_EQ(One(live.get(), "select count(*) from sqlite_temp_schema where name = 'litefleet_orphans'"), "0");
  // The same row, by another of its keys.
  const char* two = "create table pair(id integer primary key, a references customer(id), b references customer(id));";
  live = Make("l.db", std::string(kShop) + two + "insert into customer values(9,'z'); insert into pair values(1,2,9);");
  EXPECT_EQ(Merge(live.get(), {"customer"}, part).end, End::kBrokenKeys);
  // Without a rowid they are counted.
  const char* without = "create table w(id primary key, c references customer(id)) without rowid;";
  live = Make("l.db", std::string(kShop) + without + "insert into customer values(9,'z'); insert into w values(1,9);");
  EXPECT_EQ(Merge(live.get(), {"customer"}, part).end, End::kBrokenKeys);
  live = Make("l.db", std::string(kShop) + without + "insert into w values(1,9);");
  EXPECT_EQ(Merge(live.get(), {"customer"}, part).end, End::kOk);
}

TEST_F(MergeTest, AKeyThatFitsOnlyNowIsNoLoss) {
  auto source = Make("s.db", std::string(kShop) + "insert into customer values(1,'a');");
  // customer(id) is no key there, so SQLite cannot tell.
  auto live = Make("l.db",
                   "create table customer(id); create table orders(customer references customer(id));"
                   "insert into orders values(1),(7);");
  Ended ended = Merge(live.get(), {"customer"}, Part(source.get(), {"customer"}));
  EXPECT_EQ(ended.end, End::kOk) << ended.message;
  // The other way about it is a loss.
  auto worse = Make("s.db", "create table customer(id); insert into customer values(1);");
  live = Make("l.db", std::string(kShop) + "insert into customer values(1,'x'); insert into orders(customer) values(1);");
  ended = Merge(live.get(), {"customer"}, Part(worse.get(), {"customer"}));
  EXPECT_EQ(ended.end, End::kBrokenKeys);
  EXPECT_THAT(ended.message, HasSubstr("do not fit"));
}

// What is kept meanwhile has no name that a table has.
TEST_F(MergeTest, ATableOfTheNameThatIsUsedMeanwhile) {
  auto source = Make("s.db", "create table litefleet_orphans(a); insert into litefleet_orphans values(5);");
  auto live = Make("l.db", "create table Litefleet_Orphans_(b);");
  const Ended ended = Merge(live.get(), {"litefleet_orphans"}, Part(source.get(), {"litefleet_orphans"}));
  ASSERT_EQ(ended.end, End::kOk) << ended.message;
  EXPECT_EQ(One(live.get(), "select a from main.litefleet_orphans"), "5");
}

TEST_F(MergeTest, WhatHasTheNameAlreadyIsRefused) {
  auto source = Make("s.db", "create table a(x); create index i on a(x);");
  auto live = Make("l.db", "create table t(x); create view a as select * from t;");
  EXPECT_THAT(Merge(live.get(), {"a"}, Part(source.get(), {"a"})).message, HasSubstr("a view"));
  live = Make("l.db", "create table t(x); create index i on t(x);");
  const Ended ended = Merge(live.get(), {"a"}, Part(source.get(), {"a"}));
  EXPECT_EQ(ended.end, End::kRefused);
  EXPECT_THAT(ended.message, HasSubstr("index i already exists"));
}

TEST_F(MergeTest, VirtualTablesAreRefused) {
  auto source = Make("s.db", "create virtual table f using fts5(a); create table t(x);");
  std::string text;
  const Ended ended = PartInto(source.get(), {"f"}, text);
  EXPECT_EQ(ended.end, End::kNoPart);
  EXPECT_THAT(ended.message, HasSubstr("virtual"));
}

// One of its tables alone would leave an index of other rows.
TEST_F(MergeTest, OfAVirtualTableAllTablesOrNone) {
  const std::string virtual_table = "create virtual table docs using fts5(a); create table docs_log(b); insert into docs_log values(1);";
  const std::string old_rows = "insert into docs values('apple'),('pear');";
  auto source = Make("s.db", virtual_table + old_rows);
  const std::vector<std::string> all = {"docs_config", "docs_content", "docs_data", "docs_docsize", "docs_idx"};
  std::string text;
  Ended ended = PartInto(source.get(), {"docs_content", "docs_config"}, text);
  EXPECT_EQ(ended.end, End::kNoPart);
  EXPECT_THAT(ended.message, HasSubstr("docs, and docs_data, docs_docsize, docs_idx are not chosen"));
  auto live = Make("l.db", virtual_table + "insert into docs values('plum');");
  ended = Merge(live.get(), all, Part(source.get(), all));
  ASSERT_EQ(ended.end, End::kOk) << ended.message;
  live = sqlite::Open(Path("l.db"), SQLITE_OPEN_READWRITE).value();
  EXPECT_EQ(One(live.get(), "select a from docs where docs match 'pear'"), "pear");
  EXPECT_EQ(One(live.get(), "select count(*) from docs where docs match 'plum'"), "0");
  EXPECT_EQ(One(live.get(), "select count(*) from docs"), "2");
  // What only has such a name.
  EXPECT_EQ(Merge(live.get(), {"docs_log"}, Part(source.get(), {"docs_log"})).end, End::kOk);
  // The virtual table of the database counts too.
  auto plain = Make("p.db", "create table docs_content(id integer primary key, c0); insert into docs_content values(1, 'fig');");
  ended = Merge(live.get(), {"docs_content"}, Part(plain.get(), {"docs_content"}));
  EXPECT_EQ(ended.end, End::kNoPart);
  EXPECT_EQ(One(live.get(), "select a from docs"), "apple,pear");
}

// The words of one tokenizer are none of another.
TEST_F(MergeTest, TablesOfAVirtualTableThatIsAnotherAreRefused) {
  const std::vector<std::string> all = {"docs_config", "docs_content", "docs_data", "docs_docsize", "docs_idx"};
  auto source = Make("s.db", "create virtual table docs using fts5(a, tokenize='porter ascii'); insert into docs values('pears');");
  auto live = Make("l.db", "create virtual table docs using fts5(a); insert into docs values('plum');");
  const Ended ended = Merge(live.get(), all, Part(source.get(), all));
  EXPECT_EQ(ended.end, End::kNoPart);
  EXPECT_THAT(ended.message, HasSubstr("docs has another definition"));
}

// Whatever a snapshot was made to hold, its text may touch nothing but the chosen tables.
TEST_F(MergeTest, TheTextMayTouchNothingElse) {
  const char* hostile[] = {
      "CREATE TABLE a(x); DELETE FROM mine;",
      "INSERT INTO mine VALUES(2);",
      "UPDATE mine SET a = 2;",
      "DROP TABLE mine;",
      "ALTER TABLE mine RENAME TO yours;",
      "CREATE TRIGGER g AFTER INSERT ON mine BEGIN DELETE FROM mine; END;",
      "CREATE TABLE a(x); CREATE TRIGGER g AFTER INSERT ON a BEGIN DELETE FROM mine; END; INSERT INTO a VALUES(1);",
      "CREATE INDEX g ON mine(a);",
      "CREATE VIEW v AS SELECT * FROM mine;",
      "CREATE TABLE b(x);",
      "CREATE TEMP TABLE a(x);",
      ("PRAGMA writable_schema=ON; INSERT INTO sqlite_schema VALUES('trigger','g','mine',0,'create trigger g after insert on mine begin "
       "select 1; end');"),
      "INSERT INTO sqlite_schema VALUES('trigger','g','mine',0,'create trigger g after insert on mine begin select 1; end');",
      "DELETE FROM sqlite_schema;",
      "CREATE VIRTUAL TABLE a USING fts5(x);",
      "ATTACH 'x' AS y;",
      "VACUUM;",
      "ANALYZE;",
      "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'other';",
      "CREATE TABLE a(x); ROLLBACK;",
      "BEGIN; CREATE TABLE a(x);",
  };
  for (const char* text : hostile) {
    auto live = Make("l.db",
                     "create table mine(a); insert into mine values('kept'); create table other(i integer primary key autoincrement);"
                     "insert into other values(8);");
    EXPECT_NE(Merge(live.get(), {"a"}, text).end, End::kOk) << text;
    EXPECT_EQ(One(live.get(), "select a from mine"), "kept") << text;
    // A trigger of the chosen table is made; what it does is refused, and the copy is thrown away.
    EXPECT_EQ(One(live.get(), "select count(*) from sqlite_schema where name in ('g', 'v', 'b', 'yours') and tbl_name <> 'a'"), "0")
        << text;
  }
}

// The settings of a connection and of a database are not the text's either.
TEST_F(MergeTest, PragmasArePassedOver) {
  auto live = Make("l.db", "pragma user_version=3; create table mine(a);");
  ASSERT_EQ(Merge(live.get(), {"a"}, "PRAGMA user_version=9; PRAGMA application_id=1; PRAGMA foreign_keys=ON; CREATE TABLE a(x);").end,
            End::kOk);
  EXPECT_EQ(One(live.get(), "pragma user_version"), "3");
}

}  // namespace
}  // namespace litefleet::dump
