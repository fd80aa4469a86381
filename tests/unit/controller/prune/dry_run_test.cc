// A dry run says what the run that follows then does: chunks, packs and bytes.
#include "tests/unit/controller/prune/prune_fixture.h"

namespace litefleet::prune {
namespace {

using fakes::FakeDatabase;
using std::chrono::hours;

struct Kind {
  const char* name;
  hours grace;          // of chunks
  size_t bitmap_bytes;  // 1: eight chunks a pass
};

class DryRunTest : public PrunerTest, public testing::WithParamInterface<Kind> {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    UseMemory();
    path_ = std::make_unique<ingest::DataPath>(directory_, clock_, ingest::IngestLimits{}, /*seal_bytes=*/600'000, store::PosixFileSystem(),
                                               /*threads=*/false);
    rig_ = std::make_unique<Rig>(*path_, clock_);
    pruner_ = std::make_unique<Pruner>(PrunerDeps{.catalog = rig_->catalog,
                                                  .deletions = rig_->deletions,
                                                  .marks = rig_->marks,
                                                  .store = *path_->store,
                                                  .held = [](const SnapshotId&) { return false; },
                                                  .bitmap_bytes = GetParam().bitmap_bytes});
  }
  void TearDown() override {
    pruner_.reset();
    rig_.reset();
    IngestTest::TearDown();
  }
  v1::PruneReport Run(bool dry_run) {
    PruneOptions options;
    options.snapshot_grace = hours(0);
    options.chunk_grace = GetParam().grace;
    options.sweeps = GetParam().grace.count() > 0 ? 1 : 0;
    options.rewrite_percent = 30;
    options.dry_run = dry_run;
    const auto report = pruner_->Run(options, clock_.Now(), [](std::string_view, double) { return absl::OkStatus(); });
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value_or(v1::PruneReport());
  }
  // Both, one after the other; what was done.
  v1::PruneReport RunAsSaid() {
    const int64_t chunks = path_->Count("select count(*) from chunk where state = 1");
    const size_t packs = path_->store->Packs().size();
    const v1::PruneReport said = Run(true);
    EXPECT_EQ(path_->Count("select count(*) from chunk where state = 1"), chunks) << "it only looks";
    EXPECT_EQ(path_->store->Packs().size(), packs);
    const v1::PruneReport done = Run(false);
    EXPECT_EQ(said.snapshots_removed(), done.snapshots_removed());
    EXPECT_EQ(said.chunks_marked(), done.chunks_marked());
    EXPECT_EQ(said.chunks_trashed(), done.chunks_trashed());
    EXPECT_EQ(said.bytes_trashed(), done.bytes_trashed());
    EXPECT_EQ(said.chunks_swept(), done.chunks_swept());
    EXPECT_EQ(said.bytes_swept(), done.bytes_swept());
    EXPECT_EQ(said.packs_removed(), done.packs_removed());
    EXPECT_EQ(said.packs_rewritten(), done.packs_rewritten());
    EXPECT_EQ(said.packs_damaged(), done.packs_damaged());
    // Footers; and records of snapshots and of deletions, of which the catalog does not know the size.
    EXPECT_NEAR(static_cast<double>(said.bytes_removed()), static_cast<double>(done.bytes_removed()), 3000);
    EXPECT_NEAR(static_cast<double>(said.bytes_copied()), static_cast<double>(done.bytes_copied()), 12'000);
    return done;
  }

  std::unique_ptr<Rig> rig_;
  std::unique_ptr<Pruner> pruner_;
};

TEST_P(DryRunTest, SaysWhatIsThenDone) {
  std::vector<std::string> ids;
  for (unsigned i = 0; i < 10; ++i) ids.push_back(Take(i * 3));
  // An upload that was cut off claims what one of them needs.
  FakeDatabase claimed = DatabaseOf(6);
  claimed.seeds[6] = 9999;
  fakes::RunUpload(*path_->ingest, device_, claimed, {.session_id = NewSession(), .stop_after_chunks = 0});
  EXPECT_EQ(path_->Count("select count(*) from claim"), 4);
  for (const size_t i : {0, 1, 2, 3, 5, 6, 7}) {
    ASSERT_TRUE(rig_->deletions.Trash(SnapshotId(ids[i]), true, "operator:x", clock_.Now()).ok());
  }
  v1::PruneReport done = RunAsSaid();
  EXPECT_EQ(done.snapshots_removed(), 7);
  EXPECT_EQ(done.chunks_trashed(), 6 * 4) << "all but those that are claimed";
  if (GetParam().grace.count() > 0) {
    EXPECT_EQ(done.chunks_swept(), 0);
    clock_.Advance(hours(25));
    done = RunAsSaid();
  }
  EXPECT_EQ(done.chunks_swept(), 6 * 4);
  EXPECT_GT(done.packs_removed(), 0);
  EXPECT_GT(done.packs_rewritten(), 0);
  EXPECT_GT(done.bytes_removed(), done.bytes_swept());
  // The rest, that of the open pack too.
  clock_.Advance(hours(24 * 8));
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  for (const size_t i : {4, 9}) ASSERT_TRUE(rig_->deletions.Trash(SnapshotId(ids[i]), true, "operator:x", clock_.Now()).ok());
  RunAsSaid();
  clock_.Advance(hours(25));
  RunAsSaid();
  EXPECT_EQ(path_->Count("select count(*) from chunk"), 4 + 3);
  EXPECT_TRUE(path_->ReadBack(ids[8]).ok());
}

INSTANTIATE_TEST_SUITE_P(Kinds, DryRunTest,
                         testing::Values(Kind{"AtOnce", hours(0), 1 << 20}, Kind{"WithGrace", hours(24), 1 << 20},
                                         Kind{"InPasses", hours(0), 1}, Kind{"WithGraceInPasses", hours(24), 1}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace litefleet::prune
