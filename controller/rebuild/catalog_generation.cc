#include "controller/rebuild/catalog_generation.h"

#include <algorithm>
#include <string>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "fmt/format.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::rebuild {
namespace {

template <class Record>
uint64_t RevisionOf(ByteView payload) {
  Record record;
  return record.ParseFromArray(payload.data(), static_cast<int>(payload.size())) ? record.revision() : 0;
}

// What the record says was given by the catalog that wrote it.
catalog::GenerationCatalog::Counts CountsIn(const format::ScannedRecord& record) {
  catalog::GenerationCatalog::Counts counts;
  const ByteView payload = record.payload;
  const auto size = static_cast<int>(payload.size());
  switch (record.header.type) {
    case format::RecordType::kCatalogGeneration: {
      storage::v1::CatalogGenerationRecord generation;
      if (generation.ParseFromArray(payload.data(), size)) counts.generation = generation.generation();
      break;
    }
    case format::RecordType::kSnapshotMarks: {
      storage::v1::SnapshotMarksRecord marks;
      if (!marks.ParseFromArray(payload.data(), size)) break;
      for (const storage::v1::SnapshotMark& mark : marks.marks()) counts.mark_revision = std::max(counts.mark_revision, mark.revision());
      break;
    }
    case format::RecordType::kDevice:
      counts.record_revision = RevisionOf<storage::v1::DeviceRecord>(payload);
      break;
    case format::RecordType::kDatabase:
      counts.record_revision = RevisionOf<storage::v1::DatabaseRecord>(payload);
      break;
    case format::RecordType::kOperator:
      counts.record_revision = RevisionOf<storage::v1::OperatorRecord>(payload);
      break;
    case format::RecordType::kPolicy:
      counts.record_revision = RevisionOf<storage::v1::PolicyRecord>(payload);
      break;
    case format::RecordType::kRetentionHold:
      counts.record_revision = RevisionOf<storage::v1::RetentionHoldRecord>(payload);
      break;
    case format::RecordType::kGap:
      counts.record_revision = RevisionOf<storage::v1::GapRecord>(payload);
      break;
    default:
      break;
  }
  return counts;
}

}  // namespace

absl::Status CatalogGeneration::CheckNewest() const {
  LF_ASSIGN_OR_RETURN(const catalog::GenerationCatalog::Counts known, catalog_.Get());
  for (const store::PackInfo& pack : store_.Packs()) {
    if (pack.id < known.largest_pack) continue;  // whatever came later stands in this one or behind it
    absl::Status verdict = absl::OkStatus();
    const auto scan = store_.ScanPack(pack.id, [&](const store::Location&, const format::ScannedRecord& record) {
      const catalog::GenerationCatalog::Counts found = CountsIn(record);
      const bool newer =
          found.generation > known.generation || found.record_revision > known.record_revision || found.mark_revision > known.mark_revision;
      if (newer) {
        verdict = Error(absl::StatusCode::kFailedPrecondition, "CATALOG_OUTDATED",
                        fmt::format("the catalog is an older copy: pack {:016x} was written by one that had counted further "
                                    "(generation {}, here {}; revisions {} and {}, here {} and {})",
                                    pack.id, found.generation, known.generation, found.record_revision, found.mark_revision,
                                    known.record_revision, known.mark_revision),
                        "served with it, newer backups would be pruned and revoked devices be trusted: move catalog.db away with its "
                        "-wal and -shm, and make it anew from the packs with `litefleet-controller rebuild`");
      }
      return verdict;
    });
    LF_RETURN_IF_ERROR(verdict);
    // A pack that is damaged is a matter for scrub; it is no proof.
    if (scan.ok() || absl::IsDataLoss(scan.status()) || absl::IsFailedPrecondition(scan.status())) continue;
    return Error(scan.status().code(), ReasonOf(scan.status()),
                 fmt::format("pack {:016x} cannot be read, and whether the catalog is an older copy is said there: {}", pack.id,
                             MessageOf(scan.status())),
                 "make it readable for the controller's user (chown, chmod; or look at the disk), and start again");
  }
  return absl::OkStatus();
}

uint64_t CatalogGeneration::StoredBytes() const {
  uint64_t bytes = 0;
  for (const store::PackInfo& pack : store_.Packs()) bytes += pack.size;
  return bytes;
}

absl::StatusOr<uint64_t> CatalogGeneration::Advance() {
  const Turn::Holder turn(turn_);
  LF_ASSIGN_OR_RETURN(const uint64_t generation, catalog_.Next());
  LF_CRASH_POINT("generation.after_catalog");
  storage::v1::CatalogGenerationRecord record;
  record.set_generation(generation);
  record.set_written_at_ms(ToUnixMillis(clock_.Now()));
  const std::string bytes = record.SerializeAsString();
  LF_ASSIGN_OR_RETURN(const store::Placed placed, store_.PutRecord(format::RecordType::kCatalogGeneration, AsBytes(bytes)));
  LF_RETURN_IF_ERROR(store_.Sync(placed.epoch));
  LF_CRASH_POINT("generation.after_sync");
  stored_bytes_ = StoredBytes();
  return generation;
}

absl::Status CatalogGeneration::AdvanceIfGrown() {
  {
    const Turn::Holder turn(turn_);
    if (StoredBytes() == stored_bytes_) return absl::OkStatus();
  }
  return Advance().status();
}

}  // namespace litefleet::rebuild
