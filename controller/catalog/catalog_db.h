// The catalog's SQLite database: one writer that alone checkpoints, several readers, group commit.
//
// The tables belong to the slices beside this file (identity_catalog, snapshot_catalog, operation_catalog), each with its own schema
// text and typed calls; nobody else writes SQL against it. Thread safety: all members may be called from any thread.
//
// Commit order: Write returns after the transaction that holds the change is durable (WAL, synchronous=FULL). Changes that wait at
// the same time share one transaction and one fsync; each runs in a savepoint of its own, so that one that fails leaves the others.
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

class CatalogDb {
 public:
  // Creates the file when `create`; else kNotFound. Runs the migrations that are missing; a catalog of a newer version is
  // kFailedPrecondition CATALOG_TOO_NEW.
  static absl::StatusOr<std::unique_ptr<CatalogDb>> Open(const std::string& path, bool create, std::span<const Migration> migrations);
  ~CatalogDb();
  CatalogDb(const CatalogDb&) = delete;
  CatalogDb& operator=(const CatalogDb&) = delete;

  // Runs `change` on the writer thread in a savepoint, commits, returns. `change` must not call Write or Read.
  absl::Status Write(absl::FunctionRef<absl::Status(sqlite3*)> change);
  // Runs `look` in a read transaction on a pooled connection of the calling thread. `look` must not call Write or Read.
  absl::Status Read(absl::FunctionRef<absl::Status(sqlite3*)> look) const;

  // SQLite's own look at the whole file, without the indexes' content: what it complains of, at most ten lines; none: it is sound.
  absl::StatusOr<std::vector<std::string>> CheckIntegrity() const;
  // sqlite3_libversion().
  static std::string SqliteVersion();

  const std::string& path() const { return path_; }

 private:
  struct Pending;
  explicit CatalogDb(std::string path) : path_(std::move(path)) {}
  void WriterLoop();

  const std::string path_;
  sqlite::DatabaseHandle writer_;  // the writer thread's alone after Open
  Mutex mu_;
  CondVar wake_;
  std::deque<Pending*> queue_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  mutable Mutex readers_mu_;
  mutable std::vector<sqlite::DatabaseHandle> readers_ ABSL_GUARDED_BY(readers_mu_);
  std::thread thread_;
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_CATALOG_DB_H_
