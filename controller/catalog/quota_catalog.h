// How much each device holds in the store: what quotas are about.
//
// A device holds a chunk as long as it may refer to it (device_chunk): from the upload that brought it, finished or not, until the prune
// that sweeps it or the expiry of the unfinished upload. Chunks that several devices hold count for each of them, so nobody's figure
// depends on what others do. Triggers keep the sum, in the transactions that change the rights. Thread safety: any thread.
#ifndef LITEFLEET_CONTROLLER_CATALOG_QUOTA_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_QUOTA_CATALOG_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "controller/catalog/catalog_db.h"

namespace litefleet::catalog {

extern const std::string_view kQuotaSchema;

struct DeviceHoldings {
  int64_t bytes = 0;      // stored, of chunks that it may refer to
  int64_t snapshots = 0;  // that are listed
  std::map<std::string, std::string> labels;
  std::pair<int64_t, int64_t> policies;  // changes when any policy does
};

class QuotaCatalog {
 public:
  explicit QuotaCatalog(CatalogDb& db) : db_(db) {}

  // Of one moment. A device that nobody knows holds nothing. Cost: its databases and labels.
  absl::StatusOr<DeviceHoldings> Get(const DeviceId& device) const;
  // Bytes of all that hold any, by device.
  absl::StatusOr<std::map<std::string, int64_t>> HeldBytes() const;

 private:
  CatalogDb& db_;
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_QUOTA_CATALOG_H_
