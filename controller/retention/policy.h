// A policy as an operator writes it, and which policy rules a device.
//
//   name = "shops"
//   selector = "site=oslo,tier=gold"      all labels must match; empty or missing: every device
//   [retention]
//   keep_last = 10                        the newest so many (default 0)
//   floor = 3                             never fewer than so many (default 1)
//   tiers = [{every = "all", for = "24h"}, {every = "1h", for = "7d"}, {every = "1d", for = "90d"}]
//   [backup]                              for devices, where their agent.toml leaves it open
//   schedule = "6h"                       or "never": on order only
//   method = "online"
//   compression_level = 3                 of zstd, 1 to 19
//   [[backup.database]]                   before those, for databases of this name
//   name = "orders"
//   schedule = "15m"
//   [limits]                              bytes a second; 0: no limit
//   upload = "2MiB"
//   download = "4MiB"
//   [quota]
//   bytes = "20GiB"                       of the store, for each device ("0B": no limit); instead of controller.toml's
//   snapshots = 1000                      the same
//
// At least one table. Without [retention] everything is kept.
// Thread safety: values and pure functions. Errors: kInvalidArgument CONFIG_INVALID with the line.
#ifndef LITEFLEET_CONTROLLER_RETENTION_POLICY_H_
#define LITEFLEET_CONTROLLER_RETENTION_POLICY_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::retention {

using Labels = std::map<std::string, std::string>;
Labels ToLabels(const google::protobuf::Map<std::string, std::string>& labels);

struct Tier {
  std::chrono::milliseconds every{0};  // 0: all
  std::chrono::milliseconds keep_for{0};
  std::string text;  // "1h for 7d"
};

struct Policy {
  std::string name;
  std::string selector;  // as written
  Labels labels;         // the selector's
  int keep_last = 0;
  int floor = 1;
  std::vector<Tier> tiers;
  bool retains = true;       // has a [retention]
  v1::DevicePolicy carried;  // what devices are told; its version is that of the row of the catalog, 0 of a text alone
  std::optional<int64_t> quota_bytes, quota_snapshots;  // unset: as in controller.toml; 0: no limit
};

absl::StatusOr<Policy> ParsePolicy(std::string_view text, const std::string& source);

bool Matches(const Policy& policy, const Labels& device);
// The policy with the most labels of those that match; null where none does. Errors: kFailedPrecondition POLICY_TIE.
absl::StatusOr<const Policy*> Choose(const std::vector<Policy>& policies, const Labels& device);
// What it says to the device; of version 0 and empty where none rules it.
absl::StatusOr<v1::DevicePolicy> CarriedTo(const std::vector<Policy>& policies, const Labels& device);

}  // namespace litefleet::retention

#endif  // LITEFLEET_CONTROLLER_RETENTION_POLICY_H_
