#include "common/dump/loader.h"

#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>

#include "common/dump/names.h"
#include "common/dump/query.h"
#include "common/dump/shadows.h"
#include "common/dump/sql_values.h"
#include "common/dump/statement_splitter.h"

namespace litefleet::dump {
namespace {

// That say something of the database, and not of the connection. Others are passed over, as by a program that does not know them.
constexpr std::array<const char*, 8> kPragmas = {"application_id", "auto_vacuum",  "default_cache_size", "encoding",
                                                 "page_size",      "user_version", "writable_schema",    "legacy_alter_table"};

// The tables that ANALYZE makes in an SQLite with SQLITE_ENABLE_STAT4, or in older ones; what the CLI of such a one writes goes into them.
struct StatisticsTable {
  const char* name;
  const char* columns;
};
constexpr std::array<StatisticsTable, 3> kStatistics = {{{"sqlite_stat4", "tbl,idx,neq,nlt,ndlt,sample"},
                                                         {"sqlite_stat3", "tbl,idx,neq,nlt,ndlt,sample"},
                                                         {"sqlite_stat2", "tbl,idx,sampleno,sample"}}};

constexpr size_t kMaxSchema = 16 << 20;  // of which it is tried

struct Loading {
  bool part = false;  // of a database that is there
  bool rolled_back = false;
  bool cache_set = false;
};

struct Merging : Loading {
  Names tables;
  std::string encoding;          // that the text cannot do without; empty: any
  std::set<std::string> owners;  // statements of the virtual tables whose content the text has
};

int Authorize(void* context, int action, const char* first, const char* second, const char*, const char*) {
  switch (action) {
    case SQLITE_ATTACH:
    case SQLITE_DETACH:
      return SQLITE_DENY;
    case SQLITE_FUNCTION:
      return second != nullptr && sqlite3_stricmp(second, "load_extension") == 0 ? SQLITE_DENY : SQLITE_OK;
    case SQLITE_TRANSACTION:
      if (first != nullptr && sqlite3_stricmp(first, "ROLLBACK") == 0) static_cast<Loading*>(context)->rolled_back = true;
      return SQLITE_OK;
    case SQLITE_PRAGMA: {
      const auto known = [&](const char* name) { return sqlite3_stricmp(name, first) == 0; };
      if (first != nullptr && known("default_cache_size")) static_cast<Loading*>(context)->cache_set = true;
      return first != nullptr && std::any_of(kPragmas.begin(), kPragmas.end(), known) ? SQLITE_OK : SQLITE_IGNORE;
    }
    default:
      return SQLITE_OK;
  }
}

// What a text may do that replaces some tables: make these, with indexes and triggers, and write rows of them. That sqlite_sequence holds
// the counters of all tables is looked at afterwards.
int AuthorizeMerge(void* context, int action, const char* first, const char* second, const char* third, const char* trigger) {
  auto& merging = *static_cast<Merging*>(static_cast<Loading*>(context));
  const auto ours = [&](const char* table) { return table != nullptr && merging.tables.contains(table) ? SQLITE_OK : SQLITE_DENY; };
  switch (action) {
    case SQLITE_CREATE_TABLE:
      // The table of counters is made with the first AUTOINCREMENT; by that name no statement of a text can make one.
      return first != nullptr && sqlite3_stricmp(first, "sqlite_sequence") == 0 ? SQLITE_OK : ours(first);
    case SQLITE_CREATE_INDEX:
    case SQLITE_CREATE_TRIGGER:
      return ours(second);
    case SQLITE_INSERT:
    case SQLITE_UPDATE:
    case SQLITE_DELETE:
      // Of the schema's table SQLite takes care itself, as long as writable_schema is off.
      for (const char* own : {"sqlite_master", "sqlite_schema", "sqlite_sequence"}) {
        if (first != nullptr && sqlite3_stricmp(first, own) == 0) return SQLITE_OK;
      }
      return ours(first);
    case SQLITE_PRAGMA:
      if (first != nullptr && second != nullptr && sqlite3_stricmp(first, "encoding") == 0) merging.encoding = second;
      if (first != nullptr && second != nullptr && sqlite3_stricmp(first, kOwnerPragma) == 0) merging.owners.insert(second);
      return first != nullptr && sqlite3_stricmp(first, "writable_schema") == 0 ? SQLITE_DENY : SQLITE_IGNORE;
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_FUNCTION:
    case SQLITE_TRANSACTION:
    case SQLITE_SAVEPOINT:
    case SQLITE_RECURSIVE:
    case SQLITE_REINDEX:  // asked for when an index is made
      return Authorize(context, action, first, second, third, trigger);
    default:
      return SQLITE_DENY;
  }
}

std::string Beginning(const std::string& statement) {
  const size_t from = std::min(statement.find_first_not_of(" \t\r\n"), statement.size());
  std::string text = statement.substr(from, 60);
  for (char& c : text) c = static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  return text;
}

bool Run(sqlite3* db, const std::string& sql, Ended& ended) {
  const char* rest = sql.c_str();
  const char* const end = rest + sql.size();
  while (rest < end) {
    sqlite3_stmt* statement = nullptr;
    int code = sqlite3_prepare_v2(db, rest, static_cast<int>(end - rest), &statement, &rest);
    if (code == SQLITE_OK && statement == nullptr) break;  // a comment
    while (code == SQLITE_OK || code == SQLITE_ROW) code = sqlite3_step(statement);
    if (code != SQLITE_DONE) ended = EndOf(db, code, Beginning(sql));
    if ((code & 0xff) == SQLITE_CONSTRAINT || (code & 0xff) == SQLITE_MISMATCH) ended.end = End::kDamaged;
    sqlite3_finalize(statement);
    if (code != SQLITE_DONE) return false;
  }
  return true;
}

// Whether the statement failed for a table of statistics alone, which is there now.
bool MakeStatisticsTable(sqlite3* db, Ended& ended) {
  for (const StatisticsTable& each : kStatistics) {
    const std::string missing = ": no such table: ";
    if (!ended.message.ends_with(missing + each.name) && !ended.message.ends_with(missing + "main." + each.name)) continue;
    int writable = 0;
    sqlite3_db_config(db, SQLITE_DBCONFIG_WRITABLE_SCHEMA, -1, &writable);
    sqlite3_db_config(db, SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1, nullptr);
    ended = {};
    const bool made = Run(db, "CREATE TABLE " + std::string(each.name) + "(" + each.columns + ");", ended);
    sqlite3_db_config(db, SQLITE_DBCONFIG_WRITABLE_SCHEMA, writable, nullptr);
    return made;
  }
  return false;
}

using Authorizer = int (*)(void*, int, const char*, const char*, const char*, const char*);

Ended LoadAs(sqlite3* db, Authorizer authorizer, Loading& loading, const LoadLimits& limits, const ReadText& read) {
  Ended ended;
  if (!Run(db, "PRAGMA foreign_keys=OFF; PRAGMA ignore_check_constraints=ON;", ended)) return ended;
  int64_t cache = 0;
  {
    Query query(db, "PRAGMA cache_size");
    if (query.Step()) cache = query.Int(0);
    if (!query.ok()) return query.Result("the cache");
  }
  sqlite3_set_authorizer(db, authorizer, &loading);
  const auto run = [&](const std::string& statement) {
    if (!Run(db, statement, ended) && (loading.part || !MakeStatisticsTable(db, ended) || !Run(db, statement, ended))) return false;
    if (!std::exchange(loading.cache_set, false)) return true;
    // It is for whoever opens the database, and may be more than there is memory here.
    sqlite3_set_authorizer(db, nullptr, nullptr);
    const bool kept = Run(db, "PRAGMA cache_size=" + std::to_string(cache) + ";", ended);
    sqlite3_set_authorizer(db, authorizer, &loading);
    return kept;
  };
  StatementSplitter splitter(limits.statement_bytes, run);
  for (;;) {
    std::string_view piece;
    if (!read(piece)) return {End::kFailed, "the text could not be read"};
    if (piece.empty()) break;
    if (splitter.Add(piece)) continue;
    sqlite3_set_authorizer(db, nullptr, nullptr);
    if (splitter.too_long()) return {End::kFailed, "a statement has more than " + std::to_string(limits.statement_bytes) + " bytes"};
    return ended;
  }
  const bool finished = splitter.Finish();
  sqlite3_set_authorizer(db, nullptr, nullptr);
  if (!finished) return ended;
  if (loading.rolled_back) return {End::kDamaged, "the text takes itself back with ROLLBACK, as a dump of a damaged database does"};
  if (sqlite3_get_autocommit(db) == 0) return {End::kDamaged, "the text ends before its COMMIT"};
  Run(db, "PRAGMA writable_schema=OFF;", ended);
  return ended;
}

// Rows without a parent, before a merge and after it. Of a table that is not replaced the rows stay as they are, so it is known which of
// them had none before, and one that is restored does not stand for one that is lost; of the others, and where there is no rowid, how many.
class Orphans {
 public:
  Orphans(sqlite3* db, const Names& tables) : db_(db), tables_(tables) {}
  ~Orphans() {
    if (!known_.empty()) sqlite3_exec(db_, ("DROP TABLE IF EXISTS temp." + known_).c_str(), nullptr, nullptr, nullptr);
  }
  Orphans(const Orphans&) = delete;
  Orphans& operator=(const Orphans&) = delete;

  Ended Before();
  // kBrokenKeys where there are more.
  Ended After();

 private:
  struct Count {
    int64_t rows = 0;  // -1: SQLite cannot tell
    int64_t new_rows = 0;
  };
  // Those that have or are a parent of what is replaced.
  Ended Concerned(std::vector<std::string>& concerned);
  Ended Look(const std::string& table, Query& known, bool after, Count& count);

  sqlite3* const db_;
  const Names& tables_;
  std::string known_;  // a temporary table, which may be on disk: there may be many
  std::map<std::string, int64_t, NoCase> before_;
};

Ended Orphans::Concerned(std::vector<std::string>& concerned) {
  std::vector<std::string> all;
  Query list(db_, "select name from sqlite_schema where type = 'table' and name not like 'sqlite\\_%' escape '\\'");
  while (list.Step()) all.emplace_back(list.Text(0));
  if (!list.ok()) return list.Result("the schema");
  for (const std::string& table : all) {
    bool is = false;
    Query keys(db_, "select \"table\" from pragma_foreign_key_list(" + QuoteText(table) + ")");
    while (keys.Step()) is = is || tables_.contains(table) || tables_.contains(std::string(keys.Text(0)));
    if (!keys.ok()) return keys.Result("the foreign keys of table " + table);
    if (is) concerned.push_back(table);
  }
  return {};
}

// `known`: puts a row there, or looks for it.
Ended Orphans::Look(const std::string& table, Query& known, bool after, Count& count) {
  Query check(db_, "pragma main.foreign_key_check(" + QuoteName(table) + ")");
  while (check.Step()) {
    if (tables_.contains(table) || check.IsNull(1)) {
      ++count.rows;
      continue;
    }
    known.Reset();
    known.Bind(1, table);
    sqlite3_bind_int64(known.get(), 2, check.Int(1));
    sqlite3_bind_int64(known.get(), 3, check.Int(3));
    const bool found = known.Step();
    if (!known.ok()) return known.Result("rows without a parent");
    count.new_rows += after && !found ? 1 : 0;
  }
  if (check.ok()) return {};
  // A key that does not fit its parent; anything else is no answer.
  const Ended ended = check.Result("the foreign keys of table " + table);
  if (ended.end != End::kRefused) return ended;
  count = {.rows = -1, .new_rows = 0};
  return {};
}

Ended Orphans::Before() {
  // A name that means no table of the database nor of the text: temporary ones come first.
  known_ = "litefleet_orphans";
  const auto taken = [&] {
    Query find(db_, "select 1 from sqlite_schema where name = ? collate nocase");
    find.Bind(1, known_);
    return find.Step() || tables_.contains(known_);
  };
  while (taken()) known_ += '_';
  Ended ended;
  if (!Run(db_,
           "CREATE TEMP TABLE " + known_ +
               "(name TEXT COLLATE NOCASE, at INTEGER, key INTEGER, PRIMARY KEY(name, at, key)) WITHOUT ROWID; BEGIN;",
           ended))
    return ended;
  std::vector<std::string> concerned;
  ended = Concerned(concerned);
  {
    Query known(db_, "INSERT OR IGNORE INTO temp." + known_ + " VALUES(?, ?, ?)");
    for (const std::string& table : concerned) {
      Count count;
      if (ended.end == End::kOk) ended = Look(table, known, false, count);
      before_[table] = count.rows;
    }
  }
  if (ended.end == End::kOk) Run(db_, "COMMIT;", ended);
  return ended;
}

Ended Orphans::After() {
  std::vector<std::string> concerned;
  Ended ended = Concerned(concerned);
  Query known(db_, "SELECT 1 FROM temp." + known_ + " WHERE name = ? AND at = ? AND key = ?");
  for (const std::string& table : concerned) {
    Count count;
    if (ended.end == End::kOk) ended = Look(table, known, true, count);
    if (ended.end != End::kOk) return ended;
    const auto had = before_.find(table);
    const int64_t allowed = had == before_.end() ? 0 : had->second;
    // What could not be told before is nobody's loss.
    if (allowed < 0) continue;
    if (count.rows < 0) return {End::kBrokenKeys, "the foreign keys of table " + table + " do not fit the tables that they name"};
    const int64_t lost = count.new_rows + std::max<int64_t>(count.rows - allowed, 0);
    if (lost > 0)
      return {End::kBrokenKeys, std::to_string(lost) + " rows of table " + table + " would have a foreign key without its parent"};
  }
  return ended;
}

// The counters of all tables but these.
Ended OtherCounters(sqlite3* db, const Names& tables, std::map<std::string, int64_t>& counters) {
  Query exists(db, "select 1 from sqlite_schema where name = 'sqlite_sequence'");
  if (!exists.Step()) return exists.Result("the schema");
  Query rows(db, "select name, seq from sqlite_sequence");
  while (rows.Step()) {
    if (const std::string table(rows.Text(0)); !tables.contains(table)) counters[table] = rows.Int(1);
  }
  return rows.Result("sqlite_sequence");
}

struct Statement {
  std::string table, sql;
};
using Schema = std::map<std::string, Statement, NoCase>;  // by type and name

// Of these tables with their indexes and triggers.
Ended SchemaOf(sqlite3* db, const Names& tables, Schema& schema) {
  Query rows(db, "select tbl_name, type || ' ' || name, sql from sqlite_schema where sql not null");
  while (rows.Step()) {
    if (const std::string table(rows.Text(0)); tables.contains(table))
      schema[std::string(rows.Text(1))] = {table, std::string(rows.Text(2))};
  }
  return rows.Result("the schema");
}

// What somebody who expects rows to be replaced would not expect; empty where there is nothing. Of a table that was not there all is new.
std::string Differences(const Schema& before, const Schema& after) {
  std::string other, gone, again;
  const auto add = [](std::string& list, const std::string& name) { list += (list.empty() ? "" : ", ") + name; };
  for (const auto& [name, statement] : before) {
    const auto now = after.find(name);
    if (now != after.end() && now->second.sql == statement.sql) continue;
    add(now == after.end() ? gone : other, name);
  }
  for (const auto& [name, statement] : after) {
    if (!before.contains(name) && before.contains("table " + statement.table)) add(again, name);
  }
  std::string all;
  const auto say = [&](const char* what, const std::string& list) {
    if (!list.empty()) all += (all.empty() ? "" : "; ") + std::string(what) + list;
  };
  say("the snapshot has other definitions, which the database has now: ", other);
  say("the snapshot did not have these, they are gone: ", gone);
  say("the database did not have these any more, they are there again: ", again);
  return all;
}

// Of the virtual tables that the database has: those of the text are whole. `owners`: whose they are.
Ended CheckWholeIn(sqlite3* db, const Names& tables, Names& owners) {
  Shadows shadows;
  const Ended ended = FindShadows(db, shadows);
  if (ended.end != End::kOk) return ended;
  for (const auto& [shadow, owner] : shadows) {
    if (tables.contains(shadow)) owners.insert(owner);
  }
  return CheckWhole(shadows, tables);
}

// Another tokenizer, or other columns, would not find what the tables of the text hold.
Ended CheckOwners(sqlite3* db, const Names& owners, const std::set<std::string>& in_text) {
  for (const std::string& owner : owners) {
    Query find(db, "select sql from sqlite_schema where type = 'table' and name = ? collate nocase");
    find.Bind(1, owner);
    const bool same = find.Step() && in_text.contains(std::string(find.Text(0)));
    if (!find.ok()) return find.Result("the schema");
    if (!same) return {End::kNoPart, "the virtual table " + owner + " has another definition in the snapshot than in the database"};
  }
  return {};
}

Ended CheckEncoding(sqlite3* db, const std::string& needed) {
  if (needed.empty()) return {};
  Query encoding(db, "pragma encoding");
  if (!encoding.Step()) return encoding.Result("the encoding");
  if (encoding.Text(0) == needed) return {};
  return {End::kRefused, "a text in these tables is not Unicode, so that only a database with the encoding " + needed + " can hold it"};
}

Ended DropTables(sqlite3* db, const Names& tables) {
  for (const std::string& table : tables) {
    std::string type, name;
    {
      Query find(db, "select type, name from sqlite_schema where name = ? collate nocase and type in ('table', 'view')");
      find.Bind(1, table);
      if (find.Step()) {
        type = find.Text(0);
        name = find.Text(1);
      }
      if (!find.ok()) return find.Result("the schema");
    }
    if (type.empty()) continue;
    if (type == "view") return {End::kRefused, table + " is a view in the database, and a table in what is restored"};
    Ended ended;
    if (!Run(db, "DROP TABLE " + QuoteName(name) + ";", ended)) return ended;
  }
  return {};
}

}  // namespace

Ended LoadText(sqlite3* db, const LoadLimits& limits, const ReadText& read) {
  Loading loading;
  return LoadAs(db, &Authorize, loading, limits, read);
}

Ended TrySchema(sqlite3* db, const DumpOptions& options, const LoadLimits& limits, sqlite3* empty) {
  DumpOptions schema = options;
  schema.schema_only = true;
  std::string text;
  TextOutput out([&](std::string_view piece) {
    text += piece;
    return text.size() <= kMaxSchema;
  });
  const Ended written = WriteDump(db, schema, out);
  if (written.end != End::kOk) return {End::kFailed, written.message};
  std::string_view rest = text;
  return LoadText(empty, limits, [&](std::string_view& piece) {
    piece = std::exchange(rest, std::string_view());
    return true;
  });
}

Ended MergeText(sqlite3* db, const MergeOptions& options, const LoadLimits& limits, const ReadText& read) {
  Merging merging;
  merging.part = true;
  merging.tables.insert(options.tables.begin(), options.tables.end());
  Orphans orphans(db, merging.tables);
  std::map<std::string, int64_t> counters_before, counters_after;
  Schema schema_before, schema_after;
  Names owners;
  Ended ended;
  if (!options.may_break_keys) ended = orphans.Before();
  if (ended.end == End::kOk) ended = OtherCounters(db, merging.tables, counters_before);
  if (ended.end == End::kOk) ended = CheckWholeIn(db, merging.tables, owners);
  if (ended.end == End::kOk) ended = SchemaOf(db, merging.tables, schema_before);
  if (ended.end == End::kOk && !Run(db, "PRAGMA foreign_keys=OFF;", ended)) return ended;
  if (ended.end == End::kOk) ended = DropTables(db, merging.tables);
  if (ended.end == End::kOk) ended = LoadAs(db, &AuthorizeMerge, merging, limits, read);
  if (ended.end == End::kOk) ended = CheckEncoding(db, merging.encoding);
  if (ended.end == End::kOk) ended = CheckOwners(db, owners, merging.owners);
  if (ended.end == End::kOk) ended = OtherCounters(db, merging.tables, counters_after);
  if (ended.end == End::kOk) ended = SchemaOf(db, merging.tables, schema_after);
  if (ended.end != End::kOk) return ended;
  if (counters_before != counters_after) return {End::kRefused, "the text changes AUTOINCREMENT counters of other tables"};
  if (!options.may_break_keys) ended = orphans.After();
  if (ended.end == End::kOk) ended.message = Differences(schema_before, schema_after);
  return ended;
}

}  // namespace litefleet::dump
