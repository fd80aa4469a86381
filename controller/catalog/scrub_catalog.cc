#include "controller/catalog/scrub_catalog.h"

#include <utility>

#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/chunk_state.h"
#include "controller/catalog/gone_numbers.h"
#include "fmt/format.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

constexpr int kHealedAtOnce = 10'000;

}  // namespace

// Times are Unix milliseconds.
const std::string_view kScrubSchema = R"sql(
create table scrub_pack (                     -- packs that were read through and are as they were written
  pack integer primary key,
  proven_at integer not null
) strict;

create table quarantine (                     -- chunks whose state is 3, until scrub has seen that they are good again
  chunk integer primary key,
  found_at integer not null,
  reason text not null
) strict;

create table quarantine_generation (          -- how often chunks were quarantined
  id integer primary key check (id = 1),
  generation integer not null
) strict;
insert into quarantine_generation values (1, 0);
alter table upload_session add column generation integer not null default 0;  -- of the quarantines, when it began or was resumed
)sql";

// What devices are asked for. Quarantines of before this table are found again by their marks.
const std::string_view kHealSchema = R"sql(
alter table quarantine add column marked integer not null default 0;  -- the snapshots that need it are marked, it is wanted

create table wanted (                         -- quarantined chunks, and the databases whose devices may have them
  database integer not null,
  chunk integer not null,
  state integer not null,                     -- 1 to be asked for as a whole, 3 page by page, 2 the device does not have it
  asked_at integer not null default -1,       -- when it was last asked for
  primary key (database, chunk)
) strict, without rowid;
create index wanted_chunk on wanted (chunk);

create table healed_page (                    -- pages of quarantined chunks that came back, in chunks of their own
  chunk integer not null,
  page integer not null,                      -- from 0, in the quarantined chunk
  copy integer not null,                      -- chunk
  copy_page integer not null,
  primary key (chunk, page)
) strict, without rowid;
)sql";

absl::StatusOr<std::map<uint64_t, SystemTime>> ScrubCatalog::ProvenPacks() const {
  std::map<uint64_t, SystemTime> packs;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select pack, proven_at from scrub_pack"));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      packs[static_cast<uint64_t>(get.Int(0))] = FromUnixMillis(get.Int(1));
    }
  }));
  return packs;
}

absl::Status ScrubCatalog::SetProven(uint64_t pack, SystemTime at) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement put, Statement::Prepare(db, "insert or replace into scrub_pack values (?, ?)"));
    return put.Bind(1, static_cast<int64_t>(pack)).Bind(2, ToUnixMillis(at)).Run();
  });
}

absl::StatusOr<int64_t> ScrubCatalog::CountChunks(uint64_t pack) const {
  int64_t count = 0;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select chunks from pack where id = ?"));
    LF_ASSIGN_OR_RETURN(const bool row, get.Bind(1, static_cast<int64_t>(pack)).Step());
    count = row ? get.Int(0) : 0;
    return absl::OkStatus();
  }));
  return count;
}

absl::StatusOr<int64_t> ScrubCatalog::NewestChunk() const {
  int64_t newest = 0;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(newest, sqlite::QueryInt(db, "select coalesce(max(id), 0) from chunk"));
    return absl::OkStatus();
  }));
  return newest;
}

absl::StatusOr<std::vector<ScrubCatalog::PlacedChunk>> ScrubCatalog::ChunksIn(uint64_t pack, int64_t after, int limit) const {
  std::vector<PlacedChunk> chunks;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement get,
        Statement::Prepare(db, "select id, name, offset from chunk where id > ? and pack = ? and state in (1, 2) order by id limit ?"));
    get.Bind(1, after).Bind(2, static_cast<int64_t>(pack)).Bind(3, int64_t{limit});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      const auto name = format::ChunkName::FromBytes(AsText(get.Blob(1)));
      if (!name.has_value()) continue;
      chunks.push_back({.id = get.Int(0), .name = *name, .place = {.pack = pack, .offset = static_cast<uint64_t>(get.Int(2))}});
    }
  }));
  return chunks;
}

absl::StatusOr<std::vector<PackPlace>> ScrubCatalog::ManifestPartsIn(uint64_t pack, int64_t after, int limit) const {
  std::vector<PackPlace> places;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement get,
        Statement::Prepare(db, "select distinct offset from manifest_part where pack = ? and offset > ? order by offset limit ?"));
    get.Bind(1, static_cast<int64_t>(pack)).Bind(2, after).Bind(3, int64_t{limit});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      places.push_back({.pack = pack, .offset = static_cast<uint64_t>(get.Int(0))});
    }
  }));
  return places;
}

absl::StatusOr<std::vector<SnapshotId>> ScrubCatalog::SnapshotsWithPart(PackPlace place) const {
  std::vector<SnapshotId> snapshots;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db,
                                           "select id from snapshot where key in (select snapshot from manifest_part where pack = ? "
                                           "and offset = ?)"));
    get.Bind(1, static_cast<int64_t>(place.pack)).Bind(2, static_cast<int64_t>(place.offset));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      snapshots.emplace_back(std::string(get.Text(0)));
    }
  }));
  return snapshots;
}

absl::StatusOr<std::vector<ScrubCatalog::PlacedRecord>> ScrubCatalog::RecordsIn(uint64_t pack, int64_t after, int limit) const {
  std::vector<PlacedRecord> records;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db, "select id, offset from snapshot where pack = ? and offset > ? order by offset limit ?"));
    get.Bind(1, static_cast<int64_t>(pack)).Bind(2, after).Bind(3, int64_t{limit});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      records.push_back(
          {.snapshot = SnapshotId(std::string(get.Text(0))), .place = {.pack = pack, .offset = static_cast<uint64_t>(get.Int(1))}});
    }
  }));
  return records;
}

absl::StatusOr<std::optional<storage::v1::SnapshotRecord>> ScrubCatalog::RecordOf(const PlacedRecord& record) const {
  std::optional<storage::v1::SnapshotRecord> result;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement there, Statement::Prepare(db, "select 1 from snapshot where id = ? and pack = ? and offset = ?"));
    there.Bind(1, record.snapshot.value()).Bind(2, static_cast<int64_t>(record.place.pack));
    LF_ASSIGN_OR_RETURN(const bool is_there, there.Bind(3, static_cast<int64_t>(record.place.offset)).Step());
    if (!is_there) return absl::OkStatus();
    LF_ASSIGN_OR_RETURN(result, SnapshotRecordOf(db, record.snapshot));
    return absl::OkStatus();
  }));
  return result;
}

absl::StatusOr<bool> ScrubCatalog::MoveRecord(const PlacedRecord& record, const storage::v1::SnapshotRecord& written, PackPlace to) {
  bool moved = false;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement move,
                        Statement::Prepare(db, "update snapshot set pack = ?, offset = ? where id = ? and pack = ? and offset = ?"));
    move.Bind(1, static_cast<int64_t>(to.pack)).Bind(2, static_cast<int64_t>(to.offset)).Bind(3, record.snapshot.value());
    LF_RETURN_IF_ERROR(move.Bind(4, static_cast<int64_t>(record.place.pack)).Bind(5, static_cast<int64_t>(record.place.offset)).Run());
    moved = sqlite3_changes(db) == 1;
    if (moved) return absl::OkStatus();
    // Where the snapshot was removed meanwhile, its mark is to outlive this record as well.
    LF_ASSIGN_OR_RETURN(Statement later, Statement::Prepare(db, "update gone_snapshot set last_pack = max(last_pack, ?) where id = ?"));
    LF_RETURN_IF_ERROR(later.Bind(1, static_cast<int64_t>(to.pack)).Bind(2, record.snapshot.value()).Run());
    return KeepGone(db, written, static_cast<int64_t>(to.pack));
  }));
  return moved;
}

absl::StatusOr<std::vector<int64_t>> ScrubCatalog::Quarantine(std::span<const PlacedChunk> chunks, std::string_view reason, SystemTime at) {
  std::vector<int64_t> ids;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    ids.clear();
    LF_ASSIGN_OR_RETURN(Statement mark, Statement::Prepare(db,
                                                           "update chunk set state = ? where name = ? and pack = ? and offset = ? and "
                                                           "state in (?, ?) returning id"));
    LF_ASSIGN_OR_RETURN(Statement note,
                        Statement::Prepare(db, "insert or replace into quarantine (chunk, found_at, reason) values (?, ?, ?)"));
    LF_ASSIGN_OR_RETURN(Statement trash, Statement::Prepare(db, "delete from chunk_trash where chunk = ?"));
    for (const PlacedChunk& chunk : chunks) {
      mark.Bind(1, int64_t{kChunkQuarantined}).BindBlob(2, chunk.name.bytes).Bind(3, static_cast<int64_t>(chunk.place.pack));
      mark.Bind(4, static_cast<int64_t>(chunk.place.offset)).Bind(5, int64_t{kChunkGood}).Bind(6, int64_t{kChunkTrash});
      LF_ASSIGN_OR_RETURN(const bool found, mark.Step());
      if (!found) continue;  // moved or replaced meanwhile
      const int64_t id = mark.Int(0);
      mark.Reset();
      ids.push_back(id);
      LF_RETURN_IF_ERROR(note.Bind(1, id).Bind(2, ToUnixMillis(at)).Bind(3, reason).Run());
      LF_RETURN_IF_ERROR(trash.Bind(1, id).Run());
    }
    if (ids.empty()) return absl::OkStatus();
    return sqlite::Execute(db, "update quarantine_generation set generation = generation + 1");
  }));
  return ids;
}

absl::StatusOr<std::vector<DeviceId>> ScrubCatalog::OwnersOf(std::span<const int64_t> chunks) const {
  std::vector<DeviceId> devices;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement list, Statement::Prepare(db, "select id, device from owner"));
    LF_ASSIGN_OR_RETURN(Statement has, Statement::Prepare(db, "select 1 from device_chunk where owner = ? and chunk = ?"));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      for (const int64_t chunk : chunks) {
        LF_ASSIGN_OR_RETURN(const bool found, has.Bind(1, list.Int(0)).Bind(2, chunk).Step());
        has.Reset();
        if (!found) continue;
        devices.emplace_back(std::string(list.Text(1)));
        break;
      }
    }
  }));
  return devices;
}

absl::StatusOr<std::vector<ScrubCatalog::Listed>> ScrubCatalog::SnapshotsOf(const DeviceId& device, int64_t after, int limit) const {
  std::vector<Listed> snapshots;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db,
                                                          "select key, database, id, case state when ?4 then trashed_from else state "
                                                          "end from snapshot where device = ?1 and key > ?2 order by key limit ?3"));
    get.Bind(1, device.value()).Bind(2, after).Bind(3, int64_t{limit}).Bind(4, int64_t{v1::SNAPSHOT_STATE_TRASH});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      snapshots.push_back({.key = get.Int(0),
                           .database = get.Int(1),
                           .id = SnapshotId(std::string(get.Text(2))),
                           .damaged = get.Int(3) == int64_t{v1::SNAPSHOT_STATE_DAMAGED}});
    }
  }));
  return snapshots;
}

absl::StatusOr<bool> ScrubCatalog::SetDamaged(const SnapshotId& snapshot, bool damaged) {
  bool changed = false;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    const int64_t good = v1::SNAPSHOT_STATE_COMMITTED, bad = v1::SNAPSHOT_STATE_DAMAGED, trash = v1::SNAPSHOT_STATE_TRASH;
    LF_ASSIGN_OR_RETURN(Statement kept,
                        Statement::Prepare(db, "update snapshot set trashed_from = ? where id = ? and state = ? and trashed_from = ?"));
    kept.Bind(1, damaged ? bad : good).Bind(2, snapshot.value()).Bind(3, trash).Bind(4, damaged ? good : bad);
    LF_RETURN_IF_ERROR(kept.Run());
    changed = sqlite3_changes(db) > 0;
    LF_ASSIGN_OR_RETURN(Statement set,
                        Statement::Prepare(db, "update snapshot set state = ? where id = ? and state = ? returning database"));
    LF_ASSIGN_OR_RETURN(const bool found, set.Bind(1, damaged ? bad : good).Bind(2, snapshot.value()).Bind(3, damaged ? good : bad).Step());
    if (!found) return absl::OkStatus();
    changed = true;
    const int64_t database = set.Int(0);
    set.Reset();
    LF_ASSIGN_OR_RETURN(
        Statement proven,
        Statement::Prepare(db,
                           "update database set proven = (select key from snapshot where database = ?1 and check_state = "
                           "?2 and state = ?3 and provenance = '' and part = '' order by sequence desc limit 1) where id = ?1"));
    return proven.Bind(1, database).Bind(2, int64_t{v1::CHECK_STATE_OK}).Bind(3, good).Run();
  }));
  return changed;
}

absl::StatusOr<std::vector<ScrubCatalog::PlacedChunk>> ScrubCatalog::Unmarked(int limit) const {
  std::vector<PlacedChunk> chunks;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement get,
        Statement::Prepare(
            db, "select c.id, c.name from quarantine q join chunk c on c.id = q.chunk where q.marked = 0 and c.state = ? limit ?"));
    get.Bind(1, int64_t{kChunkQuarantined}).Bind(2, int64_t{limit});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      const auto name = format::ChunkName::FromBytes(AsText(get.Blob(1)));
      if (name.has_value()) chunks.push_back({.id = get.Int(0), .name = *name, .place = {}});
    }
  }));
  return chunks;
}

absl::Status ScrubCatalog::SetMarked(std::span<const int64_t> chunks) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement set, Statement::Prepare(db, "update quarantine set marked = 1 where chunk = ?"));
    for (const int64_t chunk : chunks) LF_RETURN_IF_ERROR(set.Bind(1, chunk).Run());
    return absl::OkStatus();
  });
}

absl::Status ScrubCatalog::AddWanted(int64_t database, std::span<const int64_t> chunks) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement add, Statement::Prepare(db, "insert or replace into wanted (database, chunk, state) values (?, ?, 1)"));
    for (const int64_t chunk : chunks) LF_RETURN_IF_ERROR(add.Bind(1, database).Bind(2, chunk).Run());
    return absl::OkStatus();
  });
}

absl::Status ScrubCatalog::AskAgain() {
  return db_.Write([&](sqlite3* db) -> absl::Status { return sqlite::Execute(db, "update wanted set state = 1, asked_at = -1"); });
}

absl::StatusOr<ScrubCatalog::Figures> ScrubCatalog::GetFigures() const {
  Figures figures;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(figures.quarantined_chunks, sqlite::QueryInt(db, "select count(*) from quarantine"));
    if (figures.quarantined_chunks == 0) {
      LF_ASSIGN_OR_RETURN(const int64_t ever, sqlite::QueryInt(db, "select generation from quarantine_generation"));
      if (ever == 0) return absl::OkStatus();
    }
    LF_ASSIGN_OR_RETURN(figures.damaged_snapshots, sqlite::QueryInt(db, fmt::format("select count(*) from snapshot where state = {}",
                                                                                    static_cast<int>(v1::SNAPSHOT_STATE_DAMAGED))));
    return absl::OkStatus();
  }));
  return figures;
}

absl::StatusOr<std::vector<int64_t>> ScrubCatalog::Healed() const {
  std::vector<int64_t> chunks;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db,
                                                          "select q.chunk from quarantine q left join chunk c on c.id = q.chunk where "
                                                          "coalesce(c.state, 1) <> ? limit ?"));
    get.Bind(1, int64_t{kChunkQuarantined}).Bind(2, int64_t{kHealedAtOnce});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      chunks.push_back(get.Int(0));
    }
  }));
  return chunks;
}

absl::Status ScrubCatalog::Forget(std::span<const int64_t> healed) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement forget,
                        Statement::Prepare(db,
                                           "delete from quarantine where chunk = ?1 and coalesce((select state from chunk where id = ?1), "
                                           "1) <> ?2"));
    LF_ASSIGN_OR_RETURN(
        Statement unwanted,
        Statement::Prepare(db, "delete from wanted where chunk = ?1 and not exists (select 1 from quarantine where chunk = ?1)"));
    LF_ASSIGN_OR_RETURN(
        Statement pages,
        Statement::Prepare(db, "delete from healed_page where chunk = ?1 and not exists (select 1 from quarantine where chunk = ?1)"));
    for (const int64_t chunk : healed) {
      LF_RETURN_IF_ERROR(forget.Bind(1, chunk).Bind(2, int64_t{kChunkQuarantined}).Run());
      LF_RETURN_IF_ERROR(unwanted.Bind(1, chunk).Run());
      LF_RETURN_IF_ERROR(pages.Bind(1, chunk).Run());
    }
    return absl::OkStatus();
  });
}

}  // namespace litefleet::catalog
