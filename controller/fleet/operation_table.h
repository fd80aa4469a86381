// The operations that have not ended, in memory over the catalog: progress that is not worth an fsync, watchers, orders by device.
//
// Thread safety: all members may be called from any thread; those that change states block for a commit. Durability: a state is seen
// here after it is durable. Memory: the active operations of the fleet, bounded by whoever creates them. Locks: mu_ before Watch's own;
// never held during a call of the catalog or of a watcher.
#ifndef LITEFLEET_CONTROLLER_FLEET_OPERATION_TABLE_H_
#define LITEFLEET_CONTROLLER_FLEET_OPERATION_TABLE_H_

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/mutex.h"
#include "controller/catalog/operation_catalog.h"
#include "controller/fleet/transitions.h"
#include "controller/fleet/watch.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::fleet {

class OperationTable {
 public:
  static constexpr size_t kMaxWatchesPerOperation = 64;
  static constexpr size_t kMaxWatches = 4096;

  struct Entry {
    v1::Operation operation;
    v1::Order order;
    catalog::Origin origin = catalog::Origin::kOrdered;
  };
  struct Changed {
    Outcome outcome = Outcome::kUnchanged;
    v1::Operation operation;  // after it
  };

  // Takes over what a former run left.
  static absl::StatusOr<std::unique_ptr<OperationTable>> Load(catalog::OperationCatalog& catalog);
  ~OperationTable();

  // As OperationCatalog::Create. What exists already and has ended is answered, and not taken in.
  absl::StatusOr<std::vector<Entry>> Create(const std::vector<catalog::OperationRow>& rows);
  // Makes what `change` does durable. `change` runs on the catalog's writer thread: it must be quick and call nothing of this.
  absl::StatusOr<Changed> Change(const OperationId& operation, absl::FunctionRef<Outcome(v1::Operation&)> change);
  // Not durable. False: not active, or in a state in which progress is a change of state (QUEUED, SENT).
  bool KeepProgress(const OperationId& operation, const v1::Progress& progress);
  // Writes progress that came since the last call.
  void PersistProgress();

  // Waits for a Create of this operation that is under way, so that what the catalog has as active is here.
  std::optional<Entry> FindActive(const OperationId& operation) const;
  // Oldest first.
  std::vector<Entry> ActiveOf(const DeviceId& device) const;
  size_t CountActive(const DeviceId& device, catalog::Origin origin) const;
  std::vector<Entry> ActiveLocal() const;
  std::vector<OperationId> QueuedPast(SystemTime now) const;
  // Operations of devices, not of the controller, that EndsUnheard; whether the device is offline is the caller's to know.
  std::vector<std::pair<OperationId, DeviceId>> CancelsUnheard(SystemTime now) const;
  // Overwrites the progress of an active operation by the newest.
  void FillProgress(v1::Operation& operation) const;

  absl::StatusOr<uint64_t> AddWatch(const OperationId& operation, std::function<void(const v1::Operation&)> watcher);
  void RemoveWatch(uint64_t watch);
  // Tells the watchers of a device's operations again: what is not part of the operation has changed.
  void Touch(const DeviceId& device);

 private:
  struct Live {
    Entry entry;
    uint64_t state_version = 0;  // of the catalog's writer thread
    bool progress_unsaved = false;
    std::map<uint64_t, std::shared_ptr<Watch>> watches;
  };
  struct Notice {
    v1::Operation operation;
    uint64_t version = 0;
    std::vector<std::shared_ptr<Watch>> watches;
  };

  explicit OperationTable(catalog::OperationCatalog& catalog) : catalog_(catalog) {}
  Notice NoticeOf(Live& live) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static void Tell(const Notice& notice);
  void Insert(const catalog::OperationRow& row) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Publish(const v1::Operation& operation, uint64_t version);

  catalog::OperationCatalog& catalog_;
  std::atomic<uint64_t> state_versions_{0};
  mutable Mutex mu_;
  mutable CondVar created_;
  std::set<OperationId> creating_ ABSL_GUARDED_BY(mu_);  // maybe in the catalog, not yet in live_
  std::map<OperationId, Live> live_ ABSL_GUARDED_BY(mu_);
  std::map<DeviceId, std::vector<OperationId>> by_device_ ABSL_GUARDED_BY(mu_);  // oldest first
  std::map<uint64_t, std::pair<OperationId, std::shared_ptr<Watch>>> watches_ ABSL_GUARDED_BY(mu_);
  uint64_t next_watch_ ABSL_GUARDED_BY(mu_) = 1;
  uint64_t notify_versions_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace litefleet::fleet

#endif  // LITEFLEET_CONTROLLER_FLEET_OPERATION_TABLE_H_
