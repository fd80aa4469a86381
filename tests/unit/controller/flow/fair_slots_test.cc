#include "controller/flow/fair_slots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>

namespace litefleet::flow {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

class FairSlotsTest : public testing::Test {
 protected:
  void Take(const std::string& device) {
    slots_.Take(device, [this, device](bool granted) { (granted ? granted_ : refused_).push_back(device); });
  }
  std::vector<std::string> Granted() { return std::exchange(granted_, {}); }
  std::vector<std::string> Refused() { return std::exchange(refused_, {}); }

  FakeClock clock_;
  std::vector<std::string> granted_, refused_;
  FairSlots slots_{{.slots = 2, .max_waiting = 4, .patience = seconds(10), .own_thread = false}, clock_};
};

TEST_F(FairSlotsTest, GrantsAtOnceWhileThereAreSome) {
  Take("a");
  Take("a");
  EXPECT_THAT(Granted(), ElementsAre("a", "a"));
  Take("b");
  EXPECT_THAT(Granted(), IsEmpty());
  EXPECT_EQ(slots_.waiting(), 1u);
  slots_.GiveBack("a");
  EXPECT_THAT(Granted(), ElementsAre("b"));
  EXPECT_EQ(slots_.taken(), 2u);
  slots_.GiveBack("a");
  slots_.GiveBack("b");
  EXPECT_EQ(slots_.taken(), 0u);
  EXPECT_EQ(slots_.devices(), 0u);
}

TEST_F(FairSlotsTest, TheNextGoesToTheDeviceThatHasFewest) {
  Take("greedy");
  Take("greedy");
  Granted();
  Take("greedy");
  Take("greedy");
  Take("modest");
  slots_.GiveBack("greedy");
  EXPECT_THAT(Granted(), ElementsAre("modest")) << "it came last, and has none";
  slots_.GiveBack("greedy");
  EXPECT_THAT(Granted(), ElementsAre("greedy"));
  Take("late");
  slots_.GiveBack("greedy");
  EXPECT_THAT(Granted(), ElementsAre("greedy")) << "both have none: it came first";
  slots_.GiveBack("modest");
  EXPECT_THAT(Granted(), ElementsAre("late"));
}

TEST_F(FairSlotsTest, NobodyWaitsForEver) {
  Take("a");
  Take("b");
  Granted();
  Take("c");
  clock_.Advance(seconds(5));
  Take("d");
  slots_.Tick();
  EXPECT_THAT(Refused(), IsEmpty());
  clock_.Advance(seconds(5));
  slots_.Tick();
  EXPECT_THAT(Refused(), ElementsAre("c"));
  slots_.GiveBack("a");
  EXPECT_THAT(Granted(), ElementsAre("d")) << "who was refused has no turn any more";
  EXPECT_EQ(slots_.waiting(), 0u);
}

TEST_F(FairSlotsTest, NotMoreWaitThanMay) {
  Take("a");
  Take("a");
  for (int i = 0; i < 6; ++i) Take("b");
  EXPECT_EQ(slots_.waiting(), 4u);
  EXPECT_THAT(Refused(), ElementsAre("b", "b"));
}

TEST_F(FairSlotsTest, WhoIsGrantedMayGiveBackAtOnce) {
  slots_.Take("a", [&](bool) { slots_.GiveBack("a"); });
  EXPECT_EQ(slots_.taken(), 0u);
  Take("a");
  Take("b");
  for (int i = 0; i < 3; ++i) {
    slots_.Take("c", [this](bool granted) {
      EXPECT_TRUE(granted);
      slots_.GiveBack("c");
    });
  }
  slots_.GiveBack("a");
  EXPECT_EQ(slots_.waiting(), 0u);
  EXPECT_EQ(slots_.taken(), 1u);
}

TEST_F(FairSlotsTest, WhatWaitsAtTheEndIsDropped) {
  Take("a");
  Take("b");
  const auto held = std::make_shared<int>();
  bool called = false;
  slots_.Take("c", [held, &called](bool) { called = true; });
  slots_.Stop();
  EXPECT_EQ(held.use_count(), 1);
  slots_.GiveBack("a");
  slots_.Take("d", [held, &called](bool) { called = true; });
  EXPECT_FALSE(called);
}

TEST(FairSlotsThreadTest, TellsThoseWhoHaveWaited) {
  const RealClock clock;
  FairSlots slots({.slots = 1, .max_waiting = 4, .patience = milliseconds(50)}, clock);
  slots.Take("a", [](bool) {});
  std::promise<bool> told;
  slots.Take("b", [&](bool granted) { told.set_value(granted); });
  auto answer = told.get_future();
  ASSERT_EQ(answer.wait_for(seconds(60)), std::future_status::ready);
  EXPECT_FALSE(answer.get());
}

}  // namespace
}  // namespace litefleet::flow
