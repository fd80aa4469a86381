#include "controller/catalog/catalog_db.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "common/base/status.h"
#include "tests/fakes/counted_syncs.h"
#include "tests/fakes/faulty_vfs.h"

namespace litefleet::catalog {
namespace {

const std::vector<Migration> kOne = {Migration{"create table t(x integer primary key) strict"}};

class CatalogDbTest : public testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/litefleet-catalog-XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    directory_ = pattern;
    path_ = directory_ + "/catalog.db";
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  static absl::Status Insert(CatalogDb& db, int64_t x) {
    return db.Write([x](sqlite3* raw) -> absl::Status {
      LF_ASSIGN_OR_RETURN(auto insert, sqlite::Statement::Prepare(raw, "insert into t values(?)"));
      return insert.Bind(1, x).Run();
    });
  }
  static absl::Status Insert(CatalogDb& db, int64_t x, Durability durability) {
    return db.Write(
        [x](sqlite::Connection raw) -> absl::Status {
          LF_ASSIGN_OR_RETURN(auto statement, sqlite::Statement::Prepare(raw, "insert into t values(?)"));
          return statement.Bind(1, x).Run();
        },
        durability);
  }
  static int64_t Count(const CatalogDb& db) {
    int64_t count = -1;
    EXPECT_TRUE(db.Read([&count](sqlite3* raw) -> absl::Status {
                    LF_ASSIGN_OR_RETURN(count, sqlite::QueryInt(raw, "select count(*) from t"));
                    return absl::OkStatus();
                  }).ok());
    return count;
  }

  std::string directory_;
  std::string path_;
};

TEST_F(CatalogDbTest, MissingIsAnErrorWithAWayOut) {
  const auto db = CatalogDb::Open(path_, false, kOne);
  EXPECT_EQ(ReasonOf(db.status()), "CATALOG_NOT_FOUND");
  EXPECT_NE(HintOf(db.status()), "");
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(CatalogDbTest, AFailedChangeLeavesTheOthers) {
  auto db = CatalogDb::Open(path_, true, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  std::atomic<int> good{0}, bad{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        ++(Insert(**db, t * 50 + i).ok() ? good : bad);
        ++(Insert(**db, 0).ok() ? good : bad);  // taken already, or the first of all
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, Count(**db));
  EXPECT_EQ(good + bad, 800);
  EXPECT_EQ(good, 400);
}

TEST_F(CatalogDbTest, WhatAFailedChangeDidIsUndone) {
  auto db = CatalogDb::Open(path_, true, kOne);
  ASSERT_TRUE(db.ok());
  const absl::Status status = (*db)->Write([](sqlite3* raw) -> absl::Status {
    LF_RETURN_IF_ERROR(sqlite::Execute(raw, "insert into t values(1)"));
    return absl::AbortedError("no");
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(Count(**db), 0);
}

TEST_F(CatalogDbTest, ReadersCannotWrite) {
  auto db = CatalogDb::Open(path_, true, kOne);
  ASSERT_TRUE(db.ok());
  EXPECT_FALSE((*db)->Read([](sqlite3* raw) { return sqlite::Execute(raw, "insert into t values(1)"); }).ok());
  EXPECT_EQ(Count(**db), 0);
}

TEST_F(CatalogDbTest, MigratesForwardOnly) {
  {
    ASSERT_TRUE(CatalogDb::Open(path_, true, kOne).ok());
    std::vector<Migration> bad = kOne;
    bad.push_back({"create table u(y) strict", "syntax error"});
    EXPECT_FALSE(CatalogDb::Open(path_, false, bad).ok());
  }
  std::vector<Migration> two = kOne;
  two.push_back({"create table u(y integer) strict"});
  ASSERT_TRUE(CatalogDb::Open(path_, false, two).ok());
  EXPECT_EQ(ReasonOf(CatalogDb::Open(path_, false, kOne).status()), "CATALOG_TOO_NEW");
}

TEST_F(CatalogDbTest, WhatWasAnsweredSurvivesAKill) {
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  const pid_t child = fork();
  if (child == 0) {
    auto db = CatalogDb::Open(path_, true, kOne);
    if (!db.ok()) _exit(1);
    for (int64_t i = 1;; ++i) {
      if (!Insert(**db, i).ok()) _exit(2);
      if (write(pipe_fds[1], &i, sizeof i) != sizeof i) _exit(3);
    }
  }
  close(pipe_fds[1]);
  int64_t last = 0;
  while (last < 50 && read(pipe_fds[0], &last, sizeof last) == sizeof last) {}
  kill(child, SIGKILL);
  int64_t more = 0;
  while (read(pipe_fds[0], &more, sizeof more) == sizeof more) last = more;
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  auto db = CatalogDb::Open(path_, false, kOne);
  ASSERT_TRUE(db.ok());
  EXPECT_GE(Count(**db), last);
  EXPECT_LE(Count(**db), last + 1);
}

TEST_F(CatalogDbTest, RelaxedChangesAreNotSyncedUntilADurableOneIs) {
  const fakes::CountedSyncs counted;
  auto db = CatalogDb::Open(path_, true, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  ASSERT_TRUE(Insert(**db, 0, Durability::kDurable).ok());
  int before = fakes::CountedSyncs::Count();
  for (int64_t x = 1; x <= 20; ++x) ASSERT_TRUE(Insert(**db, x, Durability::kRelaxed).ok());
  EXPECT_EQ(fakes::CountedSyncs::Count(), before);
  EXPECT_EQ(Count(**db), 21) << "everybody sees it";
  for (int64_t x = 21; x <= 25; ++x) {
    before = fakes::CountedSyncs::Count();
    ASSERT_TRUE(Insert(**db, x, Durability::kDurable).ok());
    EXPECT_GT(fakes::CountedSyncs::Count(), before) << "durable again after relaxed ones";
    ASSERT_TRUE(Insert(**db, -x, Durability::kRelaxed).ok());
  }
  EXPECT_EQ(Count(**db), 31);
}

// Each thread waits for its commit before the next one, so that a sync is shared by those that came during the one before it.
TEST_F(CatalogDbTest, CommitsOfManyThreadsShareSyncs) {
  std::atomic<int> syncs{0};
  fakes::FaultyVfs disk("/catalog.db", [&](fakes::FileCall call) {
    if (call == fakes::FileCall::kSync) {
      ++syncs;
      usleep(2000);  // what a disk takes
    }
    return fakes::FileFault::kNone;
  });
  auto db = CatalogDb::Open(path_, true, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  ASSERT_TRUE(Insert(**db, -1).ok());
  syncs = 0;
  for (int64_t x = 0; x < 10; ++x) ASSERT_TRUE(Insert(**db, x).ok());
  EXPECT_EQ(syncs, 10) << "one by one there is nothing to share";
  constexpr int kThreads = 16;
  constexpr int kEach = 40;
  syncs = 0;
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (int t = 1; t <= kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int64_t i = 0; i < kEach; ++i) failed += Insert(**db, t * 1000 + i).ok() ? 0 : 1;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(failed, 0);
  EXPECT_LE(syncs * 4, kThreads * kEach);
  EXPECT_GE(syncs, kEach) << "every commit waits for one that begins after it";
  disk.Cut();
  db->reset();
  disk.Forget();
  db = CatalogDb::Open(path_, false, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  EXPECT_EQ(Count(**db), 11 + kThreads * kEach) << "and all were durable";
}

TEST_F(CatalogDbTest, APowerCutTakesRelaxedChangesAndNothingBeforeThem) {
  fakes::FaultyVfs disk("/catalog.db");
  auto db = CatalogDb::Open(path_, true, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  const auto cut = [&] {
    disk.Cut();
    db->reset();
    disk.Forget();
    db = CatalogDb::Open(path_, false, kOne);
    ASSERT_TRUE(db.ok()) << db.status();
  };
  for (int64_t x = 0; x < 3; ++x) ASSERT_TRUE(Insert(**db, x, Durability::kDurable).ok());
  for (int64_t x = 3; x < 5; ++x) ASSERT_TRUE(Insert(**db, x, Durability::kRelaxed).ok());
  EXPECT_EQ(Count(**db), 5);
  cut();
  EXPECT_EQ(Count(**db), 3);
  ASSERT_TRUE(Insert(**db, 5, Durability::kRelaxed).ok() && Insert(**db, 6, Durability::kDurable).ok());
  cut();
  EXPECT_EQ(Count(**db), 5) << "what is durable makes durable what was before it";
}

// The kernel tells of a failed sync once, and what it should have covered is then taken for written.
TEST_F(CatalogDbTest, NothingThatIsAnsweredStandsBehindWhatAFailedSyncLost) {
  std::atomic<int> fail{0};
  fakes::FaultyVfs disk("/catalog.db", [&](fakes::FileCall call) {
    return call == fakes::FileCall::kSync && fail > 0 && --fail == 0 ? fakes::FileFault::kIo : fakes::FileFault::kNone;
  });
  auto db = CatalogDb::Open(path_, true, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  const auto expect_after_a_cut = [&](int64_t count) {
    disk.Cut();
    db->reset();
    disk.Forget();
    db = CatalogDb::Open(path_, false, kOne);
    ASSERT_TRUE(db.ok()) << db.status();
    EXPECT_EQ(Count(**db), count);
    EXPECT_TRUE((*db)->CheckIntegrity().value().empty());
  };
  ASSERT_TRUE(Insert(**db, 0, Durability::kRelaxed).ok());
  fail = 1;
  EXPECT_EQ(ReasonOf(Insert(**db, 1, Durability::kDurable)), "IO_ERROR");
  ASSERT_TRUE(Insert(**db, 2, Durability::kDurable).ok());
  expect_after_a_cut(2);
  // The sync of an automatic checkpoint, of which no change is told.
  fail = 1;
  for (int64_t x = 3; x < 4500; ++x) ASSERT_TRUE(Insert(**db, x, Durability::kRelaxed).ok());
  EXPECT_EQ(fail, 0);
  ASSERT_TRUE(Insert(**db, 4500, Durability::kDurable).ok());
  expect_after_a_cut(4500);
  // With the end of the program close by.
  ASSERT_TRUE(Insert(**db, 4501, Durability::kRelaxed).ok());
  fail = 1;
  EXPECT_FALSE(Insert(**db, 4502, Durability::kDurable).ok());
  db->reset();
  disk.Forget();
  db = CatalogDb::Open(path_, false, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  EXPECT_EQ(Count(**db), 4501);
}

// A checkpoint that a reader keeps from going to the end copies pages and does not sync them. No later one copies them again.
TEST_F(CatalogDbTest, WhatAPartialCheckpointCopiedOutlivesAFailedSync) {
  std::atomic<int> fail{0};
  fakes::FaultyVfs disk("/catalog.db", [&](fakes::FileCall call) {
    return call == fakes::FileCall::kSync && fail > 0 && --fail == 0 ? fakes::FileFault::kIo : fakes::FileFault::kNone;
  });
  auto db = CatalogDb::Open(path_, true, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  int64_t x = 0;
  const auto insert = [&](int many) {
    for (const int64_t end = x + many; x < end; ++x) ASSERT_TRUE(Insert(**db, x, Durability::kRelaxed).ok()) << x;
  };
  insert(2500);
  ASSERT_TRUE((*db)
                  ->Read([&](sqlite3* raw) -> absl::Status {
                    LF_RETURN_IF_ERROR(sqlite::QueryInt(raw, "select count(*) from t").status());
                    insert(2500);  // past the first checkpoint
                    return absl::OkStatus();
                  })
                  .ok());
  fail = 2;   // of the next checkpoint: first the WAL is synced, then the database
  insert(2);  // the second waits for what comes after the first
  EXPECT_EQ(fail, 0);
  insert(5000);  // the WAL begins anew
  ASSERT_TRUE(Insert(**db, x++, Durability::kDurable).ok());
  disk.Cut();
  db->reset();
  disk.Forget();
  db = CatalogDb::Open(path_, false, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  EXPECT_TRUE((*db)->CheckIntegrity().value().empty());
  EXPECT_EQ(Count(**db), x);
}

// The end of the program leaves the page cache as it is: the next start finds what no disk has.
TEST_F(CatalogDbTest, WhatAFailedSyncLostIsWrittenAgainByTheNextStart) {
  std::atomic<bool> fail{false};
  fakes::FaultyVfs disk("/catalog.db", [&](fakes::FileCall call) {
    return call == fakes::FileCall::kSync && fail ? fakes::FileFault::kIo : fakes::FileFault::kNone;
  });
  auto db = CatalogDb::Open(path_, true, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  ASSERT_TRUE(Insert(**db, 1, Durability::kDurable).ok());
  ASSERT_TRUE(Insert(**db, 2, Durability::kRelaxed).ok());
  fail = true;
  EXPECT_EQ(ReasonOf(Insert(**db, 3, Durability::kDurable)), "IO_ERROR");
  EXPECT_EQ(ReasonOf(Insert(**db, 4, Durability::kDurable)), "IO_ERROR");
  db->reset();
  fail = false;
  db = CatalogDb::Open(path_, false, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  ASSERT_TRUE(Insert(**db, 5, Durability::kDurable).ok());
  const int64_t there = Count(**db);
  EXPECT_GE(there, 3);
  disk.Cut();
  db->reset();
  disk.Forget();
  db = CatalogDb::Open(path_, false, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  EXPECT_EQ(Count(**db), there);
  EXPECT_TRUE((*db)->CheckIntegrity().value().empty());
}

// A command beside a server has no reason to write its WAL again, and the server's commits would wait for that.
TEST_F(CatalogDbTest, WhoIsNotAloneWritesNothingAnew) {
  std::atomic<int> writes{0};
  fakes::FaultyVfs disk("/catalog.db", [&](fakes::FileCall call) {
    writes += call == fakes::FileCall::kWrite ? 1 : 0;
    return fakes::FileFault::kNone;
  });
  auto server = CatalogDb::Open(path_, true, kOne);
  ASSERT_TRUE(server.ok()) << server.status();
  for (int64_t x = 0; x < 100; ++x) ASSERT_TRUE(Insert(**server, x, Durability::kDurable).ok());
  writes = 0;
  auto beside = CatalogDb::Open(path_, false, kOne, /*alone=*/false);
  ASSERT_TRUE(beside.ok()) << beside.status();
  EXPECT_EQ(writes, 0);
  ASSERT_TRUE(Insert(**beside, 100, Durability::kDurable).ok());
  EXPECT_EQ(Count(**server), 101);
  beside->reset();
  writes = 0;
  beside = CatalogDb::Open(path_, false, kOne);
  ASSERT_TRUE(beside.ok()) << beside.status();
  EXPECT_GT(writes, 100) << "all of the WAL";
}

TEST_F(CatalogDbTest, NothingIsWrittenBehindWhatIsGoneFromTheCacheToo) {
  std::atomic<int> fail{0};
  fakes::FaultyVfs disk("/catalog.db", [&](fakes::FileCall call) {
    return call == fakes::FileCall::kSync && fail > 0 && --fail == 0 ? fakes::FileFault::kIo : fakes::FileFault::kNone;
  });
  disk.EvictWhatIsLost();
  auto db = CatalogDb::Open(path_, true, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  ASSERT_TRUE(Insert(**db, 1, Durability::kDurable).ok());
  ASSERT_TRUE(Insert(**db, 2, Durability::kRelaxed).ok());
  fail = 1;
  EXPECT_EQ(ReasonOf(Insert(**db, 3, Durability::kDurable)), "IO_ERROR");
  for (int64_t x = 4; x < 6; ++x) {
    const absl::Status refused = Insert(**db, x, Durability::kDurable);
    EXPECT_EQ(ReasonOf(refused), "CATALOG_DAMAGED") << refused;
    EXPECT_NE(HintOf(refused), "");
  }
  db->reset();
  db = CatalogDb::Open(path_, false, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  EXPECT_EQ(Count(**db), 1) << "what was durable";
  ASSERT_TRUE(Insert(**db, 6, Durability::kDurable).ok());
  disk.Cut();
  db->reset();
  disk.Forget();
  db = CatalogDb::Open(path_, false, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  EXPECT_EQ(Count(**db), 2);
}

TEST_F(CatalogDbTest, ADurableChangeThatChangesNothingMakesDurableWhatWasBeforeIt) {
  fakes::FaultyVfs disk("/catalog.db");
  auto db = CatalogDb::Open(path_, true, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  ASSERT_TRUE(Insert(**db, 1, Durability::kRelaxed).ok());
  ASSERT_TRUE((*db)->Write([](sqlite3* raw) { return sqlite::Execute(raw, "delete from t where x = 7"); }).ok());
  disk.Cut();
  db->reset();
  disk.Forget();
  db = CatalogDb::Open(path_, false, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  EXPECT_EQ(Count(**db), 1);
}

TEST_F(CatalogDbTest, KeepsStatementsAndGivesEachUserHisOwn) {
  auto db = CatalogDb::Open(path_, true, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  const auto use = [&](sqlite::Connection raw) -> absl::Status {
    LF_ASSIGN_OR_RETURN(auto a, sqlite::Statement::Prepare(raw, "select x from t where x >= ? order by x"));
    LF_ASSIGN_OR_RETURN(auto b, sqlite::Statement::Prepare(raw, "select x from t where x >= ? order by x"));
    LF_ASSIGN_OR_RETURN(const bool in_a, a.Bind(1, int64_t{1}).Step());
    LF_ASSIGN_OR_RETURN(const bool in_b, b.Bind(1, int64_t{2}).Step());
    EXPECT_TRUE(in_a && in_b);
    EXPECT_EQ(a.Int(0), 1);
    EXPECT_EQ(b.Int(0), 2);
    return absl::OkStatus();  // both are left in the middle of their rows
  };
  ASSERT_TRUE(Insert(**db, 1).ok());
  ASSERT_TRUE(Insert(**db, 2).ok());
  int prepared[2] = {};
  for (int& count : prepared) {
    ASSERT_TRUE((*db)->Read(use).ok());
    ASSERT_TRUE((*db)
                    ->Read([&](sqlite::Connection raw) -> absl::Status {
                      for (sqlite3_stmt* each = sqlite3_next_stmt(raw, nullptr); each != nullptr; each = sqlite3_next_stmt(raw, each))
                        ++count;
                      // What was bound before is gone, and so are the rows.
                      LF_ASSIGN_OR_RETURN(auto unbound, sqlite::Statement::Prepare(raw, "select x from t where x >= ? order by x"));
                      LF_ASSIGN_OR_RETURN(const bool row, unbound.Step());
                      EXPECT_FALSE(row);
                      return absl::OkStatus();
                    })
                    .ok());
  }
  EXPECT_EQ(prepared[0], prepared[1]) << "prepared again";
}

TEST_F(CatalogDbTest, WhatIsPostedIsDoneInItsTurnAndIsNotLostByAnEnd) {
  auto db = CatalogDb::Open(path_, true, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  const auto post = [&](int64_t x) {
    (*db)->Post([x](sqlite::Connection raw) -> absl::Status {
      LF_ASSIGN_OR_RETURN(auto insert, sqlite::Statement::Prepare(raw, "insert into t values(?)"));
      return insert.Bind(1, x).Run();
    });
  };
  // More than may wait, and some that fail.
  for (int64_t x = 0; x < 3000; ++x) post(x % 2800);
  ASSERT_TRUE(Insert(**db, 2900).ok());
  EXPECT_EQ(Count(**db), 2801) << "a change that waits comes after those that were posted before it";
  for (int64_t x = 3000; x < 3500; ++x) post(x);
  db->reset();
  db = CatalogDb::Open(path_, false, kOne);
  ASSERT_TRUE(db.ok()) << db.status();
  EXPECT_EQ(Count(**db), 3301);
}

TEST(StatementCacheTest, IsBounded) {
  auto db = sqlite::Open(":memory:", SQLITE_OPEN_READWRITE);
  ASSERT_TRUE(db.ok());
  sqlite::StatementCache cache;
  for (size_t i = 0; i < sqlite::StatementCache::kMaxKept * 2; ++i) {
    auto statement = sqlite::Statement::Prepare({db->get(), &cache}, "select " + std::to_string(i));
    ASSERT_TRUE(statement.ok()) << statement.status();
    ASSERT_TRUE(statement->Step().ok());
  }
  size_t kept = 0;
  for (sqlite3_stmt* each = sqlite3_next_stmt(db->get(), nullptr); each != nullptr; each = sqlite3_next_stmt(db->get(), each)) ++kept;
  EXPECT_EQ(kept, sqlite::StatementCache::kMaxKept);
}

}  // namespace
}  // namespace litefleet::catalog
