#include "controller/catalog/prune_catalog.h"

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

constexpr int kClaimsATransaction = 2000;
constexpr int kSweptATransaction = 10'000;  // in their order

}  // namespace

absl::StatusOr<PruneCatalog::Run> PruneCatalog::Begin() {
  Run run;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_RETURN_IF_ERROR(sqlite::Execute(db, "update prune_state set run = run + 1, marking = 1"));
    LF_ASSIGN_OR_RETURN(run.run, sqlite::QueryInt(db, "select run from prune_state"));
    LF_ASSIGN_OR_RETURN(run.newest_chunk, sqlite::QueryInt(db, "select coalesce(max(id), 0) from chunk"));
    return absl::OkStatus();
  }));
  return run;
}

absl::StatusOr<int64_t> PruneCatalog::NewestChunk() const { return Number("select coalesce(max(id), 0) from chunk"); }
absl::StatusOr<int64_t> PruneCatalog::NewestRun() const { return Number("select run from prune_state"); }

absl::StatusOr<int64_t> PruneCatalog::Number(std::string_view sql) const {
  int64_t number = 0;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(number, sqlite::QueryInt(db, sql));
    return absl::OkStatus();
  }));
  return number;
}

absl::Status PruneCatalog::EndMarking() {
  LF_RETURN_IF_ERROR(db_.Write([](sqlite3* db) { return sqlite::Execute(db, "update prune_state set marking = 0 where marking <> 0"); }));
  for (int changed = kClaimsATransaction; changed == kClaimsATransaction;) {
    LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
      LF_ASSIGN_OR_RETURN(Statement drop, Statement::Prepare(db,
                                                             "delete from claim where (session, chunk) in (select session, chunk from "
                                                             "claim where session < ?1 order by session, chunk limit ?2)"));
      LF_RETURN_IF_ERROR(drop.Bind(1, kHealedClaims).Bind(2, int64_t{kClaimsATransaction}).Run());
      changed = sqlite3_changes(db);
      return absl::OkStatus();
    }));
  }
  int64_t session = 0;
  for (;;) {
    // The next session that has claims, by the index alone.
    LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
      LF_ASSIGN_OR_RETURN(Statement next, Statement::Prepare(db, "select coalesce(min(session), 0) from claim where session > ?"));
      LF_RETURN_IF_ERROR(next.Bind(1, session).Step().status());
      session = next.Int(0);
      return absl::OkStatus();
    }));
    if (session == 0) return absl::OkStatus();
    for (int changed = kClaimsATransaction; changed == kClaimsATransaction;) {
      LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
        LF_ASSIGN_OR_RETURN(Statement drop, Statement::Prepare(db,
                                                               "delete from claim where session = ?1 and chunk in (select chunk from claim "
                                                               "where session = ?1 limit ?2) and (select state from upload_session "
                                                               "where id = ?1) = 2"));
        LF_RETURN_IF_ERROR(drop.Bind(1, session).Bind(2, int64_t{kClaimsATransaction}).Run());
        changed = sqlite3_changes(db);
        return absl::OkStatus();
      }));
    }
  }
}

absl::Status PruneCatalog::SaveReport(const v1::PruneReport& report, SystemTime now) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement save, Statement::Prepare(db, "update prune_state set ended_at = ?, report = ?"));
    return save.Bind(1, ToUnixMillis(now)).BindBlob(2, AsBytes(report.SerializeAsString())).Run();
  });
}

absl::StatusOr<std::vector<PackPlace>> PruneCatalog::ManifestPlaces(PackPlace after, int limit,
                                                                    std::optional<SystemTime> gone_before) const {
  std::vector<PackPlace> places;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement list,
        Statement::Prepare(db, gone_before.has_value()
                                   ? "select m.pack, m.offset from manifest_part m join snapshot s on s.key = m.snapshot where (m.pack, "
                                     "m.offset) > (?1, ?2) and not (s.state = 3 and s.trashed_at <= ?4) group by m.pack, m.offset "
                                     "order by m.pack, m.offset limit ?3"
                                   : "select pack, offset from manifest_part where (pack, offset) > (?1, ?2) group by pack, offset "
                                     "order by pack, offset limit ?3"));
    list.Bind(1, static_cast<int64_t>(after.pack)).Bind(2, static_cast<int64_t>(after.offset)).Bind(3, int64_t{limit});
    if (gone_before.has_value()) list.Bind(4, ToUnixMillis(*gone_before));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      places.push_back({.pack = static_cast<uint64_t>(list.Int(0)), .offset = static_cast<uint64_t>(list.Int(1))});
    }
  }));
  return places;
}

absl::StatusOr<bool> PruneCatalog::AllInTrash(PackPlace part) const {
  bool all = false;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement look, Statement::Prepare(db,
                                                           "select 1 from manifest_part m join snapshot s on s.key = m.snapshot "
                                                           "where m.pack = ? and m.offset = ? and s.state <> 3 limit 1"));
    LF_ASSIGN_OR_RETURN(const bool found, look.Bind(1, static_cast<int64_t>(part.pack)).Bind(2, static_cast<int64_t>(part.offset)).Step());
    all = !found;
    return absl::OkStatus();
  }));
  return all;
}

absl::StatusOr<std::vector<int64_t>> PruneCatalog::ChunkIds(std::span<const format::ChunkName> names) const {
  std::vector<int64_t> ids(names.size(), 0);
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select id from chunk where name = ?"));
    for (size_t i = 0; i < names.size(); ++i) {
      LF_ASSIGN_OR_RETURN(const bool found, get.BindBlob(1, names[i].bytes).Step());
      if (found) ids[i] = get.Int(0);
      get.Reset();
    }
    return absl::OkStatus();
  }));
  return ids;
}

absl::Status PruneCatalog::SetRecordBytes(const std::map<uint64_t, int64_t>& bytes) {
  auto at = bytes.begin();
  while (at != bytes.end()) {
    LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
      LF_ASSIGN_OR_RETURN(Statement set,
                          Statement::Prepare(db,
                                             "insert into pack (id, chunks, stored_bytes, record_bytes) values (?1, 0, 0, ?2) "
                                             "on conflict (id) do update set record_bytes = ?2"));
      for (int i = 0; i < kAtOnce && at != bytes.end(); ++i, ++at) {
        LF_RETURN_IF_ERROR(set.Bind(1, static_cast<int64_t>(at->first)).Bind(2, at->second).Run());
      }
      return absl::OkStatus();
    }));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PruneCatalog::Chunk>> PruneCatalog::ChunksAfter(int64_t after, int64_t upto, int limit) const {
  std::vector<Chunk> chunks;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement list,
        Statement::Prepare(db, "select id, state, stored_bytes, pack from chunk where id > ? and id <= ? order by id limit ?"));
    list.Bind(1, after).Bind(2, upto).Bind(3, int64_t{limit});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      chunks.push_back({.id = list.Int(0), .state = list.Int(1), .stored_bytes = list.Int(2), .pack = static_cast<uint64_t>(list.Int(3))});
    }
  }));
  return chunks;
}

absl::StatusOr<PruneCatalog::Changed> PruneCatalog::Trash(std::span<const int64_t> chunks, SystemTime now, int64_t run) {
  Changed changed;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    changed = {};
    LF_ASSIGN_OR_RETURN(Statement take, Statement::Prepare(db,
                                                           "update chunk set state = 2 where id = ?1 and state = 1 and not exists "
                                                           "(select 1 from claim where chunk = ?1) returning stored_bytes"));
    LF_ASSIGN_OR_RETURN(Statement note,
                        Statement::Prepare(db, "insert or replace into chunk_trash (chunk, trashed_at, run) values (?, ?, ?)"));
    LF_ASSIGN_OR_RETURN(Statement bad, Statement::Prepare(db,
                                                          "delete from chunk where id = ?1 and state = 3 and not exists "
                                                          "(select 1 from claim where chunk = ?1) returning pack, stored_bytes"));
    LF_ASSIGN_OR_RETURN(Statement fewer,
                        Statement::Prepare(db, "update pack set chunks = chunks - 1, stored_bytes = stored_bytes - ? where id = ?"));
    for (const int64_t id : chunks) {
      LF_ASSIGN_OR_RETURN(const bool taken, take.Bind(1, id).Step());
      const int64_t bytes = taken ? take.Int(0) : 0;
      take.Reset();
      if (taken) {
        LF_RETURN_IF_ERROR(note.Bind(1, id).Bind(2, ToUnixMillis(now)).Bind(3, run).Run());
        ++changed.chunks;
        changed.bytes += bytes;
        continue;
      }
      LF_ASSIGN_OR_RETURN(const bool gone, bad.Bind(1, id).Step());
      if (gone) LF_RETURN_IF_ERROR(fewer.Bind(1, bad.Int(1)).Bind(2, bad.Int(0)).Run());
      bad.Reset();
    }
    return absl::OkStatus();
  }));
  return changed;
}

absl::StatusOr<PruneCatalog::Changed> PruneCatalog::TakeOutOfTrash(std::span<const int64_t> chunks) {
  Changed changed;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    changed = {};
    LF_ASSIGN_OR_RETURN(Statement take, Statement::Prepare(db, "update chunk set state = 1 where id = ? and state = 2"));
    LF_ASSIGN_OR_RETURN(Statement note, Statement::Prepare(db, "delete from chunk_trash where chunk = ?"));
    for (const int64_t id : chunks) {
      LF_RETURN_IF_ERROR(take.Bind(1, id).Run());
      changed.chunks += sqlite3_changes(db);
      LF_RETURN_IF_ERROR(note.Bind(1, id).Run());
    }
    return absl::OkStatus();
  }));
  return changed;
}

absl::StatusOr<std::vector<PruneCatalog::Chunk>> PruneCatalog::Trashed(int64_t after, SystemTime before, int64_t upto_run,
                                                                       int limit) const {
  std::vector<Chunk> chunks;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement list,
                        Statement::Prepare(db,
                                           "select t.chunk, c.state, c.stored_bytes, c.pack from chunk_trash t join chunk c on "
                                           "c.id = t.chunk where t.chunk > ?1 and t.trashed_at <= ?2 and t.run <= ?3 "
                                           "order by t.chunk limit ?4"));
    list.Bind(1, after).Bind(2, ToUnixMillis(before)).Bind(3, upto_run).Bind(4, int64_t{limit});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      chunks.push_back({.id = list.Int(0), .state = list.Int(1), .stored_bytes = list.Int(2), .pack = static_cast<uint64_t>(list.Int(3))});
    }
  }));
  return chunks;
}

absl::StatusOr<std::vector<PruneCatalog::Chunk>> PruneCatalog::Unclaimed(std::span<const Chunk> chunks) const {
  std::vector<Chunk> unclaimed;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement look, Statement::Prepare(db, "select 1 from claim where chunk = ? limit 1"));
    for (const Chunk& chunk : chunks) {
      LF_ASSIGN_OR_RETURN(const bool claimed, look.Bind(1, chunk.id).Step());
      if (!claimed) unclaimed.push_back(chunk);
      look.Reset();
    }
    return absl::OkStatus();
  }));
  return unclaimed;
}

absl::StatusOr<PruneCatalog::Changed> PruneCatalog::Sweep(std::span<const int64_t> chunks) {
  Changed changed;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    changed = {};
    LF_ASSIGN_OR_RETURN(Statement remove, Statement::Prepare(db,
                                                             "delete from chunk where id = ?1 and state = 2 and not exists "
                                                             "(select 1 from claim where chunk = ?1) returning pack, stored_bytes"));
    LF_ASSIGN_OR_RETURN(Statement note, Statement::Prepare(db, "delete from chunk_trash where chunk = ?"));
    LF_ASSIGN_OR_RETURN(Statement fewer,
                        Statement::Prepare(db, "update pack set chunks = chunks - 1, stored_bytes = stored_bytes - ? where id = ?"));
    for (const int64_t id : chunks) {
      LF_ASSIGN_OR_RETURN(const bool removed, remove.Bind(1, id).Step());
      if (removed) {
        ++changed.chunks;
        changed.bytes += remove.Int(1);
        LF_RETURN_IF_ERROR(fewer.Bind(1, remove.Int(1)).Bind(2, remove.Int(0)).Run());
      }
      remove.Reset();
      if (removed) LF_RETURN_IF_ERROR(note.Bind(1, id).Run());
    }
    return absl::OkStatus();
  }));
  return changed;
}

absl::StatusOr<bool> PruneCatalog::DropRights(int64_t& owner, int64_t& chunk) {
  constexpr int kLook = 20'000;
  int seen = 0;
  std::vector<std::pair<int64_t, int64_t>> stale;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement list,
                        Statement::Prepare(db,
                                           "select owner, chunk, exists (select 1 from chunk c where c.id = d.chunk) from "
                                           "device_chunk d where (owner, chunk) > (?1, ?2) order by owner, chunk limit ?3"));
    list.Bind(1, owner).Bind(2, chunk).Bind(3, int64_t{kLook});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      ++seen;
      owner = list.Int(0);
      chunk = list.Int(1);
      if (list.Int(2) == 0) stale.emplace_back(owner, chunk);
    }
  }));
  for (size_t at = 0; at < stale.size();) {
    LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
      LF_ASSIGN_OR_RETURN(Statement drop, Statement::Prepare(db, "delete from device_chunk where owner = ? and chunk = ?"));
      for (int i = 0; i < kAtOnce && at < stale.size(); ++i, ++at) {
        LF_RETURN_IF_ERROR(drop.Bind(1, stale[at].first).Bind(2, stale[at].second).Run());
      }
      return absl::OkStatus();
    }));
  }
  if (seen == kLook) return true;
  for (int changed = kSweptATransaction; changed == kSweptATransaction;) {
    LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
      LF_ASSIGN_OR_RETURN(Statement forget, Statement::Prepare(db,
                                                               "delete from swept_chunk where chunk in (select chunk from swept_chunk "
                                                               "order by chunk limit ?)"));
      LF_RETURN_IF_ERROR(forget.Bind(1, int64_t{kSweptATransaction}).Run());
      changed = sqlite3_changes(db);
      return absl::OkStatus();
    }));
  }
  return false;
}

}  // namespace litefleet::catalog
