// What devices tell of times without promised states.
#include <gtest/gtest.h>

#include "controller/fleet/device_fleet.h"
#include "tests/unit/controller/fleet/fleet_fixture.h"

namespace litefleet::fleet {
namespace {

class GapTest : public FleetTest {};

v1::ControlRequest GapReport(const std::string& id, SystemTime from) {
  v1::ControlRequest message;
  v1::CoverageGap& gap = *message.mutable_gap()->mutable_gap();
  gap.set_id(id);
  gap.set_database("db");
  gap.set_reason("SPOOL_FULL");
  *gap.mutable_from() = ToProtoTime(from);
  return message;
}

TEST_F(GapTest, AGapIsAnsweredWhenItIsDurable) {
  const auto link = Connect(kDevice);
  link->TakeWords();
  const std::string id = NewUlid(clock_.Now());
  v1::ControlRequest message = GapReport(id, clock_.Now() - std::chrono::hours(3));
  message.mutable_gap()->mutable_gap()->set_message(std::string(100'000, 'x'));
  *message.mutable_gap()->mutable_gap()->mutable_until() = ToProtoTime(clock_.Now() + std::chrono::hours(24 * 400));
  ASSERT_TRUE(fleet_->Received(kDevice, *link, message).ok());
  EXPECT_EQ(link->TakeWords(), Words{"gap " + id});
  ASSERT_EQ(reports_.gaps.size(), 1U);
  EXPECT_LE(reports_.gaps[0].message().size(), 5000U) << "texts are cut";
  EXPECT_LE(TimestampMillis(reports_.gaps[0].until()), ToUnixMillis(clock_.Now() + std::chrono::hours(24))) << "nothing is of next year";

  reports_.gap_status = Error(absl::StatusCode::kUnavailable, "STORE_FAILED", "no");
  EXPECT_EQ(ReasonOf(fleet_->Received(kDevice, *link, message)), "STORE_FAILED");
  EXPECT_EQ(link->TakeWords(), Words{}) << "the device tells it again";
  reports_.gap_status = Error(absl::StatusCode::kNotFound, "DATABASE_NOT_FOUND", "no");
  EXPECT_TRUE(fleet_->Received(kDevice, *link, message).ok());
  EXPECT_EQ(link->TakeWords(), Words{"gap " + id}) << "it would tell it for ever";
}

TEST_F(GapTest, ACheckOfAChainIsAnswered) {
  const auto link = Connect(kDevice);
  link->TakeWords();
  v1::ControlRequest message;
  v1::ChainCheck& check = *message.mutable_chain_check();
  check.set_database("db");
  check.set_snapshot_id(kSnapshot.value());
  reports_.chain_equal = true;
  ASSERT_TRUE(fleet_->Received(kDevice, *link, message).ok());
  reports_.chain_equal = false;
  ASSERT_TRUE(fleet_->Received(kDevice, *link, message).ok());
  reports_.chain_equal.reset();
  ASSERT_TRUE(fleet_->Received(kDevice, *link, message).ok());
  EXPECT_EQ(link->TakeWords(), (Words{"equal " + kSnapshot.value(), "differs " + kSnapshot.value(), "differs "}))
      << "without a snapshot: it is gone";
  check.set_snapshot_id("x");
  EXPECT_EQ(ReasonOf(fleet_->Received(kDevice, *link, message)), "BAD_MESSAGE");
}

// A stream lives for months, and a device may compare every second. Differences are gaps, and there is an end to them.
TEST_F(GapTest, WhatIsEqualIsNoGap) {
  const auto link = Connect(kDevice);
  v1::ControlRequest message;
  message.mutable_chain_check()->set_database("db");
  message.mutable_chain_check()->set_snapshot_id(kSnapshot.value());
  const auto send = [&] {
    link->TakeWords();
    return ReasonOf(fleet_->Received(kDevice, *link, message));
  };
  reports_.chain_equal = true;
  for (int i = 0; i <= DeviceFleet::kMaxGaps; ++i) ASSERT_EQ(send(), "");
  reports_.chain_equal = false;
  std::string last;
  for (int i = 0; i <= DeviceFleet::kMaxGaps && last.empty(); ++i) last = send();
  EXPECT_EQ(last, "TOO_MANY_GAPS");
}

TEST_F(GapTest, AGapThatMakesNoSenseEndsTheStream) {
  const auto link = Connect(kDevice);
  const std::string id = NewUlid(clock_.Now());
  const auto refused = [&](auto change) {
    v1::ControlRequest message = GapReport(id, clock_.Now());
    change(*message.mutable_gap()->mutable_gap());
    return ReasonOf(fleet_->Received(kDevice, *link, message));
  };
  EXPECT_EQ(refused([](v1::CoverageGap&) {}), "");
  EXPECT_EQ(refused([](v1::CoverageGap& gap) { gap.set_id("x"); }), "BAD_MESSAGE");
  EXPECT_EQ(refused([](v1::CoverageGap& gap) { gap.set_database("a/b"); }), "BAD_MESSAGE");
  EXPECT_EQ(refused([](v1::CoverageGap& gap) { gap.set_reason("not a word"); }), "BAD_MESSAGE");
  EXPECT_EQ(refused([](v1::CoverageGap& gap) { gap.set_reason(std::string(65, 'A')); }), "BAD_MESSAGE");
  EXPECT_EQ(refused([](v1::CoverageGap& gap) { gap.clear_from(); }), "BAD_MESSAGE");
  std::string last;
  for (int i = 0; i <= DeviceFleet::kMaxGaps && last.empty(); ++i) last = refused([](v1::CoverageGap&) {});
  EXPECT_EQ(last, "TOO_MANY_GAPS");
}

}  // namespace
}  // namespace litefleet::fleet
