#include "controller/catalog/catalog_db.h"

#include <utility>

#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::catalog {
namespace {

constexpr size_t kMaxGroup = 512;      // changes a transaction
constexpr size_t kMaxIdleReaders = 8;  // connections kept open
constexpr int kBusyTimeoutMs = 10'000;

absl::Status Migrate(sqlite3* db, const std::string& path, std::span<const Migration> migrations) {
  LF_ASSIGN_OR_RETURN(const int64_t version, sqlite::QueryInt(db, "pragma user_version"));
  const auto known = static_cast<int64_t>(migrations.size());
  if (version > known) {
    return Error(absl::StatusCode::kFailedPrecondition, "CATALOG_TOO_NEW",
                 fmt::format("{} has version {}, this program knows up to {}", path, version, known),
                 "install the newer litefleet-controller again");
  }
  for (int64_t next = version; next < known; ++next) {
    LF_RETURN_IF_ERROR(sqlite::Execute(db, "begin immediate"));
    absl::Status status = absl::OkStatus();
    for (const std::string_view sql : migrations[static_cast<size_t>(next)]) {
      if (status.ok()) status = sqlite::Execute(db, std::string(sql));
    }
    if (status.ok()) status = sqlite::Execute(db, fmt::format("pragma user_version = {}", next + 1));
    if (status.ok()) status = sqlite::Execute(db, "commit");
    if (!status.ok()) {
      sqlite::Execute(db, "rollback").IgnoreError();
      return Annotate(status, fmt::format("migrate {} to version {}", path, next + 1));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<sqlite::DatabaseHandle> OpenConnection(const std::string& path, int flags, const char* settings) {
  LF_ASSIGN_OR_RETURN(sqlite::DatabaseHandle db, sqlite::Open(path, flags | SQLITE_OPEN_NOMUTEX));
  sqlite3_busy_timeout(db.get(), kBusyTimeoutMs);
  LF_RETURN_IF_ERROR(sqlite::Execute(db.get(), settings));
  return db;
}

}  // namespace

struct CatalogDb::Pending {
  absl::FunctionRef<absl::Status(sqlite3*)> change;
  absl::Status status = absl::OkStatus();
  bool done = false;
  CondVar cv;
};

absl::StatusOr<std::unique_ptr<CatalogDb>> CatalogDb::Open(const std::string& path, bool create, std::span<const Migration> migrations) {
  if (!create && !io::Exists(path)) {
    return Error(absl::StatusCode::kNotFound, "CATALOG_NOT_FOUND", fmt::format("there is no catalog at {}", path),
                 "run `litefleet-controller init`, or `rebuild` if only the catalog was lost");
  }
  std::unique_ptr<CatalogDb> catalog(new CatalogDb(path));
  LF_ASSIGN_OR_RETURN(catalog->writer_, OpenConnection(path, SQLITE_OPEN_READWRITE | (create ? SQLITE_OPEN_CREATE : 0),
                                                       "pragma journal_mode=wal; pragma synchronous=full; pragma foreign_keys=on;"
                                                       "pragma temp_store=memory; pragma cache_size=-16000"));
  LF_RETURN_IF_ERROR(Migrate(catalog->writer_.get(), path, migrations));
  catalog->thread_ = std::thread([raw = catalog.get()] { raw->WriterLoop(); });
  return catalog;
}

CatalogDb::~CatalogDb() {
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  wake_.SignalAll();
  if (thread_.joinable()) thread_.join();
}

absl::Status CatalogDb::Write(absl::FunctionRef<absl::Status(sqlite3*)> change) {
  Pending pending{change, absl::OkStatus(), false, {}};
  MutexLock lock(mu_);
  if (stop_) return Error(absl::StatusCode::kUnavailable, "SHUTTING_DOWN", "the controller is shutting down");
  queue_.push_back(&pending);
  wake_.Signal();
  while (!pending.done) pending.cv.Wait(mu_);
  return pending.status;
}

void CatalogDb::WriterLoop() {
  sqlite3* db = writer_.get();
  std::vector<Pending*> group;
  for (;;) {
    {
      MutexLock lock(mu_);
      while (queue_.empty() && !stop_) wake_.Wait(mu_);
      if (queue_.empty()) return;
      while (!queue_.empty() && group.size() < kMaxGroup) {
        group.push_back(queue_.front());
        queue_.pop_front();
      }
    }
    absl::Status status = sqlite::Execute(db, "begin immediate");
    for (Pending* pending : group) {
      if (!status.ok()) break;
      status = sqlite::Execute(db, "savepoint change");
      if (!status.ok()) break;
      pending->status = pending->change(db);
      if (!pending->status.ok()) sqlite::Execute(db, "rollback to change").IgnoreError();
      // A failure such as a full disk may have rolled the whole transaction back: then nobody's change is there.
      if (sqlite3_get_autocommit(db) != 0) {
        status = pending->status.ok()
                     ? Error(absl::StatusCode::kInternal, "CATALOG_ROLLED_BACK", "the catalog's transaction was rolled back")
                     : pending->status;
        break;
      }
      status = sqlite::Execute(db, "release change");
    }
    if (status.ok()) status = sqlite::Execute(db, "commit");
    if (!status.ok() && sqlite3_get_autocommit(db) == 0) sqlite::Execute(db, "rollback").IgnoreError();
    {
      MutexLock lock(mu_);
      for (Pending* pending : group) {
        if (!status.ok() && pending->status.ok()) pending->status = Annotate(status, "write the catalog");
        pending->done = true;
        pending->cv.Signal();
      }
    }
    group.clear();
  }
}

absl::Status CatalogDb::Read(absl::FunctionRef<absl::Status(sqlite3*)> look) const {
  sqlite::DatabaseHandle db;
  {
    MutexLock lock(readers_mu_);
    if (!readers_.empty()) {
      db = std::move(readers_.back());
      readers_.pop_back();
    }
  }
  if (db == nullptr) {
    // Read-write, because a reader of a WAL database may have to make the wal-index; it never checkpoints.
    LF_ASSIGN_OR_RETURN(
        db, OpenConnection(path_, SQLITE_OPEN_READWRITE, "pragma wal_autocheckpoint=0; pragma query_only=on; pragma temp_store=memory"));
    sqlite3_db_config(db.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  }
  LF_RETURN_IF_ERROR(sqlite::Execute(db.get(), "begin"));
  const absl::Status status = look(db.get());
  LF_RETURN_IF_ERROR(sqlite::Execute(db.get(), "rollback"));
  MutexLock lock(readers_mu_);
  if (readers_.size() < kMaxIdleReaders) readers_.push_back(std::move(db));
  return status;
}

absl::StatusOr<std::vector<std::string>> CatalogDb::CheckIntegrity() const {
  std::vector<std::string> complaints;
  LF_RETURN_IF_ERROR(Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(sqlite::Statement check, sqlite::Statement::Prepare(db, "pragma integrity_check(10)"));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, check.Step());
      if (!row) return absl::OkStatus();
      if (check.Text(0) != "ok") complaints.emplace_back(check.Text(0));
    }
  }));
  return complaints;
}

std::string CatalogDb::SqliteVersion() { return sqlite3_libversion(); }

}  // namespace litefleet::catalog
