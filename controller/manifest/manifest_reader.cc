#include "controller/manifest/manifest_reader.h"

#include <string>
#include <utility>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::manifest {
namespace {

constexpr uint32_t kPlacesAtOnce = 64;
constexpr size_t kMaxLayers = 64;  // sizes double: 20 is much

// A run of pages in a chunk.
struct Run {
  uint32_t first_page = 0;
  uint32_t page_count = 0;
  uint32_t index = 0;
};

// False where the entry makes no sense.
bool RunsOf(const storage::v1::ManifestEntry& entry, uint32_t max_pages, std::vector<Run>& runs, uint32_t& chunk_pages) {
  runs.clear();
  uint64_t total = 0;
  if (entry.places_size() > 0) {
    if (entry.places_size() % 3 != 0) return false;
    uint64_t next = 0;
    for (int i = 0; i < entry.places_size(); i += 3) {
      const uint64_t first = next + entry.places(i);
      const uint32_t count = entry.places(i + 1);
      if (first == 0 || first + count > UINT32_MAX || count == 0 || uint64_t{entry.places(i + 2)} + count > max_pages) return false;
      runs.push_back({static_cast<uint32_t>(first), count, entry.places(i + 2)});
      total += count;
      next = first + count;
    }
  } else {
    for (const storage::v1::ManifestRun& run : entry.runs()) {
      if (run.first_page() == 0 || run.page_count() == 0 || total + run.page_count() > max_pages) return false;
      if (uint64_t{run.first_page()} + run.page_count() > UINT32_MAX) return false;
      runs.push_back({run.first_page(), run.page_count(), static_cast<uint32_t>(total)});
      total += run.page_count();
    }
  }
  chunk_pages = entry.chunk_pages() != 0 ? entry.chunk_pages() : static_cast<uint32_t>(total);
  return !runs.empty() && chunk_pages <= max_pages;
}

}  // namespace

ManifestReader::ManifestReader(Parts parts, store::Store& store, catalog::SnapshotLayout layout)
    : parts_(std::move(parts)), store_(&store), layout_(std::move(layout)), cursors_(layout_.layers.size()) {}

absl::StatusOr<ManifestReader> ManifestReader::Open(const catalog::IngestCatalog& catalog, store::Store& store,
                                                    catalog::SnapshotLayout layout) {
  const int64_t key = layout.key;
  return Open([&catalog, key](uint32_t first, uint32_t limit) { return catalog.ManifestParts(key, first, limit); }, store,
              std::move(layout));
}

absl::StatusOr<ManifestReader> ManifestReader::Open(Parts parts, store::Store& store, catalog::SnapshotLayout layout) {
  if (layout.manifest_kind < 1 || layout.manifest_kind > 2 || layout.root_version != format::kRootVersion ||
      layout.layers.size() > kMaxLayers) {
    return Error(absl::StatusCode::kUnimplemented, "MANIFEST_UNKNOWN",
                 fmt::format("snapshot {} was made by a newer controller", layout.id.value()),
                 "install the newer litefleet-controller again");
  }
  return ManifestReader(std::move(parts), store, std::move(layout));
}

absl::Status ManifestReader::Damaged(std::string_view reason, std::string_view what) const {
  return Error(absl::StatusCode::kDataLoss, reason, fmt::format("the manifest of snapshot {}: {}", layout_.id.value(), what),
               "restore another snapshot of this database; the device still has its own copy");
}

absl::Status ManifestReader::Read(uint32_t number, Stretch& out) {
  LF_RETURN_IF_ERROR(ReadFor(layout_.page_count, number, out));
  if (!out.Complete()) return Damaged("CHUNK_MISSING", fmt::format("pages of stretch {} are in no chunk", number));
  return absl::OkStatus();
}

absl::Status ManifestReader::ReadFor(uint32_t page_count, uint32_t number, Stretch& out) {
  out.Reset(layout_.page_size, page_count, number);
  if (int64_t{number} <= last_) {
    for (Cursor& cursor : cursors_) cursor = Cursor{};
  }
  last_ = number;
  for (size_t i = 0; i < cursors_.size(); ++i) {
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool more, Advance(layout_.layers[i], cursors_[i], number));
      if (!more) break;
      LF_RETURN_IF_ERROR(TakeEntries(cursors_[i], static_cast<uint8_t>(i), out));
      // What follows belongs to a later stretch.
      if (cursors_[i].entry < cursors_[i].part.entries_size() || cursors_[i].name < cursors_[i].part.extents_size()) break;
    }
  }
  out.ClearFrom(uint64_t{layout_.page_count} + 1);
  return absl::OkStatus();
}

absl::StatusOr<bool> ManifestReader::Advance(const catalog::ManifestLayer& layer, Cursor& cursor, uint32_t stretch) {
  for (;;) {
    if (cursor.loaded && (cursor.entry < cursor.part.entries_size() || cursor.name < cursor.part.extents_size())) return true;
    cursor.loaded = false;
    if (cursor.next_in_places == cursor.places.size()) {
      if (cursor.next >= layer.parts) return false;
      const uint32_t limit = std::min(kPlacesAtOnce, layer.parts - cursor.next);
      if (const size_t from = size_t{layer.first_part} + cursor.next; from + limit <= known_.size()) {
        const auto begin = known_.begin() + static_cast<std::ptrdiff_t>(from);
        cursor.places.assign(begin, begin + limit);
      } else {
        LF_ASSIGN_OR_RETURN(cursor.places, parts_(layer.first_part + cursor.next, limit));
      }
      cursor.next_in_places = 0;
      if (cursor.places.size() != limit) return Damaged("CHUNK_MISSING", fmt::format("a part of layer {} is not in the catalog", layer.id));
    }
    const catalog::ManifestPlace& place = cursor.places[cursor.next_in_places];
    if (format::StretchOf(layout_.page_size, place.first_page) > stretch) return false;
    // All of a part is at or before the beginning of the next one, or in its stretch.
    const bool skip = cursor.next_in_places + 1 < cursor.places.size() &&
                      format::StretchOf(layout_.page_size, cursor.places[cursor.next_in_places + 1].first_page) < stretch;
    const uint32_t number = cursor.next++;
    ++cursor.next_in_places;
    if (skip) continue;
    absl::StatusOr<store::StoredRecord> record = store_->Read({.pack = place.place.pack, .offset = place.place.offset});
    if (ReasonOf(record.status()) == "CHUNK_MISSING") {
      // Its pack may have been rewritten since: the place is looked up again, once.
      LF_ASSIGN_OR_RETURN(const auto again, parts_(layer.first_part + number, 1));
      if (again.size() == 1 && again[0].place != place.place) {
        record = store_->Read({.pack = again[0].place.pack, .offset = again[0].place.offset});
      }
    }
    if (!record.ok()) return Annotate(record.status(), fmt::format("read the manifest of snapshot {}", layout_.id.value()));
    if (record->header.type != format::RecordType::kManifestPart || !cursor.part.ParseFromString(record->payload) ||
        cursor.part.snapshot_id() != layer.id || cursor.part.part() != number ||
        cursor.part.extent_names().size() != static_cast<size_t>(cursor.part.extents_size()) * format::kDigestBytes) {
      return Damaged("CHUNK_DAMAGED", fmt::format("part {} of layer {} is not where the catalog says", number, layer.id));
    }
    cursor.loaded = true;
    cursor.entry = 0;
    cursor.name = 0;
    cursor.name_extent = 0;
  }
}

absl::Status ManifestReader::TakeEntries(Cursor& cursor, uint8_t layer, Stretch& out) {
  std::vector<Run> runs;
  const uint32_t max_pages = format::PagesPerExtent(layout_.page_size);
  for (; cursor.entry < cursor.part.entries_size(); ++cursor.entry) {
    const storage::v1::ManifestEntry& entry = cursor.part.entries(cursor.entry);
    const auto name = format::ChunkName::FromBytes(entry.chunk_name());
    uint32_t chunk_pages = 0;
    if (!name.has_value() || !RunsOf(entry, max_pages, runs, chunk_pages)) return Damaged("CHUNK_DAMAGED", "an entry makes no sense");
    const uint32_t stretch = format::StretchOf(layout_.page_size, runs[0].first_page);
    if (stretch > out.number()) break;
    if (stretch < out.number()) continue;
    std::optional<uint32_t> chunk;
    for (const Run& run : runs) {
      if (run.first_page >= uint64_t{out.first_page()} + out.page_count()) continue;  // of a time when the database was longer
      if (!chunk.has_value()) chunk = out.ChunkNumber(*name, chunk_pages);
      if (!chunk.has_value()) return Damaged("CHUNK_DAMAGED", fmt::format("chunk {} has two sizes", name->Hex()));
      out.Place(run.first_page, run.page_count, *chunk, run.index, layer);
    }
  }
  for (; cursor.name < cursor.part.extents_size(); ++cursor.name) {
    const uint32_t extent = cursor.name_extent + cursor.part.extents(cursor.name);
    const uint32_t stretch = extent / format::kExtentsPerStretch;
    if (stretch > out.number()) break;
    cursor.name_extent = extent;
    if (stretch < out.number() || extent - out.first_extent() >= out.extent_count()) continue;
    const auto name = format::ChunkName::FromBytes(
        std::string_view(cursor.part.extent_names()).substr(static_cast<size_t>(cursor.name) * format::kDigestBytes, format::kDigestBytes));
    out.SetName(extent - out.first_extent(), *name, layer);
  }
  return absl::OkStatus();
}

absl::Status ForEachNeededChunk(const catalog::IngestCatalog& catalog, store::Store& store, const SnapshotId& snapshot,
                                absl::FunctionRef<absl::Status(std::span<const ChunkRef>)> visit) {
  LF_ASSIGN_OR_RETURN(catalog::SnapshotLayout layout, catalog.GetLayout(snapshot));
  LF_ASSIGN_OR_RETURN(ManifestReader reader, ManifestReader::Open(catalog, store, std::move(layout)));
  Stretch stretch;
  std::vector<bool> seen;
  std::vector<ChunkRef> chunks;
  for (uint32_t number = 0; number < reader.stretch_count(); ++number) {
    LF_RETURN_IF_ERROR(reader.Read(number, stretch));
    seen.assign(stretch.chunks().size(), false);
    chunks.clear();
    for (uint32_t at = 0; at < stretch.page_count(); ++at) {
      const uint32_t chunk = stretch.page(at).chunk;
      if (seen[chunk]) continue;
      seen[chunk] = true;
      chunks.push_back(stretch.chunks()[chunk]);
    }
    LF_RETURN_IF_ERROR(visit(chunks));
  }
  return absl::OkStatus();
}

}  // namespace litefleet::manifest
