// Quotas refuse uploads and nothing else: what a device holds is counted exactly, what was acknowledged restores, and there is a way out.
#include "controller/retention/quotas.h"

#include <gmock/gmock.h>

#include "common/base/status.h"
#include "controller/catalog/deletion_catalog.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/prune_catalog.h"
#include "controller/prune/pruner.h"
#include "fmt/format.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::retention {
namespace {

using fakes::FakeDatabase;
using testing::HasSubstr;

class QuotasTest : public ingest::IngestTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    ingest::IngestLimits limits;
    limits.mark_bytes = 400'000;
    Open(limits);
    holdings_ = std::make_unique<catalog::QuotaCatalog>(*path_->db);
    policies_ = std::make_unique<catalog::PolicyCatalog>(*path_->db);
    Use({});
  }
  void TearDown() override {
    quotas_.reset();
    ingest_.reset();
    IngestTest::TearDown();
  }
  // Ingest as the server builds it, with this quota for all.
  void Use(Quota common) {
    ingest_.reset();
    quotas_ = std::make_unique<Quotas>(*holdings_, *policies_, common);
    ingest::IngestLimits limits;
    limits.mark_bytes = 400'000;
    ingest::IngestDeps deps{.store = *path_->store,
                            .catalog = *path_->ingest_catalog,
                            .clock = clock_,
                            .session_executor = *path_->session_executor,
                            .verify_executor = *path_->verify_executor,
                            .contact = {},
                            .check_quota = [this](const DeviceId& device, bool goes_on) { return quotas_->Check(device, goes_on); },
                            .on_committed = {}};
    ingest_ = std::make_unique<ingest::Ingest>(std::move(deps), limits);
  }
  fakes::UploadOutcome BackUp(const FakeDatabase& database, const DeviceId& device, std::string session = NewSession()) {
    return fakes::RunUpload(*ingest_, device, database, {.session_id = std::move(session)});
  }
  int64_t Held(const DeviceId& device) { return holdings_->Get(device)->bytes; }
  // The same, counted anew.
  int64_t Counted(const DeviceId& device) {
    return path_->Count(
        fmt::format("select coalesce(sum(c.stored_bytes), 0) from device_chunk d join chunk c on c.id = d.chunk where "
                    "d.owner = (select id from owner where device = '{}')",
                    device.value()));
  }
  void Prune() {
    catalog::DeletionCatalog deletions(*path_->db);
    catalog::PruneCatalog pruning(*path_->db);
    prune::MarkWriter marks(deletions, *path_->store, clock_);
    prune::Pruner pruner(
        {.catalog = pruning, .deletions = deletions, .marks = marks, .store = *path_->store, .held = [](const SnapshotId&) {
           return false;
         }});
    const prune::PruneOptions options{.snapshot_grace = {}, .chunk_grace = {}, .sweeps = 0, .rewrite_percent = 1};
    const auto report = pruner.Run(options, clock_.Now(), [](std::string_view, double) { return absl::OkStatus(); });
    ASSERT_TRUE(report.ok()) << report.status();
  }
  void Delete(const std::string& snapshot) {
    catalog::DeletionCatalog deletions(*path_->db);
    ASSERT_TRUE(deletions.Trash(SnapshotId(snapshot), true, "operator:x", clock_.Now()).ok());
  }

  std::unique_ptr<catalog::QuotaCatalog> holdings_;
  std::unique_ptr<catalog::PolicyCatalog> policies_;
  std::unique_ptr<Quotas> quotas_;
  std::unique_ptr<ingest::Ingest> ingest_;
};

TEST_F(QuotasTest, WhatADeviceHoldsIsCountedThroughItsWholeLife) {
  FakeDatabase database = FakeDatabase::Make(4096, 64 * 6, 1);
  const auto first = BackUp(database, device_);
  ASSERT_TRUE(first.status.ok()) << first.status;
  EXPECT_GT(Held(device_), 0);
  EXPECT_EQ(Held(device_), Counted(device_));
  const int64_t after_first = Held(device_);
  ASSERT_TRUE(BackUp(database, device_).status.ok());
  EXPECT_EQ(Held(device_), after_first) << "nothing new";
  ASSERT_TRUE(BackUp(database, other_).status.ok());
  EXPECT_EQ(Held(device_), after_first) << "what others have as well counts for each";
  EXPECT_EQ(Held(other_), after_first);
  for (unsigned& seed : database.seeds) seed += 500;
  ASSERT_TRUE(BackUp(database, device_).status.ok());
  EXPECT_EQ(Held(device_), Counted(device_));
  EXPECT_GT(Held(device_), after_first);

  // Deleted ones count until the prune that sweeps what only they needed.
  const auto listed = path_->snapshots->List(device_, "main", 100, "");
  for (size_t i = 1; i < listed->items.size(); ++i) Delete(listed->items[i].id());
  const int64_t before = Held(device_);
  EXPECT_EQ(before, Counted(device_));
  Prune();
  EXPECT_EQ(Held(device_), Counted(device_));
  EXPECT_EQ(Held(other_), Counted(other_)) << "the other device holds them still";
  EXPECT_EQ(Held(other_), after_first);
  Delete(path_->snapshots->List(other_, "main", 100, "")->items[0].id());
  Prune();
  EXPECT_EQ(Held(other_), 0);
  EXPECT_EQ(Held(device_), Counted(device_));
  EXPECT_LT(Held(device_), before);
  EXPECT_EQ(path_->Count("select count(*) from swept_chunk"), 0);
}

TEST_F(QuotasTest, AnUploadThatWasNeverFinishedCountsUntilItExpires) {
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 12, 1);
  Use({.bytes = 500'000, .snapshots = 0});
  const auto refused = BackUp(database, device_);
  EXPECT_EQ(ReasonOf(refused.status), "QUOTA_EXCEEDED") << refused.status;
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(HintOf(refused.status), HasSubstr("[quota]"));
  EXPECT_GE(Held(device_), 500'000);
  EXPECT_EQ(Held(device_), Counted(device_));
  EXPECT_EQ(path_->SnapshotCount(), 0u);
  clock_.Advance(std::chrono::hours(24 * 8));
  ASSERT_TRUE(ingest_->Maintain().ok());
  EXPECT_EQ(Held(device_), 0);
}

TEST_F(QuotasTest, RefusesUploadsKeepsWhatThereIsAndGoesOnWhenThereIsRoom) {
  FakeDatabase database = FakeDatabase::Make(4096, 64 * 2, 1);
  const auto first = BackUp(database, device_);
  ASSERT_TRUE(first.status.ok());
  const int64_t held = Held(device_);
  Use({.bytes = held, .snapshots = 0});
  FakeDatabase changed = database;
  for (unsigned& seed : changed.seeds) seed += 500;
  const std::string session = NewSession();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ReasonOf(BackUp(changed, device_, session).status), "QUOTA_EXCEEDED");
  EXPECT_EQ(Held(device_), held) << "nothing of it was taken";
  EXPECT_TRUE(BackUp(changed, other_).status.ok()) << "of another device";
  EXPECT_EQ(path_->ReadBack(first.snapshot_id).value(), ingest::WholeOf(database)) << "restores go on";

  Use({.bytes = held * 2, .snapshots = 0});
  const auto second = BackUp(changed, device_, session);
  ASSERT_TRUE(second.status.ok()) << second.status;
  // The answer to a commit that came before is given, however full the device is.
  Use({.bytes = 1, .snapshots = 1});
  const auto again = BackUp(changed, device_, session);
  ASSERT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(again.snapshot_id, second.snapshot_id);
  EXPECT_EQ(ReasonOf(BackUp(changed, device_).status), "QUOTA_EXCEEDED");

  // The operator makes room.
  Delete(first.snapshot_id);
  Prune();
  Use({.bytes = held * 2, .snapshots = 0});
  EXPECT_TRUE(BackUp(database, device_).status.ok());
}

TEST_F(QuotasTest, SnapshotsAreCountedToo) {
  Use({.bytes = 0, .snapshots = 2});
  FakeDatabase database = FakeDatabase::Make(4096, 10, 1);
  std::vector<std::string> ids;
  for (int i = 0; i < 2; ++i) {
    database.seeds[0] += 1;
    ids.push_back(BackUp(database, device_).snapshot_id);
    clock_.Advance(std::chrono::seconds(1));
  }
  const auto refused = BackUp(database, device_);
  EXPECT_EQ(ReasonOf(refused.status), "QUOTA_EXCEEDED");
  EXPECT_THAT(MessageOf(refused.status), HasSubstr("2 snapshots"));
  Delete(ids[0]);
  EXPECT_TRUE(BackUp(database, device_).status.ok()) << "one in the trash does not count";
}

TEST_F(QuotasTest, ThePolicyOfADeviceCountsMore) {
  catalog::IdentityCatalog identities(*path_->db);
  ASSERT_TRUE(path_->db
                  ->Write([&](sqlite3* db) {
                    return sqlite::Execute(db,
                                           fmt::format("insert into device (id, name, state, key_hash, enrolled_ms) values ('{0}', 'a', "
                                                       "1, x'00', 1); insert into device_label values ('{0}', 'site', 'oslo')",
                                                       device_.value()));
                  })
                  .ok());
  Use({.bytes = 100, .snapshots = 5});
  const auto put = [&](const std::string& name, const std::string& text) {
    ASSERT_TRUE(ParsePolicy(text, name).ok()) << ParsePolicy(text, name).status();
    ASSERT_TRUE(policies_->Put(name, text, clock_.Now()).ok());
  };
  const auto expect = [&](const DeviceId& device, int64_t bytes, int64_t snapshots) {
    const auto standing = quotas_->Of(device);
    ASSERT_TRUE(standing.ok()) << standing.status();
    EXPECT_EQ(standing->quota.bytes, bytes);
    EXPECT_EQ(standing->quota.snapshots, snapshots);
  };
  expect(device_, 100, 5);
  put("oslo", "name = \"oslo\"\nselector = \"site=oslo\"\n[retention]\nkeep_last = 3\n[quota]\nbytes = \"1KiB\"\n");
  expect(device_, 1024, 5);
  expect(other_, 100, 5);
  put("oslo", "name = \"oslo\"\nselector = \"site=oslo\"\n[retention]\nkeep_last = 3\n[quota]\nbytes = \"0B\"\nsnapshots = 7\n");
  expect(device_, 0, 7);
  put("all", "name = \"all\"\n[retention]\nkeep_last = 3\n[quota]\nsnapshots = 9\n");
  expect(device_, 0, 7);
  expect(other_, 100, 9);
  ASSERT_TRUE(policies_->Delete("oslo").ok());
  expect(device_, 100, 9);
  // Two that match alike: neither is a reason to refuse.
  put("tie", "name = \"tie\"\n[retention]\nkeep_last = 3\n[quota]\nsnapshots = 1\n");
  expect(device_, 100, 5);
  EXPECT_FALSE(ParsePolicy("name = \"x\"\n[retention]\nkeep_last = 3\n[quota]\nbyte = 1\n", "x").ok());
}

}  // namespace
}  // namespace litefleet::retention
