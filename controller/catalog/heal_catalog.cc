#include "controller/catalog/heal_catalog.h"

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/chunk_state.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

enum : int64_t { kToAsk = 1, kGone = 2, kPages = 3 };

}  // namespace

absl::StatusOr<std::vector<HealCatalog::Database>> HealCatalog::DueDatabases(SystemTime asked_before, int limit) const {
  std::vector<Database> databases;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const int64_t any, sqlite::QueryInt(db, "select exists (select 1 from wanted)"));
    if (any == 0) return absl::OkStatus();
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db,
                                                          "select d.id, d.device, d.name from database d join device v on v.id = d.device "
                                                          "where v.state = ?1 and d.forgotten = 0 and exists (select 1 from wanted w join "
                                                          "chunk c on c.id = w.chunk where w.database = d.id and w.state <> ?2 and "
                                                          "w.asked_at < ?3 and c.state = ?4) limit ?5"));
    get.Bind(1, int64_t{v1::DEVICE_STATE_ACTIVE}).Bind(2, int64_t{kGone}).Bind(3, ToUnixMillis(asked_before));
    get.Bind(4, int64_t{kChunkQuarantined}).Bind(5, int64_t{limit});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      databases.push_back({.id = get.Int(0), .device = DeviceId(std::string(get.Text(1))), .name = std::string(get.Text(2))});
    }
  }));
  return databases;
}

absl::StatusOr<std::vector<HealCatalog::WantedChunk>> HealCatalog::Wanted(int64_t database, Ask ask, SystemTime asked_before,
                                                                          int limit) const {
  std::vector<WantedChunk> chunks;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db,
                                           "select c.id, c.name, c.page_size, c.page_count from wanted w join chunk c on c.id = w.chunk "
                                           "where w.database = ?1 and w.state = ?2 and w.asked_at < ?3 and c.state = ?4 order by c.id "
                                           "limit ?5"));
    get.Bind(1, database)
        .Bind(2, int64_t{ask == Ask::kWhole ? kToAsk : kPages})
        .Bind(3, ToUnixMillis(asked_before))
        .Bind(4, int64_t{kChunkQuarantined});
    get.Bind(5, int64_t{limit});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      const auto name = format::ChunkName::FromBytes(AsText(get.Blob(1)));
      if (!name.has_value()) continue;
      chunks.push_back({.id = get.Int(0),
                        .name = *name,
                        .page_size = static_cast<uint32_t>(get.Int(2)),
                        .page_count = static_cast<uint32_t>(get.Int(3))});
    }
  }));
  return chunks;
}

absl::StatusOr<std::vector<SnapshotId>> HealCatalog::DamagedSnapshots(int64_t database, int limit) const {
  std::vector<SnapshotId> snapshots;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db,
                                                          "select id from snapshot where database = ?1 and case state when ?2 then "
                                                          "trashed_from else state end = ?3 order by key desc limit ?4"));
    get.Bind(1, database).Bind(2, int64_t{v1::SNAPSHOT_STATE_TRASH}).Bind(3, int64_t{v1::SNAPSHOT_STATE_DAMAGED});
    get.Bind(4, int64_t{limit});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      snapshots.emplace_back(std::string(get.Text(0)));
    }
  }));
  return snapshots;
}

absl::Status HealCatalog::SetAsked(int64_t database, std::span<const int64_t> chunks, SystemTime at) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement set, Statement::Prepare(db, "update wanted set asked_at = ? where database = ? and chunk = ?"));
    for (const int64_t chunk : chunks) LF_RETURN_IF_ERROR(set.Bind(1, ToUnixMillis(at)).Bind(2, database).Bind(3, chunk).Run());
    return absl::OkStatus();
  });
}

absl::Status HealCatalog::SetPages(int64_t database, std::span<const int64_t> chunks) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement set,
                        Statement::Prepare(db, "update wanted set state = ?, asked_at = -1 where database = ? and chunk = ?"));
    for (const int64_t chunk : chunks) LF_RETURN_IF_ERROR(set.Bind(1, int64_t{kPages}).Bind(2, database).Bind(3, chunk).Run());
    return absl::OkStatus();
  });
}

absl::Status HealCatalog::SetGone(int64_t database, std::span<const int64_t> chunks) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement set, Statement::Prepare(db, "update wanted set state = ? where database = ? and chunk = ?"));
    for (const int64_t chunk : chunks) LF_RETURN_IF_ERROR(set.Bind(1, int64_t{kGone}).Bind(2, database).Bind(3, chunk).Run());
    return absl::OkStatus();
  });
}

absl::Status HealCatalog::NoteAnswered(int64_t database, std::span<const format::ChunkName> names) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement pages, Statement::Prepare(db,
                                                            "update wanted set state = ?, asked_at = -1 where database = ? and state = ? "
                                                            "and asked_at >= 0 and chunk = (select id from chunk where name = ?)"));
    int whole = 0;
    for (const format::ChunkName& name : names) {
      LF_RETURN_IF_ERROR(pages.Bind(1, int64_t{kPages}).Bind(2, database).Bind(3, int64_t{kToAsk}).BindBlob(4, name.bytes).Run());
      whole += sqlite3_changes(db);
    }
    // An order names chunks, or extents.
    if (whole > 0) return absl::OkStatus();
    LF_ASSIGN_OR_RETURN(Statement gone,
                        Statement::Prepare(db, "update wanted set state = ? where database = ? and state = ? and asked_at >= 0"));
    return gone.Bind(1, int64_t{kGone}).Bind(2, database).Bind(3, int64_t{kPages}).Run();
  });
}

absl::StatusOr<int64_t> HealCatalog::DatabaseOf(const DeviceId& device, const std::string& database) const {
  int64_t id = 0;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select id from database where device = ? and name = ?"));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, device.value()).Bind(2, database).Step());
    id = found ? get.Int(0) : 0;
    return absl::OkStatus();
  }));
  return id;
}

absl::StatusOr<std::vector<bool>> HealCatalog::MakeGood(std::span<const ArrivedChunk> chunks) {
  std::vector<bool> made;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    made.assign(chunks.size(), false);
    LF_ASSIGN_OR_RETURN(Statement find, Statement::Prepare(db, "select id, pack, stored_bytes from chunk where name = ? and state = ?"));
    LF_ASSIGN_OR_RETURN(Statement fewer,
                        Statement::Prepare(db, "update pack set chunks = chunks - 1, stored_bytes = stored_bytes - ? where id = ?"));
    LF_ASSIGN_OR_RETURN(
        Statement replace,
        Statement::Prepare(db, "update chunk set codec = ?, stored_bytes = ?, pack = ?, offset = ?, state = ? where id = ?"));
    LF_ASSIGN_OR_RETURN(Statement more,
                        Statement::Prepare(db,
                                           "insert into pack (id, chunks, stored_bytes) values (?1, 1, ?2) on conflict (id) do update "
                                           "set chunks = chunks + 1, stored_bytes = stored_bytes + ?2"));
    for (size_t i = 0; i < chunks.size(); ++i) {
      const ArrivedChunk& chunk = chunks[i];
      LF_ASSIGN_OR_RETURN(const bool found, find.BindBlob(1, chunk.name.bytes).Bind(2, int64_t{kChunkQuarantined}).Step());
      if (!found) {
        find.Reset();
        continue;  // it came another way, or nothing needs it any more
      }
      const int64_t id = find.Int(0);
      LF_RETURN_IF_ERROR(fewer.Bind(1, find.Int(2)).Bind(2, find.Int(1)).Run());
      find.Reset();
      const auto pack = static_cast<int64_t>(chunk.place->pack);
      replace.Bind(1, static_cast<int64_t>(chunk.codec)).Bind(2, int64_t{chunk.stored_bytes}).Bind(3, pack);
      LF_RETURN_IF_ERROR(replace.Bind(4, static_cast<int64_t>(chunk.place->offset)).Bind(5, int64_t{kChunkGood}).Bind(6, id).Run());
      LF_RETURN_IF_ERROR(more.Bind(1, pack).Bind(2, int64_t{chunk.stored_bytes}).Run());
      made[i] = true;
    }
    return absl::OkStatus();
  }));
  LF_CRASH_POINT("heal.after_good");
  return made;
}

absl::StatusOr<HealCatalog::Figures> HealCatalog::GetFigures() const {
  Figures figures;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(figures.wanted, sqlite::QueryInt(db,
                                                         "select count(distinct w.chunk) from wanted w join chunk c on c.id = w.chunk "
                                                         "where w.state <> 2 and c.state = 3"));
    LF_ASSIGN_OR_RETURN(figures.gone, sqlite::QueryInt(db,
                                                       "select count(*) from quarantine q join chunk c on c.id = q.chunk where c.state = 3 "
                                                       "and q.marked = 1 and not exists (select 1 from wanted w where w.chunk = q.chunk "
                                                       "and w.state <> 2)"));
    return absl::OkStatus();
  }));
  return figures;
}

}  // namespace litefleet::catalog
