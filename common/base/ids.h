// Identifiers: strong types, ULIDs and UUIDs, and the rule for names. Thread safety: values and pure functions.
#ifndef LITEFLEET_COMMON_BASE_IDS_H_
#define LITEFLEET_COMMON_BASE_IDS_H_

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/clock.h"

namespace litefleet {

// A distinct type per Tag: no implicit conversion from Rep or between tags.
template <class Tag, class Rep>
class StrongId {
 public:
  StrongId() = default;
  constexpr explicit StrongId(Rep value) : value_(std::move(value)) {}
  constexpr const Rep& value() const { return value_; }
  friend auto operator<=>(const StrongId&, const StrongId&) = default;

  template <typename H>
  friend H AbslHashValue(H h, const StrongId& id) {
    return H::combine(std::move(h), id.value_);
  }

 private:
  Rep value_{};
};

using DeviceId = StrongId<struct DeviceIdTag, std::string>;        // UUID, lower case
using SnapshotId = StrongId<struct SnapshotIdTag, std::string>;    // ULID
using OperationId = StrongId<struct OperationIdTag, std::string>;  // ULID
using SessionId = StrongId<struct SessionIdTag, std::string>;      // ULID

// 26 characters of Crockford's base 32: 48 bits of milliseconds, 80 random bits. Sorts by time.
std::string NewUlid(SystemTime now);
bool IsUlid(std::string_view text);
// Version 4.
std::string NewUuid();
bool IsUuid(std::string_view text);
// Devices, databases and policies: [A-Za-z0-9][A-Za-z0-9._-]{0,62}.
bool IsName(std::string_view text);

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_IDS_H_
