// Reads the manifest of a snapshot stretch by stretch: all its layers at once, whatever they are.
//
// Thread safety: none. Ownership: catalog and store outlive it; nothing here pins the snapshot. Memory: one part (256 KiB) of each layer.
// Errors: kDataLoss CHUNK_MISSING (a part is not where the catalog says, or a page has no chunk), CHUNK_DAMAGED (a part makes no sense);
// kUnimplemented MANIFEST_UNKNOWN for what a newer controller has written.
#ifndef LITEFLEET_CONTROLLER_MANIFEST_MANIFEST_READER_H_
#define LITEFLEET_CONTROLLER_MANIFEST_MANIFEST_READER_H_

#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/manifest/stretch.h"
#include "controller/store/store.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::manifest {

class ManifestReader {
 public:
  // Where parts of the snapshot's manifest are: ascending from `first` on, at most `limit`.
  using Parts = std::function<absl::StatusOr<std::vector<catalog::ManifestPlace>>(uint32_t first, uint32_t limit)>;

  static absl::StatusOr<ManifestReader> Open(const catalog::IngestCatalog& catalog, store::Store& store, catalog::SnapshotLayout layout);
  // Without a catalog, for who makes one.
  static absl::StatusOr<ManifestReader> Open(Parts parts, store::Store& store, catalog::SnapshotLayout layout);

  // All places of the manifest's parts, as of a moment ago: they are not asked for again, unless what is there has moved.
  void Know(std::vector<catalog::ManifestPlace> parts) { known_ = std::move(parts); }

  const catalog::SnapshotLayout& layout() const { return layout_; }
  uint32_t stretch_count() const { return StretchCount(layout_.page_size, layout_.page_count); }

  // Pages up to the end of the snapshot; each has a chunk. Ascending numbers read each part once. REQUIRES: number < stretch_count().
  absl::Status Read(uint32_t number, Stretch& out);
  // The same for a database of another size: pages that the snapshot does not have have no chunk. REQUIRES: the stretch exists in it.
  absl::Status ReadFor(uint32_t page_count, uint32_t number, Stretch& out);

 private:
  struct Cursor {
    uint32_t next = 0;                           // of the layer's parts
    std::vector<catalog::ManifestPlace> places;  // from part `next - next_in_places` on
    size_t next_in_places = 0;
    bool loaded = false;
    storage::v1::ManifestPart part;
    int entry = 0;
    int name = 0;
    uint32_t name_extent = 0;  // of the one before `name`
  };

  ManifestReader(Parts parts, store::Store& store, catalog::SnapshotLayout layout);
  // True: `cursor` has a part that may name pages of the stretch. False: the layer has none any more.
  absl::StatusOr<bool> Advance(const catalog::ManifestLayer& layer, Cursor& cursor, uint32_t stretch);
  absl::Status TakeEntries(Cursor& cursor, uint8_t layer, Stretch& out);
  absl::Status Damaged(std::string_view reason, std::string_view what) const;

  Parts parts_;
  store::Store* store_;
  catalog::SnapshotLayout layout_;
  std::vector<catalog::ManifestPlace> known_;
  std::vector<Cursor> cursors_;
  int64_t last_ = -1;
};

// Calls `visit` for every chunk that a reader of the snapshot opens, some of them several times: what the snapshot needs to live.
absl::Status ForEachNeededChunk(const catalog::IngestCatalog& catalog, store::Store& store, const SnapshotId& snapshot,
                                absl::FunctionRef<absl::Status(std::span<const ChunkRef>)> visit);

}  // namespace litefleet::manifest

#endif  // LITEFLEET_CONTROLLER_MANIFEST_MANIFEST_READER_H_
