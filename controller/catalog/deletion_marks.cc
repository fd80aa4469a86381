// Marks, and the removal of snapshots from the catalog.
#include <set>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/deletion_catalog.h"
#include "controller/catalog/gone_numbers.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::catalog {

using sqlite::Statement;

constexpr int kMaxParts = 500;  // rows a transaction, anywhere in the tables, so that nobody waits long

absl::StatusOr<std::vector<DeletionCatalog::DueMark>> DeletionCatalog::DueMarks(int limit) const {
  std::vector<DueMark> due;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement list,
        Statement::Prepare(
            db,
            "select m.revision, s.id, s.state, s.trashed_at, s.trashed_by, s.pinned, s.session, s.sequence, s.pack, s.pinned_until "
            "from mark_due m join snapshot s on s.id = m.snapshot order by m.revision limit ?"));
    list.Bind(1, int64_t{limit});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      DueMark& next = due.emplace_back();
      next.revision = static_cast<uint64_t>(list.Int(0));
      next.mark.set_revision(next.revision);
      next.mark.set_snapshot_id(std::string(list.Text(1)));
      next.mark.set_deleted(list.Int(2) == v1::SNAPSHOT_STATE_TRASH);
      if (next.mark.deleted()) {
        next.mark.set_deleted_at_ms(list.Int(3));
        next.mark.set_deleted_by(std::string(list.Text(4)));
      }
      next.mark.set_pinned(list.Int(5) != 0);
      next.mark.set_session_id(std::string(list.Text(6)));
      next.mark.set_sequence(static_cast<uint64_t>(list.Int(7)));
      next.mark.set_last_pack(static_cast<uint64_t>(list.Int(8)));
      next.mark.set_pinned_until_ms(list.Int(9));
    }
  }));
  return due;
}

absl::Status DeletionCatalog::MarksWritten(std::span<const DueMark> marks) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement remove, Statement::Prepare(db, "delete from mark_due where revision = ?"));
    for (const DueMark& mark : marks) LF_RETURN_IF_ERROR(remove.Bind(1, static_cast<int64_t>(mark.revision)).Run());
    return absl::OkStatus();
  });
}

absl::StatusOr<DeletionCatalog::Removed> DeletionCatalog::RemoveSome(SystemTime before, int64_t after_key, uint64_t newest_pack,
                                                                     absl::FunctionRef<bool(const SnapshotId&)> held) {
  Removed result;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    result = Removed{.last_key = after_key};
    struct Candidate {
      int64_t key;
      SnapshotId id;
      bool kept;
      int64_t database;
      int64_t sequence;
      int64_t last_pack;
    };
    std::vector<Candidate> candidates;
    LF_ASSIGN_OR_RETURN(
        Statement list,
        Statement::Prepare(db,
                           "select s.key, s.id, exists (select 1 from mark_due where snapshot = s.id) "
                           "or exists (select 1 from operation o where o.active = 1 and o.snapshot = s.id and o.snapshot <> '') "
                           "or exists (select 1 from upload_session u where u.state = 1 and u.pinned = s.id), "
                           "s.database, s.sequence, max(s.pack, ?4 + 1) from snapshot s where s.state = 3 and s.trashed_at <= ?1 and s.key "
                           "> ?2 order by s.key limit ?3"));
    list.Bind(1, ToUnixMillis(before)).Bind(2, after_key).Bind(3, int64_t{kAtOnce}).Bind(4, static_cast<int64_t>(newest_pack));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) break;
      candidates.push_back({.key = list.Int(0),
                            .id = SnapshotId(std::string(list.Text(1))),
                            .kept = list.Int(2) != 0,
                            .database = list.Int(3),
                            .sequence = list.Int(4),
                            .last_pack = list.Int(5)});
    }
    // A copy of its record may stand in any pack up to the open one, or in the next where that is sealed in this moment: a rewrite or a
    // heal may have been cut off, and the row knows of one place alone.
    LF_ASSIGN_OR_RETURN(Statement note, Statement::Prepare(db,
                                                           "insert into gone_snapshot (id, mark, last_pack, database, sequence) select "
                                                           "id, mark, max(pack, ?2 + 1), database, sequence from snapshot where key = ?1 "
                                                           "and mark > 0"));
    std::set<int64_t> databases;  // whose numbers have changed
    const auto note_numbers = [&]() -> absl::Status {
      for (const int64_t database : databases) LF_RETURN_IF_ERROR(NoteGoneNumbers(db, database));
      return absl::OkStatus();
    };
    const std::string_view kStatements[] = {"delete from manifest_part where snapshot = ?", "delete from snapshot where key = ?"};
    int parts = 0;
    for (const Candidate& candidate : candidates) {
      if (parts > kMaxParts) {
        result.more = true;
        return note_numbers();
      }
      result.last_key = candidate.key;
      if (candidate.kept || held(candidate.id)) {
        ++result.kept;
        continue;
      }
      LF_RETURN_IF_ERROR(note.Bind(1, candidate.key).Bind(2, static_cast<int64_t>(newest_pack)).Run());
      for (const std::string_view sql : kStatements) {
        LF_ASSIGN_OR_RETURN(Statement remove, Statement::Prepare(db, sql));
        LF_RETURN_IF_ERROR(remove.Bind(1, candidate.key).Run());
        parts += sqlite3_changes(db);
      }
      LF_RETURN_IF_ERROR(AddGoneNumber(db, candidate.database, candidate.sequence, candidate.last_pack));
      databases.insert(candidate.database);
      ++result.snapshots;
    }
    LF_RETURN_IF_ERROR(note_numbers());
    result.more = candidates.size() == static_cast<size_t>(kAtOnce);
    return absl::OkStatus();
  }));
  if (result.snapshots > 0) LF_CRASH_POINT("prune.after_remove");
  return result;
}

absl::StatusOr<int64_t> DeletionCatalog::CountRemovable(SystemTime before) const {
  int64_t count = 0;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select count(*) from snapshot where state = 3 and trashed_at <= ?"));
    LF_RETURN_IF_ERROR(get.Bind(1, ToUnixMillis(before)).Step().status());
    count = get.Int(0);
    return absl::OkStatus();
  }));
  return count;
}

}  // namespace litefleet::catalog
