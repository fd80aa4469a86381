// The manifest of the snapshot that an upload session pins, read beside the offers: what is in it needs no claim of its own.
//
// Most extents of a database do not change, so most of a backup is answered without writing the catalog. Only a help: where anything
// about the manifest is strange, nothing counts as pinned. Thread safety: none. Memory: one manifest part.
#ifndef LITEFLEET_CONTROLLER_INGEST_PINNED_MANIFEST_H_
#define LITEFLEET_CONTROLLER_INGEST_PINNED_MANIFEST_H_

#include <cstdint>

#include "absl/status/status.h"
#include "common/base/ids.h"
#include "common/format/digest.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/store/store.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::ingest {

class PinnedManifest {
 public:
  // `snapshot` may be empty: nothing is pinned. Catalog and store outlive the object.
  PinnedManifest(const catalog::IngestCatalog& catalog, store::Store& store, const SnapshotId& snapshot, uint32_t page_size);

  // Whether the extent that begins with `first_page` has this name there. Calls are ascending.
  bool Holds(uint32_t first_page, const format::ChunkName& name);

 private:
  absl::Status NextPart();

  const catalog::IngestCatalog& catalog_;
  store::Store& store_;
  catalog::SnapshotLayout layout_;
  uint32_t next_part_ = 0;
  bool usable_ = false;
  storage::v1::ManifestPart part_;
  int at_ = 0;
};

}  // namespace litefleet::ingest

#endif  // LITEFLEET_CONTROLLER_INGEST_PINNED_MANIFEST_H_
