// Writes the marks of snapshots that are due into the packs (FORMAT.md, "Deletion").
//
// Thread safety: all members may be called from any thread; one call writes, those that come meanwhile wait and mostly find nothing left.
// Ownership: borrows everything. Errors: those of store and catalog; what could not be written stays due.
#ifndef LITEFLEET_CONTROLLER_PRUNE_MARK_WRITER_H_
#define LITEFLEET_CONTROLLER_PRUNE_MARK_WRITER_H_

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/base/turn.h"
#include "controller/catalog/deletion_catalog.h"
#include "controller/store/store.h"

namespace litefleet::prune {

class MarkWriter {
 public:
  MarkWriter(catalog::DeletionCatalog& catalog, store::Store& store, const Clock& clock)
      : catalog_(catalog), store_(store), clock_(clock) {}

  // Returns when everything that was due at the call is durable.
  absl::Status WriteDue();

 private:
  absl::Status WriteAll();

  catalog::DeletionCatalog& catalog_;
  store::Store& store_;
  const Clock& clock_;
  Turn turn_;
};

}  // namespace litefleet::prune

#endif  // LITEFLEET_CONTROLLER_PRUNE_MARK_WRITER_H_
