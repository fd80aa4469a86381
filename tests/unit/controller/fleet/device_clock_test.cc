// A device's clock, as hello and health tell of it over links of any kind.
#include "common/base/proto_time.h"
#include "tests/unit/controller/fleet/fleet_fixture.h"

namespace litefleet::fleet {
namespace {

using DeviceClockTest = FleetTest;

TEST_F(DeviceClockTest, AClockThatIsSetWhileItIsConnectedIsMeasuredAgain) {
  const auto link = Connect(kDevice);
  const auto say = [&](std::chrono::seconds behind) {
    clock_.Advance(std::chrono::minutes(1));
    v1::ControlRequest message;
    *message.mutable_health()->mutable_device_time() = ToProtoTime(clock_.Now() - behind);
    ASSERT_TRUE(fleet_->Received(kDevice, *link, message).ok());
  };
  say(std::chrono::seconds(20));
  EXPECT_EQ(reports_.offset_ms, 5000) << "15 s may be the link's";
  say(std::chrono::hours(-24));
  EXPECT_EQ(reports_.offset_ms, -86'400'000) << "no link makes that";
  say(std::chrono::seconds(0));
  EXPECT_EQ(reports_.offset_ms, -86'400'000) << "a message that was a day late, for all that is known";
  say(std::chrono::seconds(3));
  EXPECT_EQ(reports_.offset_ms, 0) << "two that agree are no coincidence; the link's part is the smaller one's";
}

TEST_F(DeviceClockTest, AMessageThatIsLateIsNoClockThatWasSet) {
  const auto link = Connect(kDevice);
  const auto say = [&](std::chrono::seconds late, std::chrono::seconds after = std::chrono::minutes(1)) {
    clock_.Advance(after);
    v1::ControlRequest message;
    *message.mutable_health()->mutable_device_time() = ToProtoTime(clock_.Now() - std::chrono::seconds(5) - late);
    ASSERT_TRUE(fleet_->Received(kDevice, *link, message).ok());
  };
  say(std::chrono::seconds(40));
  EXPECT_EQ(reports_.offset_ms, 5000);
  say(std::chrono::seconds(0));
  EXPECT_EQ(reports_.offset_ms, 5000);
  // Others were late, and by other times; and several that the link let go at once say it once.
  say(std::chrono::seconds(40));
  say(std::chrono::seconds(100));
  say(std::chrono::seconds(99), std::chrono::seconds(1));
  say(std::chrono::seconds(0));
  EXPECT_EQ(reports_.offset_ms, 5000);
  say(std::chrono::seconds(60));
  say(std::chrono::seconds(61));
  EXPECT_EQ(reports_.offset_ms, 65'000) << "it was set";
}

}  // namespace
}  // namespace litefleet::fleet
