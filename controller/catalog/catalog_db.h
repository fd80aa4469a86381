// The catalog's SQLite database: one writer that alone checkpoints, several readers, group commit.
//
// The tables belong to the slices beside this file (identity_catalog, snapshot_catalog, operation_catalog), each with its own schema
// text and typed calls; nobody else writes SQL against it. Thread safety: all members may be called from any thread.
//
// Commit order: Write returns after the transaction that holds the change is durable (WAL, synchronous=FULL). Changes that wait at
// the same time share one transaction and one fsync; each runs in a savepoint of its own, so that one that fails leaves the others.
// A change that is kRelaxed is visible to all when Write returns and lost by no crash of the program; a crash of the machine may lose it
// together with every later one that is not durable either. Whatever is durable later makes it durable, also a change that changes
// nothing: the WAL is one sequence.
// A failed sync may have lost of it what was written before, and of the database what checkpoints copied; the next sync says nothing of
// that: first all of it is written anew (wal_repair.h), at once and at the next start (Open by who is alone), so that no change stands
// behind a hole. Where that cannot be done any more every Write is refused with kDataLoss CATALOG_DAMAGED until the catalog is opened
// again.
#ifndef LITEFLEET_CONTROLLER_CATALOG_CATALOG_DB_H_
#define LITEFLEET_CONTROLLER_CATALOG_CATALOG_DB_H_

#include <sqlite3.h>

#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/sqlite/handle.h"

namespace litefleet::catalog {

// Migrations in order; the first brings version 0 to 1. Never changed once released, only added to.
using Migration = std::vector<std::string_view>;  // SQL texts, run in one transaction

enum class Durability { kDurable, kRelaxed };

class CatalogDb {
 public:
  // Creates the file when `create`; else kNotFound. Runs the migrations that are missing; a catalog of a newer version is
  // kFailedPrecondition CATALOG_TOO_NEW. `alone`: nobody else has it open, which the lock of the data directory says. Who is beside a
  // server writes nothing anew that an earlier process may have lost: the server has done so, and would wait for it.
  static absl::StatusOr<std::unique_ptr<CatalogDb>> Open(const std::string& path, bool create, std::span<const Migration> migrations,
                                                         bool alone = true);
  ~CatalogDb();
  CatalogDb(const CatalogDb&) = delete;
  CatalogDb& operator=(const CatalogDb&) = delete;

  // Runs `change` on the writer thread in a savepoint, commits, returns. `change` must not call Write or Read.
  // Statements prepared on the Connection, not on the sqlite3* in it, are kept for the next change.
  absl::Status Write(absl::FunctionRef<absl::Status(sqlite::Connection)> change, Durability durability = Durability::kDurable);
  // As a relaxed Write that nobody waits for: it is run in its turn, and what comes of it is not told. Waits only where very many of these
  // wait. For notes that may be lost.
  void Post(std::function<absl::Status(sqlite::Connection)> change);
  // Runs `look` in a read transaction on a pooled connection of the calling thread. `look` must not call Write or Read.
  absl::Status Read(absl::FunctionRef<absl::Status(sqlite::Connection)> look) const;

  // SQLite's own look at the whole file, without the indexes' content: what it complains of, at most ten lines; none: it is sound.
  absl::StatusOr<std::vector<std::string>> CheckIntegrity() const;
  // sqlite3_libversion().
  static std::string SqliteVersion();

  const std::string& path() const { return path_; }

 private:
  struct Pending;
  struct PostedChange;
  struct Reader {
    sqlite::DatabaseHandle db;
    std::unique_ptr<sqlite::StatementCache> statements;  // goes before db
  };
  explicit CatalogDb(std::string path) : path_(std::move(path)) {}
  void WriterLoop();
  // One transaction; the status of what concerns all of them.
  absl::Status WriteGroup(const std::vector<Pending*>& group);
  // A commit that changed nothing, with relaxed ones before it.
  absl::Status SyncWal();
  // After a failed sync.
  absl::Status Repair();
  absl::StatusOr<Reader> OpenReader() const;

  const std::string path_;
  // The writer thread's alone after Open.
  sqlite::DatabaseHandle writer_;
  sqlite::StatementCache statements_;
  bool syncs_ = true;                     // as synchronous is set
  int wal_frames_ = 0;                    // after the newest commit
  bool wrote_ = false;                    // the newest commit wrote frames
  bool relaxed_ = false;                  // frames that no sync has covered
  bool lost_ = false;                     // a sync has failed since all was written
  absl::Status gone_ = absl::OkStatus();  // what it lost cannot be written again

  Mutex mu_;
  CondVar wake_;
  std::deque<Pending*> queue_ ABSL_GUARDED_BY(mu_);
  size_t posted_ ABSL_GUARDED_BY(mu_) = 0;  // of these
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  mutable Mutex readers_mu_;
  mutable std::vector<Reader> readers_ ABSL_GUARDED_BY(readers_mu_);
  std::thread thread_;
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_CATALOG_DB_H_
