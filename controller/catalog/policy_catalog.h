// Policies, holds, and the controller's own time, in the catalog; and what retention reads to plan.
//
// Thread safety: all members may be called from any thread. Durability: what a changing call did is durable when it returns, in the packs
// too where records were set.
#ifndef LITEFLEET_CONTROLLER_CATALOG_POLICY_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_POLICY_CATALOG_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "controller/catalog/catalog_db.h"
#include "controller/catalog/deletion_catalog.h"
#include "controller/catalog/record_catalog.h"

namespace litefleet::catalog {

struct PolicyRow {
  std::string name;
  int64_t version = 0;
  SystemTime applied_at;
  std::string text;
};

struct HoldRow {
  std::string device_id, device_name, database;
  SystemTime since;
  std::string reason, message;
};

struct TimeRow {
  SystemTime time;
  std::string boot_id;
  int64_t since_boot_ms = 0;
  std::string hold;  // why deletions wait; empty: they do not
};

// One database as retention sees it.
struct RetainedDatabase {
  SeenDatabase seen;
  DeviceId device;
  std::string device_name, name;
  std::map<std::string, std::string> labels;
  bool held = false;
  std::string hold_reason, hold_message;
  int64_t released_sequence = -1;  // an operator has seen the snapshots up to this one
};

struct RetainedSnapshot {
  SnapshotId id;
  int64_t sequence = 0;
  SystemTime effective_at;
  int64_t size_bytes = 0;
  bool good = false;                            // complete in the store
  bool checked = false;                         // and SQLite's checks ended well
  bool pinned = false;                          // however long that was to hold
  bool ordered = false;                         // an order that has not ended needs it
  std::string part = {};                        // what it holds of the database; empty: all
  bool continuous = false;                      // a sync of continuous capture
  std::optional<SystemTime> pinned_until = {};  // from then on it is pinned no more

  bool PinnedAt(SystemTime now) const { return pinned && (!pinned_until.has_value() || now < *pinned_until); }
};

struct LabelledDevice {
  std::string id, name;
  std::map<std::string, std::string> labels;
};

class PolicyCatalog {
 public:
  explicit PolicyCatalog(CatalogDb& db) : db_(db) {}
  // Before the first call; outlives this. Without it changes of policies and holds stay due.
  void SetRecords(RecordWriter* records) { records_ = records; }

  absl::StatusOr<PolicyRow> Put(const std::string& name, const std::string& text, SystemTime now);
  absl::StatusOr<std::vector<PolicyRow>> List() const;  // by name
  absl::Status Delete(const std::string& name);         // kNotFound POLICY_NOT_FOUND

  // Grows whenever Put or Delete has changed something.
  uint64_t changes() const { return changes_; }

  absl::StatusOr<std::vector<HoldRow>> Holds(int limit, int64_t offset) const;
  // One that there is stays as it is.
  absl::Status Hold(const DeviceId& device, const std::string& database, const std::string& reason, const std::string& message,
                    SystemTime now);
  absl::Status Release(const DeviceId& device, const std::string& database);  // kNotFound HOLD_NOT_FOUND

  absl::StatusOr<std::optional<TimeRow>> Time() const;
  absl::Status SetTime(const TimeRow& row);

  // By id, after `after`.
  absl::StatusOr<std::vector<RetainedDatabase>> DatabasesAfter(int64_t after, int limit) const;
  // The same of active devices, whether they have a database yet or not.
  absl::StatusOr<std::vector<LabelledDevice>> DevicesAfter(const std::string& after, int limit) const;
  // Those that are not in the trash, by sequence, as of one moment with `seen`, which is read anew.
  absl::StatusOr<std::vector<RetainedSnapshot>> SnapshotsOf(SeenDatabase& seen) const;

 private:
  absl::Status WriteRecords() { return records_ == nullptr ? absl::OkStatus() : records_->WriteDue(); }

  CatalogDb& db_;
  RecordWriter* records_ = nullptr;
  std::atomic<uint64_t> changes_{1};
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_POLICY_CATALOG_H_
