#include "common/dump/dump_writer.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <set>
#include <utility>

#include "common/dump/check_clauses.h"
#include "common/dump/names.h"
#include "common/dump/query.h"
#include "common/dump/shadows.h"
#include "common/dump/sql_values.h"

namespace litefleet::dump {
namespace {

bool IsVirtual(std::string_view sql) { return sql.substr(0, 20) == "CREATE VIRTUAL TABLE"; }

constexpr size_t kNamesTold = 5;
constexpr size_t kLongestTold = 60;  // a line of the helper's answer has an end

constexpr std::string_view kUserTables =
    "select name, type from pragma_table_list where schema = 'main' and type in ('table', 'view', 'virtual') and name not like "
    "'sqlite\\_%' escape '\\' order by name";

// With some of those that there are.
Ended NoTable(sqlite3* db, const std::string& name) {
  std::string told;
  size_t count = 0;
  size_t more = 0;
  Query query(db, std::string(kUserTables));
  while (query.Step()) {
    const std::string_view each = query.Text(0);
    if (count == kNamesTold || each.size() > kLongestTold) {
      ++more;
    } else {
      told += (count++ == 0 ? "" : ", ") + std::string(each);
    }
  }
  if (more > 0) told += (count == 0 ? "" : " and ") + std::to_string(more) + (count == 0 ? "" : " more");
  return {End::kNoTable, "there is no table " + name + (told.empty() ? ", and no other" : "; there are " + told)};
}

class Dumper {
 public:
  // `part`: to be loaded into another database.
  Dumper(sqlite3* db, const DumpOptions& options, bool part, TextOutput& out)
      : db_(db), options_(options), part_(part), lossless_(!options.compatible), out_(out), floats_(db) {}

  Ended Run();

 private:
  struct Table {
    std::string name;
    std::string sql;
  };
  struct Columns {
    std::vector<std::string> names;  // that are stored, in order
    std::string rowid;               // a name of it, where it is to be kept
  };

  bool Settings();
  bool ReadSchema();
  void PutOwners();
  bool Wants(const std::string& table) const;
  // Everything but rows that stands before them.
  bool PutTable(const Table& table);
  bool ReadColumns(const std::string& table, Columns& columns);
  // A name of the rowid, where the table has one that is no column.
  bool FindRowid(const std::string& table, const Names& all, int key_columns, bool integer_key, std::string& rowid);
  void PutStatisticsTable(std::string sql);
  bool PutRows(const Table& table);
  // Some row breaks a CHECK of its table, which only who ignores them loads.
  bool BreaksAnyCheck(const Table& table);
  void PutRow(Query& row, int first, int count);
  void PutUtf16(sqlite3_stmt* row, int column);
  bool PutOthers();
  void PutSchema(std::string sql);
  void PutSequenceTable();
  bool PutCounters();
  bool IsAutoincrement(const std::string& table) const;
  int64_t Pragma(const char* name);
  // Keeps the first error.
  bool Check(const Query& query, std::string_view what) {
    if (out_.failed() && ended_.end == End::kOk) ended_ = {End::kFailed, "nobody reads the dump any more"};
    if (ended_.end == End::kOk) ended_ = query.Result(what);
    return ended_.end == End::kOk;
  }

  sqlite3* const db_;
  const DumpOptions& options_;
  const bool part_;
  const bool lossless_;
  TextOutput& out_;
  FloatText floats_;
  Ended ended_;
  std::vector<Table> tables_;
  Names wanted_, left_out_, views_;
  Shadows shadows_;
  std::string encoding_;
  bool utf16_ = false;
  bool big_endian_ = false;
  bool needs_encoding_ = false;  // some text is other text in another encoding
  bool writable_schema_ = false;
};

int64_t Dumper::Pragma(const char* name) {
  Query query(db_, std::string("pragma ") + name);
  const int64_t value = query.Step() ? query.Int(0) : 0;
  Check(query, name);
  return value;
}

bool Dumper::Settings() {
  {
    Query encoding(db_, "pragma encoding");
    encoding_ = encoding.Step() ? std::string(encoding.Text(0)) : "";
    if (!Check(encoding, "the encoding")) return false;
    utf16_ = encoding_ != "UTF-8";
    big_endian_ = encoding_ == "UTF-16be";
    if (options_.data_only) return true;
    if (!part_) out_.Put("PRAGMA foreign_keys=OFF;\n");
    if (lossless_ && utf16_ && !part_) out_.Put("PRAGMA encoding='" + encoding_ + "';\n");
  }
  if (lossless_ && !part_) {
    if (const int64_t size = Pragma("page_size"); size != 4096) out_.Put("PRAGMA page_size=" + std::to_string(size) + ";\n");
    if (const int64_t mode = Pragma("auto_vacuum"); mode != 0) out_.Put("PRAGMA auto_vacuum=" + std::to_string(mode) + ";\n");
    if (const int64_t id = Pragma("application_id"); id != 0) out_.Put("PRAGMA application_id=" + std::to_string(id) + ";\n");
    if (const int64_t version = Pragma("user_version"); version != 0) out_.Put("PRAGMA user_version=" + std::to_string(version) + ";\n");
    // Where the header has none, SQLite tells its own, which is negative.
    if (const int64_t pages = Pragma("default_cache_size"); pages > 0)
      out_.Put("PRAGMA default_cache_size=" + std::to_string(pages) + ";\n");
  }
  out_.Put("BEGIN TRANSACTION;\n");
  return ended_.end == End::kOk;
}

bool Dumper::ReadSchema() {
  wanted_.insert(options_.tables.begin(), options_.tables.end());
  left_out_.insert(options_.without.begin(), options_.without.end());
  Names known;
  {
    Query query(db_,
                "select name, sql from sqlite_schema where type = 'table' and sql not null order by tbl_name = 'sqlite_sequence', rowid");
    while (query.Step()) {
      if (query.IsNull(0)) continue;
      Table table{.name = std::string(query.Text(0)), .sql = std::string(query.Text(1))};
      known.insert(table.name);
      tables_.push_back(std::move(table));
    }
    if (!Check(query, "the schema")) return false;
  }
  if (!wanted_.empty() || !left_out_.empty()) ended_ = FindShadows(db_, shadows_);
  if (ended_.end != End::kOk) return false;
  Query views(db_, "select name from sqlite_schema where type = 'view'");
  while (views.Step()) {
    known.insert(std::string(views.Text(0)));
    views_.insert(std::string(views.Text(0)));
  }
  if (!Check(views, "the schema")) return false;
  for (const Names* names : {&wanted_, &left_out_}) {
    for (const std::string& name : *names) {
      if (known.contains(name)) continue;
      ended_ = NoTable(db_, name);
      return false;
    }
  }
  for (const std::string& name : wanted_) {
    if (!part_ || !views_.contains(name)) continue;
    ended_ = {End::kNoPart, name + " is a view: it has no rows of its own"};
    return false;
  }
  if (part_) ended_ = CheckWhole(shadows_, wanted_);
  return ended_.end == End::kOk;
}

// Of the tables that it wants: only whoever merges them looks whether the database has the same.
void Dumper::PutOwners() {
  Names owners;
  for (const auto& [shadow, owner] : shadows_) {
    if (wanted_.contains(shadow)) owners.insert(owner);
  }
  for (const Table& table : tables_) {
    if (IsVirtual(table.sql) && owners.contains(table.name))
      out_.Put("PRAGMA " + std::string(kOwnerPragma) + "=" + QuoteText(table.sql) + ";\n");
  }
}

bool Dumper::Wants(const std::string& table) const {
  if (wanted_.empty() && left_out_.empty()) return true;
  const auto in = [&](const Names& names) {
    if (names.contains(table)) return true;
    const auto shadow = shadows_.find(table);
    return shadow != shadows_.end() && names.contains(shadow->second);
  };
  return (wanted_.empty() || in(wanted_)) && !in(left_out_);
}

// As it is in the schema, ended even where it ends in a comment.
void Dumper::PutSchema(std::string sql) {
  if (sql.find("/*") != std::string::npos || sql.find("--") != std::string::npos) {
    for (const char* end : {"", "*/", "\n"}) {
      if (sqlite3_complete((sql + end + ";").c_str()) == 0) continue;
      sql += end;
      break;
    }
  }
  constexpr std::string_view kCreate = "CREATE TABLE ";
  if (sql.starts_with(kCreate) && sql.size() > kCreate.size() && (sql[kCreate.size()] == '\'' || sql[kCreate.size()] == '"'))
    sql.insert(kCreate.size(), "IF NOT EXISTS ");
  out_.Put(sql);
  out_.Put(";\n");
}

bool Dumper::IsAutoincrement(const std::string& table) const {
  Query columns(db_, "select name from pragma_table_info(" + QuoteText(table) + ") where pk > 0");
  while (columns.Step()) {
    int automatic = 0;
    const std::string column(columns.Text(0));
    if (sqlite3_table_column_metadata(db_, "main", table.c_str(), column.c_str(), nullptr, nullptr, nullptr, nullptr, &automatic) ==
            SQLITE_OK &&
        automatic != 0)
      return true;
  }
  return false;
}

// sqlite_sequence comes with a table that has an AUTOINCREMENT. Where none is left, one is made and dropped.
void Dumper::PutSequenceTable() {
  const auto makes_it = [&](const Table& table) { return Wants(table.name) && !IsVirtual(table.sql) && IsAutoincrement(table.name); };
  if (std::any_of(tables_.begin(), tables_.end(), makes_it)) return;
  std::string name = "litefleet_sequence";
  const auto taken = [&] { return std::any_of(tables_.begin(), tables_.end(), [&](const Table& table) { return table.name == name; }); };
  while (taken()) name += '_';
  out_.Put("CREATE TABLE " + name + "(id INTEGER PRIMARY KEY AUTOINCREMENT);\nDROP TABLE " + name + ";\n");
}

bool Dumper::PutTable(const Table& table) {
  const bool data_only = options_.data_only;
  if (table.name == "sqlite_sequence") {
    if (options_.schema_only) return true;
    // The rows before have made counters in the schema that they go into.
    if (part_ || (data_only && lossless_)) return PutCounters();
    if (!data_only && lossless_) PutSequenceTable();
    if (!data_only) out_.Put("DELETE FROM sqlite_sequence;\n");
  } else if (sqlite3_strglob("sqlite_stat?", table.name.c_str()) == 0) {
    if (options_.schema_only || part_) return true;
    if (lossless_ && table.name != "sqlite_stat1") {
      PutStatisticsTable(table.sql);
    } else if (!data_only || lossless_) {
      out_.Put("ANALYZE sqlite_schema;\n");
    }
  } else if (table.name.starts_with("sqlite_")) {
    return true;
  } else if (data_only) {
    // A virtual table's rows are in its shadow tables.
    if (lossless_ && IsVirtual(table.sql)) return true;
  } else if (IsVirtual(table.sql) && part_) {
    ended_ = {End::kNoPart, "table " + table.name + " is virtual: its rows are in other tables, which only its module may write"};
    return false;
  } else if (IsVirtual(table.sql)) {
    if (!std::exchange(writable_schema_, true)) out_.Put("PRAGMA writable_schema=ON;\n");
    // %q: quotes doubled, without quotes around.
    const std::string name = QuoteText(table.name), sql = QuoteText(table.sql);
    out_.Put("INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table'," + name + "," + name + ",0," + sql + ");\n");
    return true;
  } else {
    PutSchema(table.sql);
  }
  if (options_.schema_only) return true;
  const bool ignores = lossless_ && !part_ && BreaksAnyCheck(table);
  if (ignores) out_.Put("PRAGMA ignore_check_constraints=ON;\n");
  if (ended_.end != End::kOk || !PutRows(table)) return false;
  if (ignores) out_.Put("PRAGMA ignore_check_constraints=OFF;\n");
  return true;
}

// By itself ANALYZE makes it in an SQLite with the same options alone; where that has made it, it stays.
void Dumper::PutStatisticsTable(std::string sql) {
  constexpr std::string_view kCreate = "CREATE TABLE ";
  if (sql.starts_with(kCreate)) sql.insert(kCreate.size(), "IF NOT EXISTS ");
  if (!writable_schema_) out_.Put("PRAGMA writable_schema=ON;\n");
  PutSchema(std::move(sql));
  if (!writable_schema_) out_.Put("PRAGMA writable_schema=OFF;\n");
}

// The rows are read once more for this, but only as far as the constraints look at them.
bool Dumper::BreaksAnyCheck(const Table& table) {
  if (table.name.starts_with("sqlite_") || IsVirtual(table.sql)) return false;
  const std::string broken = BrokenChecks(table.sql);
  if (broken.empty()) return false;
  Query find(db_, "SELECT 1 FROM " + QuoteName(table.name) + " WHERE " + broken + " LIMIT 1");
  // With a function of the application in a constraint, nobody else makes the table.
  if (!find.ok()) return false;
  if (find.Step()) return true;
  // What cannot be worked out is an error for whoever inserts the row, too.
  if (find.Result("").end == End::kRefused) return true;
  Check(find, "table " + table.name);
  return false;
}

// Those of the wanted tables that keep one, whatever the rows have made of it.
bool Dumper::PutCounters() {
  Query rows(db_, "select name, seq from sqlite_sequence");
  while (rows.Step()) {
    const std::string table(rows.Text(0));
    if (!Wants(table) || !IsAutoincrement(table)) continue;
    out_.Put("DELETE FROM sqlite_sequence WHERE name=" + QuoteText(table) + ";\nINSERT INTO sqlite_sequence VALUES(");
    PutRow(rows, 0, 2);
  }
  return Check(rows, "sqlite_sequence");
}

bool Dumper::FindRowid(const std::string& table, const Names& all, int key_columns, bool integer_key, std::string& rowid) {
  Query kind(db_, "select wr, type from pragma_table_list(" + QuoteText(table) + ") where schema = 'main'");
  const bool has_rowid = kind.Step() && kind.Int(0) == 0 && kind.Text(1) != "virtual" && kind.Text(1) != "view";
  if (!Check(kind, table)) return false;
  if (!has_rowid) return true;
  if (key_columns == 1 && integer_key) {
    // INTEGER PRIMARY KEY is the rowid, unless it has an index of its own (DESC).
    Query index(db_, "select 1 from pragma_index_list(" + QuoteText(table) + ") where origin = 'pk'");
    const bool own_index = index.Step();
    if (!Check(index, table)) return false;
    if (!own_index) return true;
  }
  for (const char* name : {"rowid", "_rowid_", "oid"}) {
    if (all.contains(name)) continue;
    rowid = name;
    return true;
  }
  return true;
}

bool Dumper::ReadColumns(const std::string& table, Columns& columns) {
  Names all;
  int key_columns = 0;
  bool integer_key = false;
  Query query(db_, "select name, type, pk, hidden from pragma_table_xinfo(" + QuoteText(table) + ")");
  while (query.Step()) {
    const std::string name(query.Text(0));
    all.insert(name);
    if (query.Int(3) != 0) continue;
    columns.names.push_back(name);
    if (query.Int(2) == 0) continue;
    ++key_columns;
    integer_key = sqlite3_stricmp(std::string(query.Text(1)).c_str(), "INTEGER") == 0;
  }
  if (!Check(query, table)) return false;
  if (columns.names.empty()) {
    ended_ = {End::kDamaged, "table " + table + " has no columns"};
    return false;
  }
  const bool keeps_rowid = lossless_ && !table.starts_with("sqlite_");
  return !keeps_rowid || FindRowid(table, all, key_columns, integer_key, columns.rowid);
}

bool Dumper::PutRows(const Table& table) {
  Columns columns;
  if (!ReadColumns(table.name, columns)) return false;
  const std::string name = QuoteName(table.name);
  std::string list;
  for (const std::string& column : columns.names) list += (list.empty() ? "" : ",") + QuoteName(column);
  const bool rowids = !columns.rowid.empty();
  const std::string insert = "INSERT INTO " + name + " VALUES(";
  const std::string insert_at = "INSERT INTO " + name + "(" + columns.rowid + "," + list + ") VALUES(";
  // With rowids in their order; without, in the order that SQLite prefers, as the CLI.
  Query rows(db_, "SELECT " + (rowids ? columns.rowid + "," : std::string()) + list + " FROM " + name + (rowids ? " NOT INDEXED" : ""));
  const bool sequence = table.name == "sqlite_sequence";
  const bool statistics = !sequence && table.name.starts_with("sqlite_stat");
  std::optional<int64_t> next = 1;  // rowid that SQLite would give by itself
  while (rows.Step()) {
    if (out_.failed()) break;
    if ((sequence || statistics) && !Wants(std::string(rows.Text(0)))) continue;
    if (!rowids) {
      out_.Put(insert);
      PutRow(rows, 0, static_cast<int>(columns.names.size()));
      continue;
    }
    const int64_t rowid = rows.Int(0);
    if (rowid == next) {
      out_.Put(insert);
    } else {
      out_.Put(insert_at);
      out_.Put(std::to_string(rowid));
      out_.Put(',');
    }
    next = rowid == INT64_MAX ? std::nullopt : std::optional(rowid + 1);
    PutRow(rows, 1, static_cast<int>(columns.names.size()));
  }
  return Check(rows, "table " + table.name);
}

void Dumper::PutUtf16(sqlite3_stmt* row, int column) {
  const auto* text = static_cast<const char16_t*>(sqlite3_column_text16(row, column));
  const size_t units = static_cast<size_t>(sqlite3_column_bytes16(row, column)) / 2;
  if (text == nullptr || !HasLoneSurrogate(text, units)) {
    const auto* utf8 = reinterpret_cast<const char*>(sqlite3_column_text(row, column));
    PutText(utf8 == nullptr ? std::string_view() : std::string_view(utf8, static_cast<size_t>(sqlite3_column_bytes(row, column))), true,
            out_);
    return;
  }
  // The bytes as they are in a database of this encoding.
  needs_encoding_ = true;
  std::string bytes;
  bytes.reserve(units * 2);
  for (size_t i = 0; i < units; ++i) {
    const char low = static_cast<char>(text[i] & 0xff), high = static_cast<char>(text[i] >> 8);
    bytes += big_endian_ ? high : low;
    bytes += big_endian_ ? low : high;
  }
  out_.Put("CAST(");
  PutBlob(bytes, out_);
  out_.Put(" AS TEXT)");
}

void Dumper::PutRow(Query& row, int first, int count) {
  for (int i = 0; i < count; ++i) {
    if (i > 0) out_.Put(',');
    const int column = first + i;
    switch (sqlite3_column_type(row.get(), column)) {
      case SQLITE_NULL:
        out_.Put("NULL");
        break;
      case SQLITE_INTEGER:
        out_.Put(std::to_string(row.Int(column)));
        break;
      case SQLITE_FLOAT:
        out_.Put(floats_.Of(sqlite3_column_double(row.get(), column), lossless_));
        break;
      case SQLITE_BLOB: {
        const auto* blob = static_cast<const char*>(sqlite3_column_blob(row.get(), column));
        PutBlob(std::string_view(blob == nullptr ? "" : blob, static_cast<size_t>(sqlite3_column_bytes(row.get(), column))), out_);
        break;
      }
      default:
        if (utf16_ && lossless_) {
          PutUtf16(row.get(), column);
        } else {
          needs_encoding_ = needs_encoding_ || (part_ && IsLostInUtf16(row.Text(column)));
          PutText(row.Text(column), lossless_, out_);
        }
    }
  }
  out_.Put(");\n");
}

bool Dumper::PutOthers() {
  Query query(db_, "select sql, tbl_name from sqlite_schema where sql not null and type in ('index', 'trigger', 'view')");
  while (query.Step()) {
    if (Wants(std::string(query.Text(1)))) PutSchema(std::string(query.Text(0)));
  }
  return Check(query, "the schema");
}

Ended Dumper::Run() {
  if (!Settings() || !ReadSchema()) return ended_;
  if (part_) PutOwners();
  for (const Table& table : tables_) {
    const bool own = table.name.starts_with("sqlite_");
    if (!own && !Wants(table.name)) continue;
    if (!PutTable(table)) return ended_;
  }
  if (!options_.data_only) {
    if (!PutOthers()) return ended_;
    if (writable_schema_) out_.Put("PRAGMA writable_schema=OFF;\n");
    // Behind the rows: only then it is known, and only whoever merges them looks.
    if (part_ && needs_encoding_) out_.Put("PRAGMA encoding='" + encoding_ + "';\n");
    out_.Put("COMMIT;\n");
  }
  out_.Flush();
  if (out_.failed()) ended_ = {End::kFailed, "nobody reads the dump any more"};
  return ended_;
}

}  // namespace

Ended EndOf(sqlite3* db, int code, std::string_view what) {
  Ended ended;
  ended.message = std::string(what) + ": " + (db == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(db));
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
      ended.end = End::kDamaged;
      break;
    case SQLITE_ERROR:
    case SQLITE_AUTH:
      ended.end = End::kRefused;
      break;
    case SQLITE_NOMEM:
    case SQLITE_TOOBIG:
      ended.end = End::kFailed;
      ended.message += " (a row needs more memory than the helper process may have)";
      break;
    default:
      ended.end = End::kFailed;
  }
  return ended;
}

Ended WriteDump(sqlite3* db, const DumpOptions& options, TextOutput& out) { return Dumper(db, options, false, out).Run(); }

Ended WritePart(sqlite3* db, const std::vector<std::string>& tables, TextOutput& out) {
  if (tables.empty()) return {End::kRefused, "no table is named"};
  return Dumper(db, {.tables = tables}, true, out).Run();
}

Ended WriteTableNames(sqlite3* db, TextOutput& out) {
  Query query(db, std::string(kUserTables));
  while (query.Step()) {
    const std::string_view type = query.Text(1);
    out.Put(type == "table" ? 't' : type == "view" ? 'v' : 'x');
    out.Put(query.Text(0));
    out.Put('\0');
  }
  out.Flush();
  return query.Result("the schema");
}

Ended WriteCsv(sqlite3* db, const std::string& table, TextOutput& out) {
  FloatText floats(db);
  const auto put = [&out](std::string_view field) {
    if (!field.empty() && field.find_first_of(std::string_view("\",\r\n\0", 5)) == std::string_view::npos && field.front() != ' ' &&
        field.back() != ' ')
      return out.Put(field);
    // An empty text is not NULL.
    out.Put('"');
    for (size_t at = 0; at < field.size();) {
      const size_t quote = std::min(field.find('"', at), field.size());
      out.Put(field.substr(at, quote - at));
      if (quote < field.size()) out.Put("\"\"");
      at = quote + 1;
    }
    out.Put('"');
  };
  {
    Query find(db, "select 1 from sqlite_schema where name = ? collate nocase and type in ('table', 'view')");
    find.Bind(1, table);
    if (!find.Step()) return find.ok() ? NoTable(db, table) : find.Result("the schema");
  }
  Query rows(
      db, "SELECT * FROM \"" + [&] {
        std::string doubled;
        for (const char c : table) doubled += c == '"' ? std::string("\"\"") : std::string(1, c);
        return doubled;
      }() + "\"");
  if (!rows.ok()) return rows.Result("table " + table);
  const int count = sqlite3_column_count(rows.get());
  for (int i = 0; i < count; ++i) {
    if (i > 0) out.Put(',');
    put(sqlite3_column_name(rows.get(), i));
  }
  out.Put("\r\n");
  while (rows.Step() && !out.failed()) {
    for (int i = 0; i < count; ++i) {
      if (i > 0) out.Put(',');
      const int type = sqlite3_column_type(rows.get(), i);
      if (type == SQLITE_FLOAT) out.Put(floats.Of(sqlite3_column_double(rows.get(), i), false));
      if (type == SQLITE_INTEGER) out.Put(std::to_string(rows.Int(i)));
      if (type == SQLITE_TEXT) put(rows.Text(i));
      if (type != SQLITE_BLOB) continue;
      const auto* blob = static_cast<const unsigned char*>(sqlite3_column_blob(rows.get(), i));
      constexpr char kDigits[] = "0123456789abcdef";
      for (int at = 0; at < sqlite3_column_bytes(rows.get(), i); ++at) {
        out.Put(kDigits[blob[at] >> 4]);
        out.Put(kDigits[blob[at] & 15]);
      }
    }
    out.Put("\r\n");
  }
  out.Flush();
  if (out.failed()) return {End::kFailed, "nobody reads the table any more"};
  return rows.Result("table " + table);
}

}  // namespace litefleet::dump
