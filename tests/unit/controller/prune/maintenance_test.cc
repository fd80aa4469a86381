// Prunes as operations: one that the end of the controller cut off is taken up as it was meant.
#include "controller/prune/maintenance.h"

#include <atomic>
#include <functional>

#include "common/base/error_detail.h"
#include "common/base/status.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/operation_catalog.h"
#include "controller/fleet/device_fleet.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::prune {
namespace {

using fakes::FakeDatabase;

class MaintenanceTest : public ingest::IngestTest {
 protected:
  // A life of the controller.
  struct Controller {
    Controller(ingest::DataPath& path, const Clock& clock, MaintenanceOptions options = MaintenanceOptions())
        : operations(*path.db),
          identities(*path.db),
          reports(identities, *path.snapshots, catalog::GapCatalog(*path.db), *path.db),
          deletions(*path.db),
          pruning(*path.db),
          policies(*path.db),
          marks(deletions, *path.store, clock),
          pruner({.catalog = pruning,
                  .deletions = deletions,
                  .marks = marks,
                  .store = *path.store,
                  .held = [](const SnapshotId&) { return false; },
                  .count_generation = [this]() -> absl::StatusOr<uint64_t> {
                    if (before_rewrite) before_rewrite();
                    return 1;
                  }}),
          time(policies, clock, "boot"),
          retention(policies, deletions, [this] {
            if (after_trash) after_trash();
            return marks.WriteDue();
          }) {
      auto made = fleet::DeviceFleet::Create({&operations, &reports, &clock, "test"}, {.own_ticker = false});
      EXPECT_TRUE(made.ok()) << made.status();
      fleet = *std::move(made);
      maintenance = std::make_unique<Maintenance>(MaintenanceDeps{.pruner = pruner,
                                                                  .retention = retention,
                                                                  .time = time,
                                                                  .fleet = *fleet,
                                                                  .store = *path.store,
                                                                  .last_prune =
                                                                      [this] {
                                                                        ++asked;
                                                                        return pruning.LastPrune();
                                                                      }},
                                                  options);
    }
    v1::Operation End(const std::string& id) {
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
      for (;;) {
        const auto row = operations.Get(OperationId(id));
        EXPECT_TRUE(row.ok()) << row.status();
        if (!row.ok() || !catalog::IsActive(row->operation.state()) || std::chrono::steady_clock::now() > deadline)
          return row.ok() ? row->operation : v1::Operation();
        std::this_thread::yield();
      }
    }
    std::atomic<int> asked{0};             // whether one is due
    std::function<void()> before_rewrite;  // of the first pack; set before anything runs
    std::function<void()> after_trash;     // of what retention let go of one database; the same
    catalog::OperationCatalog operations;
    catalog::IdentityCatalog identities;
    fleet::CatalogReports reports;
    catalog::DeletionCatalog deletions;
    catalog::PruneCatalog pruning;
    catalog::PolicyCatalog policies;
    MarkWriter marks;
    Pruner pruner;
    retention::ControllerTime time;
    retention::Retention retention;
    std::unique_ptr<fleet::DeviceFleet> fleet;
    std::unique_ptr<Maintenance> maintenance;
  };

  // Two snapshots, the older one deleted; then a prune that is ordered and cut off before it begins, and what came of it.
  v1::Operation CutOff(bool dry_run, std::optional<std::chrono::milliseconds> grace) {
    Open();
    const auto older = Upload(FakeDatabase::Make(4096, 64 * 3, 1), device_);
    EXPECT_TRUE(older.status.ok() && Upload(FakeDatabase::Make(4096, 64 * 3, 2), device_).status.ok());
    std::string id;
    {
      Controller before(*path_, clock_);
      EXPECT_TRUE(before.deletions.Trash(SnapshotId(older.snapshot_id), true, "operator:x", clock_.Now()).ok());
      const auto started = before.maintenance->StartPrune(dry_run, grace, "request", "operator:x");
      EXPECT_TRUE(started.ok()) << started.status();
      id = started.ok() ? started->id() : "";
    }
    Open();
    Controller after(*path_, clock_);
    EXPECT_TRUE(after.maintenance->Begin().ok());
    return after.End(id);
  }
};

TEST_F(MaintenanceTest, APruneThatWasCutOffKeepsItsGrace) {
  const v1::Operation operation = CutOff(false, std::chrono::milliseconds(0));
  EXPECT_EQ(operation.state(), v1::OPERATION_STATE_SUCCEEDED) << operation.DebugString();
  EXPECT_EQ(operation.prune().snapshots_removed(), 1);
  EXPECT_EQ(operation.prune().chunks_swept(), 3);
  EXPECT_TRUE(operation.prune().has_grace());
}

TEST_F(MaintenanceTest, WithoutAGraceTheConfiguredOneHolds) {
  const v1::Operation operation = CutOff(false, std::nullopt);
  EXPECT_EQ(operation.state(), v1::OPERATION_STATE_SUCCEEDED) << operation.DebugString();
  EXPECT_EQ(operation.prune().snapshots_removed(), 0);
  EXPECT_FALSE(operation.prune().has_grace());
}

TEST_F(MaintenanceTest, ADryRunThatWasCutOffDeletesNothing) {
  const v1::Operation operation = CutOff(true, std::chrono::milliseconds(0));
  EXPECT_EQ(operation.state(), v1::OPERATION_STATE_SUCCEEDED) << operation.DebugString();
  EXPECT_TRUE(operation.prune().dry_run());
  EXPECT_EQ(path_->Count("select count(*) from snapshot"), 2);
}

// It is cancelled in the middle of a pack: that stays, and so does what was done before.
TEST_F(MaintenanceTest, ARunningPruneIsCancelled) {
  Open();
  const auto older = Upload(FakeDatabase::Make(4096, 64 * 3, 1), device_);
  ASSERT_TRUE(older.status.ok());
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  const uint64_t pack = path_->store->Packs().front().id;
  Controller controller(*path_, clock_);
  ASSERT_TRUE(controller.deletions.Trash(SnapshotId(older.snapshot_id), true, "operator:x", clock_.Now()).ok());
  std::string id;
  std::atomic<bool> asked{false};
  controller.before_rewrite = [&] {
    asked = true;
    EXPECT_TRUE(controller.fleet->Cancel(OperationId(id)).ok());
  };
  const auto started = controller.maintenance->StartPrune(false, std::chrono::milliseconds(0), "request", "operator:x");
  ASSERT_TRUE(started.ok()) << started.status();
  id = started->id();
  ASSERT_TRUE(controller.maintenance->Begin().ok());
  const v1::Operation operation = controller.End(id);
  EXPECT_TRUE(asked.load());
  EXPECT_EQ(operation.state(), v1::OPERATION_STATE_CANCELLED) << operation.DebugString();
  EXPECT_EQ(path_->Count("select count(*) from snapshot"), 0);
  EXPECT_EQ(path_->Count("select count(*) from chunk"), 0) << "the sweep came before it";
  EXPECT_EQ(path_->store->Packs().front().id, pack);
}

// Retention goes over all databases first, which may take long.
TEST_F(MaintenanceTest, APruneThatWaitsIsCancelledWhileRetentionRuns) {
  Open();
  for (unsigned i = 1; i <= 3; ++i) {
    for (const DeviceId& device : {device_, other_}) ASSERT_TRUE(Upload(FakeDatabase::Make(4096, 64 * 3, i), device).status.ok());
  }
  MaintenanceOptions options;
  options.retention_every = std::chrono::milliseconds(10);
  Controller controller(*path_, clock_, options);
  ASSERT_TRUE(controller.policies.Put("p", "name = \"p\"\n[retention]\nkeep_last = 1\nfloor = 1\n", clock_.Now()).ok());
  std::string id;
  std::atomic<int> databases{0};
  v1::OperationState state = v1::OPERATION_STATE_UNSPECIFIED;
  controller.after_trash = [&] {
    if (databases == 0) {
      const auto started = controller.maintenance->StartPrune(false, std::chrono::milliseconds(0), "request", "operator:x");
      ASSERT_TRUE(started.ok()) << started.status();
      id = started->id();
      EXPECT_TRUE(controller.fleet->Cancel(OperationId(id)).ok());
    } else if (databases == 1) {
      state = controller.operations.Get(OperationId(id))->operation.state();
    }
    ++databases;
  };
  ASSERT_TRUE(controller.maintenance->Begin().ok());
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (databases < 2 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  controller.maintenance.reset();
  ASSERT_EQ(databases, 2);
  EXPECT_EQ(state, v1::OPERATION_STATE_CANCELLED);
  EXPECT_EQ(controller.operations.Get(OperationId(id))->operation.state(), v1::OPERATION_STATE_CANCELLED);
}

// An operator confirmed a clock that was a year ahead, and then that it was not.
TEST_F(MaintenanceTest, APruneThatEndedInTheFutureIsNoReasonToWait) {
  Open();
  MaintenanceOptions options;
  options.retention_every = std::chrono::milliseconds(10);
  Controller controller(*path_, clock_, options);
  const SystemTime ahead = clock_.Now() + std::chrono::hours(24 * 365);
  ASSERT_TRUE(controller.pruning.SaveReport(v1::PruneReport(), ahead).ok());
  ASSERT_TRUE(controller.maintenance->Begin().ok());
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (*controller.pruning.LastPrune() == ahead && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_EQ(ToUnixMillis(**controller.pruning.LastPrune()), ToUnixMillis(clock_.Now()));
}

// It has read all manifests when it fails; the next look is not the time for another.
TEST_F(MaintenanceTest, AScheduledPruneThatFailsIsNotRepeatedAtEachLook) {
  Open();
  MaintenanceOptions options;
  options.retention_every = std::chrono::milliseconds(10);
  Controller controller(*path_, clock_, options);
  ASSERT_TRUE(path_->db
                  ->Write([](sqlite3* db) {
                    return sqlite::Execute(
                        db, "create trigger refuse before update of report on prune_state begin select raise(abort, 'refused'); end");
                  })
                  .ok());
  ASSERT_TRUE(controller.maintenance->Begin().ok());
  const auto after_looks = [&](int looks) {
    const int until = controller.asked + looks;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (controller.asked < until && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    EXPECT_GE(controller.asked, until);
    return path_->Count("select count(*) from operation");
  };
  EXPECT_EQ(after_looks(5), 1);
  clock_.Advance(std::chrono::hours(5));
  EXPECT_EQ(after_looks(5), 1);
  clock_.Advance(std::chrono::hours(2));
  EXPECT_EQ(after_looks(5), 2);
}

TEST_F(MaintenanceTest, OneOfWhichNobodyKnowsHowItWasMeantFails) {
  Open();
  std::string id;
  {
    Controller before(*path_, clock_);
    const auto started = before.fleet->StartLocal(v1::OPERATION_KIND_PRUNE, DeviceId(), "", SnapshotId(), "request", "operator:x", [] {});
    ASSERT_TRUE(started.ok()) << started.status();
    id = started->id();
  }
  Open();
  Controller after(*path_, clock_);
  ASSERT_TRUE(after.maintenance->Begin().ok());
  const v1::Operation operation = after.End(id);
  EXPECT_EQ(operation.state(), v1::OPERATION_STATE_FAILED);
  EXPECT_EQ(ReasonOf(FromErrorDetail(operation.error())), "INTERRUPTED");
}

}  // namespace
}  // namespace litefleet::prune
