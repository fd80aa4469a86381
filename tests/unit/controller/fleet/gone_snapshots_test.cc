#include "controller/fleet/device_fleet.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/unit/controller/fleet/fleet_fixture.h"

namespace litefleet::fleet {
namespace {

class GoneSnapshotsTest : public FleetTest {};

TEST_F(GoneSnapshotsTest, ADeviceHearsThatItsLastSnapshotIsGone) {
  const std::string old = "01JD00000000000000000000S1", newer = "01JD00000000000000000000S2";
  reports_.newest = {{"same", newer}, {"older", newer}};
  v1::Hello hello;
  hello.set_protocol_version(1);
  const std::vector<std::pair<std::string, std::string>> reported = {{"same", newer}, {"older", old}, {"deleted", old}, {"never", ""}};
  for (const auto& [name, last] : reported) {
    v1::DatabaseHealth& database = *hello.add_databases();
    database.set_name(name);
    database.set_last_snapshot_id(last);
  }
  const auto link = std::make_shared<FakeLink>();
  ASSERT_TRUE(fleet_->Connected(kDevice, link, hello).ok());
  const auto gone = [&] {
    std::vector<std::string> names;
    for (const v1::ControlResponse& message : link->Take()) {
      if (message.has_snapshot_gone()) names.push_back(message.snapshot_gone().database() + " " + message.snapshot_gone().snapshot_id());
    }
    return names;
  };
  EXPECT_EQ(gone(), (std::vector<std::string>{"deleted " + old})) << "after the welcome";
  reports_.newest.erase("same");
  clock_.Advance(std::chrono::seconds(30));
  v1::ControlRequest health;
  *health.mutable_health()->mutable_databases() = hello.databases();
  health.mutable_health()->mutable_databases()->DeleteSubrange(2, 2);
  ASSERT_TRUE(fleet_->Received(kDevice, *link, health).ok());
  EXPECT_EQ(gone(), (std::vector<std::string>{"same " + newer, "older " + old})) << "it has gone back, and knows no better";
  // One whose answer was lost: it learns it in a moment.
  reports_.newest["older"] = "01JD00000000000000000000S3";
  clock_.Advance(std::chrono::seconds(30));
  health.mutable_health()->mutable_databases()->DeleteSubrange(0, 1);
  ASSERT_TRUE(fleet_->Received(kDevice, *link, health).ok());
  EXPECT_TRUE(gone().empty());
  health.mutable_health()->mutable_databases(0)->set_last_snapshot_id("01JD00000000000000000000S3");
  clock_.Advance(std::chrono::seconds(30));
  ASSERT_TRUE(fleet_->Received(kDevice, *link, health).ok());
  EXPECT_TRUE(gone().empty());
  reports_.newest["same"] = newer;
  ASSERT_TRUE(
      fleet_->StartBackups({{.device = kDevice, .database = "same"}, {.device = kDevice, .database = "none"}}, {}, "", "test").ok());
  std::vector<std::string> named;
  for (const v1::ControlResponse& message : link->Take()) {
    if (!message.has_order()) continue;
    named.push_back(message.order().backup().newest_snapshot_id());
  }
  EXPECT_EQ(named, (std::vector<std::string>{newer, ""}));
}

}  // namespace
}  // namespace litefleet::fleet
