#include "controller/ingest/pinned_manifest.h"

#include <utility>

#include "common/format/extent.h"

namespace litefleet::ingest {

PinnedManifest::PinnedManifest(const catalog::IngestCatalog& catalog, store::Store& store, const SnapshotId& snapshot, uint32_t page_size) {
  if (snapshot.value().empty()) return;
  absl::StatusOr<catalog::SnapshotLayout> layout = catalog.GetLayout(snapshot);
  if (!layout.ok() || layout->page_size != page_size) return;
  absl::StatusOr<manifest::ManifestReader> reader = manifest::ManifestReader::Open(catalog, store, *std::move(layout));
  if (reader.ok()) reader_.emplace(*std::move(reader));
}

bool PinnedManifest::Holds(uint32_t first_page, const format::ChunkName& name) {
  if (!reader_.has_value()) return false;
  const uint32_t number = format::StretchOf(reader_->layout().page_size, first_page);
  if (number >= reader_->stretch_count()) return false;
  if (!read_ || stretch_.number() != number) {
    read_ = reader_->Read(number, stretch_).ok();
    if (!read_) reader_.reset();
    if (!read_) return false;
  }
  const uint32_t at = first_page - stretch_.first_page();
  if (at >= stretch_.page_count()) return false;
  const auto whole = stretch_.WholeChunk(at / format::PagesPerExtent(stretch_.page_size()));
  return whole.has_value() && stretch_.chunks()[*whole].name == name;
}

}  // namespace litefleet::ingest
