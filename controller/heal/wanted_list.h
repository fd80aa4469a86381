// What a device is asked for: which pages of its database made up the chunks that the store lost, as manifests say.
//
// Pure but for what it reads. Thread safety: none needed. Memory: 4 bytes a page that is asked for, one stretch of a manifest.
#ifndef LITEFLEET_CONTROLLER_HEAL_WANTED_LIST_H_
#define LITEFLEET_CONTROLLER_HEAL_WANTED_LIST_H_

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "controller/catalog/heal_catalog.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/store/store.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::heal {

inline constexpr int kMaxWanted = 4096;               // in one order
inline constexpr uint32_t kMaxPages = 1 << 16;        // in one order
inline constexpr uint32_t kMaxExtentPages = 1 << 14;  // in one order that names extents: with a digest each

struct WantedList {
  v1::HealOrder order;         // without the database's name; empty: nothing can be asked for
  std::vector<int64_t> asked;  // ids of the chunks in `order`, in its order
  // No snapshot says any more where all their pages (or any of them) were: they cannot be asked for so.
  std::vector<int64_t> unknown;
};

// `chunks`: at most kMaxWanted. Those of another page size than the first, and those beyond kMaxPages, are left for the next order.
// `snapshots`: that need them; the first that has all pages of a chunk says where they are. Errors: those of catalog and store; a manifest
// that cannot be read is passed over.
absl::StatusOr<WantedList> MakeWantedList(const catalog::IngestCatalog& catalog, store::Store& store,
                                          std::span<const catalog::HealCatalog::WantedChunk> chunks, std::span<const SnapshotId> snapshots);

// Page by page: extents of the newest snapshot that shows pages of a chunk, under the names that these extents have there. The pages that
// the store still has are named by their digests, and prove the others. An older snapshot shows pages that were overwritten since, which no
// device has.
absl::StatusOr<WantedList> MakePagesList(const catalog::IngestCatalog& catalog, store::Store& store,
                                         std::span<const catalog::HealCatalog::WantedChunk> chunks, std::span<const SnapshotId> snapshots);

}  // namespace litefleet::heal

#endif  // LITEFLEET_CONTROLLER_HEAL_WANTED_LIST_H_
