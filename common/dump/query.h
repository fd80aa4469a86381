// A statement that is stepped through; for the helper process: plain C++.
//
// Thread safety: none. Columns are valid until the next Step.
#ifndef LITEFLEET_COMMON_DUMP_QUERY_H_
#define LITEFLEET_COMMON_DUMP_QUERY_H_

#include <sqlite3.h>

#include <string>
#include <string_view>

#include "common/dump/dump_writer.h"

namespace litefleet::dump {

// What an SQLite error means for who reads a database.
Ended EndOf(sqlite3* db, int code, std::string_view what);

class Query {
 public:
  Query(sqlite3* db, const std::string& sql)
      : db_(db), code_(sqlite3_prepare_v2(db, sql.c_str(), static_cast<int>(sql.size()), &statement_, nullptr)) {}
  ~Query() { sqlite3_finalize(statement_); }
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;

  void Bind(int number, const std::string& text) {
    if (code_ == SQLITE_OK) sqlite3_bind_text(statement_, number, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT);
  }
  // To be bound and stepped through once more; what failed stays so.
  void Reset() {
    if (!ok()) return;
    sqlite3_reset(statement_);
    code_ = SQLITE_OK;
  }
  // False at the end, and at an error.
  bool Step() {
    if (code_ != SQLITE_OK && code_ != SQLITE_ROW) return false;
    code_ = sqlite3_step(statement_);
    return code_ == SQLITE_ROW;
  }
  bool ok() const { return code_ == SQLITE_OK || code_ == SQLITE_ROW || code_ == SQLITE_DONE; }
  Ended Result(std::string_view what) const { return ok() ? Ended{} : EndOf(db_, code_, what); }

  sqlite3_stmt* get() { return statement_; }
  sqlite3_int64 Int(int column) { return sqlite3_column_int64(statement_, column); }
  // Of a text or a blob; NULL is empty.
  std::string_view Text(int column) {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return text == nullptr ? std::string_view() : std::string_view(text, static_cast<size_t>(sqlite3_column_bytes(statement_, column)));
  }
  bool IsNull(int column) { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }

 private:
  sqlite3* const db_;
  sqlite3_stmt* statement_ = nullptr;
  int code_;
};

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_QUERY_H_
