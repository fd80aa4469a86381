// What a device that went wrong must not push out; and policies that are not clear for a device.
#include <gtest/gtest.h>

#include "common/base/status.h"
#include "controller/retention/plan.h"
#include "controller/retention/retention.h"
#include "fmt/format.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::retention {
namespace {

const SystemTime kDay = FromUnixMillis(1'795'348'800'000);

std::vector<Snapshot> Daily(int count, int64_t bytes) {
  std::vector<Snapshot> snapshots;
  for (int i = 0; i < count; ++i) {
    snapshots.push_back({.id = SnapshotId(std::to_string(i)),
                         .sequence = i + 1,
                         .effective_at = kDay + std::chrono::hours(24) * i,
                         .size_bytes = bytes,
                         .good = true});
  }
  return snapshots;
}

void AddMany(std::vector<Snapshot>& snapshots, int count) {
  for (int i = 0; i < count; ++i) {
    snapshots.push_back(snapshots.back());
    snapshots.back().sequence += 1;
    snapshots.back().effective_at += std::chrono::minutes(1);
  }
}

TEST(AnomalyTest, ASmallDatabaseThatBecomesEmptyIsHeld) {
  auto snapshots = Daily(10, 400 << 10);
  snapshots.back().size_bytes = 4096;
  const auto found = FindAnomaly(snapshots, -1);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->reason, "SUDDENLY_SMALLER");
  auto tiny = Daily(10, 40 << 10);
  tiny.back().size_bytes = 4096;
  EXPECT_FALSE(FindAnomaly(tiny, -1).has_value()) << "a few pages come and go";
}

TEST(AnomalyTest, AsManyAsKeepLastAreHeldThoughTheyAreNotVeryMany) {
  auto snapshots = Daily(10, 16 << 20);
  AddMany(snapshots, 30);
  EXPECT_FALSE(FindAnomaly(snapshots, -1).has_value()) << "without keep_last they push nothing out";
  EXPECT_FALSE(FindAnomaly(snapshots, -1, 40).has_value()) << "some of those before stay";
  for (const int keep_last : {1, 20, 30}) {
    const auto found = FindAnomaly(snapshots, -1, keep_last);
    ASSERT_TRUE(found.has_value()) << keep_last;
    EXPECT_EQ(found->reason, "SUDDENLY_MANY");
  }
  auto few = Daily(10, 16 << 20);
  AddMany(few, 9);
  EXPECT_FALSE(FindAnomaly(few, -1, 5).has_value()) << "not ten times what is usual";
}

// One a second, thinned by tiers: all for a day, then one in ten minutes.
TEST(AnomalyTest, ASteadyStreamThatTiersThinIsNotHeld) {
  for (const int days : {1, 2, 3, 10}) {
    const int64_t seconds = int64_t{days} * 86'400 + 3600;
    std::vector<Snapshot> snapshots;
    for (int64_t second = 0; second < seconds; ++second) {
      if (seconds - second > 86'400 && second % 600 != 0) continue;
      snapshots.push_back({.id = SnapshotId(std::to_string(second)),
                           .sequence = second + 1,
                           .effective_at = kDay + std::chrono::seconds(second),
                           .size_bytes = 1 << 20,
                           .good = true});
    }
    const auto found = FindAnomaly(snapshots, -1, 1);
    EXPECT_FALSE(found.has_value()) << days << " days: " << found->message;
    // Were they one in 50 seconds until then, they are.
    if (days < 3) continue;
    for (Snapshot& snapshot : snapshots)
      snapshot.sequence = snapshot.sequence > seconds - 86'400 ? snapshot.sequence : snapshot.sequence / 50;
    ASSERT_TRUE(FindAnomaly(snapshots, -1, 1).has_value()) << days;
  }
}

TEST(AnomalyTest, ADeviceThatIsBackFromHolidaysIsNotHeld) {
  std::vector<Snapshot> snapshots;
  const auto add_day = [&](int day) {
    for (int hour = 0; hour < 24; ++hour) {
      snapshots.push_back({.id = SnapshotId(std::to_string(snapshots.size())),
                           .sequence = static_cast<int64_t>(snapshots.size()) + 1,
                           .effective_at = kDay + std::chrono::hours(24 * day + hour),
                           .size_bytes = 1 << 20,
                           .good = true});
    }
  };
  add_day(0);
  add_day(14);
  const auto found = FindAnomaly(snapshots, -1, 10);
  EXPECT_FALSE(found.has_value()) << found->message;
  // Twenty times as many are held all the same.
  AddMany(snapshots, 24 * 20);
  EXPECT_TRUE(FindAnomaly(snapshots, -1, 10).has_value());
}

// A rebuild leaves out as many numbers as records may have been lost.
TEST(AnomalyTest, NumbersThatWereLeftOutAreNotUsual) {
  auto snapshots = Daily(10, 16 << 20);
  for (size_t i = 5; i < snapshots.size(); ++i) snapshots[i].sequence += 100'000;
  EXPECT_FALSE(FindAnomaly(snapshots, -1, 20).has_value());
  AddMany(snapshots, 30);
  const auto found = FindAnomaly(snapshots, -1, 20);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->reason, "SUDDENLY_MANY");
}

class TiesTest : public ingest::IngestTest {};

TEST_F(TiesTest, ADeviceWithoutADatabaseHasThemToo) {
  Open();
  catalog::PolicyCatalog policies(*path_->db);
  catalog::DeletionCatalog deletions(*path_->db);
  const Retention retention(policies, deletions, [] { return absl::OkStatus(); });
  std::vector<Policy> two(2);
  two[0].name = "a";
  two[0].labels = {{"site", "oslo"}};
  two[1].name = "b";
  two[1].labels = {{"tier", "gold"}};
  EXPECT_TRUE(retention.CheckTies(two).ok());
  ASSERT_TRUE(path_->db
                  ->Write([&](sqlite3* db) {
                    return sqlite::Execute(db, fmt::format("insert into device (id, name, state, key_hash, enrolled_ms) values ('{0}', "
                                                           "'kiosk', 1, x'00', 0); insert into device_label values ('{0}', 'site', "
                                                           "'oslo'), ('{0}', 'tier', 'gold')",
                                                           device_.value()));
                  })
                  .ok());
  const absl::Status tie = retention.CheckTies(two);
  EXPECT_EQ(ReasonOf(tie), "POLICY_TIE");
  EXPECT_NE(tie.message().find("kiosk"), absl::string_view::npos) << tie;
}

}  // namespace
}  // namespace litefleet::retention
