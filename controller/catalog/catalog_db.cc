#include "controller/catalog/catalog_db.h"

#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "common/io/file.h"
#include "controller/catalog/wal_repair.h"
#include "fmt/format.h"

namespace litefleet::catalog {
namespace {

constexpr size_t kMaxGroup = 512;       // changes a transaction
constexpr size_t kMaxPosted = 1024;     // changes that nobody waits for
constexpr size_t kMaxIdleReaders = 16;  // connections kept open
constexpr int kBusyTimeoutMs = 10'000;
constexpr int kCheckpointFrames = 4000;  // of the WAL

absl::Status Run(sqlite::Connection db, std::string_view sql) {
  LF_ASSIGN_OR_RETURN(sqlite::Statement statement, sqlite::Statement::Prepare(db, sql));
  return statement.Run();
}

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
  absl::FunctionRef<absl::Status(sqlite::Connection)> change;
  Durability durability;
  absl::Status status = absl::OkStatus();
  bool done = false;
  CondVar cv;
  PostedChange* home = nullptr;  // where nobody waits: what the writer destroys afterwards
};

struct CatalogDb::PostedChange {
  explicit PostedChange(std::function<absl::Status(sqlite::Connection)> to_run)
      : change(std::move(to_run)), pending{change, Durability::kRelaxed, absl::OkStatus(), false, {}, this} {}
  const std::function<absl::Status(sqlite::Connection)> change;
  Pending pending;
};

absl::StatusOr<std::unique_ptr<CatalogDb>> CatalogDb::Open(const std::string& path, bool create, std::span<const Migration> migrations,
                                                           bool alone) {
  if (!create && !io::Exists(path)) {
    return Error(absl::StatusCode::kNotFound, "CATALOG_NOT_FOUND", fmt::format("there is no catalog at {}", path),
                 "run `litefleet-controller init`, or `rebuild` if only the catalog was lost");
  }
  std::unique_ptr<CatalogDb> catalog(new CatalogDb(path));
  LF_ASSIGN_OR_RETURN(catalog->writer_, OpenConnection(path, SQLITE_OPEN_READWRITE | (create ? SQLITE_OPEN_CREATE : 0),
                                                       "pragma journal_mode=wal; pragma synchronous=full; pragma foreign_keys=on;"
                                                       "pragma temp_store=memory; pragma cache_size=-16000;"
                                                       "pragma wal_autocheckpoint=0"));
  // SQLite's own checkpoints keep a failed sync to themselves.
  sqlite3_wal_hook(
      catalog->writer_.get(),
      [](void* self, sqlite3*, const char*, int frames) {
        static_cast<CatalogDb*>(self)->wal_frames_ = frames;
        static_cast<CatalogDb*>(self)->wrote_ = true;
        return SQLITE_OK;
      },
      catalog.get());
  // An earlier process may have ended before it could: a crash of the program leaves the page cache as it is. Another one that has a lock
  // has done so.
  const absl::Status repaired = alone ? MakeDurableAgain(catalog->writer_.get()) : absl::OkStatus();
  if (ReasonOf(repaired) != "DATABASE_BUSY") LF_RETURN_IF_ERROR(Annotate(repaired, "open " + path));
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

absl::Status CatalogDb::Write(absl::FunctionRef<absl::Status(sqlite::Connection)> change, Durability durability) {
  Pending pending{change, durability, absl::OkStatus(), false, {}, nullptr};
  MutexLock lock(mu_);
  if (stop_) return Error(absl::StatusCode::kUnavailable, "SHUTTING_DOWN", "the controller is shutting down");
  queue_.push_back(&pending);
  wake_.Signal();
  while (!pending.done) pending.cv.Wait(mu_);
  return pending.status;
}

void CatalogDb::Post(std::function<absl::Status(sqlite::Connection)> change) {
  {
    MutexLock lock(mu_);
    if (stop_) return;
    if (posted_ < kMaxPosted) {
      auto posted = std::make_unique<PostedChange>(std::move(change));
      queue_.push_back(&posted.release()->pending);
      ++posted_;
      wake_.Signal();
      return;
    }
  }
  Write(change, Durability::kRelaxed).IgnoreError();
}

void CatalogDb::WriterLoop() {
  std::vector<Pending*> group;
  for (;;) {
    {
      MutexLock lock(mu_);
      while (queue_.empty() && !stop_) wake_.Wait(mu_);
      if (queue_.empty()) break;
      while (!queue_.empty() && group.size() < kMaxGroup) {
        group.push_back(queue_.front());
        queue_.pop_front();
      }
    }
    const auto taken =
        static_cast<size_t>(std::count_if(group.begin(), group.end(), [](const Pending* each) { return each->home != nullptr; }));
    const absl::Status status = WriteGroup(group);
    if (ReasonOf(status) == "IO_ERROR") lost_ = true;
    if (!status.ok() && sqlite3_get_autocommit(writer_.get()) == 0) sqlite::Execute(writer_.get(), "rollback").IgnoreError();
    {
      MutexLock lock(mu_);
      posted_ -= taken;
      for (Pending* pending : group) {
        if (pending->home != nullptr) {
          const std::unique_ptr<PostedChange> ended(pending->home);
          continue;
        }
        if (!status.ok() && pending->status.ok()) pending->status = Annotate(status, "write the catalog");
        pending->done = true;
        pending->cv.Signal();
      }
    }
    group.clear();
    if (wal_frames_ >= kCheckpointFrames && !lost_) {
      wal_frames_ = 0;  // the next commit says how many there are
      const int rc = sqlite3_wal_checkpoint_v2(writer_.get(), nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
      if ((rc & 0xff) == SQLITE_IOERR) lost_ = true;
    }
    // At once, as long as it is cached. What fails is told with the next change.
    if (lost_) Repair().IgnoreError();
  }
  // What cannot be made good now is left to the next start, as a crash would leave it.
  if (lost_) sqlite3_db_config(writer_.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
}

absl::Status CatalogDb::Repair() {
  if (!gone_.ok()) return gone_;
  const absl::Status repaired = MakeDurableAgain(writer_.get());
  if (absl::IsDataLoss(repaired)) gone_ = repaired;
  LF_RETURN_IF_ERROR(repaired);
  lost_ = relaxed_ = false;
  return absl::OkStatus();
}

absl::Status CatalogDb::SyncWal() {
  sqlite3_file* wal = nullptr;
  sqlite3_file_control(writer_.get(), "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
  if (wal == nullptr || wal->pMethods == nullptr) return Error(absl::StatusCode::kInternal, "IO_ERROR", "the catalog has no WAL");
  return sqlite::ToStatus(wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL), nullptr, "sync the catalog's WAL");
}

absl::Status CatalogDb::WriteGroup(const std::vector<Pending*>& group) {
  if (lost_) LF_RETURN_IF_ERROR(Repair());
  const sqlite::Connection db(writer_.get(), &statements_);
  const bool sync = std::any_of(group.begin(), group.end(), [](const Pending* each) { return each->durability == Durability::kDurable; });
  if (sync != syncs_) {
    // NORMAL leaves out the sync of the WAL at a commit, and only that: https://www.sqlite.org/pragma.html#pragma_synchronous
    LF_RETURN_IF_ERROR(sqlite::Execute(db, sync ? "pragma synchronous=full" : "pragma synchronous=normal"));
    syncs_ = sync;
  }
  LF_RETURN_IF_ERROR(Run(db, "begin immediate"));
  for (Pending* pending : group) {
    LF_RETURN_IF_ERROR(Run(db, "savepoint change"));
    pending->status = pending->change(db);
    if (!pending->status.ok()) Run(db, "rollback to change").IgnoreError();
    // A failure such as a full disk may have rolled the whole transaction back: then nobody's change is there.
    if (sqlite3_get_autocommit(db) != 0) {
      return pending->status.ok() ? Error(absl::StatusCode::kInternal, "CATALOG_ROLLED_BACK", "the catalog's transaction was rolled back")
                                  : pending->status;
    }
    LF_RETURN_IF_ERROR(Run(db, "release change"));
  }
  wrote_ = false;
  LF_RETURN_IF_ERROR(Run(db, "commit"));
  if (sync && !wrote_ && relaxed_) LF_RETURN_IF_ERROR(SyncWal());
  relaxed_ = sync ? false : relaxed_ || wrote_;
  return absl::OkStatus();
}

absl::StatusOr<CatalogDb::Reader> CatalogDb::OpenReader() const {
  Reader reader;
  // Read-write, because a reader of a WAL database may have to make the wal-index; it never checkpoints.
  LF_ASSIGN_OR_RETURN(reader.db, OpenConnection(path_, SQLITE_OPEN_READWRITE,
                                                "pragma wal_autocheckpoint=0; pragma query_only=on; pragma temp_store=memory"));
  sqlite3_db_config(reader.db.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  reader.statements = std::make_unique<sqlite::StatementCache>();
  return reader;
}

absl::Status CatalogDb::Read(absl::FunctionRef<absl::Status(sqlite::Connection)> look) const {
  Reader reader;
  {
    MutexLock lock(readers_mu_);
    if (!readers_.empty()) {
      reader = std::move(readers_.back());
      readers_.pop_back();
    }
  }
  if (reader.db == nullptr) {
    LF_ASSIGN_OR_RETURN(reader, OpenReader());
  }
  const sqlite::Connection db(reader.db.get(), reader.statements.get());
  LF_RETURN_IF_ERROR(Run(db, "begin"));
  const absl::Status status = look(db);
  LF_RETURN_IF_ERROR(Run(db, "rollback"));
  MutexLock lock(readers_mu_);
  if (readers_.size() < kMaxIdleReaders) readers_.push_back(std::move(reader));
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
