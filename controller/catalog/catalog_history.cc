#include "controller/catalog/catalog_history.h"

#include <string>
#include <utility>
#include <vector>

#include "common/base/error_detail.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/record_catalog.h"
#include "controller/catalog/schema.h"
#include "fmt/format.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

// Of devices that are still there, and the controller's own.
constexpr char kTakeOperations[] = R"sql(
insert into operation (id, device, database, kind, state, active, origin, created_ms, ended_ms, expires_ms, ordered_by, request_id, operation,
    device_order, snapshot)
  select id, device, database, kind, state, active, origin, created_ms, ended_ms, expires_ms, ordered_by, request_id, operation, device_order,
    snapshot from old.operation o where (device = '' or device in (select id from main.device)) and
    not exists (select 1 from main.operation n where n.id = o.id) order by sequence)sql";

constexpr char kTakeDevices[] = R"sql(
update device set last_seen_ms = o.last_seen_ms, seen_before_ms = o.seen_before_ms, version = o.version, sqlite_version = o.sqlite_version,
    platform = o.platform, clock_offset_ms = o.clock_offset_ms, uptime_ms = o.uptime_ms, free_bytes = o.free_bytes
  from old.device o where o.id = device.id)sql";

constexpr char kTakeTime[] = "insert into controller_time select * from old.controller_time where true on conflict do nothing";

// Numbers of snapshots that the packs do not know any more.
constexpr char kTakeNumbers[] = R"sql(
insert into database (device, name) select device, name from old.database where sequence > 0 and forgotten = 0 and
    device in (select id from main.device) on conflict (device, name) do nothing;
update database set sequence = o.sequence from old.database o where o.device = database.device and o.name = database.name and
    o.sequence > database.sequence;
)sql";

absl::Status Attach(sqlite3* db, const std::string& from) {
  LF_ASSIGN_OR_RETURN(Statement attach, Statement::Prepare(db, "attach ? as old"));
  return attach.Bind(1, from).Run();
}

absl::StatusOr<int64_t> TakeVerdicts(sqlite3* db) {
  // Those that are an answer; what was pending is asked again.
  LF_ASSIGN_OR_RETURN(
      Statement take,
      Statement::Prepare(db,
                         "update snapshot set check_state = o.check_state, check_message = o.check_message, checked_at = o.checked_at, "
                         "drilled_at = o.drilled_at, restore_ms = o.restore_ms from old.snapshot o "
                         "where o.id = snapshot.id and o.root = snapshot.root and o.check_state in (?1, ?2, ?3)"));
  LF_RETURN_IF_ERROR(take.Bind(1, int64_t{v1::CHECK_STATE_OK})
                         .Bind(2, int64_t{v1::CHECK_STATE_DAMAGED})
                         .Bind(3, int64_t{v1::CHECK_STATE_CANNOT_TELL})
                         .Run());
  const int64_t taken = sqlite3_changes64(db);
  LF_ASSIGN_OR_RETURN(
      Statement proven,
      Statement::Prepare(db,
                         "update database set proven = (select key from snapshot s where s.database = database.id and "
                         "s.check_state = ?1 and s.state = ?2 and s.provenance = '' and s.part = '' order by s.sequence desc limit 1)"));
  LF_RETURN_IF_ERROR(proven.Bind(1, int64_t{v1::CHECK_STATE_OK}).Bind(2, int64_t{v1::SNAPSHOT_STATE_COMMITTED}).Run());
  return taken;
}

// An order that somebody gave to the lost controller is not carried out by this one.
absl::StatusOr<int64_t> EndActive(sqlite3* db, SystemTime now) {
  std::vector<v1::Operation> active;
  {
    LF_ASSIGN_OR_RETURN(Statement list, Statement::Prepare(db, "select operation from operation where active = 1"));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) break;
      const ByteView blob = list.Blob(0);
      v1::Operation operation;
      if (operation.ParseFromArray(blob.data(), static_cast<int>(blob.size()))) active.push_back(std::move(operation));
    }
  }
  LF_ASSIGN_OR_RETURN(Statement end,
                      Statement::Prepare(db, "update operation set state = ?, active = 0, ended_ms = ?, operation = ? where id = ?"));
  for (v1::Operation& operation : active) {
    operation.set_state(v1::OPERATION_STATE_FAILED);
    *operation.mutable_ended_at() = ToProtoTime(now);
    *operation.mutable_error() = ToErrorDetail(Error(absl::StatusCode::kAborted, "CATALOG_REBUILT",
                                                     "the catalog was lost while this went on; what became of it is not known",
                                                     "look at the device, and order it again where it is still wanted"));
    end.Bind(1, int64_t{operation.state()}).Bind(2, ToUnixMillis(now)).BindBlob(3, AsBytes(operation.SerializeAsString()));
    LF_RETURN_IF_ERROR(end.Bind(4, operation.id()).Run());
  }
  // What cannot be read cannot be carried on either.
  LF_RETURN_IF_ERROR(sqlite::Execute(db, "delete from operation where active = 1"));
  return static_cast<int64_t>(active.size());
}

absl::StatusOr<TakenHistory> Take(sqlite3* db, SystemTime now) {
  TakenHistory taken;
  LF_RETURN_IF_ERROR(sqlite::Execute(db, kTakeOperations));
  taken.operations = sqlite3_changes64(db);
  LF_ASSIGN_OR_RETURN(taken.interrupted, EndActive(db, now));
  LF_ASSIGN_OR_RETURN(taken.verdicts, TakeVerdicts(db));
  LF_RETURN_IF_ERROR(sqlite::Execute(db, kTakeDevices));
  LF_RETURN_IF_ERROR(sqlite::Execute(db, kTakeTime));
  LF_RETURN_IF_ERROR(sqlite::Execute(db, kTakeNumbers));
  LF_RETURN_IF_ERROR(sqlite::Execute(db, std::string(kNumbersDue)));
  return taken;
}

}  // namespace

absl::StatusOr<TakenHistory> TakeHistory(const std::string& path, const std::string& from, SystemTime now) {
  LF_RETURN_IF_ERROR(CatalogDb::Open(from, false, Migrations()).status());
  LF_ASSIGN_OR_RETURN(const sqlite::DatabaseHandle db, sqlite::Open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX));
  LF_RETURN_IF_ERROR(sqlite::Execute(db.get(), "pragma journal_mode=wal; pragma synchronous=full; pragma temp_store=memory"));
  LF_RETURN_IF_ERROR(Attach(db.get(), from));
  LF_RETURN_IF_ERROR(sqlite::Execute(db.get(), "begin immediate"));
  absl::StatusOr<TakenHistory> taken = Take(db.get(), now);
  const absl::Status ended = sqlite::Execute(db.get(), taken.ok() ? "commit" : "rollback");
  if (taken.ok() && !ended.ok()) {
    sqlite::Execute(db.get(), "rollback").IgnoreError();  // a failed commit may have done it
    return ended;
  }
  return taken;
}

}  // namespace litefleet::catalog
