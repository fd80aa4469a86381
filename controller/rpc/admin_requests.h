// Checks of what operators send, before anything is looked up. Pure functions.
//
// Errors: INVALID_ARGUMENT with a stable reason, a message that names the field and the value, and what is allowed.
#ifndef LITEFLEET_CONTROLLER_RPC_ADMIN_REQUESTS_H_
#define LITEFLEET_CONTROLLER_RPC_ADMIN_REQUESTS_H_

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::rpc {

inline constexpr std::chrono::seconds kDefaultExpire = std::chrono::hours(24);
inline constexpr std::chrono::seconds kMaxExpire = std::chrono::hours(24 * 90);

absl::Status Invalid(std::string_view reason, std::string_view message, std::string_view hint = {});

// 0: 100; else 1 to 1000.
absl::StatusOr<int> CheckedPageSize(int32_t wanted);
// At most 64 printable ASCII characters.
absl::Status CheckRequestId(std::string_view request_id);
// Keys are names; values are at most 63 printable characters without ',' and '='. At most 64 labels.
absl::Status CheckLabel(std::string_view key, std::string_view value);
// "k=v,k2=v2"; empty is allowed.
absl::Status CheckSelector(std::string_view selector);
// Whole seconds between `least` and `most`; unset: `otherwise`.
absl::StatusOr<std::chrono::seconds> CheckedDuration(bool set, const google::protobuf::Duration& wanted, std::chrono::seconds least,
                                                     std::chrono::seconds most, std::chrono::seconds otherwise, std::string_view field);
absl::StatusOr<SystemTime> CheckedTime(const google::protobuf::Timestamp& wanted, std::string_view field);
// "DEVICE/DATABASE" in its two parts.
absl::StatusOr<std::pair<std::string, std::string>> SplitDatabaseReference(std::string_view reference, std::string_view field);

// The catalog speaks of devices by id; operators know them by name.
absl::Status ByName(const absl::Status& status, const v1::Device& device);

}  // namespace litefleet::rpc

#endif  // LITEFLEET_CONTROLLER_RPC_ADMIN_REQUESTS_H_
