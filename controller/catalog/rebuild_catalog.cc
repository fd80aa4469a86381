#include "controller/catalog/rebuild_catalog.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "common/io/file.h"
#include "controller/catalog/schema.h"
#include "fmt/format.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

std::string FoundPath(const std::string& path) { return path + "-found"; }

absl::Status RemoveAll(const std::string& path) {
  for (const std::string& file : {path, FoundPath(path)}) {
    for (const char* suffix : {"", "-wal", "-shm", "-journal"}) LF_RETURN_IF_ERROR(io::RemoveFile(file + suffix));
  }
  return absl::OkStatus();
}

constexpr char kFoundSchema[] = R"sql(
create table found.chunk (name blob, page_size integer, page_count integer, codec integer, stored_bytes integer, pack integer,
  offset integer);
create table found.part (snapshot text, part integer, first_page integer, pack integer, offset integer, primary key (snapshot, part))
  without rowid;
create table found.snapshot (session text primary key, device text, database text, sequence integer, received_at integer, record blob,
  pack integer, offset integer, id text, layers integer);
create table found.spare (id text, layers integer, pack integer, offset integer, record blob, primary key (id, layers, pack, offset))
  without rowid;
create table found.mark (id text primary key, revision integer, deleted integer, pinned integer, session text, sequence integer,
  last_pack integer, pinned_until integer)
  without rowid;
create table found.gone (device text, database text, first integer, last integer, last_pack integer,
  primary key (device, database, first, last, last_pack)) without rowid;
create table found.number (device text, database text, sequence integer, primary key (device, database)) without rowid;
create table found.state (kind integer, subject text, revision integer, record blob, primary key (kind, subject)) without rowid;
)sql";

}  // namespace

RebuildCatalog::~RebuildCatalog() {
  cached_.clear();
  statements_.reset();
  db_.reset();
}

absl::StatusOr<std::unique_ptr<RebuildCatalog>> RebuildCatalog::Create(const std::string& path) {
  LF_RETURN_IF_ERROR(RemoveAll(path));
  // The migrations, as they would be at any start.
  LF_RETURN_IF_ERROR(CatalogDb::Open(path, true, Migrations()).status());
  std::unique_ptr<RebuildCatalog> catalog(new RebuildCatalog());
  catalog->path_ = path;
  LF_ASSIGN_OR_RETURN(catalog->db_, sqlite::Open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX));
  sqlite3* db = catalog->db_.get();
  LF_RETURN_IF_ERROR(sqlite::Execute(db,
                                     "pragma journal_mode=delete; pragma journal_mode=off; pragma synchronous=off; "
                                     "pragma locking_mode=exclusive; pragma cache_size=-65536; pragma temp_store=file"));
  LF_ASSIGN_OR_RETURN(Statement attach, Statement::Prepare(db, "attach ? as found"));
  LF_RETURN_IF_ERROR(attach.Bind(1, FoundPath(path)).Run());
  LF_RETURN_IF_ERROR(sqlite::Execute(db, "pragma found.journal_mode=off; pragma found.synchronous=off; pragma found.cache_size=-32768"));
  LF_RETURN_IF_ERROR(sqlite::Execute(db, kFoundSchema));
  {
    LF_ASSIGN_OR_RETURN(Statement trigger, Statement::Prepare(db, "select sql from sqlite_schema where name = 'right_made'"));
    LF_ASSIGN_OR_RETURN(const bool there, trigger.Step());
    if (there) catalog->trigger_ = trigger.Text(0);
  }
  LF_RETURN_IF_ERROR(sqlite::Execute(db, "drop trigger right_made"));
  LF_RETURN_IF_ERROR(sqlite::Execute(db, "begin"));
  return catalog;
}

absl::StatusOr<Statement*> RebuildCatalog::Cached(std::string_view sql) {
  for (const auto& [text, statement] : cached_) {
    if (text.data() == sql.data()) return statement.get();
  }
  LF_ASSIGN_OR_RETURN(Statement statement, Statement::Prepare(db_.get(), sql, true));
  cached_.emplace_back(sql, std::make_unique<Statement>(std::move(statement)));
  return cached_.back().second.get();
}

absl::Status RebuildCatalog::AddChunk(const ArrivedChunk& chunk) {
  LF_ASSIGN_OR_RETURN(Statement * insert, Cached("insert into found.chunk values (?, ?, ?, ?, ?, ?, ?)"));
  insert->BindBlob(1, chunk.name.bytes).Bind(2, int64_t{chunk.page_size}).Bind(3, int64_t{chunk.page_count});
  insert->Bind(4, static_cast<int64_t>(chunk.codec)).Bind(5, int64_t{chunk.stored_bytes});
  return insert->Bind(6, static_cast<int64_t>(chunk.place->pack)).Bind(7, static_cast<int64_t>(chunk.place->offset)).Run();
}

absl::Status RebuildCatalog::AddManifestPart(const std::string& snapshot, uint32_t part, ManifestPlace place) {
  LF_ASSIGN_OR_RETURN(Statement * insert, Cached("insert or replace into found.part values (?, ?, ?, ?, ?)"));
  insert->Bind(1, snapshot).Bind(2, int64_t{part}).Bind(3, int64_t{place.first_page});
  return insert->Bind(4, static_cast<int64_t>(place.place.pack)).Bind(5, static_cast<int64_t>(place.place.offset)).Run();
}

absl::Status RebuildCatalog::AddSnapshot(const storage::v1::SnapshotRecord& record, PackPlace place) {
  const std::string session = record.session_id().empty() ? record.snapshot_id() : record.session_id();
  const std::string bytes = record.SerializeAsString();
  // Where records of one snapshot differ, all are kept: what one names may not be there (Others).
  LF_ASSIGN_OR_RETURN(Statement * spare,
                      Cached("insert or ignore into found.spare select id, layers, pack, offset, record from found.snapshot "
                             "where session = ?1 and id = ?2 and record <> ?6 "
                             "union all select ?2, ?3, ?4, ?5, ?6 from found.snapshot "
                             "where session = ?1 and id = ?2 and record <> ?6"));
  spare->Bind(1, session).Bind(2, record.snapshot_id()).Bind(3, int64_t{record.layers_size()}).Bind(4, static_cast<int64_t>(place.pack));
  LF_RETURN_IF_ERROR(spare->Bind(5, static_cast<int64_t>(place.offset)).BindBlob(6, AsBytes(bytes)).Run());
  // Of one snapshot the record with more layers counts, wherever a rewrite has put a copy of an older one.
  LF_ASSIGN_OR_RETURN(Statement * insert,
                      Cached("insert into found.snapshot values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict (session) do update set "
                             "device = excluded.device, database = excluded.database, sequence = excluded.sequence, "
                             "received_at = excluded.received_at, record = excluded.record, pack = excluded.pack, "
                             "offset = excluded.offset, id = excluded.id, layers = excluded.layers where (case when excluded.id = id then "
                             "excluded.layers - layers else 0 end, excluded.pack, excluded.offset) >= (0, pack, offset)"));
  insert->Bind(1, session).Bind(2, record.device_id());
  insert->Bind(3, record.database()).Bind(4, static_cast<int64_t>(record.sequence())).Bind(5, record.received_at_ms());
  insert->BindBlob(6, AsBytes(bytes)).Bind(7, static_cast<int64_t>(place.pack));
  return insert->Bind(8, static_cast<int64_t>(place.offset)).Bind(9, record.snapshot_id()).Bind(10, int64_t{record.layers_size()}).Run();
}

absl::Status RebuildCatalog::AddNumber(const storage::v1::SnapshotRecord& record) {
  LF_ASSIGN_OR_RETURN(Statement * insert, Cached("insert into found.number values (?, ?, ?) on conflict (device, database) do update set "
                                                 "sequence = excluded.sequence where excluded.sequence > sequence"));
  return insert->Bind(1, record.device_id()).Bind(2, record.database()).Bind(3, static_cast<int64_t>(record.sequence())).Run();
}

absl::Status RebuildCatalog::Index(uint64_t newest_pack) {
  sqlite3* db = db_.get();
  cached_.clear();
  LF_RETURN_IF_ERROR(DropDeleted(newest_pack));
  // Sorted first, so that every index grows at its end. With max() SQLite takes the other columns from the row of the maximum.
  LF_RETURN_IF_ERROR(sqlite::Execute(db, R"sql(
insert into chunk (name, page_size, page_count, codec, stored_bytes, pack, offset, state)
  select name, page_size, page_count, codec, stored_bytes, max(pack), offset, 1 from found.chunk group by name order by name;
insert into pack (id, chunks, stored_bytes) select pack, count(*), sum(stored_bytes) from chunk group by pack;
-- A commit that was cut off before its transaction left a record whose number a later one was given. What was acknowledged was written
-- behind it, and only moves on: its place tells, no clock.
create index found.snapshot_sequence on snapshot (device, database, sequence, pack, offset);
create table found.older as select a.rowid as id from found.snapshot a join found.snapshot b on a.device = b.device and
  a.database = b.database and a.sequence = b.sequence and (a.pack, a.offset) < (b.pack, b.offset);
delete from found.snapshot where rowid in (select id from found.older);
create index found.snapshot_received on snapshot (received_at, session);
)sql"));
  return absl::OkStatus();
}

absl::Status RebuildCatalog::ForEachSnapshot(absl::FunctionRef<absl::Status(const Found&)> visit) {
  LF_ASSIGN_OR_RETURN(Statement list,
                      Statement::Prepare(db_.get(), "select record, pack, offset from found.snapshot order by received_at, session"));
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, list.Step());
    if (!row) return absl::OkStatus();
    Found found;
    const ByteView record = list.Blob(0);
    if (!found.record.ParseFromArray(record.data(), static_cast<int>(record.size()))) continue;  // it was one when it came
    found.place = {.pack = static_cast<uint64_t>(list.Int(1)), .offset = static_cast<uint64_t>(list.Int(2))};
    LF_RETURN_IF_ERROR(visit(found));
  }
}

absl::StatusOr<std::vector<RebuildCatalog::Found>> RebuildCatalog::Others(const Found& found) {
  LF_ASSIGN_OR_RETURN(Statement * get, Cached("select record, pack, offset from found.spare where id = ? and (pack, offset) <> (?, ?) "
                                              "order by layers desc, pack desc, offset desc"));
  get->Bind(1, found.record.snapshot_id()).Bind(2, static_cast<int64_t>(found.place.pack));
  get->Bind(3, static_cast<int64_t>(found.place.offset));
  std::vector<Found> others;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, get->Step());
    if (!row) break;
    Found other;
    const ByteView record = get->Blob(0);
    if (!other.record.ParseFromArray(record.data(), static_cast<int>(record.size()))) continue;
    other.place = {.pack = static_cast<uint64_t>(get->Int(1)), .offset = static_cast<uint64_t>(get->Int(2))};
    others.push_back(std::move(other));
  }
  get->Reset();
  return others;
}

absl::StatusOr<std::vector<ManifestPlace>> RebuildCatalog::Parts(const std::string& snapshot, uint32_t first, uint32_t limit) {
  LF_ASSIGN_OR_RETURN(
      Statement * get,
      Cached("select part, first_page, pack, offset from found.part where snapshot = ? and part >= ? order by part limit ?"));
  get->Bind(1, snapshot).Bind(2, int64_t{first}).Bind(3, int64_t{limit});
  std::vector<ManifestPlace> parts;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, get->Step());
    if (!row || get->Int(0) != int64_t{first} + static_cast<int64_t>(parts.size())) break;
    parts.push_back({.first_page = static_cast<uint32_t>(get->Int(1)),
                     .place = {.pack = static_cast<uint64_t>(get->Int(2)), .offset = static_cast<uint64_t>(get->Int(3))}});
  }
  get->Reset();
  return parts;
}

absl::StatusOr<std::optional<RebuildCatalog::FoundChunk>> RebuildCatalog::FindChunk(const format::ChunkName& name) {
  LF_ASSIGN_OR_RETURN(Statement * get, Cached("select id, page_size, page_count, stored_bytes from chunk where name = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, get->BindBlob(1, name.bytes).Step());
  std::optional<FoundChunk> chunk;
  if (found) {
    chunk =
        FoundChunk{get->Int(0), static_cast<uint32_t>(get->Int(1)), static_cast<uint32_t>(get->Int(2)), static_cast<uint32_t>(get->Int(3))};
  }
  get->Reset();
  return chunk;
}

absl::Status RebuildCatalog::FlushHeld() {
  if (held_ == 0) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(Statement * count, Cached("update owner set held_bytes = held_bytes + ? where id = ?"));
  return count->Bind(1, std::exchange(held_, 0)).Bind(2, owner_).Run();
}

absl::Status RebuildCatalog::AddRight(const std::string& device, const FoundChunk& chunk) {
  if (owner_device_ != device) {
    LF_RETURN_IF_ERROR(FlushHeld());
    LF_ASSIGN_OR_RETURN(Statement * insert, Cached("insert into owner (device) values (?) on conflict do nothing"));
    LF_RETURN_IF_ERROR(insert->Bind(1, device).Run());
    LF_ASSIGN_OR_RETURN(Statement * get, Cached("select id from owner where device = ?"));
    LF_RETURN_IF_ERROR(get->Bind(1, device).Step().status());
    owner_ = get->Int(0);
    get->Reset();
    owner_device_ = device;
  }
  // Session 0 never was: a right without conditions.
  LF_ASSIGN_OR_RETURN(Statement * insert, Cached("insert into device_chunk values (?, ?, 0) on conflict do nothing"));
  LF_RETURN_IF_ERROR(insert->Bind(1, owner_).Bind(2, chunk.id).Run());
  if (sqlite3_changes(db_.get()) > 0) held_ += chunk.stored_bytes;
  return absl::OkStatus();
}

absl::StatusOr<int64_t> RebuildCatalog::DatabaseRow(const std::string& device, const std::string& name) {
  LF_ASSIGN_OR_RETURN(Statement * insert, Cached("insert into database (device, name) values (?, ?) on conflict do nothing"));
  LF_RETURN_IF_ERROR(insert->Bind(1, device).Bind(2, name).Run());
  LF_ASSIGN_OR_RETURN(Statement * get, Cached("select id from database where device = ? and name = ?"));
  LF_RETURN_IF_ERROR(get->Bind(1, device).Bind(2, name).Step().status());
  const int64_t id = get->Int(0);
  get->Reset();
  return id;
}

absl::Status RebuildCatalog::Keep(const Found& snapshot) {
  const storage::v1::SnapshotRecord& record = snapshot.record;
  LF_ASSIGN_OR_RETURN(const int64_t database, DatabaseRow(record.device_id(), record.database()));
  LF_RETURN_IF_ERROR(InsertSnapshotRow(sqlite::Connection(db_.get(), statements_.get()), record, database, snapshot.place).status());
  LF_ASSIGN_OR_RETURN(Statement * pin, Cached("update snapshot set pinned = 1, pinned_until = m.pinned_until from found.mark m where "
                                              "snapshot.id = ?1 and m.id = ?1 and m.pinned and not m.deleted"));
  LF_RETURN_IF_ERROR(pin->Bind(1, record.snapshot_id()).Run());
  LF_ASSIGN_OR_RETURN(Statement * update,
                      Cached("update database set newest = (select key from snapshot where database = ?1 and provenance = '' and part = '' "
                             "order by sequence desc limit 1), "
                             "sequence = max(sequence, ?2), snapshots = snapshots + 1, timeline = max(timeline, ?3) where id = ?1"));
  return update->Bind(1, database).Bind(2, static_cast<int64_t>(record.sequence())).Bind(3, static_cast<int64_t>(record.timeline())).Run();
}

absl::Status RebuildCatalog::KeepParts(const std::string& snapshot, uint32_t first, const std::vector<ManifestPlace>& parts) {
  LF_ASSIGN_OR_RETURN(Statement * insert, Cached("insert into manifest_part (snapshot, part, first_page, pack, offset) "
                                                 "values ((select key from snapshot where id = ?), ?, ?, ?, ?)"));
  for (size_t i = 0; i < parts.size(); ++i) {
    insert->Bind(1, snapshot).Bind(2, int64_t{first} + static_cast<int64_t>(i)).Bind(3, int64_t{parts[i].first_page});
    LF_RETURN_IF_ERROR(
        insert->Bind(4, static_cast<int64_t>(parts[i].place.pack)).Bind(5, static_cast<int64_t>(parts[i].place.offset)).Run());
  }
  return absl::OkStatus();
}

absl::Status RebuildCatalog::Close() {
  LF_RETURN_IF_ERROR(FlushHeld());
  cached_.clear();
  statements_.reset();
  LF_RETURN_IF_ERROR(sqlite::Execute(db_.get(), trigger_));
  LF_RETURN_IF_ERROR(sqlite::Execute(db_.get(), "commit"));
  db_.reset();
  LF_RETURN_IF_ERROR(io::RemoveFile(FoundPath(path_)));
  LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, io::Open(path_, O_RDWR));
  return io::Sync(fd.get(), path_);
}

}  // namespace litefleet::catalog
