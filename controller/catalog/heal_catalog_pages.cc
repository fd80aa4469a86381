// The part of HealCatalog that knows pages which came back without the rest of their chunk, and the layers that put them in their place.
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/chunk_state.h"
#include "controller/catalog/deletion_catalog.h"
#include "controller/catalog/gone_numbers.h"
#include "controller/catalog/heal_catalog.h"
#include "fmt/format.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

// The row of a chunk that is durable at its place: made, found, or made good. The id.
absl::StatusOr<int64_t> TakeChunk(sqlite3* db, const ArrivedChunk& chunk) {
  LF_ASSIGN_OR_RETURN(Statement find, Statement::Prepare(db, "select id, state from chunk where name = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, find.BindBlob(1, chunk.name.bytes).Step());
  int64_t id = found ? find.Int(0) : 0;
  const int64_t state = found ? find.Int(1) : 0;
  find.Reset();
  if (state == kChunkTrash) {
    for (const std::string_view sql : {"update chunk set state = 1 where id = ?", "delete from chunk_trash where chunk = ?"}) {
      LF_ASSIGN_OR_RETURN(Statement take, Statement::Prepare(db, sql));
      LF_RETURN_IF_ERROR(take.Bind(1, id).Run());
    }
  }
  if (state == kChunkTrash || state == kChunkGood) return id;
  const auto pack = static_cast<int64_t>(chunk.place->pack);
  const auto offset = static_cast<int64_t>(chunk.place->offset);
  if (found) {
    LF_ASSIGN_OR_RETURN(Statement fewer,
                        Statement::Prepare(db,
                                           "update pack set chunks = chunks - 1, stored_bytes = stored_bytes - (select stored_bytes from "
                                           "chunk where id = ?1) where id = (select pack from chunk where id = ?1)"));
    LF_RETURN_IF_ERROR(fewer.Bind(1, id).Run());
    LF_ASSIGN_OR_RETURN(
        Statement replace,
        Statement::Prepare(db, "update chunk set codec = ?, stored_bytes = ?, pack = ?, offset = ?, state = 1 where id = ?"));
    replace.Bind(1, static_cast<int64_t>(chunk.codec)).Bind(2, int64_t{chunk.stored_bytes}).Bind(3, pack).Bind(4, offset).Bind(5, id);
    LF_RETURN_IF_ERROR(replace.Run());
  } else {
    LF_ASSIGN_OR_RETURN(id, NextChunkId(db));
    LF_ASSIGN_OR_RETURN(Statement insert,
                        Statement::Prepare(db,
                                           "insert into chunk (name, page_size, page_count, codec, stored_bytes, pack, offset, state, id) "
                                           "values (?, ?, ?, ?, ?, ?, ?, 1, ?)"));
    insert.BindBlob(1, chunk.name.bytes).Bind(2, int64_t{chunk.page_size}).Bind(3, int64_t{chunk.page_count});
    insert.Bind(4, static_cast<int64_t>(chunk.codec)).Bind(5, int64_t{chunk.stored_bytes}).Bind(6, pack).Bind(7, offset).Bind(8, id);
    LF_RETURN_IF_ERROR(insert.Run());
  }
  LF_ASSIGN_OR_RETURN(Statement more, Statement::Prepare(db,
                                                         "insert into pack (id, chunks, stored_bytes) values (?1, 1, ?2) on conflict (id) "
                                                         "do update set chunks = chunks + 1, stored_bytes = stored_bytes + ?2"));
  LF_RETURN_IF_ERROR(more.Bind(1, pack).Bind(2, int64_t{chunk.stored_bytes}).Run());
  return id;
}

}  // namespace

absl::Status HealCatalog::AddHealedPages(const DeviceId& device, int64_t database, const ArrivedChunk& copy,
                                         std::span<const HealedPage> pages) {
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const int64_t id, TakeChunk(db, copy));
    LF_ASSIGN_OR_RETURN(Statement claim, Statement::Prepare(db, "insert into claim (session, chunk) values (?, ?) on conflict do nothing"));
    LF_RETURN_IF_ERROR(claim.Bind(1, HealingClaim(database)).Bind(2, id).Run());
    LF_ASSIGN_OR_RETURN(Statement right, Statement::Prepare(db,
                                                            "insert into device_chunk (owner, chunk, session) select id, ?2, ?3 from owner "
                                                            "where device = ?1 on conflict do nothing"));
    LF_RETURN_IF_ERROR(right.Bind(1, device.value()).Bind(2, id).Bind(3, HealingClaim(database)).Run());
    LF_ASSIGN_OR_RETURN(Statement add, Statement::Prepare(db,
                                                          "insert or replace into healed_page (chunk, page, copy, copy_page) "
                                                          "select id, ?2, ?3, ?4 from chunk where name = ?1"));
    for (const HealedPage& page : pages) {
      add.BindBlob(1, page.chunk.bytes).Bind(2, int64_t{page.page}).Bind(3, id).Bind(4, int64_t{page.copy_page});
      LF_RETURN_IF_ERROR(add.Run());
    }
    return absl::OkStatus();
  }));
  LF_CRASH_POINT("heal.after_pages");
  return absl::OkStatus();
}

absl::StatusOr<std::vector<HealCatalog::Database>> HealCatalog::ClaimingDatabases() const {
  std::vector<Database> databases;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db,
                                                          "select d.id, d.device, d.name from (select distinct session from claim where "
                                                          "session > ? and session < 0) c join database d on d.id = -c.session"));
    get.Bind(1, kHealedClaims);
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      databases.push_back({.id = get.Int(0), .device = DeviceId(std::string(get.Text(1))), .name = std::string(get.Text(2))});
    }
  }));
  return databases;
}

absl::Status HealCatalog::DropHealingClaims(int64_t database) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const int64_t marking, sqlite::QueryInt(db, "select marking from prune_state"));
    if (marking != 0) {
      LF_ASSIGN_OR_RETURN(Statement later, Statement::Prepare(db, "update or replace claim set session = ? where session = ?"));
      return later.Bind(1, HealedClaim(database)).Bind(2, HealingClaim(database)).Run();
    }
    LF_ASSIGN_OR_RETURN(Statement drop, Statement::Prepare(db, "delete from claim where session = ?"));
    return drop.Bind(1, HealingClaim(database)).Run();
  });
}

absl::StatusOr<std::map<uint32_t, HealCatalog::Copy>> HealCatalog::HealedPages(const format::ChunkName& chunk) const {
  std::map<uint32_t, Copy> pages;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db,
                                           "select h.page, c.name, c.page_count, h.copy_page from healed_page h join chunk c on c.id = "
                                           "h.copy where h.chunk = (select id from chunk where name = ?) and c.state = ?"));
    get.BindBlob(1, chunk.bytes).Bind(2, int64_t{kChunkGood});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      const auto name = format::ChunkName::FromBytes(AsText(get.Blob(1)));
      if (!name.has_value()) continue;
      pages[static_cast<uint32_t>(get.Int(0))] = {
          .name = *name, .page_count = static_cast<uint32_t>(get.Int(2)), .page = static_cast<uint32_t>(get.Int(3))};
    }
  }));
  return pages;
}

absl::StatusOr<PackPlace> HealCatalog::RecordOf(const SnapshotId& snapshot) const {
  PackPlace place;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select pack, offset from snapshot where id = ?"));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, snapshot.value()).Step());
    if (!found) return Error(absl::StatusCode::kNotFound, "SNAPSHOT_NOT_FOUND", fmt::format("there is no snapshot {}", snapshot.value()));
    place = {.pack = static_cast<uint64_t>(get.Int(0)), .offset = static_cast<uint64_t>(get.Int(1))};
    return absl::OkStatus();
  }));
  return place;
}

absl::Status HealCatalog::AddLayer(const SnapshotLayout& layout, const storage::v1::SnapshotRecord& record, PackPlace place,
                                   std::span<const ManifestPlace> own) {
  uint32_t parts = 0;
  for (const ManifestLayer& layer : layout.layers) parts += layer.parts;
  std::string layers;
  for (const storage::v1::ManifestLayer& layer : record.layers())
    layers += fmt::format("{}:{}:{} ", layer.id(), layer.parts(), layer.bytes());
  const absl::Status added = db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement count, Statement::Prepare(db, "select count(*) from manifest_part where snapshot = ?"));
    LF_ASSIGN_OR_RETURN(const bool row, count.Bind(1, layout.key).Step());
    if (!row || count.Int(0) != int64_t{parts})
      return Error(absl::StatusCode::kAborted, "MANIFEST_CHANGED", "the snapshot's manifest has changed meanwhile");
    count.Reset();
    LF_ASSIGN_OR_RETURN(Statement set,
                        Statement::Prepare(db,
                                           "update snapshot set layers = ?, manifest_kind = ?, manifest_parts = ?, pack = ?, "
                                           "offset = ? where key = ?"));
    set.Bind(1, layers).Bind(2, int64_t{record.manifest_kind()}).Bind(3, int64_t{record.manifest_parts()});
    set.Bind(4, static_cast<int64_t>(place.pack)).Bind(5, static_cast<int64_t>(place.offset)).Bind(6, layout.key);
    LF_RETURN_IF_ERROR(set.Run());
    if (sqlite3_changes(db) != 1) return Error(absl::StatusCode::kAborted, "MANIFEST_CHANGED", "the snapshot is gone");
    LF_ASSIGN_OR_RETURN(
        Statement part,
        Statement::Prepare(db, "insert into manifest_part (snapshot, part, first_page, pack, offset) values (?, ?, ?, ?, ?)"));
    for (size_t i = 0; i < own.size(); ++i) {
      part.Bind(1, layout.key).Bind(2, int64_t{parts} + static_cast<int64_t>(i)).Bind(3, int64_t{own[i].first_page});
      LF_RETURN_IF_ERROR(part.Bind(4, static_cast<int64_t>(own[i].place.pack)).Bind(5, static_cast<int64_t>(own[i].place.offset)).Run());
    }
    return absl::OkStatus();
  });
  if (absl::IsAborted(added)) {
    // Where the snapshot was removed meanwhile, its mark is to outlive this record as well.
    LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
      LF_ASSIGN_OR_RETURN(Statement later, Statement::Prepare(db, "update gone_snapshot set last_pack = max(last_pack, ?) where id = ?"));
      LF_RETURN_IF_ERROR(later.Bind(1, static_cast<int64_t>(place.pack)).Bind(2, record.snapshot_id()).Run());
      return KeepGone(db, record, static_cast<int64_t>(place.pack));
    }));
  }
  LF_RETURN_IF_ERROR(added);
  LF_CRASH_POINT("heal.after_layer");
  return absl::OkStatus();
}

}  // namespace litefleet::catalog
