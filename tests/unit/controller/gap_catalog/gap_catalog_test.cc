#include "controller/catalog/gap_catalog.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/catalog/chain_catalog.h"
#include "controller/catalog/prune_catalog.h"
#include "controller/catalog/snapshot_catalog.h"
#include "fmt/format.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::catalog {
namespace {

constexpr int64_t kNoon = 1'795'348'800'000;  // 2026-11-22 12:00 UTC
constexpr int64_t kMinute = 60'000;

class GapCatalogTest : public ingest::IngestTest {
 protected:
  void SetUp() override {
    ingest::IngestTest::SetUp();
    Open();
    Take(0);
  }
  void Change(const std::string& sql) {
    const absl::Status status = path_->db->Write([&](sqlite3* db) { return sqlite::Execute(db, sql); });
    ASSERT_TRUE(status.ok()) << status;
  }
  // A snapshot that was taken at this minute.
  std::string Take(int64_t minute) {
    const fakes::UploadOutcome outcome =
        fakes::RunUpload(*path_->ingest, device_, fakes::FakeDatabase::Make(4096, 10, ++seed_), {.session_id = NewSession()});
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    Change(fmt::format("update snapshot set taken_at = {} where id = '{}'", kNoon + minute * kMinute, outcome.snapshot_id));
    return outcome.snapshot_id;
  }
  // The state after this minute; empty: none.
  std::string After(int64_t minute) {
    const auto after = SnapshotCatalog(*path_->db).After(device_, "main", FromUnixMillis(kNoon + minute * kMinute));
    EXPECT_TRUE(after.ok()) << after.status();
    return after.ok() && after->has_value() ? (*after)->id() : "";
  }
  // From and until in minutes; no until: it has not ended.
  v1::CoverageGap Gap(int64_t from, std::optional<int64_t> until = std::nullopt, std::string id = {}) {
    v1::CoverageGap gap;
    gap.set_id(id.empty() ? NewUlid(FromUnixMillis(kNoon + from * kMinute)) : std::move(id));
    gap.set_database("main");
    *gap.mutable_from() = MillisTimestamp(kNoon + from * kMinute);
    if (until) *gap.mutable_until() = MillisTimestamp(kNoon + *until * kMinute);
    gap.set_reason("SPOOL_FULL");
    gap.set_message("no room");
    return gap;
  }
  absl::Status Report(const v1::CoverageGap& gap) { return GapCatalog(*path_->db).Report(device_, gap, FromUnixMillis(kNoon)); }
  std::vector<v1::Gap> List(bool open_only = false) {
    const auto page = GapCatalog(*path_->db).List(device_, "main", open_only, 1000, "");
    EXPECT_TRUE(page.ok()) << page.status();
    return page->items;
  }

  unsigned seed_ = 0;
};

TEST_F(GapCatalogTest, TheSameIdIsTheSameGap) {
  v1::CoverageGap gap = Gap(10);
  ASSERT_TRUE(Report(gap).ok());
  ASSERT_TRUE(Report(gap).ok());
  EXPECT_EQ(List(true).size(), 1U);
  *gap.mutable_until() = MillisTimestamp(kNoon + 20 * kMinute);
  gap.set_snapshots(4);
  ASSERT_TRUE(Report(gap).ok());
  const auto gaps = List();
  ASSERT_EQ(gaps.size(), 1U);
  EXPECT_EQ(gaps[0].gap().SerializeAsString(), gap.SerializeAsString());
  EXPECT_TRUE(List(true).empty());
}

// The roots differ: everything since the last state that was equal is in question, once.
TEST_F(GapCatalogTest, AChainThatDiffersIsATimeInQuestion) {
  GapCatalog gap_catalog(*path_->db);
  ChainCatalog catalog(*path_->db, gap_catalog);
  const SystemTime now = FromUnixMillis(kNoon + 60 * kMinute);
  std::vector<std::string> snapshots;
  for (int minute = 10; minute <= 40; minute += 10) snapshots.push_back(Take(minute));
  const auto check = [&](const std::string& snapshot, bool right) {
    const auto row = SnapshotCatalog(*path_->db).Resolve(snapshot);
    EXPECT_TRUE(row.ok()) << row.status();
    v1::ChainCheck wanted;
    wanted.set_database("main");
    wanted.set_snapshot_id(snapshot);
    wanted.set_root_digest(right ? row->root_digest() : std::string(32, 'x'));
    wanted.set_page_size(row->page_size());
    wanted.set_page_count(row->page_count());
    const auto equal = catalog.Check(device_, wanted, now);
    EXPECT_TRUE(equal.ok()) << equal.status();
    return *equal;
  };
  EXPECT_EQ(check(snapshots[0], true), true);
  EXPECT_TRUE(List().empty());
  EXPECT_EQ(check(snapshots[2], false), false);
  EXPECT_EQ(check(snapshots[2], false), false) << "told again";
  const std::vector<v1::Gap> gaps = List();
  ASSERT_EQ(gaps.size(), 1U);
  EXPECT_EQ(gaps[0].gap().reason(), ChainCatalog::kChainDiffers);
  EXPECT_EQ(TimestampMillis(gaps[0].gap().from()), kNoon + 10 * kMinute);
  EXPECT_EQ(TimestampMillis(gaps[0].gap().until()), kNoon + 30 * kMinute);
  EXPECT_TRUE(List(true).empty()) << "it has ended";
  EXPECT_EQ(catalog.InQuestion(FromUnixMillis(kNoon), 10)->size(), 1U);
  EXPECT_TRUE(catalog.InQuestion(now, 10)->empty());
  // Of another device, or of none: nothing is said.
  v1::ChainCheck other;
  other.set_database("main");
  other.set_snapshot_id(NewUlid(now));
  EXPECT_EQ(*catalog.Check(device_, other, now), std::nullopt);
  other.set_snapshot_id(snapshots[3]);
  EXPECT_EQ(*catalog.Check(DeviceId(NewUuid()), other, now), std::nullopt);
}

// Whatever its clock says: one that stands in 1970 has an alarm, one that runs ahead has it no longer, and a device that tells of many
// differences does not hide those of others.
TEST_F(GapCatalogTest, ADifferenceIsAsNewAsItIsToTheController) {
  GapCatalog gap_catalog(*path_->db);
  ChainCatalog catalog(*path_->db, gap_catalog);
  const auto differs = [&](const std::string& snapshot, int64_t minute) {
    v1::ChainCheck check;
    check.set_database("main");
    check.set_snapshot_id(snapshot);
    check.set_root_digest(std::string(32, 'x'));
    EXPECT_EQ(*catalog.Check(device_, check, FromUnixMillis(kNoon + minute * kMinute)), false);
  };
  differs(Take(-kNoon / kMinute + 5), 10);
  EXPECT_EQ(catalog.InQuestion(FromUnixMillis(kNoon), 10)->size(), 1U);
  for (int minute = 20; minute < 25; ++minute) differs(Take(minute + 50'000'000), minute);
  const auto found = catalog.InQuestion(FromUnixMillis(kNoon), 10);
  ASSERT_EQ(found->size(), 1U);
  EXPECT_EQ(TimestampMillis(found->front().gap().until()), kNoon + (24 + 50'000'000) * kMinute);
  EXPECT_TRUE(catalog.InQuestion(FromUnixMillis(kNoon + 24 * kMinute), 10)->empty());
}

// The file that somebody brought is from long ago; no device has compared it.
TEST_F(GapCatalogTest, AnImportIsNoStateOfTheChainNorOneAroundAGap) {
  GapCatalog gap_catalog(*path_->db);
  ChainCatalog catalog(*path_->db, gap_catalog);
  const std::string brought = Take(-5000);
  const std::string taken = Take(10);
  const std::string also_brought = Take(15);
  Change(fmt::format("update snapshot set provenance = 'a file' where id in ('{}', '{}')", brought, also_brought));
  v1::ChainCheck check;
  check.set_database("main");
  check.set_snapshot_id(brought);
  EXPECT_EQ(*catalog.Check(device_, check, FromUnixMillis(kNoon)), std::nullopt);
  check.set_snapshot_id(taken);
  EXPECT_EQ(*catalog.Check(device_, check, FromUnixMillis(kNoon)), false);
  EXPECT_EQ(TimestampMillis(List()[0].gap().from()), kNoon - 1) << "just before the first that the device has sent";
  ASSERT_TRUE(Report(Gap(11, 20)).ok());
  const std::string next = Take(20);
  EXPECT_EQ(After(12), next);
}

TEST_F(GapCatalogTest, RefusesWhatIsNotTheDevices) {
  const v1::CoverageGap gap = Gap(10);
  ASSERT_TRUE(Report(gap).ok());
  const DeviceId other("99999999-9999-4999-8999-999999999999");
  EXPECT_EQ(ReasonOf(GapCatalog(*path_->db).Report(other, gap, FromUnixMillis(kNoon))), "DATABASE_NOT_FOUND");
  Change(fmt::format("insert into database (device, name) values ('{}', 'main')", other.value()));
  v1::CoverageGap changed = gap;
  changed.set_message("mine");
  EXPECT_EQ(ReasonOf(GapCatalog(*path_->db).Report(other, changed, FromUnixMillis(kNoon))), "NOT_YOUR_GAP");
  EXPECT_EQ(List()[0].gap().message(), "no room");
  v1::CoverageGap unknown = Gap(10);
  unknown.set_database("never-reported");
  EXPECT_EQ(ReasonOf(Report(unknown)), "DATABASE_NOT_FOUND");
}

TEST_F(GapCatalogTest, KeepsTheNewestOfADatabaseAndListsThemInPages) {
  const int many = GapCatalog::kMaxPerDatabase + 3;
  for (int i = 0; i < many; ++i) ASSERT_TRUE(Report(Gap(i, i + 1)).ok());
  GapCatalog catalog(*path_->db);
  std::vector<int64_t> from;
  std::string token;
  do {
    const auto page = catalog.List(device_, "main", false, 333, token);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const v1::Gap& gap : page->items) from.push_back((TimestampMillis(gap.gap().from()) - kNoon) / kMinute);
    token = page->next_token;
  } while (!token.empty());
  ASSERT_EQ(from.size(), static_cast<size_t>(GapCatalog::kMaxPerDatabase));
  for (size_t i = 0; i < from.size(); ++i) EXPECT_EQ(from[i], many - 1 - static_cast<int64_t>(i));
  for (const char* bad : {"x", "1", "1x/y", "/"})
    EXPECT_EQ(ReasonOf(catalog.List(device_, "main", false, 10, bad).status()), "PAGE_TOKEN_INVALID");
}

TEST_F(GapCatalogTest, SaysWhichStatesAreAroundATime) {
  ASSERT_TRUE(Report(Gap(0, 60)).ok());
  GapCatalog catalog(*path_->db);
  const auto at = [&](int64_t minute) { return *catalog.At(device_, "main", FromUnixMillis(kNoon + minute * kMinute)); };
  ASSERT_TRUE(at(30).has_value());
  EXPECT_EQ(After(30), "") << "nothing came yet";
  const std::string later = Take(90);
  const std::string first = Take(60);
  EXPECT_EQ(After(30), first) << "by when they were taken, not by when they came";
  EXPECT_FALSE(at(0).has_value()) << "that state there is";
  EXPECT_FALSE(at(60).has_value());
  EXPECT_FALSE(at(70).has_value());
  ASSERT_TRUE(Report(Gap(90)).ok());
  EXPECT_TRUE(at(1000).has_value()) << "it has not ended";
}

TEST_F(GapCatalogTest, OfItsRecordsOnlyTheNewestCountsAndOnlyWhileItIsKept) {
  v1::CoverageGap gap = Gap(0, 60);
  ASSERT_TRUE(Report(gap).ok());
  const auto revision = static_cast<uint64_t>(path_->Count("select revision from gap"));
  const PruneCatalog prune(*path_->db);
  EXPECT_TRUE(*prune.GapCounts(gap.id(), revision));
  gap.set_message("another");
  ASSERT_TRUE(Report(gap).ok());
  EXPECT_FALSE(*prune.GapCounts(gap.id(), revision));
  EXPECT_TRUE(*prune.GapCounts(gap.id(), static_cast<uint64_t>(path_->Count("select revision from gap"))));
  Change("delete from gap");
  EXPECT_FALSE(*prune.GapCounts(gap.id(), 1'000'000));
  EXPECT_EQ(path_->Count("select count(*) from record_due where kind = 6"), 0) << "its note went with it";
}

}  // namespace
}  // namespace litefleet::catalog
