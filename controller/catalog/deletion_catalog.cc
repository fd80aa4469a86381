#include "controller/catalog/deletion_catalog.h"

#include <algorithm>
#include <map>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

constexpr int64_t kInTrash = v1::SNAPSHOT_STATE_TRASH;

absl::Status NotFound(const SnapshotId& id) {
  return Error(absl::StatusCode::kNotFound, "SNAPSHOT_NOT_FOUND", fmt::format("there is no snapshot {}", id.value()),
               "`litefleet snapshot list` and `litefleet store trash list` show what there is");
}

absl::StatusOr<int64_t> Next(sqlite::Connection db, std::string_view sql) {
  LF_ASSIGN_OR_RETURN(const int64_t largest, sqlite::QueryInt(db, sql));
  return largest + 1;
}

struct Row {
  int64_t key = 0, database = 0, state = 0;
  bool pinned = false;       // however long that was to hold
  int64_t pinned_until = 0;  // 0: until it is unpinned

  bool PinnedAt(int64_t now_ms) const { return pinned && (pinned_until == 0 || now_ms < pinned_until); }
};

absl::StatusOr<Row> Find(sqlite3* db, const SnapshotId& id) {
  LF_ASSIGN_OR_RETURN(Statement get,
                      Statement::Prepare(db, "select key, database, state, pinned, pinned_until from snapshot where id = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, id.value()).Step());
  if (!found) return NotFound(id);
  return Row{.key = get.Int(0), .database = get.Int(1), .state = get.Int(2), .pinned = get.Int(3) != 0, .pinned_until = get.Int(4)};
}

absl::StatusOr<bool> Exists(sqlite3* db, std::string_view sql, std::string_view text) {
  LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, sql));
  return get.Bind(1, text).Step();
}

constexpr std::string_view kPrecopied = "select 1 from snapshot where id = ?1 and trashed_by = 'pre-copy'";
constexpr std::string_view kOrdered = "select 1 from operation where active = 1 and snapshot = ?1 and snapshot <> ''";

absl::Status PutInTrash(sqlite3* db, int64_t key, const std::string& by, int64_t at_ms) {
  LF_ASSIGN_OR_RETURN(Statement put, Statement::Prepare(db,
                                                        "update snapshot set trashed_from = state, state = ?1, trashed_at = ?2, "
                                                        "trashed_by = ?3, pinned = 0, pinned_until = 0 where key = ?4 and state <> ?1"));
  return put.Bind(1, kInTrash).Bind(2, at_ms).Bind(3, by).Bind(4, key).Run();
}

}  // namespace

absl::StatusOr<int64_t> NextSnapshotKey(sqlite::Connection db) {
  return Next(
      db, "select max(coalesce((select max(key) from snapshot), 0), coalesce((select value from key_floor where name = 'snapshot'), 0))");
}

absl::StatusOr<int64_t> NextChunkId(sqlite::Connection db) {
  return Next(db, "select max(coalesce((select max(id) from chunk), 0), coalesce((select value from key_floor where name = 'chunk'), 0))");
}

absl::Status RefreshDatabase(sqlite3* db, int64_t database, int added) {
  const std::string newest =
      "(select key from snapshot where database = ?1 and state <> ?2 and provenance = '' and part = '' order by sequence desc limit 1)";
  const std::string proven =
      "(select key from snapshot where database = ?1 and check_state = ?3 and state = ?4 and provenance = '' and part = '' order by "
      "sequence desc limit "
      "1)";
  // What still holds is not looked for again: a database may have a million snapshots.
  const auto unless_good = [](std::string_view column, const std::string& otherwise) {
    return fmt::format(
        "{0} = case when ?5 > 0 or {0} is null or coalesce((select state from snapshot where key = {0}), ?2) = ?2 then {1} else {0} end",
        column, otherwise);
  };
  LF_ASSIGN_OR_RETURN(Statement refresh,
                      Statement::Prepare(db, fmt::format("update database set {}, {}, snapshots = snapshots + ?5 where id = ?1",
                                                         unless_good("newest", newest), unless_good("proven", proven))));
  refresh.Bind(1, database).Bind(2, kInTrash).Bind(3, int64_t{v1::CHECK_STATE_OK}).Bind(4, int64_t{v1::SNAPSHOT_STATE_COMMITTED});
  return refresh.Bind(5, int64_t{added}).Run();
}

absl::Status DeletionCatalog::Trash(const SnapshotId& snapshot, bool force, const std::string& by, SystemTime now) {
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const Row row, Find(db, snapshot));
    if (row.state == kInTrash) return absl::OkStatus();
    if (row.PinnedAt(ToUnixMillis(now))) {
      return Error(absl::StatusCode::kFailedPrecondition, "SNAPSHOT_PINNED", fmt::format("snapshot {} is pinned", snapshot.value()),
                   fmt::format("litefleet snapshot unpin {}", snapshot.value()));
    }
    LF_ASSIGN_OR_RETURN(const bool ordered, Exists(db, kOrdered, snapshot.value()));
    if (ordered) {
      return Error(absl::StatusCode::kFailedPrecondition, "SNAPSHOT_IN_USE",
                   fmt::format("an order that has not ended needs snapshot {}", snapshot.value()),
                   "wait for it, or cancel it: litefleet operation list --active");
    }
    if (!force) {
      LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select proven, newest, snapshots from database where id = ?"));
      LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, row.database).Step());
      if (found && !get.IsNull(0) && get.Int(0) == row.key) {
        return Error(absl::StatusCode::kFailedPrecondition, "NEWEST_CHECKED",
                     fmt::format("snapshot {} is the newest one of its database that was checked", snapshot.value()),
                     "check a newer one first, or add --force");
      }
      // Beside it there may be parts and imports, which are no backup of the database.
      LF_ASSIGN_OR_RETURN(Statement other,
                          Statement::Prepare(db,
                                             "select 1 from snapshot where database = ?1 and key <> ?2 and state <> ?3 and "
                                             "provenance = '' and part = '' limit 1"));
      const bool newest = found && !get.IsNull(1) && get.Int(1) == row.key;
      LF_ASSIGN_OR_RETURN(const bool others, other.Bind(1, row.database).Bind(2, row.key).Bind(3, kInTrash).Step());
      if (found && (get.Int(2) == 1 || (newest && !others))) {
        return Error(absl::StatusCode::kFailedPrecondition, "LAST_SNAPSHOT",
                     fmt::format("snapshot {} is the only one of its database", snapshot.value()), "back it up first, or add --force");
      }
    }
    LF_RETURN_IF_ERROR(PutInTrash(db, row.key, by, ToUnixMillis(now)));
    return RefreshDatabase(db, row.database, -1);
  }));
  LF_CRASH_POINT("delete.after_trash");
  return absl::OkStatus();
}

absl::Status DeletionCatalog::Restore(const SnapshotId& snapshot) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const Row row, Find(db, snapshot));
    if (row.state != kInTrash) {
      return Error(absl::StatusCode::kFailedPrecondition, "NOT_IN_TRASH", fmt::format("snapshot {} is not in the trash", snapshot.value()));
    }
    LF_ASSIGN_OR_RETURN(Statement forgotten, Statement::Prepare(db, "select forgotten from database where id = ?"));
    LF_ASSIGN_OR_RETURN(const bool found, forgotten.Bind(1, row.database).Step());
    if (!found || forgotten.Int(0) != 0) return NotFound(snapshot);
    forgotten.Reset();
    LF_ASSIGN_OR_RETURN(const bool precopied, Exists(db, kPrecopied, snapshot.value()));
    if (precopied) {
      return Error(absl::StatusCode::kFailedPrecondition, "SNAPSHOT_PRECOPIED",
                   fmt::format("{} was uploaded ahead of a backup and is of no single moment", snapshot.value()),
                   "the backup that it was made for is listed once it has ended");
    }
    LF_ASSIGN_OR_RETURN(Statement put,
                        Statement::Prepare(db, "update snapshot set state = trashed_from, trashed_at = -1, trashed_by = '' where key = ?"));
    LF_RETURN_IF_ERROR(put.Bind(1, row.key).Run());
    return RefreshDatabase(db, row.database, 1);
  });
}

absl::Status DeletionCatalog::SetPinned(const SnapshotId& snapshot, bool pinned, const PinLimit& limit) {
  // A limit of 1970 or before would read as none; it has passed all the same.
  const int64_t until = pinned && limit.until.has_value() ? std::max<int64_t>(1, ToUnixMillis(*limit.until)) : 0;
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const Row row, Find(db, snapshot));
    if (row.state == kInTrash) {
      return Error(absl::StatusCode::kFailedPrecondition, "SNAPSHOT_IN_TRASH", fmt::format("snapshot {} is in the trash", snapshot.value()),
                   fmt::format("litefleet store trash restore {}", snapshot.value()));
    }
    const bool longer = row.pinned_until == 0 || (until != 0 && row.pinned_until >= until);
    if (pinned && limit.at_least && row.pinned && longer) return absl::OkStatus();
    LF_ASSIGN_OR_RETURN(Statement set, Statement::Prepare(db,
                                                          "update snapshot set pinned = ?1, pinned_until = ?3 where key = ?2 and "
                                                          "(pinned <> ?1 or pinned_until <> ?3)"));
    return set.Bind(1, int64_t{pinned}).Bind(2, row.key).Bind(3, until).Run();
  });
}

absl::StatusOr<int> DeletionCatalog::TrashPlanned(SeenDatabase& seen, std::span<const SnapshotId> snapshots, const std::string& by,
                                                  SystemTime now) {
  int trashed = 0;
  SeenDatabase after = seen;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    trashed = 0;
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select sequence, snapshots, newest, proven from database where id = ?"));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, seen.database).Step());
    if (!found || get.Int(0) != seen.sequence || get.Int(1) != seen.snapshots) {
      return Error(absl::StatusCode::kAborted, "PLAN_VOID", "the database's snapshots changed since the plan was made", "plan again");
    }
    const int64_t newest = get.IsNull(2) ? 0 : get.Int(2);
    const int64_t proven = get.IsNull(3) ? 0 : get.Int(3);
    get.Reset();
    for (const SnapshotId& id : snapshots) {
      const auto row = Find(db, id);
      if (absl::IsNotFound(row.status())) continue;
      LF_RETURN_IF_ERROR(row.status());
      if (row->database != seen.database || row->state == kInTrash || row->PinnedAt(ToUnixMillis(now)) || row->key == newest ||
          row->key == proven)
        continue;
      LF_ASSIGN_OR_RETURN(const bool ordered, Exists(db, kOrdered, id.value()));
      if (ordered) continue;
      LF_RETURN_IF_ERROR(PutInTrash(db, row->key, by, ToUnixMillis(now)));
      ++trashed;
    }
    LF_RETURN_IF_ERROR(RefreshDatabase(db, seen.database, -trashed));
    after.snapshots = seen.snapshots - trashed;
    return absl::OkStatus();
  }));
  LF_CRASH_POINT("delete.after_trash");
  seen = after;
  return trashed;
}

absl::Status DeletionCatalog::BeginForget(const DeviceId& device) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement active, Statement::Prepare(db, "select name from device where id = ? and state <> ?"));
    LF_ASSIGN_OR_RETURN(const bool is_active, active.Bind(1, device.value()).Bind(2, int64_t{v1::DEVICE_STATE_REVOKED}).Step());
    if (is_active) {
      return Error(absl::StatusCode::kFailedPrecondition, "DEVICE_ACTIVE", fmt::format("device {} is active", active.Text(0)),
                   fmt::format("revoke it first: litefleet device revoke {}", active.Text(0)));
    }
    LF_ASSIGN_OR_RETURN(const bool ordered, Exists(db,
                                                   "select 1 from operation o join snapshot s on s.id = o.snapshot where o.active = 1 and "
                                                   "o.snapshot <> '' and s.device = ?1 limit 1",
                                                   device.value()));
    if (ordered) {
      return Error(absl::StatusCode::kFailedPrecondition, "SNAPSHOT_IN_USE", "an order that has not ended needs a snapshot of this device",
                   "wait for it, or cancel it: litefleet operation list --active");
    }
    for (const std::string_view sql :
         {"update upload_session set state = 3 where state = 1 and database in (select id from database where device = ?)",
          "update database set forgotten = 1 where device = ?"}) {
      LF_ASSIGN_OR_RETURN(Statement mark, Statement::Prepare(db, sql));
      LF_RETURN_IF_ERROR(mark.Bind(1, device.value()).Run());
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<int> DeletionCatalog::TrashSome(const DeviceId& device, const std::string& by) {
  int trashed = 0;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    struct Found {
      int64_t key, database;
      bool listed;
    };
    std::vector<Found> rows;
    LF_ASSIGN_OR_RETURN(Statement list, Statement::Prepare(db,
                                                           "select key, database, state <> ?2 from snapshot where device = ?1 and "
                                                           "(state <> ?2 or trashed_at > 0) order by key limit ?3"));
    list.Bind(1, device.value()).Bind(2, kInTrash).Bind(3, int64_t{kAtOnce});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) break;
      rows.push_back({.key = list.Int(0), .database = list.Int(1), .listed = list.Int(2) != 0});
    }
    LF_ASSIGN_OR_RETURN(Statement now, Statement::Prepare(db, "update snapshot set trashed_at = 0 where key = ?"));
    std::map<int64_t, int> fewer;
    for (const Found& row : rows) {
      LF_RETURN_IF_ERROR(PutInTrash(db, row.key, by, 0));
      LF_RETURN_IF_ERROR(now.Bind(1, row.key).Run());
      fewer[row.database] += row.listed ? 1 : 0;
    }
    for (const auto& [database, count] : fewer) LF_RETURN_IF_ERROR(RefreshDatabase(db, database, -count));
    trashed = static_cast<int>(rows.size());
    return absl::OkStatus();
  }));
  LF_CRASH_POINT("delete.after_trash");
  return trashed;
}

absl::StatusOr<int> DeletionCatalog::DropSome(const DeviceId& device) {
  int changed = 0;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    // In this order: claims are found by their sessions. The owner's row stays, so that its number is not given to another device.
    for (const std::string_view sql :
         {"delete from claim where (session, chunk) in (select c.session, c.chunk from upload_session s join claim c on c.session = s.id "
          "where s.database in (select id from database where device = ?1) limit 2000)",
          "delete from claim where session in (select -id from database where device = ?1)",  // of healing (chunk_state.h)
          "delete from upload_session where id in (select s.id from upload_session s where s.database in (select id from database "
          "where device = ?1) and not exists (select 1 from claim where session = s.id) limit 2000)",
          "delete from device_chunk where owner = (select id from owner where device = ?1) and chunk in "
          "(select chunk from device_chunk where owner = (select id from owner where device = ?1) limit 2000)"}) {
      LF_ASSIGN_OR_RETURN(Statement drop, Statement::Prepare(db, sql));
      LF_RETURN_IF_ERROR(drop.Bind(1, device.value()).Run());
      changed += sqlite3_changes(db);
    }
    return absl::OkStatus();
  }));
  return changed;
}

absl::Status DeletionCatalog::DropForgottenDatabases() {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    for (;;) {
      LF_ASSIGN_OR_RETURN(const int64_t id,
                          sqlite::QueryInt(db,
                                           "select coalesce(min(id), 0) from database d where forgotten = 1 and not exists "
                                           "(select 1 from snapshot where database = d.id) and not exists "
                                           "(select 1 from upload_session where database = d.id) and not exists "
                                           "(select 1 from device where id = d.device) and not exists "
                                           "(select 1 from record_due where kind = 1 and subject = d.device)"));
      if (id == 0) return absl::OkStatus();
      for (const std::string_view sql :
           {"delete from retention_hold where (device, database) = (select device, name from database where id = ?)",
            "delete from timeline where database = ?", "delete from database where id = ?"}) {
        LF_ASSIGN_OR_RETURN(Statement drop, Statement::Prepare(db, sql));
        LF_RETURN_IF_ERROR(drop.Bind(1, id).Run());
      }
    }
  });
}

}  // namespace litefleet::catalog
