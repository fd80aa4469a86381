#include "agent/control/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <set>
#include <string>

namespace litefleet::control {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

using config::Schedule;

Scheduler::Plan Every(minutes interval) { return {Schedule::Parse(std::to_string(interval.count()) + "m").value()}; }
Scheduler::Plan By(std::string_view text) { return {Schedule::Parse(text).value()}; }

class SchedulerTest : public testing::Test {
 protected:
  FakeClock clock_;
  Scheduler scheduler_{clock_, seconds(1)};
};

TEST_F(SchedulerTest, TheFirstRunIsSoonAfterTheStart) {
  scheduler_.Set("app", Every(minutes(15)), {});
  EXPECT_THAT(scheduler_.Due(), IsEmpty());
  EXPECT_EQ(scheduler_.UntilNext(minutes(1)), seconds(1));
  clock_.Advance(seconds(1));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app"));
}

TEST_F(SchedulerTest, RunsAtItsIntervalAndOneAtATime) {
  scheduler_.Set("app", Every(minutes(15)), {clock_.Now()});
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
  scheduler_.Set("late", Every(minutes(15)), {clock_.Now() - minutes(100)});
  scheduler_.Set("fresh", Every(minutes(15)), {clock_.Now() - minutes(1)});
  clock_.Advance(seconds(2));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("late"));
}

TEST_F(SchedulerTest, AClockThatWasSetBackDoesNotStopIt) {
  scheduler_.Set("app", Every(minutes(15)), {clock_.Now() + std::chrono::hours(1000)});
  clock_.Advance(seconds(2));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app"));
}

TEST_F(SchedulerTest, AReloadKeepsTheTimesAndDropsWhatIsGone) {
  scheduler_.Set("a", Every(minutes(15)), {clock_.Now()});
  scheduler_.Set("b", Every(minutes(15)), {clock_.Now()});
  scheduler_.Set("a", Every(minutes(5)), {});
  scheduler_.Keep({"a"});
  clock_.Advance(minutes(5));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("a"));
  clock_.Advance(minutes(50));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("a"));
}

TEST_F(SchedulerTest, WhatIsHeldIsNotDueAndItsLatenessCountsFromItsSchedule) {
  scheduler_.Set("app", Every(minutes(15)), {clock_.Now()});
  clock_.Advance(minutes(14));
  EXPECT_EQ(scheduler_.LateBy("app"), milliseconds(0));
  clock_.Advance(minutes(3));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app"));
  EXPECT_EQ(scheduler_.LateBy("app"), minutes(2));
  scheduler_.Hold("app", seconds(10));
  EXPECT_THAT(scheduler_.Due(), IsEmpty());
  EXPECT_EQ(scheduler_.UntilNext(minutes(1)), seconds(10));
  // A reload changes nothing of that.
  scheduler_.Set("app", Every(minutes(15)), {});
  EXPECT_THAT(scheduler_.Due(), IsEmpty());
  clock_.Advance(seconds(10));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app"));
  EXPECT_EQ(scheduler_.LateBy("app"), minutes(2) + seconds(10));
  scheduler_.Hold("app", minutes(5));
  scheduler_.Started("app");
  scheduler_.Ended("app");
  EXPECT_EQ(scheduler_.LateBy("app"), milliseconds(0));
  clock_.Advance(minutes(15));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app")) << "a run ends what held it";
  // After a restart as well, and of one that never ran since the start.
  Scheduler restarted(clock_, seconds(1));
  restarted.Set("app", Every(minutes(15)), {clock_.Now() - minutes(20)});
  restarted.Set("new", Every(minutes(15)), {});
  EXPECT_EQ(restarted.LateBy("app"), minutes(5));
  EXPECT_EQ(restarted.LateBy("new"), milliseconds(0));
  clock_.Advance(minutes(3));
  EXPECT_EQ(restarted.LateBy("new"), minutes(3) - seconds(1));
  EXPECT_EQ(restarted.LateBy("unknown"), milliseconds(0));
}

// The fake clock begins on a whole hour.
class CronTest : public SchedulerTest {
 protected:
  CronTest() {
    setenv("TZ", "UTC", 1);
    tzset();
    const auto into = clock_.Now().time_since_epoch() % hours(24);
    clock_.Advance(hours(24) - into);  // midnight
  }
};

TEST_F(CronTest, RunsAtItsTimesAndCatchesUpOnce) {
  scheduler_.Set("app", By("30 2 * * *"), {clock_.Now()});
  clock_.Advance(hours(2) + minutes(29));
  EXPECT_THAT(scheduler_.Due(), IsEmpty());
  EXPECT_EQ(scheduler_.UntilNext(hours(1)), minutes(1));
  clock_.Advance(minutes(1));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app"));
  scheduler_.Started("app");
  scheduler_.Ended("app");
  EXPECT_THAT(scheduler_.Due(), IsEmpty());
  clock_.Advance(hours(24 * 5));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app")) << "five nights were missed";
  scheduler_.Started("app");
  scheduler_.Ended("app");
  EXPECT_THAT(scheduler_.Due(), IsEmpty()) << "and are caught up by one run";
}

TEST_F(CronTest, WhatHasNoBackupDoesNotWaitForTheNight) {
  scheduler_.Set("app", By("30 2 * * *"), {});
  clock_.Advance(seconds(1));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app"));
}

TEST_F(CronTest, AClockThatJumpsDoesNotStopIt) {
  scheduler_.Set("app", By("30 2 * * *"), {clock_.Now()});
  clock_.JumpSystem(hours(3));
  clock_.Advance(seconds(1));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app")) << "forward over its time";
  scheduler_.Started("app");
  scheduler_.Ended("app");
  clock_.JumpSystem(-hours(24 * 3000));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app")) << "back before its last run";
  scheduler_.Started("app");
  scheduler_.Ended("app");
  EXPECT_THAT(scheduler_.Due(), IsEmpty()) << "once";
}

TEST_F(CronTest, ATimeThatNeverComesIsNeverDue) {
  scheduler_.Set("app", By("0 0 30 2 *"), {clock_.Now()});
  clock_.Advance(hours(24 * 700));
  EXPECT_THAT(scheduler_.Due(), IsEmpty());
  EXPECT_EQ(scheduler_.UntilNext(hours(1)), hours(1));
}

TEST_F(CronTest, OncePerBoot) {
  scheduler_.Set("ran", By("at-boot"), {clock_.Now(), true});
  scheduler_.Set("did_not", By("at-boot"), {clock_.Now() - hours(1), false});
  clock_.Advance(seconds(1));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("did_not"));
  scheduler_.Started("did_not");
  scheduler_.Ended("did_not");
  clock_.JumpSystem(hours(24 * 3000));
  EXPECT_THAT(scheduler_.Due(), IsEmpty()) << "a clock that was set is no boot";
}

TEST_F(CronTest, JitterIsTheDevicesOwnAndStaysWhatItIs) {
  const milliseconds most = minutes(10);
  std::set<int64_t> seen;
  for (int device = 0; device < 200; ++device) {
    const std::string id = "device-" + std::to_string(device);
    const milliseconds jitter = JitterOf(id, "app", most);
    EXPECT_EQ(JitterOf(id, "app", most), jitter);
    EXPECT_GE(jitter, milliseconds(0));
    EXPECT_LT(jitter, most);
    seen.insert(jitter / minutes(1));
  }
  EXPECT_EQ(seen.size(), 10u) << "all over the ten minutes";
  EXPECT_EQ(JitterOf("a", "b", milliseconds(0)), milliseconds(0));
  Scheduler::Plan plan = By("30 2 * * *");
  plan.jitter = minutes(7);
  scheduler_.Set("app", plan, {clock_.Now()});
  clock_.Advance(hours(2) + minutes(36));
  EXPECT_THAT(scheduler_.Due(), IsEmpty());
  clock_.Advance(minutes(1));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app"));
}

TEST_F(CronTest, WhatIsLateAtTheStartIsSpread) {
  Scheduler::Plan plan = Every(minutes(60));
  plan.jitter = minutes(30);
  Scheduler started(clock_, seconds(1));
  started.Set("app", plan, {clock_.Now() - hours(10)});
  clock_.Advance(minutes(5));
  EXPECT_THAT(started.Due(), IsEmpty());
  clock_.Advance(minutes(1) + seconds(1));
  EXPECT_THAT(started.Due(), ElementsAre("app")) << "by no more than a tenth of the interval";
}

TEST_F(CronTest, RunsBeginWithinTheWindow) {
  Scheduler::Plan plan = Every(minutes(60));
  plan.window = config::DayWindow::Parse("22:00-06:00");
  scheduler_.Set("app", plan, {clock_.Now() - hours(10)});
  clock_.Advance(seconds(1));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app")) << "midnight is within";
  clock_.Advance(hours(6));
  EXPECT_THAT(scheduler_.Due(), IsEmpty());
  EXPECT_EQ(scheduler_.UntilNext(hours(24)), hours(16) - seconds(1));
  clock_.Advance(hours(16));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app")) << "once, when it opens";
}

}  // namespace
}  // namespace litefleet::control
