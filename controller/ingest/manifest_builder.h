// Turns the offers of an upload into manifest parts, and proves the root digest while it does.
//
// For full snapshots: chunks are the extents of the database, ascending, without holes. Thread safety: none. Memory: one part.
#ifndef LITEFLEET_CONTROLLER_INGEST_MANIFEST_BUILDER_H_
#define LITEFLEET_CONTROLLER_INGEST_MANIFEST_BUILDER_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/format/digest.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/store/store.h"
#include "litefleet/storage/v1/records.pb.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::ingest {

struct OfferedChunk {
  format::ChunkName name;
  uint32_t page_count = 0;
};

class ManifestBuilder {
 public:
  // REQUIRES: page_size is one. `store` outlives the builder.
  ManifestBuilder(store::Store& store, const SnapshotId& snapshot, uint32_t page_size, uint32_t page_count, size_t entries_per_part);

  // Errors: kInvalidArgument OFFER_INVALID; those of the store.
  absl::StatusOr<OfferedChunk> Add(const v1::ChunkOffer& offer);

  // Writes the last part. Errors: kInvalidArgument MANIFEST_INCOMPLETE, ROOT_MISMATCH.
  absl::Status Finish(const format::RootDigest& root);

  const std::vector<catalog::ManifestPlace>& parts() const { return places_; }
  catalog::NewManifest TakeManifest();
  // The write epoch of all parts; nothing without parts. Errors: kUnavailable STORE_FAILED when the store failed in between.
  absl::StatusOr<std::optional<uint64_t>> epoch() const;

 private:
  absl::Status WritePart();

  store::Store& store_;
  const uint32_t page_size_;
  const uint32_t page_count_;
  const size_t entries_per_part_;
  format::RootBuilder root_;
  uint32_t next_extent_ = 0;
  storage::v1::ManifestPart part_;
  std::vector<catalog::ManifestPlace> places_;
  store::PackHolds holds_;
  int64_t bytes_ = 0;
  std::optional<uint64_t> epoch_;
  bool mixed_epochs_ = false;
};

}  // namespace litefleet::ingest

#endif  // LITEFLEET_CONTROLLER_INGEST_MANIFEST_BUILDER_H_
