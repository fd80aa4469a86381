// Backups of real databases with a real ledger, the agent's pipeline and the controller's data path: random histories in every geometry,
// each snapshot read back and compared with the database, and what travelled counted.
#include <fstream>

#include "tests/integration/delta/delta_fixture.h"

namespace litefleet::upload {
namespace {

TEST_P(DeltaBackupTest, RandomHistories) {
  RandomHistory(GetParam(), static_cast<unsigned>(GetParam().page_size + GetParam().auto_vacuum), 25);
}

INSTANTIATE_TEST_SUITE_P(Geometries, DeltaBackupTest,
                         testing::Values(Shape{512, "wal", 0, "UTF-8"}, Shape{1024, "delete", 2, "UTF-16le"},
                                         Shape{4096, "wal", 1, "UTF-8"}, Shape{4096, "persist", 0, "UTF-8"},
                                         Shape{8192, "wal", 2, "UTF-16be"}, Shape{65536, "wal", 0, "UTF-8"},
                                         Shape{65536, "truncate", 1, "UTF-8"}),
                         [](const auto& test) {
                           return fmt::format("{}_{}_{}", test.param.page_size, test.param.journal, test.param.auto_vacuum);
                         });

class OneDeltaTest : public DeltaBackupTest {};

TEST_P(OneDeltaTest, OnlyWhatChangedTravels) {
  OpenDatabase(GetParam());
  Sql("with recursive n(i) as (values (1) union all select i + 1 from n where i < 40000) insert into t (k, v) select 'key ' || i, "
      "randomblob(100) || zeroblob(100) from n");
  const BackupOutcome first = Back();
  ASSERT_TRUE(first.status.ok()) << first.status;
  const int64_t first_bytes = transport_->up;
  Sql("update t set v = randomblob(200) where id in (5, 20000, 39999)");
  const BackupOutcome second = Back();
  ASSERT_TRUE(second.status.ok()) << second.status;
  EXPECT_LE(Snapshot(second.snapshot_id).pages_sent(), 5u);
  EXPECT_LT(transport_->up, 20'000);
  EXPECT_LT(transport_->down, 500);
  EXPECT_LT(transport_->up * 100, first_bytes);
  // A ledger of nothing: names and digests travel, no page.
  ASSERT_TRUE(ledger_->Remove().ok());
  Sql("update t set v = randomblob(200) where id = 12345");
  const BackupOutcome third = Back();
  ASSERT_TRUE(third.status.ok()) << third.status;
  EXPECT_LE(Snapshot(third.snapshot_id).pages_sent(), 3u);
  // A ledger of a snapshot that is not there: another device's root.
  EXPECT_TRUE(*path_->ReadBack(third.snapshot_id) == Expected());
  const BackupOutcome same = Back();
  ASSERT_TRUE(same.status.ok()) << same.status;
  EXPECT_EQ(Snapshot(same.snapshot_id).pages_sent(), 0u);
  EXPECT_EQ(Snapshot(same.snapshot_id).stored_bytes(), 0);
  // A bit of the ledger's digests: noticed, and everything compared.
  {
    std::fstream file(LedgerPath(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(3000);
    file.put('x');
  }
  OpenLedger();
  const BackupOutcome damaged = Back();
  ASSERT_TRUE(damaged.status.ok()) << damaged.status;
  EXPECT_NE(damaged.ledger_note, "");
  EXPECT_EQ(Snapshot(damaged.snapshot_id).pages_sent(), 0u);
  EXPECT_TRUE(*path_->ReadBack(damaged.snapshot_id) == Expected());
}

// More runs of pages than an upload may name, with and without a ledger: then extents are sent whole, and only those that differ.
TEST_P(OneDeltaTest, ManyRunsBecomeWholeExtents) {
  OpenDatabase(GetParam());
  Sql("drop index i; with recursive n(i) as (values (1) union all select i + 1 from n where i < 8000) insert into t (k, v) select i, "
      "randomblob(3000) from n");
  ASSERT_TRUE(Back().status.ok());
  const int64_t extents = ledger_->state()->page_count / 64 + 1;
  ASSERT_GT(extents, 100);
  max_runs_ = 200;
  for (const bool knows : {true, false}) {
    ASSERT_TRUE(knows || ledger_->Remove().ok());
    Sql("update t set v = randomblob(3000) where id < 4000 and id % 4 = 0");
    const BackupOutcome outcome = Back();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    // Those of the extents that are compared come first where there is no ledger.
    EXPECT_LE(transport_->runs, static_cast<int64_t>(max_runs_) + 64 + 2 * extents);
    EXPECT_TRUE(*path_->ReadBack(outcome.snapshot_id) == Expected());
    EXPECT_GT(Snapshot(outcome.snapshot_id).pages_sent(), 1000u);
    EXPECT_LT(Snapshot(outcome.snapshot_id).pages_sent(), ledger_->state()->page_count * 6 / 10);
  }
}

// Pages that only moved are found by their digests in the ledger, and not sent.
class MovedPagesTest : public DeltaBackupTest {
 protected:
  // What of the pages that changed was sent, after `sql`.
  double ShareSent(const std::string& sql) {
    Sql(sql);
    const BackupOutcome outcome = Back();
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_TRUE(*path_->ReadBack(outcome.snapshot_id) == Expected());
    const v1::Snapshot snapshot = Snapshot(outcome.snapshot_id);
    EXPECT_GT(snapshot.pages_changed(), 50u) << sql;
    return static_cast<double>(snapshot.pages_sent()) / snapshot.pages_changed();
  }
};

TEST_P(MovedPagesTest, VacuumSendsLittle) {
  OpenDatabase(GetParam());
  Sql("create table gone (v blob); insert into gone values (zeroblob(300000));"
      "with recursive n(i) as (values (1) union all select i + 1 from n where i < 20000) insert into t (k, v) select 'key ' || (1000000 + "
      "i), "
      "randomblob(200) from n");
  Sql("vacuum");
  ASSERT_TRUE(Back().status.ok());
  // All that follows moves up.
  const double vacuum = ShareSent("drop table gone; vacuum");
  EXPECT_LT(vacuum, 0.15);
  const double again = ShareSent("create table gone (v blob); insert into gone values (zeroblob(300000)); vacuum");
  EXPECT_LT(again, 0.5);
  for (const char* sql : {"delete from t where id % 7 = 3; vacuum", "pragma page_size = 8192; pragma journal_mode = delete; vacuum"}) {
    Sql(sql);
    const BackupOutcome outcome = Back();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_TRUE(*path_->ReadBack(outcome.snapshot_id) == Expected()) << sql;
  }
}

// As a database of many GiB, whose index has only some of its pages: they are found with those beside them.
TEST_P(MovedPagesTest, VacuumOfMoreThanTheIndexHoldsSendsLittle) {
  index_entries_ = 300;
  OpenDatabase(GetParam());
  Sql("drop index i;"
      "create table gone (v blob); insert into gone values (zeroblob(300000));"
      "with recursive n(i) as (values (1) union all select i + 1 from n where i < 60000) insert into t (k, v) select 'key ' || i, "
      "randomblob(200) from n");
  Sql("vacuum");
  ASSERT_TRUE(Back().status.ok());
  EXPECT_GT(ledger_->state()->page_count, 10 * index_entries_);
  EXPECT_LT(ShareSent("drop table gone; vacuum"), 0.05);
}

TEST_P(MovedPagesTest, WhatAutoVacuumMovesIsNotSent) {
  Shape shape = GetParam();
  shape.auto_vacuum = 2;
  OpenDatabase(shape);
  Sql("with recursive n(i) as (values (1) union all select i + 1 from n where i < 20000) insert into t (k, v) select i, randomblob(200) "
      "from n;"
      "create table b (v blob); with recursive n(i) as (values (1) union all select i + 1 from n where i < 8) insert into b select "
      "randomblob(30000) from n");
  ASSERT_TRUE(Back().status.ok());
  EXPECT_LT(ShareSent("delete from t where id between 3000 and 9000; pragma incremental_vacuum"), 0.6);
}

TEST_P(MovedPagesTest, WhatTheBaseDoesNotHaveThereIsSent) {
  OpenDatabase(GetParam());
  Sql("with recursive n(i) as (values (1) union all select i + 1 from n where i < 5000) insert into t (k, v) select i, randomblob(200) "
      "from n");
  ASSERT_TRUE(Back().status.ok());
  transport_->lie_about_sources = true;
  Sql("drop index i; create index i on t (v); vacuum");
  const BackupOutcome outcome = Back();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(*path_->ReadBack(outcome.snapshot_id) == Expected());
}

INSTANTIATE_TEST_SUITE_P(Modes, MovedPagesTest, testing::Values(Shape{4096, "wal", 0, "UTF-8"}, Shape{1024, "delete", 0, "UTF-8"}),
                         [](const auto& test) { return test.param.journal; });

INSTANTIATE_TEST_SUITE_P(Modes, OneDeltaTest, testing::Values(Shape{4096, "wal", 0, "UTF-8"}, Shape{4096, "delete", 0, "UTF-8"}),
                         [](const auto& test) { return test.param.journal; });

// Over 1 GiB, nearly all of it holes: SQLite keeps its locks in the page at 1 GiB and never writes it.
class LockBytePageTest : public DeltaBackupTest {
 protected:
  // A database of 64 KiB pages that ends a few pages before the one with the locks.
  void OpenSparse() {
    OpenDatabase(GetParam());
    sqlite3_close(db_);
    constexpr uint32_t kPages = 16380;
    {
      std::fstream file(database_, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(28);  // the size in pages; source: SQLite's file format, 1.3.7
      for (const int shift : {24, 16, 8, 0}) file.put(static_cast<char>(kPages >> shift & 0xff));
      ASSERT_TRUE(file.good());
    }
    std::filesystem::resize_file(database_, uint64_t{kPages} << 16);
    ASSERT_EQ(sqlite3_open(database_.c_str(), &db_), SQLITE_OK);
    Sql(fmt::format("pragma journal_mode={}; pragma synchronous=off", GetParam().journal));
  }
  static std::string Root(uint32_t page_size, const std::vector<format::PageDigest>& digests) {
    const auto count = static_cast<uint32_t>(digests.size());
    format::RootBuilder root(page_size, count);
    for (uint32_t extent = 0; extent < format::ExtentCount(page_size, count); ++extent) {
      root.Add(format::NameChunk(
          page_size, std::span(digests).subspan(format::FirstPageOf(page_size, extent) - 1, format::PagesIn(page_size, count, extent))));
    }
    return std::string(root.Finish().AsString());
  }
  // Of what SQLite has, and of what is restored: pages are hashed one extent after the other, and not kept.
  std::string SourceRoot() {
    capture::OnlineOptions options;
    options.path = database_;
    options.clock = &clock_;
    options.rollback_stall = std::chrono::seconds(60);
    auto source = capture::OpenOnlineSource(options);
    EXPECT_TRUE(source.ok()) << source.status();
    std::vector<format::PageDigest> digests;
    for (auto extent = (*source)->Next(); extent.ok() && extent->has_value(); extent = (*source)->Next())
      format::DigestPages((*source)->info().page_size, (*extent)->data, digests);
    return Root((*source)->info().page_size, digests);
  }
  std::string RestoredRoot(const std::string& id) {
    auto reader = path_->readers->Open(SnapshotId(id), {});
    EXPECT_TRUE(reader.ok()) << reader.status();
    const uint32_t page_size = (*reader)->geometry().page_size;
    format::ChunkDecompressor decompressor;
    std::vector<format::PageDigest> digests;
    for (auto chunk = (*reader)->Next(); chunk.ok() && chunk->has_value(); chunk = (*reader)->Next()) {
      EXPECT_TRUE(restore::Unpack(**chunk, page_size, decompressor).ok());
      format::DigestPages(page_size, (*chunk)->raw, digests);
    }
    return Root(page_size, digests);
  }
  v1::Snapshot BackedUp(const char* what) {
    const BackupOutcome outcome = Back();
    EXPECT_TRUE(outcome.status.ok()) << what << ": " << outcome.status;
    if (!outcome.status.ok()) return {};
    v1::Snapshot snapshot = Snapshot(outcome.snapshot_id);
    EXPECT_EQ(snapshot.root_digest(), SourceRoot()) << what;
    EXPECT_EQ(snapshot.root_digest(), RestoredRoot(outcome.snapshot_id)) << what;
    return snapshot;
  }
};

TEST_P(LockBytePageTest, GoesThroughDeltas) {
  OpenSparse();
  constexpr uint32_t kLockPage = format::LockBytePage(65536);
  EXPECT_LT(BackedUp("before it").page_count(), kLockPage);
  // Over it: SQLite leaves it out.
  Sql("create table big (id integer primary key, v blob);"
      "with recursive n(i) as (values (1) union all select i + 1 from n where i < 12) insert into big (v) select randomblob(60000) from n");
  const v1::Snapshot grown = BackedUp("grown over it");
  EXPECT_GT(grown.page_count(), kLockPage + 2);
  EXPECT_LT(grown.pages_sent(), 40u);
  // What lies in it is not the database's: it counts as zeros, and changes nothing.
  Sql("pragma wal_checkpoint(truncate)");
  {
    std::fstream file(database_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(int64_t{kLockPage - 1} << 16);
    file << "astray";
    ASSERT_TRUE(file.good());
  }
  EXPECT_EQ(BackedUp("with something in it").root_digest(), grown.root_digest());
  Sql("update big set v = randomblob(60000) where id in (2, 11)");
  EXPECT_LT(BackedUp("changed on both sides of it").pages_sent(), 10u);
  // And back before it: pages that nobody uses go.
  Sql("vacuum");
  EXPECT_LT(BackedUp("shrunk").page_count(), 100u);
}

INSTANTIATE_TEST_SUITE_P(Modes, LockBytePageTest, testing::Values(Shape{65536, "wal", 0, "UTF-8"}, Shape{65536, "delete", 0, "UTF-8"}),
                         [](const auto& test) { return test.param.journal; });

}  // namespace
}  // namespace litefleet::upload
