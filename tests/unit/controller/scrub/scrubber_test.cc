// Bits are flipped in packs: scrub finds them, marks what needs them, and the next backup heals it.
#include "controller/scrub/scrubber.h"

#include "tests/unit/controller/scrub/scrub_fixture.h"

namespace litefleet::scrub {
namespace {

namespace fs = std::filesystem;
using fakes::FakeDatabase;

TEST_F(ScrubberTest, ASoundStoreIsFoundSound) {
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 4 + 1, 1);
  ASSERT_TRUE(Upload(database, device_).status.ok());
  const Scrubber::Report report = Run();
  EXPECT_EQ(report.chunks_quarantined, 0U);
  EXPECT_EQ(report.snapshots_damaged, 0U);
  EXPECT_EQ(report.logical_bytes, uint64_t{4096} * (64 * 4 + 1));
}

TEST_F(ScrubberTest, AFlippedBitIsFoundMarkedAndHealedByTheNextBackup) {
  FakeDatabase database = FakeDatabase::Make(4096, 64 * 4, 1);
  const auto first = Upload(database, device_);
  const FakeDatabase old = database;
  database.seeds[0] = 4711;
  const auto second = Upload(database, device_);
  const FakeDatabase unrelated = FakeDatabase::Make(4096, 64 * 2, 9);
  const auto other = Upload(unrelated, other_);
  ASSERT_TRUE(other.status.ok());

  FlipChunk(old, 0);       // of the first snapshot alone
  FlipChunk(database, 2);  // of the first two
  const Scrubber::Report report = Run();
  EXPECT_EQ(report.chunks_quarantined, 2U);
  EXPECT_EQ(report.snapshots_damaged, 2U);
  EXPECT_EQ(StateOf(first.snapshot_id), v1::SNAPSHOT_STATE_DAMAGED);
  EXPECT_EQ(StateOf(second.snapshot_id), v1::SNAPSHOT_STATE_DAMAGED);
  EXPECT_EQ(StateOf(other.snapshot_id), v1::SNAPSHOT_STATE_COMMITTED);
  EXPECT_EQ(parts_->catalog.GetFigures()->damaged_snapshots, 2);
  EXPECT_EQ(Run().chunks_quarantined, 0U) << "found once";

  const auto third = Upload(database, device_);
  ASSERT_TRUE(third.status.ok()) << third.status;
  EXPECT_EQ(third.chunks_sent, 1U) << "the quarantined chunk counts as absent";
  EXPECT_EQ(scrubber_->Heal().value(), 1);
  EXPECT_EQ(StateOf(second.snapshot_id), v1::SNAPSHOT_STATE_COMMITTED);
  EXPECT_EQ(StateOf(first.snapshot_id), v1::SNAPSHOT_STATE_DAMAGED) << "what it alone needs has not come back";
  EXPECT_EQ(path_->ReadBack(second.snapshot_id).value(), ingest::WholeOf(database));
  EXPECT_EQ(path_->ReadBack(third.snapshot_id).value(), ingest::WholeOf(database));

  ASSERT_TRUE(Upload(old, device_).status.ok()) << "the device is restored to the old state and backed up";
  EXPECT_EQ(scrubber_->Heal().value(), 1);
  EXPECT_EQ(StateOf(first.snapshot_id), v1::SNAPSHOT_STATE_COMMITTED);
  EXPECT_EQ(path_->ReadBack(first.snapshot_id).value(), ingest::WholeOf(old));
  EXPECT_EQ(parts_->catalog.GetFigures()->quarantined_chunks, 0);
  EXPECT_EQ(Run().chunks_quarantined, 0U);
}

TEST_F(ScrubberTest, OfAPackThatAPruneRemovesMeanwhileNothingIsConcluded) {
  ASSERT_TRUE(Upload(FakeDatabase::Make(4096, 64 * 4, 1), device_).status.ok());
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  const uint64_t pack = path_->store->Packs()[0].id;
  PackScrubber scrubber(*path_->store, *path_->ingest_catalog, parts_->catalog);
  const auto findings = scrubber.Scrub(pack, [&](uint64_t) { return path_->store->RemovePack(pack); });
  ASSERT_TRUE(findings.ok()) << findings.status();
  EXPECT_TRUE(findings->gone);
}

TEST_F(ScrubberTest, AnUploadThatBeganBeforeAQuarantineIsNotCommittedOnIt) {
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 3, 1);
  ASSERT_TRUE(Upload(database, device_).status.ok());
  auto sink = std::make_shared<fakes::RecordingSink>();
  auto session = path_->ingest->NewUpload(device_, sink);
  ASSERT_TRUE(session.ok());
  const fakes::UploadPlan plan{.session_id = NewSession()};
  auto begin = fakes::BeginRequest(database, plan);
  auto offer = fakes::OfferRequest(database, 1, 0, 3);
  ASSERT_TRUE((*session)->Handle(begin).ok());
  ASSERT_TRUE((*session)->Handle(offer).ok());
  const auto missing = sink->Next(v1::UploadResponse::kMissing);
  ASSERT_TRUE(missing.has_value());
  EXPECT_EQ(missing->missing().positions_size(), 0) << "all of it is there";
  FlipChunk(database, 1);
  EXPECT_EQ(Run().chunks_quarantined, 1U);
  auto commit = fakes::CommitRequest(database);
  const absl::Status status = (*session)->Handle(commit);
  EXPECT_EQ(ReasonOf(status), "CHUNK_VANISHED") << status;
  (*session)->End();
  const auto resumed = fakes::RunUpload(*path_->ingest, device_, database, plan);
  ASSERT_TRUE(resumed.status.ok()) << resumed.status;
  EXPECT_EQ(resumed.chunks_sent, 1U);
  EXPECT_EQ(path_->ReadBack(resumed.snapshot_id).value(), ingest::WholeOf(database));
}

TEST_F(ScrubberTest, AMissingPackIsDamageAndAMissingStoreIsNot) {
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 3, 1);
  const auto uploaded = Upload(database, device_);
  ASSERT_TRUE(uploaded.status.ok());
  fs::rename(directory_ + "/store/packs", directory_ + "/store/away");
  const CancelToken cancel;
  Scrubber::Report nothing;
  EXPECT_FALSE(scrubber_->Run({}, cancel, nothing, [](uint64_t, uint64_t) {}).ok());
  EXPECT_EQ(StateOf(uploaded.snapshot_id), v1::SNAPSHOT_STATE_COMMITTED) << "nothing is concluded";
  fs::rename(directory_ + "/store/away", directory_ + "/store/packs");
  EXPECT_EQ(Run().chunks_quarantined, 0U);

  fs::remove(PackFile());
  EXPECT_EQ(Run().chunks_quarantined, 3U);
  EXPECT_EQ(StateOf(uploaded.snapshot_id), v1::SNAPSHOT_STATE_DAMAGED);
}

TEST_F(ScrubberTest, ARunIsAnOperationThatCanBeCancelled) {
  ASSERT_TRUE(Upload(FakeDatabase::Make(4096, 64 * 3, 1), device_).status.ok());
  ASSERT_TRUE(scrubber_->Begin().ok());
  const auto operation = scrubber_->Start(0, "", "operator:test");
  ASSERT_TRUE(operation.ok()) << operation.status();
  const auto ended = [&] {
    const auto row = parts_->operations.Get(OperationId(operation->id()));
    return row.ok() && !catalog::IsActive(row->operation.state());
  };
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!ended() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  const auto row = parts_->operations.Get(OperationId(operation->id()));
  ASSERT_TRUE(row.ok());
  EXPECT_EQ(row->operation.state(), v1::OPERATION_STATE_SUCCEEDED) << row->operation.DebugString();

  CancelToken cancelled;
  cancelled.Cancel();
  Scrubber::Report nothing;
  EXPECT_EQ(scrubber_->Run({}, cancelled, nothing, [](uint64_t, uint64_t) {}).code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace litefleet::scrub
