// What may run beside what (controller/README.md): one test for each cell that has a rule of its own, named row and column. Everything is
// done by one thread, so that the other side comes exactly where it hurts.
#include <array>

#include "common/base/proto_time.h"
#include "controller/catalog/heal_catalog.h"
#include "controller/catalog/operation_catalog.h"
#include "controller/catalog/policy_catalog.h"
#include "controller/catalog/scrub_catalog.h"
#include "tests/fakes/paged_device.h"
#include "tests/unit/controller/prune/prune_fixture.h"

namespace litefleet::prune {
namespace {

using catalog::PruneCatalog;
using fakes::FakeDatabase;
using fakes::PagedDatabase;
using std::chrono::hours;

// An upload message by message.
class Half {
 public:
  Half(ingest::Ingest& ingest, const DeviceId& device, FakeDatabase database)
      : database_(std::move(database)), session_(*ingest.NewUpload(device, sink_)) {}
  ~Half() { End(); }
  Half(const Half&) = delete;
  Half& operator=(const Half&) = delete;

  absl::Status Begin() { return Handle(fakes::BeginRequest(database_, {.session_id = NewUlid(RealClock().Now())})); }
  // What is missing of these extents is sent too.
  absl::Status Offer(uint32_t first, uint32_t count) {
    LF_RETURN_IF_ERROR(Handle(fakes::OfferRequest(database_, ++offers_, first, count)));
    const auto missing = sink_->Next(v1::UploadResponse::kMissing);
    if (!missing.has_value()) return absl::InternalError("no answer");
    sent_ += missing->missing().positions_size();
    for (const uint32_t position : missing->missing().positions())
      LF_RETURN_IF_ERROR(Handle(fakes::ChunkRequest(database_, first + position)));
    return absl::OkStatus();
  }
  absl::Status OfferAll() { return Offer(0, static_cast<uint32_t>(database_.seeds.size())); }
  absl::StatusOr<std::string> Commit() {
    LF_RETURN_IF_ERROR(Handle(fakes::CommitRequest(database_)));
    const auto committed = sink_->Next(v1::UploadResponse::kCommitted);
    if (!committed.has_value()) return absl::InternalError("no answer");
    return committed->committed().snapshot_id();
  }
  void End() {
    if (session_ != nullptr) session_->End();
    session_.reset();
  }
  int sent() const { return sent_; }

 private:
  absl::Status Handle(v1::UploadRequest request) { return session_->Handle(request); }

  const FakeDatabase database_;
  const std::shared_ptr<fakes::RecordingSink> sink_ = std::make_shared<fakes::RecordingSink>();
  std::shared_ptr<ingest::UploadSession> session_;
  uint64_t offers_ = 0;
  int sent_ = 0;
};

class BesideTest : public PrunerTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    UseMemory();
    path_ = std::make_unique<ingest::DataPath>(directory_, clock_, ingest::IngestLimits{}, 4 << 20, store::PosixFileSystem(),
                                               /*threads=*/false);
    rig_ = std::make_unique<Rig>(*path_, clock_);
    operations_ = std::make_unique<catalog::OperationCatalog>(*path_->db);
  }
  void TearDown() override {
    rig_.reset();
    IngestTest::TearDown();
  }
  absl::Status Trash(const std::string& id) { return rig_->deletions.Trash(SnapshotId(id), true, "operator:x", clock_.Now()); }
  v1::PruneReport Prune(int rewrite_percent = 1) {
    PruneOptions options = AtOnce();
    options.rewrite_percent = rewrite_percent;
    const auto report = rig_->Run(clock_.Now(), options);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value_or(v1::PruneReport());
  }
  // Rows of the snapshot go; its chunks are as they were.
  void Remove(const std::string& id) {
    ASSERT_TRUE(Trash(id).ok() && rig_->marks.WriteDue().ok());
    ASSERT_EQ(
        rig_->deletions.RemoveSome(clock_.Now(), 0, path_->store->Packs().back().id, [](const SnapshotId&) { return false; })->snapshots,
        1);
  }
  // Of the extents that the database has alone.
  std::vector<int64_t> ChunksOf(unsigned seed) {
    std::vector<format::ChunkName> names;
    for (uint32_t extent = 0; extent < 4; ++extent) names.push_back(DatabaseOf(seed).Name(extent));
    return *rig_->catalog.ChunkIds(names);
  }
  std::string Order(const std::string& snapshot) {
    catalog::OperationRow row;
    row.operation.set_id(NewSession());
    row.operation.set_kind(v1::OPERATION_KIND_RESTORE);
    row.operation.set_state(v1::OPERATION_STATE_QUEUED);
    row.operation.set_device_id(other_.value());
    row.operation.set_database("main");
    row.operation.set_ordered_by("operator:x");
    *row.operation.mutable_created_at() = ToProtoTime(clock_.Now());
    row.order.set_operation_id(row.operation.id());
    row.order.mutable_restore()->set_snapshot_id(snapshot);
    EXPECT_TRUE(operations_->Create({row}).ok());
    return row.operation.id();
  }
  void End(const std::string& order) {
    ASSERT_TRUE(operations_
                    ->Update(OperationId(order),
                             [&](v1::Operation& operation) {
                               operation.set_state(v1::OPERATION_STATE_CANCELLED);
                               *operation.mutable_ended_at() = ToProtoTime(clock_.Now());
                               return absl::OkStatus();
                             })
                    .ok());
  }
  // What retention has read, with all but the newest to go.
  struct Planned {
    catalog::SeenDatabase seen;
    std::vector<SnapshotId> go;
  };
  Planned PlanOf() {
    const catalog::PolicyCatalog policies(*path_->db);
    Planned planned{.seen = policies.DatabasesAfter(0, 10)->front().seen, .go = {}};
    const auto snapshots = policies.SnapshotsOf(planned.seen);
    for (size_t i = 0; i + 1 < snapshots->size(); ++i) planned.go.push_back((*snapshots)[i].id);
    return planned;
  }
  void ExpectReadsBack(const std::string& id, unsigned seed) {
    const auto bytes = path_->ReadBack(id);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_TRUE(*bytes == ingest::WholeOf(DatabaseOf(seed)));
  }
  fakes::PagedOutcome UploadPaged(
      const PagedDatabase& state, fakes::PagedWish wish, const std::function<void()>& beside = [] {}) {
    fakes::PagedUpload upload(*path_->ingest, device_, state, std::move(wish));
    while (upload.Step()) beside();
    upload.End();
    EXPECT_TRUE(upload.outcome().status.ok()) << upload.outcome().status;
    return upload.outcome();
  }
  catalog::ScrubCatalog::PlacedChunk Placed(int64_t id, const format::ChunkName& name) {
    const std::string row = " from chunk where id = " + std::to_string(id);
    return {.id = id,
            .name = name,
            .place = {.pack = static_cast<uint64_t>(path_->Count("select pack" + row)),
                      .offset = static_cast<uint64_t>(path_->Count("select offset" + row))}};
  }

  std::unique_ptr<Rig> rig_;
  std::unique_ptr<catalog::OperationCatalog> operations_;
};

// ---- ingest and commit as columns

TEST_F(BesideTest, CommitBesideCommit_OneSequenceNumberIsGivenOnce) {
  catalog::IngestCatalog& catalog = *path_->ingest_catalog;
  const auto begin = [&] {
    return *catalog.BeginSession(device_, SessionId(NewSession()), "main", 1, SnapshotId(), clock_.Now() + hours(1));
  };
  const auto record = [&](uint64_t sequence) {
    storage::v1::SnapshotRecord made;
    made.set_snapshot_id(NewSession());
    made.set_device_id(device_.value());
    made.set_page_size(4096);
    made.set_sequence(sequence);
    return made;
  };
  const catalog::UploadSessionRow first = begin(), second = begin();
  const auto committed = catalog.Commit(first, record(1), {}, {});
  ASSERT_TRUE(committed.ok()) << committed.status();
  EXPECT_EQ(ReasonOf(catalog.Commit(second, record(1), {}, {}).status()), "COMMIT_CONFLICT");
  EXPECT_EQ(path_->SnapshotCount(), 1u) << "nothing was recorded";
  EXPECT_TRUE(catalog.Commit(second, record(2), {}, {}).ok()) << "commit again";
  EXPECT_EQ(catalog.Commit(first, record(3), {}, {})->snapshot, committed->snapshot) << "the same session is the same snapshot";
  EXPECT_EQ(path_->SnapshotCount(), 2u);
}

TEST_F(BesideTest, ExpiryBesideIngestAndCommit_WhatGoesOnIsToldSo) {
  Take(0);
  const std::string newest = Take(3);
  const FakeDatabase again = DatabaseOf(0);  // the pinned snapshot does not hold its first extents
  Half offers(*path_->ingest, device_, again), sends(*path_->ingest, device_, DatabaseOf(6)), commits(*path_->ingest, device_, again);
  ASSERT_TRUE(offers.Begin().ok() && sends.Begin().ok() && commits.Begin().ok());
  ASSERT_TRUE(offers.Offer(0, 2).ok() && sends.OfferAll().ok() && commits.OfferAll().ok());
  EXPECT_EQ(path_->Count("select count(*) from claim"), 2 + 4);
  clock_.Advance(hours(24 * 8));
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(path_->Count("select count(*) from claim"), 0);
  EXPECT_EQ(ReasonOf(offers.Offer(2, 2)), "SESSION_EXPIRED") << "nothing is claimed for it";
  EXPECT_EQ(ReasonOf(sends.Commit().status()), "SESSION_EXPIRED") << "nor recorded";
  EXPECT_EQ(ReasonOf(commits.Commit().status()), "SESSION_EXPIRED");
  EXPECT_EQ(path_->Count("select count(*) from claim"), 0);
  EXPECT_EQ(path_->Count("select count(*) from chunk"), 4 + 4 + 3);
  EXPECT_EQ(path_->SnapshotCount(), 2u);
  ExpectReadsBack(newest, 3);
  ExpectReadsBack(Take(0), 0);
}

TEST_F(BesideTest, ForgetBesideIngestAndCommit_TheDevicesUploadsEnd) {
  Take(0);
  Take(3);
  Half offers(*path_->ingest, device_, DatabaseOf(0)), commits(*path_->ingest, device_, DatabaseOf(6));
  ASSERT_TRUE(offers.Begin().ok() && commits.Begin().ok() && commits.OfferAll().ok());
  ASSERT_TRUE(rig_->deletions.BeginForget(device_).ok());
  EXPECT_EQ(ReasonOf(offers.OfferAll()), "SESSION_EXPIRED");
  EXPECT_EQ(ReasonOf(commits.Commit().status()), "SESSION_EXPIRED");
  EXPECT_EQ(path_->Count("select count(*) from snapshot"), 2);
}

TEST_F(BesideTest, DeleteBesideCommit_TheNewestIsComputedAnew) {
  const std::string first = Take(0), second = Take(3);
  Half half(*path_->ingest, device_, DatabaseOf(6));
  ASSERT_TRUE(half.Begin().ok() && half.OfferAll().ok());
  ASSERT_TRUE(Trash(second).ok());
  EXPECT_EQ(path_->snapshots->Newest(device_, "main")->id(), first);
  const auto third = half.Commit();
  ASSERT_TRUE(third.ok()) << third.status();
  EXPECT_EQ(path_->snapshots->Newest(device_, "main")->id(), *third);
  ASSERT_TRUE(rig_->deletions.Restore(SnapshotId(second)).ok());
  EXPECT_EQ(path_->snapshots->Newest(device_, "main")->id(), *third) << "what comes back is older";
  EXPECT_EQ(path_->Count("select snapshots from database"), 3);
}

// ---- orders

TEST_F(BesideTest, DeleteBesideAnOrder_WhatItNamesIsInUse) {
  const std::string named = Take(0), other = Take(3);
  const std::string order = Order(named);
  EXPECT_EQ(ReasonOf(Trash(named)), "SNAPSHOT_IN_USE");
  EXPECT_EQ(ReasonOf(rig_->deletions.BeginForget(device_)), "SNAPSHOT_IN_USE");
  EXPECT_EQ(path_->Count("select count(*) from database where forgotten = 1"), 0);
  EXPECT_TRUE(Trash(other).ok());
  End(order);
  EXPECT_TRUE(Trash(named).ok());
  EXPECT_TRUE(rig_->deletions.BeginForget(device_).ok());
}

TEST_F(BesideTest, RemoveBesideAnOrder_WhatItNamesStays) {
  const std::string named = Take(0);
  Take(3);
  ASSERT_TRUE(Trash(named).ok());
  const std::string order = Order(named);  // that was on its way
  v1::PruneReport report = Prune();
  EXPECT_EQ(report.snapshots_held(), 1);
  EXPECT_EQ(report.snapshots_removed(), 0);
  EXPECT_EQ(report.chunks_trashed(), 0);
  End(order);
  report = Prune();
  EXPECT_EQ(report.snapshots_removed(), 1);
  EXPECT_EQ(report.chunks_swept(), 4);
}

// ---- retention

TEST_F(BesideTest, RetentionBesideCommit_ThePlanIsVoid) {
  for (const unsigned seed : {0u, 3u, 6u}) Take(seed);
  Planned planned = PlanOf();
  ASSERT_EQ(planned.go.size(), 2u);
  Take(9);
  EXPECT_EQ(ReasonOf(rig_->deletions.TrashPlanned(planned.seen, planned.go, "policy:p", clock_.Now()).status()), "PLAN_VOID");
  EXPECT_EQ(path_->SnapshotCount(), 4u);
  planned = PlanOf();
  EXPECT_EQ(rig_->deletions.TrashPlanned(planned.seen, planned.go, "policy:p", clock_.Now()).value_or(-1), 3);
}

TEST_F(BesideTest, RetentionBesideDelete_ThePlanIsVoid) {
  for (const unsigned seed : {0u, 3u, 6u}) Take(seed);
  Planned planned = PlanOf();
  ASSERT_TRUE(Trash(planned.go[0].value()).ok());
  EXPECT_EQ(ReasonOf(rig_->deletions.TrashPlanned(planned.seen, planned.go, "policy:p", clock_.Now()).status()), "PLAN_VOID");
  ASSERT_TRUE(rig_->deletions.Restore(planned.go[0]).ok());
  // The number is the one that was seen again, and so is what it stands for.
  EXPECT_EQ(rig_->deletions.TrashPlanned(planned.seen, planned.go, "policy:p", clock_.Now()).value_or(-1), 2);
}

TEST_F(BesideTest, RetentionBesidePinOrderAndCheck_EachVerdictIsLookedAtAgain) {
  for (const unsigned seed : {0u, 3u, 6u, 9u, 12u}) Take(seed);
  Planned planned = PlanOf();
  ASSERT_EQ(planned.go.size(), 4u);
  ASSERT_TRUE(rig_->deletions.SetPinned(planned.go[0], true).ok());
  Order(planned.go[1].value());
  ASSERT_TRUE(path_->db
                  ->Write([&](sqlite3* db) {
                    return sqlite::Execute(
                        db, "update database set proven = (select key from snapshot where id = '" + planned.go[2].value() + "')");
                  })
                  .ok());
  EXPECT_EQ(rig_->deletions.TrashPlanned(planned.seen, planned.go, "policy:p", clock_.Now()).value_or(-1), 1);
  EXPECT_EQ(path_->Count("select count(*) from snapshot where state = 3 and id = '" + planned.go[3].value() + "'"), 1);
}

// ---- remove, mark, sweep

TEST_F(BesideTest, RemoveBesideIngest_WhatASessionPinsStays) {
  const std::string pinned = Take(0);
  auto half = std::make_unique<Half>(*path_->ingest, device_, DatabaseOf(1));  // all of it is the pinned one's
  ASSERT_TRUE(half->Begin().ok() && half->OfferAll().ok());
  EXPECT_EQ(half->sent(), 0);
  EXPECT_EQ(path_->Count("select count(*) from claim"), 0);
  Take(3);
  ASSERT_TRUE(Trash(pinned).ok());
  v1::PruneReport report = Prune();
  EXPECT_EQ(report.snapshots_held(), 1);
  EXPECT_EQ(report.chunks_trashed(), 0) << "they are held by nothing else";
  const auto committed = half->Commit();
  ASSERT_TRUE(committed.ok()) << committed.status();
  half->End();
  report = Prune();
  EXPECT_EQ(report.snapshots_removed(), 1);
  EXPECT_EQ(report.chunks_trashed(), 0);
  ExpectReadsBack(*committed, 1);
}

TEST_F(BesideTest, MaintenanceBesideADelta_AtEachStep) {
  PagedDatabase before;
  for (unsigned page = 0; page < 64 * 4; ++page) before.pages.push_back(page);
  PagedDatabase now = before;
  for (const size_t page : {3, 70, 140, 200}) now.pages[page] += 5000;
  const std::string base = UploadPaged(before, {.session_id = NewSession(), .base = {}, .base_state = {}}).snapshot;
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  int64_t held = 0;
  const auto delta = UploadPaged(now, {.session_id = NewSession(), .base = base, .base_state = before}, [&] {
    ASSERT_TRUE(Trash(base).ok());
    held += Prune().snapshots_held();
    ASSERT_TRUE(path_->store->SealOpenPack().ok());
  });
  EXPECT_EQ(delta.base, base);
  EXPECT_GT(held, 1);
  for (const char* when : {"as it was committed", "without its base"}) {
    const auto bytes = path_->ReadBack(delta.snapshot);
    ASSERT_TRUE(bytes.ok()) << when << ": " << bytes.status();
    EXPECT_TRUE(*bytes == now.Run(1, now.count())) << when;
    Prune();
  }
  EXPECT_EQ(path_->Count("select count(*) from snapshot"), 1);
}

TEST_F(BesideTest, MarkBesideCommitAndExpiry_ClaimsOutliveTheirCommit) {
  const std::string old = Take(0);
  Take(3);
  Remove(old);
  const std::vector<int64_t> unmarked = ChunksOf(0);
  const auto run = rig_->catalog.Begin();
  ASSERT_TRUE(run.ok());
  // The bitmap is made here, and knows nothing of this one.
  const std::string again = Take(0);
  EXPECT_EQ(path_->Count("select count(*) from claim"), 4);
  clock_.Advance(hours(24 * 40));
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(path_->Count("select count(*) from claim"), 4) << "sessions that were committed stay while a mark runs";
  EXPECT_EQ(rig_->catalog.Trash(unmarked, clock_.Now(), run->run)->chunks, 0);
  ASSERT_TRUE(rig_->catalog.EndMarking().ok());
  EXPECT_EQ(path_->Count("select count(*) from claim"), 0);
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(path_->Count("select count(*) from upload_session"), 0);
  ExpectReadsBack(again, 0);
}

TEST_F(BesideTest, MarkBesideIngest_WhatIsClaimedIsNotTrashed) {
  const std::string old = Take(0);
  Take(3);
  Remove(old);
  const std::vector<int64_t> unmarked = ChunksOf(0);
  const auto run = rig_->catalog.Begin();
  ASSERT_TRUE(run.ok());
  Half half(*path_->ingest, device_, DatabaseOf(0));
  ASSERT_TRUE(half.Begin().ok() && half.Offer(0, 3).ok());
  EXPECT_EQ(half.sent(), 0);
  EXPECT_EQ(rig_->catalog.Trash(unmarked, clock_.Now(), run->run)->chunks, 1) << "the one that was not offered";
  ASSERT_TRUE(rig_->catalog.EndMarking().ok());
  ASSERT_TRUE(half.Offer(3, 4).ok());
  EXPECT_EQ(half.sent(), 0);
  const auto committed = half.Commit();
  ASSERT_TRUE(committed.ok()) << committed.status();
  ExpectReadsBack(*committed, 0);
}

TEST_F(BesideTest, SweepBesideIngest_WhatWasTakenOutOfTheTrashIsNotSwept) {
  const std::string old = Take(0);
  Take(3);
  ASSERT_TRUE(Trash(old).ok());
  PruneOptions options = AtOnce();
  options.sweeps = 1;
  ASSERT_EQ(rig_->Run(clock_.Now(), options)->chunks_trashed(), 4);
  std::vector<int64_t> to_sweep;
  const auto trashed = rig_->catalog.Trashed(0, clock_.Now(), 100, 100);
  for (const PruneCatalog::Chunk& chunk : *trashed) to_sweep.push_back(chunk.id);
  ASSERT_EQ(to_sweep.size(), 4u);
  Half half(*path_->ingest, device_, DatabaseOf(0));
  ASSERT_TRUE(half.Begin().ok() && half.Offer(0, 2).ok());
  EXPECT_EQ(rig_->catalog.Sweep(to_sweep)->chunks, 2);
  ASSERT_TRUE(half.Offer(2, 5).ok());
  EXPECT_EQ(half.sent(), 2) << "what was swept is sent";
  const auto committed = half.Commit();
  ASSERT_TRUE(committed.ok()) << committed.status();
  ExpectReadsBack(*committed, 0);
}

TEST_F(BesideTest, DeleteAndTrashRestoreBesideAMark_TheChunksWereMarked) {
  const std::string back = Take(0), away = Take(3);
  Take(6);
  ASSERT_TRUE(Trash(back).ok());
  PruneOptions options;
  options.chunk_grace = std::chrono::milliseconds(0);
  options.sweeps = 0;
  bool done = false;
  const auto report = rig_->Make().Run(options, clock_.Now(), [&](std::string_view phase, double) -> absl::Status {
    if (phase != "looking for what nothing needs" || std::exchange(done, true)) return absl::OkStatus();
    LF_RETURN_IF_ERROR(Trash(away));
    return rig_->deletions.Restore(SnapshotId(back));
  });
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(done);
  EXPECT_EQ(report->chunks_trashed(), 0);
  ExpectReadsBack(back, 0);
  EXPECT_EQ(Prune().snapshots_removed(), 1);
  EXPECT_EQ(ReasonOf(rig_->deletions.Restore(SnapshotId(away))), "SNAPSHOT_NOT_FOUND");
}

TEST_F(BesideTest, DeleteBesideFetch_WhoReadsGoesOn) {
  const std::string read = Take(0);
  Take(3);
  auto reader = path_->readers->Open(SnapshotId(read), {});
  ASSERT_TRUE(reader.ok() && (*reader)->Next().ok());
  ASSERT_TRUE(Trash(read).ok());
  EXPECT_EQ(ReasonOf(path_->readers->Open(SnapshotId(read), {}).status()), "SNAPSHOT_IN_TRASH");
  EXPECT_EQ(Prune().snapshots_held(), 1);
  for (int left = 6; left > 0; --left) EXPECT_TRUE((*reader)->Next()->has_value());
  EXPECT_FALSE((*reader)->Next()->has_value());
}

// ---- rewrite

TEST_F(BesideTest, RewriteBesideIngest_APackWithWhatIsNotRecordedIsHeld) {
  Take(0);
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  Half half(*path_->ingest, device_, DatabaseOf(3));
  ASSERT_TRUE(half.Begin().ok() && half.OfferAll().ok());
  const uint64_t pack = path_->store->Packs().back().id;
  EXPECT_EQ(ReasonOf(path_->store->RemovePack(pack)), "PACK_OPEN");
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  EXPECT_TRUE(path_->store->Packs().back().sealed && path_->store->Packs().back().held);
  EXPECT_EQ(ReasonOf(path_->store->RemovePack(pack)), "PACK_HELD");
  const v1::PruneReport report = Prune();
  EXPECT_EQ(report.packs_removed() + report.packs_rewritten(), 0) << "the catalog knows of nothing in it";
  const auto committed = half.Commit();
  ASSERT_TRUE(committed.ok()) << committed.status();
  half.End();
  EXPECT_FALSE(path_->store->Packs().front().held);
  ExpectReadsBack(*committed, 3);
}

TEST_F(BesideTest, RewriteBesideScrub_PlacesAndStatesAreCompared) {
  const std::string id = Take(0);
  const std::string gone = Take(3);
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  const int64_t chunk = ChunksOf(0)[1];
  const auto before = Placed(chunk, DatabaseOf(0).Name(1));
  // Scrub has found it bad; until it says so the pack is rewritten. The copy is another one.
  ASSERT_TRUE(Trash(gone).ok());
  EXPECT_EQ(Prune().packs_rewritten(), 1);
  catalog::ScrubCatalog scrub(*path_->db);
  EXPECT_TRUE(scrub.Quarantine(std::array{before}, "x", clock_.Now())->empty());
  EXPECT_EQ(Chunks("state = 3"), 0);
  ExpectReadsBack(id, 0);
  // And the other way round: what was copied has moved meanwhile.
  const auto now = Placed(chunk, before.name);
  EXPECT_NE(now.place, before.place);
  const PruneCatalog::Moved stale{.use = PruneCatalog::Use::kChunk, .name = before.name, .snapshot = {}, .from = before.place, .to = {}};
  ASSERT_TRUE(rig_->catalog.Switch(std::array{stale}, before.place.pack, false).ok());
  EXPECT_EQ(Placed(chunk, before.name).place, now.place);
}

// ---- scrub and heal

TEST_F(BesideTest, ScrubBesideFetch_AQuarantinedChunkIsMissing) {
  const std::string id = Take(0);
  auto reader = path_->readers->Open(SnapshotId(id), {});
  ASSERT_TRUE(reader.ok());
  catalog::ScrubCatalog scrub(*path_->db);
  ASSERT_EQ(scrub.Quarantine(std::array{Placed(ChunksOf(0)[2], DatabaseOf(0).Name(2))}, "x", clock_.Now())->size(), 1u);
  absl::Status status;
  for (int i = 0; i < 7 && status.ok(); ++i) status = (*reader)->Next().status();
  EXPECT_EQ(ReasonOf(status), "CHUNK_MISSING") << status;
}

TEST_F(BesideTest, HealBesideCommit_NoLayerOfADamagedBaseIsTaken) {
  PagedDatabase before;
  for (unsigned page = 0; page < 64 * 3; ++page) before.pages.push_back(page);
  const std::string base = UploadPaged(before, {.session_id = NewSession(), .base = {}, .base_state = {}}).snapshot;
  ASSERT_TRUE(catalog::ScrubCatalog(*path_->db).SetDamaged(SnapshotId(base), true).value());
  PagedDatabase now = before;
  now.pages[5] = 7000;
  const auto next = UploadPaged(now, {.session_id = NewSession(), .base = base, .base_state = before});
  EXPECT_EQ(next.base, "");
  EXPECT_TRUE(path_->ReadBack(next.snapshot).value() == now.Run(1, now.count()));
  EXPECT_EQ(path_->Count("select count(distinct offset) from manifest_part"), path_->Count("select count(*) from manifest_part"));
}

TEST_F(BesideTest, HealBesideHealRemoveAndFetch_ALayerIsAddedToWhatWasRead) {
  const std::string id = Take(0);
  catalog::HealCatalog heal(*path_->db);
  const auto layout = path_->ingest_catalog->GetLayout(SnapshotId(id));
  const auto parts = path_->ingest_catalog->ManifestParts(layout->key, 0, 10);
  const auto place = heal.RecordOf(SnapshotId(id));
  ASSERT_TRUE(layout.ok() && parts.ok() && place.ok() && parts->size() == 1);
  const auto stored = path_->store->Read({.pack = place->pack, .offset = place->offset});
  storage::v1::SnapshotRecord record;
  ASSERT_TRUE(stored.ok() && record.ParseFromString(stored->payload));
  record.set_manifest_kind(2);
  record.clear_layers();
  for (const char* layer : {"first", "second"}) {
    record.add_layers()->set_id(layer);
    record.mutable_layers(record.layers_size() - 1)->set_parts(1);
  }
  auto reader = path_->readers->Open(SnapshotId(id), {});
  ASSERT_TRUE(reader.ok());
  ASSERT_TRUE(heal.AddLayer(*layout, record, *place, *parts).ok());
  EXPECT_EQ(ReasonOf(heal.AddLayer(*layout, record, *place, *parts)), "MANIFEST_CHANGED") << "another layer came first";
  EXPECT_EQ(path_->Count("select count(*) from manifest_part"), 2);
  for (int left = 7; left > 0; --left) EXPECT_TRUE((*reader)->Next()->has_value()) << "who reads has the layers of then";
  reader->reset();
  Take(3);
  Remove(id);
  EXPECT_EQ(ReasonOf(heal.AddLayer(*layout, record, *place, *parts)), "MANIFEST_CHANGED") << "the snapshot is gone";
}

TEST_F(BesideTest, HealBesideMaintenance_ACopyIsHeldUntilALayerNeedsIt) {
  Take(0);
  const FakeDatabase lost = FakeDatabase::Make(4096, 64, 77);
  const Bytes raw = lost.Extent(0);
  const auto placed = path_->store->PutChunk({.name = lost.Name(0), .page_size = 4096, .page_count = 64, .stored = raw});
  ASSERT_TRUE(placed.ok() && path_->store->Sync(placed->epoch).ok());
  catalog::HealCatalog heal(*path_->db);
  const int64_t database = heal.DatabaseOf(device_, "main").value();
  const catalog::ArrivedChunk copy{.name = lost.Name(0),
                                   .page_size = 4096,
                                   .page_count = 64,
                                   .stored_bytes = static_cast<uint32_t>(raw.size()),
                                   .place = catalog::PackPlace{.pack = placed->location.pack, .offset = placed->location.offset}};
  ASSERT_TRUE(heal.AddHealedPages(device_, database, copy, {}).ok());
  EXPECT_EQ(Prune().chunks_trashed(), 0);
  ASSERT_TRUE(heal.DropHealingClaims(database).ok());
  const v1::PruneReport report = Prune();
  EXPECT_EQ(report.chunks_swept(), 1);
}

}  // namespace
}  // namespace litefleet::prune
