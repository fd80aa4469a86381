// What ingest and the snapshot reader ask of the catalog: upload sessions, claims, chunks, manifests, commits.
//
// Thread safety: all members may be called from any thread. Durability: what a changing call did is durable when it returns, but for
// BeginSession and DropClaims, which are with the next call that is; the caller has made durable in the store whatever the call names
// (design law 1). Cost: each call touches only the rows that it names.
#ifndef LITEFLEET_CONTROLLER_CATALOG_INGEST_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_INGEST_CATALOG_H_

#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/format/chunk_codec.h"
#include "common/format/digest.h"
#include "controller/catalog/catalog_db.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::catalog {

// A place in the store; the catalog keeps it and does not interpret it.
struct PackPlace {
  uint64_t pack = 0;
  uint64_t offset = 0;
  friend auto operator<=>(const PackPlace&, const PackPlace&) = default;
};

// Who put a snapshot into the trash that was never a backup, but uploaded ahead of one.
inline constexpr std::string_view kPrecopiedBy = "pre-copy";

struct UploadSessionRow {
  int64_t id = 0;
  int64_t owner = 0;
  int64_t database = 0;
  bool committed = false;
  bool precopied = false;  // what it was committed as
  SnapshotId snapshot;     // where committed
  SnapshotId pinned;       // may not be deleted while the session is open; empty: none
  uint64_t durable_chunks = 0;
  int64_t durable_bytes = 0;
  int64_t stored_bytes = 0;  // what the store grew by
};

enum class Presence {
  kMissing,  // not in the store
  kForeign,  // in the store, but this device has to show that it has it
  kClaimed,  // this device may refer to it, and the claim is durable
};

struct ArrivedChunk {
  format::ChunkName name;
  uint32_t page_size = 0;
  uint32_t page_count = 0;
  format::Codec codec = format::Codec::kRaw;
  uint32_t stored_bytes = 0;
  std::optional<PackPlace> place;  // none: it was in the store already
};

struct ManifestPlace {
  uint32_t first_page = 0;
  PackPlace place;
};

// What a commit needs to know before its record is written.
struct CommitFacts {
  uint64_t next_sequence = 1;
  std::optional<SystemTime> previous_effective_at;  // of the newest snapshot of this database
  // What rounds of pre-copying have brought for the same operation.
  int64_t ahead_wire_bytes = 0;
  int64_t ahead_stored_bytes = 0;
  // Not empty: another stream of the session has committed it, and nothing else is set but what as.
  SnapshotId committed;
  bool precopied = false;
};

struct CommitDone {
  SnapshotId snapshot;
  bool claims_left = false;  // DropClaims is to be called
};

struct ChunkRow {
  format::ChunkName name;
  uint32_t page_size = 0;
  uint32_t page_count = 0;
  bool good = false;
  PackPlace place;
};

// Of a manifest: common/format/FORMAT.md, "Manifests".
struct ManifestLayer {
  std::string id;
  uint32_t parts = 0;
  int64_t bytes = 0;        // of its parts
  uint32_t first_part = 0;  // of the snapshot's parts
};

struct SnapshotLayout {
  int64_t key = 0;
  SnapshotId id;
  uint32_t page_size = 0;
  uint32_t page_count = 0;
  format::RootDigest root;
  uint32_t root_version = 0;
  uint32_t manifest_kind = 0;
  bool in_trash = false;
  std::vector<ManifestLayer> layers;  // the lowest first
};

// When a device was heard, and its clock (IdentityCatalog::LastContact).
struct ContactRow {
  int64_t clock_offset_ms = 0;
  std::optional<SystemTime> heard_before;
};

// What an upload compares with and commits on, as of its begin: read where its session is made, it costs nothing more.
struct BeginFacts {
  std::optional<SnapshotLayout> pinned;  // of UploadSessionRow.pinned
  std::vector<ManifestPlace> parts;      // of its manifest, all of them; none where they are many
  CommitFacts commit;                    // as GetCommitFacts; true until another commit of the database
  // Of an upload that comes as a whole, so that this and its commit are one moment.
  bool all_missing = false;           // the store has none of its chunks in any state
  std::optional<ContactRow> contact;  // of its device, if that is known
};

// What a commit writes as the manifest of its snapshot: layers that exist, the lowest first, and on top of them one of its own, if any.
struct NewManifest {
  SnapshotId base;                    // whose layers are kept; may be empty
  std::vector<ManifestLayer> layers;  // kept, then the own one
  uint32_t kept_parts = 0;            // the first parts of `base`, as many as the kept layers have
  std::vector<ManifestPlace> own;
};

class IngestCatalog {
 public:
  explicit IngestCatalog(CatalogDb& db) : db_(db) {}

  // Makes or finds the session (one that was committed also by its snapshot), moves its expiry, pins `base` if it is a snapshot of the
  // database or was uploaded ahead of one, else what came last of these. Errors: kPermissionDenied SESSION_NOT_YOURS (another device's, or
  // for another database), kFailedPrecondition TIMELINE_UNKNOWN (above what was ever reserved), OPERATION_CANCELLED (the order was
  // cancelled, and the session not committed before), kAborted SESSION_EXPIRED (being removed). `facts`, if any, is filled where the
  // session is open; `operation` is GetCommitFacts', and with its cancel the session has expired. `offered`: the chunks of an upload that
  // comes as a whole.
  absl::StatusOr<UploadSessionRow> BeginSession(const DeviceId& device, const SessionId& session, const std::string& database,
                                                uint64_t timeline, const SnapshotId& base, SystemTime expires_at,
                                                std::string_view operation = {}, BeginFacts* facts = nullptr,
                                                std::span<const format::ChunkName> offered = {});

  // For each name in turn; claims what may be claimed, in one transaction. `pinned[i]`: the pinned snapshot holds it, which is claim
  // enough and saves the transaction.
  absl::StatusOr<std::vector<Presence>> ClaimOffered(const UploadSessionRow& session, std::span<const format::ChunkName> names,
                                                     const std::vector<bool>& pinned);

  // Chunks that were verified and are durable in the store: rows, claims and the device's right, in one transaction. Returns the session's
  // totals. Errors: kAborted CHUNK_VANISHED when one without a place is gone; SESSION_EXPIRED.
  absl::StatusOr<UploadSessionRow> RecordChunks(const UploadSessionRow& session, std::span<const ArrivedChunk> chunks);

  // Errors: kAborted SESSION_EXPIRED, also where its operation was cancelled.
  absl::StatusOr<CommitFacts> GetCommitFacts(const UploadSessionRow& session, std::string_view operation) const;

  // The snapshot exists when this returns, and chunks that were not recorded before are: `arrived` as RecordChunks does it, `own` those
  // that the controller made out of what it had, which count as stored and not as uploaded. Where the session had been committed before,
  // its snapshot is returned and nothing is changed. A cancel of the operation that came before is SESSION_EXPIRED; one that comes
  // afterwards finds the operation done. Errors: those of RecordChunks; kAborted COMMIT_CONFLICT (the sequence has been taken).
  // After an error nothing was recorded.
  absl::StatusOr<CommitDone> Commit(const UploadSessionRow& session, const storage::v1::SnapshotRecord& record, PackPlace place,
                                    const NewManifest& manifest, std::span<const ArrivedChunk> arrived = {},
                                    std::span<const ArrivedChunk> own = {});

  // Claims of a committed session that are no longer needed, in short transactions.
  absl::Status DropClaims(int64_t session);
  // Sessions past their expiry, with their claims and rights, in short transactions: 50,000 that were committed, as many that hold nothing,
  // and for 5 s others; what is left goes with the next call. Returns how many.
  absl::StatusOr<int> RemoveExpiredSessions(SystemTime now);
  // As that, this one alone, where it was not committed; true where it has gone. `empty_too`: also before its expiry where it has no
  // claims: there is nothing that could be continued.
  absl::StatusOr<bool> RemoveSession(int64_t session, SystemTime now, bool empty_too = false);

  // ---- reading snapshots
  absl::StatusOr<SnapshotLayout> GetLayout(const SnapshotId& snapshot) const;  // kNotFound SNAPSHOT_NOT_FOUND
  // Ascending parts from `first` on, at most `limit`.
  absl::StatusOr<std::vector<ManifestPlace>> ManifestParts(int64_t snapshot_key, uint32_t first, uint32_t limit) const;
  // For each name in turn; nothing where there is no row.
  absl::StatusOr<std::vector<std::optional<ChunkRow>>> FindChunks(std::span<const format::ChunkName> names) const;

  // The largest pack that anything refers to; 0 without any.
  absl::StatusOr<uint64_t> LargestPack() const;

 private:
  struct ForgottenSessions {
    int looked_at = 0;
    int removed = 0;
  };
  using ExpiredSession = std::pair<int64_t, bool>;  // id, and whether it was committed
  absl::StatusOr<std::vector<ExpiredSession>> ExpiredWithClaims(SystemTime now) const;
  // Not committed and without claims, in one transaction; how many.
  absl::StatusOr<int> RemoveSomeEmpty(SystemTime now);
  // Committed ones without claims, in one transaction. Their rights stay.
  absl::StatusOr<ForgottenSessions> ForgetSomeCommitted(SystemTime now);

  CatalogDb& db_;
};

// For the slices of the catalog: the row of a snapshot as its record says, committed and unchecked; its key.
absl::StatusOr<int64_t> InsertSnapshotRow(sqlite::Connection db, const storage::v1::SnapshotRecord& record, int64_t database,
                                          PackPlace place);
// The other way round: the record as it is to be written. kNotFound SNAPSHOT_NOT_FOUND.
absl::StatusOr<storage::v1::SnapshotRecord> SnapshotRecordOf(sqlite::Connection db, const SnapshotId& snapshot);

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_INGEST_CATALOG_H_
