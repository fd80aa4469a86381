// `store stats` over a store that is filled, pruned and rewritten: each figure against what was done.
#include "controller/prune/pruner.h"
#include "controller/rpc/admin_handlers.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::rpc {
namespace {

using fakes::FakeDatabase;
using std::chrono::hours;

constexpr int64_t kExtent = 256 << 10;

class StatsTest : public ingest::IngestTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    Open();
    identities_ = std::make_unique<catalog::IdentityCatalog>(*path_->db);
    pruning_ = std::make_unique<catalog::PruneCatalog>(*path_->db);
    deletions_ = std::make_unique<catalog::DeletionCatalog>(*path_->db);
    marks_ = std::make_unique<prune::MarkWriter>(*deletions_, *path_->store, clock_);
    AdminDependencies parts;
    parts.identities = identities_.get();
    parts.pruning = pruning_.get();
    parts.store = path_->store.get();
    parts.clock = &clock_;
    admin_ = std::make_unique<AdminHandlers>(parts);
  }
  void TearDown() override {
    marks_.reset();
    IngestTest::TearDown();
  }
  v1::GetStoreStatsResponse Stats() {
    const auto stats = admin_->GetStoreStats({});
    EXPECT_TRUE(stats.ok()) << stats.status();
    if (!stats.ok()) return {};
    int64_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory_ + "/store/packs"))
      files += static_cast<int64_t>(entry.file_size());
    EXPECT_EQ(stats->store_bytes(), files);
    EXPECT_EQ(stats->live_bytes() + stats->trash_bytes() + stats->dead_bytes(), stats->store_bytes()) << "each byte is one of these";
    return *stats;
  }
  v1::PruneReport Prune(hours chunk_grace, int rewrite_percent) {
    prune::PruneOptions options;
    options.snapshot_grace = hours(0);
    options.chunk_grace = chunk_grace;
    options.sweeps = 0;
    options.rewrite_percent = rewrite_percent;
    prune::Pruner pruner(
        {.catalog = *pruning_, .deletions = *deletions_, .marks = *marks_, .store = *path_->store, .held = [](const SnapshotId&) {
           return false;
         }});
    const auto report = pruner.Run(options, clock_.Now(), [](std::string_view, double) { return absl::OkStatus(); });
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value_or(v1::PruneReport());
  }
  int64_t Stored(const FakeDatabase& database, uint32_t first, uint32_t count) {
    int64_t bytes = 0;
    for (uint32_t i = first; i < first + count; ++i)
      bytes += path_->Count("select stored_bytes from chunk where name = x'" + database.Name(i).Hex() + "'");
    return bytes;
  }

  std::unique_ptr<catalog::IdentityCatalog> identities_;
  std::unique_ptr<catalog::PruneCatalog> pruning_;
  std::unique_ptr<catalog::DeletionCatalog> deletions_;
  std::unique_ptr<prune::MarkWriter> marks_;
  std::unique_ptr<AdminHandlers> admin_;
};

TEST_F(StatsTest, SayWhatIsStoredAndWhatOfItIsNeeded) {
  v1::GetStoreStatsResponse stats = Stats();
  EXPECT_EQ(stats.snapshots() + stats.chunks() + stats.store_bytes() + stats.growth_bytes_per_day(), 0);

  const FakeDatabase first = FakeDatabase::Make(4096, 64 * 6, 1);
  FakeDatabase second = first;
  for (unsigned i = 0; i < 4; ++i) second.seeds[i] = 5000 + i;
  const auto old = Upload(first, device_);
  ASSERT_TRUE(old.status.ok() && Upload(second, device_).status.ok() && Upload(second, other_).status.ok());
  const int64_t of_first = Stored(first, 0, 6);
  const int64_t of_second = Stored(second, 0, 4);
  stats = Stats();
  EXPECT_EQ(stats.snapshots(), 3);
  EXPECT_EQ(stats.packs(), 1);
  EXPECT_EQ(stats.logical_bytes(), 3 * 6 * kExtent);
  EXPECT_EQ(stats.chunks(), 10);
  EXPECT_EQ(stats.chunk_raw_bytes(), 10 * kExtent) << "deduplication: each content once";
  EXPECT_EQ(stats.chunk_stored_bytes(), of_first + of_second);
  EXPECT_GT(stats.chunk_raw_bytes(), stats.chunk_stored_bytes() * 3 / 2) << "compression: half of it compresses well";
  EXPECT_EQ(stats.trash_bytes(), 0);
  EXPECT_GE(stats.live_bytes(), of_first + of_second);
  ASSERT_EQ(stats.devices_size(), 2);
  EXPECT_EQ(stats.devices(0).device_id(), device_.value()) << "who has most is first";
  EXPECT_EQ(stats.devices(0).snapshots(), 2);
  EXPECT_EQ(stats.devices(0).logical_bytes(), 2 * 6 * kExtent);
  EXPECT_EQ(stats.devices(0).stored_bytes(), of_first + of_second);
  EXPECT_EQ(stats.devices(1).stored_bytes(), 0) << "it brought nothing new";

  ASSERT_TRUE(deletions_->Trash(SnapshotId(old.snapshot_id), true, "operator:x", clock_.Now()).ok());
  stats = Stats();
  EXPECT_EQ(stats.snapshots(), 2);
  EXPECT_EQ(stats.trash_snapshots(), 1);
  EXPECT_EQ(stats.logical_bytes(), 2 * 6 * kExtent);
  EXPECT_EQ(stats.trash_chunks(), 0) << "it holds what it needs";

  const int64_t gone = Stored(first, 0, 4);
  Prune(hours(24), 100);
  stats = Stats();
  EXPECT_EQ(stats.trash_snapshots(), 0);
  EXPECT_EQ(stats.trash_chunks(), 4);
  EXPECT_EQ(stats.trash_bytes(), gone);
  EXPECT_EQ(stats.chunks(), 10);
  const int64_t live = stats.live_bytes();
  EXPECT_LT(stats.dead_bytes(), 10'000) << "headers, and records of what was removed";

  clock_.Advance(hours(25));
  Prune(hours(24), 100);
  stats = Stats();
  EXPECT_EQ(stats.trash_chunks(), 0);
  EXPECT_EQ(stats.trash_bytes(), 0);
  EXPECT_EQ(stats.chunks(), 6);
  EXPECT_EQ(stats.chunk_raw_bytes(), 6 * kExtent);
  EXPECT_GE(stats.dead_bytes(), gone);
  EXPECT_NEAR(static_cast<double>(stats.live_bytes()), static_cast<double>(live), 1000);

  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  const int64_t before = stats.store_bytes();
  const v1::PruneReport report = Prune(hours(24), 10);
  stats = Stats();
  EXPECT_EQ(report.packs_rewritten(), 1);
  EXPECT_LT(stats.store_bytes(), before - gone);
  EXPECT_LT(stats.dead_bytes(), 10'000);
  EXPECT_EQ(stats.last_prune().bytes_removed(), report.bytes_removed());
  EXPECT_EQ(stats.last_prune().packs_rewritten(), 1);
}

TEST_F(StatsTest, GrowthIsThatOfTheLastWeek) {
  FakeDatabase database = FakeDatabase::Make(4096, 64 * 4, 1);
  ASSERT_TRUE(Upload(database, device_).status.ok());
  clock_.Advance(hours(24 * 20));
  database.seeds[1] = 4711;
  ASSERT_TRUE(Upload(database, device_).status.ok());
  clock_.Advance(hours(24 * 3));
  database.seeds[2] = 4712;
  const auto deleted = Upload(database, device_);
  ASSERT_TRUE(deleted.status.ok());
  ASSERT_TRUE(deletions_->Trash(SnapshotId(deleted.snapshot_id), true, "operator:x", clock_.Now()).ok());
  const int64_t week = Stored(database, 1, 2);
  EXPECT_NEAR(static_cast<double>(Stats().growth_bytes_per_day()), static_cast<double>(week) / 7, 1) << "what was deleted has come too";
  clock_.Advance(hours(24 * 5));
  EXPECT_NEAR(static_cast<double>(Stats().growth_bytes_per_day()), static_cast<double>(Stored(database, 2, 1)) / 7, 1);
  clock_.Advance(hours(24 * 3));
  EXPECT_EQ(Stats().growth_bytes_per_day(), 0);
}

}  // namespace
}  // namespace litefleet::rpc
