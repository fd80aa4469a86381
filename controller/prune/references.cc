#include "controller/prune/references.h"

#include <vector>

#include "common/base/status.h"
#include "fmt/format.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::prune {
namespace {

constexpr int kPlacesAtOnce = 1000;

absl::Status ReadPart(store::Store& store, catalog::PackPlace place, PartRead& part, std::vector<format::ChunkName>& names) {
  LF_ASSIGN_OR_RETURN(const store::StoredRecord record, store.Read({.pack = place.pack, .offset = place.offset}));
  storage::v1::ManifestPart manifest;
  if (record.header.type != format::RecordType::kManifestPart || !manifest.ParseFromString(record.payload)) {
    return Error(absl::StatusCode::kDataLoss, "CHUNK_DAMAGED", "there is no part of a manifest");
  }
  part = {.place = place, .bytes = static_cast<int64_t>(record.payload.size() + format::kRecordHeaderBytes)};
  names.clear();
  for (const storage::v1::ManifestEntry& entry : manifest.entries()) {
    const auto name = format::ChunkName::FromBytes(entry.chunk_name());
    if (!name.has_value()) return Error(absl::StatusCode::kDataLoss, "CHUNK_DAMAGED", "a chunk's name is not 32 bytes long");
    names.push_back(*name);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int64_t> ForEachChunk(const catalog::PruneCatalog& catalog, store::Store& store, std::optional<SystemTime> gone_before,
                                     absl::FunctionRef<absl::Status(const PartRead&, std::span<const format::ChunkName>)> visit) {
  int64_t read = 0;
  catalog::PackPlace after;
  PartRead part;
  std::vector<format::ChunkName> names;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const std::vector<catalog::PackPlace> places, catalog.ManifestPlaces(after, kPlacesAtOnce, gone_before));
    if (places.empty()) return read;
    for (const catalog::PackPlace& place : places) {
      after = place;
      const absl::Status status = ReadPart(store, place, part, names);
      if (!status.ok()) {
        if (!absl::IsDataLoss(status)) return status;
        LF_ASSIGN_OR_RETURN(const bool in_trash, catalog.AllInTrash(place));
        if (in_trash) continue;
        return Error(absl::StatusCode::kDataLoss, "MANIFEST_UNREADABLE",
                     fmt::format("a manifest cannot be read, so nobody knows what its snapshots need: pack {:016x} at {}: {}", place.pack,
                                 place.offset, MessageOf(status)),
                     "`litefleet store scrub` names the snapshots; delete them if they cannot be healed");
      }
      ++read;
      LF_RETURN_IF_ERROR(visit(part, names));
    }
  }
}

}  // namespace litefleet::prune
