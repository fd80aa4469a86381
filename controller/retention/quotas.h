// What a device may hold in the store: by controller.toml for all, by the policy that rules it for some.
//
// A quota refuses uploads and nothing else: what was acknowledged stays, restores go on. It is looked at when an upload begins, and where
// it goes on for long at each of its durable marks, so a device may be above it by what it sends between two of these; a commit of what has
// all come is not refused. Thread safety: any thread. Ownership: borrows the catalogs.
#ifndef LITEFLEET_CONTROLLER_RETENTION_QUOTAS_H_
#define LITEFLEET_CONTROLLER_RETENTION_QUOTAS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/base/mutex.h"
#include "controller/catalog/policy_catalog.h"
#include "controller/catalog/quota_catalog.h"
#include "controller/retention/policy.h"

namespace litefleet::retention {

// 0: no limit.
struct Quota {
  int64_t bytes = 0;
  int64_t snapshots = 0;
};

class Quotas {
 public:
  // `common`: where no policy says otherwise.
  Quotas(catalog::QuotaCatalog& holdings, catalog::PolicyCatalog& policies, Quota common)
      : holdings_(holdings), policies_(policies), common_(common) {}

  struct Standing {
    catalog::DeviceHoldings holds;
    Quota quota;
  };
  // Where policies tie for the device, or cannot be read, the common quota counts: neither is a reason to refuse a backup.
  absl::StatusOr<Standing> Of(const DeviceId& device) const;
  // kResourceExhausted QUOTA_EXCEEDED where the device holds as much as it may. `goes_on`: an upload that has begun; it is measured by
  // its bytes alone.
  absl::Status Check(const DeviceId& device, bool goes_on) const;

 private:
  using PolicyList = std::shared_ptr<const std::vector<Policy>>;
  absl::StatusOr<PolicyList> Policies(std::pair<int64_t, int64_t> version) const;
  // False where nothing is bounded anywhere: then an upload costs no look at the catalog.
  bool AnyQuota() const;

  catalog::QuotaCatalog& holdings_;
  catalog::PolicyCatalog& policies_;
  const Quota common_;
  mutable Mutex mu_;
  mutable std::optional<uint64_t> looked_at_ ABSL_GUARDED_BY(mu_);  // PolicyCatalog::changes() that any_ is of
  mutable bool any_ ABSL_GUARDED_BY(mu_) = false;
  mutable PolicyList cached_ ABSL_GUARDED_BY(mu_);
  mutable std::pair<int64_t, int64_t> cached_version_ ABSL_GUARDED_BY(mu_);
};

}  // namespace litefleet::retention

#endif  // LITEFLEET_CONTROLLER_RETENTION_QUOTAS_H_
