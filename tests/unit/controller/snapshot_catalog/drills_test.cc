// Which snapshots are drilled when: the newest of every database first, those that waited longest before the others.
#include <gmock/gmock.h>

#include <map>
#include <set>

#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::catalog {
namespace {

using fakes::FakeDatabase;
using std::chrono::hours;
using testing::ElementsAre;

constexpr hours kWeek{24 * 7};
constexpr hours kQuarter{24 * 90};

class DrillsTest : public ingest::IngestTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    Open();
  }
  std::string Take(const DeviceId& device, const std::string& database) {
    clock_.Advance(hours(1));
    const auto outcome =
        fakes::RunUpload(*path_->ingest, device, FakeDatabase::Make(4096, 10, ++seed_), {.session_id = NewSession(), .database = database});
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    return outcome.snapshot_id;
  }
  // Drills as long as one is due, an hour each; in their order.
  std::vector<std::string> DrillAll() {
    std::vector<std::string> drilled;
    for (int i = 0; i < 50; ++i) {
      const auto due = path_->snapshots->DrillsDue(clock_.Now() - kWeek, clock_.Now() - kQuarter, 100);
      EXPECT_TRUE(due.ok()) << due.status();
      if (!due.ok() || due->empty()) return drilled;
      drilled.push_back(due->front().id());
      EXPECT_TRUE(path_->snapshots->SetDrilled(SnapshotId(drilled.back()), clock_.Now(), std::chrono::milliseconds(5)).ok());
      clock_.Advance(hours(1));
    }
    ADD_FAILURE() << "it never ends";
    return drilled;
  }
  unsigned seed_ = 0;
};

TEST_F(DrillsTest, TheNewestOfEveryDatabaseFirstThenTheOthersByAge) {
  const std::string a1 = Take(device_, "orders"), b1 = Take(device_, "stock"), c1 = Take(other_, "orders");
  const std::string a2 = Take(device_, "orders"), c2 = Take(other_, "orders"), c3 = Take(other_, "orders");
  EXPECT_THAT(DrillAll(), ElementsAre()) << "they are as new as a drill";
  clock_.Advance(kWeek);
  EXPECT_THAT(DrillAll(), ElementsAre(c3, a2, b1)) << "never drilled, the newest of them first";
  clock_.Advance(kQuarter);
  const std::vector<std::string> all = DrillAll();
  EXPECT_THAT(all, ElementsAre(c3, a2, b1, c2, c1, a1)) << "a database's newest, whatever is due of others";
  // A new backup takes its place; what was the newest is one of the others now.
  const std::string b2 = Take(device_, "stock");
  clock_.Advance(kWeek);
  EXPECT_THAT(DrillAll(), ElementsAre(b2, c3, a2)) << "that of long ago before those that were drilled";
}

TEST_F(DrillsTest, WhatCannotBeRestoredOrIsBeingCheckedIsNotDrilled) {
  const std::string damaged = Take(device_, "orders"), pending = Take(device_, "stock"), good = Take(other_, "orders");
  clock_.Advance(kWeek);
  ASSERT_TRUE(path_->db
                  ->Write([&](sqlite3* db) {
                    return sqlite::Execute(
                        db, "update snapshot set state = 2 where id = '" + damaged + "'; update snapshot set check_state = " +
                                std::to_string(static_cast<int>(v1::CHECK_STATE_PENDING)) + " where id = '" + pending + "'");
                  })
                  .ok());
  EXPECT_THAT(DrillAll(), ElementsAre(good));
}

}  // namespace
}  // namespace litefleet::catalog
