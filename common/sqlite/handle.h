// SQLite's handles with an owner, and its result codes as errors.
//
// Thread safety: as sqlite3's; a connection is used by one thread at a time. Ownership: a statement must go before its connection
// (the connection's close asserts it).
#ifndef LITEFLEET_COMMON_SQLITE_HANDLE_H_
#define LITEFLEET_COMMON_SQLITE_HANDLE_H_

#include <sqlite3.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"

namespace litefleet::sqlite {

struct CloseDatabase {
  void operator()(sqlite3* db) const noexcept;
};
struct FinalizeStatement {
  void operator()(sqlite3_stmt* statement) const noexcept { sqlite3_finalize(statement); }
};
struct FinishBackup {
  void operator()(sqlite3_backup* backup) const noexcept { sqlite3_backup_finish(backup); }
};
using DatabaseHandle = std::unique_ptr<sqlite3, CloseDatabase>;
using StatementHandle = std::unique_ptr<sqlite3_stmt, FinalizeStatement>;
using BackupHandle = std::unique_ptr<sqlite3_backup, FinishBackup>;

// Reasons by result code: DATABASE_BUSY (kUnavailable), DATABASE_DAMAGED and NOT_A_DATABASE (kDataLoss), DATABASE_NOT_OPENED (kNotFound),
// DISK_FULL (kResourceExhausted), NO_PERMISSION (kPermissionDenied), INTERRUPTED (kCancelled), IO_ERROR, OUT_OF_MEMORY, SQLITE_ERROR.
// `what` says what was done to what; `db` may be null.
absl::Status ToStatus(int rc, sqlite3* db, std::string_view what);

// As sqlite3_open_v2, with extended result codes on.
absl::StatusOr<DatabaseHandle> Open(const std::string& path, int flags, const char* vfs = nullptr);

absl::Status Execute(sqlite3* db, const std::string& sql);

// A prepared statement with typed binds and columns. Not for untrusted result sizes.
//
//   LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select name from device where id = ?"));
//   get.Bind(1, id);
//   LF_ASSIGN_OR_RETURN(const bool found, get.Step());
class Statement {
 public:
  static absl::StatusOr<Statement> Prepare(sqlite3* db, std::string_view sql, bool persistent = false);

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

// One row, one integer.
absl::StatusOr<int64_t> QueryInt(sqlite3* db, std::string_view sql);

}  // namespace litefleet::sqlite

#endif  // LITEFLEET_COMMON_SQLITE_HANDLE_H_
