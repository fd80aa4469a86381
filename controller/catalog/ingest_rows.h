// What the files of IngestCatalog share: rows of upload sessions, and what several of their transactions do.
#ifndef LITEFLEET_CONTROLLER_CATALOG_INGEST_ROWS_H_
#define LITEFLEET_CONTROLLER_CATALOG_INGEST_ROWS_H_

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/ingest_catalog.h"

namespace litefleet::catalog {

inline constexpr int kRowsATransaction = 2000;  // of housekeeping, so that nobody waits long

// What one call of RemoveExpiredSessions takes at most, of committed ones and of those that hold nothing: in a minute more than comes, with
// a sync a second of hundreds of databases. Those with claims to take along go one by one, for as long as this.
inline constexpr int kSessionsABatch = 500;
inline constexpr int kBatchesACall = 100;
inline constexpr size_t kWithClaims = 100;  // are looked for at once
inline constexpr std::chrono::seconds kForClaims{5};

// A committed session is remembered this long, so that a repeated commit is answered with its snapshot. Of continuous capture there may be
// one each second, and none is asked about again once the next one has come: the newest is remembered for longer.
inline constexpr auto kKeepCommitted = std::chrono::hours(24 * 30);
inline constexpr auto kKeepCommittedSync = std::chrono::hours(24);

enum : int64_t { kSessionOpen = 1, kSessionCommitted = 2, kSessionRemoved = 3 };

inline constexpr char kSessionColumns[] = "id, owner, database, state, snapshot, chunks, bytes, stored_bytes, pinned, precopied";

// Of an open session whose operation was cancelled (operation_catalog): nothing of it is committed any more.
inline constexpr int64_t kCancelledExpiry = 0;

inline absl::Status SessionExpired() {
  return Error(absl::StatusCode::kAborted, "SESSION_EXPIRED", "the upload session has expired", "begin a new one");
}

inline UploadSessionRow ToSession(const sqlite::Statement& row) {
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

// What IngestCatalog's calls of these names give, within a transaction.
absl::StatusOr<SnapshotLayout> LayoutOf(sqlite::Connection db, const SnapshotId& snapshot);
absl::StatusOr<std::vector<ManifestPlace>> PartsOf(sqlite::Connection db, int64_t snapshot_key, uint32_t first, uint32_t limit);
absl::StatusOr<CommitFacts> CommitFactsOf(sqlite::Connection db, int64_t database, std::string_view operation);

inline absl::Status CheckOpen(sqlite::Connection db, int64_t session) {
  LF_ASSIGN_OR_RETURN(sqlite::Statement get, sqlite::Statement::Prepare(db, "select state from upload_session where id = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, session).Step());
  if (!found || get.Int(0) == kSessionRemoved) return SessionExpired();
  return absl::OkStatus();
}

// A dedup hit: what waited in the trash is good again, in the transaction that makes the claim.
inline absl::Status TakeOutOfTrash(sqlite::Connection db, int64_t chunk) {
  for (const std::string_view sql : {"update chunk set state = 1 where id = ? and state = 2", "delete from chunk_trash where chunk = ?"}) {
    LF_ASSIGN_OR_RETURN(sqlite::Statement take, sqlite::Statement::Prepare(db, sql));
    LF_RETURN_IF_ERROR(take.Bind(1, chunk).Run());
  }
  return absl::OkStatus();
}

// At most kRowsATransaction of them, and none while a mark runs; how many.
inline absl::StatusOr<int> DropSomeClaims(sqlite::Connection db, int64_t session) {
  LF_ASSIGN_OR_RETURN(sqlite::Statement drop, sqlite::Statement::Prepare(db,
                                                                         "delete from claim where session = ?1 and chunk in "
                                                                         "(select chunk from claim where session = ?1 limit ?2) "
                                                                         "and (select marking from prune_state) = 0"));
  LF_RETURN_IF_ERROR(drop.Bind(1, session).Bind(2, int64_t{kRowsATransaction}).Run());
  return sqlite3_changes(db);
}

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_INGEST_ROWS_H_
