// What prune does to places: who points into a pack, and where to after it was rewritten.
#include <utility>

#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/chunk_state.h"
#include "controller/catalog/prune_catalog.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

int64_t PackOf(const PackPlace& place) { return static_cast<int64_t>(place.pack); }
int64_t OffsetOf(const PackPlace& place) { return static_cast<int64_t>(place.offset); }

}  // namespace

absl::StatusOr<std::vector<PruneCatalog::Pack>> PruneCatalog::PacksAfter(uint64_t after, int limit) const {
  std::vector<Pack> packs;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement list, Statement::Prepare(db,
                                                           "select id, chunks, stored_bytes, record_bytes from pack where id > ? "
                                                           "order by id limit ?"));
    list.Bind(1, static_cast<int64_t>(after)).Bind(2, int64_t{limit});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      packs.push_back(
          {.id = static_cast<uint64_t>(list.Int(0)), .chunks = list.Int(1), .chunk_bytes = list.Int(2), .record_bytes = list.Int(3)});
    }
  }));
  return packs;
}

absl::StatusOr<PruneCatalog::Use> PruneCatalog::UseOfChunk(const format::ChunkName& name, PackPlace place) const {
  Use use = Use::kNone;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select state from chunk where name = ? and pack = ? and offset = ?"));
    LF_ASSIGN_OR_RETURN(const bool found, get.BindBlob(1, name.bytes).Bind(2, PackOf(place)).Bind(3, OffsetOf(place)).Step());
    if (found) use = get.Int(0) == kChunkQuarantined ? Use::kQuarantined : Use::kChunk;
    return absl::OkStatus();
  }));
  return use;
}

absl::StatusOr<PruneCatalog::Use> PruneCatalog::UseOfManifestPart(PackPlace place) const {
  Use use = Use::kNone;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select 1 from manifest_part where pack = ? and offset = ? limit 1"));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, PackOf(place)).Bind(2, OffsetOf(place)).Step());
    if (found) use = Use::kManifestPart;
    return absl::OkStatus();
  }));
  return use;
}

absl::StatusOr<bool> PruneCatalog::GapCounts(const std::string& gap, uint64_t revision) const {
  bool counts = false;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select 1 from gap where id = ? and revision <= ?"));
    LF_ASSIGN_OR_RETURN(counts, get.Bind(1, gap).Bind(2, static_cast<int64_t>(revision)).Step());
    return absl::OkStatus();
  }));
  return counts;
}

absl::StatusOr<PruneCatalog::Use> PruneCatalog::UseOfSnapshot(const std::string& snapshot, PackPlace place) const {
  Use use = Use::kNone;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select 1 from snapshot where id = ? and pack = ? and offset = ?"));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, snapshot).Bind(2, PackOf(place)).Bind(3, OffsetOf(place)).Step());
    if (found) use = Use::kSnapshot;
    return absl::OkStatus();
  }));
  return use;
}

absl::StatusOr<bool> PruneCatalog::MarkCounts(const std::string& snapshot, uint64_t revision, uint64_t oldest_pack) const {
  bool counts = false;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db,
                                                          "select 1 from snapshot where id = ?1 and mark = ?2 union all "
                                                          "select 1 from gone_snapshot where id = ?1 and mark = ?2 and last_pack >= ?3"));
    get.Bind(1, snapshot).Bind(2, static_cast<int64_t>(revision)).Bind(3, static_cast<int64_t>(oldest_pack));
    LF_ASSIGN_OR_RETURN(counts, get.Step());
    return absl::OkStatus();
  }));
  return counts;
}

absl::StatusOr<bool> PruneCatalog::Switch(std::span<const Moved> moved, uint64_t pack, bool last) {
  bool empty = false;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement chunk, Statement::Prepare(db,
                                                            "update chunk set pack = ?1, offset = ?2 where name = ?3 and pack = ?4 and "
                                                            "offset = ?5 returning stored_bytes"));
    LF_ASSIGN_OR_RETURN(Statement part,
                        Statement::Prepare(db, "update manifest_part set pack = ?1, offset = ?2 where pack = ?3 and offset = ?4"));
    LF_ASSIGN_OR_RETURN(Statement record,
                        Statement::Prepare(db, "update snapshot set pack = ?1, offset = ?2 where id = ?3 and pack = ?4 and offset = ?5"));
    LF_ASSIGN_OR_RETURN(Statement fewer,
                        Statement::Prepare(db, "update pack set chunks = chunks - 1, stored_bytes = stored_bytes - ? where id = ?"));
    LF_ASSIGN_OR_RETURN(Statement more,
                        Statement::Prepare(db,
                                           "insert into pack (id, chunks, stored_bytes) values (?1, 1, ?2) on conflict (id) "
                                           "do update set chunks = chunks + 1, stored_bytes = stored_bytes + ?2"));
    for (const Moved& each : moved) {
      switch (each.use) {
        case Use::kChunk: {
          chunk.Bind(1, PackOf(each.to)).Bind(2, OffsetOf(each.to)).BindBlob(3, each.name.bytes);
          LF_ASSIGN_OR_RETURN(const bool found, chunk.Bind(4, PackOf(each.from)).Bind(5, OffsetOf(each.from)).Step());
          const int64_t bytes = found ? chunk.Int(0) : 0;
          chunk.Reset();
          if (!found) break;
          LF_RETURN_IF_ERROR(fewer.Bind(1, bytes).Bind(2, PackOf(each.from)).Run());
          LF_RETURN_IF_ERROR(more.Bind(1, PackOf(each.to)).Bind(2, bytes).Run());
          break;
        }
        case Use::kManifestPart:
          part.Bind(1, PackOf(each.to)).Bind(2, OffsetOf(each.to));
          LF_RETURN_IF_ERROR(part.Bind(3, PackOf(each.from)).Bind(4, OffsetOf(each.from)).Run());
          break;
        case Use::kSnapshot:
          record.Bind(1, PackOf(each.to)).Bind(2, OffsetOf(each.to)).Bind(3, each.snapshot);
          LF_RETURN_IF_ERROR(record.Bind(4, PackOf(each.from)).Bind(5, OffsetOf(each.from)).Run());
          break;
        default:
          break;
      }
    }
    if (!last) return absl::OkStatus();
    LF_ASSIGN_OR_RETURN(Statement left,
                        Statement::Prepare(db,
                                           "select (select chunks from pack where id = ?1) > (select count(*) from quarantine "
                                           "q join chunk c on c.id = q.chunk where c.pack = ?1 and c.state = ?2) or exists "
                                           "(select 1 from manifest_part where pack = ?1) or exists (select 1 from snapshot where "
                                           "pack = ?1)"));
    LF_RETURN_IF_ERROR(left.Bind(1, static_cast<int64_t>(pack)).Bind(2, int64_t{kChunkQuarantined}).Step().status());
    empty = left.Int(0) == 0;
    left.Reset();
    if (!empty) return absl::OkStatus();
    LF_ASSIGN_OR_RETURN(Statement removal, Statement::Prepare(db, "insert into pack_removal (pack) values (?) on conflict do nothing"));
    return removal.Bind(1, static_cast<int64_t>(pack)).Run();
  }));
  return empty;
}

absl::StatusOr<bool> PruneCatalog::WaitsForHealing(uint64_t pack) const {
  bool waits = false;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db,
                                                          "select 1 from quarantine q join chunk c on c.id = q.chunk left join wanted w on "
                                                          "w.chunk = q.chunk where c.pack = ?1 and c.state = ?2 and (q.marked = 0 or "
                                                          "w.state <> 2) limit 1"));
    LF_ASSIGN_OR_RETURN(waits, get.Bind(1, static_cast<int64_t>(pack)).Bind(2, int64_t{kChunkQuarantined}).Step());
    return absl::OkStatus();
  }));
  return waits;
}

absl::Status PruneCatalog::ForgetProven(uint64_t pack) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement forget, Statement::Prepare(db, "delete from scrub_pack where pack = ?"));
    return forget.Bind(1, static_cast<int64_t>(pack)).Run();
  });
}

absl::StatusOr<std::vector<uint64_t>> PruneCatalog::Removals() const {
  std::vector<uint64_t> packs;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement list, Statement::Prepare(db, "select pack from pack_removal order by pack"));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      packs.push_back(static_cast<uint64_t>(list.Int(0)));
    }
  }));
  return packs;
}

absl::Status PruneCatalog::Removed(uint64_t pack, uint64_t oldest_pack) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    for (const std::string_view sql :
         {"delete from pack where id = ?", "delete from pack_removal where pack = ?", "delete from scrub_pack where pack = ?"}) {
      LF_ASSIGN_OR_RETURN(Statement remove, Statement::Prepare(db, sql));
      LF_RETURN_IF_ERROR(remove.Bind(1, static_cast<int64_t>(pack)).Run());
    }
    LF_ASSIGN_OR_RETURN(Statement marks, Statement::Prepare(db, "delete from gone_snapshot where last_pack < ?"));
    return marks.Bind(1, static_cast<int64_t>(oldest_pack)).Run();
  });
}

}  // namespace litefleet::catalog
