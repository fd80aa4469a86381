#include "controller/catalog/gone_numbers.h"

#include <algorithm>
#include <string>

#include "common/base/status.h"

namespace litefleet::catalog {

using sqlite::Statement;

const std::string_view kGoneNumberSchema = R"sql(
create table gone_number (                    -- numbers of snapshots that were removed; ranges that do not touch
  database integer not null,
  first integer not null,
  last integer not null,
  last_pack integer not null,                 -- in which records of them may stand
  primary key (database, first)
) strict, without rowid;
alter table gone_snapshot add column database integer not null default 0;  -- 0: it was removed before these were kept
alter table gone_snapshot add column sequence integer not null default 0;
create index gone_snapshot_number on gone_snapshot (database, sequence);
create trigger database_numbers_gone after delete on database begin
  delete from gone_number where database = old.id;
  delete from gone_snapshot where database = old.id;  -- the record of its device says so
end;

create table record_written (                 -- the newest record of a thing in the packs, as of record_due
  kind integer not null,
  subject text not null,
  revision integer not null,
  primary key (kind, subject)
) strict, without rowid;
)sql";

namespace {

absl::Status PutRange(sqlite::Connection db, int64_t database, int64_t first, int64_t last, int64_t last_pack) {
  LF_ASSIGN_OR_RETURN(Statement put, Statement::Prepare(db, "insert or replace into gone_number values (?, ?, ?, ?)"));
  return put.Bind(1, database).Bind(2, first).Bind(3, last).Bind(4, last_pack).Run();
}

}  // namespace

absl::Status AddGoneNumber(sqlite::Connection db, int64_t database, int64_t number, int64_t last_pack) {
  int64_t first = number;
  int64_t last = number;
  {
    LF_ASSIGN_OR_RETURN(Statement before,
                        Statement::Prepare(db,
                                           "select first, last, last_pack from gone_number where database = ?1 and first <= ?2 "
                                           "order by first desc limit 1"));
    LF_ASSIGN_OR_RETURN(const bool found, before.Bind(1, database).Bind(2, number).Step());
    if (found && before.Int(1) >= number) return PutRange(db, database, before.Int(0), before.Int(1), std::max(last_pack, before.Int(2)));
    if (found && before.Int(1) == number - 1) {
      first = before.Int(0);
      last_pack = std::max(last_pack, before.Int(2));
    }
  }
  {
    LF_ASSIGN_OR_RETURN(Statement behind,
                        Statement::Prepare(db, "select last, last_pack from gone_number where database = ?1 and first = ?2"));
    LF_ASSIGN_OR_RETURN(const bool found, behind.Bind(1, database).Bind(2, number + 1).Step());
    if (found) {
      last = behind.Int(0);
      last_pack = std::max(last_pack, behind.Int(1));
    }
  }
  if (last != number) {
    LF_ASSIGN_OR_RETURN(Statement drop, Statement::Prepare(db, "delete from gone_number where database = ?1 and first = ?2"));
    LF_RETURN_IF_ERROR(drop.Bind(1, database).Bind(2, number + 1).Run());
  }
  return PutRange(db, database, first, last, last_pack);
}

absl::Status KeepGone(sqlite::Connection db, const storage::v1::SnapshotRecord& record, int64_t pack) {
  LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select id from database where device = ? and name = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, record.device_id()).Bind(2, record.database()).Step());
  if (!found) return absl::OkStatus();
  const int64_t database = get.Int(0);
  get.Reset();
  LF_ASSIGN_OR_RETURN(Statement later, Statement::Prepare(db,
                                                          "update gone_number set last_pack = ?1 where database = ?2 and last_pack < ?1 "
                                                          "and ?3 between first and last"));
  LF_RETURN_IF_ERROR(later.Bind(1, pack).Bind(2, database).Bind(3, static_cast<int64_t>(record.sequence())).Run());
  return sqlite3_changes(db) == 0 ? absl::OkStatus() : NoteGoneNumbers(db, database);
}

absl::Status TakeGoneNumbers(sqlite::Connection db, int64_t database, int64_t first, int64_t last, int64_t last_pack) {
  LF_ASSIGN_OR_RETURN(
      Statement there,
      Statement::Prepare(db, "select sequence from snapshot where database = ? and sequence between ? and ? order by sequence"));
  there.Bind(1, database).Bind(2, first).Bind(3, last);
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, there.Step());
    const int64_t end = row ? there.Int(0) - 1 : last;
    if (first <= end) LF_RETURN_IF_ERROR(PutRange(db, database, first, end, last_pack));
    if (!row) return absl::OkStatus();
    first = there.Int(0) + 1;
  }
}

absl::Status NoteGoneNumbers(sqlite::Connection db, int64_t database) {
  // Anew, so that it has a revision of its own also where one is being written.
  for (const std::string_view sql :
       {"delete from record_due where kind = 2 and subject = (select device || '/' || name from database where id = ?)",
        "insert into record_due (kind, subject) select 2, device || '/' || name from database where id = ? and forgotten = 0"}) {
    LF_ASSIGN_OR_RETURN(Statement note, Statement::Prepare(db, sql));
    LF_RETURN_IF_ERROR(note.Bind(1, database).Run());
  }
  return absl::OkStatus();
}

absl::Status FillGoneNumbers(sqlite::Connection db, int64_t database, storage::v1::DatabaseRecord& record) {
  LF_ASSIGN_OR_RETURN(Statement list,
                      Statement::Prepare(db, "select first, last, last_pack from gone_number where database = ? order by first limit ?"));
  list.Bind(1, database).Bind(2, int64_t{kMaxGoneRanges});
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, list.Step());
    if (!row) return absl::OkStatus();
    storage::v1::NumberRange& range = *record.add_gone();
    range.set_first(static_cast<uint64_t>(list.Int(0)));
    range.set_last(static_cast<uint64_t>(list.Int(1)));
    range.set_last_pack(static_cast<uint64_t>(list.Int(2)));
  }
}

absl::Status DropMarksOfGone(sqlite::Connection db, const storage::v1::DatabaseRecord& record) {
  if (record.gone().empty()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(Statement drop,
                      Statement::Prepare(db,
                                         "delete from gone_snapshot where database = (select id from database where device = ?1 and name = "
                                         "?2) and sequence between ?3 and ?4"));
  drop.Bind(1, record.device_id()).Bind(2, record.database());
  for (const storage::v1::NumberRange& range : record.gone())
    LF_RETURN_IF_ERROR(drop.Bind(3, static_cast<int64_t>(range.first())).Bind(4, static_cast<int64_t>(range.last())).Run());
  return absl::OkStatus();
}

}  // namespace litefleet::catalog
