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
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/base/mutex.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/manifest/manifest_reader.h"
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

// Holds a snapshot against removal as long as it lives.
class SnapshotPin {
 public:
  SnapshotPin(std::shared_ptr<SnapshotPins> pins, SnapshotId snapshot) : pins_(std::move(pins)), snapshot_(std::move(snapshot)) {
    pins_->Add(snapshot_);
  }
  ~SnapshotPin() {
    if (pins_ != nullptr) pins_->Remove(snapshot_);
  }
  SnapshotPin(SnapshotPin&&) noexcept = default;
  SnapshotPin& operator=(SnapshotPin&&) = delete;

 private:
  std::shared_ptr<SnapshotPins> pins_;
  SnapshotId snapshot_;
};

// What a reader of any kind needs of its snapshot.
struct ReaderSource {
  const catalog::IngestCatalog& catalog;
  store::Store& store;
  manifest::ManifestReader manifest;
  SnapshotPin pin;
};

// difference_reader.cc
std::unique_ptr<SnapshotReader> MakeDifferenceReader(ReaderSource source, std::span<const WantedRun> wanted, std::string have);
std::unique_ptr<NameReader> MakeNameReader(ReaderSource source);

class StoreSnapshotReaderFactory final : public SnapshotReaderFactory {
 public:
  StoreSnapshotReaderFactory(const catalog::IngestCatalog& catalog, store::Store& store)
      : catalog_(catalog), store_(store), pins_(std::make_shared<SnapshotPins>()) {}

  // Errors also: kFailedPrecondition SNAPSHOT_IN_TRASH, kInvalidArgument RUNS_INVALID where `wanted` is not ascending, overlaps, or goes
  // beyond the database.
  absl::StatusOr<std::unique_ptr<SnapshotReader>> Open(const SnapshotId& snapshot, std::span<const WantedRun> wanted) override;
  absl::StatusOr<std::unique_ptr<SnapshotReader>> OpenDifferent(const SnapshotId& snapshot, std::span<const WantedRun> wanted,
                                                                std::string have) override;
  absl::StatusOr<std::unique_ptr<NameReader>> OpenNames(const SnapshotId& snapshot) override;
  const SnapshotPins& pins() const { return *pins_; }

 private:
  absl::StatusOr<ReaderSource> Find(const SnapshotId& snapshot) const;

  const catalog::IngestCatalog& catalog_;
  store::Store& store_;
  const std::shared_ptr<SnapshotPins> pins_;  // readers may outlive the factory
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_CONTROLLER_RESTORE_STORE_SNAPSHOT_READER_H_
