#include "agent/spool/room.h"

#include <spdlog/spdlog.h>

#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "common/base/status.h"

namespace litefleet::spool {
namespace {

absl::Status Cancelled() { return Error(absl::StatusCode::kCancelled, "CANCELLED", "the backup was cancelled"); }

// Merges the oldest until they have no more than half of what they had, or are one. Whether any were.
absl::StatusOr<bool> MakeOwnRoom(SnapshotSpool& spool, const RoomJob& job) {
  const SnapshotSpool::Usage before = spool.UsageOf(job.database);
  for (bool any = false;; any = true) {
    LF_RETURN_IF_ERROR(job.goes_on());
    const SnapshotSpool::Usage own = spool.UsageOf(job.database);
    if (own.snapshots < 2 || (any && own.bytes <= before.bytes / 2)) return any;
    LF_ASSIGN_OR_RETURN(const bool merged,
                        spool.MergeSome(job.database, kSpoolFull, job.reserve, job.compression_level, job.keep_oldest, job.goes_on));
    if (!merged) return any;
  }
}

// Of the snapshots of all other databases the oldest are merged, until they have half as many bytes or none can be. Whether there is
// more room. One that is in use, or whose files are damaged, is passed over.
absl::StatusOr<bool> MakeRoomOfOthers(SnapshotSpool& spool, const RoomJob& job) {
  const auto of_others = [&] { return spool.Total().bytes - spool.UsageOf(job.database).bytes; };
  const int64_t before = of_others();
  std::set<std::string> passed{job.database};
  while (of_others() > before / 2) {
    LF_RETURN_IF_ERROR(job.goes_on());
    std::optional<SpooledSnapshot> oldest;
    for (const std::string& database : spool.Databases()) {
      std::optional<SpooledSnapshot> own = spool.Oldest(database);
      if (passed.contains(database) || !own.has_value() || spool.UsageOf(database).snapshots < 2) continue;
      if (!oldest.has_value() || own->taken_at() < oldest->taken_at()) oldest = *std::move(own);
    }
    if (!oldest.has_value()) break;
    const std::string& database = oldest->header.database();
    const std::optional<SnapshotSpool::Use> use = spool.TryUse(database);
    if (!use.has_value()) {
      passed.insert(database);
      continue;
    }
    if (spool.UsageOf(database).snapshots < 2) continue;  // somebody was here before
    const absl::StatusOr<bool> merged = spool.MergeSome(database, kSpoolFull, job.reserve, job.compression_level, false, job.goes_on);
    if (merged.ok() && *merged) continue;
    if (absl::IsCancelled(merged.status())) return merged.status();
    if (!merged.ok())
      spdlog::warn("{}: its spooled snapshots cannot be merged to make room for {}: {}", database, job.database,
                   MessageOf(merged.status()));
    passed.insert(database);
  }
  return of_others() < before;
}

}  // namespace

absl::StatusOr<Room> MakeRoom(SnapshotSpool& spool, const RoomJob& wanted, const CancelToken& cancel) {
  RoomJob job = wanted;
  job.goes_on = [&]() -> absl::Status {
    if (wanted.goes_on) LF_RETURN_IF_ERROR(wanted.goes_on());
    return cancel.cancelled() ? Cancelled() : absl::OkStatus();
  };
  // What cannot be read is worth less than any snapshot.
  LF_ASSIGN_OR_RETURN(const bool dropped, spool.DropAside());
  if (dropped) return Room::kElsewhere;
  if (spool.UsageOf(job.database).snapshots <= 1) {
    // What others have is older than what cannot be kept otherwise.
    LF_ASSIGN_OR_RETURN(const bool others, MakeRoomOfOthers(spool, job));
    return others ? Room::kElsewhere : Room::kNone;
  }
  LF_ASSIGN_OR_RETURN(const bool own, MakeOwnRoom(spool, job));
  return own ? Room::kOwn : Room::kNone;
}

}  // namespace litefleet::spool
