// Backups of real databases with a real ledger, the agent's pipeline and the controller's data path: random histories in every geometry,
// each snapshot read back and compared with the database, and what travelled counted.
#include <fstream>
#include <iostream>

#include "common/format/crc32c.h"
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

// Small ones, other ones in each run: LITEFLEET_DELTA_SEED repeats those of a run.
class AnyHistoryTest : public DeltaBackupTest {};

TEST_P(AnyHistoryTest, RandomHistories) {
  const unsigned seed = Number("LITEFLEET_DELTA_SEED", std::random_device{}());
  std::minstd_rand random(seed);
  Shape shape = GetParam();
  shape.page_size = 512 << random() % 8;
  const char* encodings[] = {"UTF-8", "UTF-16le", "UTF-16be"};
  shape.encoding = encodings[random() % 3];
  SCOPED_TRACE(fmt::format("LITEFLEET_DELTA_SEED={}, pages of {} bytes, {}", seed, shape.page_size, shape.encoding));
  RandomHistory(shape, random(), 6);
}

std::vector<Shape> AnyShapes() {
  std::vector<Shape> shapes;
  for (const char* journal : {"wal", "delete", "truncate", "persist"}) {
    for (int auto_vacuum = 0; auto_vacuum < 3; ++auto_vacuum) shapes.push_back({.journal = journal, .auto_vacuum = auto_vacuum});
  }
  return shapes;
}

INSTANTIATE_TEST_SUITE_P(Shapes, AnyHistoryTest, testing::ValuesIn(AnyShapes()),
                         [](const auto& test) { return fmt::format("{}_{}", test.param.journal, test.param.auto_vacuum); });

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
  EXPECT_TRUE(*path_->ReadBack(third.snapshot_id) == Expected());
  const BackupOutcome same = Back();
  ASSERT_TRUE(same.status.ok()) << same.status;
  EXPECT_EQ(Snapshot(same.snapshot_id).pages_sent(), 0u);
  EXPECT_EQ(Snapshot(same.snapshot_id).stored_bytes(), 0);
  // A ledger of a snapshot that the controller does not have, or not any more.
  ASSERT_TRUE(ledger_->Begin(4096, ledger_->state()->page_count, ledger::Ledger::kChanges).ok());
  format::RootDigest unknown = ledger_->state()->root;
  unknown.bytes[5] ^= std::byte{1};
  ASSERT_TRUE(ledger_->Commit(NewSession(), unknown).ok());
  Sql("update t set v = randomblob(200) where id = 12346");
  const BackupOutcome ahead = Back();
  ASSERT_TRUE(ahead.status.ok()) << ahead.status;
  EXPECT_NE(ahead.ledger_note, "");
  EXPECT_LE(Snapshot(ahead.snapshot_id).pages_sent(), 3u);
  EXPECT_TRUE(*path_->ReadBack(ahead.snapshot_id) == Expected());
  // A ledger that a later version has written: nothing is known of it.
  {
    std::fstream file(LedgerPath(), std::ios::in | std::ios::out | std::ios::binary);
    Bytes header(256);
    file.read(reinterpret_cast<char*>(header.data()), 256);
    header[8] = std::byte{2};
    StoreLittleEndian<uint32_t>(format::Crc32c(ByteView(header).first(252)), &header[252]);
    file.seekp(0);
    file.write(reinterpret_cast<const char*>(header.data()), 256);
  }
  OpenLedger();
  EXPECT_FALSE(ledger_->state().has_value());
  const BackupOutcome later = Back();
  ASSERT_TRUE(later.status.ok()) << later.status;
  EXPECT_EQ(Snapshot(later.snapshot_id).pages_sent(), 0u);
  EXPECT_TRUE(*path_->ReadBack(later.snapshot_id) == Expected());
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
  // After `sql`: next to nothing is sent but pages that the state before has nowhere.
  void ExpectOnlyWhatIsNewIsSent(const std::string& sql) {
    const Bytes before = Expected();
    Sql(sql);
    const BackupOutcome outcome = Back();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    const Bytes after = Expected();
    EXPECT_TRUE(*path_->ReadBack(outcome.snapshot_id) == after) << sql;
    const v1::Snapshot snapshot = Snapshot(outcome.snapshot_id);
    EXPECT_GT(snapshot.pages_changed(), 50u) << sql;
    const uint32_t least = New(before, after, static_cast<size_t>(snapshot.page_size()));
    std::cout << fmt::format("{} pages changed, {} of them are new, {} were sent: {}\n", snapshot.pages_changed(), least,
                             snapshot.pages_sent(), sql);
    EXPECT_LE(static_cast<double>(snapshot.pages_sent()), 1.1 * least) << sql;
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
  for (const char* sql : {"drop table gone; vacuum", "create table gone (v blob); insert into gone values (zeroblob(300000)); vacuum",
                          "delete from t where id % 7 = 3; vacuum", "pragma page_size = 8192; pragma journal_mode = delete; vacuum"}) {
    ExpectOnlyWhatIsNewIsSent(sql);
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
  ExpectOnlyWhatIsNewIsSent("drop table gone; vacuum");
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
  ExpectOnlyWhatIsNewIsSent("delete from t where id between 3000 and 9000; pragma incremental_vacuum");
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
  uint32_t page_size() const { return static_cast<uint32_t>(GetParam().page_size); }
  // A database that ends a few pages before the one with the locks.
  void OpenSparse() {
    OpenDatabase(GetParam());
    sqlite3_close(db_);
    const uint32_t pages = format::LockBytePage(page_size()) - 5;
    {
      std::fstream file(database_, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(28);  // the size in pages; source: SQLite's file format, 1.3.7
      for (const int shift : {24, 16, 8, 0}) file.put(static_cast<char>(pages >> shift & 0xff));
      ASSERT_TRUE(file.good());
    }
    std::filesystem::resize_file(database_, uint64_t{pages} * page_size());
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
  std::vector<format::PageDigest> SourceDigests() {
    capture::OnlineOptions options;
    options.path = database_;
    options.clock = &clock_;
    options.rollback_stall = std::chrono::seconds(60);
    auto source = capture::OpenOnlineSource(options);
    EXPECT_TRUE(source.ok()) << source.status();
    std::vector<format::PageDigest> digests;
    for (auto extent = (*source)->Next(); extent.ok() && extent->has_value(); extent = (*source)->Next())
      format::DigestPages((*source)->info().page_size, (*extent)->data, digests);
    return digests;
  }
  std::vector<format::PageDigest> RestoredDigests(const std::string& id) {
    auto reader = path_->readers->Open(SnapshotId(id), {});
    EXPECT_TRUE(reader.ok()) << reader.status();
    const uint32_t page_size = (*reader)->geometry().page_size;
    format::ChunkDecompressor decompressor;
    std::vector<format::PageDigest> digests;
    for (auto chunk = (*reader)->Next(); chunk.ok() && chunk->has_value(); chunk = (*reader)->Next()) {
      EXPECT_TRUE(restore::Unpack(**chunk, page_size, decompressor).ok());
      format::DigestPages(page_size, (*chunk)->raw, digests);
    }
    return digests;
  }
  // A device with pages of these digests gets what is different of the snapshot, and then has the wanted ones.
  void ExpectDeltaRestore(std::vector<format::PageDigest> local, const v1::Snapshot& snapshot,
                          const std::vector<format::PageDigest>& wanted) {
    local.resize(wanted.size(), format::DigestPage(Bytes(page_size())));  // a longer file begins as zeros
    std::string have;
    uint32_t different = 0;
    for (size_t i = 0; i < wanted.size(); ++i) {
      have += local[i].AsString().substr(0, restore::kHaveBytes);
      different += local[i] == wanted[i] ? 0 : 1;
    }
    const restore::WantedRun all[] = {{1, snapshot.page_count()}};
    auto reader = path_->readers->OpenDifferent(SnapshotId(snapshot.id()), all, have);
    ASSERT_TRUE(reader.ok()) << reader.status();
    format::ChunkDecompressor decompressor;
    uint32_t fetched = 0;
    for (;;) {
      auto chunk = (*reader)->Next();
      ASSERT_TRUE(chunk.ok()) << chunk.status();
      if (!chunk->has_value()) break;
      ASSERT_TRUE(restore::Unpack(**chunk, page_size(), decompressor).ok());
      std::vector<format::PageDigest> digests;
      format::DigestPages(page_size(), (*chunk)->raw, digests);
      if ((*chunk)->runs.empty()) (*chunk)->runs.push_back({(*chunk)->first_page, (*chunk)->page_count});
      auto next = digests.begin();
      for (const restore::WantedRun& run : (*chunk)->runs) {
        std::copy_n(next, run.page_count, local.begin() + (run.first_page - 1));
        next += run.page_count;
        fetched += run.page_count;
      }
      ASSERT_EQ(next, digests.end());
    }
    EXPECT_TRUE(local == wanted);
    EXPECT_LE(fetched, different);
  }
  v1::Snapshot BackedUp(const char* what) {
    const BackupOutcome outcome = Back();
    EXPECT_TRUE(outcome.status.ok()) << what << ": " << outcome.status;
    if (!outcome.status.ok()) return {};
    v1::Snapshot snapshot = Snapshot(outcome.snapshot_id);
    EXPECT_EQ(snapshot.page_size(), GetParam().page_size);
    std::vector<format::PageDigest> source = SourceDigests();
    EXPECT_EQ(snapshot.root_digest(), Root(page_size(), source)) << what;
    EXPECT_TRUE(RestoredDigests(outcome.snapshot_id) == source) << what;
    ExpectDeltaRestore(std::move(before_), snapshot, source);
    before_ = std::move(source);
    return snapshot;
  }
  // Of what a snapshot sent or has.
  static uint64_t Kib(uint64_t pages) { return pages * static_cast<uint64_t>(GetParam().page_size) / 1024; }

  std::vector<format::PageDigest> before_;  // of the last snapshot
};

TEST_P(LockBytePageTest, GoesThroughDeltas) {
  OpenSparse();
  const uint32_t lock_page = format::LockBytePage(page_size());
  EXPECT_LT(BackedUp("before it").page_count(), lock_page);
  // Over it: SQLite leaves it out.
  Sql("create table big (id integer primary key, v blob);"
      "with recursive n(i) as (values (1) union all select i + 1 from n where i < 12) insert into big (v) select randomblob(60000) from n");
  const v1::Snapshot grown = BackedUp("grown over it");
  EXPECT_GT(grown.page_count(), lock_page + 2);
  EXPECT_LT(Kib(grown.pages_sent()), 40u * 64);
  // What lies in it is not the database's: it counts as zeros, and changes nothing.
  Sql("pragma wal_checkpoint(truncate)");
  {
    std::fstream file(database_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(int64_t{lock_page - 1} * page_size());
    file << "astray";
    ASSERT_TRUE(file.good());
  }
  EXPECT_EQ(BackedUp("with something in it").root_digest(), grown.root_digest());
  Sql("update big set v = randomblob(60000) where id in (1, 2, 11)");
  EXPECT_LT(Kib(BackedUp("changed on both sides of it").pages_sent()), 10u * 64);
  // And back before it: pages that nobody uses go. A rollback journal would be a copy of all that goes, 1 GiB of zeros written out.
  if (journal_ != "wal") Sql("pragma journal_mode=off");
  Sql("vacuum");
  EXPECT_LT(Kib(BackedUp("shrunk").page_count()), 100u * 64);
}

INSTANTIATE_TEST_SUITE_P(Modes, LockBytePageTest,
                         testing::Values(Shape{65536, "wal", 0, "UTF-8"}, Shape{65536, "delete", 0, "UTF-8"},
                                         Shape{4096, "wal", 0, "UTF-8"}),
                         [](const auto& test) { return fmt::format("{}_{}", test.param.page_size, test.param.journal); });

}  // namespace
}  // namespace litefleet::upload
