// What `store stats` tells.
#include <algorithm>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/prune_catalog.h"
#include "fmt/format.h"

namespace litefleet::catalog {

using sqlite::Statement;

namespace {

// What came since `since`, a day; `first`: when the oldest snapshot came.
int64_t GrowthADay(int64_t bytes, SystemTime since, int64_t first_ms) {
  constexpr int64_t kDayMs = 86'400'000;
  const int64_t now_ms = ToUnixMillis(since + PruneCatalog::kGrowthOver);
  const int64_t span = std::max(kDayMs, now_ms - std::max(first_ms, ToUnixMillis(since)));
  return static_cast<int64_t>(static_cast<double>(bytes) * kDayMs / static_cast<double>(span));
}

}  // namespace

absl::StatusOr<std::optional<SystemTime>> PruneCatalog::LastPrune() const {
  LF_ASSIGN_OR_RETURN(const int64_t at, Number("select ended_at from prune_state"));
  if (at < 0) return std::nullopt;
  return FromUnixMillis(at);
}

absl::StatusOr<v1::GetStoreStatsResponse> PruneCatalog::Stats(SystemTime growth_since) const {
  v1::GetStoreStatsResponse stats;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement snapshots,
                        Statement::Prepare(db,
                                           "select count(*) filter (where state <> 3), coalesce(sum(page_size * "
                                           "page_count) filter (where state <> 3), 0), count(*) filter (where state = 3 "
                                           "and trashed_at > 0), coalesce(sum(stored_bytes) filter (where received_at > "
                                           "?1), 0), coalesce(min(received_at), 0) from snapshot"));
    LF_RETURN_IF_ERROR(snapshots.Bind(1, ToUnixMillis(growth_since)).Step().status());
    stats.set_snapshots(snapshots.Int(0));
    stats.set_logical_bytes(snapshots.Int(1));
    stats.set_trash_snapshots(snapshots.Int(2));
    stats.set_growth_bytes_per_day(GrowthADay(snapshots.Int(3), growth_since, snapshots.Int(4)));
    LF_ASSIGN_OR_RETURN(Statement chunks, Statement::Prepare(db,
                                                             "select count(*), coalesce(sum(page_size * page_count), 0), "
                                                             "coalesce(sum(stored_bytes), 0) from chunk"));
    LF_RETURN_IF_ERROR(chunks.Step().status());
    stats.set_chunks(chunks.Int(0));
    stats.set_chunk_raw_bytes(chunks.Int(1));
    stats.set_chunk_stored_bytes(chunks.Int(2));
    LF_ASSIGN_OR_RETURN(Statement trash,
                        Statement::Prepare(db,
                                           "select count(*), coalesce(sum(c.stored_bytes), 0) from chunk_trash t join chunk "
                                           "c on c.id = t.chunk"));
    LF_RETURN_IF_ERROR(trash.Step().status());
    stats.set_trash_chunks(trash.Int(0));
    stats.set_trash_bytes(trash.Int(1));
    LF_ASSIGN_OR_RETURN(const int64_t live,
                        sqlite::QueryInt(db, "select coalesce(sum(stored_bytes + chunks * 72 + record_bytes), 0) from pack"));
    stats.set_live_bytes(live - stats.trash_bytes());
    LF_ASSIGN_OR_RETURN(Statement devices, Statement::Prepare(db,
                                                              "select device, count(*) filter (where state <> 3) as listed, "
                                                              "sum(page_size * page_count) filter (where state <> 3), "
                                                              "sum(stored_bytes) filter (where state <> 3) as stored, "
                                                              "coalesce(sum(stored_bytes) filter (where received_at > ?1), 0), "
                                                              "min(received_at) from snapshot group by device having listed > 0 "
                                                              "order by stored desc limit 1000"));
    devices.Bind(1, ToUnixMillis(growth_since));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, devices.Step());
      if (!row) break;
      v1::DeviceUsage& device = *stats.add_devices();
      device.set_device_id(std::string(devices.Text(0)));
      device.set_snapshots(devices.Int(1));
      device.set_logical_bytes(devices.Int(2));
      device.set_stored_bytes(devices.Int(3));
      device.set_growth_bytes_per_day(GrowthADay(devices.Int(4), growth_since, devices.Int(5)));
    }
    LF_ASSIGN_OR_RETURN(Statement last, Statement::Prepare(db, "select ended_at, report from prune_state"));
    LF_ASSIGN_OR_RETURN(const bool found, last.Step());
    if (!found || last.Int(0) < 0) return absl::OkStatus();
    const ByteView report = last.Blob(1);
    if (!stats.mutable_last_prune()->ParseFromArray(report.data(), static_cast<int>(report.size()))) stats.clear_last_prune();
    *stats.mutable_last_prune_at() = ToProtoTime(FromUnixMillis(last.Int(0)));
    return absl::OkStatus();
  }));
  return stats;
}

}  // namespace litefleet::catalog
