// States of a former boot: how old they are, and when they were taken, where the device's clock may not have been set.
#include <filesystem>

#include "tests/unit/agent/spool/spool_fixture.h"

namespace litefleet::spool {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr hours kAge{1};

class FormerBootTest : public SpoolTest {
 protected:
  // A state, a minute after the last one.
  void TakeOne() {
    Change(200);
    const Taken taken = TakeNow();
    ASSERT_TRUE(taken.status.ok()) << taken.status;
    ASSERT_FALSE(taken.id.empty());
    true_.push_back(ToUnixMillis(clock_.True()));
  }
  void Reboot(std::chrono::nanoseconds off, SystemTime says) {
    boot_id_ += "+";
    clock_.Reboot(off, says);
    Reopen();
  }
  absl::Status Expire() { return spool_->Expire("app", kAge, io::DiskReserve(0)); }
  // As an agent wrote them that did not know how long the machine had run.
  void ForgetRunTimes() {
    for (const SpooledSnapshot& snapshot : spool_->List("app")) {
      const auto file = SpoolFileReader::Open(snapshot.path).value();
      storage::v1::SpooledHeader header = snapshot.header;
      header.clear_taken_run_ms();
      const auto writer = SpoolFileWriter::Create(snapshot.path, header, {.max_bytes = 64 << 20, .reserve = io::DiskReserve(0)}).value();
      while (const auto chunk = file->Next().value()) ASSERT_TRUE(writer->Add(*chunk).ok());
      ASSERT_TRUE(writer->Finish(file->commit(), 1).ok());
    }
    std::filesystem::remove(directory_ + "/spooled/.run-time");
    Reopen();
  }
  // The controller's state before them, as whoever spools notes it.
  void NoteAcknowledged() {
    storage::v1::SpoolState state = spool_->ReadState("app");
    state.set_acknowledged_taken_at_ms(acknowledged_at_ms_);
    ASSERT_TRUE(spool_->WriteState("app", state).ok());
  }
  // taken_at of what arrives, in its order.
  std::vector<int64_t> Told() {
    const size_t before = controller_->commits().size();
    EXPECT_TRUE(DrainNow().ok());
    EXPECT_EQ(spool_->Total().snapshots, 0U);
    std::vector<int64_t> told;
    const auto commits = controller_->commits();
    for (size_t i = before; i < commits.size(); ++i) {
      told.push_back(TimestampMillis(commits[i].taken_at()));
      ages_.push_back(commits[i].has_age());
    }
    return told;
  }

  std::vector<int64_t> true_;  // when each was taken
  std::vector<bool> ages_;     // whether one was told with it
};

// ---- how old

TEST_F(FormerBootTest, AClockThatIsSetExpiresNothing) {
  BackUp();
  clock_.Set(SystemTime(minutes(5)));
  for (int i = 0; i < 3; ++i) TakeOne();
  Reboot(minutes(3), SystemTime(minutes(1)));
  clock_.Advance(minutes(2));
  clock_.Set(clock_.True());
  ASSERT_TRUE(Expire().ok());
  EXPECT_EQ(spool_->Total().snapshots, 3U);
  EXPECT_TRUE(gaps_->OpenGaps("").empty());
  // The first one is two minutes older than the boot that it was taken in got.
  clock_.Advance(minutes(56) + seconds(30));
  ASSERT_TRUE(Expire().ok());
  EXPECT_EQ(spool_->Total().snapshots, 2U);
  clock_.Advance(minutes(2));
  ASSERT_TRUE(Expire().ok());
  EXPECT_EQ(spool_->Total().snapshots, 0U) << "bounded by age all the same";
}

TEST_F(FormerBootTest, WhatRanInSeveralBootsCounts) {
  TakeOne();
  for (int boot = 0; boot < 4; ++boot) {
    Reboot(hours(10), SystemTime());
    for (int i = 0; i < 14; ++i) {
      clock_.Advance(minutes(1));
      ASSERT_TRUE(spool_->KeepRunTime().ok());
    }
    ASSERT_TRUE(Expire().ok());
    EXPECT_EQ(spool_->Total().snapshots, 1U) << boot;
  }
  // Of each of them eleven minutes were written down.
  Reboot(hours(10), SystemTime());
  clock_.Advance(minutes(15));
  ASSERT_TRUE(Expire().ok());
  EXPECT_EQ(spool_->Total().snapshots, 1U);
  clock_.Advance(minutes(2));
  ASSERT_TRUE(Expire().ok());
  EXPECT_EQ(spool_->Total().snapshots, 0U);
}

TEST_F(FormerBootTest, WhatAnOlderAgentSpooledIsAsOldAsThisBoot) {
  TakeOne();
  ForgetRunTimes();
  Reboot(minutes(3), clock_.Now() + hours(24 * 365));
  clock_.Advance(minutes(59));
  ASSERT_TRUE(Expire().ok());
  EXPECT_EQ(spool_->Total().snapshots, 1U);
  clock_.Advance(minutes(2));
  ASSERT_TRUE(Expire().ok());
  EXPECT_EQ(spool_->Total().snapshots, 0U);
}

TEST_F(FormerBootTest, RunTimeNeverGoesBack) {
  const std::string file = directory_ + "/run-time";
  RunTime first(file, clock_, "a");
  ASSERT_TRUE(first.Keep().ok());
  clock_.Advance(minutes(9));
  ASSERT_TRUE(first.Keep().ok());
  const auto then = first.Now();
  // The program alone was started again.
  EXPECT_EQ(RunTime(file, clock_, "a").Now(), then);
  // The machine was, before that was written; a snapshot remembers it.
  clock_.Reboot(hours(1), SystemTime());
  RunTime second(file, clock_, "b");
  EXPECT_EQ(second.Now(), then - minutes(9));
  second.AtLeast(then);
  EXPECT_EQ(second.Now(), then);
  clock_.Advance(minutes(1));
  EXPECT_EQ(second.Now(), then + minutes(1));
  second.AtLeast(then + minutes(4), minutes(1));
  EXPECT_EQ(second.Now(), then + minutes(4));
  ASSERT_TRUE(second.Keep().ok());
  // One that cannot be read begins anew.
  std::filesystem::resize_file(file, 3);
  EXPECT_EQ(RunTime(file, clock_, "b").Now(), minutes(1));
}

// ---- when

TEST_F(FormerBootTest, AClockThatWasRightIsBelieved) {
  BackUp();
  for (int i = 0; i < 3; ++i) TakeOne();
  NoteAcknowledged();
  Reboot(hours(24), clock_.True() + hours(24));
  EXPECT_EQ(Told(), true_);
  EXPECT_EQ(ages_, std::vector<bool>(3, false));
}

TEST_F(FormerBootTest, StatesOfAClockThatWasNotSetAreSpread) {
  BackUp();
  clock_.Set(SystemTime(minutes(1)));
  for (int i = 0; i < 2; ++i) TakeOne();
  Reboot(seconds(0), SystemTime(seconds(10)));  // what is off is known to nobody
  TakeOne();
  NoteAcknowledged();
  Reboot(seconds(0), clock_.True());
  clock_.Advance(minutes(7));
  TakeOne();
  std::vector<int64_t> told = Told();
  EXPECT_EQ(told, true_);
  EXPECT_EQ(ages_, (std::vector<bool>{false, false, false, true}));
}

TEST_F(FormerBootTest, TheyAreNeverLaterThanTheyCanBe) {
  BackUp();
  clock_.Set(SystemTime(minutes(1)));
  TakeOne();
  clock_.Set(clock_.True());
  TakeOne();
  // What was taken behind them, in the same boot, is known.
  NoteAcknowledged();
  Reboot(hours(24 * 30), clock_.True() + hours(24 * 30));
  EXPECT_EQ(Told(), true_);
}

TEST_F(FormerBootTest, WhereTheMachineWasOffTheLatestTimeIsTold) {
  BackUp();
  clock_.Set(SystemTime(minutes(1)));
  for (int i = 0; i < 3; ++i) TakeOne();
  NoteAcknowledged();
  Reboot(hours(5), clock_.True() + hours(5));
  clock_.Advance(minutes(1));
  for (int64_t& at : true_) at += std::chrono::milliseconds(hours(5)).count();
  EXPECT_EQ(Told(), true_);
}

TEST_F(FormerBootTest, AnOlderAgentsStatesAreSpreadByTheBootClock) {
  BackUp();
  clock_.Set(SystemTime(minutes(1)));
  for (int i = 0; i < 3; ++i) TakeOne();
  NoteAcknowledged();
  ForgetRunTimes();
  Reboot(seconds(0), clock_.True());
  clock_.Advance(minutes(1));
  check_content_ = false;
  EXPECT_EQ(Told(), true_);
}

TEST_F(FormerBootTest, AClockThatIsNeverSetIsCountedBackFromNow) {
  clock_.Set(SystemTime(hours(3)));
  for (int i = 0; i < 3; ++i) TakeOne();
  Reboot(seconds(0), SystemTime(seconds(10)));
  clock_.Advance(minutes(1));
  // What it lacks is what the controller measures.
  const int64_t offset = ToUnixMillis(clock_.True()) - ToUnixMillis(clock_.Now());
  std::vector<int64_t> told = Told();
  ASSERT_EQ(told.size(), 3U);
  EXPECT_LT(told[0], 0);
  for (int64_t& at : told) at += offset;
  EXPECT_EQ(told, true_);
}

}  // namespace
}  // namespace litefleet::spool
