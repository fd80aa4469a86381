#include "common/dump/loader.h"

#include <sqlite3.h>

#include <algorithm>
#include <array>

#include "common/dump/query.h"
#include "common/dump/statement_splitter.h"

namespace litefleet::dump {
namespace {

// That say something of the database, and not of the connection. Others are passed over, as by a program that does not know them.
constexpr std::array<const char*, 7> kPragmas = {"application_id", "auto_vacuum",     "encoding",          "page_size",
                                                 "user_version",   "writable_schema", "legacy_alter_table"};

struct Loading {
  bool rolled_back = false;
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
      return first != nullptr && std::any_of(kPragmas.begin(), kPragmas.end(), known) ? SQLITE_OK : SQLITE_IGNORE;
    }
    default:
      return SQLITE_OK;
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

}  // namespace

Ended LoadText(sqlite3* db, const LoadLimits& limits, const ReadText& read) {
  Ended ended;
  Loading loading;
  if (!Run(db, "PRAGMA foreign_keys=OFF; PRAGMA ignore_check_constraints=ON;", ended)) return ended;
  sqlite3_set_authorizer(db, &Authorize, &loading);
  StatementSplitter splitter(limits.statement_bytes, [&](const std::string& statement) { return Run(db, statement, ended); });
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

}  // namespace litefleet::dump
