// The method file: the same pages as online, from a copy under locks that are held for a moment, by shared blocks and by bytes.
#include "agent/capture/file_source.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "agent/capture/user_database.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"
#include "tests/unit/agent/capture/file_source_fixture.h"

namespace litefleet::capture {
namespace {

using ::testing::HasSubstr;
using Way = FileCopy::Way;

TEST_P(FileSourceTest, HasThePagesOfOnline) {
  for (const char* mode : {"delete", "truncate", "persist", "wal"}) {
    for (const int page_size : {512, 4096, 65536}) {
      SCOPED_TRACE(fmt::format("{} {}", mode, page_size));
      std::filesystem::remove(path_ + "-journal");
      std::filesystem::remove(path_);
      Sql(path_, fmt::format("pragma page_size={}; pragma journal_mode={}; {}; delete from t where id % 7 = 0", page_size, mode, kRows));
      const Copy online = Backup(path_);
      const bool wal = mode == std::string("wal");
      const Copy copy = Take(wal ? Way::kCold : Way::kRollback);
      ASSERT_TRUE(copy.status.ok()) << copy.status;
      EXPECT_TRUE(copy.bytes == online.bytes);
      EXPECT_EQ(copy.info.wal, online.info.wal);
      EXPECT_EQ(copy.info.page_size, online.info.page_size);
      EXPECT_EQ(copy.damage, "");
      EXPECT_TRUE(copy.info.detached);
    }
  }
}

TEST_P(FileSourceTest, HasThePagesOfOnlineBesideAnIdleApplication) {
  for (const char* mode : {"delete", "truncate", "persist", "wal"}) {
    SCOPED_TRACE(mode);
    for (const char* suffix : {"-journal", "-wal", "-shm", ""}) std::filesystem::remove(path_ + suffix);
    Child application([&](const auto& ready, const auto& stop) {
      Connection db(path_);
      db.Run(fmt::format("pragma journal_mode={}; pragma wal_autocheckpoint=0; {}; update t set x = 'new' where id % 5 = 0", mode, kRows));
      ready();
      while (!stop()) usleep(1000);
      return 0;
    });
    const Copy copy = Take(mode == std::string("wal") ? Way::kPinned : Way::kRollback);
    const Copy online = Backup(path_);
    ASSERT_TRUE(copy.status.ok()) << copy.status;
    EXPECT_TRUE(copy.bytes == online.bytes);
    EXPECT_EQ(Check(copy.bytes), "ok");
    EXPECT_EQ(application.Stop(), 0);
  }
}

TEST_P(FileSourceTest, EmptyAndOddlyNamedFiles) {
  path_ = place_ + "/-x ?&%41 ü.db";
  std::ofstream(path_).flush();
  Copy copy = Take(Way::kRollback);
  ASSERT_TRUE(copy.status.ok()) << copy.status;
  EXPECT_EQ(copy.info.page_count, 0u);
  Sql(path_, kRows);
  const std::string link = place_ + "/link";
  std::filesystem::create_symlink(path_, link);
  const Bytes bytes = FileBytes(path_);
  path_ = link;
  copy = Take(Way::kRollback);
  ASSERT_TRUE(copy.status.ok()) << copy.status;
  EXPECT_TRUE(copy.bytes == bytes);
}

// A writer that has a journal but has not got to the database yet.
TEST_P(FileSourceTest, AWriterBeforeItsCommitIsNotWaitedForNorSeen) {
  Sql(path_, kRows);
  const Bytes before = FileBytes(path_);
  Child application([&](const auto& ready, const auto& stop) {
    Connection db(path_);
    db.Run("begin immediate; update t set x = 'new' where id < 20");
    ready();
    while (!stop()) usleep(1000);
    db.Run("commit");
    return 0;
  });
  const Copy copy = Take(Way::kRollback);
  ASSERT_TRUE(copy.status.ok()) << copy.status;
  EXPECT_TRUE(copy.bytes == before);
  EXPECT_EQ(application.Stop(), 0);
  EXPECT_FALSE(FileBytes(path_) == before);
}

TEST_P(FileSourceTest, EveryCopyBesideAWriterIsOneState) {
  for (const char* mode : {"delete", "wal"}) {
    SCOPED_TRACE(mode);
    for (const char* suffix : {"-journal", "-wal", "-shm", ""}) std::filesystem::remove(path_ + suffix);
    Sql(path_,
        fmt::format(
            "pragma page_size=1024; pragma journal_mode={}; create table n(i, x); insert into n values (0, 0);"
            "create table t(id integer primary key, i, x);"
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 500) insert into t select i, 0, zeroblob(300) from n",
            mode));
    Child application([&](const auto& ready, const auto& stop) {
      Connection db(path_, 20000);
      db.Run("pragma synchronous=off; pragma wal_autocheckpoint=60");
      ready();
      for (int i = 1; !stop(); ++i) {
        // All of it has one number; its size changes as well.
        db.Run(
            fmt::format("begin immediate; update n set i = {0}; update t set i = {0}, x = randomblob(200 + {0} % 300) where id % 4 = 0;"
                        "update t set i = {0} where id % 4 <> 0; delete from t where id > 500; insert into t(i, x) select {0}, "
                        "zeroblob({0} % 5 * 2000); commit",
                        i));
      }
      return 0;
    });
    std::string last;
    int states = 0;
    for (int round = 0; round < 12; ++round) {
      FileOptions options = Options();
      options.database.rollback_stall = std::chrono::seconds(30);
      const auto taken = FileCopy::Take(options);
      ASSERT_TRUE(taken.ok()) << taken.status();
      const Copy copy = ReadCopy(**taken);
      ASSERT_TRUE(copy.status.ok()) << copy.status;
      const std::string stored = Store(copy.bytes, "state.db");
      ASSERT_EQ(Query(stored, "pragma integrity_check"), "ok") << (*taken)->Describe();
      const std::string state = Query(stored, "select i from n");
      EXPECT_EQ(Query(stored, "select count(distinct i) || ' ' || max(i) from t"), "1 " + state);
      states += state != last ? 1 : 0;
      last = state;
      std::filesystem::remove(stored);
      std::filesystem::remove(stored + "-wal");
      std::filesystem::remove(stored + "-shm");
    }
    EXPECT_GT(states, 1);
    EXPECT_EQ(application.Stop(), 0);
  }
}

// Nobody gets a lock beside an application with locking_mode=EXCLUSIVE.
TEST_P(FileSourceTest, AnApplicationThatLetsNobodyInIsReadInWalMode) {
  Sql(path_,
      "pragma page_size=1024; pragma journal_mode=wal; create table n(i, x); insert into n values (0, 0);"
      "create table t(id integer primary key, i, x);"
      "with recursive n(i) as (select 1 union all select i + 1 from n where i < 500) insert into t select i, 0, zeroblob(300) from n");
  Child application([&](const auto& ready, const auto& stop) {
    Connection db(path_);
    db.Run("pragma locking_mode=exclusive; pragma synchronous=off; pragma wal_autocheckpoint=2000; update n set i = 0");
    ready();
    for (int i = 1; !stop(); ++i) {
      db.Run(fmt::format("begin immediate; update n set i = {0}; update t set i = {0}, x = randomblob(200 + {0} % 300); commit", i));
      usleep(500);
    }
    return 0;
  });
  EXPECT_EQ(ReasonOf(ReadAll([&] {
                       OnlineOptions options = CaptureTest::Options(path_);
                       options.busy_timeout = std::chrono::milliseconds(20);
                       return options;
                     }())
                         .status),
            "DATABASE_BUSY");
  int states = 0;
  std::string last;
  for (int round = 0; round < 8; ++round) {
    FileOptions options = Options();
    options.database.busy_timeout = std::chrono::milliseconds(500);
    const auto taken = FileCopy::Take(options);
    if (!taken.ok()) {
      // Started over during each attempt: said, and not believed.
      EXPECT_EQ(ReasonOf(taken.status()), "DATABASE_BUSY") << taken.status();
      continue;
    }
    EXPECT_EQ((*taken)->way(), Way::kStill);
    const Copy copy = ReadCopy(**taken);
    ASSERT_TRUE(copy.status.ok()) << copy.status;
    const std::string stored = Store(copy.bytes, "state.db");
    ASSERT_EQ(Query(stored, "pragma integrity_check"), "ok") << round;
    const std::string state = Query(stored, "select i from n");
    EXPECT_EQ(Query(stored, "select count(distinct i) || ' ' || max(i) from t"), "1 " + state);
    states += state != last ? 1 : 0;
    last = state;
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(stored + suffix);
  }
  EXPECT_GT(states, 1);
  EXPECT_EQ(application.Stop(), 0);
}

TEST_P(FileSourceTest, AnApplicationThatLetsNobodyInIsRefusedInRollbackMode) {
  Sql(path_, kRows);
  Child application([&](const auto& ready, const auto& stop) {
    Connection db(path_);
    db.Run("pragma locking_mode=exclusive; update t set x = 'new' where id < 20");
    ready();
    while (!stop()) usleep(1000);
    return 0;
  });
  FileOptions options = Options();
  options.database.busy_timeout = std::chrono::milliseconds(50);
  const Copy copy = Take(Way::kRollback, options);
  EXPECT_EQ(ReasonOf(copy.status), "DATABASE_BUSY") << copy.status;
  EXPECT_THAT(HintOf(copy.status), HasSubstr("locking_mode=EXCLUSIVE"));
  EXPECT_EQ(application.Stop(), 0);
}

// Law 3: closing a descriptor of the database in this process would drop the locks of its other connections.
TEST_P(FileSourceTest, LocksOfThisProcessOutliveTheCopy) {
  Sql(path_, kRows);
  // Forked before: SQLite of a child would believe that it has the locks of this process.
  Child writer([&](const auto& ready, const auto& stop) {
    ready();
    while (!stop()) usleep(1000);
    Connection db(path_, 0);
    db.Run("begin immediate; update t set x = 1 where id = 1");
    return db.Try("commit") == SQLITE_BUSY ? 0 : 1;
  });
  auto other = UserDatabase::Open({.path = path_, .allow_network_fs = true});
  ASSERT_TRUE(other.ok()) << other.status();
  ASSERT_TRUE((*other)->BeginRead().ok());
  ASSERT_TRUE(FileCopy::Take(Options()).ok());
  EXPECT_EQ(writer.Stop(), 0) << "the lock was lost";
}

TEST_P(FileSourceTest, ACopyIsReadAgainAsItWas) {
  Sql(path_, kRows);
  const Bytes before = FileBytes(path_);
  const auto taken = FileCopy::Take(Options());
  ASSERT_TRUE(taken.ok()) << taken.status();
  Sql(path_, "update t set x = randomblob(300); vacuum");
  for (int round = 0; round < 2; ++round) {
    const Copy copy = ReadCopy(**taken);
    ASSERT_TRUE(copy.status.ok()) << copy.status;
    EXPECT_TRUE(copy.bytes == before);
  }
}

TEST_P(FileSourceTest, TheBudgetOfTheStallIsKept) {
  for (const char* mode : {"delete", "wal"}) {
    SCOPED_TRACE(mode);
    std::filesystem::remove(path_);
    Sql(path_, fmt::format("pragma journal_mode={}; {}", mode, kRows));
    FileOptions options = Options();
    options.database.rollback_stall = std::chrono::milliseconds(-1);
    const Copy copy = Take(mode == std::string("wal") ? Way::kCold : Way::kRollback, options);
    EXPECT_EQ(ReasonOf(copy.status), "WRITER_STALL") << copy.status;
    EXPECT_THAT(HintOf(copy.status), HasSubstr("rollback_stall"));
    Sql(path_, "update t set x = 'new' where id = 1");
  }
}

// Whoever writes waits for as long as the kernel takes to share the blocks, whatever the database has; not for a copy.
TEST_P(FileSourceTest, SharedBlocksAreHeldForASmallPartOfWhatACopyTakes) {
  if (!Shares()) GTEST_SKIP() << "what shared blocks are compared with";
  for (const char* mode : {"delete", "wal"}) {
    SCOPED_TRACE(mode);
    std::filesystem::remove(path_);
    Sql(path_, fmt::format("pragma page_size=65536; pragma journal_mode={}; create table t(x); with recursive n(i) as (select 1 union all "
                           "select i + 1 from n where i < 100) insert into t select zeroblob(1000000) from n",
                           mode));
    ASSERT_GT(std::filesystem::file_size(path_), 100'000'000u);
    // The least of some: the machine does other things, too.
    const auto held = [&](bool share) {
      auto least = std::chrono::nanoseconds::max();
      for (int round = 0; round < 4; ++round) {
        FileOptions options = Options();
        options.database.rollback_stall = std::chrono::seconds(60);
        options.may_share = share;
        const auto taken = FileCopy::Take(options);
        EXPECT_TRUE(taken.ok()) << taken.status();
        if (!taken.ok()) break;
        EXPECT_EQ((*taken)->shared(), share);
        EXPECT_EQ((*taken)->way(), mode == std::string("wal") ? Way::kCold : Way::kRollback);
        least = std::min(least, (*taken)->held());
      }
      return least;
    };
    const std::chrono::nanoseconds shared = held(true), copied = held(false);
    EXPECT_LT(shared * 4, copied);
  }
}

TEST_P(FileSourceTest, SaysWhatCannotBeDone) {
  Sql(path_, kRows);
  FileOptions options = Options();
  options.helper = "/nowhere/litefleet-check";
  EXPECT_EQ(ReasonOf(Take(Way::kRollback, options).status), "CHECK_HELPER_FAILED");

  options = Options();
  options.max_copy_bytes = 4096;
  // Shared blocks are no copy.
  EXPECT_EQ(ReasonOf(Take(Way::kRollback, options).status), Shares() ? "" : "SPOOL_FULL");

  options = Options();
  options.database.reserve = io::DiskReserve(uint64_t{1} << 60);
  EXPECT_EQ(ReasonOf(Take(Way::kRollback, options).status), Shares() ? "" : "DISK_FULL");

  options = Options();
  options.database.cancelled = [] { return true; };
  EXPECT_EQ(ReasonOf(Take(Way::kRollback, options).status), "CANCELLED");

  std::filesystem::remove(path_);
  EXPECT_EQ(ReasonOf(Take(Way::kRollback).status), "DATABASE_MISSING");
  std::ofstream(path_) << std::string(5000, 'x');
  EXPECT_EQ(ReasonOf(Take(Way::kRollback).status), "NOT_A_DATABASE");
}

// Whenever it comes, in the middle of the copy too: no lock stays, and no file.
TEST_P(FileSourceTest, ACancelIsHeardThroughout) {
  Sql(path_, kRows);
  const std::string before = Files();
  int ended = 0;
  for (int at = 1;; at += 1 + at / 4) {
    int asked = 0;
    FileOptions options = Options();
    options.database.cancelled = [&] { return ++asked >= at; };
    absl::Status status;
    {
      const auto taken = FileCopy::Take(options);
      status = taken.ok() ? ReadCopy(**taken).status : taken.status();
    }
    EXPECT_TRUE(std::filesystem::is_empty(Path("scratch"))) << at;
    EXPECT_EQ(Files(), before) << at;
    Sql(path_, "begin exclusive; rollback");
    if (status.ok()) break;
    ++ended;
    ASSERT_EQ(ReasonOf(status), "CANCELLED") << at << status;
  }
  EXPECT_GE(ended, 3);
}

TEST_P(FileSourceTest, LetsGoWhereTheReserveIsTouched) {
  if (!Shares()) GTEST_SKIP() << "what is copied has its space before anything is read";
  Sql(path_, kRows);
  FileOptions options = Options();
  options.database.reserve = io::DiskReserve(*io::FreeBytes(place_) - (1 << 20));
  const auto taken = FileCopy::Take(options);
  ASSERT_TRUE(taken.ok()) << taken.status();
  ASSERT_TRUE(ReadCopy(**taken).status.ok());
  ASSERT_EQ(Shell(fmt::format("head -c 4000000 /dev/zero > '{0}/other' && sync '{0}/other'", place_)), 0);
  EXPECT_EQ(ReasonOf(ReadCopy(**taken).status), "COPY_GROWTH");
}

TEST_P(FileSourceTest, DamageIsCopiedAndNamedAsOnlineDoes) {
  Sql(path_, kRows);
  const Bytes healthy = FileBytes(path_);
  const auto put = [&](Bytes image) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc)
        .write(reinterpret_cast<const char*>(image.data()), static_cast<std::streamsize>(image.size()));
    const Copy online = Backup(path_);
    const Copy copy = Take(Way::kRollback);
    EXPECT_EQ(ReasonOf(copy.status), ReasonOf(online.status));
    EXPECT_EQ(copy.damage, online.damage);
    EXPECT_TRUE(copy.bytes == online.bytes);
    return copy;
  };
  Bytes image = healthy;
  image.resize(image.size() / 2 / 4096 * 4096);
  EXPECT_THAT(put(image).damage, HasSubstr("shorter"));
  image.resize(image.size() - 300);
  EXPECT_THAT(put(image).damage, HasSubstr("ends within a page"));
  image = healthy;
  image.resize(image.size() + 10000);
  EXPECT_EQ(put(image).bytes.size(), healthy.size());
  image = healthy;
  std::fill(image.begin() + 100, image.begin() + 4096, std::byte{7});
  EXPECT_NE(put(image).damage, "");
  image = healthy;
  image[19] = std::byte{77};
  EXPECT_EQ(ReasonOf(put(image).status), "DATABASE_DAMAGED");
}

absl::StatusOr<std::string> TextOf(absl::StatusOr<std::unique_ptr<TextSource>> source) {
  LF_RETURN_IF_ERROR(source.status());
  std::string text;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const ByteView piece, (*source)->Next());
    if (piece.empty()) return text;
    text += AsText(piece);
  }
}

TEST_P(FileSourceTest, HasTheTextOfADump) {
  for (const char* mode : {"delete", "truncate", "persist", "wal"}) {
    SCOPED_TRACE(mode);
    for (const char* suffix : {"-journal", "-wal", "-shm", ""}) std::filesystem::remove(path_ + suffix);
    Child application([&](const auto& ready, const auto& stop) {
      Connection db(path_);
      db.Run(fmt::format("pragma journal_mode={}; pragma wal_autocheckpoint=0; {}; update t set x = 'new' where id % 5 = 0", mode, kRows));
      ready();
      while (!stop()) usleep(1000);
      db.Run("update t set x = 'later'");
      return 0;
    });
    const absl::StatusOr<std::string> dump = TextOf(OpenDumpSource(CaptureTest::Options(path_), {}));
    ASSERT_TRUE(dump.ok()) << dump.status();
    const std::string before = Files();
    const auto taken = FileCopy::Take(Options());
    ASSERT_TRUE(taken.ok()) << taken.status();
    EXPECT_EQ(Files(), before);
    EXPECT_EQ(application.Stop(), 0);
    // As often as wanted, and as it was.
    for (int round = 0; round < 2; ++round) {
      auto source = (*taken)->OpenDump({});
      ASSERT_TRUE(source.ok()) << source.status();
      EXPECT_TRUE((*source)->info().detached);
      EXPECT_EQ((*source)->info().wal, mode == std::string("wal"));
      EXPECT_EQ((*source)->pinned_for(), (*taken)->held());
      EXPECT_TRUE(TextOf(std::move(source)).value() == *dump);
    }
    EXPECT_NE(TextOf((*taken)->OpenDump({.schema_only = true})).value(), *dump);
  }
}

TEST_P(FileSourceTest, ADumpIsOfWhatAHotJournalLeaves) {
  const Bytes before = KillInATransaction();
  const Bytes torn = FileBytes(path_);
  const auto taken = FileCopy::Take(Options());
  ASSERT_TRUE(taken.ok()) << taken.status();
  const absl::StatusOr<std::string> text = TextOf((*taken)->OpenDump({}));
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_TRUE(FileBytes(path_) == torn) << "the journal was rolled back in the copy alone";
  std::ofstream(place_ + "/before.db", std::ios::binary)
      .write(reinterpret_cast<const char*>(before.data()), static_cast<std::streamsize>(before.size()));
  EXPECT_TRUE(*text == TextOf(OpenDumpSource(CaptureTest::Options(place_ + "/before.db"), {})).value());
}

TEST_P(FileSourceTest, ADumpOfACopyEndsWithAReason) {
  Sql(path_, kRows);
  bool cancelled = false;
  FileOptions options = Options();
  options.database.cancelled = [&] { return cancelled; };
  const auto taken = FileCopy::Take(options);
  ASSERT_TRUE(taken.ok()) << taken.status();
  const absl::Status missing = TextOf((*taken)->OpenDump({.tables = {"nothing"}})).status();
  EXPECT_EQ(ReasonOf(missing), "TABLE_NOT_FOUND");
  EXPECT_THAT(MessageOf(missing), HasSubstr(path_));
  auto source = (*taken)->OpenDump({});
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_TRUE((*source)->Next().ok());
  cancelled = true;
  absl::Status ended;
  while (ended.ok()) {
    const auto next = (*source)->Next();
    ended = next.status();
    ASSERT_FALSE(next.ok() && next->empty()) << "it came to its end";
  }
  EXPECT_EQ(ReasonOf(ended), "CANCELLED");
  EXPECT_EQ(ReasonOf((*source)->Next().status()), "CANCELLED");
  cancelled = false;
  // Of an empty file, too.
  std::filesystem::remove(path_);
  std::ofstream(path_).flush();
  const auto empty = FileCopy::Take(options);
  ASSERT_TRUE(empty.ok()) << empty.status();
  EXPECT_TRUE(TextOf((*empty)->OpenDump({})).value() == TextOf(OpenDumpSource(CaptureTest::Options(path_), {})).value());
}

TEST_P(FileSourceTest, ADumpLetsGoWhereTheReserveIsTouched) {
  if (!Shares()) GTEST_SKIP() << "what is copied has its space before anything is read";
  Sql(path_, kRows);
  FileOptions options = Options();
  options.database.reserve = io::DiskReserve(*io::FreeBytes(place_) - (1 << 20));
  const auto taken = FileCopy::Take(options);
  ASSERT_TRUE(taken.ok()) << taken.status();
  ASSERT_TRUE(TextOf((*taken)->OpenDump({})).ok());
  ASSERT_EQ(Shell(fmt::format("head -c 4000000 /dev/zero > '{0}/other' && sync '{0}/other'", place_)), 0);
  EXPECT_EQ(ReasonOf(TextOf((*taken)->OpenDump({})).status()), "COPY_GROWTH");
}

// Whoever has read to the end may keep the source for what it says; the blocks are not kept with it.
TEST_P(FileSourceTest, ACopyGoesWhenItsSourcesAreClosed) {
  Sql(path_, kRows);
  const int descriptors = OpenDescriptors();
  auto taken = FileCopy::Take(Options());
  ASSERT_TRUE(taken.ok()) << taken.status();
  auto pages = (*taken)->Open();
  auto text = (*taken)->OpenDump({});
  ASSERT_TRUE(pages.ok() && text.ok());
  const uint32_t page_count = (*pages)->info().page_count;
  const std::chrono::nanoseconds held = (*taken)->held();
  taken->reset();
  EXPECT_TRUE((*pages)->Next().ok());
  EXPECT_TRUE((*text)->Next().ok());
  EXPECT_GT(OpenDescriptors(), descriptors);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE((*pages)->Close().ok());
    EXPECT_TRUE((*text)->Close().ok());
  }
  EXPECT_EQ(OpenDescriptors(), descriptors);
  EXPECT_EQ((*pages)->info().page_count, page_count);
  EXPECT_EQ((*text)->info().page_count, page_count);
  EXPECT_EQ((*pages)->damage() + (*text)->damage(), "");
  EXPECT_EQ((*pages)->pinned_for(), held);
  EXPECT_EQ((*text)->pinned_for(), held);
  EXPECT_EQ(ReasonOf((*pages)->Next().status()), "SOURCE_CLOSED");
  EXPECT_EQ(ReasonOf((*text)->Next().status()), "SOURCE_CLOSED");
}

INSTANTIATE_TEST_SUITE_P(By, FileSourceTest, testing::Values("shared", "bytes"), [](const auto& test) { return std::string(test.param); });

TEST(SharedBlocks, AreTried) {
  char pattern[] = "/tmp/lf-xfs-XXXXXX";
  ASSERT_NE(mkdtemp(pattern), nullptr);
  {
    const LoopMount mount(pattern, kXfs);
    if (!mount.mounted()) GTEST_SKIP() << mount.why();
    EXPECT_TRUE(CanShareBlocks(mount.directory()));
    EXPECT_TRUE(std::filesystem::is_empty(mount.directory()));
  }
  EXPECT_FALSE(CanShareBlocks("/proc"));
  EXPECT_FALSE(CanShareBlocks("/nowhere"));
  std::filesystem::remove(pattern);
}

}  // namespace
}  // namespace litefleet::capture
