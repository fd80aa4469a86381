#include "controller/ingest/pinned_manifest.h"

#include "common/base/status.h"

namespace litefleet::ingest {
namespace {

constexpr uint32_t kBaseManifest = 1;

}  // namespace

PinnedManifest::PinnedManifest(const catalog::IngestCatalog& catalog, store::Store& store, const SnapshotId& snapshot, uint32_t page_size)
    : catalog_(catalog), store_(store) {
  if (snapshot.value().empty()) return;
  const absl::StatusOr<catalog::SnapshotLayout> layout = catalog_.GetLayout(snapshot);
  if (!layout.ok() || layout->page_size != page_size || layout->manifest_kind != kBaseManifest) return;
  layout_ = *layout;
  usable_ = true;
}

absl::Status PinnedManifest::NextPart() {
  if (next_part_ >= layout_.manifest_parts) return absl::OutOfRangeError("the end");
  LF_ASSIGN_OR_RETURN(const std::vector<catalog::ManifestPlace> places, catalog_.ManifestParts(layout_.key, next_part_, 1));
  if (places.empty()) return absl::NotFoundError("a part is missing");
  LF_ASSIGN_OR_RETURN(const store::StoredRecord record, store_.Read({.pack = places[0].place.pack, .offset = places[0].place.offset}));
  if (record.header.type != format::RecordType::kManifestPart || !part_.ParseFromString(record.payload) || part_.part() != next_part_) {
    return absl::DataLossError("a part is damaged");
  }
  ++next_part_;
  at_ = 0;
  return absl::OkStatus();
}

bool PinnedManifest::Holds(uint32_t first_page, const format::ChunkName& name) {
  while (usable_) {
    if (at_ == part_.entries_size()) {
      usable_ = NextPart().ok();
      continue;
    }
    const storage::v1::ManifestEntry& entry = part_.entries(at_);
    if (entry.runs_size() != 1) {
      usable_ = false;
    } else if (entry.runs(0).first_page() < first_page) {
      ++at_;
    } else {
      return entry.runs(0).first_page() == first_page && entry.chunk_name() == name.AsString();
    }
  }
  return false;
}

}  // namespace litefleet::ingest
