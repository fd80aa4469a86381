// A catalog from packs alone: what was there before must be there after, and nothing that was deleted, revoked or lost.
#include "controller/rebuild/rebuild.h"

#include <gmock/gmock.h>

#include <atomic>
#include <future>
#include <thread>

#include "common/base/proto_time.h"
#include "common/io/file.h"
#include "controller/catalog/deletion_catalog.h"
#include "controller/catalog/gap_catalog.h"
#include "controller/catalog/policy_catalog.h"
#include "controller/catalog/timelines.h"
#include "controller/prune/mark_writer.h"
#include "tests/fakes/paged_device.h"
#include "tests/unit/controller/ingest/upload_text.h"
#include "tests/unit/controller/rebuild/rebuild_fixture.h"

namespace litefleet::rebuild {
namespace {

using fakes::FakeDatabase;
using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(RebuildTest, EverySnapshotComesBackAndUploadsGoOn) {
  const DeviceId device = Enroll("alpha", "aa01");
  FakeDatabase database = FakeDatabase::Make(4096, 64 * 9 + 5, 1);
  const auto first = Upload(database, device);
  ASSERT_TRUE(first.status.ok()) << first.status;
  const FakeDatabase old = database;
  database.seeds[3] = 777;
  clock_.Advance(std::chrono::minutes(5));
  const auto second = Upload(database, device);
  ASSERT_TRUE(second.status.ok()) << second.status;
  const auto before = path_->snapshots->Resolve(second.snapshot_id);
  ASSERT_TRUE(before.ok());

  const RebuildReport report = Rebuild();
  EXPECT_EQ(report.things.snapshots, 2);
  EXPECT_EQ(report.things.devices, 1);
  EXPECT_EQ(report.snapshots_lost, 0U);
  EXPECT_THAT(report.problems, ElementsAre());
  EXPECT_THAT(report.things.must_enroll_again, ElementsAre());
  EXPECT_EQ(path_->ReadBack(first.snapshot_id).value(), ingest::WholeOf(old));
  EXPECT_EQ(path_->ReadBack(second.snapshot_id).value(), ingest::WholeOf(database));
  const auto after = path_->snapshots->Resolve(second.snapshot_id);
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->SerializeAsString(), before->SerializeAsString()) << after->DebugString() << before->DebugString();
  EXPECT_EQ(path_->snapshots->Newest(device, "main")->id(), second.snapshot_id);
  const auto miscounted = [&] {
    return path_->Count(
        "select count(*) from owner o where held_bytes <> (select coalesce(sum(c.stored_bytes), 0) from device_chunk d join chunk c on "
        "c.id = d.chunk where d.owner = o.id)");
  };
  EXPECT_EQ(miscounted(), 0) << "what quotas go by";

  database.seeds[4] = 778;
  const auto third = Upload(database, device);
  ASSERT_TRUE(third.status.ok()) << third.status;
  EXPECT_EQ(third.chunks_sent, 1U) << "the device may still refer to what its snapshots hold";
  EXPECT_EQ(miscounted(), 0) << "and what comes later counts";
  EXPECT_EQ(path_->ReadBack(third.snapshot_id).value(), ingest::WholeOf(database));
}

TEST_F(RebuildTest, APartComesBackAsOne) {
  const DeviceId device = Enroll("alpha", "aa01");
  const auto whole = Upload(FakeDatabase::Make(4096, 70, 1), device);
  ASSERT_TRUE(whole.status.ok()) << whole.status;
  const auto part = ingest::UploadPart(*path_->ingest, device, "CREATE TABLE t(a);\n", "schema only");
  ASSERT_TRUE(part.status.ok()) << part.status;
  EXPECT_EQ(Rebuild().things.snapshots, 2);
  EXPECT_EQ(path_->snapshots->Resolve(part.snapshot)->part(), "schema only");
  EXPECT_EQ(path_->snapshots->Newest(device, "main")->id(), whole.snapshot_id);
  EXPECT_EQ(path_->snapshots->GetDatabase(device, "main")->newest_snapshot().id(), whole.snapshot_id);
}

TEST_F(RebuildTest, DevicesComeBackAsTheyWereAndRevocationsStay) {
  const DeviceId alpha = Enroll("alpha", "aa01");
  const DeviceId beta = Enroll("beta", "bb01");
  const DeviceId gone = Enroll("gone", "cc01");
  ASSERT_TRUE(identities_->UpdateDevice(alpha, "renamed", {{"site", "south"}, {"rack", "4"}}, {}).ok());
  ASSERT_TRUE(identities_->RevokeDevice(beta).ok());
  ASSERT_TRUE(identities_->RevokeDevice(gone).ok());
  ASSERT_TRUE(identities_->ForgetDevice(gone).ok());
  const auto renewed = identities_->FindCertificate("aa01");
  AddCertificate(alpha, (*renewed)->key_hash, "aa02");
  ASSERT_TRUE(identities_->CertificateUsed("aa02", clock_.Now()).ok());

  for (int round = 0; round < 2; ++round) {  // what a rebuild writes down is good for the next one
    const RebuildReport report = Rebuild();
    EXPECT_EQ(report.things.devices, 2);
    const auto device = identities_->ResolveDevice("renamed");
    ASSERT_TRUE(device.ok()) << device.status();
    EXPECT_EQ(device->id(), alpha.value());
    EXPECT_EQ(device->state(), v1::DEVICE_STATE_ACTIVE);
    EXPECT_EQ(device->labels().at("site"), "south");
    EXPECT_EQ(device->labels().at("rack"), "4");
    EXPECT_EQ(identities_->ResolveDevice("beta")->state(), v1::DEVICE_STATE_REVOKED);
    EXPECT_TRUE(absl::IsNotFound(identities_->ResolveDevice("gone").status()));
    EXPECT_TRUE((*identities_->FindCertificate("aa01"))->revoked) << "replaced by one that was used";
    EXPECT_FALSE((*identities_->FindCertificate("aa02"))->revoked);
    EXPECT_TRUE((*identities_->FindCertificate("bb01"))->revoked);
    EXPECT_FALSE(identities_->FindCertificate("cc01")->has_value());
    EXPECT_EQ(identities_->ListTokens(10, "")->items.size(), 0U) << "tokens are void";
  }
  ASSERT_TRUE(identities_->RevokeDevice(alpha).ok());
  Rebuild();
  EXPECT_EQ(identities_->ResolveDevice("renamed")->state(), v1::DEVICE_STATE_REVOKED) << "newer than what the rebuilds wrote";
}

TEST_F(RebuildTest, WithANewAuthorityEveryDeviceEnrolsAgain) {
  Enroll("alpha", "aa01");
  const RebuildReport report = Rebuild(/*keep_certificates=*/false);
  EXPECT_THAT(report.things.must_enroll_again, ElementsAre("alpha"));
  EXPECT_FALSE(identities_->FindCertificate("aa01")->has_value());
}

TEST_F(RebuildTest, TimelinesComeBack) {
  const DeviceId device = Enroll("alpha", "aa01");
  ASSERT_TRUE(Upload(FakeDatabase::Make(4096, 10, 1), device).status.ok());
  const OperationId operation(NewUlid(clock_.Now()));
  ASSERT_EQ(path_->snapshots->ReserveTimeline(device, "main", operation).value(), 2U);
  Rebuild();
  EXPECT_EQ(path_->snapshots->HighestTimeline(device, "main").value(), 2U);
  EXPECT_EQ(path_->snapshots->ReserveTimeline(device, "main", operation).value(), 2U) << "the same operation has the same one";
  EXPECT_EQ(path_->snapshots->ReserveTimeline(device, "main", OperationId(NewUlid(clock_.Now()))).value(), 3U);
}

// `restore --at` chooses by when a timeline began and what it began with.
TEST_F(RebuildTest, TimelinesComeBackWithTheirBeginsAndBases) {
  const DeviceId device = Enroll("alpha", "aa01");
  const auto first = Upload(FakeDatabase::Make(4096, 10, 1), device);
  clock_.Advance(std::chrono::minutes(10));
  const auto second = Upload(FakeDatabase::Make(4096, 10, 2), device);
  ASSERT_TRUE(first.status.ok() && second.status.ok());
  // The first one is put back; until the next backup that is what the database holds.
  ASSERT_EQ(path_->snapshots->ReserveTimeline(device, "main", OperationId(NewUlid(clock_.Now()))).value(), 2U);
  clock_.Advance(std::chrono::minutes(10));
  ASSERT_TRUE(
      path_->db->Write([&](sqlite3* db) { return catalog::BeginTimeline(db, device.value(), "main", 2, clock_.Now(), first.snapshot_id); })
          .ok());
  ASSERT_TRUE(records_->WriteDue().ok());
  const SystemTime restored = clock_.Now();
  const auto then = [&](SystemTime at, std::optional<uint64_t> timeline = std::nullopt) {
    std::string id;
    const absl::Status status = path_->db->Read([&](sqlite3* db) -> absl::Status {
      LF_ASSIGN_OR_RETURN(const int64_t database, sqlite::QueryInt(db, "select id from database"));
      LF_ASSIGN_OR_RETURN(id, catalog::SnapshotThen(db, database, "alpha/main", at, timeline));
      return absl::OkStatus();
    });
    return status.ok() ? id : std::string(ReasonOf(status));
  };
  for (const char* when : {"before", "after a rebuild", "after another one"}) {
    EXPECT_EQ(then(restored - std::chrono::minutes(1)), second.snapshot_id) << when;
    EXPECT_EQ(then(restored + std::chrono::minutes(1)), first.snapshot_id) << when;
    EXPECT_EQ(then(restored + std::chrono::minutes(1), 1), second.snapshot_id) << when;
    Rebuild();
  }
}

TEST_F(RebuildTest, ASnapshotIsListedOnlyWhenAllOfItWasFound) {
  const DeviceId device = Enroll("alpha", "aa01");
  const FakeDatabase small = FakeDatabase::Make(4096, 64 * 3, 1);
  const auto whole = Upload(small, device);
  ASSERT_TRUE(whole.status.ok());
  const int64_t from = path_->Count("select max(offset) from chunk");
  clock_.Advance(std::chrono::minutes(1));
  FakeDatabase changed = small;
  changed.seeds[1] = 4711;
  const auto torn = Upload(changed, device);
  ASSERT_TRUE(torn.status.ok());
  const int64_t bad = path_->Count("select max(offset) from chunk");
  ASSERT_GT(bad, from);
  const auto files = PackFiles();
  ASSERT_EQ(files.size(), 1U);
  CloseAll();
  Flip(files[0], static_cast<uint64_t>(bad) + 100);

  const RebuildReport report = Rebuild();
  EXPECT_EQ(report.things.snapshots, 1);
  EXPECT_EQ(report.snapshots_lost, 1U);
  EXPECT_GT(report.damaged_bytes, 0U);
  EXPECT_THAT(report.problems, testing::Contains(HasSubstr(torn.snapshot_id)));
  EXPECT_EQ(path_->ReadBack(whole.snapshot_id).value(), ingest::WholeOf(small));
  EXPECT_TRUE(absl::IsNotFound(path_->snapshots->Resolve(torn.snapshot_id).status()));
}

TEST_F(RebuildTest, SnapshotsOfADeviceWithoutARecordWaitForAnOperator) {
  ASSERT_TRUE(Upload(FakeDatabase::Make(4096, 10, 1), device_).status.ok());
  const RebuildReport report = Rebuild();
  EXPECT_EQ(report.things.snapshots, 1);
  const auto device = identities_->ResolveDevice(device_.value());
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ(device->state(), v1::DEVICE_STATE_REVOKED);
  EXPECT_EQ(device->name(), "recovered-11111111");
}

TEST_F(RebuildTest, WhatIsDueAfterACrashIsWrittenLater) {
  identities_->SetRecords(nullptr);  // as if the process had ended between the transaction and the record
  const DeviceId device = Enroll("alpha", "aa01");
  EXPECT_EQ(due_->Due(clock_.Now(), 10)->size(), 1U);
  OpenAll();
  ASSERT_TRUE(records_->WriteDue().ok());
  EXPECT_EQ(due_->Due(clock_.Now(), 10)->size(), 0U);
  Rebuild();
  EXPECT_EQ(identities_->ResolveDevice("alpha")->id(), device.value());
}

TEST_F(RebuildTest, WhatWasDeletedStaysAwayAndPinsStay) {
  const DeviceId device = Enroll("alpha", "aa01");
  const auto kept = Upload(FakeDatabase::Make(4096, 70, 1), device);
  const auto deleted = Upload(FakeDatabase::Make(4096, 70, 2), device);
  const auto limited = Upload(FakeDatabase::Make(4096, 70, 4), device);
  const auto newest = Upload(FakeDatabase::Make(4096, 70, 3), device);
  ASSERT_TRUE(newest.status.ok());
  int64_t limit = 4'000'000'000'000;
  catalog::DeletionCatalog deletions(*path_->db);
  ASSERT_TRUE(deletions.SetPinned(SnapshotId(kept.snapshot_id), true).ok());  // the mark has no limit, as none had before
  ASSERT_TRUE(deletions.SetPinned(SnapshotId(limited.snapshot_id), true, {.until = FromUnixMillis(limit)}).ok());
  ASSERT_TRUE(deletions.Trash(SnapshotId(deleted.snapshot_id), true, "operator:test", clock_.Now()).ok());
  prune::MarkWriter marks(deletions, *path_->store, clock_);
  ASSERT_TRUE(marks.WriteDue().ok());
  for (int round = 0; round < 2; ++round) {
    Rebuild();
    EXPECT_EQ(path_->SnapshotCount(), 3U);
    EXPECT_TRUE(absl::IsNotFound(path_->snapshots->Resolve(deleted.snapshot_id).status()));
    EXPECT_EQ(path_->Count("select pinned_until from snapshot where id = '" + kept.snapshot_id + "'"), 0);
    EXPECT_EQ(path_->Count("select pinned * pinned_until from snapshot where id = '" + limited.snapshot_id + "'"), limit);
    EXPECT_EQ(path_->Count("select count(*) from snapshot where pinned"), 2);
    EXPECT_EQ(path_->Count("select pinned from snapshot where id = '" + kept.snapshot_id + "'"), 1);
    EXPECT_EQ(path_->Count("select count(*) from gone_snapshot"), 1);
    EXPECT_GT(path_->Count("select seq from sqlite_sequence where name = 'mark_due'"), 1) << "new marks count more";
    // Another limit for the next round, whose mark counts more.
    limit += 1000;
    catalog::DeletionCatalog again(*path_->db);
    ASSERT_TRUE(again.SetPinned(SnapshotId(limited.snapshot_id), true, {.until = FromUnixMillis(limit)}).ok());
    ASSERT_TRUE(prune::MarkWriter(again, *path_->store, clock_).WriteDue().ok());
  }
}

// Each sector of 4 KiB in its turn, in all packs: one that is lost brings nothing back that was deleted, and no device that was forgotten.
TEST_F(RebuildTest, DamageOfOnePlaceBringsNothingBack) {
  const DeviceId device = Enroll("alpha", "aa01");
  const DeviceId forgotten = Enroll("beta", "bb01");
  ASSERT_TRUE(records_->WriteDue().ok());
  const auto deleted = Upload(FakeDatabase::Make(4096, 3, 2), device);
  ASSERT_TRUE(deleted.status.ok() && Upload(FakeDatabase::Make(4096, 3, 3), device).status.ok());
  const auto of_forgotten = Upload(FakeDatabase::Make(4096, 3, 4), forgotten);
  ASSERT_TRUE(of_forgotten.status.ok());
  catalog::DeletionCatalog deletions(*path_->db);
  ASSERT_TRUE(deletions.Trash(SnapshotId(deleted.snapshot_id), true, "operator:test", clock_.Now()).ok());
  prune::MarkWriter marks(deletions, *path_->store, clock_);
  ASSERT_TRUE(marks.WriteDue().ok());
  ASSERT_TRUE(identities_->RevokeDevice(forgotten).ok());
  ASSERT_TRUE(records_->WriteDue().ok());
  CloseAll();
  const std::vector<std::string> files = PackFiles();
  ASSERT_EQ(files.size(), 1U);
  const std::string whole = *io::ReadFile(files[0], size_t{1} << 30);
  ASSERT_GT(whole.size(), 16U << 10);
  int lost = 0;
  for (size_t at = 4096; at < whole.size(); at += 4096) {
    std::string damaged = whole;
    damaged.replace(at, std::min<size_t>(4096, whole.size() - at), std::min<size_t>(4096, whole.size() - at), '\xa5');
    for (const std::string& file : PackFiles()) std::filesystem::remove(file);
    ASSERT_TRUE(io::WriteFileAtomic(files[0], damaged).ok());
    Rebuild();
    EXPECT_TRUE(absl::IsNotFound(path_->snapshots->Resolve(deleted.snapshot_id).status())) << at;
    const auto found = identities_->ResolveDevice(forgotten.value());
    EXPECT_TRUE(!found.ok() || found->state() == v1::DEVICE_STATE_REVOKED) << at;
    lost += path_->SnapshotCount() < 2 ? 1 : 0;
    CloseAll();
  }
  OpenAll();
  EXPECT_GT(lost, 0) << "the damage hits something";
}

TEST_F(RebuildTest, ManifestsOfManyLayersComeBackAndAreProven) {
  const DeviceId device = Enroll("alpha", "aa01");
  std::minstd_rand random(5);
  fakes::PagedDatabase now{.page_size = 4096, .pages = {}};
  for (unsigned i = 0; i < 64 * 6 + 7; ++i) now.pages.push_back(i);
  std::vector<std::pair<std::string, fakes::PagedDatabase>> history;
  const auto back_up = [&] {
    fakes::PagedWish wish{.session_id = NewSession(), .base = {}, .base_state = {}};
    if (!history.empty()) {
      wish.base = history.back().first;
      wish.base_state = history.back().second;
    }
    fakes::PagedUpload upload(*path_->ingest, device, now, std::move(wish));
    while (upload.Step()) {}
    upload.End();
    ASSERT_TRUE(upload.outcome().status.ok()) << upload.outcome().status;
    history.emplace_back(upload.outcome().snapshot, now);
    for (unsigned i = 1 + random() % 9; i > 0; --i) now.pages[random() % now.pages.size()] = random();
    if (random() % 3 == 0) now.pages.resize(now.pages.size() - random() % 40);
    if (random() % 3 == 0) now.pages.push_back(random());
    clock_.Advance(std::chrono::minutes(1));
  };
  for (int i = 0; i < 12; ++i) back_up();
  const int64_t layered = path_->Count("select count(*) from snapshot where layers like '% %:%'");
  ASSERT_GT(layered, 0);
  for (int round = 0; round < 2; ++round) {
    const RebuildReport report = Rebuild();
    EXPECT_THAT(report.problems, ElementsAre());
    EXPECT_EQ(report.things.snapshots, static_cast<int64_t>(history.size()));
    EXPECT_EQ(path_->Count("select count(*) from snapshot where layers like '% %:%'") >= layered, true);
    for (const auto& [id, state] : history) EXPECT_TRUE(path_->ReadBack(id).value() == state.Run(1, state.count())) << id;
    back_up();  // on a base that was rebuilt
  }
  // A layer that says something else than what was committed gives another root.
  storage::v1::SnapshotRecord record;
  ASSERT_TRUE(path_->store
                  ->ForEachRecord([&](const store::Location&, const format::ScannedRecord& scanned) {
                    storage::v1::SnapshotRecord one;
                    if (scanned.header.type == format::RecordType::kSnapshot &&
                        one.ParseFromArray(scanned.payload.data(), static_cast<int>(scanned.payload.size())) && one.layers_size() > 1)
                      record = one;
                    return absl::OkStatus();
                  })
                  .ok());
  ASSERT_GT(record.layers_size(), 1);
  record.mutable_layers()->RemoveLast();
  record.set_snapshot_id(NewSession());
  record.set_session_id(NewSession());
  record.set_sequence(1000);
  ASSERT_TRUE(path_->store->PutRecord(format::RecordType::kSnapshot, AsBytes(record.SerializeAsString())).ok());
  const RebuildReport report = Rebuild();
  EXPECT_EQ(report.snapshots_lost, 1U);
  EXPECT_THAT(report.problems, testing::Contains(HasSubstr("root digest")));
  EXPECT_TRUE(absl::IsNotFound(path_->snapshots->Resolve(record.snapshot_id()).status()));
}

TEST_F(RebuildTest, PoliciesAndHoldsComeBackAndDeletedOnesDoNot) {
  const DeviceId device = Enroll("alpha", "aa01");
  const DeviceId other = Enroll("beta", "bb01");
  for (const DeviceId& each : {device, other}) ASSERT_TRUE(Upload(FakeDatabase::Make(4096, 10, 1), each).status.ok());
  {
    catalog::PolicyCatalog policies(*path_->db);
    policies.SetRecords(records_.get());
    ASSERT_TRUE(policies.Put("shops", "name = \"shops\"\n[retention]\nkeep_last = 3\n", clock_.Now()).ok());
    ASSERT_TRUE(policies.Put("old", "name = \"old\"\n", clock_.Now()).ok());
    ASSERT_TRUE(policies.Put("shops", "name = \"shops\"\n[retention]\nkeep_last = 7\n", clock_.Now()).ok());
    ASSERT_TRUE(policies.Delete("old").ok());
    ASSERT_TRUE(policies.Hold(device, "main", "SUDDENLY_MANY", "too many", clock_.Now()).ok());
    ASSERT_TRUE(policies.Hold(other, "main", "SUDDENLY_MANY", "too many", clock_.Now()).ok());
    ASSERT_TRUE(policies.Release(other, "main").ok());
    EXPECT_EQ(due_->Due(clock_.Now(), 10)->size(), 0U) << "an operator is answered when the packs have it";
  }
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(Rebuild().things.policies, 1);
    catalog::PolicyCatalog policies(*path_->db);
    policies.SetRecords(records_.get());
    const auto rows = policies.List();
    ASSERT_TRUE(rows.ok() && rows->size() == 1U);
    EXPECT_EQ((*rows)[0].name, "shops");
    EXPECT_THAT((*rows)[0].text, HasSubstr("keep_last = 7"));
    EXPECT_EQ((*rows)[0].version, 3);
    const auto holds = policies.Holds(10, 0);
    ASSERT_TRUE(holds.ok() && holds->size() == 1U);
    EXPECT_EQ((*holds)[0].device_id, device.value());
    EXPECT_EQ((*holds)[0].reason, "SUDDENLY_MANY");
    EXPECT_EQ(path_->Count("select released_sequence from retention_hold where device = '" + other.value() + "'"), 1);
  }
  catalog::PolicyCatalog policies(*path_->db);
  EXPECT_EQ(policies.Put("new", "name = \"new\"\n", clock_.Now())->version, 4) << "versions go on";
}

TEST_F(RebuildTest, GapsComeBackAsTheyWereToldLastAndOnlyOfDevicesThatAreThere) {
  const DeviceId device = Enroll("alpha", "aa01");
  const DeviceId gone = Enroll("beta", "bb01");
  for (const DeviceId& each : {device, gone}) ASSERT_TRUE(Upload(FakeDatabase::Make(4096, 10, 1), each).status.ok());
  const auto gap_of = [&](int64_t from_ms) {
    v1::CoverageGap gap;
    gap.set_id(NewUlid(FromUnixMillis(from_ms)));
    gap.set_database("main");
    *gap.mutable_from() = MillisTimestamp(from_ms);
    gap.set_reason("SPOOL_FULL");
    gap.set_message("no room");
    return gap;
  };
  v1::CoverageGap gap = gap_of(1'000'000);
  {
    catalog::GapCatalog gaps(*path_->db);
    gaps.SetRecords(records_.get());
    ASSERT_TRUE(gaps.Report(device, gap, clock_.Now()).ok());
    *gap.mutable_until() = MillisTimestamp(2'000'000);
    gap.set_snapshots(3);
    ASSERT_TRUE(gaps.Report(device, gap, clock_.Now()).ok());
    ASSERT_TRUE(gaps.Report(gone, gap_of(1'500'000), clock_.Now()).ok());
    EXPECT_EQ(due_->Due(clock_.Now(), 10)->size(), 0U) << "a device is answered when the packs have it";
  }
  ASSERT_TRUE(path_->db
                  ->Write([&](sqlite3* db) {
                    return sqlite::Execute(db, "delete from certificate where device_id = '" + gone.value() +
                                                   "'; delete from device_label where device_id = '" + gone.value() +
                                                   "'; delete from device where id = '" + gone.value() + "'");
                  })
                  .ok());
  EXPECT_EQ(path_->Count("select count(*) from gap"), 1) << "they went with their device";
  ASSERT_TRUE(records_->WriteDue().ok());
  for (int round = 0; round < 2; ++round) {
    Rebuild();
    catalog::GapCatalog gaps(*path_->db);
    gaps.SetRecords(records_.get());
    const auto list = gaps.List(DeviceId(), "", false, 10, "");
    ASSERT_TRUE(list.ok() && list->items.size() == 1U);
    EXPECT_EQ(list->items[0].gap().SerializeAsString(), gap.SerializeAsString());
    EXPECT_EQ(list->items[0].device_id(), device.value());
    EXPECT_EQ(path_->Count("select count(*) from record_due where kind = 6"), 0);
    ASSERT_TRUE(gaps.Report(device, gap, clock_.Now()).ok());
    EXPECT_EQ(path_->Count("select count(*) from record_due where kind = 6"), 0) << "told again as it was";
  }
  // What changes after a rebuild counts more than what was found.
  {
    catalog::GapCatalog gaps(*path_->db);
    gaps.SetRecords(records_.get());
    gap.set_snapshots(9);
    ASSERT_TRUE(gaps.Report(device, gap, clock_.Now()).ok());
  }
  Rebuild();
  EXPECT_EQ(path_->Count("select snapshots from gap"), 9);
}

// The older stream is in its commit for longer than the newer one waits for its end. A second record, of a higher number, would come back
// after the snapshot was deleted: the mark names the number of the first.
TEST_F(RebuildTest, TwoStreamsThatCommitOneSessionWriteOneRecord) {
  CloseAll();
  ingest::IngestLimits limits;
  limits.replace_wait = std::chrono::milliseconds(0);
  Open(limits);
  const FakeDatabase database = FakeDatabase::Make(4096, 64, 1);
  const fakes::UploadPlan plan{.session_id = NewSession()};
  struct Stream {
    std::shared_ptr<fakes::RecordingSink> sink = std::make_shared<fakes::RecordingSink>();
    std::shared_ptr<ingest::UploadSession> session;
  };
  const auto upload = [&](Stream& stream) {
    stream.session = *path_->ingest->NewUpload(device_, stream.sink);
    for (v1::UploadRequest request :
         {fakes::BeginRequest(database, plan), fakes::OfferRequest(database, 1, 0, 1), fakes::ChunkRequest(database, 0)}) {
      const absl::Status handled = stream.session->Handle(request);
      EXPECT_TRUE(handled.ok()) << handled;
    }
  };
  Stream older, newer;
  upload(older);
  std::atomic<bool> first = true;
  std::promise<void> committing, go_on;
  path_->now = [&]() -> absl::StatusOr<ingest::ControllerNow> {
    if (first.exchange(false)) {
      committing.set_value();
      go_on.get_future().wait();
    }
    return ingest::ControllerNow{.time = clock_.Now()};
  };
  std::thread commits([&] {
    v1::UploadRequest commit = fakes::CommitRequest(database);
    EXPECT_TRUE(older.session->Handle(commit).ok());
    older.session->End();
  });
  committing.get_future().wait();
  upload(newer);
  EXPECT_EQ(ReasonOf(older.sink->closed().value_or(absl::OkStatus())), "REPLACED_BY_NEWER_STREAM");
  go_on.set_value();
  v1::UploadRequest commit = fakes::CommitRequest(database);
  EXPECT_TRUE(newer.session->Handle(commit).ok());
  newer.session->End();
  commits.join();
  const auto answer = newer.sink->Next(v1::UploadResponse::kCommitted);
  ASSERT_TRUE(answer.has_value());
  EXPECT_FALSE(answer->committed().created());
  EXPECT_EQ(path_->committed.size(), 1U);
  int records = 0;
  ASSERT_TRUE(path_->store
                  ->ForEachRecord([&](const store::Location&, const format::ScannedRecord& scanned) {
                    records += scanned.header.type == format::RecordType::kSnapshot ? 1 : 0;
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_EQ(records, 1);
  catalog::DeletionCatalog deletions(*path_->db);
  ASSERT_TRUE(deletions.Trash(SnapshotId(answer->committed().snapshot_id()), true, "operator:test", clock_.Now()).ok());
  prune::MarkWriter marks(deletions, *path_->store, clock_);
  ASSERT_TRUE(marks.WriteDue().ok());
  older = newer = {};  // before what they borrow
  EXPECT_EQ(Rebuild().things.snapshots, 0);
}

TEST_F(RebuildTest, ARepeatedCommitIsOneSnapshot) {
  const DeviceId device = Enroll("alpha", "aa01");
  const auto uploaded = Upload(FakeDatabase::Make(4096, 70, 1), device);
  ASSERT_TRUE(uploaded.status.ok());
  // Those of commits that were cut off before their transaction, whose number or whose session was acknowledged later; then its own.
  storage::v1::SnapshotRecord record;
  ASSERT_TRUE(path_->store
                  ->ForEachRecord([&](const store::Location&, const format::ScannedRecord& scanned) {
                    if (scanned.header.type == format::RecordType::kSnapshot)
                      record.ParseFromArray(scanned.payload.data(), static_cast<int>(scanned.payload.size()));
                    return absl::OkStatus();
                  })
                  .ok());
  storage::v1::SnapshotRecord cut = record;
  cut.set_session_id(NewSession());
  cut.set_snapshot_id(NewSession());
  cut.set_received_at_ms(record.received_at_ms() + 3'600'000);  // the clock was set back between the two
  ASSERT_TRUE(path_->store->PutRecord(format::RecordType::kSnapshot, AsBytes(cut.SerializeAsString())).ok());
  cut.set_session_id(record.session_id());
  cut.set_snapshot_id(NewSession());
  ASSERT_TRUE(path_->store->PutRecord(format::RecordType::kSnapshot, AsBytes(cut.SerializeAsString())).ok());
  ASSERT_TRUE(path_->store->PutRecord(format::RecordType::kSnapshot, AsBytes(record.SerializeAsString())).ok());
  const RebuildReport report = Rebuild();
  EXPECT_EQ(report.things.snapshots, 1);
  EXPECT_TRUE(path_->snapshots->Resolve(uploaded.snapshot_id).ok());
}

}  // namespace
}  // namespace litefleet::rebuild
