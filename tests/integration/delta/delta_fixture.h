// A real database with a real ledger, backed up by the agent's pipeline into the controller's data path, for tests of histories.
#ifndef LITEFLEET_TESTS_INTEGRATION_DELTA_DELTA_FIXTURE_H_
#define LITEFLEET_TESTS_INTEGRATION_DELTA_DELTA_FIXTURE_H_

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string_view>
#include <unordered_set>

#include "agent/capture/online_source.h"
#include "agent/ledger/ledger.h"
#include "agent/upload/backup.h"
#include "common/io/file.h"
#include "fmt/format.h"
#include "tests/integration/delta/fetch_onto.h"
#include "tests/integration/delta/ingest_transport.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::upload {

// Of the environment.
inline unsigned Number(const char* name, unsigned otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

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
    WaitForStreams();  // those that were cancelled end in their own time
    IngestTest::TearDown();
  }
  std::string LedgerPath() const { return directory_ + "/ledgers/app.ledger"; }
  void OpenLedger() {
    auto ledger = ledger::Ledger::Open(LedgerPath(), ledger::LedgerIdentity(device_.value(), "app", database_));
    ASSERT_TRUE(ledger.ok()) << ledger.status();
    ledger_ = *std::move(ledger);
  }
  void OpenDatabase(const Shape& shape) {
    journal_ = shape.journal;
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
    switch (random() % 9) {
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
      case 6:
        if (seed % 4 != 0) return Sql("update t set k = k || '.' where id % 11 = 3");
        // Another page size and another auto_vacuum need a VACUUM, and no WAL.
        return Sql(fmt::format("pragma journal_mode=delete; pragma page_size={}; pragma auto_vacuum={}; vacuum; pragma journal_mode={}",
                               512 << (seed / 4 % 8), seed / 32 % 3, journal_));
      default:
        return Sql(
            fmt::format("with recursive n(i) as (values (1) union all select i + 1 from n where i < {}) insert into t (k, v) "
                        "select 'key ' || (i * {}), randomblob(20 + (i * {}) % 900) from n",
                        20 + seed % 400, number + 1, 7));
    }
  }

  // `offline_after`: as BackupJob's.
  BackupOutcome Back(bool full = false, std::chrono::milliseconds offline_after = {}) {
    BackupJob job;
    job.operation_id = NewSession();
    job.session_id = NewSession();
    job.database = "app";
    job.spool_file = directory_ + "/spool";
    job.ledger = ledger_.get();
    job.full = full;
    job.offline_after = offline_after;
    job.give_up_at = std::chrono::steady_clock::now() + give_up_after_;
    job.open = [this]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> { return OpenSource(); };
    BackupOptions options = Options();
    if (index_entries_ > 0) options.index_entries = index_entries_;
    if (max_runs_ > 0) options.attempt.max_runs = max_runs_;
    transport_->up = transport_->down = transport_->runs = 0;
    return RunBackup(job, options, *transport_, rate_, RealClock(), cancel_, [](const v1::Progress&) {});
  }
  absl::StatusOr<std::unique_ptr<capture::PageSource>> OpenSource() {
    capture::OnlineOptions options;
    options.path = database_;
    options.clock = &clock_;
    options.rollback_stall = std::chrono::seconds(60);
    return capture::OpenOnlineSource(options);
  }
  static BackupOptions Options() {
    BackupOptions options;
    options.backoff = {
        .first = std::chrono::milliseconds(1), .limit = std::chrono::milliseconds(5), .reset_after = std::chrono::milliseconds(1000)};
    return options;
  }
  void WaitForStreams() {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (path_->ingest->uploads() > 0 && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  // What SQLite has: the file, after SQLite has checkpointed a copy of it. Copied by another process, since a close() of the database's
  // file in this one drops SQLite's locks on it.
  Bytes Expected() {
    const std::string copy = directory_ + "/expected.db";
    for (const char* suffix : {"", "-wal"}) {
      std::filesystem::remove(copy + suffix);
      if (!std::filesystem::exists(database_ + suffix)) continue;
      EXPECT_EQ(std::system(fmt::format("cp '{}{}' '{}{}'", database_, suffix, copy, suffix).c_str()), 0);
    }
    sqlite3* db = nullptr;
    EXPECT_EQ(sqlite3_open(copy.c_str(), &db), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(db, "pragma synchronous=off; pragma wal_checkpoint(truncate)", nullptr, nullptr, nullptr), SQLITE_OK)
        << sqlite3_errmsg(db);
    EXPECT_EQ(sqlite3_close(db), SQLITE_OK);
    EXPECT_FALSE(std::filesystem::exists(copy + "-wal"));  // all of it is in the file
    std::ifstream file(copy, std::ios::binary);
    const std::string all{std::istreambuf_iterator<char>(file), {}};
    return {AsBytes(all).begin(), AsBytes(all).end()};
  }
  // Pages of `after` whose content `before` has nowhere: what any way of sending the one to who has the other has to send.
  static uint32_t New(const Bytes& before, const Bytes& after, size_t page_size) {
    std::unordered_set<std::string_view> known;
    const auto pages = [page_size](const Bytes& all, const auto& visit) {
      for (size_t at = 0; at < all.size(); at += page_size) visit(AsText(ByteView(all).subspan(at, std::min(page_size, all.size() - at))));
    };
    pages(before, [&](std::string_view page) { known.insert(page); });
    uint32_t count = 0;
    pages(after, [&](std::string_view page) { count += known.contains(page) ? 0 : 1; });
    return count;
  }
  v1::Snapshot Snapshot(const std::string& id) { return *path_->snapshots->Resolve(id); }

  // Changes and backups at random, with what goes wrong at random too; all snapshots are read back, and fetched over one another.
  void RandomHistory(const Shape& shape, unsigned seed, unsigned snapshots) {
    OpenDatabase(shape);
    std::minstd_rand random(seed);
    std::vector<std::pair<std::string, Bytes>> history;
    for (unsigned number = 0; number < snapshots; ++number) {
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
      const auto page_size = static_cast<size_t>(Snapshot(snapshot).page_size());
      for (size_t at = 0; at < content.size(); at += page_size) {
        different += at + page_size > other.size() || !std::equal(content.begin() + static_cast<std::ptrdiff_t>(at),
                                                                  content.begin() + static_cast<std::ptrdiff_t>(at + page_size),
                                                                  other.begin() + static_cast<std::ptrdiff_t>(at));
      }
      EXPECT_LE(FetchOnto(*path_, Snapshot(snapshot), other, content), different);
    }
  }

  std::string database_;
  std::string journal_;
  sqlite3* db_ = nullptr;
  std::unique_ptr<ledger::Ledger> ledger_;
  std::unique_ptr<fakes::IngestTransport> transport_;
  uint32_t index_entries_ = 0;               // of BackupOptions; 0: its own
  size_t max_runs_ = 0;                      // the same
  std::chrono::seconds give_up_after_{300};  // on a machine that does other things too
  RateLimit rate_{0};
  CancelToken cancel_;
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_TESTS_INTEGRATION_DELTA_DELTA_FIXTURE_H_
