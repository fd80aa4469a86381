// Runs of retention that stop at what is strange, and go on when an operator has looked.
#include "controller/retention/retention.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::retention {
namespace {

using fakes::FakeDatabase;

class HoldsTest : public ingest::IngestTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    Open();
    policies_ = std::make_unique<catalog::PolicyCatalog>(*path_->db);
    deletions_ = std::make_unique<catalog::DeletionCatalog>(*path_->db);
    retention_ = std::make_unique<Retention>(*policies_, *deletions_, [this] {
      ++marks_;
      return absl::OkStatus();
    });
    ASSERT_TRUE(policies_->Put("p", "name = \"p\"\n[retention]\nkeep_last = 2\nfloor = 1\n", clock_.Now()).ok());
  }
  std::string Take(const DeviceId& device, uint32_t pages) {
    clock_.Advance(std::chrono::hours(3));
    path_->previous_contact = clock_.Now();
    const auto outcome = Upload(FakeDatabase::Make(4096, pages, ++seed_), device);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    return outcome.snapshot_id;
  }
  RunTotals Run() {
    const auto totals = retention_->Run(clock_.Now(), [] { return false; });
    EXPECT_TRUE(totals.ok()) << totals.status();
    return totals.value_or(RunTotals());
  }
  size_t Left(const DeviceId& device) { return path_->snapshots->List(device, "", 1000, "")->items.size(); }

  std::unique_ptr<catalog::PolicyCatalog> policies_;
  std::unique_ptr<catalog::DeletionCatalog> deletions_;
  std::unique_ptr<Retention> retention_;
  int marks_ = 0;
  unsigned seed_ = 0;
};

TEST_F(HoldsTest, WhatIsStrangeIsHeldUntilAnOperatorReleasesIt) {
  for (int i = 0; i < 6; ++i) Take(device_, 10), Take(other_, 10);
  const std::string strange = Take(device_, 600);
  RunTotals totals = Run();
  EXPECT_EQ(totals.databases, 2);
  EXPECT_EQ(totals.held, 1);
  EXPECT_EQ(totals.trashed, 4) << "of the other device alone";
  EXPECT_EQ(marks_, 1);
  EXPECT_EQ(Left(device_), 7u);
  EXPECT_EQ(Left(other_), 2u);
  const auto holds = policies_->Holds(10, 0);
  ASSERT_TRUE(holds.ok() && holds->size() == 1);
  EXPECT_EQ(holds->front().device_id, device_.value());
  EXPECT_EQ(holds->front().reason, "SUDDENLY_LARGER");
  EXPECT_NE(holds->front().message.find(strange), std::string::npos) << holds->front().message;

  // Whatever comes, and however long it takes.
  for (int i = 0; i < 3; ++i) Take(device_, 10);
  clock_.Advance(std::chrono::hours(24 * 100));
  totals = Run();
  EXPECT_EQ(totals.held, 1);
  EXPECT_EQ(totals.trashed, 0);
  EXPECT_EQ(Left(device_), 10u);
  EXPECT_EQ(policies_->Holds(10, 0)->front().since, holds->front().since);

  ASSERT_TRUE(policies_->Release(device_, "main").ok());
  totals = Run();
  EXPECT_EQ(totals.held, 0) << "it was looked at";
  EXPECT_EQ(totals.trashed, 8);
  EXPECT_EQ(Left(device_), 2u);
  EXPECT_TRUE(policies_->Holds(10, 0)->empty());
  EXPECT_EQ(ReasonOf(policies_->Release(device_, "main")), "HOLD_NOT_FOUND");
}

TEST_F(HoldsTest, WhatComesAfterTheReleaseIsLookedAtAnew) {
  for (int i = 0; i < 6; ++i) Take(device_, 600);
  Take(device_, 10);
  EXPECT_EQ(Run().held, 1);
  EXPECT_EQ(policies_->Holds(10, 0)->front().reason, "SUDDENLY_SMALLER");
  ASSERT_TRUE(policies_->Release(device_, "main").ok());
  Take(device_, 10);  // as usual as the one that was looked at, but nobody has said so
  const RunTotals totals = Run();
  EXPECT_EQ(totals.held, 1);
  EXPECT_EQ(totals.trashed, 0);
  EXPECT_EQ(Left(device_), 8u);
}

TEST_F(HoldsTest, ATieHoldsAsLongAsItIsOne) {
  for (int i = 0; i < 4; ++i) Take(device_, 10);
  ASSERT_TRUE(policies_->Put("q", "name = \"q\"\n[retention]\nkeep_last = 1\n", clock_.Now()).ok());
  EXPECT_EQ(Run().held, 1);
  EXPECT_EQ(Left(device_), 4u);
  EXPECT_TRUE(policies_->Holds(10, 0)->empty()) << "there is nothing to release";
  ASSERT_TRUE(policies_->Delete("q").ok());
  EXPECT_EQ(Run().trashed, 2);
}

}  // namespace
}  // namespace litefleet::retention
