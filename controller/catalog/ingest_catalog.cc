#include "controller/catalog/ingest_catalog.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/chunk_state.h"
#include "controller/catalog/ingest_rows.h"
#include "fmt/format.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

absl::StatusOr<int64_t> OwnerOf(sqlite::Connection db, const DeviceId& device) {
  LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select id from owner where device = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, device.value()).Step());
  if (found) return get.Int(0);
  LF_ASSIGN_OR_RETURN(Statement insert, Statement::Prepare(db, "insert into owner (device) values (?)"));
  LF_RETURN_IF_ERROR(insert.Bind(1, device.value()).Run());
  return sqlite3_last_insert_rowid(db);
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

absl::Status FillFacts(sqlite::Connection db, const UploadSessionRow& session, std::string_view operation, BeginFacts& facts) {
  constexpr uint32_t kMaxParts = 64;
  facts = {};
  LF_ASSIGN_OR_RETURN(facts.commit, CommitFactsOf(db, session.database, operation));
  if (session.pinned.value().empty()) return absl::OkStatus();
  absl::StatusOr<SnapshotLayout> layout = LayoutOf(db, session.pinned);
  if (!layout.ok()) return absl::OkStatus();  // then nothing is compared
  uint32_t parts = 0;
  for (const ManifestLayer& layer : layout->layers) parts += layer.parts;
  if (parts <= kMaxParts) {
    LF_ASSIGN_OR_RETURN(facts.parts, PartsOf(db, layout->key, 0, kMaxParts));
  }
  facts.pinned = *std::move(layout);
  return absl::OkStatus();
}

// Text of the condition under which a row of device_chunk (d) is a right for a session of database ?2. An operation that goes on where
// another one has failed has a session of its own: what that one has brought is not sent again.
constexpr char kMayRefer[] =
    "not exists (select 1 from upload_session s where s.id = d.session and (s.state = 3 or (s.state = 1 and s.database <> ?2)))";

}  // namespace

absl::StatusOr<UploadSessionRow> IngestCatalog::BeginSession(const DeviceId& device, const SessionId& session, const std::string& database,
                                                             uint64_t timeline, const SnapshotId& base, SystemTime expires_at,
                                                             std::string_view operation, BeginFacts* facts) {
  UploadSessionRow result;
  // What a crash forgets of it has nothing yet: claims and chunks are durable later, and make this durable before them.
  const auto begin = [&](sqlite::Connection db) -> absl::Status {
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
    LF_ASSIGN_OR_RETURN(Statement make,
                        Statement::Prepare(db,
                                           "insert into upload_session (session, owner, database, state, expires_at, operation) "
                                           "values (?, ?, ?, 1, ?, ?) on conflict do nothing"));
    make.Bind(1, session.value()).Bind(2, owner).Bind(3, database_id).Bind(4, ToUnixMillis(expires_at)).Bind(5, operation);
    LF_RETURN_IF_ERROR(make.Run());
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
      extend.Reset();
      if (facts != nullptr) LF_RETURN_IF_ERROR(FillFacts(db, result, operation, *facts));
    }
    return absl::OkStatus();
  };
  LF_RETURN_IF_ERROR(db_.Write(begin, Durability::kRelaxed));
  return result;
}

absl::StatusOr<std::vector<Presence>> IngestCatalog::ClaimOffered(const UploadSessionRow& session, std::span<const format::ChunkName> names,
                                                                  const std::vector<bool>& pinned) {
  std::vector<Presence> result(names.size(), Presence::kMissing);
  bool any = false;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement get,
        Statement::Prepare(db, fmt::format("select exists (select 1 from device_chunk d where d.owner = ?1 and d.chunk = c.id "
                                           "and {}), c.state from chunk c where c.name = ?3 and c.state in (1, 2)",
                                           kMayRefer)));
    get.Bind(1, session.owner).Bind(2, session.database);
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
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite::Connection db) -> absl::Status {
    claimed = result;
    LF_RETURN_IF_ERROR(CheckOpen(db, session.id));
    LF_ASSIGN_OR_RETURN(
        Statement get,
        Statement::Prepare(db, fmt::format("select c.id, c.state from chunk c join device_chunk d on d.owner = ?1 and d.chunk = c.id "
                                           "where c.name = ?3 and c.state in (1, 2) and {}",
                                           kMayRefer)));
    LF_ASSIGN_OR_RETURN(Statement claim, Statement::Prepare(db, "insert into claim (session, chunk) values (?, ?) on conflict do nothing"));
    // The right goes with the session that uses it now: the one that brought it may expire before this one.
    LF_ASSIGN_OR_RETURN(
        Statement take,
        Statement::Prepare(db,
                           "update device_chunk set session = ?1 where owner = ?2 and chunk = ?3 and exists "
                           "(select 1 from upload_session s where s.id = device_chunk.session and s.state = 1 and s.id <> ?1)"));
    get.Bind(1, session.owner).Bind(2, session.database);
    for (size_t i = 0; i < names.size(); ++i) {
      if (claimed[i] != Presence::kClaimed) continue;
      LF_ASSIGN_OR_RETURN(const bool found, get.BindBlob(3, names[i].bytes).Step());
      if (found && get.Int(1) == kChunkTrash) LF_RETURN_IF_ERROR(TakeOutOfTrash(db, get.Int(0)));
      if (found && !pinned[i]) {
        LF_RETURN_IF_ERROR(claim.Bind(1, session.id).Bind(2, get.Int(0)).Run());
        LF_RETURN_IF_ERROR(take.Bind(1, session.id).Bind(2, session.owner).Bind(3, get.Int(0)).Run());
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

absl::Status IngestCatalog::DropClaims(int64_t session) {
  for (;;) {
    int dropped = 0;
    LF_RETURN_IF_ERROR(db_.Write(
        [&](sqlite::Connection db) -> absl::Status {
          LF_ASSIGN_OR_RETURN(dropped, DropSomeClaims(db, session));
          return absl::OkStatus();
        },
        Durability::kRelaxed));
    if (dropped < kRowsATransaction) return absl::OkStatus();
  }
}

absl::StatusOr<int> IngestCatalog::RemoveExpiredSessions(SystemTime now) {
  for (int removed = 0;; ++removed) {
    int64_t session = 0;
    LF_RETURN_IF_ERROR(db_.Write([&](sqlite::Connection db) -> absl::Status {
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
      LF_RETURN_IF_ERROR(db_.Write([&](sqlite::Connection db) -> absl::Status {
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

absl::StatusOr<SnapshotLayout> LayoutOf(sqlite::Connection db, const SnapshotId& snapshot) {
  SnapshotLayout layout;
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
    return Error(absl::StatusCode::kInternal, "CATALOG_DAMAGED", fmt::format("the layers of snapshot {} make no sense", snapshot.value()));
  if (layout.layers.empty()) {
    const auto parts = static_cast<uint32_t>(get.Int(6));
    layout.layers.push_back({.id = snapshot.value(), .parts = parts, .bytes = int64_t{parts} * 50'000});
  }
  return layout;
}

absl::StatusOr<SnapshotLayout> IngestCatalog::GetLayout(const SnapshotId& snapshot) const {
  SnapshotLayout layout;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(layout, LayoutOf(db, snapshot));
    return absl::OkStatus();
  }));
  return layout;
}

}  // namespace litefleet::catalog
