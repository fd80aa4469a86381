#include "controller/catalog/ingest_catalog.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/chunk_state.h"
#include "controller/catalog/deletion_catalog.h"
#include "fmt/format.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

enum : int64_t { kSessionOpen = 1, kSessionCommitted = 2, kSessionRemoved = 3 };
constexpr int kRowsATransaction = 2000;  // of housekeeping, so that nobody waits long
// A committed session is remembered this long, so that a repeated commit is answered with its snapshot.
constexpr auto kKeepCommitted = std::chrono::hours(24 * 30);

absl::Status SessionExpired() {
  return Error(absl::StatusCode::kAborted, "SESSION_EXPIRED", "the upload session has expired", "begin a new one");
}

absl::StatusOr<int64_t> OwnerOf(sqlite3* db, const DeviceId& device) {
  LF_ASSIGN_OR_RETURN(Statement insert, Statement::Prepare(db, "insert into owner (device) values (?) on conflict do nothing"));
  LF_RETURN_IF_ERROR(insert.Bind(1, device.value()).Run());
  LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select id from owner where device = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, device.value()).Step());
  if (!found) return Error(absl::StatusCode::kInternal, "CATALOG_DAMAGED", "an owner is missing");
  return get.Int(0);
}

absl::Status CheckOpen(sqlite3* db, int64_t session) {
  LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select state from upload_session where id = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, session).Step());
  if (!found || get.Int(0) == kSessionRemoved) return SessionExpired();
  return absl::OkStatus();
}

// What was answered as present before a quarantine may be what was quarantined.
absl::Status CheckGeneration(sqlite3* db, int64_t session) {
  LF_ASSIGN_OR_RETURN(
      Statement get,
      Statement::Prepare(db, "select 1 from upload_session where id = ? and generation = (select generation from quarantine_generation)"));
  LF_ASSIGN_OR_RETURN(const bool same, get.Bind(1, session).Step());
  if (same) return absl::OkStatus();
  return Error(absl::StatusCode::kAborted, "CHUNK_VANISHED", "damage was found in the store while the upload ran", "resume the upload");
}

constexpr char kSessionColumns[] = "id, owner, database, state, snapshot, chunks, bytes, stored_bytes, pinned, precopied";

UploadSessionRow ToSession(const Statement& row) {
  UploadSessionRow session;
  session.id = row.Int(0);
  session.owner = row.Int(1);
  session.database = row.Int(2);
  session.committed = row.Int(3) == kSessionCommitted;
  session.snapshot = SnapshotId(std::string(row.Text(4)));
  session.durable_chunks = static_cast<uint64_t>(row.Int(5));
  session.durable_bytes = row.Int(6);
  session.stored_bytes = row.Int(7);
  session.pinned = SnapshotId(std::string(row.Text(8)));
  session.precopied = row.Int(9) != 0;
  return session;
}

absl::Status InsertManifest(sqlite3* db, int64_t snapshot, const NewManifest& manifest) {
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

// As InsertSnapshotRow writes it.
bool ParseLayers(std::string_view text, std::vector<ManifestLayer>& layers) {
  uint32_t parts = 0;
  while (!text.empty()) {
    const std::string_view one = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(text.size(), one.size() + 1));
    const size_t first = one.find(':');
    const size_t second = one.rfind(':');
    if (first == std::string_view::npos || second == first) return false;
    ManifestLayer layer{.id = std::string(one.substr(0, first)), .first_part = parts};
    const auto number = [](std::string_view digits, auto& out) {
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
      return error == std::errc() && end == digits.data() + digits.size();
    };
    if (!number(one.substr(first + 1, second - first - 1), layer.parts) || !number(one.substr(second + 1), layer.bytes)) return false;
    parts += layer.parts;
    layers.push_back(std::move(layer));
  }
  return true;
}

// What was uploaded ahead of the snapshot that is committed now needs no grace: that stands on layers and chunks of its own.
absl::Status ReleasePrecopied(sqlite3* db, int64_t database) {
  LF_ASSIGN_OR_RETURN(
      Statement release,
      Statement::Prepare(db,
                         "update snapshot set trashed_at = 0 where database = ?1 and trashed_by = ?2 and sequence > "
                         "coalesce((select n.sequence from database d join snapshot n on n.key = d.newest where d.id = ?1), 0)"));
  return release.Bind(1, database).Bind(2, kPrecopiedBy).Run();
}

// A dedup hit: what waited in the trash is good again, in the transaction that makes the claim.
absl::Status TakeOutOfTrash(sqlite3* db, int64_t chunk) {
  for (const std::string_view sql : {"update chunk set state = 1 where id = ? and state = 2", "delete from chunk_trash where chunk = ?"}) {
    LF_ASSIGN_OR_RETURN(Statement take, Statement::Prepare(db, sql));
    LF_RETURN_IF_ERROR(take.Bind(1, chunk).Run());
  }
  return absl::OkStatus();
}

// Text of the condition under which a row of device_chunk (d) is a right for session ?2.
constexpr char kMayRefer[] = "not exists (select 1 from upload_session s where s.id = d.session and s.state <> 2 and s.id <> ?2)";

}  // namespace

absl::StatusOr<UploadSessionRow> IngestCatalog::BeginSession(const DeviceId& device, const SessionId& session, const std::string& database,
                                                             uint64_t timeline, const SnapshotId& base, SystemTime expires_at) {
  UploadSessionRow result;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const int64_t owner, OwnerOf(db, device));
    LF_ASSIGN_OR_RETURN(Statement insert,
                        Statement::Prepare(db, "insert into database (device, name) values (?, ?) on conflict do nothing"));
    LF_RETURN_IF_ERROR(insert.Bind(1, device.value()).Bind(2, database).Run());
    LF_ASSIGN_OR_RETURN(Statement known, Statement::Prepare(db, "select id, timeline from database where device = ? and name = ?"));
    LF_ASSIGN_OR_RETURN(const bool is_known, known.Bind(1, device.value()).Bind(2, database).Step());
    if (!is_known) return Error(absl::StatusCode::kInternal, "CATALOG_DAMAGED", "a database's row is missing");
    const int64_t database_id = known.Int(0);
    if (timeline > static_cast<uint64_t>(known.Int(1))) {
      return Error(absl::StatusCode::kFailedPrecondition, "TIMELINE_UNKNOWN",
                   fmt::format("{} claims timeline {}, the highest that was ever given is {}", database, timeline, known.Int(1)),
                   "was the controller's catalog restored from an old copy? order a restore or enrol the device again");
    }
    LF_ASSIGN_OR_RETURN(Statement make, Statement::Prepare(db,
                                                           "insert into upload_session (session, owner, database, state, expires_at) "
                                                           "values (?, ?, ?, 1, ?) on conflict do nothing"));
    LF_RETURN_IF_ERROR(make.Bind(1, session.value()).Bind(2, owner).Bind(3, database_id).Bind(4, ToUnixMillis(expires_at)).Run());
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db, fmt::format("select {} from upload_session where session = ?", kSessionColumns)));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, session.value()).Step());
    if (!found) return Error(absl::StatusCode::kInternal, "CATALOG_DAMAGED", "an upload session's row is missing");
    if (get.Int(1) != owner || get.Int(2) != database_id) {
      return Error(absl::StatusCode::kPermissionDenied, "SESSION_NOT_YOURS",
                   fmt::format("upload session {} belongs to another device or database", session.value()), "begin one with a new id");
    }
    if (get.Int(3) == kSessionRemoved) return SessionExpired();
    result = ToSession(get);
    if (!result.committed) {
      // A resumed session takes a new pin: what it had found under the old one is offered again.
      LF_ASSIGN_OR_RETURN(
          Statement extend,
          Statement::Prepare(db,
                             "update upload_session set expires_at = ?1, pinned = coalesce("
                             "(select id from snapshot where id = ?4 and database = ?2 and (state = ?5 or trashed_by = ?6)), "
                             "(select s.id from database d join snapshot s on s.database = d.id and s.sequence = d.sequence "
                             "where d.id = ?2 and s.trashed_by = ?6 and s.trashed_at > 0), "
                             "(select s.id from database d join snapshot s on s.key = d.newest where d.id = ?2 and s.state = ?5), ''), "
                             "generation = (select generation from quarantine_generation) "
                             "where id = ?3 returning pinned"));
      extend.Bind(1, ToUnixMillis(expires_at)).Bind(2, database_id).Bind(3, result.id);
      extend.Bind(4, base.value()).Bind(5, int64_t{v1::SNAPSHOT_STATE_COMMITTED}).Bind(6, kPrecopiedBy);
      LF_ASSIGN_OR_RETURN(const bool extended, extend.Step());
      if (extended) result.pinned = SnapshotId(std::string(extend.Text(0)));
    }
    return absl::OkStatus();
  }));
  return result;
}

absl::StatusOr<std::vector<Presence>> IngestCatalog::ClaimOffered(const UploadSessionRow& session, std::span<const format::ChunkName> names,
                                                                  const std::vector<bool>& pinned) {
  std::vector<Presence> result(names.size(), Presence::kMissing);
  bool any = false;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement get,
        Statement::Prepare(db, fmt::format("select exists (select 1 from device_chunk d where d.owner = ?1 and d.chunk = c.id "
                                           "and {}), c.state from chunk c where c.name = ?3 and c.state in (1, 2)",
                                           kMayRefer)));
    get.Bind(1, session.owner).Bind(2, session.id);
    for (size_t i = 0; i < names.size(); ++i) {
      LF_ASSIGN_OR_RETURN(const bool found, get.BindBlob(3, names[i].bytes).Step());
      if (found) result[i] = get.Int(0) != 0 ? Presence::kClaimed : Presence::kForeign;
      any |= result[i] == Presence::kClaimed && (!pinned[i] || get.Int(1) == kChunkTrash);
      get.Reset();
    }
    return absl::OkStatus();
  }));
  if (!any) return result;
  // What is there now may be gone in a moment: the claim looks again, in its own transaction.
  std::vector<Presence> claimed;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    claimed = result;
    LF_RETURN_IF_ERROR(CheckOpen(db, session.id));
    LF_ASSIGN_OR_RETURN(
        Statement get,
        Statement::Prepare(db, fmt::format("select c.id, c.state from chunk c join device_chunk d on d.owner = ?1 and d.chunk = c.id "
                                           "where c.name = ?3 and c.state in (1, 2) and {}",
                                           kMayRefer)));
    LF_ASSIGN_OR_RETURN(Statement claim, Statement::Prepare(db, "insert into claim (session, chunk) values (?, ?) on conflict do nothing"));
    get.Bind(1, session.owner).Bind(2, session.id);
    for (size_t i = 0; i < names.size(); ++i) {
      if (claimed[i] != Presence::kClaimed) continue;
      LF_ASSIGN_OR_RETURN(const bool found, get.BindBlob(3, names[i].bytes).Step());
      if (found && get.Int(1) == kChunkTrash) LF_RETURN_IF_ERROR(TakeOutOfTrash(db, get.Int(0)));
      if (found && !pinned[i]) {
        LF_RETURN_IF_ERROR(claim.Bind(1, session.id).Bind(2, get.Int(0)).Run());
      } else if (!found) {
        claimed[i] = Presence::kMissing;
      }
      get.Reset();
    }
    return absl::OkStatus();
  }));
  LF_CRASH_POINT("ingest.after_claim");
  return claimed;
}

absl::StatusOr<UploadSessionRow> IngestCatalog::RecordChunks(const UploadSessionRow& session, std::span<const ArrivedChunk> chunks,
                                                             bool own) {
  UploadSessionRow result;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_RETURN_IF_ERROR(CheckOpen(db, session.id));
    LF_ASSIGN_OR_RETURN(Statement find, Statement::Prepare(db, "select id, state, pack, stored_bytes from chunk where name = ?"));
    LF_ASSIGN_OR_RETURN(Statement insert,
                        Statement::Prepare(db,
                                           "insert into chunk (name, page_size, page_count, codec, stored_bytes, pack, offset, state, id) "
                                           "values (?, ?, ?, ?, ?, ?, ?, 1, ?)"));
    LF_ASSIGN_OR_RETURN(int64_t next_id, NextChunkId(db));
    LF_ASSIGN_OR_RETURN(Statement fewer,
                        Statement::Prepare(db, "update pack set chunks = chunks - 1, stored_bytes = stored_bytes - ? where id = ?"));
    LF_ASSIGN_OR_RETURN(
        Statement replace,
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
          return Error(absl::StatusCode::kAborted, "CHUNK_VANISHED", "a chunk that the store had was removed meanwhile",
                       "resume the upload");
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
      LF_RETURN_IF_ERROR(claim.Bind(1, session.id).Bind(2, id).Run());
      LF_RETURN_IF_ERROR(right.Bind(1, session.owner).Bind(2, id).Bind(3, session.id).Run());
      bytes += chunk.stored_bytes;
    }
    LF_ASSIGN_OR_RETURN(Statement count, Statement::Prepare(db,
                                                            "update upload_session set chunks = chunks + ?, bytes = bytes + ?, "
                                                            "stored_bytes = stored_bytes + ? where id = ?"));
    count.Bind(1, own ? int64_t{0} : static_cast<int64_t>(chunks.size())).Bind(2, own ? int64_t{0} : bytes);
    LF_RETURN_IF_ERROR(count.Bind(3, grown).Bind(4, session.id).Run());
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, fmt::format("select {} from upload_session where id = ?", kSessionColumns)));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, session.id).Step());
    if (!found) return SessionExpired();
    result = ToSession(get);
    return absl::OkStatus();
  }));
  LF_CRASH_POINT("ingest.after_record_chunks");
  return result;
}

absl::StatusOr<CommitFacts> IngestCatalog::GetCommitFacts(const UploadSessionRow& session) const {
  CommitFacts facts;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db,
                                                          "select d.sequence, s.effective_at from database d left join snapshot s "
                                                          "on s.database = d.id and s.sequence = d.sequence where d.id = ?"));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, session.database).Step());
    if (!found) return Error(absl::StatusCode::kNotFound, "DATABASE_NOT_FOUND", "the upload's database is gone");
    facts.next_sequence = static_cast<uint64_t>(get.Int(0)) + 1;
    if (!get.IsNull(1)) facts.previous_effective_at = FromUnixMillis(get.Int(1));
    return absl::OkStatus();
  }));
  return facts;
}

absl::StatusOr<int64_t> InsertSnapshotRow(sqlite3* db, const storage::v1::SnapshotRecord& record, int64_t database, PackPlace place) {
  LF_ASSIGN_OR_RETURN(const int64_t key, NextSnapshotKey(db));
  LF_ASSIGN_OR_RETURN(Statement insert,
                      Statement::Prepare(db, R"sql(insert into snapshot (id, device, database, timeline, sequence, method, state, page_size,
    page_count, root, root_version, manifest_kind, manifest_parts, parent, taken_at, received_at, effective_at, journal_mode, source_check,
    source_check_message, check_state, pages_sent, wire_bytes, stored_bytes, duration_ms, pinned_ms, read_bytes, operation, session, pack, offset,
    key, pages_changed, layers, trashed_at, trashed_by)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))sql"));
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
  LF_RETURN_IF_ERROR(insert.Run());
  return key;
}

absl::StatusOr<SnapshotId> IngestCatalog::Commit(const UploadSessionRow& session, const storage::v1::SnapshotRecord& record,
                                                 PackPlace place, const NewManifest& manifest) {
  SnapshotId result;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, fmt::format("select {} from upload_session where id = ?", kSessionColumns)));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, session.id).Step());
    if (!found || get.Int(3) == kSessionRemoved) return SessionExpired();
    if (const UploadSessionRow row = ToSession(get); row.committed) {
      result = row.snapshot;
      return absl::OkStatus();
    }
    get.Reset();
    LF_RETURN_IF_ERROR(CheckGeneration(db, session.id));
    LF_ASSIGN_OR_RETURN(const int64_t key, InsertSnapshotRow(db, record, session.database, place));
    LF_RETURN_IF_ERROR(InsertManifest(db, key, manifest));
    if (!record.precopied()) LF_RETURN_IF_ERROR(ReleasePrecopied(db, session.database));
    LF_ASSIGN_OR_RETURN(Statement newest,
                        Statement::Prepare(db, record.precopied() ? "update database set sequence = ?2 where id = ?3 and sequence = ?2 - 1"
                                                                  : "update database set newest = ?1, sequence = ?2, "
                                                                    "snapshots = snapshots + 1 where id = ?3 and sequence = ?2 - 1"));
    newest.Bind(2, static_cast<int64_t>(record.sequence())).Bind(3, session.database);
    if (!record.precopied()) newest.Bind(1, key);
    LF_RETURN_IF_ERROR(newest.Run());
    if (sqlite3_changes(db) != 1)
      return Error(absl::StatusCode::kAborted, "COMMIT_CONFLICT", "another snapshot of this database came first", "commit again");
    LF_ASSIGN_OR_RETURN(
        Statement done,
        Statement::Prepare(db, "update upload_session set state = 2, snapshot = ?, expires_at = ?, precopied = ? where id = ?"));
    const int64_t forget_at = record.received_at_ms() + std::chrono::duration_cast<std::chrono::milliseconds>(kKeepCommitted).count();
    LF_RETURN_IF_ERROR(
        done.Bind(1, record.snapshot_id()).Bind(2, forget_at).Bind(3, int64_t{record.precopied()}).Bind(4, session.id).Run());
    result = SnapshotId(record.snapshot_id());
    return absl::OkStatus();
  }));
  return result;
}

absl::Status IngestCatalog::DropClaims(int64_t session) {
  for (;;) {
    int changed = 0;
    LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
      LF_ASSIGN_OR_RETURN(Statement drop, Statement::Prepare(db,
                                                             "delete from claim where session = ?1 and chunk in "
                                                             "(select chunk from claim where session = ?1 limit ?2) "
                                                             "and (select marking from prune_state) = 0"));
      LF_RETURN_IF_ERROR(drop.Bind(1, session).Bind(2, int64_t{kRowsATransaction}).Run());
      changed = sqlite3_changes(db);
      return absl::OkStatus();
    }));
    if (changed < kRowsATransaction) return absl::OkStatus();
  }
}

absl::StatusOr<int> IngestCatalog::RemoveExpiredSessions(SystemTime now) {
  for (int removed = 0;; ++removed) {
    int64_t session = 0;
    LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
      LF_ASSIGN_OR_RETURN(Statement get,
                          Statement::Prepare(db,
                                             "select id, state from upload_session where expires_at < ? "
                                             "and (state <> 2 or (select marking from prune_state) = 0) order by expires_at limit 1"));
      LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, ToUnixMillis(now)).Step());
      if (!found) return absl::OkStatus();
      session = get.Int(0);
      const int64_t state = get.Int(1);
      get.Reset();
      if (state != kSessionOpen) return absl::OkStatus();
      LF_ASSIGN_OR_RETURN(Statement mark, Statement::Prepare(db, "update upload_session set state = 3 where id = ?"));
      return mark.Bind(1, session).Run();
    }));
    if (session == 0) return removed;
    // Rights that came with an upload that was never committed go with it; those of a committed one stay.
    for (int changed = kRowsATransaction; changed == kRowsATransaction;) {
      LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
        LF_ASSIGN_OR_RETURN(
            Statement rights,
            Statement::Prepare(db,
                               "delete from device_chunk where session = ?1 and owner = (select owner from upload_session "
                               "where id = ?1 and state = 3) and chunk in (select chunk from claim where session = ?1 limit ?2)"));
        LF_RETURN_IF_ERROR(rights.Bind(1, session).Bind(2, int64_t{kRowsATransaction}).Run());
        LF_ASSIGN_OR_RETURN(Statement drop, Statement::Prepare(db,
                                                               "delete from claim where session = ?1 and chunk in "
                                                               "(select chunk from claim where session = ?1 limit ?2)"));
        LF_RETURN_IF_ERROR(drop.Bind(1, session).Bind(2, int64_t{kRowsATransaction}).Run());
        changed = sqlite3_changes(db);
        if (changed == kRowsATransaction) return absl::OkStatus();
        LF_ASSIGN_OR_RETURN(Statement forget, Statement::Prepare(db, "delete from upload_session where id = ?"));
        return forget.Bind(1, session).Run();
      }));
    }
  }
}

absl::StatusOr<SnapshotLayout> IngestCatalog::GetLayout(const SnapshotId& snapshot) const {
  SnapshotLayout layout;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db,
                                           "select key, page_size, page_count, root, root_version, manifest_kind, manifest_parts, layers, "
                                           "state from snapshot where id = ?"));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, snapshot.value()).Step());
    if (!found) return Error(absl::StatusCode::kNotFound, "SNAPSHOT_NOT_FOUND", fmt::format("there is no snapshot {}", snapshot.value()));
    layout.key = get.Int(0);
    layout.id = snapshot;
    layout.page_size = static_cast<uint32_t>(get.Int(1));
    layout.page_count = static_cast<uint32_t>(get.Int(2));
    const auto root = format::RootDigest::FromBytes(AsText(get.Blob(3)));
    if (!root.has_value()) return Error(absl::StatusCode::kInternal, "CATALOG_DAMAGED", "a snapshot's root digest is not 32 bytes long");
    layout.root = *root;
    layout.root_version = static_cast<uint32_t>(get.Int(4));
    layout.manifest_kind = static_cast<uint32_t>(get.Int(5));
    layout.in_trash = get.Int(8) == v1::SNAPSHOT_STATE_TRASH;
    if (!ParseLayers(get.Text(7), layout.layers))
      return Error(absl::StatusCode::kInternal, "CATALOG_DAMAGED",
                   fmt::format("the layers of snapshot {} make no sense", snapshot.value()));
    if (layout.layers.empty()) {
      const auto parts = static_cast<uint32_t>(get.Int(6));
      layout.layers.push_back({.id = snapshot.value(), .parts = parts, .bytes = int64_t{parts} * 50'000});
    }
    return absl::OkStatus();
  }));
  return layout;
}

}  // namespace litefleet::catalog
