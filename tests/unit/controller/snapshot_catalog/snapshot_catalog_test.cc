// What operators see of databases and snapshots: which snapshot a time means, lists in pages, totals. Snapshots come by real uploads.
#include "controller/catalog/snapshot_catalog.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/catalog/operation_catalog.h"
#include "fmt/format.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::catalog {
namespace {

constexpr int64_t kNoon = 1'795'348'800'000;  // 2026-11-22 12:00 UTC
constexpr int64_t kMinute = 60'000;

SystemTime Minute(int64_t minute) { return FromUnixMillis(kNoon + minute * kMinute); }

class SnapshotCatalogTest : public ingest::IngestTest {
 protected:
  void SetUp() override {
    ingest::IngestTest::SetUp();
    Open();
  }

  void Change(const std::string& sql) {
    const absl::Status status = path_->db->Write([&](sqlite3* db) { return sqlite::Execute(db, sql); });
    ASSERT_TRUE(status.ok()) << status;
  }
  // A snapshot that was taken at this minute.
  std::string Take(int64_t minute, uint64_t timeline = 1, const std::string& database = "main", const DeviceId* device = nullptr) {
    const fakes::UploadOutcome outcome =
        fakes::RunUpload(*path_->ingest, device == nullptr ? device_ : *device, fakes::FakeDatabase::Make(4096, 10, ++seed_),
                         {.session_id = NewSession(), .database = database, .timeline = timeline});
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    Change(fmt::format("update snapshot set taken_at = {} where id = '{}'", ToUnixMillis(Minute(minute)), outcome.snapshot_id));
    return outcome.snapshot_id;
  }
  // A restore that ends at this minute; its new timeline. Negative: it fails.
  // `unheard`: cancelled without the device's word, before that came.
  uint64_t Restore(int64_t minute, const std::string& base = "", bool unheard = false) {
    OperationCatalog operations(*path_->db);
    OperationRow row;
    const std::string id = NewSession();
    const uint64_t timeline = path_->snapshots->ReserveTimeline(device_, "main", OperationId(id)).value();
    row.operation.set_id(id);
    row.operation.set_kind(v1::OPERATION_KIND_RESTORE);
    row.operation.set_state(v1::OPERATION_STATE_RUNNING);
    row.operation.set_device_id(device_.value());
    row.operation.set_database("main");
    row.order.mutable_restore()->set_database("main");
    row.order.mutable_restore()->set_new_timeline(timeline);
    row.order.mutable_restore()->set_snapshot_id(base);
    EXPECT_TRUE(operations.Create({row}).ok());
    if (unheard) {
      EXPECT_TRUE(operations
                      .Update(OperationId(id),
                              [&](v1::Operation& operation) {
                                operation.set_state(v1::OPERATION_STATE_CANCELLED);
                                return absl::OkStatus();
                              })
                      .ok());
    }
    const auto ended = operations.Update(OperationId(id), [&](v1::Operation& operation) {
      operation.set_state(minute < 0 ? v1::OPERATION_STATE_FAILED : v1::OPERATION_STATE_SUCCEEDED);
      *operation.mutable_ended_at() = ToProtoTime(Minute(std::abs(minute)));
      return absl::OkStatus();
    });
    EXPECT_TRUE(ended.ok()) << ended.status();
    return timeline;
  }
  // The id, or the reason why there is none.
  std::string At(int64_t minute, std::optional<uint64_t> timeline = std::nullopt, const std::string& database = "main") {
    const auto found = path_->snapshots->At(device_, database, Minute(minute), timeline);
    return found.ok() ? found->id() : ReasonOf(found.status());
  }

  unsigned seed_ = 0;
};

TEST_F(SnapshotCatalogTest, ATimeMeansTheNewestSnapshotUntilThen) {
  const std::string first = Take(10);
  const std::string second = Take(20);
  EXPECT_EQ(At(9), "NO_SNAPSHOT_THEN");
  EXPECT_EQ(At(10), first) << "taken at that very time";
  EXPECT_EQ(At(19), first);
  EXPECT_EQ(At(20), second);
  EXPECT_EQ(At(1000), second);
  EXPECT_EQ(At(20, 1), second);
  EXPECT_EQ(At(20, 2), "NO_SNAPSHOT_THEN");
  EXPECT_EQ(At(20, std::nullopt, "other"), "NO_SNAPSHOT_THEN");
}

TEST_F(SnapshotCatalogTest, ATimeMeansNoPartOfADatabase) {
  const std::string first = Take(10);
  const std::string part = Take(20);
  const std::string last = Take(30);
  Change("update snapshot set part = 'tables a, b' where id = '" + part + "'");
  EXPECT_EQ(At(25), first);
  EXPECT_EQ(At(30), last);
  const auto after = path_->snapshots->After(device_, "main", Minute(15));
  ASSERT_TRUE(after.ok() && after->has_value());
  EXPECT_EQ((*after)->id(), last);
  // What was restored by its id is what the database was from then on.
  const uint64_t restored = Restore(40, part);
  EXPECT_EQ(At(45), part);
  EXPECT_EQ(At(45, restored), part);
}

TEST_F(SnapshotCatalogTest, AfterARestoreTheOldTimelineIsNotWhatTheDatabaseWas) {
  const std::string before = Take(10);
  const uint64_t restored = Restore(30);
  EXPECT_EQ(At(29), before);
  EXPECT_EQ(At(35), "NO_SNAPSHOT_THEN") << "nothing was taken since the restore";
  EXPECT_EQ(At(35, 1), before) << "asked for by its timeline it is there";
  const std::string after = Take(40, restored);
  EXPECT_EQ(At(29), before);
  EXPECT_EQ(At(39), "NO_SNAPSHOT_THEN");
  EXPECT_EQ(At(40), after);
  const std::string late = Take(50, 1);
  EXPECT_EQ(At(45), after);
  EXPECT_EQ(At(60), "TIME_AMBIGUOUS") << "a clock was set";
  const std::string hint = HintOf(path_->snapshots->At(device_, "main", Minute(60), std::nullopt).status());
  EXPECT_NE(hint.find("--timeline 2 or --timeline 1"), std::string::npos) << hint;
  EXPECT_EQ(At(60, 1), late);
  EXPECT_EQ(At(60, 2), after);
  const std::string newer = Take(70, restored);
  EXPECT_EQ(At(75), newer) << "not for ever";
  const std::string message = MessageOf(path_->snapshots->At(device_, "main", Minute(35), std::nullopt).status());
  EXPECT_NE(message.find("--timeline 1"), std::string::npos) << message;
}

TEST_F(SnapshotCatalogTest, ARestoreThatWasTakenForCancelledBeginsItsTimelineToo) {
  const std::string first = Take(10);
  const std::string second = Take(20);
  const uint64_t restored = Restore(30, first, /*unheard=*/true);
  EXPECT_EQ(At(25), second);
  EXPECT_EQ(At(35), first);
  EXPECT_EQ(At(35, restored), first);
}

TEST_F(SnapshotCatalogTest, BetweenARestoreAndTheNextBackupTheDatabaseIsWhatWasRestored) {
  const std::string first = Take(10);
  const std::string second = Take(20);
  const uint64_t restored = Restore(30, first);
  EXPECT_EQ(At(25), second);
  EXPECT_EQ(At(30), first);
  EXPECT_EQ(At(1000), first);
  EXPECT_EQ(At(35, restored), first);
  EXPECT_EQ(At(29, restored), "NO_SNAPSHOT_THEN") << "it had not begun";
  EXPECT_EQ(At(35, 1), second);
  const uint64_t again = Restore(40, second);
  EXPECT_EQ(At(35), first);
  EXPECT_EQ(At(45), second);
  const std::string after = Take(50, again);
  EXPECT_EQ(At(49), second);
  EXPECT_EQ(At(50), after);
  EXPECT_EQ(At(60), after);
}

TEST_F(SnapshotCatalogTest, WhatWasRestoredMayBeOfAnotherDatabaseAndMustBeWhole) {
  Take(10);
  const std::string foreign = Take(5, 1, "main", &other_);
  Restore(30, foreign);
  EXPECT_EQ(At(31), foreign);
  Change(fmt::format("update snapshot set state = {} where id = '{}'", int{v1::SNAPSHOT_STATE_DAMAGED}, foreign));
  EXPECT_EQ(At(31), "NO_SNAPSHOT_THEN");
}

TEST_F(SnapshotCatalogTest, ARestoreThatFailedBeginsNothing) {
  const std::string before = Take(10);
  Restore(-20);
  EXPECT_EQ(At(25), before);
  const uint64_t second = Restore(30);
  EXPECT_EQ(second, 3U);
  EXPECT_EQ(At(29), before);
  EXPECT_EQ(At(31), "NO_SNAPSHOT_THEN");
}

TEST_F(SnapshotCatalogTest, ATimelineWhoseRestoreWasNotReportedBeginsWithItsFirstSnapshot) {
  const std::string before = Take(10);
  const uint64_t timeline = path_->snapshots->ReserveTimeline(device_, "main", OperationId(NewSession())).value();
  EXPECT_EQ(At(25), before);
  const std::string after = Take(30, timeline);
  EXPECT_EQ(At(29), before);
  EXPECT_EQ(At(30), after);
}

TEST_F(SnapshotCatalogTest, OnlyCommittedSnapshotsCount) {
  const std::string good = Take(10);
  const std::string bad = Take(20);
  Change(fmt::format("update snapshot set state = {} where id = '{}'", int{v1::SNAPSHOT_STATE_DAMAGED}, bad));
  EXPECT_EQ(At(30), good);
}

TEST_F(SnapshotCatalogTest, ListsDatabasesInPages) {
  std::vector<v1::DatabaseHealth> reported(4);
  for (size_t i = 0; i < reported.size(); ++i) reported[i].set_name(fmt::format("db{}", i));
  ASSERT_TRUE(path_->snapshots->ReportDatabases(device_, Minute(0), reported).ok());
  reported.resize(1);
  reported.emplace_back().set_name("not a name");
  ASSERT_TRUE(path_->snapshots->ReportDatabases(other_, Minute(0), reported).ok());
  std::vector<std::string> seen;
  std::string token;
  int pages = 0;
  do {
    const auto page = path_->snapshots->ListDatabases(DeviceId(), std::nullopt, 2, token);
    ASSERT_TRUE(page.ok()) << page.status();
    EXPECT_LE(page->items.size(), 2U);
    for (const v1::Database& database : page->items) seen.push_back(database.device_id().substr(0, 1) + "/" + database.name());
    token = page->next_token;
  } while (!token.empty() && ++pages < 10);
  EXPECT_EQ(seen, (std::vector<std::string>{"1/db0", "1/db1", "1/db2", "1/db3", "2/db0"}));
  EXPECT_EQ(path_->snapshots->ListDatabases(other_, std::nullopt, 2, "")->items.size(), 1U);
  EXPECT_EQ(ReasonOf(path_->snapshots->ListDatabases(DeviceId(), std::nullopt, 2, "nonsense").status()), "PAGE_TOKEN_INVALID");
}

TEST_F(SnapshotCatalogTest, StaleAreThoseWithoutANewSnapshot) {
  v1::DatabaseHealth never;
  never.set_name("never");
  ASSERT_TRUE(path_->snapshots->ReportDatabases(device_, Minute(0), std::span(&never, 1)).ok());
  Take(10, 1, "old");
  Take(10, 1, "kept");
  Take(50, 1, "kept");
  const auto stale = path_->snapshots->ListDatabases(DeviceId(), Minute(30), 100, "");
  ASSERT_TRUE(stale.ok()) << stale.status();
  std::set<std::string> names;
  for (const v1::Database& database : stale->items) names.insert(database.name());
  EXPECT_EQ(names, (std::set<std::string>{"never", "old"}));
  EXPECT_EQ(path_->snapshots->ListDatabases(DeviceId(), std::nullopt, 100, "")->items.size(), 3U);
}

// Pages are the source's; what became of text when it was loaded says nothing of the source.
TEST_F(SnapshotCatalogTest, DamageInTheCopyIsDamageOfTheSourceWherePagesWereCopied) {
  const auto after = [&](const std::string& id, v1::CheckState state, const std::string& words) {
    EXPECT_TRUE(path_->snapshots->SetCheck(SnapshotId(id), state, words, Minute(45)).ok());
    return path_->snapshots->Resolve(id).value();
  };
  const std::string id = Take(10);
  EXPECT_EQ(path_->snapshots->Resolve(id)->source_check(), v1::CHECK_STATE_UNKNOWN);
  v1::Snapshot snapshot = after(id, v1::CHECK_STATE_DAMAGED, "Tree 2 page 3: btreeInitPage() returns error code 11");
  EXPECT_EQ(snapshot.source_check(), v1::CHECK_STATE_DAMAGED);
  EXPECT_EQ(snapshot.source_check_message(), "Tree 2 page 3: btreeInitPage() returns error code 11");
  EXPECT_EQ(after(id, v1::CHECK_STATE_CANNOT_TELL, "no such module: x").source_check(), v1::CHECK_STATE_UNKNOWN);
  EXPECT_EQ(after(id, v1::CHECK_STATE_FAILED, "disk full").source_check(), v1::CHECK_STATE_UNKNOWN);
  EXPECT_EQ(after(id, v1::CHECK_STATE_OK, "").source_check_message(), "");

  Change(fmt::format("update snapshot set source_check = {}, source_check_message = 'the file is short'", int{v1::CHECK_STATE_DAMAGED}));
  EXPECT_EQ(after(id, v1::CHECK_STATE_OK, "").source_check_message(), "the file is short");
  snapshot = after(id, v1::CHECK_STATE_DAMAGED, "malformed");
  EXPECT_EQ(snapshot.source_check_message(), "the file is short; SQLite: malformed");
  EXPECT_EQ(after(id, v1::CHECK_STATE_DAMAGED, "the file is short").source_check_message(), "the file is short");

  const std::string text = Take(20);
  Change(fmt::format("update snapshot set content = {} where id = '{}'", int{v1::SNAPSHOT_CONTENT_SQL}, text));
  EXPECT_EQ(after(text, v1::CHECK_STATE_DAMAGED, "UNIQUE constraint failed").source_check(), v1::CHECK_STATE_UNKNOWN);
}

TEST_F(SnapshotCatalogTest, TotalsCountWhatIsThere) {
  const auto none = path_->snapshots->GetTotals();
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(none->databases + none->snapshots + none->store_bytes + none->logical_bytes + none->databases_unproven, 0);
  EXPECT_FALSE(none->oldest_newest_at.has_value());
  EXPECT_FALSE(none->oldest_proven_at.has_value());

  v1::DatabaseHealth never;
  never.set_name("never");
  ASSERT_TRUE(path_->snapshots->ReportDatabases(device_, Minute(0), std::span(&never, 1)).ok());
  const std::string proven = Take(10, 1, "a");
  Take(40, 1, "a");
  Take(20, 1, "b", &other_);
  ASSERT_TRUE(path_->snapshots->SetCheck(SnapshotId(proven), v1::CHECK_STATE_OK, "", Minute(45)).ok());
  const auto totals = path_->snapshots->GetTotals();
  ASSERT_TRUE(totals.ok()) << totals.status();
  EXPECT_EQ(totals->databases, 3);
  EXPECT_EQ(totals->databases_without_snapshot, 1);
  EXPECT_EQ(totals->databases_unproven, 2);
  EXPECT_EQ(totals->snapshots, 3);
  EXPECT_EQ(totals->logical_bytes, 3 * 10 * 4096);
  EXPECT_GT(totals->store_bytes, 0);
  EXPECT_EQ(totals->oldest_newest_at, Minute(20));
  EXPECT_EQ(totals->oldest_newest_database, other_.value() + "/b");
  EXPECT_EQ(totals->oldest_proven_at, Minute(10));
  EXPECT_EQ(totals->oldest_proven_database, device_.value() + "/a");
}

}  // namespace
}  // namespace litefleet::catalog
