// What is known of the newest state: the copy of the controller's ledger, and one that is damaged.
#include <array>
#include <filesystem>
#include <fstream>

#include "agent/spool/newest_ledger.h"
#include "tests/unit/agent/spool/spool_fixture.h"

namespace litefleet::spool {
namespace {

class SpoolLedgerCopyTest : public SpoolTest {
 protected:
  void SetUp() override {
    BackUp();
    Change(200, 20);
    BackUp();
    ASSERT_TRUE(std::filesystem::exists(ledger_file() + "-log"));
  }
};

TEST_F(SpoolLedgerCopyTest, WhatDoesNotFitIsCountedBeforeTheLedgerIsCopied) {
  ASSERT_TRUE(
      gaps_->Begin({.database = "app", .from = clock_.Now(), .reason = std::string(kSpoolFull), .message = "no room", .snapshots = 0})
          .ok());
  // Who copies it has to take this away first, and cannot.
  const std::string log = spool_->LedgerFile("app") + "-log";
  std::filesystem::create_directories(log + "/in the way");
  Change(200, 150);
  EXPECT_EQ(ReasonOf(TakeNow(100 << 10).status), "SPOOL_FULL");
  std::filesystem::remove_all(log);
  const Taken fits = TakeNow();
  ASSERT_TRUE(fits.status.ok()) << fits.status;
  EXPECT_FALSE(spool_->Newest("app")->full());
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_TRUE(controller_->Content() == content_);
}

TEST_F(SpoolLedgerCopyTest, TheReserveStaysFree) {
  const auto copied = CopyControllersLedger(*spool_, "app", {ledger_.get(), ledger_file(), io::DiskReserve(uint64_t{1} << 60)}, identity_);
  EXPECT_EQ(ReasonOf(copied.status()), "DISK_FULL");
}

// As a sector of it that fails: it would stop every run.
TEST_F(SpoolLedgerCopyTest, ADamagedLedgerStopsNoRun) {
  Change(200, 8);
  ASSERT_TRUE(TakeNow().status.ok());
  {
    std::fstream file(spool_->LedgerFile("app"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(256 + 32 * 50);
    file.write("damaged!", 8);
  }
  Change(200, 8);
  const Taken taken = TakeNow();
  ASSERT_TRUE(taken.status.ok()) << taken.status;
  EXPECT_TRUE(spool_->Newest("app")->full());
  Change(200, 8);
  ASSERT_TRUE(TakeNow().status.ok());
  EXPECT_FALSE(spool_->Newest("app")->full());
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_TRUE(controller_->Content() == content_);
}

// A power cut takes what was not synced of both: the copy is what it was when it was made, and the controller's stands for what was before.
TEST_F(SpoolTest, ACopyThatWasNeverAdvancedIsBelievedWithoutTheControllers) {
  const auto files = [](const std::string& ledger) { return std::array{ledger, ledger + "-log"}; };
  const auto keep = [&](const std::string& ledger, const std::string& as) {
    for (const std::string& file : files(ledger)) {
      if (std::filesystem::exists(file)) std::filesystem::copy_file(file, as + std::filesystem::path(file).filename().string());
    }
  };
  const auto put_back = [&](const std::string& ledger, const std::string& as) {
    for (const std::string& file : files(ledger)) {
      const std::string kept = as + std::filesystem::path(file).filename().string();
      std::filesystem::remove(file);
      if (std::filesystem::exists(kept)) std::filesystem::copy_file(kept, file);
    }
  };
  BackUp();
  keep(ledger_file(), directory_ + "/older-");
  Change(200, 20);
  BackUp();
  const ControllersLedger controllers{ledger_.get(), ledger_file(), {}};
  ASSERT_TRUE(CopyControllersLedger(*spool_, "app", controllers, identity_).ok());
  keep(spool_->LedgerFile("app"), directory_ + "/copy-");
  for (int i = 0; i < 3; ++i) {
    Change(200, 8);
    ASSERT_TRUE(TakeNow().status.ok());
  }
  put_back(spool_->LedgerFile("app"), directory_ + "/copy-");
  put_back(ledger_file(), directory_ + "/older-");
  ASSERT_NO_FATAL_FAILURE(Reopen());
  ASSERT_TRUE(ledger_->state().has_value());
  const auto newest = spool_->Newest("app");
  ASSERT_TRUE(newest.has_value() && ledger_->state()->snapshot_id != spool_->Oldest("app")->header.base_snapshot_id());
  {
    const auto opened = OpenNewestLedger(*spool_, "app", {ledger_.get(), ledger_file(), {}}, identity_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    ASSERT_TRUE((*opened)->state().has_value()) << "nothing is known of the newest";
    EXPECT_EQ((*opened)->state()->snapshot_id, newest->id());
    EXPECT_EQ((*opened)->state()->root.AsString(), newest->root);
  }
  Change(200, 8);
  ASSERT_TRUE(TakeNow().status.ok());
  EXPECT_FALSE(spool_->Newest("app")->full());
}

}  // namespace
}  // namespace litefleet::spool
