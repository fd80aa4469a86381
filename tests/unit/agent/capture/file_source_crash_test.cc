// The method file beside what crashes and changes leave: hot journals, super-journals, WALs, other files in its place.
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "agent/capture/copied_files.h"
#include "agent/capture/file_facts.h"
#include "agent/capture/lock_table.h"
#include "agent/capture/user_database.h"
#include "common/io/file.h"
#include "tests/unit/agent/capture/file_source_fixture.h"

namespace litefleet::capture {
namespace {

using Way = FileCopy::Way;

TEST_P(FileSourceTest, AHotJournalIsRolledBackInTheCopyAlone) {
  for (const char* mode : {"delete", "persist"}) {
    SCOPED_TRACE(mode);
    std::filesystem::remove(path_ + "-journal");
    std::filesystem::remove(path_);
    Sql(path_, fmt::format("pragma journal_mode={}; {}", mode, kRows));
    const Bytes before = FileBytes(path_);
    {
      Child application([&](const auto& ready, const auto& stop) {
        Connection db(path_);
        db.Run(fmt::format("pragma journal_mode={}; pragma cache_size=5; begin; update t set x = randomblob(280)", mode));
        ready();
        while (!stop()) usleep(1000);
        return 0;
      });
      application.Kill();
    }
    ASSERT_FALSE(FileBytes(path_) == before) << "nothing was spilled";
    const Copy copy = Take(Way::kRollback);
    ASSERT_TRUE(copy.status.ok()) << copy.status;
    EXPECT_TRUE(copy.bytes == before);
    EXPECT_TRUE(std::filesystem::exists(path_ + "-journal"));
  }
}

// A journal of a transaction over several databases counts while its super-journal exists.
TEST_P(FileSourceTest, ASuperJournalThatIsGoneMeansCommitted) {
  const Bytes before = KillInATransaction();
  const Bytes torn = FileBytes(path_);
  const std::string super = place_ + "/app.db-mj0123ABC9";
  NameSuperJournal(super);
  Copy copy = Take(Way::kRollback);
  ASSERT_TRUE(copy.status.ok()) << copy.status;
  // Page 1 still counts the pages of before.
  ASSERT_LE(copy.bytes.size(), torn.size());
  EXPECT_TRUE(std::equal(copy.bytes.begin(), copy.bytes.end(), torn.begin()));
  EXPECT_FALSE(std::equal(copy.bytes.begin(), copy.bytes.end(), before.begin(), before.end()));
  std::ofstream(super) << path_ << "-journal" << '\0';
  copy = Take(Way::kRollback);
  ASSERT_TRUE(copy.status.ok()) << copy.status;
  EXPECT_TRUE(copy.bytes == before);
}

// When the lock goes, the application that waits for it rolls the original back and removes the super-journal: the copy is not yet rolled
// back then.
TEST_P(FileSourceTest, ASuperJournalCountsThatWasThereUnderTheLock) {
  const Bytes before = KillInATransaction();
  const std::string super = place_ + "/app.db-mj0123ABC9";
  NameSuperJournal(super);
  for (const bool there : {true, false}) {
    const auto files = CopiedFiles::Make(Path("scratch"));
    ASSERT_TRUE(files.ok()) << files.status();
    ASSERT_TRUE(io::PwriteAll((*files)->fd(CopiedFiles::kDatabase), FileBytes(path_), 0, "copy").ok());
    ASSERT_TRUE(io::PwriteAll((*files)->fd(CopiedFiles::kJournal), FileBytes(path_ + "-journal"), 0, "copy").ok());
    (*files)->Have(CopiedFiles::kJournal);
    if (there) std::ofstream(super) << path_ << "-journal" << '\0';
    ASSERT_TRUE((*files)->NoteSuperJournal().ok());
    std::filesystem::remove(super);
    if (!there) std::ofstream(super) << "of another transaction";
    ASSERT_TRUE((*files)->Recover(path_).ok());
    Bytes rolled(*(*files)->Bytes(CopiedFiles::kDatabase));
    ASSERT_TRUE(io::PreadAll((*files)->fd(CopiedFiles::kDatabase), rolled, 0, "copy").ok());
    EXPECT_EQ(rolled == before, there);
  }
}

// Another database takes the place of the one that is locked, with a journal that has to be rolled back: that is not played into this one.
TEST_P(FileSourceTest, AnotherFileThatTakesItsPlaceGivesItsJournalToNobody) {
  for (const char* mode : {"delete", "wal"}) {
    SCOPED_TRACE(mode);
    for (const char* suffix : {"-journal", "-wal", "-shm", ""}) std::filesystem::remove(path_ + suffix);
    const std::string other = place_ + "/other.db";
    for (const std::string& path : {path_, other}) Sql(path, fmt::format("pragma journal_mode={}; {}", mode, kRows));
    Child([&](const auto& ready, const auto& stop) {
      Connection db(other);
      db.Run("pragma cache_size=5; pragma wal_autocheckpoint=0; update t set x = 'y'; begin; update t set x = randomblob(280)");
      ready();
      while (!stop()) usleep(1000);
      return 0;
    }).Kill();
    FileOptions options = Options();
    const FileId file = *FileIdOf(path_);
    bool replaced = false;
    options.database.cancelled = [&] {
      const std::vector<FileLock> locks = ReadLocks();
      if (replaced || std::none_of(locks.begin(), locks.end(), [&](const FileLock& lock) { return lock.file == file; })) return false;
      replaced = true;
      for (const char* suffix : {"-journal", "-wal", ""}) {
        std::error_code absent;
        std::filesystem::rename(other + suffix, path_ + suffix, absent);
      }
      return false;
    };
    const auto taken = FileCopy::Take(options);
    ASSERT_TRUE(replaced);
    EXPECT_EQ(ReasonOf(taken.status()), "SOURCE_CHANGED") << taken.status();
    std::filesystem::remove(other + "-shm");
  }
}

// Who has it open writes on into the one that was taken away.
TEST_P(FileSourceTest, AWalThatWasReplacedIsNotFoldedIn) {
  const std::string other = place_ + "/other.db";
  for (const std::string& path : {path_, other}) Sql(path, fmt::format("pragma journal_mode=wal; {}", kRows));
  const auto write = [](const std::string& path) {
    return Child([path](const auto& ready, const auto& stop) {
      Connection db(path);
      db.Run("pragma wal_autocheckpoint=0; update t set x = 'new' where id % 5 = 0");
      if (path.ends_with("other.db")) db.Run("update t set x = 'other'; update t set x = 'more'");
      ready();
      while (!stop()) usleep(1000);
      return 0;
    });
  };
  Child application = write(path_);
  write(other).Kill();
  FileOptions options = Options();
  bool replaced = false;
  const FileId file = *FileIdOf(path_);
  const pid_t self = getpid();
  options.database.cancelled = [&] {
    const std::vector<FileLock> locks = ReadLocks();
    if (replaced || std::none_of(locks.begin(), locks.end(), [&](const FileLock& lock) { return lock.file == file && lock.pid == self; }))
      return false;
    replaced = true;
    std::filesystem::rename(other + "-wal", path_ + "-wal");
    return false;
  };
  const auto taken = FileCopy::Take(options);
  ASSERT_TRUE(replaced);
  EXPECT_EQ(ReasonOf(taken.status()), "SOURCE_CHANGED") << taken.status();
  application.Kill();
}

TEST_P(FileSourceTest, AWalOfACrashIsFoldedIntoTheCopyAlone) {
  Sql(path_, fmt::format("pragma journal_mode=wal; {}", kRows));
  Child([&](const auto& ready, const auto& stop) {
    Connection db(path_);
    db.Run(
        "pragma wal_autocheckpoint=0; pragma cache_size=5; update t set x = 'committed' where id % 3 = 0; delete from t where id > 1500");
    // Frames behind the last commit.
    db.Run("begin; update t set x = randomblob(280)");
    ready();
    while (!stop()) usleep(1000);
    return 0;
  }).Kill();
  const Bytes wanted = CheckpointedBytes(path_);
  const Copy copy = Take(Way::kCold);
  ASSERT_TRUE(copy.status.ok()) << copy.status;
  EXPECT_TRUE(copy.bytes == wanted);
  EXPECT_EQ(Query(Store(copy.bytes), "select count(*) from t where x = 'committed'"), "500");
}

}  // namespace
}  // namespace litefleet::capture
