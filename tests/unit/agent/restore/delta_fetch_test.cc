// Restores onto a device that has most of the snapshot already: what differs is fetched, and nothing is believed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <random>

#include "common/base/ids.h"
#include "tests/fakes/loop_mount.h"
#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

class DeltaFetchTest : public RestoreFixture {
 protected:
  // Target and snapshot are the same.
  void MakeBoth(const std::string& journal, int rows = 20000, int page_size = 4096) {
    MakeSnapshot(journal, rows, page_size);
    std::filesystem::copy_file(fetcher_.path, path_, std::filesystem::copy_options::overwrite_existing);
  }
  void Sql(const std::string& path, const std::string& sql) {
    auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE);
    ASSERT_TRUE(db.ok());
    const absl::Status done = sqlite::Execute(db->get(), sql);
    ASSERT_TRUE(done.ok()) << done;
  }
  void Overwrite(uint64_t offset, const std::string& bytes) {
    auto fd = io::Open(path_, O_RDWR);
    ASSERT_TRUE(io::PwriteAll(fd->get(), AsBytes(bytes), offset, path_).ok());
  }
  // Pages of the snapshot that the target's file does not have in their places.
  int Different() const {
    const std::string is = *io::ReadFile(path_, 1 << 30), wanted = *io::ReadFile(fetcher_.path, 1 << 30);
    int count = 0;
    for (size_t at = 0; at < wanted.size(); at += order_.page_size())
      count += at + order_.page_size() > is.size() || is.compare(at, order_.page_size(), wanted, at, order_.page_size()) != 0;
    return count;
  }
  std::string Next() { return NewUlid(SystemTime{} + std::chrono::seconds(++operations_)); }
  void ExpectRestored(const Outcome& outcome) {
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(LeftOver(), "");
    if (outcome.mode == v1::RESTORE_MODE_REPLACE) {
      EXPECT_EQ(*io::ReadFile(path_, 1 << 30), *io::ReadFile(fetcher_.path, 1 << 30));
    }
    EXPECT_EQ(Label(path_), "new");
  }

  int operations_ = 0;
};

TEST_F(DeltaFetchTest, OnlyPagesThatDifferAreFetched) {
  for (const char* journal : {"wal", "delete"}) {
    for (const v1::RestoreMode mode : {v1::RESTORE_MODE_LIVE, v1::RESTORE_MODE_REPLACE}) {
      MakeBoth(journal);
      order_.set_mode(mode);
      Sql(path_, "update t set v = 'changed' where id in (5, 9000, 17000); pragma wal_checkpoint(truncate)");
      const int different = Different();
      ASSERT_GT(different, 3);
      ASSERT_LT(different, 40);
      fetcher_.sent_pages = 0;
      const Outcome outcome = Run(Next());
      ExpectRestored(outcome);
      EXPECT_EQ(fetcher_.sent_pages, different) << journal << " " << mode;
      EXPECT_EQ(fetcher_.calls, 0);
      EXPECT_THAT(outcome.steps, Contains(HasSubstr(fmt::format("fetched {} of {} pages", different, order_.page_count()))));
      EXPECT_EQ(last_.changed_bytes(), int64_t{different} * 4096);
      EXPECT_GE(last_.read_bytes(), last_.total_bytes());
      std::filesystem::remove(path_);
    }
  }
}

TEST_F(DeltaFetchTest, WhatIsInTheLogAloneCounts) {
  Make(path_, "new", "wal", 20000);
  const sqlite::DatabaseHandle application = *sqlite::Open(path_, SQLITE_OPEN_READWRITE);
  ASSERT_TRUE(sqlite::Execute(application.get(), "pragma wal_autocheckpoint=0; update t set v = 'newer' where id % 100 = 3").ok());
  {
    const sqlite::DatabaseHandle copy = *sqlite::Open(fetcher_.path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    const sqlite::BackupHandle backup(sqlite3_backup_init(copy.get(), "main", application.get(), "main"));
    ASSERT_EQ(sqlite3_backup_step(backup.get(), -1), SQLITE_DONE);
  }
  Order();
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_LE(fetcher_.sent_pages, 1) << "page 1, which a copy rewrites";
}

TEST_F(DeltaFetchTest, ADamagedTargetGivesWhatIsLeftOfIt) {
  MakeBoth("delete");
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  Overwrite(0, std::string(100, 'x'));
  Overwrite(50 * 4096 + 7, "damage");
  ExpectRestored(Run());
  EXPECT_EQ(fetcher_.sent_pages, 2);
}

TEST_F(DeltaFetchTest, AShorterOrLongerTarget) {
  MakeBoth("delete");
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  const auto size = std::filesystem::file_size(path_);
  std::filesystem::resize_file(path_, size / 2 + 100);
  const int different = Different();
  ExpectRestored(Run());
  EXPECT_LE(fetcher_.sent_pages, different);
  std::filesystem::resize_file(path_, size + 1'000'000);
  fetcher_.sent_pages = 0;
  ExpectRestored(Run("01JD0000000000000000000002"));
  EXPECT_EQ(fetcher_.sent_pages, 0);
}

TEST_F(DeltaFetchTest, ATargetThatIsWrittenMeanwhile) {
  MakeBoth("wal");
  Sql(path_, "update t set v = 'changed' where id < 50");
  fetcher_.before_pages = [&] { Sql(path_, "update t set v = 'changed again' where id % 50 = 1"); };
  ExpectRestored(Run());
}

TEST_F(DeltaFetchTest, DigestsThatBeginAlikeCostTheExtentAndNothingElse) {
  MakeBoth("delete");
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  Overwrite(50 * 4096 + 7, "damage");
  fetcher_.collide = true;
  ExpectRestored(Run());
  EXPECT_EQ(fetcher_.sent_pages, 64);
  EXPECT_EQ(fetcher_.page_calls, 2);
}

TEST_F(DeltaFetchTest, OtherContentThanOrderedIsRefused) {
  MakeBoth("wal");
  Sql(path_, "update label set v = 'old'; update t set v = 'old' || v");
  fetcher_.spoil = true;
  EXPECT_EQ(ReasonOf(Run().status), "FETCH_INVALID");
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(LeftOver(), "");
  fetcher_.spoil = false;
  fetcher_.spoil_names = true;
  EXPECT_EQ(ReasonOf(Run("01JD0000000000000000000002").status), "ROOT_MISMATCH");
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(LeftOver(), "");
}

TEST_F(DeltaFetchTest, AnOlderControllerSendsEverything) {
  MakeBoth("wal");
  fetcher_.old_controller = true;
  ExpectRestored(Run());
  EXPECT_EQ(fetcher_.calls, 1);
  EXPECT_EQ(fetcher_.sent_pages, 0);
}

TEST_F(DeltaFetchTest, AnotherPageSizeSharesNothing) {
  MakeSnapshot("delete", 5000);
  Make(path_, "old", "delete", 5000, 1024);
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  ExpectRestored(Run());
  EXPECT_EQ(fetcher_.sent_pages, static_cast<int>(order_.page_count()));
}

TEST_F(DeltaFetchTest, CutsCostLittle) {
  MakeBoth("wal");
  Sql(path_, "update t set v = 'changed' where id % 40 = 0; pragma wal_checkpoint(truncate)");
  const int different = Different();
  fetcher_.cuts = 1;  // of the names
  fetcher_.before_pages = [&] {
    if (fetcher_.page_calls == 1) fetcher_.cuts = 2;
  };
  ExpectRestored(Run());
  EXPECT_EQ(fetcher_.name_calls, 2);
  EXPECT_GE(fetcher_.page_calls, 3);
  EXPECT_LE(fetcher_.sent_pages, different + 2 * 64);
}

TEST_F(DeltaFetchTest, ACrashAtAnyPointGoesOn) {
  MakeSnapshot("wal", 20000);
  for (const char* point : {"restore.staging_created", "restore.delta.named", "restore.delta.local", "restore.fetching",
                            "restore.fetching:30", "restore.staged", "restore.checked", "restore.live.before_lock"}) {
    MakeBoth("wal");
    Sql(path_, "update label set v = 'old'; update t set v = 'old' || substr(v, 4) where id % 300 = 1; pragma wal_checkpoint(truncate)");
    const int different = Different();
    std::filesystem::remove_all(folder_ + "/state");
    RunAndCrashAt(point);
    fetcher_.sent_pages = fetcher_.calls = 0;
    const Outcome outcome = Run();
    ExpectRestored(outcome);
    EXPECT_LE(fetcher_.sent_pages, different) << point;
    EXPECT_EQ(fetcher_.calls, 0) << point;
  }
}

TEST_F(DeltaFetchTest, RandomDamage) {
  std::minstd_rand random(7);
  for (const int page_size : {512, 4096, 65536}) {
    for (int round = 0; round < 4; ++round) {
      MakeBoth("delete", 4000, page_size);
      order_.set_mode(v1::RESTORE_MODE_REPLACE);
      const uint64_t size = std::filesystem::file_size(path_);
      for (unsigned i = random() % 20; i > 0; --i) Overwrite(random() % (size - 8), "garbage");
      if (round == 3) std::filesystem::resize_file(path_, random() % size);
      const int different = Different();
      fetcher_.sent_pages = 0;
      ExpectRestored(Run(Next()));
      EXPECT_LE(fetcher_.sent_pages, different + 1) << page_size << " " << round;
      std::filesystem::remove(path_);
    }
  }
}

// On a file system that can share blocks between files: a loop mount of XFS.
class SharedBlocksTest : public DeltaFetchTest {
 protected:
  void SetUp() override {
    DeltaFetchTest::SetUp();
    mount_.emplace(data_, kXfs);
    if (!mount_->mounted()) GTEST_SKIP() << mount_->why();
  }
  void TearDown() override {
    mount_.reset();
    DeltaFetchTest::TearDown();
  }
  // Pages that were not written, as the operation says.
  static int Shared(const Outcome& outcome) {
    int pages = 0;
    for (const std::string& step : outcome.steps) {
      if (step.find("share their blocks") != std::string::npos) pages = std::stoi(step);
    }
    return pages;
  }
  std::optional<LoopMount> mount_;
};

TEST_F(SharedBlocksTest, WhatIsUnchangedIsNotWritten) {
  for (const char* journal : {"wal", "delete"}) {
    for (const v1::RestoreMode mode : {v1::RESTORE_MODE_LIVE, v1::RESTORE_MODE_REPLACE}) {
      MakeBoth(journal);
      order_.set_mode(mode);
      Sql(path_, "update t set v = 'changed' where id in (5, 9000); pragma wal_checkpoint(truncate)");
      const int unchanged = static_cast<int>(order_.page_count()) - Different();
      const Outcome outcome = Run(Next());
      ExpectRestored(outcome);
      EXPECT_LE(Shared(outcome), unchanged) << journal << " " << mode;
      EXPECT_GE(Shared(outcome), unchanged - 64) << journal << " " << mode << ": all but an extent";
    }
  }
}

TEST_F(SharedBlocksTest, WhatIsInTheWalAloneIsWritten) {
  MakeBoth("wal");
  order_.set_mode(v1::RESTORE_MODE_LIVE);
  // The database's file has other pages than its readers see.
  auto db = sqlite::Open(path_, SQLITE_OPEN_READWRITE);
  ASSERT_TRUE(db.ok());
  ASSERT_TRUE(sqlite::Execute(db->get(), "pragma wal_autocheckpoint=0; update t set v = 'changed'").ok());
  ASSERT_TRUE(sqlite::Execute(db->get(), "update t set v = 'new' || hex(zeroblob(100)) || id").ok());
  ExpectRestored(Run(Next()));
}

}  // namespace
}  // namespace litefleet::restore
