// SQLite's handles with an owner, and its result codes as errors.
//
// Thread safety: as sqlite3's; a connection is used by one thread at a time. Ownership: a statement must go before its connection
// (the connection's close asserts it).
#ifndef LITEFLEET_COMMON_SQLITE_HANDLE_H_
#define LITEFLEET_COMMON_SQLITE_HANDLE_H_

#include <sqlite3.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"

namespace litefleet::sqlite {

struct CloseDatabase {
  void operator()(sqlite3* db) const noexcept;
};
class StatementCache;

// A statement of a cache goes back to it, any other is finalized.
struct ReleaseStatement {
  StatementCache* home = nullptr;
  void operator()(sqlite3_stmt* statement) const noexcept;
};
struct FinishBackup {
  void operator()(sqlite3_backup* backup) const noexcept { sqlite3_backup_finish(backup); }
};
using DatabaseHandle = std::unique_ptr<sqlite3, CloseDatabase>;
using StatementHandle = std::unique_ptr<sqlite3_stmt, ReleaseStatement>;
using BackupHandle = std::unique_ptr<sqlite3_backup, FinishBackup>;

// Reasons by result code: DATABASE_BUSY (kUnavailable), DATABASE_DAMAGED and NOT_A_DATABASE (kDataLoss), DATABASE_NOT_OPENED (kNotFound),
// DISK_FULL (kResourceExhausted), NO_PERMISSION (kPermissionDenied), INTERRUPTED (kCancelled), IO_ERROR, OUT_OF_MEMORY, SQLITE_ERROR.
// `what` says what was done to what; `db` may be null.
absl::Status ToStatus(int rc, sqlite3* db, std::string_view what);

// As sqlite3_open_v2, with extended result codes on.
absl::StatusOr<DatabaseHandle> Open(const std::string& path, int flags, const char* vfs = nullptr);

absl::Status Execute(sqlite3* db, const std::string& sql);

// A connection as those see it who prepare statements on it: with a cache, what they prepare is kept for the next one. A value; converts
// both ways, so that who does not care goes on with a sqlite3*.
class Connection {
 public:
  Connection(sqlite3* db, StatementCache* cache = nullptr) : db_(db), cache_(cache) {}  // NOLINT(google-explicit-constructor)
  operator sqlite3*() const { return db_; }                                             // NOLINT(google-explicit-constructor)
  StatementCache* cache() const { return cache_; }

 private:
  sqlite3* db_;
  StatementCache* cache_;
};

// A prepared statement with typed binds and columns. Not for untrusted result sizes.
//
//   LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select name from device where id = ?"));
//   get.Bind(1, id);
//   LF_ASSIGN_OR_RETURN(const bool found, get.Step());
class Statement {
 public:
  static absl::StatusOr<Statement> Prepare(Connection db, std::string_view sql, bool persistent = false);

  // Positions are 1-based. Text and blobs are copied.
  Statement& Bind(int at, int64_t value);
  Statement& Bind(int at, std::string_view text);
  Statement& BindBlob(int at, ByteView blob);
  Statement& BindNull(int at);

  // True: a row is there. False: done, and the statement is reset.
  absl::StatusOr<bool> Step();
  // For statements without rows: steps to the end and resets.
  absl::Status Run();
  void Reset();

  // Columns are 0-based; views are valid until the next Step or Reset.
  int64_t Int(int column) const;
  std::string_view Text(int column) const;
  ByteView Blob(int column) const;
  bool IsNull(int column) const;

 private:
  explicit Statement(StatementHandle handle) : handle_(std::move(handle)) {}
  StatementHandle handle_;
  int bind_error_ = SQLITE_OK;
};

// Statements of one connection that stay prepared between their uses: preparing one takes longer than most of them run.
//
// For connections that live long and a set of texts that does not grow with the data. Thread safety: as the connection's. Ownership: it
// goes before its connection, and after every Statement that came from it. Memory: at most kMaxKept statements.
class StatementCache {
 public:
  static constexpr size_t kMaxKept = 256;

  StatementCache() = default;
  ~StatementCache();
  StatementCache(const StatementCache&) = delete;
  StatementCache& operator=(const StatementCache&) = delete;

  // An idle one with this text, out of the cache; null where there is none.
  sqlite3_stmt* Take(std::string_view sql);
  void GiveBack(sqlite3_stmt* statement) noexcept;

 private:
  std::map<std::string, std::vector<sqlite3_stmt*>, std::less<>> idle_;
  size_t kept_ = 0;
};

// One row, one integer.
absl::StatusOr<int64_t> QueryInt(Connection db, std::string_view sql);

}  // namespace litefleet::sqlite

#endif  // LITEFLEET_COMMON_SQLITE_HANDLE_H_
