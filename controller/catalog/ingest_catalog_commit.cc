// The part of IngestCatalog that writes down what came: chunks at a mark, and a whole snapshot at its commit.
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/chunk_state.h"
#include "controller/catalog/deletion_catalog.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/catalog/ingest_rows.h"
#include "fmt/format.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

// What was answered as present before a quarantine may be what was quarantined.
absl::Status ChunkVanished() {
  return Error(absl::StatusCode::kAborted, "CHUNK_VANISHED", "damage was found in the store while the upload ran", "resume the upload");
}

absl::Status CommitConflict() {
  return Error(absl::StatusCode::kAborted, "COMMIT_CONFLICT", "another snapshot of this database came first", "commit again");
}

absl::StatusOr<bool> SequenceIsTaken(sqlite::Connection db, int64_t database, uint64_t sequence) {
  LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select 1 from snapshot where database = ? and sequence = ?"));
  return get.Bind(1, database).Bind(2, static_cast<int64_t>(sequence)).Step();
}

absl::Status InsertManifest(sqlite::Connection db, int64_t snapshot, const NewManifest& manifest) {
  if (manifest.kept_parts > 0) {
    LF_ASSIGN_OR_RETURN(Statement keep, Statement::Prepare(db,
                                                           "insert into manifest_part (snapshot, part, first_page, pack, offset) "
                                                           "select ?1, part, first_page, pack, offset from manifest_part "
                                                           "where snapshot = (select key from snapshot where id = ?2) and part < ?3"));
    LF_RETURN_IF_ERROR(keep.Bind(1, snapshot).Bind(2, manifest.base.value()).Bind(3, int64_t{manifest.kept_parts}).Run());
    if (sqlite3_changes(db) != static_cast<int>(manifest.kept_parts))
      return Error(absl::StatusCode::kAborted, "BASE_VANISHED", "the snapshot that the upload was compared with is gone", "back up again");
  }
  LF_ASSIGN_OR_RETURN(
      Statement part,
      Statement::Prepare(db, "insert into manifest_part (snapshot, part, first_page, pack, offset) values (?, ?, ?, ?, ?)"));
  for (size_t i = 0; i < manifest.own.size(); ++i) {
    const ManifestPlace& own = manifest.own[i];
    part.Bind(1, snapshot).Bind(2, int64_t{manifest.kept_parts} + static_cast<int64_t>(i)).Bind(3, int64_t{own.first_page});
    LF_RETURN_IF_ERROR(part.Bind(4, static_cast<int64_t>(own.place.pack)).Bind(5, static_cast<int64_t>(own.place.offset)).Run());
  }
  return absl::OkStatus();
}

// What was uploaded ahead of the snapshot that is committed now needs no grace: that stands on layers and chunks of its own.
absl::Status ReleasePrecopied(sqlite::Connection db, int64_t database) {
  LF_ASSIGN_OR_RETURN(
      Statement release,
      Statement::Prepare(db,
                         "update snapshot set trashed_at = 0 where database = ?1 and trashed_by = ?2 and sequence > "
                         "coalesce((select n.sequence from database d join snapshot n on n.key = d.newest where d.id = ?1), 0)"));
  return release.Bind(1, database).Bind(2, kPrecopiedBy).Run();
}

// Rows, rights and, where `claims`, claims of chunks that are durable in the store; counts them for the session.
absl::Status RecordRows(sqlite::Connection db, const UploadSessionRow& session, std::span<const ArrivedChunk> chunks, bool own,
                        bool claims) {
  if (chunks.empty()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(Statement find, Statement::Prepare(db, "select id, state, pack, stored_bytes from chunk where name = ?"));
  LF_ASSIGN_OR_RETURN(Statement insert,
                      Statement::Prepare(db,
                                         "insert into chunk (name, page_size, page_count, codec, stored_bytes, pack, offset, state, id) "
                                         "values (?, ?, ?, ?, ?, ?, ?, 1, ?)"));
  LF_ASSIGN_OR_RETURN(int64_t next_id, NextChunkId(db));
  LF_ASSIGN_OR_RETURN(Statement fewer,
                      Statement::Prepare(db, "update pack set chunks = chunks - 1, stored_bytes = stored_bytes - ? where id = ?"));
  LF_ASSIGN_OR_RETURN(Statement replace,
                      Statement::Prepare(db, "update chunk set codec = ?, stored_bytes = ?, pack = ?, offset = ?, state = 1 where id = ?"));
  LF_ASSIGN_OR_RETURN(Statement pack,
                      Statement::Prepare(db,
                                         "insert into pack (id, chunks, stored_bytes) values (?1, 1, ?2) on conflict (id) do update "
                                         "set chunks = chunks + 1, stored_bytes = stored_bytes + ?2"));
  LF_ASSIGN_OR_RETURN(Statement claim, Statement::Prepare(db, "insert into claim (session, chunk) values (?, ?) on conflict do nothing"));
  LF_ASSIGN_OR_RETURN(Statement right, Statement::Prepare(db,
                                                          "insert into device_chunk (owner, chunk, session) values (?, ?, ?) "
                                                          "on conflict do update set session = excluded.session"));
  int64_t bytes = 0;
  int64_t grown = 0;
  for (const ArrivedChunk& chunk : chunks) {
    LF_ASSIGN_OR_RETURN(const bool found, find.BindBlob(1, chunk.name.bytes).Step());
    int64_t id = found ? find.Int(0) : 0;
    const bool trash = found && find.Int(1) == kChunkTrash;
    const bool good = trash || (found && find.Int(1) == kChunkGood);
    if (trash) LF_RETURN_IF_ERROR(TakeOutOfTrash(db, id));
    if (found && !good && chunk.place.has_value()) LF_RETURN_IF_ERROR(fewer.Bind(1, find.Int(3)).Bind(2, find.Int(2)).Run());
    find.Reset();
    if (!good) {
      if (!chunk.place.has_value()) {
        return Error(absl::StatusCode::kAborted, "CHUNK_VANISHED", "a chunk that the store had was removed meanwhile", "resume the upload");
      }
      const auto in_pack = static_cast<int64_t>(chunk.place->pack);
      const auto offset = static_cast<int64_t>(chunk.place->offset);
      if (found) {
        LF_RETURN_IF_ERROR(replace.Bind(1, static_cast<int64_t>(chunk.codec))
                               .Bind(2, int64_t{chunk.stored_bytes})
                               .Bind(3, in_pack)
                               .Bind(4, offset)
                               .Bind(5, id)
                               .Run());
      } else {
        insert.BindBlob(1, chunk.name.bytes).Bind(2, int64_t{chunk.page_size}).Bind(3, int64_t{chunk.page_count});
        insert.Bind(4, static_cast<int64_t>(chunk.codec)).Bind(5, int64_t{chunk.stored_bytes}).Bind(6, in_pack).Bind(7, offset);
        id = next_id++;
        LF_RETURN_IF_ERROR(insert.Bind(8, id).Run());
      }
      LF_RETURN_IF_ERROR(pack.Bind(1, in_pack).Bind(2, int64_t{chunk.stored_bytes}).Run());
      grown += chunk.stored_bytes;
    }
    if (claims) LF_RETURN_IF_ERROR(claim.Bind(1, session.id).Bind(2, id).Run());
    LF_RETURN_IF_ERROR(right.Bind(1, session.owner).Bind(2, id).Bind(3, session.id).Run());
    bytes += chunk.stored_bytes;
  }
  LF_ASSIGN_OR_RETURN(Statement count, Statement::Prepare(db,
                                                          "update upload_session set chunks = chunks + ?, bytes = bytes + ?, "
                                                          "stored_bytes = stored_bytes + ? where id = ?"));
  count.Bind(1, own ? int64_t{0} : static_cast<int64_t>(chunks.size())).Bind(2, own ? int64_t{0} : bytes);
  return count.Bind(3, grown).Bind(4, session.id).Run();
}

}  // namespace

absl::StatusOr<UploadSessionRow> IngestCatalog::RecordChunks(const UploadSessionRow& session, std::span<const ArrivedChunk> chunks) {
  UploadSessionRow result;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite::Connection db) -> absl::Status {
    LF_RETURN_IF_ERROR(CheckOpen(db, session.id));
    LF_RETURN_IF_ERROR(RecordRows(db, session, chunks, /*own=*/false, /*claims=*/true));
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, fmt::format("select {} from upload_session where id = ?", kSessionColumns)));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, session.id).Step());
    if (!found) return SessionExpired();
    result = ToSession(get);
    return absl::OkStatus();
  }));
  LF_CRASH_POINT("ingest.after_record_chunks");
  return result;
}

absl::StatusOr<CommitFacts> CommitFactsOf(sqlite::Connection db, int64_t database, std::string_view operation) {
  CommitFacts facts;
  // What somebody brought meanwhile was no contact with the device: states that wait in its spool are older, and keep their times.
  LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db,
                                                        "select d.sequence, (select s.effective_at from snapshot s where s.database = "
                                                        "d.id and s.provenance = '' order by s.sequence desc limit 1) from database d "
                                                        "where d.id = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, database).Step());
  if (!found) return Error(absl::StatusCode::kNotFound, "DATABASE_NOT_FOUND", "the upload's database is gone");
  facts.next_sequence = static_cast<uint64_t>(get.Int(0)) + 1;
  if (!get.IsNull(1)) facts.previous_effective_at = FromUnixMillis(get.Int(1));
  if (operation.empty()) return facts;
  // Each round counts those before it.
  LF_ASSIGN_OR_RETURN(Statement ahead,
                      Statement::Prepare(db,
                                         "select wire_bytes, stored_bytes from snapshot where database = ?1 and trashed_by = ?2 "
                                         "and operation = ?3 and operation <> '' and sequence > coalesce((select n.sequence from "
                                         "database d join snapshot n on n.key = d.newest where d.id = ?1), 0) "
                                         "order by sequence desc limit 1"));
  LF_ASSIGN_OR_RETURN(const bool rounds, ahead.Bind(1, database).Bind(2, kPrecopiedBy).Bind(3, operation).Step());
  if (!rounds) return facts;
  facts.ahead_wire_bytes = ahead.Int(0);
  facts.ahead_stored_bytes = ahead.Int(1);
  return facts;
}

absl::StatusOr<CommitFacts> IngestCatalog::GetCommitFacts(const UploadSessionRow& session, std::string_view operation) const {
  CommitFacts facts;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db, fmt::format("select {}, expires_at from upload_session where id = ?", kSessionColumns)));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, session.id).Step());
    if (!found || get.Int(3) == kSessionRemoved) return SessionExpired();
    const UploadSessionRow now = ToSession(get);
    if (!now.committed && get.Int(10) == kCancelledExpiry) return SessionExpired();
    get.Reset();
    if (now.committed) {
      facts.committed = now.snapshot;
      facts.precopied = now.precopied;
      return absl::OkStatus();
    }
    LF_ASSIGN_OR_RETURN(facts, CommitFactsOf(db, session.database, operation));
    return absl::OkStatus();
  }));
  return facts;
}

absl::StatusOr<int64_t> InsertSnapshotRow(sqlite::Connection db, const storage::v1::SnapshotRecord& record, int64_t database,
                                          PackPlace place) {
  LF_ASSIGN_OR_RETURN(const int64_t key, NextSnapshotKey(db));
  LF_ASSIGN_OR_RETURN(Statement insert,
                      Statement::Prepare(db, R"sql(insert into snapshot (id, device, database, timeline, sequence, method, state, page_size,
    page_count, root, root_version, manifest_kind, manifest_parts, parent, taken_at, received_at, effective_at, journal_mode, source_check,
    source_check_message, check_state, pages_sent, wire_bytes, stored_bytes, duration_ms, pinned_ms, read_bytes, operation, session, pack, offset,
    key, pages_changed, layers, trashed_at, trashed_by, content, content_bytes, provenance, commits, part,
    compatible)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))sql"));
  insert.Bind(1, record.snapshot_id()).Bind(2, record.device_id()).Bind(3, database);
  insert.Bind(4, static_cast<int64_t>(record.timeline()))
      .Bind(5, static_cast<int64_t>(record.sequence()))
      .Bind(6, int64_t{record.method()});
  const bool backup = !record.precopied();
  insert.Bind(7, int64_t{backup ? v1::SNAPSHOT_STATE_COMMITTED : v1::SNAPSHOT_STATE_TRASH})
      .Bind(8, int64_t{record.page_size()})
      .Bind(9, int64_t{record.page_count()});
  insert.BindBlob(10, AsBytes(record.root_digest())).Bind(11, int64_t{record.root_version()}).Bind(12, int64_t{record.manifest_kind()});
  insert.Bind(13, int64_t{record.manifest_parts()}).Bind(14, record.parent_id()).Bind(15, int64_t{record.taken_at_ms()});
  insert.Bind(16, int64_t{record.received_at_ms()}).Bind(17, int64_t{record.effective_at_ms()}).Bind(18, int64_t{record.journal_mode()});
  insert.Bind(19, int64_t{record.source_check()}).Bind(20, record.source_check_message()).Bind(21, int64_t{v1::CHECK_STATE_UNKNOWN});
  insert.Bind(22, int64_t{record.pages_sent()}).Bind(23, int64_t{record.wire_bytes()}).Bind(24, int64_t{record.stored_bytes()});
  insert.Bind(25, int64_t{record.duration_ms()}).Bind(26, int64_t{record.pinned_ms()}).Bind(27, int64_t{record.read_bytes()});
  insert.Bind(28, record.operation_id()).Bind(29, record.session_id()).Bind(30, static_cast<int64_t>(place.pack));
  insert.Bind(31, static_cast<int64_t>(place.offset)).Bind(32, key).Bind(33, int64_t{record.pages_changed()});
  std::string layers;
  for (const storage::v1::ManifestLayer& layer : record.layers())
    layers += fmt::format("{}:{}:{} ", layer.id(), layer.parts(), layer.bytes());
  insert.Bind(34, layers).Bind(35, backup ? int64_t{-1} : record.received_at_ms()).Bind(36, backup ? std::string_view() : kPrecopiedBy);
  const int32_t content = record.content() == v1::SNAPSHOT_CONTENT_UNSPECIFIED ? v1::SNAPSHOT_CONTENT_DATABASE : record.content();
  insert.Bind(37, int64_t{content})
      .Bind(38, int64_t{record.content_bytes()})
      .Bind(39, record.provenance())
      .Bind(40, int64_t{record.commits()})
      .Bind(41, record.part())
      .Bind(42, int64_t{record.compatible()});
  LF_RETURN_IF_ERROR(insert.Run());
  return key;
}

absl::StatusOr<CommitDone> IngestCatalog::Commit(const UploadSessionRow& session, const storage::v1::SnapshotRecord& record,
                                                 PackPlace place, const NewManifest& manifest, std::span<const ArrivedChunk> arrived,
                                                 std::span<const ArrivedChunk> own) {
  CommitDone result;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db, fmt::format("select {}, generation = (select generation from quarantine_generation), "
                                                           "(select marking from prune_state), expires_at from upload_session where id = ?",
                                                           kSessionColumns)));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, session.id).Step());
    if (!found || get.Int(3) == kSessionRemoved) return SessionExpired();
    if (const UploadSessionRow row = ToSession(get); row.committed) {
      result = {.snapshot = row.snapshot, .claims_left = true};
      return absl::OkStatus();
    }
    if (get.Int(12) == kCancelledExpiry) return SessionExpired();
    if (get.Int(10) == 0) return ChunkVanished();
    // Claims outlive their commit while a mark runs; else the snapshot holds the chunks from this transaction on.
    const int64_t marking = get.Int(11);
    get.Reset();
    LF_RETURN_IF_ERROR(RecordRows(db, session, arrived, /*own=*/false, marking != 0));
    LF_RETURN_IF_ERROR(RecordRows(db, session, own, /*own=*/true, marking != 0));
    const absl::StatusOr<int64_t> inserted = InsertSnapshotRow(db, record, session.database, place);
    if (!inserted.ok()) {
      LF_ASSIGN_OR_RETURN(const bool taken, SequenceIsTaken(db, session.database, record.sequence()));
      return taken ? CommitConflict() : inserted.status();
    }
    const int64_t key = *inserted;
    LF_RETURN_IF_ERROR(InsertManifest(db, key, manifest));
    // What somebody brought, or holds a part only, is no state that the database had.
    const bool newest_now = !record.precopied() && record.provenance().empty() && record.part().empty();
    if (newest_now) LF_RETURN_IF_ERROR(ReleasePrecopied(db, session.database));
    LF_ASSIGN_OR_RETURN(Statement newest,
                        Statement::Prepare(db,
                                           "update database set newest = iif(?5, newest, ?1), sequence = ?2, snapshots = snapshots + ?4 "
                                           "where id = ?3 and sequence = ?2 - 1"));
    newest.Bind(1, key).Bind(2, static_cast<int64_t>(record.sequence())).Bind(3, session.database);
    newest.Bind(4, int64_t{record.precopied() ? 0 : 1}).Bind(5, int64_t{newest_now ? 0 : 1});
    LF_RETURN_IF_ERROR(newest.Run());
    if (sqlite3_changes(db) != 1) return CommitConflict();
    LF_ASSIGN_OR_RETURN(
        Statement done,
        Statement::Prepare(db, "update upload_session set state = 2, snapshot = ?, expires_at = ?, precopied = ? where id = ?"));
    const auto keep = record.method() == v1::METHOD_CONTINUOUS ? kKeepCommittedSync : kKeepCommitted;
    const int64_t forget_at = record.received_at_ms() + std::chrono::duration_cast<std::chrono::milliseconds>(keep).count();
    LF_RETURN_IF_ERROR(
        done.Bind(1, record.snapshot_id()).Bind(2, forget_at).Bind(3, int64_t{record.precopied()}).Bind(4, session.id).Run());
    result = {.snapshot = SnapshotId(record.snapshot_id()), .claims_left = true};
    if (marking != 0) return absl::OkStatus();
    LF_ASSIGN_OR_RETURN(const int dropped, DropSomeClaims(db, session.id));
    result.claims_left = dropped == kRowsATransaction;
    return absl::OkStatus();
  }));
  return result;
}

}  // namespace litefleet::catalog
