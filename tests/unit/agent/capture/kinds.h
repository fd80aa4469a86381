// Kinds of databases, for every method: what makes one, and a question that its snapshot has to answer as it does.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_CAPTURE_KINDS_H_
#define LITEFLEET_TESTS_UNIT_AGENT_CAPTURE_KINDS_H_

#include <sqlite3.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "fmt/format.h"
#include "gtest/gtest.h"
#include "tests/unit/agent/capture/capture_fixture.h"

namespace litefleet::capture {

inline constexpr char kSixHundredRows[] =
    "create table t(id integer primary key, i, x); create index by_i on t(i, id);"
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 600) insert into t select i, 0, zeroblob(200) from n;";

inline const std::vector<std::string>& Kinds() {
  static const std::vector<std::string> kinds = {"empty_file",
                                                 "no_tables",
                                                 "pages_of_512",
                                                 "pages_of_1024",
                                                 "pages_of_8192",
                                                 "pages_of_65536",
                                                 "utf16le",
                                                 "utf16be",
                                                 "auto_vacuum",
                                                 "incremental_vacuum",
                                                 "free_pages",
                                                 "without_rowid",
                                                 "strict_and_generated",
                                                 "foreign_key_cycle",
                                                 "views_and_triggers",
                                                 "full_text",
                                                 "full_text_4",
                                                 "rtree",
                                                 "large_values",
                                                 "settings",
                                                 "reserved_bytes"};
  return kinds;
}

struct Kind {
  std::string sql;
  std::string question = "select count(*) || ' ' || total(id) || ' ' || group_concat(hex(substr(x, 1, 3))) from t";
  // What an application may do to it, and the answer is another one.
  std::string change = "update t set x = 'later' where id = (select max(id) from t)";
};

inline Kind KindOf(const std::string& name) {
  const std::string rows = kSixHundredRows;
  if (name == "empty_file") return {"", "select count(*) from sqlite_schema", "create table t(x)"};
  if (name == "no_tables") return {"create table t(x); drop table t;", "select count(*) from sqlite_schema", "create table t(x)"};
  if (name.starts_with("pages_of_")) return {fmt::format("pragma page_size={}; {}", name.substr(9), rows)};
  if (name == "utf16le") return {"pragma encoding='UTF-16le'; create table t(id, x); insert into t values (1, 'grün ☂'), (2, 'x')"};
  if (name == "utf16be") return {"pragma encoding='UTF-16be'; create table t(id, x); insert into t values (1, 'grün ☂'), (2, 'x')"};
  if (name == "auto_vacuum")
    return {.sql = "pragma auto_vacuum=full; " + rows + "delete from t where id % 3 = 0;", .change = "delete from t where id % 2 = 0"};
  if (name == "incremental_vacuum")
    return {.sql = "pragma auto_vacuum=incremental; " + rows + "delete from t where id % 3 = 0;",
            .change = "delete from t where id % 2 = 0; pragma incremental_vacuum"};
  if (name == "free_pages") return {rows + "create table g as select randomblob(2000) from t; drop table g;"};
  if (name == "without_rowid")
    return {"create table t(id text, x blob, primary key(id, x)) without rowid; insert into t values ('1', 'a'), ('1', 'b'), ('2', 'c')"};
  if (name == "strict_and_generated")
    return {
        "create table t(id int, x text, y int generated always as (id * 2) stored, z int as (id + 1)) strict; insert into t(id, x) values "
        "(1, "
        "'a'), (2, 'b')",
        "select group_concat(id || x || y || z) from t"};
  if (name == "foreign_key_cycle")
    return {
        "create table t(id integer primary key, x references u(id)); create table u(id integer primary key, t references t(id));"
        "insert into t values (1, 2); insert into u values (2, 1)"};
  if (name == "views_and_triggers")
    return {rows + "create view v as select * from t; create trigger r after delete on t begin insert into t(i) values (9); end;",
            "select count(*) || ' ' || (select group_concat(name) from sqlite_schema) from v", "insert into t(i) values (8)"};
  if (name == "reserved_bytes") return {rows};
  if (name == "full_text")
    return {"create virtual table f using fts5(body); insert into f values ('one two'), ('two three')",
            "select group_concat(body) from f where f match 'two'", "insert into f values ('two more')"};
  if (name == "full_text_4")
    return {
        "create virtual table f using fts4(body); insert into f values ('one two'), ('two three'); create virtual table g using fts3(x)",
        "select group_concat(body) from f where f match 'two'", "insert into f values ('two more')"};
  if (name == "rtree")
    return {"create virtual table r using rtree(id, a, b); insert into r values (1, 2, 3), (4, 5, 6)",
            "select group_concat(id || ':' || a || ':' || b) from r", "insert into r values (9, 8, 9)"};
  if (name == "large_values")
    return {"create table t(id, x); insert into t values (1, randomblob(300000)), (2, zeroblob(1000000))",
            "select group_concat(id || length(x)) || hex(substr(max(x), 1, 64)) from t",
            "update t set x = randomblob(400000) where id = 2"};
  if (name == "settings")
    return {"pragma user_version=77; pragma application_id=1234; create table t(id, x)",
            "select (select user_version from pragma_user_version) || ' ' || (select application_id from pragma_application_id)",
            "pragma user_version=78"};
  return {};
}

// As an extension that keeps something of its own in each page would have it.
inline void Reserve(const std::string& path, int wanted) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  int bytes = wanted;  // SQLite gives the former number back in it
  ASSERT_EQ(sqlite3_file_control(db, "main", SQLITE_FCNTL_RESERVE_BYTES, &bytes), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, "vacuum", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(db);
  ASSERT_EQ(std::to_integer<int>(FileBytes(path).at(20)), wanted);
}

// A database of the kind at `path`, closed; `mode` is a statement.
inline void MakeKind(const std::string& path, const std::string& name, const std::string& mode) {
  const Kind kind = KindOf(name);
  if (name == "empty_file") {
    Shell("touch '" + path + "'");
  } else if (name == "reserved_bytes") {
    Connection(path).Run(kind.sql);
    Reserve(path, 16);
    Connection(path).Run(mode);
  } else if (name.starts_with("pages_of_") || name.starts_with("utf16") || name.ends_with("_vacuum")) {
    Connection(path).Run(kind.sql + ";" + mode);  // the page size is the file's before its mode
  } else {
    Connection(path).Run(mode + " " + kind.sql);
  }
}

}  // namespace litefleet::capture

#endif  // LITEFLEET_TESTS_UNIT_AGENT_CAPTURE_KINDS_H_
