// No clock decides what is kept: receipts, and the expiry of uploads, go by the controller's own time.
#include "common/base/status.h"
#include "controller/retention/controller_time.h"
#include "controller/retention/retention.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::retention {
namespace {

using fakes::FakeDatabase;
using std::chrono::hours;
using std::chrono::minutes;

class ReceiptTimeTest : public ingest::IngestTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    Open();
    policies_ = std::make_unique<catalog::PolicyCatalog>(*path_->db);
    time_ = std::make_unique<ControllerTime>(*policies_, clock_, "boot-1");
    ASSERT_TRUE(time_->Tick().ok());
    path_->now = [this]() -> absl::StatusOr<ingest::ControllerNow> {
      const auto now = time_->Now();
      if (!now.ok()) return now.status();
      return ingest::ControllerNow{.time = now->time, .on_hold = !now->hold.empty()};
    };
  }
  v1::Snapshot Take(unsigned seed) {
    const auto outcome = Upload(FakeDatabase::Make(4096, 70, seed), device_);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    return path_->snapshots->Resolve(outcome.snapshot_id).value_or(v1::Snapshot());
  }
  static int64_t Millis(const google::protobuf::Timestamp& time) { return time.seconds() * 1000 + time.nanos() / 1'000'000; }

  std::unique_ptr<catalog::PolicyCatalog> policies_;
  std::unique_ptr<ControllerTime> time_;
};

TEST_F(ReceiptTimeTest, AJumpIsNotFollowedInEitherDirection) {
  const SystemTime begun = clock_.Now();
  Take(1);
  for (const hours jump : {-hours(24 * 365 * 50), hours(24 * 400)}) {
    const SystemTime before = clock_.Now();
    clock_.JumpSystem(jump);
    clock_.Advance(minutes(1));
    // The device is heard by the clock that has jumped.
    path_->previous_contact = clock_.Now();
    const v1::Snapshot snapshot = Take(2 + static_cast<unsigned>(jump.count() > 0));
    EXPECT_EQ(Millis(snapshot.received_at()), ToUnixMillis(before + minutes(1))) << "the boot clock tells";
    EXPECT_EQ(Millis(snapshot.effective_at()), Millis(snapshot.received_at()) - 1000) << "a second old, as the device says";
    clock_.JumpSystem(-jump);
    EXPECT_EQ(ToUnixMillis(*time_->Trusted()), ToUnixMillis(before + minutes(1))) << "it came back, and the hold has ended";
  }
  EXPECT_EQ(ToUnixMillis(clock_.Now()), ToUnixMillis(begun + minutes(2)));
}

TEST_F(ReceiptTimeTest, WhatCameUnderAClockThatWasBackIsNotDroppedWhenItIsSet) {
  catalog::DeletionCatalog deletions(*path_->db);
  Retention retention(*policies_, deletions, [] { return absl::OkStatus(); });
  ASSERT_TRUE(policies_->Put("p", "name = \"p\"\n[retention]\ntiers = [{every = \"all\", for = \"720h\"}]\n", clock_.Now()).ok());
  clock_.JumpSystem(-hours(24 * 365 * 50));
  for (unsigned i = 0; i < 5; ++i) {
    clock_.Advance(hours(1));
    Take(i);
  }
  clock_.JumpSystem(hours(24 * 365 * 50));
  const auto now = time_->Trusted();
  ASSERT_TRUE(now.ok()) << now.status();
  ASSERT_TRUE(retention.Run(*now, [] { return false; }).ok());
  EXPECT_EQ(path_->snapshots->List(device_, "", 100, "")->items.size(), 5U);
}

TEST_F(ReceiptTimeTest, AReadingGoesOnBetweenTicksAndNeverBack) {
  const SystemTime first = time_->Now()->time;
  clock_.Advance(minutes(3));
  EXPECT_EQ(time_->Now()->time - first, minutes(3));
  clock_.JumpSystem(-minutes(2));  // as a clock that is kept right by the network
  EXPECT_EQ(time_->Now()->time - first, minutes(3));
  EXPECT_EQ(time_->Tick()->time - first, minutes(3));
  clock_.Advance(minutes(4));
  EXPECT_EQ(time_->Now()->time - first, minutes(5));
  clock_.JumpSystem(hours(24 * 30));
  EXPECT_FALSE(time_->Now()->hold.empty()) << "seen before the next tick";
  ASSERT_TRUE(time_->Tick().ok());
  ASSERT_TRUE(time_->Confirm().ok());
  EXPECT_TRUE(time_->Now()->hold.empty());
  EXPECT_EQ(ToUnixMillis(time_->Now()->time), ToUnixMillis(clock_.Now()));
  clock_.JumpSystem(-hours(24 * 30));
  ASSERT_TRUE(time_->Tick().ok());
  ASSERT_TRUE(time_->Confirm().ok()) << "it was wrong the first time";
  EXPECT_EQ(ToUnixMillis(time_->Now()->time), ToUnixMillis(clock_.Now()));
}

TEST_F(ReceiptTimeTest, UploadsDoNotExpireWhileTheClockIsOnHold) {
  const auto sessions = [this] { return path_->Count("select count(*) from upload_session where state = 1"); };
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 4, 1);
  fakes::RunUpload(*path_->ingest, device_, database, {.session_id = NewSession(), .stop_after_chunks = 2});
  ASSERT_EQ(sessions(), 1);
  ASSERT_GT(path_->Count("select count(*) from claim"), 0);
  clock_.JumpSystem(hours(24 * 8));
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(sessions(), 1) << "eight days have not passed";
  EXPECT_GT(path_->Count("select count(*) from claim"), 0);
  // One that was cancelled goes all the same.
  ASSERT_TRUE(path_->db->Write([](sqlite3* db) { return sqlite::Execute(db, "update upload_session set expires_at = 0"); }).ok());
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(sessions(), 0);
  clock_.JumpSystem(-hours(24 * 8));
  fakes::RunUpload(*path_->ingest, device_, database, {.session_id = NewSession(), .stop_after_chunks = 2});
  ASSERT_EQ(sessions(), 1);
  clock_.Advance(hours(24 * 8));
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(sessions(), 0);
}

}  // namespace
}  // namespace litefleet::retention
