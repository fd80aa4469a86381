#include "controller/catalog/ingest_catalog.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/chunk_state.h"
#include "controller/catalog/ingest_rows.h"
#include "controller/catalog/operation_catalog.h"
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

absl::StatusOr<bool> AllMissing(sqlite::Connection db, std::span<const format::ChunkName> names) {
  LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select 1 from chunk where name = ?"));
  for (const format::ChunkName& name : names) {
    LF_ASSIGN_OR_RETURN(const bool found, get.BindBlob(1, name.bytes).Step());
    get.Reset();
    if (found) return false;
  }
  return !names.empty();
}

absl::StatusOr<std::optional<ContactRow>> ContactOf(sqlite::Connection db, const DeviceId& device) {
  LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select clock_offset_ms, seen_before_ms from device where id = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, device.value()).Step());
  if (!found) return std::nullopt;
  ContactRow contact{.clock_offset_ms = get.Int(0), .heard_before = std::nullopt};
  if (!get.IsNull(1)) contact.heard_before = FromUnixMillis(get.Int(1));
  return contact;
}

absl::Status FillFacts(sqlite::Connection db, const DeviceId& device, const UploadSessionRow& session, std::string_view operation,
                       std::span<const format::ChunkName> offered, BeginFacts& facts) {
  constexpr uint32_t kMaxParts = 64;
  facts = {};
  if (!offered.empty()) {
    LF_ASSIGN_OR_RETURN(facts.all_missing, AllMissing(db, offered));
    LF_ASSIGN_OR_RETURN(facts.contact, ContactOf(db, device));
  }
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

// An order that nobody waits for any more: it was cancelled, or not fetched in time. What a device does by itself is its own: a state that
// waits in its spool keeps the operation that took it, and is promised whatever an operator says to that.
absl::StatusOr<bool> IsCalledOff(sqlite::Connection db, const DeviceId& device, std::string_view operation) {
  if (operation.empty()) return false;
  LF_ASSIGN_OR_RETURN(Statement get,
                      Statement::Prepare(db, "select state in (?3, ?4, ?5) from operation where id = ?1 and device = ?2 and origin = ?6"));
  get.Bind(1, operation).Bind(2, device.value()).Bind(3, int64_t{v1::OPERATION_STATE_CANCELLING});
  get.Bind(4, int64_t{v1::OPERATION_STATE_CANCELLED}).Bind(5, int64_t{v1::OPERATION_STATE_EXPIRED});
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(6, static_cast<int64_t>(Origin::kOrdered)).Step());
  return found && get.Int(0) != 0;
}

// Of a session whose row was made a moment ago: what it was committed as, where the row of then was forgotten or is of a catalog that was
// lost. The state is the same and its device asks again, so that this is the answer, also where the snapshot is in the trash by now.
absl::StatusOr<bool> FindCommitted(sqlite::Connection db, const SessionId& session, int64_t database, UploadSessionRow& row) {
  LF_ASSIGN_OR_RETURN(Statement get,
                      Statement::Prepare(db,
                                         "select id, trashed_by = ?3 from snapshot where session = ?1 and session <> '' and database = ?2 "
                                         "order by sequence desc limit 1"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, session.value()).Bind(2, database).Bind(3, kPrecopiedBy).Step());
  if (!found) return false;
  row.committed = true;
  row.snapshot = SnapshotId(std::string(get.Text(0)));
  row.precopied = get.Int(1) != 0;
  LF_ASSIGN_OR_RETURN(Statement set,
                      Statement::Prepare(db, "update upload_session set state = 2, snapshot = ?, precopied = ? where id = ?"));
  LF_RETURN_IF_ERROR(set.Bind(1, row.snapshot.value()).Bind(2, int64_t{row.precopied}).Bind(3, row.id).Run());
  return true;
}

absl::Status OperationCancelled(std::string_view operation) {
  return Error(absl::StatusCode::kFailedPrecondition, "OPERATION_CANCELLED",
               fmt::format("operation {} was cancelled, or had expired: nothing is uploaded for it", operation), "order a new backup");
}

// Text of the condition under which a row of device_chunk (d) is a right for a session of database ?2. An operation that goes on where
// another one has failed has a session of its own: what that one has brought is not sent again.
constexpr char kMayRefer[] =
    "not exists (select 1 from upload_session s where s.id = d.session and (s.state = 3 or (s.state = 1 and s.database <> ?2)))";

// Texts of what a session of database ?2 pins, which asks for ?4, and of the generation of quarantines. The state is no parameter: compared
// with the condition of a partial index, that would have the statement prepared anew each time it is bound.
constexpr char kPinned[] =
    "coalesce((select id from snapshot where id = ?4 and database = ?2 and (state = 1 or trashed_by = 'pre-copy')), "
    "(select s.id from database d join snapshot s on s.database = d.id and s.sequence = d.sequence "
    "where d.id = ?2 and s.trashed_by = 'pre-copy' and s.trashed_at > 0), "
    "(select s.id from database d join snapshot s on s.key = d.newest where d.id = ?2 and s.state = 1), '')";
static_assert(v1::SNAPSHOT_STATE_COMMITTED == 1 && kPrecopiedBy == "pre-copy");
constexpr char kGeneration[] = "(select generation from quarantine_generation)";

}  // namespace

absl::StatusOr<UploadSessionRow> IngestCatalog::BeginSession(const DeviceId& device, const SessionId& session, const std::string& database,
                                                             uint64_t timeline, const SnapshotId& base, SystemTime expires_at,
                                                             std::string_view operation, BeginFacts* facts,
                                                             std::span<const format::ChunkName> offered) {
  UploadSessionRow result;
  // What a crash forgets of it has nothing yet: claims and chunks are durable later, and make this durable before them.
  const auto begin = [&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const int64_t owner, OwnerOf(db, device));
    LF_ASSIGN_OR_RETURN(Statement known, Statement::Prepare(db, "select id, timeline from database where device = ? and name = ?"));
    LF_ASSIGN_OR_RETURN(bool is_known, known.Bind(1, device.value()).Bind(2, database).Step());
    if (!is_known) {
      LF_ASSIGN_OR_RETURN(Statement insert, Statement::Prepare(db, "insert into database (device, name) values (?, ?)"));
      LF_RETURN_IF_ERROR(insert.Bind(1, device.value()).Bind(2, database).Run());
      known.Reset();
      LF_ASSIGN_OR_RETURN(is_known, known.Step());
    }
    if (!is_known) return Error(absl::StatusCode::kInternal, "CATALOG_DAMAGED", "a database's row is missing");
    const int64_t database_id = known.Int(0);
    if (timeline > static_cast<uint64_t>(known.Int(1))) {
      return Error(absl::StatusCode::kFailedPrecondition, "TIMELINE_UNKNOWN",
                   fmt::format("{} claims timeline {}, the highest that was ever given is {}", database, timeline, known.Int(1)),
                   "was the controller's catalog restored from an old copy? order a restore or enrol the device again");
    }
    known.Reset();
    LF_ASSIGN_OR_RETURN(const bool called_off, IsCalledOff(db, device, operation));
    LF_ASSIGN_OR_RETURN(Statement make,
                        Statement::Prepare(db, fmt::format("insert into upload_session (owner, database, state, expires_at, session, "
                                                           "operation, pinned, generation) values (?5, ?2, 1, ?1, ?6, ?7, {}, {}) "
                                                           "on conflict do nothing returning {}",
                                                           kPinned, kGeneration, kSessionColumns)));
    make.Bind(1, ToUnixMillis(expires_at)).Bind(2, database_id).Bind(4, base.value());
    make.Bind(5, owner).Bind(6, session.value()).Bind(7, operation);
    LF_ASSIGN_OR_RETURN(const bool made, make.Step());
    if (made) result = ToSession(make);
    make.Reset();
    if (made) {
      LF_ASSIGN_OR_RETURN(const bool before, FindCommitted(db, session, database_id, result));
      if (before) return absl::OkStatus();
    }
    // What was made goes with the error; a session that is there may have been committed before.
    if (made && called_off) return OperationCancelled(operation);
    if (made) return facts == nullptr ? absl::OkStatus() : FillFacts(db, device, result, operation, offered, *facts);
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
    if (!result.committed && called_off) return OperationCancelled(operation);
    if (!result.committed) {
      // A resumed session takes a new pin: what it had found under the old one is offered again.
      LF_ASSIGN_OR_RETURN(
          Statement extend,
          Statement::Prepare(db, fmt::format("update upload_session set expires_at = ?1, pinned = {}, generation = {} where id = ?3 "
                                             "returning pinned",
                                             kPinned, kGeneration)));
      extend.Bind(1, ToUnixMillis(expires_at)).Bind(2, database_id).Bind(3, result.id).Bind(4, base.value());
      LF_ASSIGN_OR_RETURN(const bool extended, extend.Step());
      if (extended) result.pinned = SnapshotId(std::string(extend.Text(0)));
      extend.Reset();
      if (facts != nullptr) LF_RETURN_IF_ERROR(FillFacts(db, device, result, operation, offered, *facts));
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
  int removed = 0;
  for (int batch = 0; batch < kBatchesACall; ++batch) {
    LF_ASSIGN_OR_RETURN(const int some, RemoveSomeEmpty(now));
    removed += some;
    if (some < kSessionsABatch) break;
  }
  const SteadyTime until = std::chrono::steady_clock::now() + kForClaims;
  for (std::vector<ExpiredSession> before;;) {
    LF_ASSIGN_OR_RETURN(const std::vector<ExpiredSession> some, ExpiredWithClaims(now));
    for (const auto& [session, committed] : some) {
      if (committed) {
        LF_RETURN_IF_ERROR(DropClaims(session));
        continue;
      }
      LF_ASSIGN_OR_RETURN(const bool gone, RemoveSession(session, now));
      removed += gone ? 1 : 0;
    }
    // Where a mark has begun meanwhile nothing moves.
    if (some.size() < kWithClaims || some == before || std::chrono::steady_clock::now() >= until) break;
    before = some;
  }
  for (int batch = 0; batch < kBatchesACall; ++batch) {
    LF_ASSIGN_OR_RETURN(const ForgottenSessions some, ForgetSomeCommitted(now));
    removed += some.removed;
    if (some.looked_at < kSessionsABatch) break;
  }
  return removed;
}

absl::StatusOr<std::vector<IngestCatalog::ExpiredSession>> IngestCatalog::ExpiredWithClaims(SystemTime now) const {
  std::vector<ExpiredSession> found;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db,
                                                          "select id, state = 2 from upload_session where expires_at < ?1 and "
                                                          "(state <> 2 or (select marking from prune_state) = 0) and exists "
                                                          "(select 1 from claim where session = upload_session.id) limit ?2"));
    get.Bind(1, ToUnixMillis(now)).Bind(2, static_cast<int64_t>(kWithClaims));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      found.emplace_back(get.Int(0), get.Int(1) != 0);
    }
  }));
  return found;
}

absl::StatusOr<int> IngestCatalog::RemoveSomeEmpty(SystemTime now) {
  constexpr std::string_view kSome =
      "select s.id from upload_session s where s.expires_at < ?1 and s.state <> 2 and not exists "
      "(select 1 from claim c where c.session = s.id) order by s.expires_at limit ?2";
  bool any = false;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement some, Statement::Prepare(db, kSome));
    LF_ASSIGN_OR_RETURN(any, some.Bind(1, ToUnixMillis(now)).Bind(2, int64_t{1}).Step());
    return absl::OkStatus();
  }));
  if (!any) return 0;
  int removed = 0;
  LF_RETURN_IF_ERROR(db_.Write(
      [&](sqlite::Connection db) -> absl::Status {
        LF_ASSIGN_OR_RETURN(Statement remove, Statement::Prepare(db, fmt::format("delete from upload_session where id in ({})", kSome)));
        LF_RETURN_IF_ERROR(remove.Bind(1, ToUnixMillis(now)).Bind(2, int64_t{kSessionsABatch}).Run());
        removed = sqlite3_changes(db);
        return absl::OkStatus();
      },
      Durability::kRelaxed));
  return removed;
}

absl::StatusOr<IngestCatalog::ForgottenSessions> IngestCatalog::ForgetSomeCommitted(SystemTime now) {
  // A session that continuous capture asks about again is that of the newest snapshot: until another comes it is remembered.
  constexpr std::string_view kSome =
      "select s.id, exists (select 1 from database d join snapshot n on n.key = d.newest where d.id = s.database and n.id = s.snapshot "
      "and n.method = ?2) from upload_session s where s.expires_at < ?1 and s.state = 2 and (select marking from prune_state) = 0 "
      "and not exists (select 1 from claim c where c.session = s.id) order by s.expires_at limit ?3";
  const auto bind = [&](Statement& some, int limit) -> Statement& {
    return some.Bind(1, ToUnixMillis(now)).Bind(2, int64_t{v1::METHOD_CONTINUOUS}).Bind(3, int64_t{limit});
  };
  ForgottenSessions result;
  bool any = false;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement some, Statement::Prepare(db, kSome));
    LF_ASSIGN_OR_RETURN(any, bind(some, 1).Step());
    return absl::OkStatus();
  }));
  if (!any) return result;
  LF_RETURN_IF_ERROR(db_.Write(
      [&](sqlite::Connection db) -> absl::Status {
        result = {};
        std::vector<std::pair<int64_t, bool>> sessions;
        LF_ASSIGN_OR_RETURN(Statement some, Statement::Prepare(db, kSome));
        bind(some, kSessionsABatch);
        for (;;) {
          LF_ASSIGN_OR_RETURN(const bool row, some.Step());
          if (!row) break;
          sessions.emplace_back(some.Int(0), some.Int(1) != 0);
        }
        some.Reset();
        LF_ASSIGN_OR_RETURN(Statement forget, Statement::Prepare(db, "delete from upload_session where id = ?"));
        LF_ASSIGN_OR_RETURN(Statement keep, Statement::Prepare(db, "update upload_session set expires_at = ? where id = ?"));
        const int64_t later = ToUnixMillis(now + kKeepCommittedSync);
        for (const auto& [id, newest] : sessions)
          LF_RETURN_IF_ERROR(newest ? keep.Bind(1, later).Bind(2, id).Run() : forget.Bind(1, id).Run());
        result.looked_at = static_cast<int>(sessions.size());
        result.removed = static_cast<int>(std::count_if(sessions.begin(), sessions.end(), [](const auto& each) { return !each.second; }));
        return absl::OkStatus();
      },
      Durability::kRelaxed));
  return result;
}

absl::StatusOr<bool> IngestCatalog::RemoveSession(int64_t session, SystemTime now, bool empty_too) {
  const std::string_view kOne = empty_too ? "select 1 from upload_session where id = ?2 and state <> 2 and (expires_at < ?1 or not exists "
                                            "(select 1 from claim where session = ?2))"
                                          : "select 1 from upload_session where id = ?2 and state <> 2 and expires_at < ?1";
  bool any = false;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, kOne));
    LF_ASSIGN_OR_RETURN(any, get.Bind(1, ToUnixMillis(now)).Bind(2, session).Step());
    return absl::OkStatus();
  }));
  if (!any) return false;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, kOne));
    LF_ASSIGN_OR_RETURN(any, get.Bind(1, ToUnixMillis(now)).Bind(2, session).Step());
    if (!any) return absl::OkStatus();
    get.Reset();
    LF_ASSIGN_OR_RETURN(Statement mark, Statement::Prepare(db, "update upload_session set state = 3 where id = ? and state = 1"));
    return mark.Bind(1, session).Run();
  }));
  if (!any) return false;
  // Rights that came with an upload that was never committed go with it.
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
  return true;
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

absl::StatusOr<storage::v1::SnapshotRecord> SnapshotRecordOf(sqlite::Connection db, const SnapshotId& snapshot) {
  LF_ASSIGN_OR_RETURN(Statement get,
                      Statement::Prepare(db, R"sql(select s.id, s.device, d.name, s.timeline, s.sequence, s.method, s.page_size,
    s.page_count, s.root, s.root_version, s.manifest_kind, s.manifest_parts, s.parent, s.taken_at, s.received_at, s.effective_at,
    s.journal_mode, s.source_check, s.source_check_message, s.pages_sent, s.wire_bytes, s.stored_bytes, s.duration_ms, s.pinned_ms,
    s.read_bytes, s.operation, s.session, max(s.pages_changed, 0), s.layers, s.trashed_by = ?2, s.content, s.content_bytes, s.provenance,
    s.commits, s.part, s.compatible from snapshot s join database d on d.id = s.database where s.id = ?1)sql"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, snapshot.value()).Bind(2, kPrecopiedBy).Step());
  if (!found) return Error(absl::StatusCode::kNotFound, "SNAPSHOT_NOT_FOUND", fmt::format("there is no snapshot {}", snapshot.value()));
  storage::v1::SnapshotRecord record;
  int column = 0;
  const auto text = [&] { return std::string(get.Text(column++)); };
  const auto number = [&] { return get.Int(column++); };
  const auto small = [&] { return static_cast<uint32_t>(get.Int(column++)); };
  record.set_snapshot_id(text());
  record.set_device_id(text());
  record.set_database(text());
  record.set_timeline(static_cast<uint64_t>(number()));
  record.set_sequence(static_cast<uint64_t>(number()));
  record.set_method(static_cast<int32_t>(number()));
  record.set_page_size(small());
  record.set_page_count(small());
  record.set_root_digest(std::string(AsText(get.Blob(column++))));
  record.set_root_version(small());
  record.set_manifest_kind(small());
  record.set_manifest_parts(small());
  record.set_parent_id(text());
  record.set_taken_at_ms(number());
  record.set_received_at_ms(number());
  record.set_effective_at_ms(number());
  record.set_journal_mode(static_cast<int32_t>(number()));
  record.set_source_check(static_cast<int32_t>(number()));
  record.set_source_check_message(text());
  record.set_pages_sent(small());
  record.set_wire_bytes(number());
  record.set_stored_bytes(number());
  record.set_duration_ms(number());
  record.set_pinned_ms(number());
  record.set_read_bytes(number());
  record.set_operation_id(text());
  record.set_session_id(text());
  record.set_pages_changed(small());
  std::vector<ManifestLayer> layers;
  if (!ParseLayers(get.Text(column++), layers))
    return Error(absl::StatusCode::kInternal, "CATALOG_DAMAGED", fmt::format("the layers of snapshot {} make no sense", snapshot.value()));
  for (const ManifestLayer& layer : layers) {
    storage::v1::ManifestLayer& out = *record.add_layers();
    out.set_id(layer.id);
    out.set_parts(layer.parts);
    out.set_bytes(layer.bytes);
  }
  record.set_precopied(number() != 0);
  record.set_content(static_cast<int32_t>(number()));
  record.set_content_bytes(number());
  record.set_provenance(text());
  record.set_commits(small());
  record.set_part(text());
  record.set_compatible(number() != 0);
  return record;
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
