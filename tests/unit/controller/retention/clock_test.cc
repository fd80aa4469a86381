// Which readings of a machine's clock the controller believes.
#include "common/base/status.h"
#include "controller/ingest/snapshot_record.h"
#include "controller/retention/controller_time.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::retention {
namespace {

using std::chrono::hours;
using std::chrono::minutes;

class ClockTest : public ingest::IngestTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    Open();
    policies_ = std::make_unique<catalog::PolicyCatalog>(*path_->db);
    Boot("boot-1", true);
    EXPECT_TRUE(time_->Trusted().ok());
  }
  void Boot(const std::string& id, bool synchronized) {
    synchronized_ = synchronized;
    time_ = std::make_unique<ControllerTime>(*policies_, clock_, id, [this] { return synchronized_; });
  }
  std::string Reason() { return ReasonOf(time_->Trusted().status()); }
  SystemTime Time() { return time_->Tick()->time; }

  std::unique_ptr<catalog::PolicyCatalog> policies_;
  bool synchronized_ = true;
  std::unique_ptr<ControllerTime> time_;
};

// Off for eight hours, and no clock that goes on: it begins where it stood, until the network has set it.
TEST_F(ClockTest, AClockThatIsSetLateInABootIsBelievedOnce) {
  clock_.Advance(minutes(2));
  clock_.JumpSystem(-minutes(1));
  Boot("boot-2", false);
  EXPECT_EQ(Reason(), "");
  clock_.Advance(minutes(2));
  EXPECT_EQ(Reason(), "");
  clock_.JumpSystem(hours(8));
  EXPECT_TRUE(time_->Now()->hold.empty());
  EXPECT_EQ(Reason(), "");
  EXPECT_EQ(ToUnixMillis(Time()), ToUnixMillis(clock_.Now()));
  clock_.Advance(minutes(5));
  EXPECT_EQ(Reason(), "");
  clock_.JumpSystem(hours(8));
  EXPECT_EQ(Reason(), "CLOCK_ON_HOLD") << "once";
}

TEST_F(ClockTest, ABootIn1970IsOnHoldUntilTheClockIsSet) {
  const SystemTime last = Time();
  clock_.JumpSystem(-hours(24 * 365 * 50));
  Boot("boot-2", false);
  EXPECT_EQ(Reason(), "CLOCK_ON_HOLD");
  EXPECT_EQ(Time(), last) << "not a second is known to have passed";
  clock_.Advance(minutes(3));
  EXPECT_EQ(Time() - last, minutes(3));
  // The controller is started again in the same boot.
  Boot("boot-2", false);
  EXPECT_EQ(Reason(), "CLOCK_ON_HOLD");
  clock_.JumpSystem(hours(24 * 365 * 50) + hours(8));
  EXPECT_EQ(Reason(), "");
  EXPECT_EQ(ToUnixMillis(Time()), ToUnixMillis(clock_.Now()));
  clock_.JumpSystem(-hours(1));
  EXPECT_EQ(Reason(), "CLOCK_ON_HOLD");
}

// The first start of all, of a machine whose clock the network sets a minute later.
TEST_F(ClockTest, NothingGoesByAClockThatWasNeverSet) {
  ASSERT_TRUE(path_->db->Write([](sqlite::Connection db) { return sqlite::Execute(db, "delete from controller_time"); }).ok());
  clock_.JumpSystem(-hours(24 * 365 * 50));
  for (int start = 0; start < 2; ++start) {
    Boot("boot-2", false);
    EXPECT_EQ(Reason(), "CLOCK_ON_HOLD");
    EXPECT_LT(time_->Now()->time, ControllerTime::kNoClockBefore);
    EXPECT_EQ(ReasonOf(time_->Confirm()), "CLOCK_NOT_SET");
    clock_.Advance(minutes(1));
    EXPECT_EQ(Reason(), "CLOCK_ON_HOLD");
  }
  clock_.JumpSystem(hours(24 * 365 * 50));
  EXPECT_TRUE(time_->Now()->hold.empty()) << "no operator has to come";
  EXPECT_EQ(Reason(), "");
  EXPECT_EQ(ToUnixMillis(Time()), ToUnixMillis(clock_.Now()));
  clock_.Advance(minutes(5));
  EXPECT_EQ(Reason(), "");
  clock_.JumpSystem(hours(24 * 40));
  EXPECT_EQ(Reason(), "CLOCK_ON_HOLD") << "from here on as ever";
}

TEST_F(ClockTest, OneThatIsSynchronizedIsNotSetAgain) {
  Boot("boot-2", false);
  EXPECT_EQ(Reason(), "");
  synchronized_ = true;
  EXPECT_EQ(Reason(), "");
  synchronized_ = false;
  clock_.JumpSystem(hours(8));
  EXPECT_EQ(Reason(), "CLOCK_ON_HOLD");
}

TEST_F(ClockTest, AfterADayOfABootNothingIsSetAnyMore) {
  Boot("boot-2", false);
  EXPECT_EQ(Reason(), "");
  clock_.Advance(hours(25));
  EXPECT_EQ(Reason(), "");
  clock_.JumpSystem(hours(8));
  EXPECT_EQ(Reason(), "CLOCK_ON_HOLD");
}

TEST_F(ClockTest, MoreThanAMachineMayRestIsNotBelieved) {
  Boot("boot-2", false);
  EXPECT_EQ(Reason(), "");
  clock_.JumpSystem(hours(24 * 31));
  EXPECT_EQ(Reason(), "CLOCK_ON_HOLD");
}

TEST_F(ClockTest, SmallStepsDoNotAddUp) {
  const SystemTime begun = Time();
  std::string reason;
  for (int i = 0; i < 60 && reason.empty(); ++i) {
    clock_.JumpSystem(minutes(9));
    clock_.Advance(minutes(1));
    reason = Reason();
  }
  EXPECT_EQ(reason, "CLOCK_ON_HOLD");
  EXPECT_LT(Time() - begun, minutes(15));
}

TEST_F(ClockTest, ADriftOfMinutesADayIsFollowed) {
  for (int i = 0; i < 24 * 14; ++i) {
    clock_.Advance(hours(1));
    clock_.JumpSystem(std::chrono::seconds(20));
    ASSERT_EQ(Reason(), "") << i;
  }
  EXPECT_EQ(ToUnixMillis(Time()), ToUnixMillis(clock_.Now()));
}

TEST_F(ClockTest, WhatADeviceSaysIsKeptWhereItAgreesWithTheClockThatIsOnHold) {
  path_->now = [this]() -> absl::StatusOr<ingest::ControllerNow> {
    const auto now = time_->Now();
    if (!now.ok()) return now.status();
    return ingest::ControllerNow{.time = now->time, .on_hold = !now->hold.empty()};
  };
  const auto taken_at = [&](unsigned seed, SystemTime taken) {
    v1::UploadBegin begin;
    v1::UploadCommit commit;
    commit.mutable_taken_at()->set_seconds(ToUnixMillis(taken) / 1000);
    commit.mutable_age()->set_seconds(5);
    ingest::RecordFacts facts;
    facts.snapshot = SnapshotId(std::to_string(seed));
    facts.manifest.layers.push_back({.id = facts.snapshot.value(), .parts = 1, .bytes = 1});
    const auto now = path_->now();
    facts.received_at = now->time;
    if (now->on_hold) facts.system_time = clock_.Now();
    return ingest::MakeSnapshotRecord(begin, commit, facts).taken_at_ms() / 1000;
  };
  const auto seconds = [](SystemTime time) { return ToUnixMillis(time) / 1000; };
  EXPECT_EQ(taken_at(1, clock_.Now() + hours(3)), seconds(clock_.Now()) - 5) << "a device whose clock is wrong";
  clock_.JumpSystem(hours(8));
  ASSERT_EQ(Reason(), "CLOCK_ON_HOLD");
  EXPECT_EQ(taken_at(2, clock_.Now() - std::chrono::seconds(5)), seconds(clock_.Now()) - 5) << "both say so";
  EXPECT_EQ(taken_at(3, clock_.Now() + hours(3)), seconds(time_->Now()->time) - 5);
}

}  // namespace
}  // namespace litefleet::retention
