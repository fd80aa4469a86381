// Packs that are mostly dead: what counts in them is copied into the open pack, then they go.
#include <algorithm>
#include <map>
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

// What was written twice stays so, and apart.
class Apart {
 public:
  // Whether a spacer comes first; `at`: how many bytes were written. Equal checksums of other records cost a spacer at most.
  bool NeedsSpacer(ByteView payload, int64_t at) {
    const auto [first, once] =
        ends_.emplace(format::Crc32c(payload), at + static_cast<int64_t>(payload.size() + format::kRecordHeaderBytes));
    return !once && at - first->second < static_cast<int64_t>(store::kSpacerBytes);
  }

 private:
  std::map<uint32_t, int64_t> ends_;
};

// A pack that cannot be read as a whole, whatever the reason: the others can.
bool CannotBeRead(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return absl::IsDataLoss(status) || reason == "IO_ERROR" || reason == "NO_PERMISSION";
}

PackPlace PlaceOf(const store::Location& location) { return {.pack = location.pack, .offset = location.offset}; }

}  // namespace

absl::Status Pruner::RewritePacks(const PruneOptions& options, const PruneProgress& progress, v1::PruneReport& report) {
  if (!options.dry_run) deps_.store.SealGivenUpPacks();
  std::vector<store::PackInfo> packs = deps_.store.Packs();
  if (packs.empty()) return absl::OkStatus();
  // Everything below is decided by what the catalog counts as live in a pack; others are all dead.
  const auto live_of = [&](uint64_t id) -> absl::StatusOr<int64_t> {
    LF_ASSIGN_OR_RETURN(const std::vector<PruneCatalog::Pack> rows, deps_.catalog.PacksAfter(id - 1, 1));
    PruneCatalog::Pack pack{.id = id};
    if (!rows.empty() && rows[0].id == id) pack = rows[0];
    if (options.dry_run) {
      if (const auto gone = would_go_.find(id); gone != would_go_.end()) {
        pack.chunks -= gone->second.chunks;
        pack.chunk_bytes -= gone->second.bytes;
      }
      const auto records = record_bytes_.find(id);
      pack.record_bytes = records == record_bytes_.end() ? 0 : records->second;
    }
    return pack.chunk_bytes + pack.chunks * static_cast<int64_t>(format::kRecordHeaderBytes) + pack.record_bytes;
  };
  const auto mostly_dead = [&](const store::PackInfo& pack, int64_t live) {
    const auto size = static_cast<int64_t>(pack.size);
    return (size - live) * 100 >= size * options.rewrite_percent;
  };
  const bool swept = report.chunks_swept() > 0;
  if (const store::PackInfo open = packs.back(); !open.sealed && (swept || (swept_ && !open.held))) {
    LF_ASSIGN_OR_RETURN(int64_t live, live_of(open.id));
    if (!swept && mostly_dead(open, live)) {
      // A run that was cut off may have swept it, or none did, and all of it are records that a rewrite would only copy.
      kept_bytes_.erase(open.id);
      LF_ASSIGN_OR_RETURN(const int64_t records, KeptRecords(open.id, packs.size() == 1 ? open.id + 1 : packs.front().id,
                                                             [&] { return progress("rewriting packs", 0.6); }));
      kept_bytes_.erase(open.id);  // it grows
      live += records;
    }
    if (options.dry_run) {
      packs.back().sealed = mostly_dead(open, live);
    } else if (mostly_dead(open, live)) {
      LF_RETURN_IF_ERROR(deps_.store.SealOpenPack());
      packs = deps_.store.Packs();
    }
    if (!options.dry_run) swept_ = false;
  }
  must_count_ = true;
  if (report.snapshots_removed() > 0) stuck_.clear();  // what was in the way may be gone
  std::set<uint64_t> there;
  for (const store::PackInfo& pack : packs) there.insert(pack.id);
  size_t done = 0;
  for (const store::PackInfo& pack : packs) {
    const double share = 0.6 + 0.4 * static_cast<double>(done++) / static_cast<double>(packs.size());
    const auto go_on = [&] { return progress("rewriting packs", share); };
    LF_RETURN_IF_ERROR(go_on());
    // Of one that is held the catalog does not know yet what is live in it.
    if (!pack.sealed || pack.held) continue;
    LF_ASSIGN_OR_RETURN(int64_t live, live_of(pack.id));
    if (!mostly_dead(pack, live)) continue;
    // A pack that is rewritten holds no older record than itself: of its own commits no record is left when it is gone.
    const uint64_t oldest = *there.begin() == pack.id ? pack.id + 1 : *there.begin();
    // The catalog counts chunks and manifests. What else is copied by a rewrite is not dead either, or it would be by each.
    LF_ASSIGN_OR_RETURN(const int64_t records, KeptRecords(pack.id, oldest, go_on));
    live += records;
    if (!mostly_dead(pack, live)) continue;
    // As long as its damage may heal nothing goes; what can be read of it has moved out already where it was tried.
    LF_ASSIGN_OR_RETURN(const bool heals, deps_.catalog.WaitsForHealing(pack.id));
    if (heals || stuck_.contains(pack.id)) {
      report.set_packs_damaged(report.packs_damaged() + 1);
      continue;
    }
    if (options.dry_run) {
      live == records ? report.set_packs_removed(report.packs_removed() + 1) : report.set_packs_rewritten(report.packs_rewritten() + 1);
      report.set_bytes_removed(report.bytes_removed() + static_cast<int64_t>(pack.size));
      report.set_bytes_copied(report.bytes_copied() + live);
      continue;
    }
    if (deps_.count_generation && std::exchange(must_count_, false)) {
      LF_ASSIGN_OR_RETURN(generation_, deps_.count_generation());
    }
    const int64_t removed = report.bytes_removed();
    LF_RETURN_IF_ERROR(RewritePack(pack, oldest, go_on, report));
    if (report.bytes_removed() != removed) there.erase(pack.id);
    if (there.empty()) there.insert(pack.id + 1);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Pruner::Kept>> Pruner::KeptOf(const store::Location& at, const format::ScannedRecord& record,
                                                           uint64_t oldest) const {
  Kept kept;
  kept.moved.from = PlaceOf(at);
  const char* const bytes = AsText(record.payload).data();
  const auto size = static_cast<int>(record.payload.size());
  switch (record.header.type) {
    case format::RecordType::kChunk: {
      LF_ASSIGN_OR_RETURN(kept.moved.use, deps_.catalog.UseOfChunk(record.header.name, kept.moved.from));
      kept.moved.name = record.header.name;
      if (kept.moved.use != Use::kChunk) return std::nullopt;
      return kept;
    }
    case format::RecordType::kManifestPart: {
      LF_ASSIGN_OR_RETURN(kept.moved.use, deps_.catalog.UseOfManifestPart(kept.moved.from));
      if (kept.moved.use == Use::kNone) return std::nullopt;
      return kept;
    }
    case format::RecordType::kSnapshot: {
      storage::v1::SnapshotRecord snapshot;
      if (!snapshot.ParseFromArray(bytes, size)) return std::nullopt;
      kept.moved.snapshot = snapshot.snapshot_id();
      LF_ASSIGN_OR_RETURN(kept.moved.use, deps_.catalog.UseOfSnapshot(kept.moved.snapshot, kept.moved.from));
      if (kept.moved.use == Use::kNone) return std::nullopt;
      return kept;
    }
    case format::RecordType::kSnapshotMarks: {
      storage::v1::SnapshotMarksRecord marks;
      storage::v1::SnapshotMarksRecord counting;
      if (!marks.ParseFromArray(bytes, size)) return std::nullopt;
      for (const storage::v1::SnapshotMark& mark : marks.marks()) {
        LF_ASSIGN_OR_RETURN(const bool counts, deps_.catalog.MarkCounts(mark.snapshot_id(), mark.revision(), oldest));
        if (counts) *counting.add_marks() = mark;
      }
      if (counting.marks().empty()) return std::nullopt;
      counting.set_written_at_ms(marks.written_at_ms());
      kept.payload = counting.SerializeAsString();
      kept.apart = true;
      return kept;
    }
    case format::RecordType::kCatalogGeneration: {
      // A higher one was written before this rewrite began.
      storage::v1::CatalogGenerationRecord generation;
      if (generation.ParseFromArray(bytes, size) && generation.generation() < generation_) return std::nullopt;
      return kept;
    }
    case format::RecordType::kGap: {
      storage::v1::GapRecord gap;
      if (!gap.ParseFromArray(bytes, size)) return std::nullopt;
      LF_ASSIGN_OR_RETURN(const bool counts, deps_.catalog.GapCounts(gap.gap_id(), gap.revision()));
      if (!counts) return std::nullopt;
      return kept;
    }
    default: {
      LF_ASSIGN_OR_RETURN(const bool superseded, IsSuperseded(record));
      if (superseded) return std::nullopt;
      kept.apart = true;
      return kept;
    }
  }
}

absl::StatusOr<bool> Pruner::IsSuperseded(const format::ScannedRecord& record) const {
  const auto look = [&](auto parsed) -> absl::StatusOr<bool> {
    const bool sound = parsed.ParseFromArray(AsText(record.payload).data(), static_cast<int>(record.payload.size()));
    if (!sound || deps_.records == nullptr) return false;
    return deps_.records->IsSuperseded(std::move(parsed));
  };
  switch (record.header.type) {
    case format::RecordType::kDevice:
      return look(storage::v1::DeviceRecord());
    case format::RecordType::kDatabase:
      return look(storage::v1::DatabaseRecord());
    case format::RecordType::kOperator:
      return look(storage::v1::OperatorRecord());
    case format::RecordType::kPolicy:
      return look(storage::v1::PolicyRecord());
    case format::RecordType::kRetentionHold:
      return look(storage::v1::RetentionHoldRecord());
    default:
      return false;  // of a kind that is unknown here
  }
}

absl::StatusOr<int64_t> Pruner::KeptRecords(uint64_t pack, uint64_t oldest, const std::function<absl::Status()>& go_on) {
  KeptBytes& known = kept_bytes_[pack];
  if (known.oldest == oldest && known.asked < kAskedAgain) {
    ++known.asked;
    return known.bytes;
  }
  int64_t bytes = 0;
  Apart apart;
  const auto count = [&](const store::Location& at, const format::ScannedRecord& record) -> absl::Status {
    LF_RETURN_IF_ERROR(go_on());
    // Those the catalog counts; and before a pack goes a generation is written that is higher than these.
    const format::RecordType type = record.header.type;
    if (type == format::RecordType::kChunk || type == format::RecordType::kManifestPart) return absl::OkStatus();
    if (type == format::RecordType::kCatalogGeneration && deps_.count_generation) return absl::OkStatus();
    LF_ASSIGN_OR_RETURN(const std::optional<Kept> kept, KeptOf(at, record, oldest));
    if (!kept.has_value()) return absl::OkStatus();
    const ByteView payload = kept->PayloadOf(record);
    if (kept->apart && apart.NeedsSpacer(payload, bytes)) bytes += static_cast<int64_t>(store::kSpacerBytes + format::kRecordHeaderBytes);
    bytes += static_cast<int64_t>(payload.size() + format::kRecordHeaderBytes);
    return absl::OkStatus();
  };
  absl::Status visited = absl::OkStatus();
  const auto scanned = deps_.store.ScanPack(
      pack, [&](const store::Location& at, const format::ScannedRecord& record) { return visited = count(at, record); });
  LF_RETURN_IF_ERROR(visited);
  // One that cannot be read is for the rewrite to tell.
  if (!scanned.ok() && !CannotBeRead(scanned.status())) return scanned.status();
  if (!scanned.ok() && !absl::IsDataLoss(scanned.status())) return bytes;  // it may be read by the next run
  known = {.oldest = oldest, .bytes = bytes, .asked = 1};
  return bytes;
}

absl::Status Pruner::RewritePack(const store::PackInfo& pack, uint64_t oldest, const std::function<absl::Status()>& go_on,
                                 v1::PruneReport& report) {
  Copied copied;
  bool lost_epoch = false;
  const auto keep = [&](const absl::StatusOr<store::Placed>& placed, size_t bytes) -> absl::Status {
    LF_RETURN_IF_ERROR(placed.status());
    lost_epoch |= copied.epoch != 0 && copied.epoch != placed->epoch;
    copied.epoch = placed->epoch;
    copied.bytes += static_cast<int64_t>(bytes + format::kRecordHeaderBytes);
    return absl::OkStatus();
  };
  Apart apart;
  const auto copy = [&](const store::Location& at, const format::ScannedRecord& record) -> absl::Status {
    LF_RETURN_IF_ERROR(go_on());
    LF_ASSIGN_OR_RETURN(std::optional<Kept> kept, KeptOf(at, record, oldest));
    if (!kept.has_value()) return absl::OkStatus();
    const ByteView payload = kept->PayloadOf(record);
    if (kept->apart && apart.NeedsSpacer(payload, copied.bytes))
      LF_RETURN_IF_ERROR(keep(store::PutSpacer(deps_.store), store::kSpacerBytes));
    const bool chunk = record.header.type == format::RecordType::kChunk;
    const auto placed = chunk ? deps_.store.PutChunk({.name = record.header.name,
                                                      .codec = record.header.codec,
                                                      .page_size = record.header.page_size,
                                                      .page_count = record.header.page_count,
                                                      .stored = payload,
                                                      .may_use_reserve = true})
                              : deps_.store.PutRecord(record.header.type, payload);
    LF_RETURN_IF_ERROR(keep(placed, payload.size()));
    if (kept->moved.use == Use::kNone) return absl::OkStatus();
    kept->moved.to = PlaceOf(placed->location);
    copied.moved.push_back(std::move(kept->moved));
    return absl::OkStatus();
  };
  absl::Status visited = absl::OkStatus();
  const auto scanned = deps_.store.ScanPack(
      pack.id, [&](const store::Location& at, const format::ScannedRecord& record) { return visited = copy(at, record); });
  LF_RETURN_IF_ERROR(visited);
  if (CannotBeRead(scanned.status())) {
    // Neither its header nor its footer can be read, its file is gone or may not be opened: nothing can be done here, and it must not end
    // the run.
    report.set_packs_damaged(report.packs_damaged() + 1);
    if (!absl::IsDataLoss(scanned.status())) return absl::OkStatus();  // as soon as it can be read it goes
    stuck_.insert(pack.id);
    return deps_.catalog.ForgetProven(pack.id);
  }
  LF_RETURN_IF_ERROR(scanned.status());
  const bool damaged = scanned->damaged_bytes > 0;
  if (lost_epoch) return Error(absl::StatusCode::kUnavailable, "STORE_FAILED", "the store failed while a pack was copied", "prune again");
  LF_RETURN_IF_ERROR(go_on());
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
  kept_bytes_.erase(pack);
  LF_RETURN_IF_ERROR(deps_.store.RemovePack(pack));
  LF_CRASH_POINT("prune.after_unlink");
  const std::vector<store::PackInfo> packs = deps_.store.Packs();
  return deps_.catalog.Removed(pack, packs.empty() ? pack + 1 : packs.front().id);
}

}  // namespace litefleet::prune
