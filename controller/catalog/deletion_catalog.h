// Snapshots into the trash, out of it again, and away; pins; forgetting devices.
//
// Every change of a snapshot makes a mark due (FORMAT.md, "Deletion"), in the same transaction, by a trigger. Whoever answers an operator
// first has the marks written (prune/mark_writer). Thread safety: all members may be called from any thread. Durability: what a changing
// call did is durable when it returns. Cost: transactions touch at most kAtOnce snapshots.
#ifndef LITEFLEET_CONTROLLER_CATALOG_DELETION_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_DELETION_CATALOG_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "controller/catalog/catalog_db.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::catalog {

extern const std::string_view kDeletionSchema;
extern const std::string_view kPinLimitSchema;

// Key for a new row, for the slices of the catalog: above every one that was ever given.
absl::StatusOr<int64_t> NextSnapshotKey(sqlite::Connection db);
absl::StatusOr<int64_t> NextChunkId(sqlite::Connection db);
// The newest and the newest proven snapshot of a database after `added` (or, below 0, so many fewer) came out of the trash.
absl::Status RefreshDatabase(sqlite3* db, int64_t database, int added);

// When a pin ends.
struct PinLimit {
  std::optional<SystemTime> until;  // from this time on it holds no more; none: until it is unpinned
  bool at_least = false;            // one that ends later stays as it is
};

// What a plan of retention saw of a database; where it is not so any more, the plan is void.
struct SeenDatabase {
  int64_t database = 0;
  int64_t sequence = 0;
  int64_t snapshots = 0;
};

class DeletionCatalog {
 public:
  static constexpr int kAtOnce = 500;

  explicit DeletionCatalog(CatalogDb& db) : db_(db) {}

  // ---- operators
  // Errors: kNotFound SNAPSHOT_NOT_FOUND, kFailedPrecondition SNAPSHOT_PINNED, SNAPSHOT_IN_USE (an order that has not ended), and unless
  // `force` LAST_CHECKED (of its database no other snapshot was checked as well or is as new). One that is in the trash stays as it is.
  absl::Status Trash(const SnapshotId& snapshot, bool force, const std::string& by, SystemTime now);
  // Back as it was. Errors: kNotFound SNAPSHOT_NOT_FOUND (also one that was removed), kFailedPrecondition NOT_IN_TRASH.
  absl::Status Restore(const SnapshotId& snapshot);
  // `limit` is of a pin. Errors: kNotFound SNAPSHOT_NOT_FOUND, kFailedPrecondition SNAPSHOT_IN_TRASH.
  absl::Status SetPinned(const SnapshotId& snapshot, bool pinned, const PinLimit& limit = {});

  // ---- retention
  // All of them or none; what became pinned, ordered, the newest or the newest proven is left out. Returns how many went to the trash, and
  // moves `seen` on. Errors: kAborted PLAN_VOID. REQUIRES: at most kAtOnce, all of that database.
  absl::StatusOr<int> TrashPlanned(SeenDatabase& seen, std::span<const SnapshotId> snapshots, const std::string& by, SystemTime now);

  // ---- forgetting a device: Begin, then TrashSome until 0, the marks, Remove as below with before = the epoch, DropSome until 0, the
  // device Its upload sessions are marked as removed, its databases as forgotten. Errors: kFailedPrecondition DEVICE_ACTIVE,
  // SNAPSHOT_IN_USE (another device is being given one of its snapshots).
  absl::Status BeginForget(const DeviceId& device);
  // The next snapshots of the device to the trash, without grace and whether pinned or not; returns how many.
  absl::StatusOr<int> TrashSome(const DeviceId& device, const std::string& by);
  // Its claims, sessions and rights. Returns how many rows went; 0: done.
  absl::StatusOr<int> DropSome(const DeviceId& device);
  // Databases that are forgotten and have no snapshot any more, not even in the trash; with them goes what is known of marks that count. So
  // not before the device is gone and its record, which says so from then on, is in the packs.
  absl::Status DropForgottenDatabases();

  // ---- marks, oldest first
  struct DueMark {
    uint64_t revision = 0;
    storage::v1::SnapshotMark mark;
  };
  absl::StatusOr<std::vector<DueMark>> DueMarks(int limit) const;
  absl::Status MarksWritten(std::span<const DueMark> marks);

  // ---- removal: rows of snapshots that are in the trash since `before` or were put there without grace
  struct Removed {
    int snapshots = 0;
    int kept = 0;          // held by a session, an order, a reader, or because the mark is not written
    int64_t last_key = 0;  // to go on after
    bool more = false;
  };
  // Ascending keys from `after_key` on. `newest_pack`: of the store, so that their marks outlive every copy of their records. `held` is
  // called inside the transaction: somebody reads this snapshot.
  absl::StatusOr<Removed> RemoveSome(SystemTime before, int64_t after_key, uint64_t newest_pack,
                                     absl::FunctionRef<bool(const SnapshotId&)> held);
  // In the trash since `before`, held or not.
  absl::StatusOr<int64_t> CountRemovable(SystemTime before) const;

 private:
  CatalogDb& db_;
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_DELETION_CATALOG_H_
