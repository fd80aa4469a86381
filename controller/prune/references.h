// Which chunks the manifests of all snapshots need: the one place that knows.
//
// Thread safety: none. Memory: one part of a manifest.
#ifndef LITEFLEET_CONTROLLER_PRUNE_REFERENCES_H_
#define LITEFLEET_CONTROLLER_PRUNE_REFERENCES_H_

#include <cstdint>
#include <optional>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/format/digest.h"
#include "controller/catalog/prune_catalog.h"
#include "controller/store/store.h"

namespace litefleet::prune {

struct PartRead {
  catalog::PackPlace place;
  int64_t bytes = 0;  // of its record
};

// Calls `visit` with the chunks of each part of a manifest that a snapshot has, whatever its state, in the order of their places; the
// end of a visit with an error ends all. `gone_before`: as if snapshots in the trash since then were gone. Returns how many parts were
// read. Errors: kDataLoss MANIFEST_UNREADABLE for a part that another snapshot than those in the trash needs; others of the store.
absl::StatusOr<int64_t> ForEachChunk(const catalog::PruneCatalog& catalog, store::Store& store, std::optional<SystemTime> gone_before,
                                     absl::FunctionRef<absl::Status(const PartRead&, std::span<const format::ChunkName>)> visit);

}  // namespace litefleet::prune

#endif  // LITEFLEET_CONTROLLER_PRUNE_REFERENCES_H_
