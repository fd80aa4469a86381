// For what runs operations of the controller's own: store, catalog and a fleet without devices, on the real clock.
#ifndef LITEFLEET_TESTS_UNIT_CONTROLLER_FLEET_OWN_OPERATIONS_H_
#define LITEFLEET_TESTS_UNIT_CONTROLLER_FLEET_OWN_OPERATIONS_H_

#include <memory>
#include <utility>

#include "controller/catalog/operation_catalog.h"
#include "controller/fleet/device_fleet.h"
#include "tests/unit/controller/fleet/fleet_fixture.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::fleet {

class OwnOperationsTest : public ingest::IngestTest {
 protected:
  void StartFleet() {
    operations_ = std::make_unique<catalog::OperationCatalog>(*path_->db);
    auto fleet =
        DeviceFleet::Create({.operations = operations_.get(), .reports = &reports_, .clock = &real_, .controller_version = "1"}, {});
    ASSERT_TRUE(fleet.ok()) << fleet.status();
    fleet_ = *std::move(fleet);
  }
  // Who borrows the fleet has ended.
  void StopFleet() {
    fleet_.reset();
    operations_.reset();
  }

  RealClock real_;
  FakeReports reports_;
  std::unique_ptr<catalog::OperationCatalog> operations_;
  std::unique_ptr<DeviceFleet> fleet_;
};

}  // namespace litefleet::fleet

#endif  // LITEFLEET_TESTS_UNIT_CONTROLLER_FLEET_OWN_OPERATIONS_H_
