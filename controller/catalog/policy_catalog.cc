#include "controller/catalog/policy_catalog.h"

#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

PolicyRow ToPolicy(const Statement& row) {
  return {
      .name = std::string(row.Text(0)), .version = row.Int(1), .applied_at = FromUnixMillis(row.Int(2)), .text = std::string(row.Text(3))};
}

}  // namespace

absl::StatusOr<PolicyRow> PolicyCatalog::Put(const std::string& name, const std::string& text, SystemTime now) {
  PolicyRow result;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_RETURN_IF_ERROR(sqlite::Execute(db, "insert into key_floor values ('policy', 0) on conflict do nothing"));
    LF_RETURN_IF_ERROR(sqlite::Execute(db, "update key_floor set value = value + 1 where name = 'policy'"));
    LF_ASSIGN_OR_RETURN(const int64_t version, sqlite::QueryInt(db, "select value from key_floor where name = 'policy'"));
    LF_ASSIGN_OR_RETURN(Statement put,
                        Statement::Prepare(db, "insert or replace into policy (name, version, applied_at, text) values (?, ?, ?, ?)"));
    LF_RETURN_IF_ERROR(put.Bind(1, name).Bind(2, version).Bind(3, ToUnixMillis(now)).Bind(4, text).Run());
    result = {.name = name, .version = version, .applied_at = now, .text = text};
    return absl::OkStatus();
  }));
  ++changes_;
  LF_RETURN_IF_ERROR(WriteRecords());
  return result;
}

absl::StatusOr<std::vector<PolicyRow>> PolicyCatalog::List() const {
  std::vector<PolicyRow> rows;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement list, Statement::Prepare(db, "select name, version, applied_at, text from policy order by name"));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      rows.push_back(ToPolicy(list));
    }
  }));
  return rows;
}

absl::Status PolicyCatalog::Delete(const std::string& name) {
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement remove, Statement::Prepare(db, "delete from policy where name = ?"));
    LF_RETURN_IF_ERROR(remove.Bind(1, name).Run());
    if (sqlite3_changes(db) == 1) return absl::OkStatus();
    return Error(absl::StatusCode::kNotFound, "POLICY_NOT_FOUND", fmt::format("there is no policy {}", name),
                 "`litefleet policy list` shows the policies");
  }));
  ++changes_;
  return WriteRecords();
}

absl::StatusOr<std::vector<HoldRow>> PolicyCatalog::Holds(int limit, int64_t offset) const {
  std::vector<HoldRow> rows;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement list, Statement::Prepare(db,
                                                           "select h.device, coalesce((select name from device where id = h.device), "
                                                           "h.device) as device_name, h.database, h.since, h.reason, h.message from "
                                                           "retention_hold h where h.active = 1 order by device_name, h.database "
                                                           "limit ? offset ?"));
    list.Bind(1, int64_t{limit}).Bind(2, offset);
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      rows.push_back({.device_id = std::string(list.Text(0)),
                      .device_name = std::string(list.Text(1)),
                      .database = std::string(list.Text(2)),
                      .since = FromUnixMillis(list.Int(3)),
                      .reason = std::string(list.Text(4)),
                      .message = std::string(list.Text(5))});
    }
  }));
  return rows;
}

absl::Status PolicyCatalog::Hold(const DeviceId& device, const std::string& database, const std::string& reason, const std::string& message,
                                 SystemTime now) {
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement put, Statement::Prepare(db,
                                                          "insert into retention_hold (device, database, since, reason, message, active) "
                                                          "values (?, ?, ?, ?, ?, 1) on conflict (device, database) do update set "
                                                          "since = excluded.since, reason = excluded.reason, message = excluded.message, "
                                                          "active = 1 where active = 0"));
    return put.Bind(1, device.value()).Bind(2, database).Bind(3, ToUnixMillis(now)).Bind(4, reason).Bind(5, message).Run();
  }));
  return WriteRecords();
}

absl::Status PolicyCatalog::Release(const DeviceId& device, const std::string& database) {
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement release, Statement::Prepare(db,
                                                              "update retention_hold set active = 0, released_sequence = coalesce((select "
                                                              "sequence from database where device = ?1 and name = ?2), -1) "
                                                              "where device = ?1 and database = ?2 and active = 1"));
    LF_RETURN_IF_ERROR(release.Bind(1, device.value()).Bind(2, database).Run());
    if (sqlite3_changes(db) == 1) return absl::OkStatus();
    return Error(absl::StatusCode::kNotFound, "HOLD_NOT_FOUND", fmt::format("retention of {} is not on hold", database),
                 "`litefleet store hold list` shows the holds");
  }));
  return WriteRecords();
}

absl::StatusOr<std::optional<TimeRow>> PolicyCatalog::Time() const {
  std::optional<TimeRow> result;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select time_ms, boot_id, since_boot_ms, hold from controller_time"));
    LF_ASSIGN_OR_RETURN(const bool row, get.Step());
    if (row) {
      result = TimeRow{.time = FromUnixMillis(get.Int(0)),
                       .boot_id = std::string(get.Text(1)),
                       .since_boot_ms = get.Int(2),
                       .hold = std::string(get.Text(3))};
    }
    return absl::OkStatus();
  }));
  return result;
}

absl::Status PolicyCatalog::SetTime(const TimeRow& row) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement put,
                        Statement::Prepare(db,
                                           "insert or replace into controller_time (id, time_ms, boot_id, since_boot_ms, hold) "
                                           "values (1, ?, ?, ?, ?)"));
    return put.Bind(1, ToUnixMillis(row.time)).Bind(2, row.boot_id).Bind(3, row.since_boot_ms).Bind(4, row.hold).Run();
  });
}

absl::StatusOr<std::vector<RetainedDatabase>> PolicyCatalog::DatabasesAfter(int64_t after, int limit) const {
  std::vector<RetainedDatabase> databases;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement list,
                        Statement::Prepare(db,
                                           "select d.id, d.sequence, d.snapshots, d.device, coalesce((select name from "
                                           "device where id = d.device), d.device), d.name, coalesce(h.active, 0), "
                                           "coalesce(h.reason, ''), coalesce(h.message, ''), "
                                           "coalesce(h.released_sequence, -1) from database d left join retention_hold h on "
                                           "h.device = d.device and h.database = d.name where d.id > ? and d.forgotten = 0 "
                                           "order by d.id limit ?"));
    LF_ASSIGN_OR_RETURN(Statement labels, Statement::Prepare(db, "select key, value from device_label where device_id = ?"));
    list.Bind(1, after).Bind(2, int64_t{limit});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      RetainedDatabase& next = databases.emplace_back();
      next.seen = {.database = list.Int(0), .sequence = list.Int(1), .snapshots = list.Int(2)};
      next.device = DeviceId(std::string(list.Text(3)));
      next.device_name = std::string(list.Text(4));
      next.name = std::string(list.Text(5));
      next.held = list.Int(6) != 0;
      next.hold_reason = std::string(list.Text(7));
      next.hold_message = std::string(list.Text(8));
      next.released_sequence = list.Int(9);
      labels.Bind(1, next.device.value());
      for (;;) {
        LF_ASSIGN_OR_RETURN(const bool label, labels.Step());
        if (!label) break;
        next.labels.emplace(labels.Text(0), labels.Text(1));
      }
    }
  }));
  return databases;
}

absl::StatusOr<std::vector<LabelledDevice>> PolicyCatalog::DevicesAfter(const std::string& after, int limit) const {
  std::vector<LabelledDevice> devices;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement list,
                        Statement::Prepare(db, "select id, name from device where state = ? and id > ? order by id limit ?"));
    LF_ASSIGN_OR_RETURN(Statement labels, Statement::Prepare(db, "select key, value from device_label where device_id = ?"));
    list.Bind(1, int64_t{v1::DEVICE_STATE_ACTIVE}).Bind(2, after).Bind(3, int64_t{limit});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      LabelledDevice& next = devices.emplace_back();
      next.id = std::string(list.Text(0));
      next.name = std::string(list.Text(1));
      labels.Bind(1, next.id);
      for (;;) {
        LF_ASSIGN_OR_RETURN(const bool label, labels.Step());
        if (!label) break;
        next.labels.emplace(labels.Text(0), labels.Text(1));
      }
    }
  }));
  return devices;
}

absl::StatusOr<std::vector<RetainedSnapshot>> PolicyCatalog::SnapshotsOf(SeenDatabase& seen) const {
  std::vector<RetainedSnapshot> snapshots;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select sequence, snapshots from database where id = ?"));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, seen.database).Step());
    if (!found) return absl::OkStatus();
    seen.sequence = get.Int(0);
    seen.snapshots = get.Int(1);
    // What was imported is no backup: it says nothing of the device, and stays until an operator deletes it.
    LF_ASSIGN_OR_RETURN(
        Statement list,
        Statement::Prepare(db, fmt::format("select s.id, s.sequence, s.effective_at, s.page_size * s.page_count, s.state = {}, "
                                           "s.check_state = {}, s.pinned, exists (select 1 from operation o where o.active = 1 and "
                                           "o.snapshot = s.id and o.snapshot <> ''), s.part, s.method = {}, s.pinned_until from snapshot s "
                                           "where s.database = ? and s.state <> {} and "
                                           "s.provenance = '' "
                                           "order by s.sequence",
                                           static_cast<int>(v1::SNAPSHOT_STATE_COMMITTED), static_cast<int>(v1::CHECK_STATE_OK),
                                           static_cast<int>(v1::METHOD_CONTINUOUS), static_cast<int>(v1::SNAPSHOT_STATE_TRASH))));
    list.Bind(1, seen.database);
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      snapshots.push_back({.id = SnapshotId(std::string(list.Text(0))),
                           .sequence = list.Int(1),
                           .effective_at = FromUnixMillis(list.Int(2)),
                           .size_bytes = list.Int(3),
                           .good = list.Int(4) != 0,
                           .checked = list.Int(4) != 0 && list.Int(5) != 0,
                           .pinned = list.Int(6) != 0,
                           .ordered = list.Int(7) != 0,
                           .part = std::string(list.Text(8)),
                           .continuous = list.Int(9) != 0,
                           .pinned_until = list.Int(10) == 0 ? std::nullopt : std::optional(FromUnixMillis(list.Int(10)))});
    }
  }));
  return snapshots;
}

}  // namespace litefleet::catalog
