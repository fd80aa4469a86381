// Pages of a lost chunk that came back without the rest of it: proves them, and puts them into the snapshots that need no more of it.
//
// The name of an extent proves its pages together, so what a device sends is right when it completes an extent that some damaged snapshot
// has, beside the pages that the store kept. A snapshot gets a layer of its own on top of its manifest, and a record that names it
// (common/format/FORMAT.md, "Manifests"); its root stays what it was. Thread safety: none needed; calls for one database come one at a
// time. Ownership: borrows everything. Order: layer and record durable -> rows (crash points heal.before_layer, heal.after_layer).
#ifndef LITEFLEET_CONTROLLER_HEAL_PAGE_REPAIR_H_
#define LITEFLEET_CONTROLLER_HEAL_PAGE_REPAIR_H_

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "controller/catalog/heal_catalog.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/manifest/stretch.h"
#include "controller/store/store.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::heal {

class PageRepair {
 public:
  PageRepair(catalog::HealCatalog& catalog, const catalog::IngestCatalog& chunks, store::Store& store, const Clock& clock)
      : catalog_(catalog), chunks_(chunks), store_(store), clock_(clock) {}

  // Which pages of lost chunks the pages of `wanted` that are not known are: of the newest of `snapshots` that has this extent. Empty: none
  // has it any more. `sent`: digests of the pages that came. Errors: kInvalidArgument CHUNK_INVALID where they are not that extent's.
  absl::StatusOr<std::vector<catalog::HealCatalog::HealedPage>> Prove(uint32_t page_size, const v1::WantedPages& wanted,
                                                                      std::span<const format::PageDigest> sent,
                                                                      std::span<const SnapshotId> snapshots);
  // Puts pages that came back in their places; true: nothing of the snapshot is missing any more.
  absl::StatusOr<bool> Repair(const SnapshotId& snapshot);

 private:
  // Replaces pages of lost chunks in the stretch, as layer `top`; false: none. `whole` becomes false where one cannot be.
  absl::StatusOr<bool> Replace(manifest::Stretch& stretch, uint8_t top, bool& whole);

  catalog::HealCatalog& catalog_;
  const catalog::IngestCatalog& chunks_;
  store::Store& store_;
  const Clock& clock_;
};

}  // namespace litefleet::heal

#endif  // LITEFLEET_CONTROLLER_HEAL_PAGE_REPAIR_H_
