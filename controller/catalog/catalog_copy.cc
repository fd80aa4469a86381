#include "controller/catalog/catalog_copy.h"

#include "common/base/status.h"
#include "common/io/file.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"

namespace litefleet::catalog {
namespace {

constexpr int kPagesAtOnce = 256;
constexpr int kOpsBetweenLooks = 100'000;  // of SQLite's machine, so that a check can be stopped

absl::Status Cancelled() { return Error(absl::StatusCode::kCancelled, "CANCELLED", "the copy of the catalog was stopped"); }

absl::Status Copy(sqlite3* from, const std::string& target, const CancelToken& cancel) {
  LF_ASSIGN_OR_RETURN(const sqlite::DatabaseHandle to,
                      sqlite::Open(target, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX));
  LF_RETURN_IF_ERROR(sqlite::Execute(to.get(), "pragma journal_mode=off; pragma synchronous=off"));
  sqlite::BackupHandle backup(sqlite3_backup_init(to.get(), "main", from, "main"));
  if (backup == nullptr) return sqlite::ToStatus(sqlite3_extended_errcode(to.get()), to.get(), "copy the catalog to " + target);
  for (;;) {
    if (cancel.cancelled()) return Cancelled();
    const int rc = sqlite3_backup_step(backup.get(), kPagesAtOnce);
    if (rc == SQLITE_DONE) break;
    if (rc != SQLITE_OK) return sqlite::ToStatus(rc, nullptr, "copy the catalog to " + target);
  }
  if (const int rc = sqlite3_backup_finish(backup.release()); rc != SQLITE_OK) {
    return sqlite::ToStatus(rc, to.get(), "copy the catalog to " + target);
  }
  return absl::OkStatus();
}

absl::StatusOr<CatalogCopy> Check(const std::string& target, const CancelToken& cancel) {
  LF_ASSIGN_OR_RETURN(const sqlite::DatabaseHandle db, sqlite::Open(target, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX));
  sqlite3_progress_handler(
      db.get(), kOpsBetweenLooks, [](void* token) { return static_cast<const CancelToken*>(token)->cancelled() ? 1 : 0; },
      const_cast<CancelToken*>(&cancel));
  // The copy says that it is a WAL database; alone it is whole without one.
  LF_RETURN_IF_ERROR(sqlite::Execute(db.get(), "pragma journal_mode=delete; pragma journal_mode=off; pragma temp_store=memory"));
  LF_ASSIGN_OR_RETURN(sqlite::Statement check, sqlite::Statement::Prepare(db.get(), "pragma integrity_check(1)"));
  LF_ASSIGN_OR_RETURN(const bool row, check.Step());
  if (!row || check.Text(0) != "ok") {
    return Error(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED",
                 fmt::format("the catalog is damaged: {}", row ? check.Text(0) : "SQLite says nothing"),
                 "stop the controller, move the catalog away and make it anew: litefleet-controller rebuild");
  }
  check.Reset();
  LF_ASSIGN_OR_RETURN(const int64_t version, sqlite::QueryInt(db.get(), "pragma user_version"));
  return CatalogCopy{.version = static_cast<uint32_t>(version)};
}

}  // namespace

absl::Status RemoveCatalogFiles(const std::string& path) {
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) LF_RETURN_IF_ERROR(io::RemoveFile(path + suffix));
  return absl::OkStatus();
}

absl::StatusOr<CatalogCopy> CopyCatalog(const std::string& path, const std::string& target, const CancelToken& cancel) {
  LF_RETURN_IF_ERROR(RemoveCatalogFiles(target));
  const auto copy = [&]() -> absl::StatusOr<CatalogCopy> {
    {
      // As the catalog's own readers: never checkpoints.
      LF_ASSIGN_OR_RETURN(const sqlite::DatabaseHandle from, sqlite::Open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX));
      sqlite3_busy_timeout(from.get(), 10'000);
      LF_RETURN_IF_ERROR(sqlite::Execute(from.get(), "pragma wal_autocheckpoint=0; pragma query_only=on; pragma cache_size=-1000"));
      sqlite3_db_config(from.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
      LF_RETURN_IF_ERROR(sqlite::Execute(from.get(), "begin"));
      LF_RETURN_IF_ERROR(sqlite::QueryInt(from.get(), "select count(*) from sqlite_schema").status());  // pins
      LF_RETURN_IF_ERROR(Copy(from.get(), target, cancel));
    }
    const absl::StatusOr<CatalogCopy> checked = Check(target, cancel);
    if (!checked.ok() && cancel.cancelled()) return Cancelled();
    return checked;
  };
  absl::StatusOr<CatalogCopy> result = copy();
  if (!result.ok()) RemoveCatalogFiles(target).IgnoreError();  // the next one removes what stays
  return result;
}

}  // namespace litefleet::catalog
