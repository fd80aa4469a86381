// Plans as a pure function, policies as text, and a clock that nobody believes blindly.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "common/base/status.h"
#include "controller/retention/controller_time.h"
#include "controller/retention/plan.h"
#include "controller/retention/retention.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::retention {
namespace {

using std::chrono::hours;
using std::chrono::minutes;

const SystemTime kNow = FromUnixMillis(1'795'348'800'000);

std::vector<Snapshot> Every(minutes step, int count, int64_t size = 16 << 20) {
  std::vector<Snapshot> snapshots;
  for (int i = 0; i < count; ++i) {
    snapshots.push_back({.id = SnapshotId(std::to_string(i)),
                         .sequence = i + 1,
                         .effective_at = kNow - step * (count - 1 - i),
                         .size_bytes = size,
                         .good = true});
  }
  return snapshots;
}

size_t Kept(const std::vector<Verdict>& verdicts) {
  return static_cast<size_t>(std::count_if(verdicts.begin(), verdicts.end(), [](const Verdict& verdict) { return verdict.keep; }));
}

TEST(PolicyTest, IsReadStrictly) {
  const auto policy = ParsePolicy(
      "name = \"p\"\nselector = \"a=b,c=d\"\n[retention]\nkeep_last = 2\nfloor = 3\ntiers = [{every = \"all\", for = \"24h\"}, {every = "
      "\"1h\", "
      "for = \"7d\"}]\n",
      "p.toml");
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_EQ(policy->labels.size(), 2u);
  ASSERT_EQ(policy->tiers.size(), 2u);
  EXPECT_EQ(policy->tiers[0].every.count(), 0);
  EXPECT_EQ(policy->tiers[1].keep_for, hours(24 * 7));
  for (const char* bad :
       {"", "name = \"p\"", "name = \"p\"\n[retention]\nfloor = 1", "name = \"p\"\nselector = \"a\"\n[retention]\nkeep_last = 1",
        "name = \"p\"\n[retention]\ntiers = [{every = \"x\", for = \"1d\"}]", "name = \"p\"\n[retention]\nkeep_last = -1",
        "name = \"p\"\n[retention]\nkeep_last = 1\nkeep = 2", "name = \"p\"\n[backup]\nshedule = \"1h\"",
        "name = \"p\"\n[backup]\nschedule = \"whenever\"", "name = \"p\"\n[backup]\nmethod = \"rsync\"",
        "name = \"p\"\n[backup]\ncompression_level = 20", "name = \"p\"\n[[backup.database]]\nschedule = \"1h\"",
        "name = \"p\"\n[[backup.database]]\nname = \"a/b\"",
        "name = \"p\"\n[[backup.database]]\nname = \"a\"\n[[backup.database]]\nname = \"a\"", "name = \"p\"\n[limits]\nupload = 100",
        "name = \"p\"\n[limits]\ndownload = \"16KiB\"", "name = \"p\"\n[limits]\nuplod = \"1MiB\""}) {
    EXPECT_EQ(ReasonOf(ParsePolicy(bad, "p").status()), "CONFIG_INVALID") << bad;
  }
}

TEST(PolicyTest, CarriesWhatDevicesAreTold) {
  const auto policy = ParsePolicy(
      "name = \"p\"\n[backup]\nschedule = \"6h\"\nmethod = \"online\"\ncompression_level = 3\n[[backup.database]]\nname = \"orders\"\n"
      "schedule = \"never\"\n[limits]\nupload = \"2MiB\"\ndownload = 0\n",
      "p.toml");
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_FALSE(policy->retains);
  const v1::DevicePolicy& carried = policy->carried;
  EXPECT_EQ(carried.name(), "p");
  EXPECT_EQ(carried.defaults().schedule(), "6h");
  EXPECT_EQ(carried.defaults().method(), v1::METHOD_ONLINE);
  EXPECT_EQ(carried.defaults().compression_level(), 3);
  ASSERT_EQ(carried.databases_size(), 1);
  EXPECT_EQ(carried.databases(0).database(), "orders");
  EXPECT_EQ(carried.databases(0).schedule(), "never");
  EXPECT_FALSE(carried.databases(0).has_compression_level());
  EXPECT_EQ(carried.upload_bytes_per_second(), 2 << 20);
  EXPECT_TRUE(carried.has_download_bytes_per_second()) << "no limit is said, not left open";
  EXPECT_FALSE(ParsePolicy("name = \"p\"\n[retention]\nkeep_last = 1", "p")->carried.has_upload_bytes_per_second());
}

TEST(PolicyTest, CarriesWhatContinuousCaptureIsTold) {
  const auto policy = ParsePolicy(
      "name = \"p\"\n[backup]\nmethod = \"continuous\"\nsync_interval = \"250ms\"\nallow_restart_checkpoint = true\n[[backup.database]]\n"
      "name = \"orders\"\nsync_interval = \"5s\"\nallow_restart_checkpoint = false\n[[backup.database]]\nname = \"other\"\n",
      "p.toml");
  ASSERT_TRUE(policy.ok()) << policy.status();
  const v1::DatabasePolicy& all = policy->carried.defaults();
  EXPECT_EQ(all.method(), v1::METHOD_CONTINUOUS);
  EXPECT_EQ(all.sync_interval().nanos(), 250'000'000);
  EXPECT_TRUE(all.allow_restart_checkpoint());
  ASSERT_EQ(policy->carried.databases_size(), 2);
  const v1::DatabasePolicy& orders = policy->carried.databases(0);
  EXPECT_EQ(orders.method(), v1::METHOD_UNSPECIFIED);
  EXPECT_EQ(orders.sync_interval().seconds(), 5);
  EXPECT_TRUE(orders.has_allow_restart_checkpoint()) << "that it may not is said, not left open";
  EXPECT_FALSE(orders.allow_restart_checkpoint());
  const v1::DatabasePolicy& other = policy->carried.databases(1);
  EXPECT_FALSE(other.has_sync_interval());
  EXPECT_FALSE(other.has_allow_restart_checkpoint());
  for (const std::string bad :
       {"sync_interval = \"50ms\"", "sync_interval = \"2h\"", "allow_restart_checkpoint = 1", "method = \"continuos\""}) {
    EXPECT_EQ(ReasonOf(ParsePolicy("name = \"p\"\n[backup]\n" + bad, "p").status()), "CONFIG_INVALID") << bad;
  }
}

TEST(PolicyTest, TheMostSpecificOneIsCarried) {
  std::vector<Policy> policies(2);
  policies[0].labels = {{"site", "oslo"}};
  policies[0].carried.set_version(9);
  policies[1].labels = {{"site", "oslo"}, {"tier", "gold"}};
  policies[1].carried.set_version(4);
  EXPECT_EQ(CarriedTo(policies, {{"site", "oslo"}})->version(), 9);
  EXPECT_EQ(CarriedTo(policies, {{"site", "oslo"}, {"tier", "gold"}})->version(), 4);
  EXPECT_EQ(CarriedTo(policies, {})->version(), 0) << "none rules it";
  policies[0].labels = {{"tier", "gold"}, {"a", "b"}};
  EXPECT_EQ(ReasonOf(CarriedTo(policies, {{"site", "oslo"}, {"tier", "gold"}, {"a", "b"}}).status()), "POLICY_TIE");
}

TEST(PlanTest, TiersKeepOneAnInterval) {
  Policy policy;
  policy.tiers = {{.every = hours(1), .keep_for = hours(24), .text = "1h for 1d"}};
  const auto snapshots = Every(minutes(10), 6 * 48);
  const auto verdicts = Plan(snapshots, policy, kNow, "");
  EXPECT_GE(Kept(verdicts), 24u);
  EXPECT_LE(Kept(verdicts), 26u);
  EXPECT_TRUE(verdicts.back().keep);
  EXPECT_EQ(Kept(Plan(snapshots, policy, kNow, "SUDDENLY_MANY: x")), snapshots.size()) << "a hold keeps everything";
}

TEST(PlanTest, NeverTheNewestCheckedNorBelowTheFloor) {
  Policy policy;
  policy.tiers = {{.every = hours(1), .keep_for = hours(1), .text = "1h for 1h"}};
  policy.floor = 4;
  auto snapshots = Every(minutes(60 * 24), 30);
  snapshots[3].checked = true;
  snapshots[1].pinned = true;
  snapshots[2].ordered = true;
  const auto verdicts = Plan(snapshots, policy, kNow + hours(24 * 365), "");
  EXPECT_TRUE(verdicts[3].keep);
  EXPECT_TRUE(verdicts[1].keep);
  EXPECT_TRUE(verdicts[2].keep);
  EXPECT_EQ(Kept(verdicts), 4u);
}

TEST(PlanTest, APinHoldsUntilItsLimit) {
  Policy policy;
  policy.keep_last = 1;
  auto snapshots = Every(minutes(60), 3);
  snapshots[0].pinned = snapshots[1].pinned = true;
  snapshots[0].pinned_until = kNow + hours(1);
  const auto keep = [&](SystemTime now) { return Plan(snapshots, policy, now, "")[0].keep; };
  EXPECT_TRUE(keep(kNow));
  EXPECT_TRUE(keep(kNow + hours(1) - std::chrono::milliseconds(1)));
  EXPECT_FALSE(keep(kNow + hours(1)));
  EXPECT_FALSE(keep(kNow + hours(2)));
  EXPECT_TRUE(keep(FromUnixMillis(0))) << "a clock that was never set";
  EXPECT_TRUE(Plan(snapshots, policy, kNow + hours(24 * 36500), "")[1].keep) << "until it is unpinned";
}

// What the device knows of may be as much older as a power cut takes; it tells when it is heard again.
TEST(PlanTest, WhatASilentDeviceMayBuildOnStays) {
  Policy policy;
  policy.tiers = {{.every = minutes(10), .keep_for = hours(24), .text = "10m for 1d"}};
  std::vector<Snapshot> snapshots = Every(minutes(5), 20);
  for (int second = 1; second <= 300; ++second) {
    snapshots.push_back({.id = SnapshotId("s" + std::to_string(second)),
                         .sequence = 20 + second,
                         .effective_at = kNow + std::chrono::seconds(second),
                         .good = true,
                         .continuous = true});
  }
  const SystemTime later = kNow + hours(24 * 7);
  auto verdicts = Plan(snapshots, policy, later, "");
  EXPECT_EQ(Kept(verdicts), 61u);
  for (size_t i = snapshots.size() - 61; i < snapshots.size(); ++i) EXPECT_TRUE(verdicts[i].keep) << i;
  EXPECT_EQ(verdicts[snapshots.size() - 61].reasons, std::vector<std::string>{"the device may build on it"});
  // It was heard again.
  snapshots.push_back({.id = SnapshotId("later"), .sequence = 1000, .effective_at = later, .good = true, .continuous = true});
  verdicts = Plan(snapshots, policy, later, "");
  EXPECT_EQ(Kept(verdicts), 1u);
  EXPECT_TRUE(verdicts.back().keep);
}

TEST(PlanTest, PartsAreCountedApart) {
  Policy policy;
  policy.keep_last = 1;
  policy.floor = 2;
  auto snapshots = Every(minutes(60), 8);
  snapshots[1].part = "table b";
  for (const size_t i : {4, 6, 7}) snapshots[i].part = "table a";
  snapshots[7].checked = true;
  auto verdicts = Plan(snapshots, policy, kNow, "");
  const std::vector<bool> kept = {false, true, false, true, false, true, false, true};
  for (size_t i = 0; i < snapshots.size(); ++i) EXPECT_EQ(verdicts[i].keep, kept[i]) << i;
  EXPECT_EQ(verdicts[5].reasons.front(), "newest") << "of the whole ones, whatever came after it";
  // Nothing of them is a last resort: they go when their time is over.
  policy.keep_last = 0;
  policy.tiers = {{.every = hours(1), .keep_for = hours(24), .text = "1h for 1d"}};
  verdicts = Plan(snapshots, policy, kNow + hours(24 * 30), "");
  for (size_t i = 0; i < snapshots.size(); ++i) EXPECT_EQ(verdicts[i].keep, i == 3 || i == 5) << i;
}

TEST(PlanTest, ADeviceCannotKeepAllByNamingEachPartAnew) {
  Policy policy;
  policy.keep_last = 1;
  auto snapshots = Every(minutes(10), 200);
  for (size_t i = 0; i + 1 < snapshots.size(); ++i) snapshots[i].part = "tables of " + std::to_string(i);
  EXPECT_LE(Kept(Plan(snapshots, policy, kNow, "")), 18u);
}

TEST(PlanTest, APartIsNotSuddenlySmaller) {
  auto snapshots = Every(minutes(60), 30);
  snapshots.back().size_bytes = 100;
  snapshots.back().part = "schema only";
  EXPECT_FALSE(FindAnomaly(snapshots, -1).has_value());
  snapshots.push_back(snapshots.back());
  snapshots.back().sequence += 1;
  snapshots.back().part.clear();
  EXPECT_EQ(FindAnomaly(snapshots, -1)->reason, "SUDDENLY_SMALLER");
}

TEST(PlanTest, HoldsForWhatIsSuddenlyStrange) {
  auto snapshots = Every(minutes(60), 30);
  EXPECT_FALSE(FindAnomaly(snapshots, -1).has_value());
  snapshots.back().size_bytes = 100;
  EXPECT_EQ(FindAnomaly(snapshots, -1)->reason, "SUDDENLY_SMALLER");
  EXPECT_FALSE(FindAnomaly(snapshots, snapshots.back().sequence).has_value()) << "an operator has seen it";
  snapshots.back().size_bytes = int64_t{1} << 30;
  EXPECT_EQ(FindAnomaly(snapshots, -1)->reason, "SUDDENLY_LARGER");
  auto many = Every(minutes(60 * 24), 12);
  for (int i = 0; i < 300; ++i) {
    many.push_back(many.back());
    many.back().sequence += 1;
    many.back().effective_at += std::chrono::seconds(1);
  }
  EXPECT_EQ(FindAnomaly(many, -1)->reason, "SUDDENLY_MANY");
}

class RetentionTest : public ingest::IngestTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    Open();
  }
};

TEST_F(RetentionTest, TheRunDoesWhatTheSimulationSays) {
  catalog::PolicyCatalog policies(*path_->db);
  catalog::DeletionCatalog deletions(*path_->db);
  Retention retention(policies, deletions, [] { return absl::OkStatus(); });
  std::mt19937 random(7);
  for (unsigned i = 0; i < 40; ++i) {
    clock_.Advance(minutes(random() % 300));
    path_->previous_contact = clock_.Now();
    ASSERT_TRUE(Upload(fakes::FakeDatabase::Make(4096, 10, i), device_).status.ok());
  }
  for (int round = 0; round < 12; ++round) {
    const std::string text = "name = \"p\"\n[retention]\nkeep_last = " + std::to_string(random() % 5) +
                             "\nfloor = " + std::to_string(1 + random() % 3) + "\ntiers = [{every = \"" + std::to_string(1 + random() % 9) +
                             "h\", for = \"" + std::to_string(40 + random() % 200) + "h\"}]\n";
    ASSERT_TRUE(policies.Put("p", text, clock_.Now()).ok());
    const SystemTime now = clock_.Now() + hours(random() % 100);
    const auto databases = policies.DatabasesAfter(0, 10);
    const auto plan = retention.PlanFor((*databases)[0], *retention.Policies(), now);
    ASSERT_TRUE(plan.ok()) << plan.status();
    std::set<std::string> said;
    for (size_t i = 0; i < plan->snapshots.size(); ++i) {
      if (plan->verdicts[i].keep) said.insert(plan->snapshots[i].id.value());
    }
    ASSERT_TRUE(retention.Run(now, [] { return false; }).ok());
    std::set<std::string> left;
    const auto listed = path_->snapshots->List(device_, "", 1000, "");
    for (const v1::Snapshot& snapshot : listed->items) left.insert(snapshot.id());
    EXPECT_EQ(left, said);
    path_->db
        ->Write([](sqlite3* db) {
          return sqlite::Execute(
              db, "update snapshot set state = 1, trashed_at = -1; update database set snapshots = (select count(*) from snapshot)");
        })
        .IgnoreError();
  }
}

TEST_F(RetentionTest, AWeekThatArrivesAtOnceStaysAWeek) {
  catalog::PolicyCatalog policies(*path_->db);
  catalog::DeletionCatalog deletions(*path_->db);
  Retention retention(policies, deletions, [] { return absl::OkStatus(); });
  ASSERT_TRUE(
      policies.Put("p", "name = \"p\"\n[retention]\nkeep_last = 1\nfloor = 1\ntiers = [{every = \"24h\", for = \"720h\"}]\n", clock_.Now())
          .ok());
  ASSERT_TRUE(Upload(fakes::FakeDatabase::Make(4096, 10, 1), device_).status.ok());
  path_->previous_contact = clock_.Now();
  clock_.Advance(hours(24 * 8));
  // The device was offline, and took four snapshots a day: all come within a moment.
  for (int64_t i = 28; i > 0; --i) {
    const fakes::UploadOutcome outcome =
        fakes::RunUpload(*path_->ingest, device_, fakes::FakeDatabase::Make(4096, 10, static_cast<unsigned>(100 + i)),
                         {.session_id = NewSession(), .age_seconds = i * 6 * 3600});
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  }
  ASSERT_TRUE(retention.Run(clock_.Now(), [] { return false; }).ok());
  const auto left = path_->snapshots->List(device_, "", 1000, "");
  ASSERT_TRUE(left.ok());
  EXPECT_GE(left->items.size(), 7U) << "one a day, and not one alone";
  EXPECT_LE(left->items.size(), 10U);
}

TEST_F(RetentionTest, TimeNeverGoesBackAndAJumpIsHeld) {
  catalog::PolicyCatalog policies(*path_->db);
  ControllerTime time(policies, clock_, "boot-1");
  const auto first = time.Trusted();
  ASSERT_TRUE(first.ok()) << first.status();
  clock_.Advance(hours(1));
  EXPECT_EQ(*time.Trusted() - *first, hours(1));
  clock_.JumpSystem(hours(24 * 40));
  EXPECT_EQ(ReasonOf(time.Trusted().status()), "CLOCK_ON_HOLD");
  clock_.Advance(hours(2));
  EXPECT_EQ(ReasonOf(time.Trusted().status()), "CLOCK_ON_HOLD") << "waiting does not help";
  clock_.JumpSystem(-hours(24 * 40));
  EXPECT_EQ(*time.Trusted() - *first, hours(3)) << "the clock came back by itself";
  clock_.JumpSystem(-hours(24));
  EXPECT_EQ(ReasonOf(time.Trusted().status()), "CLOCK_ON_HOLD");
  ASSERT_TRUE(time.Confirm().ok());
  EXPECT_TRUE(time.Trusted().ok());
  EXPECT_EQ(ReasonOf(time.Confirm()), "HOLD_NOT_FOUND");
  ControllerTime rebooted(policies, clock_, "boot-2");
  clock_.JumpSystem(hours(24 * 20));
  EXPECT_TRUE(rebooted.Trusted().ok()) << "a machine may rest for weeks";
}

}  // namespace
}  // namespace litefleet::retention
