// What was removed stays away by its number, without a mark for each; records that newer ones have replaced are not kept.
#include <gmock/gmock.h>

#include "controller/catalog/gone_numbers.h"
#include "controller/catalog/policy_catalog.h"
#include "tests/unit/controller/prune/prune_fixture.h"
#include "tests/unit/controller/rebuild/rebuild_fixture.h"

namespace litefleet::rebuild {
namespace {

using fakes::FakeDatabase;

class GoneNumbersTest : public RebuildTest {
 protected:
  std::string Take(uint32_t extents, unsigned seed) {
    const auto outcome = Upload(FakeDatabase::Make(4096, extents == 0 ? 2 : 64 * extents, seed), device_);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    return outcome.snapshot_id;
  }
  void Trash(const std::string& id) {
    catalog::DeletionCatalog deletions(*path_->db);
    ASSERT_TRUE(deletions.Trash(SnapshotId(id), true, "operator:test", clock_.Now()).ok());
  }
  v1::PruneReport Prune(int rewrite_percent) {
    catalog::DeletionCatalog deletions(*path_->db);
    catalog::PruneCatalog pruning(*path_->db);
    prune::MarkWriter marks(deletions, *path_->store, clock_);
    prune::Pruner pruner({.catalog = pruning,
                          .deletions = deletions,
                          .marks = marks,
                          .store = *path_->store,
                          .held = [](const SnapshotId&) { return false; },
                          .records = due_.get(),
                          .count_generation = [this]() -> absl::StatusOr<uint64_t> {
                            LF_RETURN_IF_ERROR(records_->WriteDue());
                            return 1;
                          }});
    prune::PruneOptions options = prune::AtOnce();
    options.rewrite_percent = rewrite_percent;
    const auto report = pruner.Run(options, clock_.Now(), [](std::string_view, double) { return absl::OkStatus(); });
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value_or(v1::PruneReport());
  }
  int Records(format::RecordType type) {
    int count = 0;
    EXPECT_TRUE(path_->store
                    ->ForEachRecord([&](const store::Location&, const format::ScannedRecord& record) {
                      storage::v1::SnapshotMarksRecord marks;
                      const bool spacer = type == format::RecordType::kSnapshotMarks &&
                                          marks.ParseFromArray(record.payload.data(), static_cast<int>(record.payload.size())) &&
                                          marks.marks().empty();
                      count += record.header.type == type && !spacer ? 1 : 0;
                      return absl::OkStatus();
                    })
                    .ok());
    return count;
  }
  std::string Ranges() {
    std::string text;
    EXPECT_TRUE(path_->db
                    ->Read([&](sqlite3* db) -> absl::Status {
                      LF_ASSIGN_OR_RETURN(auto list, sqlite::Statement::Prepare(db, "select first, last from gone_number order by first"));
                      for (;;) {
                        LF_ASSIGN_OR_RETURN(const bool row, list.Step());
                        if (!row) return absl::OkStatus();
                        text += std::to_string(list.Int(0)) + "-" + std::to_string(list.Int(1)) + " ";
                      }
                    })
                    .ok());
    return text;
  }
};

TEST_F(GoneNumbersTest, WhatWasRemovedStaysAwayWithoutMarks) {
  std::vector<std::string> ids{Take(8, 1)};
  for (unsigned i = 0; i < 6; ++i) ids.push_back(Take(0, 10 + i));
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  for (const size_t i : {1U, 2U, 4U}) Trash(ids[i]);
  EXPECT_EQ(Prune(101).snapshots_removed(), 3);
  EXPECT_EQ(Ranges(), "2-3 5-5 ");
  EXPECT_EQ(path_->Count("select count(*) from gone_snapshot"), 3) << "as long as the packs do not say so";
  EXPECT_GT(Records(format::RecordType::kSnapshotMarks), 0);
  ASSERT_TRUE(records_->WriteDue().ok());
  EXPECT_EQ(path_->Count("select count(*) from gone_snapshot"), 0);
  Trash(ids[3]);
  EXPECT_EQ(Prune(101).snapshots_removed(), 1);
  EXPECT_EQ(Ranges(), "2-5 ");
  ASSERT_TRUE(records_->WriteDue().ok());
  // The pack of the marks goes; that of the snapshots stays, with the records of those that are gone.
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  const int snapshots = Records(format::RecordType::kSnapshot);
  EXPECT_GT(Prune(10).packs_removed(), 0) << "no row points to what was copied";
  EXPECT_EQ(Records(format::RecordType::kSnapshotMarks), 0);
  ASSERT_EQ(Records(format::RecordType::kSnapshot), snapshots);
  ASSERT_EQ(snapshots, 7);
  EXPECT_EQ(Records(format::RecordType::kDatabase), 2) << "twice, and no older one";
  for (int round = 0; round < 3; ++round) {
    Rebuild();
    for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(path_->snapshots->Resolve(ids[i]).ok(), i == 0 || i > 4) << round << ": " << i;
    EXPECT_EQ(Ranges(), "2-5 ");
  }
  const std::string next = Take(0, 99);
  EXPECT_EQ(path_->Count("select sequence from snapshot where id = '" + next + "'"), 8);
}

// Numbers that were forgotten, in a rebuild that had not all packs, and given again.
TEST_F(GoneNumbersTest, ANumberThatWasGivenAgainIsNotTakenForTheOneThatIsGone) {
  const std::string first = Take(1, 1), second = Take(1, 2);
  storage::v1::DatabaseRecord record;
  record.set_device_id(device_.value());
  record.set_database("main");
  record.set_revision(1000);
  storage::v1::NumberRange& range = *record.add_gone();
  range.set_first(1);
  range.set_last(50);
  range.set_last_pack(0);
  ASSERT_TRUE(path_->store->PutRecord(format::RecordType::kDatabase, AsBytes(record.SerializeAsString())).ok());
  for (int round = 0; round < 2; ++round) {
    Rebuild();
    EXPECT_TRUE(path_->snapshots->Resolve(first).ok());
    EXPECT_TRUE(path_->snapshots->Resolve(second).ok());
    EXPECT_EQ(Ranges(), "3-50 ");
  }
  const std::string third = Take(1, 3);
  EXPECT_EQ(path_->Count("select sequence from snapshot where id = '" + third + "'"), 51);
  Trash(second);
  EXPECT_EQ(Prune(101).snapshots_removed(), 1);
  EXPECT_EQ(Ranges(), "2-50 ");
  ASSERT_TRUE(records_->WriteDue().ok());
  Rebuild();
  EXPECT_TRUE(path_->snapshots->Resolve(first).ok());
  EXPECT_FALSE(path_->snapshots->Resolve(second).ok());
  EXPECT_TRUE(path_->snapshots->Resolve(third).ok());
}

TEST_F(GoneNumbersTest, RecordsThatWereReplacedAreNotCopied) {
  {
    catalog::PolicyCatalog policies(*path_->db);
    policies.SetRecords(records_.get());
    for (int i = 0; i < 6; ++i)
      ASSERT_TRUE(policies.Put("p", "name = \"p\"\n[retention]\nkeep_last = " + std::to_string(i + 1) + "\n", clock_.Now()).ok());
  }
  ASSERT_EQ(Records(format::RecordType::kPolicy), 12);
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  Prune(10);
  EXPECT_EQ(Records(format::RecordType::kPolicy), 2);
  Rebuild();
  catalog::PolicyCatalog policies(*path_->db);
  const auto rows = policies.List();
  ASSERT_TRUE(rows.ok() && rows->size() == 1U);
  EXPECT_NE((*rows)[0].text.find("keep_last = 6"), std::string::npos);
}

TEST_F(GoneNumbersTest, RangesGrowTogetherInAnyOrder) {
  ASSERT_TRUE(path_->db
                  ->Write([](sqlite3* db) -> absl::Status {
                    for (const int64_t number : {7, 3, 5, 4, 4, 1, 6, 9})
                      LF_RETURN_IF_ERROR(catalog::AddGoneNumber(db, 1, number, number * 10));
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_EQ(Ranges(), "1-1 3-7 9-9 ");
  EXPECT_EQ(path_->Count("select last_pack from gone_number where first = 3"), 70);
}

}  // namespace
}  // namespace litefleet::rebuild
