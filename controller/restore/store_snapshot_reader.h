// The snapshot reader over catalog and store.
//
// Thread safety: the factory may be used from any thread; a reader as its interface says. Ownership: catalog and store outlive both.
// A snapshot that a newer controller has written is refused (kUnimplemented MANIFEST_UNKNOWN).
#ifndef LITEFLEET_CONTROLLER_RESTORE_STORE_SNAPSHOT_READER_H_
#define LITEFLEET_CONTROLLER_RESTORE_STORE_SNAPSHOT_READER_H_

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/base/mutex.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/restore/snapshot_reader.h"
#include "controller/store/store.h"

namespace litefleet::restore {

// Snapshots that somebody reads now; what deletes looks here.
class SnapshotPins {
 public:
  void Add(const SnapshotId& snapshot);
  void Remove(const SnapshotId& snapshot);
  bool IsPinned(const SnapshotId& snapshot) const;

 private:
  mutable Mutex mu_;
  std::map<SnapshotId, int> pins_ ABSL_GUARDED_BY(mu_);
};

class StoreSnapshotReaderFactory final : public SnapshotReaderFactory {
 public:
  StoreSnapshotReaderFactory(const catalog::IngestCatalog& catalog, store::Store& store)
      : catalog_(catalog), store_(store), pins_(std::make_shared<SnapshotPins>()) {}

  // Errors also: kFailedPrecondition SNAPSHOT_IN_TRASH, kInvalidArgument RUNS_INVALID where `wanted` is not ascending, overlaps, or goes
  // beyond the database.
  absl::StatusOr<std::unique_ptr<SnapshotReader>> Open(const SnapshotId& snapshot, std::span<const WantedRun> wanted) override;
  const SnapshotPins& pins() const { return *pins_; }

 private:
  const catalog::IngestCatalog& catalog_;
  store::Store& store_;
  const std::shared_ptr<SnapshotPins> pins_;  // readers may outlive the factory
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_CONTROLLER_RESTORE_STORE_SNAPSHOT_READER_H_
