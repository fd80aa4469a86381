#include "agent/control/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace litefleet::control {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

class SchedulerTest : public testing::Test {
 protected:
  FakeClock clock_;
  Scheduler scheduler_{clock_, seconds(1)};
};

TEST_F(SchedulerTest, TheFirstRunIsSoonAfterTheStart) {
  scheduler_.Set("app", minutes(15), std::nullopt);
  EXPECT_THAT(scheduler_.Due(), IsEmpty());
  EXPECT_EQ(scheduler_.UntilNext(minutes(1)), seconds(1));
  clock_.Advance(seconds(1));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app"));
}

TEST_F(SchedulerTest, RunsAtItsIntervalAndOneAtATime) {
  scheduler_.Set("app", minutes(15), clock_.Now());
  clock_.Advance(minutes(14));
  EXPECT_THAT(scheduler_.Due(), IsEmpty());
  clock_.Advance(minutes(1));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app"));
  scheduler_.Started("app");
  clock_.Advance(minutes(40));
  EXPECT_THAT(scheduler_.Due(), IsEmpty()) << "it still runs";
  scheduler_.Ended("app");
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app")) << "missed runs are caught up";
  scheduler_.Started("app");
  scheduler_.Ended("app");
  EXPECT_THAT(scheduler_.Due(), IsEmpty()) << "once";
}

TEST_F(SchedulerTest, ARestartNeitherSkipsNorRepeats) {
  scheduler_.Set("late", minutes(15), clock_.Now() - minutes(100));
  scheduler_.Set("fresh", minutes(15), clock_.Now() - minutes(1));
  clock_.Advance(seconds(2));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("late"));
}

TEST_F(SchedulerTest, AClockThatWasSetBackDoesNotStopIt) {
  scheduler_.Set("app", minutes(15), clock_.Now() + std::chrono::hours(1000));
  clock_.Advance(seconds(2));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app"));
}

TEST_F(SchedulerTest, AReloadKeepsTheTimesAndDropsWhatIsGone) {
  scheduler_.Set("a", minutes(15), clock_.Now());
  scheduler_.Set("b", minutes(15), clock_.Now());
  scheduler_.Set("a", minutes(5), std::nullopt);
  scheduler_.Keep({"a"});
  clock_.Advance(minutes(5));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("a"));
  clock_.Advance(minutes(50));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("a"));
}

}  // namespace
}  // namespace litefleet::control
