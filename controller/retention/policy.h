// A policy as an operator writes it, and which policy rules a device.
//
//   name = "shops"
//   selector = "site=oslo,tier=gold"      all labels must match; empty or missing: every device
//   [retention]
//   keep_last = 10                        the newest so many (default 0)
//   floor = 3                             never fewer than so many (default 1)
//   tiers = [{every = "all", for = "24h"}, {every = "1h", for = "7d"}, {every = "1d", for = "90d"}]
//
// Thread safety: values and pure functions. Errors: kInvalidArgument CONFIG_INVALID with the line.
#ifndef LITEFLEET_CONTROLLER_RETENTION_POLICY_H_
#define LITEFLEET_CONTROLLER_RETENTION_POLICY_H_

#include <chrono>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace litefleet::retention {

using Labels = std::map<std::string, std::string>;

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
};

absl::StatusOr<Policy> ParsePolicy(std::string_view text, const std::string& source);

bool Matches(const Policy& policy, const Labels& device);
// The policy with the most labels of those that match; null where none does. Errors: kFailedPrecondition POLICY_TIE.
absl::StatusOr<const Policy*> Choose(const std::vector<Policy>& policies, const Labels& device);

}  // namespace litefleet::retention

#endif  // LITEFLEET_CONTROLLER_RETENTION_POLICY_H_
