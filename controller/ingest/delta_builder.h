// The manifest of an upload that is compared with a base: what was offered lies on the base's layers, and the root proves the whole. Or
// that of one whose chunks end anywhere (content that is not a database): then it lies on nothing.
//
// Offers may come in any order and name any pages of one stretch each. Nothing is written before Finish. Not for the first backup of a
// database (ManifestBuilder). Thread safety: none. Memory: 16 bytes a run of pages, at most kMaxRuns of them; one stretch; what ChunkReader
// keeps. common/format/FORMAT.md, "Manifests", is the definition of what is merged and what is copied together.
#ifndef LITEFLEET_CONTROLLER_INGEST_DELTA_BUILDER_H_
#define LITEFLEET_CONTROLLER_INGEST_DELTA_BUILDER_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/base/ids.h"
#include "common/format/digest.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/ingest/manifest_builder.h"
#include "controller/ingest/scratch.h"
#include "controller/manifest/chunk_reader.h"
#include "controller/manifest/layer_writer.h"
#include "controller/manifest/manifest_reader.h"
#include "controller/store/store.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::ingest {

class DeltaBuilder {
 public:
  static constexpr size_t kMaxRuns = 1 << 20;
  // Of the digest of each page, told to a device that has lost its ledger.
  static constexpr size_t kDigestPrefix = 8;

  // REQUIRES: base.page_size == page_size. What it refers to outlives it; the base stays pinned.
  DeltaBuilder(const catalog::IngestCatalog& catalog, store::Store& store, manifest::DigestCache& cache, Scratch<WriteScratch>& scratch,
               const SnapshotId& snapshot, uint32_t page_count, manifest::ManifestReader base);
  // On nothing: every page is offered. Chunks stay as they are offered, for what comes later to share.
  DeltaBuilder(const catalog::IngestCatalog& catalog, store::Store& store, manifest::DigestCache& cache, Scratch<WriteScratch>& scratch,
               const SnapshotId& snapshot, uint32_t page_size, uint32_t page_count);

  struct Checked {
    OfferedChunk chunk;
    bool same = false;        // the base has just this at this place: nothing is to be done
    bool comparable = false;  // it is a whole extent, of which the base has another content
  };
  // Changes nothing. Errors: kInvalidArgument OFFER_INVALID; those of reading the base.
  absl::StatusOr<Checked> Check(const v1::ChunkOffer& offer);
  // Whether the base has the content of the offer at the places that it names as sources: then it is written as a chunk of the controller's
  // own, and nothing of it has to travel. Sources that are wrong, or too far apart, are no error. REQUIRES: Check was fine with it.
  absl::StatusOr<bool> CopyMoved(const v1::ChunkOffer& offer);
  // The offer becomes part of the snapshot. REQUIRES: Check was fine with it. Errors: kFailedPrecondition DELTA_TOO_LARGE.
  absl::Status Take(const v1::ChunkOffer& offer);
  // Of the pages that the base has in the extent of a comparable offer.
  absl::StatusOr<std::string> DigestPrefixes(const v1::ChunkOffer& offer);

  // Where only the end told it: it was begun with the most that there may be. REQUIRES: it lies on nothing; before Finish. Errors:
  // kInvalidArgument COMMIT_INVALID where more was offered, or it is more than that.
  absl::Status SetPageCount(uint32_t page_count);

  // Chunks that came and are not in the catalog yet; the caller holds their packs until Finish has returned.
  void Arrived(const catalog::ArrivedChunk& chunk);
  // Proves the root and writes the layer. REQUIRES: all chunks that were taken are in the catalog, or Arrived. Once.
  // Errors: kInvalidArgument MANIFEST_INCOMPLETE, OFFER_INVALID (a page twice), ROOT_MISMATCH; those of catalog and store.
  absl::Status Finish(const format::RootDigest& root);

  // After Finish.
  catalog::NewManifest TakeManifest();
  // Chunks that were written to keep the stack cheap to read: to be recorded as the controller's own.
  const std::vector<catalog::ArrivedChunk>& own_chunks() const { return own_chunks_; }
  absl::StatusOr<std::optional<uint64_t>> epoch() const;
  uint32_t pages_changed() const { return pages_changed_; }

 private:
  DeltaBuilder(const catalog::IngestCatalog& catalog, store::Store& store, manifest::DigestCache& cache, Scratch<WriteScratch>& scratch,
               const SnapshotId& snapshot, uint32_t page_count, manifest::ManifestReader base, bool compacts);

  struct Run {
    uint32_t first_page = 0;
    uint32_t page_count = 0;
    uint32_t chunk = 0;
    uint32_t index = 0;
  };

  // How many of the base's layers stay as they are.
  size_t LayersToKeep() const;
  // The stretch of the base that holds `extent`, positioned in it; false where the base has no such extent, or not with these pages.
  absl::StatusOr<bool> FindInBase(uint32_t extent, uint32_t& position);
  // Puts the runs of the stretch on it, from `next_run` on; notes which extents they touch.
  absl::Status PlaceRuns(manifest::Stretch& stretch, size_t& next_run, std::vector<bool>& touched) const;
  // Adds the names of the stretch's extents to the root.
  absl::Status NameExtents(manifest::Stretch& stretch, const std::vector<bool>& touched, format::RootBuilder& root);
  // Chunks of the stretch are looked up, once.
  absl::Status Locate(const manifest::Stretch& stretch);
  // Those of its pages; only where they are not cached the chunks of the stretch have to be looked up.
  absl::StatusOr<manifest::PageDigests> DigestsOf(const manifest::Stretch& stretch, const manifest::ChunkRef& chunk);
  absl::Status Note(const store::Placed& placed);
  // Copies what is left of the emptiest chunks together, where a reader would have to open too much.
  absl::Status Compact(manifest::Stretch& stretch);
  absl::Status WriteTogether(manifest::Stretch& stretch, const std::vector<uint32_t>& positions);
  // A chunk of the controller's own.
  absl::StatusOr<catalog::ArrivedChunk> WriteOwn(ByteView raw, std::span<const format::PageDigest> digests);

  const catalog::IngestCatalog& catalog_;
  store::Store& store_;
  Scratch<WriteScratch>& scratch_;
  const SnapshotId snapshot_;
  const uint32_t page_size_;
  uint32_t page_count_;
  manifest::ManifestReader base_;
  const bool compacts_;
  manifest::ChunkReader chunks_reader_;
  manifest::LayerWriter writer_;

  manifest::Stretch at_base_;  // the last that was looked at
  bool at_base_read_ = false;
  std::vector<manifest::ChunkRef> chunks_;
  std::vector<Run> runs_;
  size_t keep_ = 0;
  uint8_t top_ = 0;  // number of the new layer
  bool located_ = false;
  uint32_t pages_changed_ = 0;
  std::vector<catalog::ArrivedChunk> own_chunks_;
  store::PackHolds holds_;
  std::optional<uint64_t> epoch_;
};

}  // namespace litefleet::ingest

#endif  // LITEFLEET_CONTROLLER_INGEST_DELTA_BUILDER_H_
