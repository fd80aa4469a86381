// Copies of a record that nobody points to: what was deleted stays away as long as one of them is in a pack.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "tests/fakes/paged_device.h"
#include "tests/unit/controller/prune/prune_fixture.h"
#include "tests/unit/controller/rebuild/rebuild_fixture.h"

namespace litefleet::rebuild {
namespace {

using fakes::FakeDatabase;
using std::chrono::hours;

class DeadCopiesTest : public RebuildTest {
 protected:
  std::string Take(const std::string& database, uint32_t extents, unsigned seed) {
    const auto outcome = fakes::RunUpload(*path_->ingest, device_, FakeDatabase::Make(4096, 64 * extents, seed),
                                          {.session_id = NewSession(), .database = database});
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    return outcome.snapshot_id;
  }
  void Trash(prune::Rig& rig, const std::string& id) {
    ASSERT_TRUE(rig.deletions.Trash(SnapshotId(id), true, "operator:test", clock_.Now()).ok());
    ASSERT_TRUE(rig.marks.WriteDue().ok());
  }
  // Chunks go at once, snapshots after the usual grace; packs that are half dead are rewritten.
  v1::PruneReport Prune(prune::Rig& rig, std::chrono::milliseconds grace = hours(24 * 7)) {
    prune::PruneOptions options = prune::AtOnce();
    options.snapshot_grace = grace;
    options.rewrite_percent = 50;
    const auto report = rig.Run(clock_.Now(), options);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value_or(v1::PruneReport());
  }
  storage::v1::SnapshotRecord RecordOf(const std::string& id) {
    storage::v1::SnapshotRecord record;
    const auto visit = [&](const store::Location&, const format::ScannedRecord& scanned) {
      storage::v1::SnapshotRecord one;
      if (scanned.header.type == format::RecordType::kSnapshot &&
          one.ParseFromArray(scanned.payload.data(), static_cast<int>(scanned.payload.size())) && one.snapshot_id() == id)
        record = one;
      return absl::OkStatus();
    };
    EXPECT_TRUE(path_->store->ForEachRecord(visit).ok());
    return record;
  }
  void PutRecord(const storage::v1::SnapshotRecord& record) {
    ASSERT_TRUE(path_->store->PutRecord(format::RecordType::kSnapshot, AsBytes(record.SerializeAsString())).ok());
  }
  int64_t PackOf(const std::string& id) { return path_->Count("select pack from snapshot where id = '" + id + "'"); }
};

TEST_F(DeadCopiesTest, OneThatACrashLeftBehindKeepsTheMark) {
  std::string deleted;
  {
    prune::Rig rig(*path_, clock_);
    const std::string bulk = Take("bulk", 8, 1);
    deleted = Take("main", 2, 2);
    ASSERT_TRUE(path_->store->SealOpenPack().ok());
    Trash(rig, bulk);
  }
  CloseAll();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    setenv("LITEFLEET_CRASH_AT", "prune.after_copy", 1);
    OpenAll();
    prune::Rig rig(*path_, clock_);
    Prune(rig, hours(0));
    _exit(3);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << WEXITSTATUS(status);

  OpenAll();
  prune::Rig rig(*path_, clock_);
  ASSERT_TRUE(rig.Make().Recover().ok());
  // In the pack of the copies is enough that counts.
  const std::string kept = Take("other", 8, 3);
  ASSERT_GT(PackOf(kept), PackOf(deleted));
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  Trash(rig, deleted);
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  EXPECT_EQ(Prune(rig, hours(0)).snapshots_removed(), 1);
  Prune(rig, hours(0));
  EXPECT_EQ(path_->Count("select count(*) from pack where id < (select pack from snapshot)"), 0) << "where it stood is gone";
  for (int round = 0; round < 2; ++round) {
    Rebuild();
    EXPECT_TRUE(absl::IsNotFound(path_->snapshots->Resolve(deleted).status())) << "it is back";
    EXPECT_TRUE(path_->ReadBack(kept).ok());
  }
}

TEST_F(DeadCopiesTest, OneThatWasMovedInTheTrashKeepsTheMarkThroughRebuilds) {
  std::string deleted, beside, kept;
  {
    prune::Rig rig(*path_, clock_);
    const std::string bulk = Take("bulk", 8, 1);
    deleted = Take("main", 2, 2);
    ASSERT_TRUE(path_->store->SealOpenPack().ok());
    Trash(rig, bulk);
    clock_.Advance(hours(24 * 8));
    Trash(rig, deleted);
    beside = Take("beside", 8, 3);  // in the pack of the marks
    const int64_t marked_at = PackOf(deleted);
    ASSERT_TRUE(path_->store->SealOpenPack().ok());
    kept = Take("other", 8, 4);
    EXPECT_EQ(Prune(rig).snapshots_removed(), 1);
    ASSERT_EQ(PackOf(deleted), PackOf(kept)) << "moved after its mark was written";
    ASSERT_GT(PackOf(deleted), marked_at);
    ASSERT_TRUE(path_->store->SealOpenPack().ok());
  }
  Rebuild();
  ASSERT_TRUE(absl::IsNotFound(path_->snapshots->Resolve(deleted).status()));
  {
    prune::Rig rig(*path_, clock_);
    const int64_t marks = PackOf(beside);
    Trash(rig, beside);
    EXPECT_EQ(Prune(rig, hours(0)).snapshots_removed(), 1);
    for (const store::PackInfo& pack : path_->store->Packs()) EXPECT_NE(static_cast<int64_t>(pack.id), marks) << "it was rewritten";
  }
  Rebuild();
  EXPECT_TRUE(absl::IsNotFound(path_->snapshots->Resolve(deleted).status())) << "it is back";
  EXPECT_TRUE(path_->ReadBack(kept).ok());
}

// A heal wrote the record with a layer more while a rewrite copied the one before it, which so stands behind.
TEST_F(DeadCopiesTest, OneOfBeforeAHealDoesNotCountForItStandsBehind) {
  fakes::PagedDatabase now{.page_size = 4096, .pages = std::vector<unsigned>(64 * 20, 1)};
  std::string healed;
  for (unsigned changed = 0; changed < 2; ++changed) {
    fakes::PagedWish wish{.session_id = NewSession(), .base = healed, .base_state = now};
    now.pages[7] += changed;
    fakes::PagedUpload upload(*path_->ingest, device_, now, std::move(wish));
    while (upload.Step()) {}
    upload.End();
    ASSERT_TRUE(upload.outcome().status.ok()) << upload.outcome().status;
    healed = upload.outcome().snapshot;
  }
  storage::v1::SnapshotRecord record = RecordOf(healed);
  ASSERT_EQ(record.layers_size(), 2);
  record.mutable_layers()->RemoveLast();
  PutRecord(record);
  const RebuildReport report = Rebuild();
  EXPECT_THAT(report.problems, testing::ElementsAre());
  EXPECT_EQ(report.snapshots_lost, 0U);
  EXPECT_TRUE(path_->ReadBack(healed).value() == now.Run(1, now.count()));
}

// A heal was cut off before the catalog took its record, and a prune has dropped the layer that nothing points to.
TEST_F(DeadCopiesTest, OneOfAHealThatWasNeverTakenLosesNothing) {
  const std::string id = Take("main", 2, 1);
  const storage::v1::SnapshotRecord taken = RecordOf(id);
  ASSERT_EQ(taken.layers_size(), 1);
  storage::v1::SnapshotRecord healed = taken;
  storage::v1::ManifestLayer& layer = *healed.add_layers();
  layer.set_id(NewUlid(clock_.Now()));
  layer.set_parts(1);
  healed.set_manifest_kind(2);
  for (const bool copied : {false, true}) {
    copied ? PutRecord(taken) : PutRecord(healed);
    const RebuildReport report = Rebuild();
    EXPECT_THAT(report.problems, testing::ElementsAre());
    EXPECT_EQ(report.snapshots_lost, 0U);
    EXPECT_TRUE(path_->ReadBack(id).ok());
  }
}

// Where forgetting a device is cut off, on each of its ways to the record that says so.
TEST_F(DeadCopiesTest, MarksOfADeviceCountUntilARecordSaysThatItIsForgotten) {
  const DeviceId device = Enroll("alpha", "aa01");
  prune::Rig rig(*path_, clock_);
  const auto uploaded = Upload(FakeDatabase::Make(4096, 70, 1), device);
  ASSERT_TRUE(uploaded.status.ok()) << uploaded.status;
  EXPECT_EQ(ReasonOf(rig.deletions.BeginForget(device)), "DEVICE_ACTIVE");
  ASSERT_TRUE(identities_->RevokeDevice(device).ok());
  ASSERT_TRUE(rig.deletions.BeginForget(device).ok());
  ASSERT_EQ(rig.deletions.TrashSome(device, "forget:test").value(), 1);
  ASSERT_TRUE(rig.marks.WriteDue().ok());
  EXPECT_EQ(Prune(rig, hours(0)).snapshots_removed(), 1);
  while (rig.deletions.DropSome(device).value() > 0) {}
  const auto counts = [&] {
    EXPECT_TRUE(rig.deletions.DropForgottenDatabases().ok());
    return rig.catalog.MarkCounts(uploaded.snapshot_id, 1, 0).value();
  };
  EXPECT_TRUE(counts());
  identities_->SetRecords(nullptr);  // the process ends behind the transaction
  ASSERT_TRUE(identities_->ForgetDevice(device).ok());
  EXPECT_TRUE(counts());
  EXPECT_EQ(path_->Count("select count(*) from database"), 1);
  ASSERT_TRUE(records_->WriteDue().ok());
  EXPECT_FALSE(counts());
  EXPECT_EQ(path_->Count("select count(*) from database"), 0);
}

TEST_F(DeadCopiesTest, MarksOfAnOlderCatalogOutliveEveryPackThatThereIs) {
  CloseAll();
  std::filesystem::remove_all(directory_);
  std::filesystem::create_directories(directory_);
  const std::vector<catalog::Migration>& all = catalog::Migrations();
  const auto newer = std::find_if(all.begin(), all.end(), [](const catalog::Migration& migration) {
    return migration[0].find("index snapshot_record") != std::string_view::npos;
  });
  ASSERT_NE(newer, all.end());
  {
    const auto older = catalog::CatalogDb::Open(directory_ + "/catalog.db", true, std::span(all.begin(), newer));
    ASSERT_TRUE(older.ok()) << older.status();
    ASSERT_TRUE((*older)
                    ->Write([](sqlite3* db) {
                      return sqlite::Execute(db,
                                             "insert into pack (id, chunks, stored_bytes) values (7, 1, 1); "
                                             "insert into gone_snapshot values ('a', 1, 2), ('b', 2, 30)");
                    })
                    .ok());
  }
  OpenAll();
  EXPECT_EQ(path_->Count("select last_pack from gone_snapshot where id = 'a'"), 8);
  EXPECT_EQ(path_->Count("select last_pack from gone_snapshot where id = 'b'"), 30);
}

TEST_F(DeadCopiesTest, AClockThatIsBehindWhatWasReceivedIsOnHoldAfterARebuild) {
  Take("main", 2, 1);
  clock_.JumpSystem(-hours(24 * 365));
  Rebuild();
  EXPECT_EQ(path_->Count("select count(*) from controller_time where time_ms > " + std::to_string(ToUnixMillis(clock_.Now()))), 1);
  clock_.JumpSystem(hours(24 * 366));
  Rebuild();
  EXPECT_EQ(path_->Count("select count(*) from controller_time"), 0);
}

}  // namespace
}  // namespace litefleet::rebuild
