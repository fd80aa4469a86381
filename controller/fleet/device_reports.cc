#include "controller/fleet/device_reports.h"

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::fleet {

absl::StatusOr<std::string> CatalogReports::NameOfActive(const DeviceId& device) {
  LF_ASSIGN_OR_RETURN(const v1::Device found, identities_.ResolveDevice(device.value()));
  if (found.id() == device.value() && found.state() == v1::DEVICE_STATE_ACTIVE) return found.name();
  return Error(absl::StatusCode::kPermissionDenied, "DEVICE_REVOKED", fmt::format("device {} was revoked", found.name()),
               "enrol it again with a new token");
}

absl::Status CatalogReports::Said(const DeviceId& device, SystemTime now, const v1::Hello* hello, int64_t clock_offset_ms,
                                  const v1::Health* health) {
  return identities_.Seen(device, now, hello, clock_offset_ms, health);
}

absl::Status CatalogReports::Databases(const DeviceId& device, SystemTime now, std::span<const v1::DatabaseHealth> databases) {
  return snapshots_.ReportDatabases(device, now, databases);
}

absl::StatusOr<std::string> CatalogReports::NewestSnapshot(const DeviceId& device, const std::string& database) {
  const absl::StatusOr<v1::Snapshot> newest = snapshots_.Newest(device, database);
  if (absl::IsNotFound(newest.status())) return std::string();
  LF_RETURN_IF_ERROR(newest.status());
  return newest->id();
}

}  // namespace litefleet::fleet
