// Keeps an older copy of the catalog from being served beside newer packs.
//
// To such a copy, whatever was uploaded after it would be bytes that nobody refers to, and a prune would delete them; what was deleted or
// revoked after it would be there again. So the catalog counts (catalog/generation_catalog) and writes the count into the packs: at each
// start, before each backup of itself, before each rewrite of packs, and once a minute where the store has grown. At the start the
// packs that the catalog did not know to be complete are read: a higher count there, or a record with a revision that it has not given,
// proves that the catalog is an older one, and nothing is served. What cannot be seen: a copy that was taken in the same minute, of which
// nothing but uploads is missing.
//
// Thread safety: all members may be called from any thread. Ownership: borrows everything. Errors: those of store and catalog.
#ifndef LITEFLEET_CONTROLLER_REBUILD_CATALOG_GENERATION_H_
#define LITEFLEET_CONTROLLER_REBUILD_CATALOG_GENERATION_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/turn.h"
#include "controller/catalog/generation_catalog.h"
#include "controller/store/store.h"

namespace litefleet::rebuild {

class CatalogGeneration {
 public:
  CatalogGeneration(catalog::GenerationCatalog& catalog, store::Store& store, const Clock& clock)
      : catalog_(catalog), store_(store), clock_(clock) {}

  // At start, before anything is written. Errors: kFailedPrecondition CATALOG_OUTDATED.
  absl::Status CheckNewest() const;
  // Counts on: durable in the catalog, then in the packs. Returns the count.
  absl::StatusOr<uint64_t> Advance();
  // The same, where anything was put into the store since the last time.
  absl::Status AdvanceIfGrown();

 private:
  uint64_t StoredBytes() const;

  catalog::GenerationCatalog& catalog_;
  store::Store& store_;
  const Clock& clock_;
  Turn turn_;                  // guards stored_bytes_, across input and output
  uint64_t stored_bytes_ = 0;  // of the store, after the last count
};

}  // namespace litefleet::rebuild

#endif  // LITEFLEET_CONTROLLER_REBUILD_CATALOG_GENERATION_H_
