// Rows of the identity slice as messages and structs: for identity_catalog*.cc alone.
#ifndef LITEFLEET_CONTROLLER_CATALOG_IDENTITY_ROWS_H_
#define LITEFLEET_CONTROLLER_CATALOG_IDENTITY_ROWS_H_

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "controller/catalog/identity_catalog.h"

namespace litefleet::catalog {

inline ByteView View(const KeyHash& hash) { return {hash.data(), hash.size()}; }
inline KeyHash ToKeyHash(ByteView bytes) {
  KeyHash hash{};
  std::copy_n(bytes.begin(), std::min(bytes.size(), hash.size()), hash.begin());
  return hash;
}
inline void SetTime(int64_t millis, google::protobuf::Timestamp* time) {
  time->set_seconds(millis >= 0 ? millis / 1000 : (millis - 999) / 1000);
  time->set_nanos(static_cast<int32_t>(millis - time->seconds() * 1000) * 1'000'000);
}
// SQLite's LIKE would take _ and % of a reference for wildcards: ids are compared by substr.
inline constexpr int kDefaultPageSize = 100;
inline constexpr int kMaxPageSize = 1000;
inline int BoundedPageSize(int wanted) { return wanted <= 0 ? kDefaultPageSize : std::min(wanted, kMaxPageSize); }

inline constexpr std::string_view kCertificateColumns =
    "serial, device_id, operator_name, role, key_hash, issued_ms, not_after_ms, revoked_ms is not null, used_ms is not null";
CertificateRow ReadCertificate(const sqlite::Statement& row);
// All of a device that are neither expired nor revoked, marked revoked; appended to `changed`. `before`: only what was issued earlier.
absl::Status RevokeCertificates(sqlite3* db, std::string_view device, int64_t before, int64_t now_ms, std::vector<CertificateRow>& changed);

absl::StatusOr<v1::Device> ReadDevice(sqlite3* db, std::string_view id);

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_IDENTITY_ROWS_H_
