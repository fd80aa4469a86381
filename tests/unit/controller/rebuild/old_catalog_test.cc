// An older copy of the catalog beside newer packs is known as one, whatever the packs have gained since, and is not served.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/status.h"
#include "controller/catalog/catalog_copy.h"
#include "controller/catalog/deletion_catalog.h"
#include "controller/catalog/generation_catalog.h"
#include "controller/prune/mark_writer.h"
#include "controller/prune/pruner.h"
#include "controller/rebuild/catalog_generation.h"
#include "tests/fakes/closed_files.h"
#include "tests/unit/controller/rebuild/rebuild_fixture.h"

namespace litefleet::rebuild {
namespace {

namespace fs = std::filesystem;
using fakes::FakeDatabase;
using testing::HasSubstr;

class OldCatalogTest : public RebuildTest {
 protected:
  void SetUp() override {
    RebuildTest::SetUp();
    device = Enroll("alpha", "aa01");
    database.seeds[3] = 77;
    first = Upload(database, device);
    ASSERT_TRUE(first.status.ok()) << first.status;
    ASSERT_TRUE(Count().ok());
    ASSERT_TRUE(catalog::CopyCatalog(directory_ + "/catalog.db", directory_ + "/old.db", CancelToken()).ok());
  }
  absl::Status Count() {
    catalog::GenerationCatalog catalog(*path_->db);
    return CatalogGeneration(catalog, *path_->store, clock_).Advance().status();
  }
  // What a start of the controller says.
  absl::Status Check() {
    catalog::GenerationCatalog catalog(*path_->db);
    return CatalogGeneration(catalog, *path_->store, clock_).CheckNewest();
  }
  void PutOldBack() {
    CloseAll();
    for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(directory_ + "/catalog.db" + suffix);
    fs::copy_file(directory_ + "/old.db", directory_ + "/catalog.db");
    OpenAll();
  }

  DeviceId device;
  FakeDatabase database = FakeDatabase::Make(4096, 64 * 9 + 5, 1);
  fakes::UploadOutcome first;
};

TEST_F(OldCatalogTest, IsNotServedBecauseAPruneWouldDeleteWhatIsNewer) {
  EXPECT_TRUE(Check().ok()) << Check();
  clock_.Advance(std::chrono::minutes(5));
  const FakeDatabase old = database;
  for (uint32_t& seed : database.seeds) seed += 1000;
  const auto second = Upload(database, device);
  ASSERT_TRUE(second.status.ok()) << second.status;
  ASSERT_TRUE(Count().ok());  // a minute later
  EXPECT_TRUE(Check().ok());
  const int64_t chunks = path_->Count("select count(*) from chunk");

  PutOldBack();
  EXPECT_LT(path_->Count("select count(*) from chunk"), chunks) << "to this catalog the rest would be dead bytes";
  const absl::Status refused = Check();
  EXPECT_EQ(ReasonOf(refused), "CATALOG_OUTDATED") << refused;
  EXPECT_THAT(HintOf(refused), HasSubstr("rebuild"));

  Rebuild();
  EXPECT_TRUE(Check().ok()) << Check();
  EXPECT_EQ(path_->ReadBack(first.snapshot_id).value(), ingest::WholeOf(old));
  EXPECT_EQ(path_->ReadBack(second.snapshot_id).value(), ingest::WholeOf(database));
  ASSERT_TRUE(Count().ok());
  EXPECT_TRUE(Check().ok()) << "counts go on where they were";
  PutOldBack();
  EXPECT_EQ(ReasonOf(Check()), "CATALOG_OUTDATED");
}

TEST_F(OldCatalogTest, IsSeenAtOnceByARevocation) {
  ASSERT_TRUE(identities_->RevokeDevice(device).ok());
  PutOldBack();
  EXPECT_EQ(identities_->ResolveDevice("alpha")->state(), v1::DEVICE_STATE_ACTIVE) << "this catalog would trust it";
  EXPECT_EQ(ReasonOf(Check()), "CATALOG_OUTDATED");
}

TEST_F(OldCatalogTest, IsSeenAtOnceByADeletion) {
  catalog::DeletionCatalog deletions(*path_->db);
  ASSERT_TRUE(Upload(FakeDatabase::Make(4096, 5, 9), device).status.ok());
  ASSERT_TRUE(deletions.Trash(SnapshotId(first.snapshot_id), true, "operator:x", clock_.Now()).ok());
  ASSERT_TRUE(prune::MarkWriter(deletions, *path_->store, clock_).WriteDue().ok());
  PutOldBack();
  EXPECT_EQ(ReasonOf(Check()), "CATALOG_OUTDATED");
}

// What a crash leaves between the two halves of counting is no sign of an old copy.
TEST_F(OldCatalogTest, ACountThatOnlyTheCatalogHasIsFine) {
  catalog::GenerationCatalog catalog(*path_->db);
  ASSERT_TRUE(catalog.Next().ok());
  EXPECT_TRUE(Check().ok());
  ASSERT_TRUE(Count().ok());
  EXPECT_TRUE(Check().ok());
}

// Only there it is said whether this catalog is the newest.
TEST_F(OldCatalogTest, ANewestPackThatMayNotBeOpenedIsNamedAndNotServed) {
  fakes::ClosedFiles files;
  disk_ = &files;
  files.closed = {"0000000000000001.open"};
  CloseAll();
  OpenAll();
  const absl::Status refused = Check();
  EXPECT_EQ(ReasonOf(refused), "NO_PERMISSION") << refused;
  EXPECT_THAT(MessageOf(refused), HasSubstr("0000000000000001"));
  EXPECT_THAT(HintOf(refused), HasSubstr("chown"));
  files.closed.clear();
  EXPECT_TRUE(Check().ok()) << Check();
  CloseAll();
}

class CountKillTest : public OldCatalogTest, public testing::WithParamInterface<const char*> {};

TEST_P(CountKillTest, ACrashIsNoSignOfAnOlderCopyAndLosesNothing) {
  CloseAll();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    setenv("LITEFLEET_CRASH_AT", GetParam(), 1);
    OpenAll();
    static_cast<void>(identities_->RevokeDevice(device));
    static_cast<void>(Count());
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "it never came there: " << status;
  OpenAll();
  EXPECT_TRUE(Check().ok()) << Check();
  ASSERT_TRUE(records_->WriteDue().ok());
  ASSERT_TRUE(Count().ok());
  EXPECT_TRUE(Check().ok()) << Check();
  Rebuild();
  EXPECT_EQ(identities_->ResolveDevice("alpha")->state(), v1::DEVICE_STATE_REVOKED)
      << "what was durable in the catalog gets into the packs";
  EXPECT_EQ(path_->ReadBack(first.snapshot_id).value(), ingest::WholeOf(database));
}

INSTANTIATE_TEST_SUITE_P(Points, CountKillTest, testing::Values("records.after_sync", "generation.after_catalog", "generation.after_sync"));

TEST_F(OldCatalogTest, CountsOnlyWhereTheStoreHasGrown) {
  catalog::GenerationCatalog catalog(*path_->db);
  CatalogGeneration generation(catalog, *path_->store, clock_);
  ASSERT_TRUE(generation.Advance().ok());
  const uint64_t before = catalog.Get()->generation;
  ASSERT_TRUE(generation.AdvanceIfGrown().ok());
  EXPECT_EQ(catalog.Get()->generation, before);
  ASSERT_TRUE(Upload(FakeDatabase::Make(4096, 5, 9), device).status.ok());
  ASSERT_TRUE(generation.AdvanceIfGrown().ok());
  EXPECT_EQ(catalog.Get()->generation, before + 1);
}

// Places change in a rewrite as well: to an older copy the new pack would be dead, and what it names is gone.
TEST_F(OldCatalogTest, ARewriteOfPacksCountsFirst) {
  for (uint32_t& seed : database.seeds) seed += 1000;
  database.seeds[0] -= 1000;
  ASSERT_TRUE(Upload(database, device).status.ok());
  catalog::DeletionCatalog deletions(*path_->db);
  ASSERT_TRUE(deletions.Trash(SnapshotId(first.snapshot_id), true, "operator:x", clock_.Now()).ok());
  catalog::PruneCatalog pruning(*path_->db);
  prune::MarkWriter marks(deletions, *path_->store, clock_);
  catalog::GenerationCatalog catalog(*path_->db);
  CatalogGeneration generation(catalog, *path_->store, clock_);
  int counted = 0;
  prune::Pruner pruner({.catalog = pruning,
                        .deletions = deletions,
                        .marks = marks,
                        .store = *path_->store,
                        .held = [](const SnapshotId&) { return false; },
                        .count_generation =
                            [&] {
                              ++counted;
                              return generation.Advance();
                            }});
  const prune::PruneOptions options{.snapshot_grace = {}, .chunk_grace = {}, .sweeps = 0, .rewrite_percent = 1};
  const auto report = pruner.Run(options, clock_.Now(), [](std::string_view, double) { return absl::OkStatus(); });
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_GT(report->packs_rewritten(), 0);
  EXPECT_EQ(counted, 1) << "once a run";
  int counts = 0;
  ASSERT_TRUE(path_->store
                  ->ForEachRecord([&](const store::Location&, const format::ScannedRecord& record) {
                    counts += record.header.type == format::RecordType::kCatalogGeneration ? 1 : 0;
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_EQ(counts, 1) << "older ones go with their packs";
  EXPECT_TRUE(Check().ok()) << Check();
  PutOldBack();
  EXPECT_EQ(ReasonOf(Check()), "CATALOG_OUTDATED");
}

}  // namespace
}  // namespace litefleet::rebuild
