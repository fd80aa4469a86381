// Databases, snapshots, chunks, packs and upload sessions in the catalog.
//
// Thread safety: all members may be called from any thread. Durability: what a changing call did is durable when it returns.
// References to snapshots are ids or unique prefixes: kNotFound SNAPSHOT_NOT_FOUND, kFailedPrecondition AMBIGUOUS.
#ifndef LITEFLEET_CONTROLLER_CATALOG_SNAPSHOT_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_SNAPSHOT_CATALOG_H_

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/format/chunk_codec.h"
#include "common/format/digest.h"
#include "controller/catalog/catalog_db.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/record_catalog.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::catalog {

extern const std::string_view kSnapshotSchema1;
extern const std::string_view kSnapshotSchema2;
extern const std::string_view kSnapshotSchema3;
extern const std::string_view kSnapshotSchema4;
extern const std::string_view kDrillSchema;

// ---- what operators see (rpc/, cli)
class SnapshotCatalog {
 public:
  explicit SnapshotCatalog(CatalogDb& db) : db_(db) {}

  // Before the first change; null for none. With one, a timeline is in the packs as well when it is handed out.
  void SetRecords(RecordWriter* records) { records_ = records; }

  absl::StatusOr<v1::Snapshot> Resolve(const std::string& reference) const;
  // `device` and `database` may be empty. Newest first.
  absl::StatusOr<Page<v1::Snapshot>> List(const DeviceId& device, const std::string& database, int page_size,
                                          const std::string& page_token) const;
  // In the order of their commits; removed_after is left out, and so are those of forgotten devices.
  absl::StatusOr<Page<v1::TrashItem>> ListTrash(int page_size, const std::string& page_token) const;
  // Newest committed; kNotFound NO_SNAPSHOT.
  absl::StatusOr<v1::Snapshot> Newest(const DeviceId& device, const std::string& database) const;
  // What the database held at `at`: the newest with taken_at <= at on the timeline that was live then (or on `timeline`), or until its
  // first one the snapshot that was restored, which may be of another database. kNotFound NO_SNAPSHOT_THEN, kFailedPrecondition
  // TIME_AMBIGUOUS (timelines.h).
  absl::StatusOr<v1::Snapshot> At(const DeviceId& device, const std::string& database, SystemTime at,
                                  std::optional<uint64_t> timeline) const;
  // The oldest state that was taken after `at`, on any timeline; nothing where there is none (yet).
  absl::StatusOr<std::optional<v1::Snapshot>> After(const DeviceId& device, const std::string& database, SystemTime at) const;

  // Databases: `health` and names of devices are filled from what was reported. By device name, then name.
  absl::StatusOr<Page<v1::Database>> ListDatabases(const DeviceId& device, std::optional<SystemTime> stale_before, int page_size,
                                                   const std::string& page_token) const;
  absl::StatusOr<v1::Database> GetDatabase(const DeviceId& device, const std::string& database) const;  // kNotFound DATABASE_NOT_FOUND
  // Makes the databases that a device reported known.
  absl::Status ReportDatabases(const DeviceId& device, SystemTime now, std::span<const v1::DatabaseHealth> databases);
  // The highest timeline of a database, and 1 for a database without any.
  absl::StatusOr<uint64_t> HighestTimeline(const DeviceId& device, const std::string& database) const;
  // Durable: the next timeline of a database belongs to this restore from now on. The same operation gets the same one.
  absl::StatusOr<uint64_t> ReserveTimeline(const DeviceId& device, const std::string& database, const OperationId& operation);

  absl::Status SetCheck(const SnapshotId& snapshot, v1::CheckState state, std::string_view message, SystemTime at);
  // The check of `snapshot` waits, in place of that of `superseded` (may be empty). A verdict that either has stays. Posted: what a crash
  // forgets, the next start finds anew.
  void QueueCheck(const SnapshotId& snapshot, const SnapshotId& superseded);

  // It was restored and checked; the verdict is recorded by SetCheck.
  absl::Status SetDrilled(const SnapshotId& snapshot, SystemTime at, std::chrono::milliseconds restore);
  // Snapshots to be drilled, at most `limit`: first the newest of each database whose arrival, check and drill were before `newest_before`,
  // the longest unproven first; where there are none, others of which the same holds for `older_before`. Not those that wait for a check.
  absl::StatusOr<std::vector<v1::Snapshot>> DrillsDue(SystemTime newest_before, SystemTime older_before, int limit) const;

  struct Totals {
    int64_t databases = 0, databases_without_snapshot = 0, snapshots = 0, store_bytes = 0, logical_bytes = 0, databases_unproven = 0;
    std::optional<SystemTime> oldest_newest_at, oldest_proven_at;
    std::string oldest_newest_database, oldest_proven_database;  // "DEVICE/DATABASE"
  };
  absl::StatusOr<Totals> GetTotals() const;

 private:
  CatalogDb& db_;
  RecordWriter* records_ = nullptr;
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_SNAPSHOT_CATALOG_H_
