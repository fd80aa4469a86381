#include "common/sqlite/handle.h"

#include <cassert>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::sqlite {

void CloseDatabase::operator()(sqlite3* db) const noexcept {
  const int rc = sqlite3_close(db);
  assert(rc == SQLITE_OK && "a statement or backup outlived its connection");
  static_cast<void>(rc);
}

void ReleaseStatement::operator()(sqlite3_stmt* statement) const noexcept {
  if (home != nullptr) {
    home->GiveBack(statement);
  } else {
    sqlite3_finalize(statement);
  }
}

StatementCache::~StatementCache() {
  for (const auto& [sql, statements] : idle_) {
    for (sqlite3_stmt* statement : statements) sqlite3_finalize(statement);
  }
}

sqlite3_stmt* StatementCache::Take(std::string_view sql) {
  const auto it = idle_.find(sql);
  if (it == idle_.end() || it->second.empty()) return nullptr;
  sqlite3_stmt* statement = it->second.back();
  it->second.pop_back();
  --kept_;
  return statement;
}

void StatementCache::GiveBack(sqlite3_stmt* statement) noexcept {
  // What it said went to whoever stepped it.
  sqlite3_reset(statement);
  sqlite3_clear_bindings(statement);
  const auto it = idle_.find(std::string_view(sqlite3_sql(statement)));
  if (kept_ >= kMaxKept) {
    if (it != idle_.end() && it->second.empty()) idle_.erase(it);
    sqlite3_finalize(statement);
    return;
  }
  if (it != idle_.end()) {
    it->second.push_back(statement);
  } else {
    idle_[sqlite3_sql(statement)].push_back(statement);
  }
  ++kept_;
}

absl::Status ToStatus(int rc, sqlite3* db, std::string_view what) {
  const int primary = rc & 0xff;
  if (primary == SQLITE_OK || primary == SQLITE_ROW || primary == SQLITE_DONE) return absl::OkStatus();
  const std::string message = fmt::format("{}: {} (sqlite {})", what, db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(rc), rc);
  using Code = absl::StatusCode;
  switch (primary) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
      return Error(Code::kUnavailable, "DATABASE_BUSY", message, "another process holds its lock; try again later");
    case SQLITE_CORRUPT:
      return Error(Code::kDataLoss, "DATABASE_DAMAGED", message, "restore it from a snapshot that was proven");
    case SQLITE_NOTADB:
      return Error(Code::kDataLoss, "NOT_A_DATABASE", message, "it is encrypted, or no SQLite database: check the path");
    case SQLITE_CANTOPEN:
      return Error(Code::kNotFound, "DATABASE_NOT_OPENED", message, "check that the file exists and may be read");
    case SQLITE_FULL:
      return Error(Code::kResourceExhausted, "DISK_FULL", message, "free some space there and try again");
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY:
      return Error(Code::kPermissionDenied, "NO_PERMISSION", message, "run as the owner of the database or as root");
    case SQLITE_INTERRUPT:
    case SQLITE_ABORT:
      return Error(Code::kCancelled, "INTERRUPTED", message);
    case SQLITE_IOERR:
      return Error(Code::kInternal, "IO_ERROR", message, "look at the storage of that machine");
    case SQLITE_NOMEM:
      return Error(Code::kResourceExhausted, "OUT_OF_MEMORY", message);
    default:
      return Error(Code::kInternal, "SQLITE_ERROR", message);
  }
}

absl::StatusOr<DatabaseHandle> Open(const std::string& path, int flags, const char* vfs) {
  sqlite3* raw = nullptr;
  const int rc = sqlite3_open_v2(path.c_str(), &raw, flags, vfs);
  DatabaseHandle db(raw);  // a handle is usually returned even on failure
  if (rc != SQLITE_OK) return ToStatus(rc, db.get(), "open " + path);
  sqlite3_extended_result_codes(db.get(), 1);
  return db;
}

absl::Status Execute(sqlite3* db, const std::string& sql) {
  return ToStatus(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr), db, sql.substr(0, 80));
}

absl::StatusOr<Statement> Statement::Prepare(Connection db, std::string_view sql, bool persistent) {
  const ReleaseStatement release{db.cache()};
  if (db.cache() != nullptr) {
    if (sqlite3_stmt* kept = db.cache()->Take(sql); kept != nullptr) return Statement(StatementHandle(kept, release));
    persistent = true;
  }
  sqlite3_stmt* raw = nullptr;
  const int rc =
      sqlite3_prepare_v3(db, sql.data(), static_cast<int>(sql.size()), persistent ? SQLITE_PREPARE_PERSISTENT : 0, &raw, nullptr);
  if (rc != SQLITE_OK) return ToStatus(rc, db, sql.substr(0, 80));
  return Statement(StatementHandle(raw, release));
}

Statement& Statement::Bind(int at, int64_t value) {
  if (const int rc = sqlite3_bind_int64(handle_.get(), at, value); rc != SQLITE_OK) bind_error_ = rc;
  return *this;
}
Statement& Statement::Bind(int at, std::string_view text) {
  const int rc =
      sqlite3_bind_text64(handle_.get(), at, text.data() == nullptr ? "" : text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  if (rc != SQLITE_OK) bind_error_ = rc;
  return *this;
}
Statement& Statement::BindBlob(int at, ByteView blob) {
  const int rc = sqlite3_bind_blob64(handle_.get(), at, blob.data() == nullptr ? static_cast<const void*>("") : blob.data(), blob.size(),
                                     SQLITE_TRANSIENT);
  if (rc != SQLITE_OK) bind_error_ = rc;
  return *this;
}
Statement& Statement::BindNull(int at) {
  if (const int rc = sqlite3_bind_null(handle_.get(), at); rc != SQLITE_OK) bind_error_ = rc;
  return *this;
}

absl::StatusOr<bool> Statement::Step() {
  sqlite3* db = sqlite3_db_handle(handle_.get());
  if (bind_error_ != SQLITE_OK) return ToStatus(bind_error_, db, "bind");
  const int rc = sqlite3_step(handle_.get());
  if (rc == SQLITE_ROW) return true;
  const absl::Status status = ToStatus(rc, db, std::string_view(sqlite3_sql(handle_.get())).substr(0, 80));
  Reset();
  if (!status.ok()) return status;
  return false;
}

absl::Status Statement::Run() {
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, Step());
    if (!row) return absl::OkStatus();
  }
}

void Statement::Reset() { sqlite3_reset(handle_.get()); }

int64_t Statement::Int(int column) const { return sqlite3_column_int64(handle_.get(), column); }
std::string_view Statement::Text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(handle_.get(), column));
  return {text == nullptr ? "" : text, static_cast<size_t>(sqlite3_column_bytes(handle_.get(), column))};
}
ByteView Statement::Blob(int column) const {
  const auto* blob = static_cast<const std::byte*>(sqlite3_column_blob(handle_.get(), column));
  return {blob, static_cast<size_t>(sqlite3_column_bytes(handle_.get(), column))};
}
bool Statement::IsNull(int column) const { return sqlite3_column_type(handle_.get(), column) == SQLITE_NULL; }

absl::StatusOr<int64_t> QueryInt(Connection db, std::string_view sql) {
  LF_ASSIGN_OR_RETURN(Statement statement, Statement::Prepare(db, sql));
  LF_ASSIGN_OR_RETURN(const bool row, statement.Step());
  if (!row) return Error(absl::StatusCode::kNotFound, "NO_ROW", fmt::format("{}: no row", sql));
  return statement.Int(0);
}

}  // namespace litefleet::sqlite
