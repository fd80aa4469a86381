// What has been added to the catalog since the last look: operations that ended, snapshots that were committed.
//
// For counters that live as long as the process: they begin at nothing when it starts, whatever the catalog holds, and rows that are
// removed later do not take anything back. Not for showing what is there: OperationCatalog and SnapshotCatalog do that.
// Thread safety: none; one thread at a time.
#ifndef LITEFLEET_CONTROLLER_CATALOG_METRICS_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_METRICS_CATALOG_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "controller/catalog/catalog_db.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::catalog {

// Sums over the snapshots of one method.
struct SnapshotSums {
  v1::Method method = v1::METHOD_UNSPECIFIED;
  int64_t snapshots = 0;
  int64_t read_bytes = 0;    // by the device, of the database
  int64_t wire_bytes = 0;    // sent by the device
  int64_t stored_bytes = 0;  // what the store grew by
  int64_t duration_ms = 0;
};

class MetricsCatalog {
 public:
  explicit MetricsCatalog(CatalogDb& db) : db_(db) {}

  // From now on; what is active now counts when it ends. Call it once, before the others.
  absl::Status Begin();
  // Each operation once, in no particular order.
  absl::StatusOr<std::vector<v1::Operation>> NewlyEnded();
  absl::StatusOr<std::vector<SnapshotSums>> NewSnapshots();

 private:
  CatalogDb& db_;
  int64_t operation_ = 0;     // the newest that was seen
  std::set<int64_t> active_;  // of those seen, not yet ended
  int64_t snapshot_ = 0;      // the newest that was counted
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_METRICS_CATALOG_H_
