// Numbers of snapshots after a rebuild: one that was acknowledged is not given again, whatever became of its snapshot.
#include "common/base/proto_time.h"
#include "controller/catalog/operation_catalog.h"
#include "tests/fakes/paged_device.h"
#include "tests/unit/controller/prune/prune_fixture.h"
#include "tests/unit/controller/rebuild/rebuild_fixture.h"

namespace litefleet::rebuild {
namespace {

using fakes::FakeDatabase;

class NumbersTest : public RebuildTest {
 protected:
  void SetUp() override {
    RebuildTest::SetUp();
    main_ = Enroll("alpha", "aa01");
    ASSERT_TRUE(records_->WriteDue().ok());
  }
  std::string Take(unsigned seed, const std::string& database = "main") {
    const auto outcome =
        fakes::RunUpload(*path_->ingest, main_, FakeDatabase::Make(4096, 64 * 2, seed), {.session_id = NewSession(), .database = database});
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    return outcome.snapshot_id;
  }
  int64_t NumberOf(const std::string& id) { return path_->Count("select sequence from snapshot where id = '" + id + "'"); }
  int64_t PlaceOf(const std::string& id) { return path_->Count("select offset from snapshot where id = '" + id + "'"); }
  void FlipInTheOnlyPack(int64_t at) {
    CloseAll();
    const auto files = PackFiles();
    ASSERT_EQ(files.size(), 1U);
    Flip(files[0], static_cast<uint64_t>(at));
  }

  DeviceId main_;
};

TEST_F(NumbersTest, OfOneWhoseChunkIsDamaged) {
  Take(1);
  const std::string newest = Take(2);
  ASSERT_EQ(NumberOf(newest), 2);
  FlipInTheOnlyPack(path_->Count("select max(offset) from chunk") + 100);
  EXPECT_EQ(Rebuild().snapshots_lost, 1U);
  EXPECT_EQ(Rebuild().snapshots_lost, 1U) << "and of a rebuild of that";
  EXPECT_EQ(NumberOf(Take(3)), 3) << "a sound header says that nothing else was there";
}

TEST_F(NumbersTest, OfOneWhoseDatabaseHasNoOther) {
  Take(1);
  FlipInTheOnlyPack(path_->Count("select max(offset) from chunk") + 100);
  EXPECT_EQ(Rebuild().things.snapshots, 0);
  EXPECT_EQ(NumberOf(Take(3)), 2);
}

TEST_F(NumbersTest, OfOneWhoseRecordIsDamaged) {
  Take(1);
  const std::string newest = Take(2);
  Take(3, "other");
  const int64_t at = PlaceOf(newest);
  FlipInTheOnlyPack(at + 100);
  EXPECT_EQ(Rebuild().things.snapshots, 2);
  EXPECT_GT(NumberOf(Take(4)), 2);
}

TEST_F(NumbersTest, OfOneWhoseRecordIsTakenForATornTail) {
  Take(1);
  const std::string newest = Take(2);
  const int64_t at = PlaceOf(newest);
  FlipInTheOnlyPack(at + 100);  // nothing stands behind it
  EXPECT_EQ(Rebuild().things.snapshots, 1);
  EXPECT_GT(NumberOf(Take(4)), 2);
}

TEST_F(NumbersTest, OfOneThatWasDeleted) {
  Take(1);
  const std::string newest = Take(2);
  prune::Rig rig(*path_, clock_);
  ASSERT_TRUE(rig.deletions.Trash(SnapshotId(newest), true, "operator:test", clock_.Now()).ok());
  ASSERT_TRUE(rig.marks.WriteDue().ok());
  Rebuild();
  EXPECT_EQ(NumberOf(Take(3)), 3);
}

// Neither its record nor its mark is there any more.
TEST_F(NumbersTest, OfOneThatIsGoneForGood) {
  const std::string kept = Take(1);
  const std::string newest = Take(2);
  {
    prune::Rig rig(*path_, clock_);
    ASSERT_TRUE(rig.deletions.Trash(SnapshotId(newest), true, "operator:test", clock_.Now()).ok());
    ASSERT_TRUE(path_->store->SealOpenPack().ok());
    prune::PruneOptions options = prune::AtOnce();
    options.rewrite_percent = 100;
    ASSERT_TRUE(rig.Run(clock_.Now(), options).ok());
    ASSERT_EQ(path_->Count("select count(*) from snapshot"), 1);
    EXPECT_EQ(due_->Due(clock_.Now(), 10)->size(), 1U) << "the record of the database";
    ASSERT_TRUE(records_->WriteDue().ok());
    // Twice: the mark stays as long as a pack does that there was when the snapshot went.
    for (unsigned i = 0; i < 3; ++i) {
      Take(10 + i, "other");
      ASSERT_TRUE(path_->store->SealOpenPack().ok());
      options.rewrite_percent = 1;
      ASSERT_TRUE(rig.Run(clock_.Now(), options).ok());
    }
  }
  for (int round = 0; round < 2; ++round) Rebuild();
  EXPECT_EQ(NumberOf(kept), 1);
  EXPECT_EQ(NumberOf(Take(3)), 3);
}

// The answer to a commit was lost, and the operation is cancelled before the device asks again: that is no second commit.
TEST_F(NumbersTest, OfACommitWhoseOperationIsCancelled) {
  catalog::OperationCatalog operations(*path_->db);
  catalog::OperationRow row;
  row.operation.set_id(NewUlid(clock_.Now()));
  row.operation.set_kind(v1::OPERATION_KIND_BACKUP);
  row.operation.set_state(v1::OPERATION_STATE_RUNNING);
  row.operation.set_device_id(main_.value());
  *row.operation.mutable_created_at() = ToProtoTime(clock_.Now());
  ASSERT_TRUE(operations.Create({row}).ok());
  fakes::PagedWish wish{.session_id = NewSession(), .compare = false, .base = {}, .base_state = {}};
  wish.operation = row.operation.id();
  const auto commit = [&] {
    fakes::PagedUpload upload(*path_->ingest, main_, {.page_size = 4096, .pages = {1, 2, 3}}, wish);
    while (upload.Step()) {}
    upload.End();
    EXPECT_TRUE(upload.outcome().status.ok()) << upload.outcome().status;
    return upload.outcome().snapshot;
  };
  const std::string first = commit();
  ASSERT_TRUE(operations
                  .Update(OperationId(row.operation.id()),
                          [](v1::Operation& operation) {
                            operation.set_state(v1::OPERATION_STATE_CANCELLED);
                            return absl::OkStatus();
                          })
                  .ok());
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(commit(), first);
  EXPECT_EQ(path_->Count("select count(*) from snapshot"), 1);
}

TEST_F(NumbersTest, OfARoundThatWasUploadedAhead) {
  Take(1);
  const FakeDatabase database = FakeDatabase::Make(4096, 64, 2);
  auto sink = std::make_shared<fakes::RecordingSink>();
  {
    const auto session = *path_->ingest->NewUpload(main_, sink);
    v1::UploadRequest commit = fakes::CommitRequest(database);
    commit.mutable_commit()->set_precopied(true);
    for (v1::UploadRequest request : {fakes::BeginRequest(database, {.session_id = NewSession()}), fakes::OfferRequest(database, 1, 0, 1),
                                      fakes::ChunkRequest(database, 0), commit}) {
      const absl::Status handled = session->Handle(request);
      ASSERT_TRUE(handled.ok()) << handled;
    }
    session->End();
  }
  ASSERT_EQ(path_->Count("select sequence from database"), 2);
  Rebuild();
  EXPECT_EQ(NumberOf(Take(3)), 3);
}

}  // namespace
}  // namespace litefleet::rebuild
