// Backups of real databases with a real ledger, the agent's pipeline and the controller's data path: random histories in every geometry,
// each snapshot read back and compared with the database, and what travelled counted.
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "agent/capture/online_source.h"
#include "agent/ledger/ledger.h"
#include "agent/upload/backup.h"
#include "common/io/file.h"
#include "fmt/format.h"
#include "tests/integration/delta/ingest_transport.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::upload {
namespace {

struct Shape {
  int page_size = 4096;
  std::string journal = "wal";
  int auto_vacuum = 0;
  std::string encoding = "UTF-8";
};

class DeltaBackupTest : public ingest::IngestTest, public testing::WithParamInterface<Shape> {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    Open();
    database_ = directory_ + "/app.db";
    std::filesystem::create_directories(directory_ + "/ledgers");
    OpenLedger();
    transport_ = std::make_unique<fakes::IngestTransport>(*path_->ingest, device_);
  }
  void TearDown() override {
    sqlite3_close(db_);
    // Streams that were cancelled end in their own time.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (path_->ingest->uploads() > 0 && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    IngestTest::TearDown();
  }
  std::string LedgerPath() const { return directory_ + "/ledgers/app.ledger"; }
  void OpenLedger() {
    auto ledger = ledger::Ledger::Open(LedgerPath(), ledger::LedgerIdentity(device_.value(), "app", database_));
    ASSERT_TRUE(ledger.ok()) << ledger.status();
    ledger_ = *std::move(ledger);
  }
  void OpenDatabase(const Shape& shape) {
    ASSERT_EQ(sqlite3_open(database_.c_str(), &db_), SQLITE_OK);
    Sql(fmt::format("pragma page_size={}; pragma auto_vacuum={}; pragma encoding='{}'; pragma journal_mode={}; pragma synchronous=off;",
                    shape.page_size, shape.auto_vacuum, shape.encoding, shape.journal));
    Sql("create table t (id integer primary key, k text, v blob); create index i on t (k);"
        "create table w (a text, b text, primary key (a, b)) without rowid;"
        "create virtual table f using fts5 (body); create virtual table r using rtree (id, x0, x1, y0, y1)");
  }
  void Sql(const std::string& sql) {
    char* error = nullptr;
    const int rc = sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, &error);
    ASSERT_EQ(rc, SQLITE_OK) << sql.substr(0, 200) << ": " << (error ? error : "");
    sqlite3_free(error);
  }
  void Step(unsigned number, std::minstd_rand& random) {
    const unsigned seed = random();
    switch (random() % 8) {
      case 0:
        return Sql(fmt::format("delete from t where id % 17 = {}", seed % 17));
      case 1:
        return Sql("vacuum");
      case 2:
        return Sql(fmt::format(
            "update t set v = randomblob(length(v)) where id in (select abs(random()) % (select max(id) from t) from t limit {})",
            seed % 30));
      case 3:
        return Sql(
            fmt::format("insert or replace into w values ('x{}', 'y{}'); insert into f values ('some words {} here'); insert or "
                        "replace into r values ({}, 1, 2, 3, 4)",
                        seed % 500, seed, seed, seed % 1000));
      case 4:
        return Sql(fmt::format("delete from t where id > (select max(id) - {} from t)", seed % 300));
      case 5:
        return Sql("pragma incremental_vacuum(20); pragma wal_checkpoint(passive)");
      default:
        return Sql(
            fmt::format("with recursive n(i) as (values (1) union all select i + 1 from n where i < {}) insert into t (k, v) "
                        "select 'key ' || (i * {}), randomblob(20 + (i * {}) % 900) from n",
                        20 + seed % 400, number + 1, 7));
    }
  }

  BackupOutcome Back(bool full = false) {
    BackupJob job;
    job.operation_id = NewSession();
    job.session_id = NewSession();
    job.database = "app";
    job.spool_file = directory_ + "/spool";
    job.ledger = ledger_.get();
    job.full = full;
    job.give_up_at = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    job.open = [this]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> {
      capture::OnlineOptions options;
      options.path = database_;
      options.clock = &clock_;
      options.rollback_stall = std::chrono::seconds(60);
      return capture::OpenOnlineSource(options);
    };
    BackupOptions options;
    options.backoff = {
        .first = std::chrono::milliseconds(1), .limit = std::chrono::milliseconds(5), .reset_after = std::chrono::milliseconds(1000)};
    transport_->up = transport_->down = 0;
    return RunBackup(job, options, *transport_, rate_, RealClock(), cancel_, [](const v1::Progress&) {});
  }
  // What SQLite has: the pages by its own backup API, in order.
  Bytes Expected() {
    capture::OnlineOptions options;
    options.path = database_;
    options.clock = &clock_;
    options.rollback_stall = std::chrono::seconds(60);
    auto source = capture::OpenOnlineSource(options);
    EXPECT_TRUE(source.ok()) << source.status();
    Bytes all;
    for (;;) {
      auto extent = (*source)->Next();
      EXPECT_TRUE(extent.ok()) << extent.status();
      if (!extent.ok() || !extent->has_value()) return all;
      all.insert(all.end(), (*extent)->data.begin(), (*extent)->data.end());
    }
  }
  v1::Snapshot Snapshot(const std::string& id) { return *path_->snapshots->Resolve(id); }

  // What a device that has `local` gets of a snapshot: the names of its extents, and pages that differ. Their number.
  uint32_t FetchOnto(const std::string& id, Bytes local, const Bytes& wanted) {
    const v1::Snapshot snapshot = Snapshot(id);
    auto names = path_->readers->OpenNames(SnapshotId(id));
    EXPECT_TRUE(names.ok()) << names.status();
    format::RootBuilder root(snapshot.page_size(), snapshot.page_count());
    for (;;) {
      const auto some = (*names)->Next();
      EXPECT_TRUE(some.ok()) << some.status();
      if (!some.ok() || some->empty()) break;
      for (const format::ChunkName& name : *some) root.Add(name);
    }
    EXPECT_EQ(root.Finish().AsString(), snapshot.root_digest());

    local.resize(wanted.size());
    std::vector<format::PageDigest> digests;
    format::DigestPages(snapshot.page_size(), local, digests);
    std::string have;
    for (const format::PageDigest& digest : digests) have += digest.AsString().substr(0, restore::kHaveBytes);
    const restore::WantedRun all[] = {{1, snapshot.page_count()}};
    auto reader = path_->readers->OpenDifferent(SnapshotId(id), all, have);
    EXPECT_TRUE(reader.ok()) << reader.status();
    uint32_t pages = 0;
    uint32_t last = 0;
    for (;;) {
      auto chunk = (*reader)->Next();
      EXPECT_TRUE(chunk.ok()) << chunk.status();
      if (!chunk.ok() || !chunk->has_value()) break;
      format::ChunkCompressor compressor(3);
      EXPECT_TRUE(restore::Pack(**chunk, compressor).ok());
      Bytes raw;
      EXPECT_TRUE(format::ChunkDecompressor()
                      .Open((*chunk)->codec, AsBytes((*chunk)->data), (*chunk)->raw_bytes, snapshot.page_size(), (*chunk)->name, raw)
                      .ok());
      if ((*chunk)->runs.empty()) (*chunk)->runs.push_back({(*chunk)->first_page, (*chunk)->page_count});
      size_t at = 0;
      for (const restore::WantedRun& run : (*chunk)->runs) {
        EXPECT_GT(run.first_page, last);
        last = run.first_page + run.page_count - 1;
        pages += run.page_count;
        const size_t size = size_t{run.page_count} * snapshot.page_size();
        std::copy_n(raw.begin() + static_cast<std::ptrdiff_t>(at), size,
                    local.begin() + static_cast<std::ptrdiff_t>(size_t{run.first_page - 1} * snapshot.page_size()));
        at += size;
      }
    }
    EXPECT_TRUE(local == wanted);
    return pages;
  }

  std::string database_;
  sqlite3* db_ = nullptr;
  std::unique_ptr<ledger::Ledger> ledger_;
  std::unique_ptr<fakes::IngestTransport> transport_;
  RateLimit rate_{0};
  CancelToken cancel_;
};

TEST_P(DeltaBackupTest, RandomHistories) {
  OpenDatabase(GetParam());
  std::minstd_rand random(static_cast<unsigned>(GetParam().page_size + GetParam().auto_vacuum));
  std::vector<std::pair<std::string, Bytes>> history;
  for (unsigned number = 0; number < 25; ++number) {
    for (unsigned steps = 1 + random() % 3; steps > 0; --steps) Step(number, random);
    if (random() % 6 == 0) OpenLedger();  // a restart of the agent
    if (random() % 9 == 0) {              // lost
      ASSERT_TRUE(ledger_->Remove().ok());
    }
    if (random() % 7 == 0) transport_->cut_after = static_cast<int64_t>(random() % 40'000);  // a cut link
    const BackupOutcome outcome = Back(random() % 10 == 0);
    ASSERT_TRUE(outcome.status.ok()) << number << ": " << outcome.status;
    transport_->cut_after = INT64_MAX;
    Bytes expected = Expected();
    const auto stored = path_->ReadBack(outcome.snapshot_id);
    ASSERT_TRUE(stored.ok()) << stored.status();
    ASSERT_TRUE(*stored == expected) << number;
    EXPECT_EQ(ledger_->state()->snapshot_id, outcome.snapshot_id);
    EXPECT_EQ(std::string(ledger_->state()->root.AsString()), Snapshot(outcome.snapshot_id).root_digest());
    history.emplace_back(outcome.snapshot_id, std::move(expected));
  }
  for (size_t i = 0; i < history.size(); ++i) {
    const auto& [snapshot, content] = history[i];
    EXPECT_TRUE(*path_->ReadBack(snapshot) == content);
    // A device that has some other state of it.
    const Bytes& other = history[random() % history.size()].second;
    uint32_t different = 0;
    const auto page_size = static_cast<size_t>(GetParam().page_size);
    for (size_t at = 0; at < content.size(); at += page_size) {
      different += at + page_size > other.size() || !std::equal(content.begin() + static_cast<std::ptrdiff_t>(at),
                                                                content.begin() + static_cast<std::ptrdiff_t>(at + page_size),
                                                                other.begin() + static_cast<std::ptrdiff_t>(at));
    }
    EXPECT_LE(FetchOnto(snapshot, other, content), different);
  }
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

}  // namespace
}  // namespace litefleet::upload
