// What a prune does in pieces, what ends with its mark, what it leaves where it is, and what the store's figures say.
#include <filesystem>
#include <fstream>

#include "controller/catalog/heal_catalog.h"
#include "fmt/format.h"
#include "tests/unit/controller/prune/prune_fixture.h"

namespace litefleet::prune {
namespace {

class PiecesTest : public PrunerTest {
 protected:
  void SetUp() override {
    PrunerTest::SetUp();
    rig_ = std::make_unique<Rig>(*path_, clock_);
  }
  void TearDown() override {
    rig_.reset();
    PrunerTest::TearDown();
  }
  void Sql(const std::string& sql) {
    const absl::Status done = path_->db->Write([&](sqlite3* db) { return sqlite::Execute(db, sql); });
    ASSERT_TRUE(done.ok()) << done;
  }
  // A rewrite of everything that is not all alive.
  v1::PruneReport Prune() {
    PruneOptions options = AtOnce();
    options.rewrite_percent = 1;
    const auto report = rig_->Run(clock_.Now(), options);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value_or(v1::PruneReport());
  }

  std::unique_ptr<Rig> rig_;
};

TEST_F(PiecesTest, ClaimsOfHealingThatWereKeptGoWithTheMark) {
  Take(1);
  catalog::HealCatalog heal(*path_->db);
  Sql("insert into claim select -1, id from chunk limit 2; insert into claim select -2, id from chunk limit 1");
  ASSERT_TRUE(rig_->catalog.Begin().ok());
  ASSERT_TRUE(heal.DropHealingClaims(1).ok());
  EXPECT_EQ(path_->Count("select count(*) from claim"), 3) << "nothing goes while it marks";
  // The next heal of the same database has claims of its own.
  Sql("insert into claim select -1, id from chunk order by id limit 1");
  ASSERT_TRUE(heal.DropHealingClaims(1).ok());
  Sql("insert into claim select -1, id from chunk order by id limit 1");
  ASSERT_TRUE(rig_->catalog.EndMarking().ok());
  EXPECT_EQ(path_->Count("select count(*) from claim"), 2) << "those of the heals that are under way";
  EXPECT_EQ(path_->Count("select count(*) from claim where session in (-1, -2)"), 2);
  ASSERT_TRUE(heal.DropHealingClaims(1).ok());
  EXPECT_EQ(path_->Count("select count(*) from claim"), 1);
}

TEST_F(PiecesTest, ATransactionRemovesNotManyMoreThanFiveHundredRows) {
  const std::string first = Take(1);
  const std::string second = Take(4);
  Take(7);
  for (const std::string& id : {first, second}) {
    ASSERT_TRUE(rig_->deletions.Trash(SnapshotId(id), true, "operator:x", clock_.Now()).ok());
    Sql(
        fmt::format("with recursive n(i) as (select 100 union all select i + 1 from n where i < 700) insert into manifest_part "
                    "select (select key from snapshot where id = '{}'), i, 0, 1, i from n",
                    id));
  }
  ASSERT_TRUE(rig_->marks.WriteDue().ok());
  const auto remove = [&](int64_t after) {
    return *rig_->deletions.RemoveSome(clock_.Now(), after, 1, [](const SnapshotId&) { return false; });
  };
  const auto one = remove(0);
  EXPECT_EQ(one.snapshots, 1);
  EXPECT_TRUE(one.more);
  EXPECT_EQ(remove(one.last_key).snapshots, 1);
}

TEST_F(PiecesTest, WhatWasSweptIsForgottenToTheLast) {
  Sql("with recursive n(i) as (select 1000 union all select i + 1 from n where i < 26000) insert into swept_chunk select i, 1 from n");
  int64_t owner = 0, chunk = 0;
  EXPECT_FALSE(*rig_->catalog.DropRights(owner, chunk));
  EXPECT_EQ(path_->Count("select count(*) from swept_chunk"), 0);
}

TEST_F(PiecesTest, APackWithARecordThatCannotBeReadStays) {
  const std::string bulk = Take(1);
  const std::string kept = Take(4);
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  const std::string place = " from snapshot where id = '" + kept + "'";
  const int64_t pack = path_->Count("select pack" + place);
  for (const auto& entry : std::filesystem::directory_iterator(directory_ + "/store/packs")) {
    if (std::stoll(entry.path().stem().string(), nullptr, 16) != pack) continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(path_->Count("select offset" + place) + 80);
    file.put('\x55');
    file.put('\x5a');
  }
  path_->store->ForgetCached(static_cast<uint64_t>(pack));
  Sql(fmt::format("insert into scrub_pack (pack, proven_at) values ({}, 5)", pack));
  ASSERT_TRUE(rig_->deletions.Trash(SnapshotId(bulk), true, "operator:x", clock_.Now()).ok());
  const v1::PruneReport report = Prune();
  EXPECT_EQ(report.packs_damaged(), 1);
  const auto packs = path_->store->Packs();
  EXPECT_TRUE(std::any_of(packs.begin(), packs.end(), [&](const auto& each) { return static_cast<int64_t>(each.id) == pack; }))
      << "a rebuild would not know of the snapshot";
  EXPECT_EQ(path_->Count("select count(*) from scrub_pack"), 0) << "scrub is to look";
  EXPECT_TRUE(path_->ReadBack(kept).ok());
}

TEST_F(PiecesTest, GrowthIsThatOfTheDaysThatThereWere) {
  const auto stats = [&] { return *rig_->catalog.Stats(clock_.Now() - catalog::PruneCatalog::kGrowthOver); };
  Take(1);
  const int64_t first = path_->Count("select sum(stored_bytes) from snapshot");
  ASSERT_GT(first, 0);
  EXPECT_EQ(stats().growth_bytes_per_day(), first) << "a day at least";
  clock_.Advance(std::chrono::hours(24 * 2));
  Take(4);
  const int64_t both = path_->Count("select sum(stored_bytes) from snapshot");
  EXPECT_EQ(stats().growth_bytes_per_day(), both / 2);
  ASSERT_EQ(stats().devices_size(), 1);
  EXPECT_EQ(stats().devices(0).growth_bytes_per_day(), both / 2);
  clock_.Advance(std::chrono::hours(24 * 6));
  EXPECT_EQ(stats().growth_bytes_per_day(), (both - first) / 7) << "the first one came before";
  EXPECT_EQ(stats().devices(0).growth_bytes_per_day(), (both - first) / 7);
}

}  // namespace
}  // namespace litefleet::prune
