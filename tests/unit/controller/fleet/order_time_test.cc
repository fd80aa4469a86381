// Orders by the controller's own time: a clock that jumps neither ends one nor keeps it for ever.
#include "controller/retention/controller_time.h"
#include "tests/unit/controller/fleet/fleet_fixture.h"

namespace litefleet::fleet {
namespace {

using enum v1::OperationState;
using std::chrono::hours;
using std::chrono::minutes;

class OrderTimeTest : public FleetTest {
 protected:
  void SetUp() override {
    time_ = [this] { return controller_time_->Stamp(); };
    FleetTest::SetUp();
    time_catalog_.emplace(*db_);
    controller_time_.emplace(*time_catalog_, clock_, "boot-1");
    ASSERT_TRUE(controller_time_->Tick().ok());
  }

  std::optional<catalog::PolicyCatalog> time_catalog_;
  std::optional<retention::ControllerTime> controller_time_;
};

TEST_F(OrderTimeTest, AClockThatJumpsAheadEndsNoOrderAndForgetsNone) {
  const std::string ended = Backup(kOther);
  ASSERT_TRUE(fleet_->Cancel(OperationId(ended)).ok());
  const std::string waits = Backup(kDevice);
  clock_.JumpSystem(hours(24 * 365));
  const std::string later = Backup(kDevice);
  fleet_->Tick();
  EXPECT_EQ(State(waits), OPERATION_STATE_QUEUED) << "no hour has passed";
  EXPECT_TRUE(operations_->Get(OperationId(ended)).ok()) << "no age has passed";
  clock_.Advance(minutes(59));
  fleet_->Tick();
  EXPECT_EQ(State(waits), OPERATION_STATE_QUEUED);
  clock_.Advance(minutes(2));
  fleet_->Tick();
  EXPECT_EQ(State(waits), OPERATION_STATE_EXPIRED);
  EXPECT_EQ(State(later), OPERATION_STATE_EXPIRED) << "made while the clock was wrong";
}

TEST_F(OrderTimeTest, AClockThatFallsBackKeepsNoOrderLonger) {
  const std::string waits = Backup(kDevice);
  clock_.JumpSystem(-hours(24 * 365));
  const std::string later = Backup(kDevice);
  clock_.Advance(minutes(30));
  fleet_->Tick();
  EXPECT_EQ(State(waits), OPERATION_STATE_QUEUED);
  EXPECT_EQ(State(later), OPERATION_STATE_QUEUED);
  clock_.JumpSystem(hours(24 * 365));
  fleet_->Tick();
  EXPECT_EQ(State(later), OPERATION_STATE_QUEUED) << "half an hour is left to it";
  clock_.JumpSystem(-hours(24 * 365));
  clock_.Advance(minutes(31));
  fleet_->Tick();
  EXPECT_EQ(State(waits), OPERATION_STATE_EXPIRED);
  EXPECT_EQ(State(later), OPERATION_STATE_EXPIRED);
}

// The controller was off for a month: its time is on hold, and the device's clock is right.
TEST_F(OrderTimeTest, AnOrderOnHoldHasNotExpiredByTheClockOfItsDevice) {
  clock_.Advance(hours(24 * 31));
  controller_time_.emplace(*time_catalog_, clock_, "boot-2");
  const auto reading = controller_time_->Tick();
  ASSERT_TRUE(reading.ok());
  ASSERT_NE(reading->hold, "");
  const auto link = Connect(kDevice);
  link->Take();
  const std::string id = Restore(kDevice);
  const auto sent = link->Take();
  ASSERT_EQ(sent.size(), 1U);
  ASSERT_TRUE(sent[0].has_order());
  EXPECT_EQ(FromProtoTime(sent[0].order().expires_at()), clock_.Now() + hours(1));
  EXPECT_EQ(FromProtoTime(operations_->Get(OperationId(id))->operation.expires_at()), controller_time_->Stamp() + hours(1));
}

}  // namespace
}  // namespace litefleet::fleet
