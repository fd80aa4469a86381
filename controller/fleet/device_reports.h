// Where the fleet writes what devices tell of themselves: a seam over the catalogs.
//
// Thread safety: all members may be called from any thread; they block for a commit.
#ifndef LITEFLEET_CONTROLLER_FLEET_DEVICE_REPORTS_H_
#define LITEFLEET_CONTROLLER_FLEET_DEVICE_REPORTS_H_

#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "controller/catalog/catalog_db.h"
#include "controller/catalog/chain_catalog.h"
#include "controller/catalog/gap_catalog.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/snapshot_catalog.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::fleet {

class DeviceReports {
 public:
  virtual ~DeviceReports() = default;
  // kPermissionDenied DEVICE_REVOKED, kNotFound DEVICE_NOT_FOUND.
  virtual absl::StatusOr<std::string> NameOfActive(const DeviceId& device) = 0;
  virtual absl::Status Said(const DeviceId& device, SystemTime now, const v1::Hello* hello, int64_t clock_offset_ms,
                            const v1::Health* health) = 0;
  virtual absl::Status Databases(const DeviceId& device, SystemTime now, std::span<const v1::DatabaseHealth> databases) = 0;
  // Id of the newest snapshot that can be restored; empty: there is none.
  virtual absl::StatusOr<std::string> NewestSnapshot(const DeviceId& device, const std::string& database) = 0;
  // As GapCatalog::Report.
  virtual absl::Status Gap(const DeviceId& device, const v1::CoverageGap& gap, SystemTime now) = 0;
  // As ChainCatalog::Check.
  virtual absl::StatusOr<std::optional<bool>> CheckChain(const DeviceId& device, const v1::ChainCheck& check, SystemTime now) = 0;
};

class CatalogReports final : public DeviceReports {
 public:
  CatalogReports(catalog::IdentityCatalog& identities, catalog::SnapshotCatalog& snapshots, catalog::GapCatalog gaps,
                 catalog::CatalogDb& db)
      : identities_(identities), snapshots_(snapshots), gaps_(gaps), chains_(db, gaps_) {}
  catalog::GapCatalog& gaps() { return gaps_; }
  absl::StatusOr<std::string> NameOfActive(const DeviceId& device) override;
  absl::Status Said(const DeviceId& device, SystemTime now, const v1::Hello* hello, int64_t clock_offset_ms,
                    const v1::Health* health) override;
  absl::Status Databases(const DeviceId& device, SystemTime now, std::span<const v1::DatabaseHealth> databases) override;
  absl::StatusOr<std::string> NewestSnapshot(const DeviceId& device, const std::string& database) override;
  absl::Status Gap(const DeviceId& device, const v1::CoverageGap& gap, SystemTime now) override { return gaps_.Report(device, gap, now); }
  absl::StatusOr<std::optional<bool>> CheckChain(const DeviceId& device, const v1::ChainCheck& check, SystemTime now) override {
    return chains_.Check(device, check, now);
  }

 private:
  catalog::IdentityCatalog& identities_;
  catalog::SnapshotCatalog& snapshots_;
  catalog::GapCatalog gaps_;
  catalog::ChainCatalog chains_;
};

}  // namespace litefleet::fleet

#endif  // LITEFLEET_CONTROLLER_FLEET_DEVICE_REPORTS_H_
