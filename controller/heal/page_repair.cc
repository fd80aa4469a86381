#include "controller/heal/page_repair.h"

#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "controller/manifest/layer_writer.h"
#include "controller/manifest/manifest_reader.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::heal {
namespace {

constexpr size_t kMaxLayers = 250;
constexpr uint32_t kLayers = 2;  // SnapshotRecord.manifest_kind

std::optional<format::ChunkName> NameOfExtent(const manifest::Stretch& stretch, uint32_t extent) {
  const auto whole = stretch.WholeChunk(extent);
  return whole.has_value() ? std::optional(stretch.chunks()[*whole].name) : stretch.given_name(extent);
}

// An error of one snapshot that says nothing about others.
bool Unreadable(const absl::Status& status) {
  return absl::IsDataLoss(status) || absl::IsNotFound(status) || absl::IsUnimplemented(status);
}

}  // namespace

absl::StatusOr<std::vector<catalog::HealCatalog::HealedPage>> PageRepair::Prove(uint32_t page_size, const v1::WantedPages& wanted,
                                                                                std::span<const format::PageDigest> sent,
                                                                                std::span<const SnapshotId> snapshots) {
  const uint32_t pages = wanted.runs(0).page_count();
  std::vector<format::PageDigest> all(pages);
  std::vector<uint32_t> unknown;
  int next_known = 0;
  for (uint32_t i = 0; i < pages; ++i) {
    if (next_known < wanted.known_positions_size() && wanted.known_positions(next_known) == i) {
      std::memcpy(all[i].bytes.data(), wanted.known_digests().data() + size_t{32} * static_cast<size_t>(next_known++), 32);
    } else if (unknown.size() < sent.size()) {
      all[i] = sent[unknown.size()];
      unknown.push_back(i);
    }
  }
  const auto name = format::ChunkName::FromBytes(wanted.name());
  if (unknown.size() != sent.size() || unknown.size() + static_cast<size_t>(next_known) != pages || !name.has_value() ||
      format::NameChunk(page_size, all) != *name) {
    return Error(absl::StatusCode::kInvalidArgument, "CHUNK_INVALID", "what the device sent is not what it was asked for");
  }
  const uint32_t first_page = wanted.runs(0).first_page();
  manifest::Stretch stretch;
  for (const SnapshotId& snapshot : snapshots) {
    absl::StatusOr<catalog::SnapshotLayout> layout = chunks_.GetLayout(snapshot);
    if (Unreadable(layout.status())) continue;
    LF_RETURN_IF_ERROR(layout.status());
    const uint32_t number = format::StretchOf(page_size, first_page);
    if (layout->page_size != page_size || number >= manifest::StretchCount(page_size, layout->page_count)) continue;
    absl::StatusOr<manifest::ManifestReader> reader = manifest::ManifestReader::Open(chunks_, store_, *std::move(layout));
    absl::Status read = reader.status();
    if (read.ok()) read = reader->Read(number, stretch);
    if (Unreadable(read)) continue;
    LF_RETURN_IF_ERROR(read);
    const uint32_t extent = (first_page - stretch.first_page()) / format::PagesPerExtent(page_size);
    if (extent >= stretch.extent_count() || stretch.PagesIn(extent) != pages || NameOfExtent(stretch, extent) != name) continue;
    std::vector<catalog::HealCatalog::HealedPage> healed;
    for (uint32_t i = 0; i < unknown.size(); ++i) {
      const manifest::PageRef& ref = stretch.page(stretch.FirstOf(extent) + unknown[i]);
      healed.push_back({.chunk = stretch.chunks()[ref.chunk].name, .page = ref.index, .copy_page = i});
    }
    return healed;
  }
  return std::vector<catalog::HealCatalog::HealedPage>();
}

absl::StatusOr<bool> PageRepair::Replace(manifest::Stretch& stretch, uint8_t top, bool& whole) {
  std::vector<format::ChunkName> names;
  for (const manifest::ChunkRef& chunk : stretch.chunks()) names.push_back(chunk.name);
  LF_ASSIGN_OR_RETURN(const auto rows, chunks_.FindChunks(names));
  std::map<uint32_t, std::map<uint32_t, catalog::HealCatalog::Copy>> healed;  // by the number of the lost chunk, then by its page
  for (uint32_t i = 0; i < rows.size(); ++i) {
    if (rows[i].has_value() && rows[i]->good) continue;
    LF_ASSIGN_OR_RETURN(healed[i], catalog_.HealedPages(names[i]));
  }
  if (healed.empty()) return false;
  struct Move {
    uint32_t at = 0;
    uint32_t chunk = 0;
    uint32_t page = 0;
  };
  std::vector<Move> moves;
  for (uint32_t at = 0; at < stretch.page_count(); ++at) {
    const manifest::PageRef ref = stretch.page(at);
    const auto lost = healed.find(ref.chunk);
    if (lost == healed.end()) continue;
    const auto copy = lost->second.find(ref.index);
    if (copy == lost->second.end()) {
      whole = false;
      continue;
    }
    const auto number = stretch.ChunkNumber(copy->second.name, copy->second.page_count);
    if (!number.has_value()) return Error(absl::StatusCode::kInternal, "MANIFEST_DAMAGED", "a chunk has two sizes");
    moves.push_back({.at = at, .chunk = *number, .page = copy->second.page});
  }
  for (const Move& move : moves) {
    // It will not be one chunk any more, and needs its name.
    const uint32_t extent = move.at / format::PagesPerExtent(stretch.page_size());
    if (const auto one = stretch.WholeChunk(extent); one.has_value()) stretch.SetName(extent, stretch.chunks()[*one].name, top);
    stretch.Place(stretch.first_page() + move.at, 1, move.chunk, move.page, top);
  }
  return !moves.empty();
}

absl::StatusOr<bool> PageRepair::Repair(const SnapshotId& snapshot) {
  LF_ASSIGN_OR_RETURN(const catalog::SnapshotLayout layout, chunks_.GetLayout(snapshot));
  if (layout.layers.size() >= kMaxLayers) return false;
  LF_ASSIGN_OR_RETURN(manifest::ManifestReader reader, manifest::ManifestReader::Open(chunks_, store_, layout));
  const auto top = static_cast<uint8_t>(layout.layers.size());
  const SnapshotId id(NewUlid(clock_.Now()));
  manifest::LayerWriter writer(store_, id);
  manifest::Stretch stretch;
  bool whole = true;
  bool any = false;
  for (uint32_t number = 0; number < reader.stretch_count(); ++number) {
    LF_RETURN_IF_ERROR(reader.Read(number, stretch));
    LF_ASSIGN_OR_RETURN(const bool replaced, Replace(stretch, top, whole));
    if (replaced) LF_RETURN_IF_ERROR(writer.Add(stretch, top));
    any |= replaced;
  }
  if (!any) return whole;
  LF_RETURN_IF_ERROR(writer.Finish());

  LF_ASSIGN_OR_RETURN(const catalog::PackPlace old, catalog_.RecordOf(snapshot));
  LF_ASSIGN_OR_RETURN(const store::StoredRecord stored, store_.Read({.pack = old.pack, .offset = old.offset}));
  storage::v1::SnapshotRecord record;
  if (!record.ParseFromString(stored.payload) || record.snapshot_id() != snapshot.value())
    return Error(absl::StatusCode::kDataLoss, "CHUNK_DAMAGED", "the record of a snapshot cannot be read");
  record.clear_layers();
  for (const catalog::ManifestLayer& layer : layout.layers) {
    storage::v1::ManifestLayer& kept = *record.add_layers();
    kept.set_id(layer.id);
    kept.set_parts(layer.parts);
    kept.set_bytes(layer.bytes);
  }
  storage::v1::ManifestLayer& own = *record.add_layers();
  own.set_id(id.value());
  own.set_parts(static_cast<uint32_t>(writer.places().size()));
  own.set_bytes(writer.bytes());
  record.set_manifest_kind(kLayers);
  record.set_manifest_parts(own.parts());
  LF_ASSIGN_OR_RETURN(const store::Placed placed, store_.PutRecord(format::RecordType::kSnapshot, AsBytes(record.SerializeAsString())));
  LF_ASSIGN_OR_RETURN(const std::optional<uint64_t> epoch, writer.epoch());
  if (epoch.has_value() && *epoch != placed.epoch)
    return Error(absl::StatusCode::kUnavailable, "STORE_FAILED", "the store failed meanwhile", "it will be tried again");
  LF_RETURN_IF_ERROR(store_.Sync(placed.epoch));
  LF_CRASH_POINT("heal.before_layer");
  LF_RETURN_IF_ERROR(catalog_.AddLayer(layout, record, {.pack = placed.location.pack, .offset = placed.location.offset}, writer.places()));
  return whole;
}

}  // namespace litefleet::heal
