// The half of RebuildCatalog that is not about snapshots: devices, certificates, operators, timelines.
#include <algorithm>
#include <set>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "controller/catalog/gap_catalog.h"
#include "controller/catalog/gone_numbers.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/rebuild_catalog.h"
#include "controller/catalog/record_catalog.h"
#include "fmt/format.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

enum : int64_t { kDevice = 1, kDatabase = 2, kOperator = 3, kPolicy = 4, kHold = 5, kGap = 6 };
constexpr size_t kMaxNotes = 1000;

void Note(RebuildCatalog::Things& things, std::string text) {
  if (things.notes.size() < kMaxNotes) things.notes.push_back(std::move(text));
}

bool IsHash(const std::string& hash) { return hash.size() == std::tuple_size_v<KeyHash>; }

template <class Record>
bool Parse(Statement& row, Record& record) {
  const ByteView bytes = row.Blob(0);
  return record.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

}  // namespace

absl::Status RebuildCatalog::AddState(int64_t kind, const std::string& subject, uint64_t revision, const std::string& record) {
  LF_ASSIGN_OR_RETURN(Statement * insert,
                      Cached("insert into found.state values (?, ?, ?, ?) on conflict (kind, subject) do update set "
                             "revision = excluded.revision, record = excluded.record where excluded.revision >= revision"));
  insert->Bind(1, kind).Bind(2, subject).Bind(3, static_cast<int64_t>(revision));
  return insert->BindBlob(4, AsBytes(record)).Run();
}

absl::Status RebuildCatalog::AddMark(const storage::v1::SnapshotMark& mark) {
  LF_ASSIGN_OR_RETURN(
      Statement * insert,
      Cached("insert into found.mark values (?, ?, ?, ?, ?, ?, ?, ?) on conflict (id) do update set revision = excluded.revision, "
             "deleted = excluded.deleted, pinned = excluded.pinned, session = excluded.session, "
             "sequence = excluded.sequence, last_pack = excluded.last_pack, pinned_until = excluded.pinned_until "
             "where excluded.revision >= revision"));
  insert->Bind(1, mark.snapshot_id()).Bind(2, static_cast<int64_t>(mark.revision())).Bind(3, int64_t{mark.deleted()});
  insert->Bind(4, int64_t{mark.pinned()}).Bind(5, mark.session_id()).Bind(6, static_cast<int64_t>(mark.sequence()));
  return insert->Bind(7, static_cast<int64_t>(mark.last_pack())).Bind(8, std::max<int64_t>(0, mark.pinned_until_ms())).Run();
}

absl::Status RebuildCatalog::DropDeleted(uint64_t newest_pack) {
  sqlite3* db = db_.get();
  // Its record may have been moved since the mark was written, any number of times.
  LF_ASSIGN_OR_RETURN(
      Statement gone,
      Statement::Prepare(
          db, "insert into gone_snapshot (id, mark, last_pack) select id, revision, max(last_pack, ?) from found.mark where deleted"));
  LF_RETURN_IF_ERROR(gone.Bind(1, static_cast<int64_t>(newest_pack)).Run());
  LF_RETURN_IF_ERROR(sqlite::Execute(db, R"sql(
create index found.mark_session on mark (session) where deleted;
-- New marks must count more than all that were found; those of what is gone stay until no record of it can be there.
insert into sqlite_sequence (name, seq) select 'mark_due', max(revision) from found.mark having max(revision) is not null;
delete from found.snapshot where id in (select id from found.mark where deleted);
delete from found.snapshot where exists (select 1 from found.gone g where g.device = found.snapshot.device and
  g.database = found.snapshot.database and found.snapshot.sequence between g.first and g.last and found.snapshot.pack <= g.last_pack);
delete from found.snapshot where exists (select 1 from found.mark m where m.deleted and m.session <> '' and
  m.session = found.snapshot.session and found.snapshot.sequence <= m.sequence);
)sql"));
  LF_ASSIGN_OR_RETURN(Statement devices, Statement::Prepare(db, "select record, subject from found.state where kind = 1"));
  LF_ASSIGN_OR_RETURN(Statement drop, Statement::Prepare(db, "delete from found.snapshot where device = ?"));
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, devices.Step());
    if (!row) return absl::OkStatus();
    storage::v1::DeviceRecord record;
    if (Parse(devices, record) && record.forgotten()) LF_RETURN_IF_ERROR(drop.Bind(1, devices.Text(1)).Run());
  }
}

absl::Status RebuildCatalog::AddDevice(const storage::v1::DeviceRecord& record) {
  return AddState(kDevice, record.device_id(), record.revision(), record.SerializeAsString());
}
absl::Status RebuildCatalog::AddDatabase(const storage::v1::DatabaseRecord& record) {
  // What is gone stays so: older records count here as well.
  LF_ASSIGN_OR_RETURN(Statement * gone, Cached("insert into found.gone values (?, ?, ?, ?, ?) on conflict do nothing"));
  for (const storage::v1::NumberRange& range : record.gone()) {
    gone->Bind(1, record.device_id()).Bind(2, record.database());
    gone->Bind(3, static_cast<int64_t>(range.first())).Bind(4, static_cast<int64_t>(range.last()));
    LF_RETURN_IF_ERROR(gone->Bind(5, static_cast<int64_t>(range.last_pack())).Run());
  }
  LF_ASSIGN_OR_RETURN(Statement * number, Cached("insert into found.number values (?, ?, ?) on conflict (device, database) do update set "
                                                 "sequence = max(sequence, excluded.sequence)"));
  const uint64_t highest = record.gone().empty() ? 0 : record.gone().rbegin()->last();
  number->Bind(1, record.device_id()).Bind(2, record.database()).Bind(3, static_cast<int64_t>(std::max(record.sequence(), highest)));
  LF_RETURN_IF_ERROR(number->Run());
  return AddState(kDatabase, record.device_id() + "/" + record.database(), record.revision(), record.SerializeAsString());
}
absl::Status RebuildCatalog::AddOperator(const storage::v1::OperatorRecord& record) {
  return AddState(kOperator, record.name(), record.revision(), record.SerializeAsString());
}

absl::Status RebuildCatalog::AddPolicy(const storage::v1::PolicyRecord& record) {
  return AddState(kPolicy, record.name(), record.revision(), record.SerializeAsString());
}
void RebuildCatalog::AddGeneration(uint64_t generation) { generation_ = std::max(generation_, generation); }
absl::Status RebuildCatalog::AddHold(const storage::v1::RetentionHoldRecord& record) {
  return AddState(kHold, record.device_id() + "/" + record.database(), record.revision(), record.SerializeAsString());
}

absl::Status RebuildCatalog::AddGap(const storage::v1::GapRecord& record) {
  return AddState(kGap, record.gap_id(), record.revision(), record.SerializeAsString());
}

absl::Status RebuildCatalog::AddCertificate(const storage::v1::CertificateRecord& record, const std::string& device,
                                            const std::string& operator_name, const std::string& role) {
  LF_ASSIGN_OR_RETURN(Statement * insert,
                      Cached("insert into certificate (serial, device_id, operator_name, role, key_hash, issued_ms, not_after_ms, "
                             "revoked_ms, used_ms) values (?1, nullif(?2, ''), nullif(?3, ''), ?4, ?5, ?6, ?7, nullif(?8, 0), "
                             "nullif(?9, 0)) on conflict (serial) do nothing"));
  insert->Bind(1, record.serial()).Bind(2, device).Bind(3, operator_name).Bind(4, role);
  insert->BindBlob(5, AsBytes(record.public_key_hash())).Bind(6, record.issued_at_ms()).Bind(7, record.not_after_ms());
  return insert->Bind(8, record.revoked_at_ms()).Bind(9, record.used_at_ms()).Run();
}

absl::Status RebuildCatalog::AddDeviceRow(const storage::v1::DeviceRecord& record, bool keep_certificates, Things& things) {
  const std::string& id = record.device_id();
  if (record.forgotten() || !IsUuid(id)) return absl::OkStatus();
  std::string name = IsName(record.name()) ? record.name() : id;
  LF_ASSIGN_OR_RETURN(Statement * taken, Cached("select 1 from device where name = ?"));
  LF_ASSIGN_OR_RETURN(const bool is_taken, taken->Bind(1, name).Step());
  taken->Reset();
  if (is_taken) {
    Note(things, fmt::format("device {} is named {} as another one is: it is named by its id now", id, name));
    name = id;
  }
  LF_ASSIGN_OR_RETURN(Statement * insert,
                      Cached("insert into device (id, name, state, key_hash, enrolled_ms, free_bytes) values (?, ?, ?, ?, ?, -1)"));
  const bool active = record.state() == v1::DEVICE_STATE_ACTIVE;
  const std::string key = IsHash(record.public_key_hash()) ? record.public_key_hash() : std::string(32, '\0');
  insert->Bind(1, id).Bind(2, name).Bind(3, int64_t{active ? v1::DEVICE_STATE_ACTIVE : v1::DEVICE_STATE_REVOKED});
  LF_RETURN_IF_ERROR(insert->BindBlob(4, AsBytes(key)).Bind(5, record.enrolled_at_ms()).Run());
  ++things.devices;
  for (const auto& [label, value] : record.labels()) {
    LF_ASSIGN_OR_RETURN(Statement * put, Cached("insert into device_label values (?, ?, ?)"));
    LF_RETURN_IF_ERROR(put->Bind(1, id).Bind(2, label).Bind(3, value).Run());
  }
  bool valid = false;
  for (const storage::v1::CertificateRecord& certificate : record.certificates()) {
    if (!keep_certificates || certificate.serial().empty() || !IsHash(certificate.public_key_hash())) continue;
    valid |= certificate.revoked_at_ms() == 0;
    LF_RETURN_IF_ERROR(AddCertificate(certificate, id, "", "device"));
  }
  if (active && !valid) things.must_enroll_again.push_back(name);
  return absl::OkStatus();
}

// Snapshots whose device no record names: it is there so that they can be restored, and may do nothing.
absl::Status RebuildCatalog::AddUnknownDevices(SystemTime now, Things& things) {
  LF_ASSIGN_OR_RETURN(Statement list,
                      Statement::Prepare(db_.get(),
                                         "select distinct device from database where device not in (select id from device) and "
                                         "device not in (select subject from found.state where kind = 1)"));
  std::vector<std::string> unknown;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, list.Step());
    if (!row) break;
    unknown.emplace_back(list.Text(0));
  }
  for (const std::string& id : unknown) {
    storage::v1::DeviceRecord record;
    record.set_device_id(id);
    record.set_name(fmt::format("recovered-{}", id.substr(0, 8)));
    record.set_state(v1::DEVICE_STATE_REVOKED);
    record.set_enrolled_at_ms(ToUnixMillis(now));
    Note(things,
         fmt::format("device {} has snapshots and no record: it is named {} and revoked until it is enrolled again", id, record.name()));
    LF_RETURN_IF_ERROR(AddDeviceRow(record, false, things));
  }
  return absl::OkStatus();
}

absl::Status RebuildCatalog::AddPolicyRows(const std::set<std::string>& forgotten_devices, Things& things) {
  sqlite3* db = db_.get();
  int64_t newest = 0;
  LF_ASSIGN_OR_RETURN(Statement policies, Statement::Prepare(db, "select record from found.state where kind = 4"));
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, policies.Step());
    if (!row) break;
    storage::v1::PolicyRecord record;
    if (!Parse(policies, record) || record.deleted() || !IsName(record.name())) continue;
    newest = std::max(newest, record.version());
    LF_ASSIGN_OR_RETURN(Statement * put, Cached("insert into policy (name, version, applied_at, text) values (?, ?, ?, ?)"));
    LF_RETURN_IF_ERROR(put->Bind(1, record.name()).Bind(2, record.version()).Bind(3, record.applied_at_ms()).Bind(4, record.text()).Run());
    ++things.policies;
  }
  LF_ASSIGN_OR_RETURN(Statement * floor, Cached("insert or replace into key_floor values (?, ?)"));
  LF_RETURN_IF_ERROR(floor->Bind(1, "policy").Bind(2, newest).Run());
  LF_RETURN_IF_ERROR(floor->Bind(1, "generation").Bind(2, static_cast<int64_t>(generation_)).Run());
  LF_ASSIGN_OR_RETURN(Statement holds, Statement::Prepare(db, "select record from found.state where kind = 5"));
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, holds.Step());
    if (!row) return absl::OkStatus();
    storage::v1::RetentionHoldRecord record;
    if (!Parse(holds, record) || !IsUuid(record.device_id()) || !IsName(record.database())) continue;
    // Nothing to say: what is not held was never let go.
    if (forgotten_devices.contains(record.device_id()) || (!record.active() && record.released_sequence() < 0)) continue;
    LF_ASSIGN_OR_RETURN(Statement * put, Cached("insert into retention_hold (device, database, since, reason, message, released_sequence, "
                                                "active) values (?, ?, ?, ?, ?, ?, ?)"));
    put->Bind(1, record.device_id()).Bind(2, record.database()).Bind(3, record.since_ms()).Bind(4, record.reason());
    LF_RETURN_IF_ERROR(put->Bind(5, record.message()).Bind(6, record.released_sequence()).Bind(7, int64_t{record.active()}).Run());
  }
}

// Of databases that are there: those of forgotten devices are not.
absl::Status RebuildCatalog::AddGapRows() {
  sqlite3* db = db_.get();
  LF_ASSIGN_OR_RETURN(Statement gaps, Statement::Prepare(db, "select record from found.state where kind = 6"));
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, gaps.Step());
    if (!row) break;
    storage::v1::GapRecord record;
    if (!Parse(gaps, record) || !IsUlid(record.gap_id()) || !IsUuid(record.device_id()) || !IsName(record.database())) continue;
    LF_ASSIGN_OR_RETURN(Statement * there, Cached("select 1 from device where id = ?"));
    LF_ASSIGN_OR_RETURN(const bool known, there->Bind(1, record.device_id()).Step());
    there->Reset();
    if (!known) continue;
    LF_RETURN_IF_ERROR(DatabaseRow(record.device_id(), record.database()).status());
    LF_ASSIGN_OR_RETURN(Statement * put, Cached("insert into gap (id, device, database, from_ms, until_ms, reason, message, snapshots, "
                                                "reported_ms, revision) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
    put->Bind(1, record.gap_id()).Bind(2, record.device_id()).Bind(3, record.database()).Bind(4, record.from_ms());
    put->Bind(5, record.until_ms()).Bind(6, record.reason()).Bind(7, record.message()).Bind(8, int64_t{record.snapshots()});
    LF_RETURN_IF_ERROR(put->Bind(9, record.written_at_ms()).Bind(10, std::max<int64_t>(1, static_cast<int64_t>(record.revision()))).Run());
  }
  LF_ASSIGN_OR_RETURN(Statement trim, Statement::Prepare(db,
                                                         "delete from gap where id in (select id from (select id, row_number() over "
                                                         "(partition by device, database order by from_ms desc, id desc) as place from "
                                                         "gap) where place > ?)"));
  return trim.Bind(1, int64_t{GapCatalog::kMaxPerDatabase}).Run();
}

absl::Status RebuildCatalog::SetNumbers(int64_t lost_records) {
  sqlite3* db = db_.get();
  LF_RETURN_IF_ERROR(sqlite::Execute(db, R"sql(
insert into database (device, name) select device, database from found.number where device in (select id from device)
  on conflict (device, name) do nothing;
update database set sequence = n.sequence from found.number n where n.device = database.device and n.database = database.name and
  n.sequence > database.sequence;
)sql"));
  LF_ASSIGN_OR_RETURN(Statement skip, Statement::Prepare(db, "update database set sequence = sequence + ?"));
  LF_RETURN_IF_ERROR(skip.Bind(1, lost_records).Run());
  return sqlite::Execute(db, std::string(kNumbersDue));
}

absl::Status RebuildCatalog::AddGoneNumbers(const storage::v1::DatabaseRecord& record, int64_t database) {
  // Of all its records together: one may come from a catalog that did not know what others said.
  LF_ASSIGN_OR_RETURN(Statement list, Statement::Prepare(db_.get(),
                                                         "select first, last, last_pack from found.gone where device = ? and database = ? "
                                                         "order by first"));
  list.Bind(1, record.device_id()).Bind(2, record.database());
  int64_t first = 0, last = -1, last_pack = 0;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, list.Step());
    if (row && list.Int(0) <= last + 1) {
      last = std::max(last, list.Int(1));
      last_pack = std::max(last_pack, list.Int(2));
      continue;
    }
    if (first <= last) LF_RETURN_IF_ERROR(TakeGoneNumbers(db_.get(), database, first, last, last_pack));
    if (!row) return absl::OkStatus();
    first = list.Int(0);
    last = list.Int(1);
    last_pack = list.Int(2);
  }
}

absl::StatusOr<RebuildCatalog::Things> RebuildCatalog::AddThings(bool keep_certificates, SystemTime now, int64_t lost_records) {
  Things things;
  sqlite3* db = db_.get();
  // New records must count more than all that were found.
  LF_ASSIGN_OR_RETURN(const int64_t revision, sqlite::QueryInt(db, "select coalesce(max(revision), 0) from found.state"));
  LF_RETURN_IF_ERROR(sqlite::Execute(db, "delete from record_due; delete from sqlite_sequence where name = 'record_due'"));
  LF_ASSIGN_OR_RETURN(Statement * sequence, Cached("insert into sqlite_sequence (name, seq) values ('record_due', ?)"));
  LF_RETURN_IF_ERROR(sequence->Bind(1, revision).Run());

  std::set<std::string> forgotten;
  LF_ASSIGN_OR_RETURN(Statement devices, Statement::Prepare(db, "select record from found.state where kind = 1 order by revision desc"));
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, devices.Step());
    if (!row) break;
    storage::v1::DeviceRecord record;
    if (!Parse(devices, record)) continue;
    if (record.forgotten()) forgotten.insert(record.device_id());
    LF_RETURN_IF_ERROR(AddDeviceRow(record, keep_certificates, things));
  }
  LF_ASSIGN_OR_RETURN(Statement operators, Statement::Prepare(db, "select record from found.state where kind = 3"));
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, operators.Step());
    if (!row) break;
    storage::v1::OperatorRecord record;
    if (!keep_certificates || !Parse(operators, record) || !IsName(record.name())) continue;
    // A role that is unknown here may look and no more.
    const std::string role(record.role() == kAdminRole ? kAdminRole : kViewerRole);
    bool any = false;
    for (const storage::v1::CertificateRecord& certificate : record.certificates()) {
      any |= certificate.revoked_at_ms() == 0;
      LF_RETURN_IF_ERROR(AddCertificate(certificate, "", record.name(), role));
    }
    things.operators += any ? 1 : 0;
  }
  LF_ASSIGN_OR_RETURN(Statement databases, Statement::Prepare(db, "select record from found.state where kind = 2"));
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, databases.Step());
    if (!row) break;
    storage::v1::DatabaseRecord record;
    if (!Parse(databases, record) || !IsUuid(record.device_id()) || !IsName(record.database())) continue;
    if (forgotten.contains(record.device_id())) continue;
    LF_ASSIGN_OR_RETURN(const int64_t id, DatabaseRow(record.device_id(), record.database()));
    LF_ASSIGN_OR_RETURN(Statement * highest,
                        Cached("update database set timeline = max(timeline, ?), sequence = max(sequence, ?) where id = ?"));
    highest->Bind(1, static_cast<int64_t>(record.timeline())).Bind(2, static_cast<int64_t>(record.sequence()));
    LF_RETURN_IF_ERROR(highest->Bind(3, id).Run());
    LF_RETURN_IF_ERROR(AddGoneNumbers(record, id));
    for (const storage::v1::TimelineRecord& timeline : record.timelines()) {
      LF_ASSIGN_OR_RETURN(Statement * put, Cached("insert into timeline (database, timeline, operation, live_from, base) "
                                                  "values (?, ?, ?, ?, ?) on conflict do nothing"));
      put->Bind(1, id).Bind(2, static_cast<int64_t>(timeline.timeline())).Bind(3, timeline.operation_id());
      LF_RETURN_IF_ERROR(put->Bind(4, timeline.live_from_ms()).Bind(5, timeline.base_snapshot_id()).Run());
    }
  }
  // What was received says how late it is at least: behind that a clock is on hold at the first look (retention/controller_time).
  LF_ASSIGN_OR_RETURN(Statement * floor, Cached("insert into controller_time (id, time_ms, boot_id, since_boot_ms, hold) select 1, "
                                                "max(received_at), '', 0, '' from found.snapshot having max(received_at) > ?"));
  LF_RETURN_IF_ERROR(floor->Bind(1, ToUnixMillis(now)).Run());
  LF_RETURN_IF_ERROR(AddUnknownDevices(now, things));
  LF_RETURN_IF_ERROR(SetNumbers(lost_records));
  LF_RETURN_IF_ERROR(AddPolicyRows(forgotten, things));
  LF_RETURN_IF_ERROR(AddGapRows());
  LF_ASSIGN_OR_RETURN(things.databases, sqlite::QueryInt(db, "select count(*) from database"));
  LF_ASSIGN_OR_RETURN(things.snapshots, sqlite::QueryInt(db, "select count(*) from snapshot"));
  LF_ASSIGN_OR_RETURN(things.chunks, sqlite::QueryInt(db, "select count(*) from chunk"));
  return things;
}

}  // namespace litefleet::catalog
