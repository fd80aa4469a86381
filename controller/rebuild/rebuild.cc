#include "controller/rebuild/rebuild.h"

#include <algorithm>
#include <utility>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/format/digest.h"
#include "common/format/extent.h"
#include "common/format/pack_record.h"
#include "controller/manifest/manifest_reader.h"
#include "fmt/format.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::rebuild {
namespace {

constexpr size_t kMaxProblems = 1000;
constexpr uint32_t kPartsAtOnce = 64;
constexpr size_t kMostNeeded = 1 << 16;  // chunks of a snapshot that are kept in memory while it is proven
// No snapshot record is smaller: its header, two ids and the root digest.
constexpr uint64_t kLeastSnapshotRecord = format::kRecordHeaderBytes + 26 + 36 + format::kDigestBytes;
constexpr uint32_t kOneLayer = 1, kLayers = 2;  // SnapshotRecord.manifest_kind

class Rebuilder {
 public:
  Rebuilder(store::Store& store, catalog::RebuildCatalog& catalog, const Clock& clock, const RebuildOptions& options)
      : store_(store), catalog_(catalog), clock_(clock), options_(options) {}

  absl::StatusOr<RebuildReport> Run() {
    LF_RETURN_IF_ERROR(Scan());
    LF_RETURN_IF_ERROR(catalog_.Index(newest_pack_));
    LF_RETURN_IF_ERROR(catalog_.ForEachSnapshot([&](const catalog::RebuildCatalog::Found& found) { return ProveAndKeep(found); }));
    LF_ASSIGN_OR_RETURN(const int64_t lost_records, LostRecords());
    LF_ASSIGN_OR_RETURN(report_.things, catalog_.AddThings(options_.keep_certificates, clock_.Now(), lost_records));
    return std::move(report_);
  }

 private:
  void Problem(std::string text) {
    if (report_.problems.size() < kMaxProblems) report_.problems.push_back(std::move(text));
  }

  // How many records of snapshots may have stood in what could not be read, at most. A number that was acknowledged is not given again.
  absl::StatusOr<int64_t> LostRecords() {
    LF_ASSIGN_OR_RETURN(const store::StoreStats stats, store_.Stats());
    const uint64_t unknown = unknown_bytes_ + stats.cut_bytes;
    const auto lost = static_cast<int64_t>((unknown + kLeastSnapshotRecord - 1) / kLeastSnapshotRecord) + strange_snapshots_;
    if (lost > 0) {
      Problem(fmt::format("{} bytes of packs could not be read and may have held snapshots: the numbers of snapshots go on {} higher",
                          unknown, lost));
    }
    return lost;
  }

  absl::Status Scan() {
    const std::vector<store::PackInfo> packs = store_.Packs();
    uint64_t total = 0;
    for (const store::PackInfo& pack : packs) total += pack.size;
    if (!packs.empty()) newest_pack_ = packs.back().id;
    for (const store::PackInfo& pack : packs) {
      absl::Status visited = absl::OkStatus();
      const auto scan = store_.ScanPack(pack.id, [&](const store::Location& location, const format::ScannedRecord& record) {
        visited = Take(location, record);
        return visited;
      });
      LF_RETURN_IF_ERROR(visited);
      if (scan.ok()) {
        report_.records += scan->records;
        report_.damaged_bytes += scan->damaged_bytes;
        unknown_bytes_ += scan->unknown_bytes;
        if (scan->damaged_bytes > 0) Problem(fmt::format("pack {:016x} has {} damaged bytes", pack.id, scan->damaged_bytes));
      } else {
        unknown_bytes_ += pack.size;
        Problem(fmt::format("pack {:016x} could not be read: {}", pack.id, MessageOf(scan.status())));
      }
      ++report_.packs;
      report_.bytes += pack.size;
      if (options_.progress) options_.progress(report_.bytes, total);
    }
    return absl::OkStatus();
  }

  absl::Status Take(const store::Location& location, const format::ScannedRecord& record) {
    const catalog::PackPlace place{.pack = location.pack, .offset = location.offset};
    switch (record.header.type) {
      case format::RecordType::kChunk:
        return catalog_.AddChunk({.name = record.header.name,
                                  .page_size = record.header.page_size,
                                  .page_count = record.header.page_count,
                                  .codec = record.header.codec,
                                  .stored_bytes = record.header.stored_bytes,
                                  .place = place});
      case format::RecordType::kManifestPart: {
        storage::v1::ManifestPart part;
        if (!Parse(record, part) || !IsUlid(part.snapshot_id())) return Strange(location, "a manifest");
        return catalog_.AddManifestPart(part.snapshot_id(), part.part(), {.first_page = 0, .place = place});
      }
      case format::RecordType::kSnapshot: {
        storage::v1::SnapshotRecord snapshot;
        const bool sound = Parse(record, snapshot) && IsUlid(snapshot.snapshot_id()) && IsUuid(snapshot.device_id()) &&
                           IsName(snapshot.database()) && snapshot.root_digest().size() == format::kDigestBytes &&
                           format::IsPageSize(snapshot.page_size()) && snapshot.sequence() > 0;
        if (!sound) {
          ++strange_snapshots_;
          return Strange(location, "a snapshot");
        }
        LF_RETURN_IF_ERROR(catalog_.AddNumber(snapshot));
        // What was uploaded ahead of a backup is none.
        return snapshot.precopied() ? absl::OkStatus() : catalog_.AddSnapshot(snapshot, place);
      }
      case format::RecordType::kSnapshotMarks: {
        storage::v1::SnapshotMarksRecord marks;
        if (!Parse(record, marks)) return Strange(location, "snapshot marks");
        for (const storage::v1::SnapshotMark& mark : marks.marks()) LF_RETURN_IF_ERROR(catalog_.AddMark(mark));
        return absl::OkStatus();
      }
      case format::RecordType::kDevice: {
        storage::v1::DeviceRecord device;
        return Parse(record, device) ? catalog_.AddDevice(device) : Strange(location, "a device");
      }
      case format::RecordType::kDatabase: {
        storage::v1::DatabaseRecord database;
        return Parse(record, database) ? catalog_.AddDatabase(database) : Strange(location, "a database");
      }
      case format::RecordType::kOperator: {
        storage::v1::OperatorRecord who;
        return Parse(record, who) ? catalog_.AddOperator(who) : Strange(location, "an operator");
      }
      case format::RecordType::kPolicy: {
        storage::v1::PolicyRecord policy;
        return Parse(record, policy) ? catalog_.AddPolicy(policy) : Strange(location, "a policy");
      }
      case format::RecordType::kCatalogGeneration: {
        storage::v1::CatalogGenerationRecord generation;
        if (!Parse(record, generation)) return Strange(location, "a count of the catalog");
        catalog_.AddGeneration(generation.generation());
        return absl::OkStatus();
      }
      case format::RecordType::kRetentionHold: {
        storage::v1::RetentionHoldRecord hold;
        return Parse(record, hold) ? catalog_.AddHold(hold) : Strange(location, "a hold");
      }
      case format::RecordType::kGap: {
        storage::v1::GapRecord gap;
        return Parse(record, gap) ? catalog_.AddGap(gap) : Strange(location, "a gap");
      }
      default:
        return absl::OkStatus();
    }
  }

  template <class Message>
  static bool Parse(const format::ScannedRecord& record, Message& message) {
    return message.ParseFromArray(record.payload.data(), static_cast<int>(record.payload.size()));
  }

  absl::Status Strange(const store::Location& location, std::string_view what) {
    Problem(fmt::format("the record of {} in pack {:016x} at {} makes no sense", what, location.pack, location.offset));
    return absl::OkStatus();
  }

  absl::Status ProveAndKeep(const catalog::RebuildCatalog::Found& newest) {
    std::string why;
    LF_ASSIGN_OR_RETURN(bool kept, KeepProven(newest, why));
    if (kept) return absl::OkStatus();
    // The catalog may never have pointed to it: a heal was cut off behind its record, and a prune has dropped the layer that it added.
    LF_ASSIGN_OR_RETURN(const auto others, catalog_.Others(newest));
    for (const catalog::RebuildCatalog::Found& other : others) {
      std::string why_not;
      LF_ASSIGN_OR_RETURN(kept, KeepProven(other, why_not));
      if (kept) return absl::OkStatus();
    }
    ++report_.snapshots_lost;
    const storage::v1::SnapshotRecord& record = newest.record;
    Problem(fmt::format("snapshot {} of {}/{}: {}", record.snapshot_id(), record.device_id(), record.database(), why));
    return absl::OkStatus();
  }

  // False: it cannot be proven, and `why` says what is missing.
  absl::StatusOr<bool> KeepProven(const catalog::RebuildCatalog::Found& found, std::string& why) {
    const storage::v1::SnapshotRecord& record = found.record;
    std::vector<catalog::ManifestPlace> places;
    needed_.clear();
    LF_RETURN_IF_ERROR(Prove(record, places, why));
    if (!why.empty()) return false;
    LF_RETURN_IF_ERROR(catalog_.Keep(found));
    LF_RETURN_IF_ERROR(catalog_.KeepParts(record.snapshot_id(), 0, places));
    // Nothing may be left of one that fails. Of one with more chunks the manifest is walked again.
    if (needed_.size() < kMostNeeded) {
      std::sort(needed_.begin(), needed_.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
      for (const catalog::RebuildCatalog::FoundChunk& chunk : needed_) LF_RETURN_IF_ERROR(catalog_.AddRight(record.device_id(), chunk));
      return true;
    }
    LF_RETURN_IF_ERROR(WalkManifest(record, why, [&](const catalog::RebuildCatalog::FoundChunk& chunk) -> absl::Status {
      return catalog_.AddRight(record.device_id(), chunk);
    }));
    return true;
  }

  using Visit = absl::FunctionRef<absl::Status(const catalog::RebuildCatalog::FoundChunk&)>;

  static std::vector<storage::v1::ManifestLayer> LayersOf(const storage::v1::SnapshotRecord& record) {
    std::vector<storage::v1::ManifestLayer> layers(record.layers().begin(), record.layers().end());
    if (layers.empty()) {
      layers.emplace_back().set_id(record.snapshot_id());
      layers.back().set_parts(record.manifest_parts());
    }
    return layers;
  }

  // Calls `visit` for each entry's chunk. `why` says what is missing; empty: nothing. `places`: of all parts of all layers, in their order.
  absl::Status WalkManifest(const storage::v1::SnapshotRecord& record, std::string& why, Visit visit,
                            std::vector<catalog::ManifestPlace>* places = nullptr) {
    for (const storage::v1::ManifestLayer& layer : LayersOf(record)) {
      for (uint32_t next = 0; next < layer.parts();) {
        LF_ASSIGN_OR_RETURN(const auto some, catalog_.Parts(layer.id(), next, std::min(kPartsAtOnce, layer.parts() - next)));
        if (some.empty()) {
          why = fmt::format("part {} of layer {} of its manifest is missing", next, layer.id());
          return absl::OkStatus();
        }
        for (catalog::ManifestPlace place : some) {
          LF_RETURN_IF_ERROR(WalkPart(record, layer.id(), next++, place, why, visit));
          if (!why.empty()) return absl::OkStatus();
          if (places != nullptr) places->push_back(place);
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status WalkPart(const storage::v1::SnapshotRecord& record, const std::string& layer, uint32_t number, catalog::ManifestPlace& place,
                        std::string& why, Visit visit) {
    const auto stored = store_.Read({.pack = place.place.pack, .offset = place.place.offset});
    storage::v1::ManifestPart part;
    if (!stored.ok() || !part.ParseFromString(stored->payload) || part.snapshot_id() != layer || part.part() != number) {
      why = fmt::format("part {} of its manifest cannot be read", number);
      return absl::OkStatus();
    }
    place.first_page = FirstPageOf(part, record.page_size());
    for (const storage::v1::ManifestEntry& entry : part.entries()) {
      const auto name = format::ChunkName::FromBytes(entry.chunk_name());
      if (!name.has_value()) {
        why = "its manifest makes no sense";
        return absl::OkStatus();
      }
      LF_ASSIGN_OR_RETURN(const auto chunk, catalog_.FindChunk(*name));
      if (!chunk.has_value() || chunk->page_size != record.page_size() || chunk->page_count != PagesOf(entry)) {
        why = fmt::format("chunk {} is missing", name->Hex());
        return absl::OkStatus();
      }
      LF_RETURN_IF_ERROR(visit(*chunk));
    }
    return absl::OkStatus();
  }

  // Entries stand before names of extents, both ascending; a part may hold names alone.
  static uint32_t FirstPageOf(const storage::v1::ManifestPart& part, uint32_t page_size) {
    if (part.entries_size() == 0) return part.extents_size() == 0 ? 0 : format::FirstPageOf(page_size, part.extents(0));
    const storage::v1::ManifestEntry& entry = part.entries(0);
    if (entry.runs_size() > 0) return entry.runs(0).first_page();
    return entry.places_size() > 0 ? entry.places(0) : 0;
  }

  // Of the chunk.
  static uint64_t PagesOf(const storage::v1::ManifestEntry& entry) {
    if (entry.chunk_pages() != 0) return entry.chunk_pages();
    uint64_t pages = 0;
    for (const storage::v1::ManifestRun& run : entry.runs()) pages += run.page_count();
    for (int i = 1; i < entry.places_size(); i += 3) pages += entry.places(i);
    return pages;
  }

  absl::Status Prove(const storage::v1::SnapshotRecord& record, std::vector<catalog::ManifestPlace>& places, std::string& why) {
    if (record.root_version() != format::kRootVersion || (record.manifest_kind() != kOneLayer && record.manifest_kind() != kLayers)) {
      why = "a newer controller made it";
      return absl::OkStatus();
    }
    const auto keep = [this](const catalog::RebuildCatalog::FoundChunk& chunk) {
      if (needed_.size() < kMostNeeded) needed_.push_back(chunk);
      return absl::OkStatus();
    };
    LF_RETURN_IF_ERROR(WalkManifest(record, why, keep, &places));
    if (!why.empty()) return absl::OkStatus();
    const absl::Status proven = ProveRoot(record, places);
    if (proven.ok()) return absl::OkStatus();
    // What the store cannot read has been read a moment ago; everything else is about the manifest.
    if (!absl::IsDataLoss(proven) && !absl::IsUnimplemented(proven)) return proven;
    why = MessageOf(proven);
    return absl::OkStatus();
  }

  // All layers together name every page, and the names of the extents give the root. The content of chunks is not looked at.
  absl::Status ProveRoot(const storage::v1::SnapshotRecord& record, const std::vector<catalog::ManifestPlace>& places) {
    catalog::SnapshotLayout layout{.key = 0,
                                   .id = SnapshotId(record.snapshot_id()),
                                   .page_size = record.page_size(),
                                   .page_count = record.page_count(),
                                   .root = {},
                                   .root_version = record.root_version(),
                                   .manifest_kind = record.manifest_kind(),
                                   .in_trash = false,
                                   .layers = {}};
    uint32_t parts = 0;
    for (const storage::v1::ManifestLayer& layer : LayersOf(record)) {
      layout.layers.push_back({.id = layer.id(), .parts = layer.parts(), .bytes = layer.bytes(), .first_part = parts});
      parts += layer.parts();
    }
    const auto some = [&places](uint32_t first, uint32_t limit) -> absl::StatusOr<std::vector<catalog::ManifestPlace>> {
      const size_t from = std::min<size_t>(first, places.size());
      const size_t end = std::min<size_t>(from + limit, places.size());
      return std::vector<catalog::ManifestPlace>(places.begin() + static_cast<std::ptrdiff_t>(from),
                                                 places.begin() + static_cast<std::ptrdiff_t>(end));
    };
    LF_ASSIGN_OR_RETURN(manifest::ManifestReader reader, manifest::ManifestReader::Open(some, store_, std::move(layout)));
    format::RootBuilder root(record.page_size(), record.page_count());
    manifest::Stretch stretch;
    for (uint32_t number = 0; number < reader.stretch_count(); ++number) {
      LF_RETURN_IF_ERROR(reader.Read(number, stretch));
      for (uint32_t extent = 0; extent < stretch.extent_count(); ++extent) {
        if (const auto whole = stretch.WholeChunk(extent); whole.has_value()) {
          root.Add(stretch.chunks()[*whole].name);
        } else if (stretch.given_name(extent).has_value()) {
          root.Add(*stretch.given_name(extent));
        } else {
          return Error(absl::StatusCode::kDataLoss, "MANIFEST_DAMAGED",
                       fmt::format("its manifest does not name extent {}", stretch.first_extent() + extent));
        }
      }
    }
    if (root.Finish().AsString() == record.root_digest()) return absl::OkStatus();
    return Error(absl::StatusCode::kDataLoss, "ROOT_MISMATCH", "its manifest does not give its root digest");
  }

  store::Store& store_;
  catalog::RebuildCatalog& catalog_;
  const Clock& clock_;
  const RebuildOptions& options_;
  std::vector<catalog::RebuildCatalog::FoundChunk> needed_;  // by the snapshot that is proven, kMostNeeded at most
  uint64_t newest_pack_ = 0;
  int64_t strange_snapshots_ = 0;
  uint64_t unknown_bytes_ = 0;  // where records of any kind may have stood
  RebuildReport report_;
};

}  // namespace

absl::StatusOr<RebuildReport> Rebuild(store::Store& store, catalog::RebuildCatalog& catalog, const Clock& clock,
                                      const RebuildOptions& options) {
  return Rebuilder(store, catalog, clock, options).Run();
}

}  // namespace litefleet::rebuild
