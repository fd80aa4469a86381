// A copy of the catalog as it was at one moment, while others write to it.
//
// SQLite's backup API under a read transaction that is pinned first: the copy never restarts, and no writer waits for it; the catalog's WAL
// grows as long as it takes. Thread safety: any thread. Memory: SQLite's page cache. Errors: those of SQLite; kDataLoss CATALOG_DAMAGED
// where the copy is not sound (it is removed then); kCancelled.
#ifndef LITEFLEET_CONTROLLER_CATALOG_CATALOG_COPY_H_
#define LITEFLEET_CONTROLLER_CATALOG_CATALOG_COPY_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/cancel_token.h"

namespace litefleet::catalog {

struct CatalogCopy {
  uint32_t version = 0;  // migrations that it has had
};

// `target` is made anew, without -wal and -shm; it is not durable. SQLite has checked all of it.
absl::StatusOr<CatalogCopy> CopyCatalog(const std::string& path, const std::string& target, const CancelToken& cancel);

// `path` and what SQLite leaves beside it.
absl::Status RemoveCatalogFiles(const std::string& path);

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_CATALOG_COPY_H_
