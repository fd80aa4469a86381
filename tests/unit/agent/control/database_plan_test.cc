// From the text of agent.toml and from a policy to the moment at which a database is due.
#include "agent/control/database_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <string>

#include "agent/config/policy.h"

namespace litefleet::control {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr char kDevice[] = "11111111-1111-4111-8111-111111111111";

class DatabasePlanTest : public testing::Test {
 protected:
  DatabasePlanTest() {
    setenv("TZ", "UTC", 1);
    tzset();
    clock_.Advance(hours(24) - clock_.Now().time_since_epoch() % hours(24));  // midnight
    kept_.set_last_run_at_ms(ToUnixMillis(clock_.Now()));
    kept_.set_last_run_boot_id("this boot");
  }
  // The first database of an agent.toml with these settings, under a policy with this schedule; empty: without one.
  static config::DatabaseConfig Configured(const std::string& settings, const std::string& by_policy = {}) {
    const auto own = config::ParseConfig(
        "state = \"/var/lib/litefleet\"\ncontroller = \"c:1\"\n[[database]]\nname = \"app\"\npath = \"/a\"\n" + settings, "agent.toml");
    EXPECT_TRUE(own.ok()) << own.status();
    v1::DevicePolicy policy;
    if (!by_policy.empty()) policy.mutable_defaults()->set_schedule(by_policy);
    config::RuledConfig ruled = config::ApplyPolicy(*own, policy);
    EXPECT_THAT(ruled.problems, IsEmpty());
    return ruled.config.databases.at(0);
  }
  void Follow(const config::DatabaseConfig& database, bool once = false, std::string_view boot_id = "this boot") {
    scheduler_.Set("app", PlanOf(database, kDevice, once), LastRunOf(kept_, boot_id));
  }

  FakeClock clock_;
  Scheduler scheduler_{clock_, milliseconds(0)};
  storage::v1::AgentDatabase kept_;
};

constexpr char kWindowAndJitter[] = "window = \"02:00-04:00\"\njitter = \"10m\"\n";

TEST_F(DatabasePlanTest, ATimeAWindowAndAJitterOfTheConfigurationAreKept) {
  const milliseconds jitter = JitterOf(kDevice, "app", minutes(10));
  ASSERT_GT(jitter, milliseconds(1));
  for (const bool by_policy : {false, true}) {
    SCOPED_TRACE(by_policy);
    const auto database =
        by_policy ? Configured(kWindowAndJitter, "30 * * * *") : Configured("schedule = \"30 * * * *\"\n" + std::string(kWindowAndJitter));
    FakeClock clock;
    clock.Advance(clock_.Now() - clock.Now());
    Scheduler scheduler(clock, milliseconds(0));
    scheduler.Set("app", PlanOf(database, kDevice, false), LastRunOf(kept_, "this boot"));
    // Not at half past midnight, nor at half past one: the window opens at two, for what is late.
    clock.Advance(hours(2) - milliseconds(1));
    EXPECT_THAT(scheduler.Due(), IsEmpty());
    clock.Advance(milliseconds(1));
    EXPECT_THAT(scheduler.Due(), ElementsAre("app"));
    scheduler.Started("app");
    scheduler.Ended("app");
    clock.Advance(minutes(30) + jitter - milliseconds(1));
    EXPECT_THAT(scheduler.Due(), IsEmpty());
    clock.Advance(milliseconds(1));
    EXPECT_THAT(scheduler.Due(), ElementsAre("app"));
  }
}

TEST_F(DatabasePlanTest, AnAgentThatEndsWaitsForNoJitter) {
  Follow(Configured("schedule = \"30 2 * * *\"\njitter = \"10m\"\n"), /*once=*/true);
  clock_.Advance(hours(2) + minutes(30));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app"));
}

TEST_F(DatabasePlanTest, OncePerBootByTheConfigurationAndByAPolicy) {
  for (const auto& database : {Configured("schedule = \"at-boot\"\n"), Configured("", "at-boot")}) {
    scheduler_.Keep({});
    Follow(database);
    clock_.Advance(hours(24));
    EXPECT_THAT(scheduler_.Due(), IsEmpty());
    // What it knows of a run itself is newer than what is kept.
    for (const char* boot_id : {"another boot", ""}) {
      scheduler_.Keep({});
      Follow(database, false, boot_id);
      EXPECT_THAT(scheduler_.Due(), ElementsAre("app")) << boot_id;
    }
  }
  // An agent of before has kept no boot.
  scheduler_.Keep({});
  kept_.clear_last_run_boot_id();
  Follow(Configured("schedule = \"at-boot\"\n"));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app"));
}

TEST_F(DatabasePlanTest, WhatNeverRanIsDueAtOnce) {
  kept_.Clear();
  Follow(Configured("schedule = \"30 2 * * *\"\n"));
  EXPECT_THAT(scheduler_.Due(), ElementsAre("app"));
}

}  // namespace
}  // namespace litefleet::control
