// Packs that are mostly dead: what counts in them is copied into the open pack, then they go.
#include <algorithm>
#include <set>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/format/crc32c.h"
#include "controller/prune/pruner.h"
#include "controller/store/put_twice.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::prune {
namespace {

using catalog::PackPlace;
using catalog::PruneCatalog;
using Use = PruneCatalog::Use;

// Moves by a transaction each; a pack has at most 131,072 records.
struct Copied {
  std::vector<PruneCatalog::Moved> moved;
  int64_t bytes = 0;
  uint64_t epoch = 0;
};

PackPlace PlaceOf(const store::Location& location) { return {.pack = location.pack, .offset = location.offset}; }

}  // namespace

absl::Status Pruner::RewritePacks(const PruneOptions& options, const PruneProgress& progress, v1::PruneReport& report) {
  std::vector<store::PackInfo> packs = deps_.store.Packs();
  if (packs.empty()) return absl::OkStatus();
  // Everything below is decided by what the catalog counts as live in a pack; others are all dead.
  const auto live_of = [&](uint64_t id) -> absl::StatusOr<int64_t> {
    LF_ASSIGN_OR_RETURN(const std::vector<PruneCatalog::Pack> rows, deps_.catalog.PacksAfter(id - 1, 1));
    if (rows.empty() || rows[0].id != id) return 0;
    return rows[0].chunk_bytes + rows[0].chunks * static_cast<int64_t>(format::kRecordHeaderBytes) + rows[0].record_bytes;
  };
  const auto mostly_dead = [&](const store::PackInfo& pack, int64_t live) {
    const auto size = static_cast<int64_t>(pack.size);
    return (size - live) * 100 >= size * options.rewrite_percent;
  };
  if (!options.dry_run && !packs.back().sealed && report.chunks_swept() > 0) {
    LF_ASSIGN_OR_RETURN(const int64_t live, live_of(packs.back().id));
    if (mostly_dead(packs.back(), live)) {
      LF_RETURN_IF_ERROR(deps_.store.SealOpenPack());
      packs = deps_.store.Packs();
    }
  }
  must_count_ = true;
  if (report.snapshots_removed() > 0) stuck_.clear();  // what was in the way may be gone
  std::set<uint64_t> there;
  for (const store::PackInfo& pack : packs) there.insert(pack.id);
  size_t done = 0;
  for (const store::PackInfo& pack : packs) {
    LF_RETURN_IF_ERROR(progress("rewriting packs", 0.6 + 0.4 * static_cast<double>(done++) / static_cast<double>(packs.size())));
    // Of one that is held the catalog does not know yet what is live in it.
    if (!pack.sealed || pack.held) continue;
    LF_ASSIGN_OR_RETURN(const int64_t live, live_of(pack.id));
    if (!mostly_dead(pack, live)) continue;
    // As long as its damage may heal nothing goes; what can be read of it has moved out already where it was tried.
    LF_ASSIGN_OR_RETURN(const bool heals, deps_.catalog.WaitsForHealing(pack.id));
    if (heals || stuck_.contains(pack.id)) {
      report.set_packs_damaged(report.packs_damaged() + 1);
      continue;
    }
    if (options.dry_run) {
      live == 0 ? report.set_packs_removed(report.packs_removed() + 1) : report.set_packs_rewritten(report.packs_rewritten() + 1);
      report.set_bytes_removed(report.bytes_removed() + static_cast<int64_t>(pack.size));
      report.set_bytes_copied(report.bytes_copied() + live);
      continue;
    }
    if (deps_.count_generation && std::exchange(must_count_, false)) {
      LF_ASSIGN_OR_RETURN(generation_, deps_.count_generation());
    }
    const int64_t removed = report.bytes_removed();
    LF_RETURN_IF_ERROR(RewritePack(pack, *there.begin(), report));
    if (report.bytes_removed() != removed) there.erase(pack.id);
    if (there.empty()) there.insert(pack.id + 1);
  }
  return absl::OkStatus();
}

absl::Status Pruner::RewritePack(const store::PackInfo& pack, uint64_t oldest_pack, v1::PruneReport& report) {
  // A pack that is rewritten holds no older record than itself: of its own commits no record is left when it is gone.
  const uint64_t oldest = oldest_pack == pack.id ? pack.id + 1 : oldest_pack;
  Copied copied;
  bool lost_epoch = false;
  const auto keep = [&](const absl::StatusOr<store::Placed>& placed, size_t bytes) -> absl::Status {
    LF_RETURN_IF_ERROR(placed.status());
    lost_epoch |= copied.epoch != 0 && copied.epoch != placed->epoch;
    copied.epoch = placed->epoch;
    copied.bytes += static_cast<int64_t>(bytes + format::kRecordHeaderBytes);
    return absl::OkStatus();
  };
  // What was written twice stays so, and apart. Equal checksums of other records cost a spacer.
  std::set<uint32_t> copied_once;
  const auto apart = [&](ByteView payload) -> absl::Status {
    if (copied_once.insert(format::Crc32c(payload)).second) return absl::OkStatus();
    return keep(store::PutSpacer(deps_.store), store::kSpacerBytes);
  };
  const auto scanned = deps_.store.ScanPack(pack.id, [&](const store::Location& at, const format::ScannedRecord& record) -> absl::Status {
    PruneCatalog::Moved moved{.use = Use::kNone, .name = {}, .snapshot = {}, .from = PlaceOf(at), .to = {}};
    switch (record.header.type) {
      case format::RecordType::kChunk: {
        LF_ASSIGN_OR_RETURN(moved.use, deps_.catalog.UseOfChunk(record.header.name, moved.from));
        moved.name = record.header.name;
        if (moved.use != Use::kChunk) return absl::OkStatus();
        const auto placed = deps_.store.PutChunk({.name = record.header.name,
                                                  .codec = record.header.codec,
                                                  .page_size = record.header.page_size,
                                                  .page_count = record.header.page_count,
                                                  .stored = record.payload,
                                                  .may_use_reserve = true});
        LF_RETURN_IF_ERROR(keep(placed, record.payload.size()));
        moved.to = PlaceOf(placed->location);
        copied.moved.push_back(std::move(moved));
        return absl::OkStatus();
      }
      case format::RecordType::kManifestPart: {
        LF_ASSIGN_OR_RETURN(moved.use, deps_.catalog.UseOfManifestPart(moved.from));
        break;
      }
      case format::RecordType::kSnapshot: {
        storage::v1::SnapshotRecord snapshot;
        if (!snapshot.ParseFromArray(record.payload.data(), static_cast<int>(record.payload.size()))) return absl::OkStatus();
        moved.snapshot = snapshot.snapshot_id();
        LF_ASSIGN_OR_RETURN(moved.use, deps_.catalog.UseOfSnapshot(moved.snapshot, moved.from));
        break;
      }
      case format::RecordType::kSnapshotMarks: {
        storage::v1::SnapshotMarksRecord marks;
        storage::v1::SnapshotMarksRecord kept;
        if (!marks.ParseFromArray(record.payload.data(), static_cast<int>(record.payload.size()))) return absl::OkStatus();
        for (const storage::v1::SnapshotMark& mark : marks.marks()) {
          LF_ASSIGN_OR_RETURN(const bool counts, deps_.catalog.MarkCounts(mark.snapshot_id(), mark.revision(), oldest));
          if (counts) *kept.add_marks() = mark;
        }
        if (kept.marks().empty()) return absl::OkStatus();
        kept.set_written_at_ms(marks.written_at_ms());
        const std::string bytes = kept.SerializeAsString();
        LF_RETURN_IF_ERROR(apart(AsBytes(bytes)));
        return keep(deps_.store.PutRecord(record.header.type, AsBytes(bytes)), bytes.size());
      }
      case format::RecordType::kCatalogGeneration: {
        // A higher one was written before this rewrite began.
        storage::v1::CatalogGenerationRecord generation;
        const bool sound = generation.ParseFromArray(record.payload.data(), static_cast<int>(record.payload.size()));
        if (sound && generation.generation() < generation_) return absl::OkStatus();
        return keep(deps_.store.PutRecord(record.header.type, record.payload), record.payload.size());
      }
      case format::RecordType::kGap: {
        storage::v1::GapRecord gap;
        if (!gap.ParseFromArray(record.payload.data(), static_cast<int>(record.payload.size()))) return absl::OkStatus();
        LF_ASSIGN_OR_RETURN(const bool counts, deps_.catalog.GapCounts(gap.gap_id(), gap.revision()));
        if (!counts) return absl::OkStatus();
        return keep(deps_.store.PutRecord(record.header.type, record.payload), record.payload.size());
      }
      default:
        // Of other kinds nobody knows better than their own revision.
        LF_RETURN_IF_ERROR(apart(record.payload));
        return keep(deps_.store.PutRecord(record.header.type, record.payload), record.payload.size());
    }
    if (moved.use == Use::kNone) return absl::OkStatus();
    const auto placed = deps_.store.PutRecord(record.header.type, record.payload);
    LF_RETURN_IF_ERROR(keep(placed, record.payload.size()));
    moved.to = PlaceOf(placed->location);
    copied.moved.push_back(std::move(moved));
    return absl::OkStatus();
  });
  if (absl::IsDataLoss(scanned.status())) {
    // Not even its header can be read, or its file is gone: nothing can be done here, and it must not end the run.
    report.set_packs_damaged(report.packs_damaged() + 1);
    stuck_.insert(pack.id);
    return deps_.catalog.ForgetProven(pack.id);
  }
  LF_RETURN_IF_ERROR(scanned.status());
  const bool damaged = scanned->damaged_bytes > 0;
  if (lost_epoch) return Error(absl::StatusCode::kUnavailable, "STORE_FAILED", "the store failed while a pack was copied", "prune again");
  if (copied.epoch != 0) LF_RETURN_IF_ERROR(deps_.store.Sync(copied.epoch));
  LF_CRASH_POINT("prune.after_copy");
  bool empty = false;
  for (size_t at = 0, left = copied.moved.size();;) {
    const size_t some = std::min(left, static_cast<size_t>(PruneCatalog::kAtOnce));
    LF_ASSIGN_OR_RETURN(empty, deps_.catalog.Switch(std::span(copied.moved).subspan(at, some), pack.id, some == left));
    LF_CRASH_POINT("prune.after_switch");
    at += some;
    left -= some;
    if (left == 0) break;
  }
  report.set_bytes_copied(report.bytes_copied() + copied.bytes);
  if (!empty) {
    // Something points to what could not be read: scrub finds out what it was, and who needs it.
    report.set_packs_damaged(report.packs_damaged() + 1);
    stuck_.insert(pack.id);
    return damaged ? deps_.catalog.ForgetProven(pack.id) : absl::OkStatus();
  }
  LF_RETURN_IF_ERROR(RemovePack(pack.id));
  copied.moved.empty() ? report.set_packs_removed(report.packs_removed() + 1) : report.set_packs_rewritten(report.packs_rewritten() + 1);
  report.set_bytes_removed(report.bytes_removed() + static_cast<int64_t>(pack.size));
  return absl::OkStatus();
}

absl::Status Pruner::RemovePack(uint64_t pack) {
  LF_RETURN_IF_ERROR(deps_.store.RemovePack(pack));
  LF_CRASH_POINT("prune.after_unlink");
  const std::vector<store::PackInfo> packs = deps_.store.Packs();
  return deps_.catalog.Removed(pack, packs.empty() ? pack + 1 : packs.front().id);
}

}  // namespace litefleet::prune
