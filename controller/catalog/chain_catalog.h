// What devices find when they read a database as a whole and compare it with what they have sent (continuous capture).
//
// A difference is a gap of the reason kChainDiffers, so it is durable in the packs, listed, and goes with its device: its time is that of
// the snapshots that are in question. Thread safety: all members may be called from any thread. Errors: those of the catalog.
#ifndef LITEFLEET_CONTROLLER_CATALOG_CHAIN_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_CHAIN_CATALOG_H_

#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "controller/catalog/catalog_db.h"
#include "controller/catalog/gap_catalog.h"
#include "litefleet/v1/admin_service.pb.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::catalog {

class ChainCatalog {
 public:
  static constexpr std::string_view kChainDiffers = "CHAIN_DIFFERS";

  // Both outlive this.
  ChainCatalog(CatalogDb& db, GapCatalog& gaps) : db_(db), gaps_(gaps) {}

  // `check` has the root of the database in the state that its device has sent as this snapshot. Nothing: there is no such snapshot of the
  // database (any more). False: it differs, and all snapshots since the last one that was equal are in question; that is durable on return,
  // once a snapshot.
  absl::StatusOr<std::optional<bool>> Check(const DeviceId& device, const v1::ChainCheck& check, SystemTime now);
  // Differences that were noted after `since`, by the controller's clock: that of a device may say anything. The last one of each database,
  // newest first, at most `limit`.
  absl::StatusOr<std::vector<v1::Gap>> InQuestion(SystemTime since, int limit) const;

 private:
  CatalogDb& db_;
  GapCatalog& gaps_;
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_CHAIN_CATALOG_H_
