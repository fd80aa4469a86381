// Writes one layer of a manifest, stretch by stretch, into parts of at most about 256 KiB.
//
// Thread safety: none. Ownership: the store outlives it. Durability: that of Store::PutRecord. Memory: one part.
#ifndef LITEFLEET_CONTROLLER_MANIFEST_LAYER_WRITER_H_
#define LITEFLEET_CONTROLLER_MANIFEST_LAYER_WRITER_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/manifest/stretch.h"
#include "controller/store/store.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::manifest {

class LayerWriter {
 public:
  LayerWriter(store::Store& store, const SnapshotId& layer) : store_(store) { part_.set_snapshot_id(layer.value()); }

  // What layers from `lowest` on say of the stretch. Stretches come in ascending order.
  absl::Status Add(const Stretch& stretch, uint8_t lowest);
  // Writes the last part.
  absl::Status Finish();

  const std::vector<catalog::ManifestPlace>& places() const { return places_; }
  int64_t bytes() const { return bytes_; }
  // The write epoch of all parts; nothing without parts. Errors: kUnavailable STORE_FAILED when the store failed in between.
  absl::StatusOr<std::optional<uint64_t>> epoch() const;

 private:
  absl::Status WritePart();

  store::Store& store_;
  storage::v1::ManifestPart part_;
  uint32_t first_page_ = 0;   // lowest that the part names
  uint32_t last_extent_ = 0;  // named in the part
  size_t size_ = 0;           // of the part, about
  std::vector<catalog::ManifestPlace> places_;
  store::PackHolds holds_;
  int64_t bytes_ = 0;
  std::optional<uint64_t> epoch_;
  bool mixed_epochs_ = false;
};

}  // namespace litefleet::manifest

#endif  // LITEFLEET_CONTROLLER_MANIFEST_LAYER_WRITER_H_
