#include "controller/catalog/record_catalog.h"

#include <utility>

#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/gap_catalog.h"
#include "controller/catalog/gone_numbers.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

enum : int64_t { kDevice = 1, kDatabase = 2, kOperator = 3, kPolicy = 4, kHold = 5, kGap = 6 };
constexpr int64_t kMaxTimelines = 1000;

// `filter` is the condition on the table certificate, its ?1 `subject`.
absl::Status AddCertificates(sqlite3* db, std::string_view filter, std::string_view subject, int64_t now_ms,
                             google::protobuf::RepeatedPtrField<storage::v1::CertificateRecord>& out) {
  LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, std::string("select serial, key_hash, issued_ms, not_after_ms, "
                                                                        "coalesce(revoked_ms, 0), coalesce(used_ms, 0) from certificate "
                                                                        "where not_after_ms > ?2 and ") +
                                                                std::string(filter) + " order by number"));
  get.Bind(1, subject).Bind(2, now_ms);
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, get.Step());
    if (!row) return absl::OkStatus();
    storage::v1::CertificateRecord& certificate = *out.Add();
    certificate.set_serial(std::string(get.Text(0)));
    certificate.set_public_key_hash(std::string(AsText(get.Blob(1))));
    certificate.set_issued_at_ms(get.Int(2));
    certificate.set_not_after_ms(get.Int(3));
    certificate.set_revoked_at_ms(get.Int(4));
    certificate.set_used_at_ms(get.Int(5));
  }
}

absl::StatusOr<storage::v1::DeviceRecord> DeviceOf(sqlite3* db, const std::string& id, uint64_t revision, int64_t now_ms) {
  storage::v1::DeviceRecord record;
  record.set_device_id(id);
  record.set_written_at_ms(now_ms);
  record.set_revision(revision);
  LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select name, state, key_hash, enrolled_ms from device where id = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, id).Step());
  if (!found) {
    record.set_forgotten(true);
    return record;
  }
  record.set_name(std::string(get.Text(0)));
  record.set_state(static_cast<int32_t>(get.Int(1)));
  record.set_public_key_hash(std::string(AsText(get.Blob(2))));
  record.set_enrolled_at_ms(get.Int(3));
  LF_ASSIGN_OR_RETURN(Statement labels, Statement::Prepare(db, "select key, value from device_label where device_id = ?"));
  labels.Bind(1, id);
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, labels.Step());
    if (!row) break;
    (*record.mutable_labels())[std::string(labels.Text(0))] = std::string(labels.Text(1));
  }
  LF_RETURN_IF_ERROR(AddCertificates(db, "device_id = ?1", id, now_ms, *record.mutable_certificates()));
  return record;
}

absl::StatusOr<storage::v1::OperatorRecord> OperatorOf(sqlite3* db, const std::string& name, uint64_t revision, int64_t now_ms) {
  storage::v1::OperatorRecord record;
  record.set_name(name);
  record.set_written_at_ms(now_ms);
  record.set_revision(revision);
  LF_ASSIGN_OR_RETURN(Statement get,
                      Statement::Prepare(db, "select role from certificate where operator_name = ? order by number desc limit 1"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, name).Step());
  if (found) record.set_role(std::string(get.Text(0)));
  LF_RETURN_IF_ERROR(AddCertificates(db, "operator_name = ?1", name, now_ms, *record.mutable_certificates()));
  return record;
}

absl::StatusOr<storage::v1::PolicyRecord> PolicyOf(sqlite3* db, const std::string& name, uint64_t revision, int64_t now_ms) {
  storage::v1::PolicyRecord record;
  record.set_name(name);
  record.set_written_at_ms(now_ms);
  record.set_revision(revision);
  LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select version, applied_at, text from policy where name = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, name).Step());
  record.set_deleted(!found);
  if (!found) return record;
  record.set_version(get.Int(0));
  record.set_applied_at_ms(get.Int(1));
  record.set_text(std::string(get.Text(2)));
  return record;
}

// What records of a database begin with. `subject`: "DEVICE/DATABASE".
template <class Record>
Record OfDatabase(const std::string& subject, uint64_t revision, int64_t now_ms) {
  Record record;
  const size_t slash = subject.find('/');
  record.set_device_id(subject.substr(0, slash));
  record.set_database(slash == std::string::npos ? "" : subject.substr(slash + 1));
  record.set_written_at_ms(now_ms);
  record.set_revision(revision);
  return record;
}

absl::StatusOr<storage::v1::RetentionHoldRecord> HoldOf(sqlite3* db, const std::string& subject, uint64_t revision, int64_t now_ms) {
  auto record = OfDatabase<storage::v1::RetentionHoldRecord>(subject, revision, now_ms);
  record.set_released_sequence(-1);
  LF_ASSIGN_OR_RETURN(
      Statement get,
      Statement::Prepare(db,
                         "select active, since, reason, message, released_sequence from retention_hold where device = ? and database = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, record.device_id()).Bind(2, record.database()).Step());
  if (!found) return record;
  record.set_active(get.Int(0) != 0);
  record.set_since_ms(get.Int(1));
  record.set_reason(std::string(get.Text(2)));
  record.set_message(std::string(get.Text(3)));
  record.set_released_sequence(get.Int(4));
  return record;
}

absl::StatusOr<storage::v1::DatabaseRecord> DatabaseOf(sqlite3* db, const std::string& subject, uint64_t revision, int64_t now_ms) {
  auto record = OfDatabase<storage::v1::DatabaseRecord>(subject, revision, now_ms);
  LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select id, timeline, sequence from database where device = ? and name = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, record.device_id()).Bind(2, record.database()).Step());
  if (!found) return record;
  record.set_timeline(static_cast<uint64_t>(get.Int(1)));
  record.set_sequence(static_cast<uint64_t>(get.Int(2)));
  LF_RETURN_IF_ERROR(FillGoneNumbers(db, get.Int(0), record));
  LF_ASSIGN_OR_RETURN(
      Statement timelines,
      Statement::Prepare(db,
                         "select * from (select timeline, operation, live_from, base from timeline where database = ? order by "
                         "timeline desc limit ?) order by timeline"));
  timelines.Bind(1, get.Int(0)).Bind(2, kMaxTimelines);
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, timelines.Step());
    if (!row) return record;
    storage::v1::TimelineRecord& timeline = *record.add_timelines();
    timeline.set_timeline(static_cast<uint64_t>(timelines.Int(0)));
    timeline.set_operation_id(std::string(timelines.Text(1)));
    timeline.set_live_from_ms(timelines.Int(2));
    timeline.set_base_snapshot_id(std::string(timelines.Text(3)));
  }
}

}  // namespace

// Kinds as in the enum above. The revision is the row's number: it grows, also over rows that are gone.
const std::string_view kRecordSchema = R"sql(
create table record_due (
  revision integer primary key autoincrement,
  kind integer not null,
  subject text not null,
  unique (kind, subject)
) strict;

create trigger record_device_made after insert on device begin
  delete from record_due where kind = 1 and subject = new.id; insert into record_due (kind, subject) values (1, new.id); end;
create trigger record_device_changed after update of name, state, key_hash, enrolled_ms on device begin
  delete from record_due where kind = 1 and subject = new.id; insert into record_due (kind, subject) values (1, new.id); end;
create trigger record_device_gone after delete on device begin
  delete from record_due where kind = 1 and subject = old.id; insert into record_due (kind, subject) values (1, old.id); end;
create trigger record_label_made after insert on device_label begin
  delete from record_due where kind = 1 and subject = new.device_id; insert into record_due (kind, subject) values (1, new.device_id); end;
create trigger record_label_changed after update on device_label begin
  delete from record_due where kind = 1 and subject = new.device_id; insert into record_due (kind, subject) values (1, new.device_id); end;
create trigger record_label_gone after delete on device_label begin
  delete from record_due where kind = 1 and subject = old.device_id; insert into record_due (kind, subject) values (1, old.device_id); end;
create trigger record_certificate_made after insert on certificate when new.device_id is not null begin
  delete from record_due where kind = 1 and subject = new.device_id; insert into record_due (kind, subject) values (1, new.device_id); end;
create trigger record_certificate_changed after update of revoked_ms, used_ms on certificate when new.device_id is not null begin
  delete from record_due where kind = 1 and subject = new.device_id; insert into record_due (kind, subject) values (1, new.device_id); end;
create trigger record_operator_made after insert on certificate when new.operator_name is not null begin
  delete from record_due where kind = 3 and subject = new.operator_name;
  insert into record_due (kind, subject) values (3, new.operator_name); end;
create trigger record_operator_changed after update of revoked_ms on certificate when new.operator_name is not null begin
  delete from record_due where kind = 3 and subject = new.operator_name;
  insert into record_due (kind, subject) values (3, new.operator_name); end;
create trigger record_timeline_made after insert on timeline begin
  delete from record_due where kind = 2 and subject = (select device || '/' || name from database where id = new.database);
  insert into record_due (kind, subject) select 2, device || '/' || name from database where id = new.database; end;
create trigger record_timeline_changed after update on timeline begin
  delete from record_due where kind = 2 and subject = (select device || '/' || name from database where id = new.database);
  insert into record_due (kind, subject) select 2, device || '/' || name from database where id = new.database; end;

insert into record_due (kind, subject) select 1, id from device;
insert into record_due (kind, subject) select distinct 3, operator_name from certificate where operator_name is not null;
insert into record_due (kind, subject) select 2, device || '/' || name from database where timeline > 1;
)sql";

const std::string_view kPolicyRecordSchema = R"sql(
create trigger record_policy_made after insert on policy begin
  delete from record_due where kind = 4 and subject = new.name; insert into record_due (kind, subject) values (4, new.name); end;
create trigger record_policy_gone after delete on policy begin
  delete from record_due where kind = 4 and subject = old.name; insert into record_due (kind, subject) values (4, old.name); end;
create trigger record_hold_made after insert on retention_hold begin
  delete from record_due where kind = 5 and subject = new.device || '/' || new.database;
  insert into record_due (kind, subject) values (5, new.device || '/' || new.database); end;
create trigger record_hold_changed after update on retention_hold begin
  delete from record_due where kind = 5 and subject = new.device || '/' || new.database;
  insert into record_due (kind, subject) values (5, new.device || '/' || new.database); end;
create trigger record_hold_gone after delete on retention_hold begin
  delete from record_due where kind = 5 and subject = old.device || '/' || old.database;
  insert into record_due (kind, subject) values (5, old.device || '/' || old.database); end;

insert into record_due (kind, subject) select 4, name from policy;
insert into record_due (kind, subject) select 5, device || '/' || database from retention_hold;
)sql";

// Where no snapshot says any more how far a database has counted, its record does: no number is given twice.
const std::string_view kNumberRecordSchema = R"sql(
create trigger record_number_gone after delete on snapshot
when old.sequence = (select sequence from database where id = old.database and forgotten = 0) begin
  delete from record_due where kind = 2 and subject = (select device || '/' || name from database where id = old.database);
  insert into record_due (kind, subject) select 2, device || '/' || name from database where id = old.database; end;
)sql";

const std::string_view kNumbersDue = R"sql(
insert into record_due (kind, subject) select 2, device || '/' || name from database d where forgotten = 0 and
  sequence > coalesce((select max(sequence) from snapshot where database = d.id), 0) on conflict (kind, subject) do nothing;
)sql";

absl::StatusOr<std::vector<DueRecord>> RecordCatalog::Due(SystemTime now, int limit) const {
  const int64_t now_ms = ToUnixMillis(now);
  std::vector<DueRecord> due;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement list, Statement::Prepare(db, "select revision, kind, subject from record_due order by revision limit ?"));
    list.Bind(1, int64_t{limit});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      DueRecord& next = due.emplace_back();
      next.revision = static_cast<uint64_t>(list.Int(0));
      const std::string subject(list.Text(2));
      switch (list.Int(1)) {
        case kDevice: {
          LF_ASSIGN_OR_RETURN(next.record, DeviceOf(db, subject, next.revision, now_ms));
          break;
        }
        case kDatabase: {
          LF_ASSIGN_OR_RETURN(next.record, DatabaseOf(db, subject, next.revision, now_ms));
          break;
        }
        case kPolicy: {
          LF_ASSIGN_OR_RETURN(next.record, PolicyOf(db, subject, next.revision, now_ms));
          break;
        }
        case kHold: {
          LF_ASSIGN_OR_RETURN(next.record, HoldOf(db, subject, next.revision, now_ms));
          break;
        }
        case kGap: {
          LF_ASSIGN_OR_RETURN(auto gap, GapRecordOf(db, subject, next.revision, now_ms));
          // One that is gone took its note with it.
          if (!gap.has_value()) return Error(absl::StatusCode::kInternal, "CATALOG_DAMAGED", "a gap's row is missing");
          next.record = *std::move(gap);
          break;
        }
        default: {
          LF_ASSIGN_OR_RETURN(next.record, OperatorOf(db, subject, next.revision, now_ms));
          break;
        }
      }
    }
  }));
  return due;
}

RecordCatalog::Subject RecordCatalog::SubjectOf(const Record& record) {
  struct Visitor {
    Subject operator()(const storage::v1::DeviceRecord& each) const { return {kDevice, each.device_id()}; }
    Subject operator()(const storage::v1::DatabaseRecord& each) const { return {kDatabase, each.device_id() + "/" + each.database()}; }
    Subject operator()(const storage::v1::OperatorRecord& each) const { return {kOperator, each.name()}; }
    Subject operator()(const storage::v1::PolicyRecord& each) const { return {kPolicy, each.name()}; }
    Subject operator()(const storage::v1::RetentionHoldRecord& each) const { return {kHold, each.device_id() + "/" + each.database()}; }
    Subject operator()(const storage::v1::GapRecord& each) const { return {kGap, each.gap_id()}; }
  };
  return std::visit(Visitor(), record);
}

absl::StatusOr<bool> RecordCatalog::IsSuperseded(const Record& record) const {
  const Subject of = SubjectOf(record);
  const auto revision = std::visit([](const auto& each) { return static_cast<int64_t>(each.revision()); }, record);
  bool superseded = false;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db, "select 1 from record_written where kind = ? and subject = ? and revision > ?"));
    LF_ASSIGN_OR_RETURN(superseded, get.Bind(1, of.kind).Bind(2, of.name).Bind(3, revision).Step());
    return absl::OkStatus();
  }));
  return superseded;
}

absl::Status RecordCatalog::Written(std::span<const DueRecord> records) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement remove, Statement::Prepare(db, "delete from record_due where revision = ?"));
    LF_ASSIGN_OR_RETURN(Statement newest, Statement::Prepare(db,
                                                             "insert into record_written (kind, subject, revision) values (?1, ?2, ?3) on "
                                                             "conflict do update set revision = max(revision, ?3)"));
    for (const DueRecord& record : records) {
      LF_RETURN_IF_ERROR(remove.Bind(1, static_cast<int64_t>(record.revision)).Run());
      const Subject of = SubjectOf(record.record);
      if (of.kind == kGap) continue;  // the gap's row says so
      const auto* database = std::get_if<storage::v1::DatabaseRecord>(&record.record);
      if (database != nullptr) LF_RETURN_IF_ERROR(DropMarksOfGone(db, *database));
      // An older one may name what this one has no room for.
      if (database != nullptr && database->gone_size() >= kMaxGoneRanges) continue;
      LF_RETURN_IF_ERROR(newest.Bind(1, of.kind).Bind(2, of.name).Bind(3, static_cast<int64_t>(record.revision)).Run());
    }
    return absl::OkStatus();
  });
}

}  // namespace litefleet::catalog
