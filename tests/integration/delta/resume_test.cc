// Backups that end for good before they were committed: the operation that comes after them sends what is left.
#include "agent/spool/drain.h"
#include "agent/spool/take.h"
#include "tests/integration/delta/delta_fixture.h"

namespace litefleet::upload {
namespace {

class ResumeTest : public DeltaBackupTest {
 protected:
  static constexpr int64_t kBytes = 16 << 20;  // that differ, and do not compress
  static constexpr std::chrono::milliseconds kOffline{20};

  void Fill() { Sql(fmt::format("insert into t (v) select randomblob(4000) from generate")); }
  void SetUp() override {
    DeltaBackupTest::SetUp();
    OpenDatabase(GetParam());
    Sql("create table generate (n integer); with recursive n(i) as (values (1) union all select i + 1 from n where i < 4000) insert into "
        "generate select i from n");
    transport_->stays_cut = true;
  }
  // The link goes when nine tenths have been sent, and does not come back before this one fails.
  void CutAtNineTenths() {
    transport_->cut_after = kBytes * 9 / 10;
    Fails();
  }
  void Fails() {
    EXPECT_EQ(ReasonOf(Back(false, kOffline).status), "CONTROLLER_OFFLINE");
    WaitForStreams();
    transport_->gone = false;
  }
  // By the device's spool, as where the controller cannot be reached.
  std::string Spooled() {
    std::vector<std::string> said;
    std::filesystem::create_directories(directory_ + "/gaps");
    auto gaps = state::GapBook::Open(directory_ + "/gaps", said);
    EXPECT_TRUE(gaps.ok()) << gaps.status();
    auto spool = spool::SnapshotSpool::Open(directory_ + "/spooled", **gaps, clock_, said);
    EXPECT_TRUE(spool.ok()) << spool.status();
    spool::TakeJob take;
    take.database = "app";
    take.operation_id = NewSession();
    take.started_at = clock_.Now();
    take.ledger = ledger_.get();
    take.ledger_file = LedgerPath();
    take.ledger_identity = ledger::LedgerIdentity(device_.value(), "app", database_);
    take.spool_bytes = 64 << 20;
    take.open = [this] { return OpenSource(); };
    const spool::Taken taken = spool::Take(**spool, take, cancel_);
    EXPECT_TRUE(taken.status.ok()) << taken.status;
    transport_->up = 0;
    std::string snapshot;
    spool::DrainJob drain;
    drain.database = "app";
    drain.ledger = ledger_.get();
    drain.give_up_at = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    drain.acknowledged = [&](const spool::SpooledSnapshot&, const std::string& id, const v1::Progress&) {
      snapshot = id;
      return absl::OkStatus();
    };
    const absl::Status drained = spool::Drain(**spool, drain, Options(), *transport_, rate_, cancel_);
    EXPECT_TRUE(drained.ok()) << drained;
    return snapshot;
  }
  void ExpectExact(const std::string& snapshot) {
    const auto bytes = path_->ReadBack(snapshot);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_TRUE(*bytes == Expected());
    EXPECT_EQ(ledger_->state()->snapshot_id, snapshot);
  }
};

TEST_P(ResumeTest, ANewOperationGoesOnAlsoWhereTheDatabaseHasChanged) {
  Fill();
  CutAtNineTenths();
  Sql("update t set v = randomblob(4000) where id in (100, 2000)");
  const BackupOutcome rest = Back();
  ASSERT_TRUE(rest.status.ok()) << rest.status;
  EXPECT_LT(transport_->up, kBytes / 5);
  ExpectExact(rest.snapshot_id);
}

// Chunks of pages that lie apart: one page more among the first of them does not make all of them others.
TEST_P(ResumeTest, AnIncrementGoesOnAlsoWhereTheDatabaseHasChanged) {
  Fill();
  Fill();
  for (const bool knows : {true, false}) {
    ASSERT_TRUE(Back().status.ok());
    Sql("update t set v = randomblob(4000) where id % 2 = 0");
    ASSERT_TRUE(knows || ledger_->Remove().ok());
    CutAtNineTenths();
    Sql("update t set v = randomblob(4000) where id = 101");
    const BackupOutcome rest = Back();
    ASSERT_TRUE(rest.status.ok()) << rest.status;
    EXPECT_LT(transport_->up, kBytes / 5) << (knows ? "by the ledger" : "compared by the controller");
    ExpectExact(rest.snapshot_id);
  }
}

TEST_P(ResumeTest, AnIncrementGoesOnFromTheSpool) {
  ASSERT_TRUE(Back().status.ok());
  Fill();
  CutAtNineTenths();
  ExpectExact(Spooled());
  EXPECT_LT(transport_->up, kBytes / 5);
}

TEST_P(ResumeTest, WhatWasCommittedWithoutAnAnswerIsNotTakenForWhatCameLater) {
  Fill();
  transport_->cut_at_committed = true;
  Fails();
  EXPECT_EQ(path_->SnapshotCount(), 1u);
  Sql("update t set v = randomblob(4000) where id = 100");
  const BackupOutcome next = Back();
  ASSERT_TRUE(next.status.ok()) << next.status;
  EXPECT_LT(transport_->up, kBytes / 5);
  ExpectExact(next.snapshot_id);
  EXPECT_EQ(path_->SnapshotCount(), 2u);

  Fill();
  transport_->cut_at_committed = true;
  Fails();
  Sql("update t set v = randomblob(4000) where id = 200");
  ExpectExact(Spooled());
  EXPECT_LT(transport_->up, kBytes / 5);
  EXPECT_EQ(path_->SnapshotCount(), 4u);
}

INSTANTIATE_TEST_SUITE_P(Modes, ResumeTest, testing::Values(Shape{4096, "wal", 0, "UTF-8"}, Shape{4096, "delete", 0, "UTF-8"}),
                         [](const auto& test) { return test.param.journal; });

}  // namespace
}  // namespace litefleet::upload
