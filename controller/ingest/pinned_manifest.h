// The manifest of the snapshot that an upload session pins, read beside the offers: what is in it needs no claim of its own.
//
// For uploads that are not compared with a base. Only a help: where anything about the manifest is strange, nothing counts as pinned.
// Thread safety: none. Memory: one stretch.
#ifndef LITEFLEET_CONTROLLER_INGEST_PINNED_MANIFEST_H_
#define LITEFLEET_CONTROLLER_INGEST_PINNED_MANIFEST_H_

#include <cstdint>
#include <optional>

#include "common/base/ids.h"
#include "common/format/digest.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/manifest/manifest_reader.h"
#include "controller/store/store.h"

namespace litefleet::ingest {

class PinnedManifest {
 public:
  // `snapshot` may be empty: nothing is pinned. Catalog and store outlive the object.
  PinnedManifest(const catalog::IngestCatalog& catalog, store::Store& store, const SnapshotId& snapshot, uint32_t page_size);

  // Whether the extent that begins with `first_page` is the chunk of this name there.
  bool Holds(uint32_t first_page, const format::ChunkName& name);

 private:
  std::optional<manifest::ManifestReader> reader_;
  manifest::Stretch stretch_;
  bool read_ = false;
};

}  // namespace litefleet::ingest

#endif  // LITEFLEET_CONTROLLER_INGEST_PINNED_MANIFEST_H_
