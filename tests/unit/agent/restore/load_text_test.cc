// Snapshots that are SQL text: loaded beside the target, checked, applied; and what a crash at each point of that leaves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/agent/restore/text_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

class LoadTextTest : public TextFixture {};

TEST_F(LoadTextTest, ToWhereNothingIs) {
  MakeTextSnapshot(Text("new"));
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
  EXPECT_THAT(outcome.steps, Contains(HasSubstr("of SQL text into a database of")));
  EXPECT_EQ(LeftOver(), "");
  ASSERT_TRUE(Open()->Forget(kOperation).ok());
  for (const auto& entry : std::filesystem::directory_iterator(folder_ + "/state"))
    EXPECT_FALSE(entry.path().filename().string().starts_with(kOperation)) << entry.path();
}

TEST_F(LoadTextTest, IntoADatabaseInEitherMode) {
  for (const char* mode : {"wal", "delete"}) {
    std::filesystem::remove_all(folder_ + "/state");
    std::filesystem::remove_all(data_);
    std::filesystem::create_directory(data_);
    Make(path_, "old", mode, 500);
    MakeTextSnapshot(Text("new"));
    const Outcome outcome = Run();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(JournalMode(path_), mode);
    EXPECT_EQ(Label(path_), "new");
    EXPECT_EQ(LeftOver(), "");
  }
}

TEST_F(LoadTextTest, InPlaceOfADatabaseThatNobodyHasOpen) {
  Make(path_, "old", "wal", 500);
  MakeTextSnapshot(Text("new"));
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(LeftOver(), "");
}

// A text does not say the journal mode; the snapshot does.
TEST_F(LoadTextTest, ReplacedAndNewOnesGetTheJournalModeOfTheSnapshot) {
  for (const bool there : {true, false}) {
    for (const bool wal : {true, false}) {
      SCOPED_TRACE(fmt::format("{} {}", there, wal));
      std::filesystem::remove_all(folder_ + "/state");
      std::filesystem::remove_all(data_);
      std::filesystem::create_directory(data_);
      if (there) Make(path_, "old", wal ? "delete" : "wal", 50);
      MakeTextSnapshot(Text("new", 100));
      order_.set_journal_mode(wal ? v1::JOURNAL_MODE_WAL : v1::JOURNAL_MODE_ROLLBACK);
      if (there) order_.set_mode(v1::RESTORE_MODE_REPLACE);
      const Outcome outcome = Run();
      ASSERT_TRUE(outcome.status.ok()) << outcome.status;
      EXPECT_EQ(JournalMode(path_), wal ? "wal" : "delete");
      EXPECT_EQ(Label(path_), "new");
      EXPECT_EQ(LeftOver(), "");
    }
  }
}

TEST_F(LoadTextTest, ALiveOneKeepsItsOwnJournalMode) {
  Make(path_, "old", "delete", 500);
  MakeTextSnapshot(Text("new", 100));
  order_.set_journal_mode(v1::JOURNAL_MODE_WAL);
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(JournalMode(path_), "delete");
  EXPECT_EQ(Label(path_), "new");
}

// Rows whose parents were left out are no damage of what holds a part.
TEST_F(LoadTextTest, APartIsCheckedAsOne) {
  MakeTextSnapshot(Text("new", 10) + "CREATE TABLE c(a REFERENCES p);\nINSERT INTO c VALUES(1);\n");
  EXPECT_EQ(ReasonOf(Run().status), "SNAPSHOT_DAMAGED");
  std::filesystem::remove_all(folder_ + "/state");
  order_.set_part("tables label, c");
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
}

TEST_F(LoadTextTest, ACrashAtAnyPointLeavesTheOldOrTheNew) {
  for (const bool there : {false, true}) {
    for (const char* point : {"restore.fetching", "restore.staged", "restore.loading", "restore.loaded", "restore.checked"}) {
      SCOPED_TRACE(fmt::format("{} {}", point, there));
      std::filesystem::remove_all(folder_ + "/state");
      std::filesystem::remove_all(data_);
      std::filesystem::create_directory(data_);
      if (there) Make(path_, "old", "wal", 500);
      MakeTextSnapshot(Text("new"));
      ASSERT_TRUE(RunAndCrashAt(point));
      if (there) {
        EXPECT_EQ(Label(path_), "old");
      }
      if (!there) {
        EXPECT_FALSE(std::filesystem::exists(path_));
      }
      fetcher_.extents = 0;
      const Outcome outcome = Run();
      ASSERT_TRUE(outcome.status.ok()) << outcome.status;
      EXPECT_EQ(Label(path_), "new");
      EXPECT_EQ(LeftOver(), "");
      // What was checked is not loaded again.
      if (std::string_view(point) == "restore.checked") {
        EXPECT_EQ(fetcher_.extents, 0);
      }
    }
  }
}

TEST_F(LoadTextTest, WhatWasCheckedAndIsLostIsFetchedAndLoadedAgain) {
  MakeTextSnapshot(Text("new"));
  ASSERT_TRUE(RunAndCrashAt("restore.checked"));
  {
    auto fd = io::Open(data_ + "/.litefleet-" + kOperation + ".staging", O_RDWR);
    ASSERT_TRUE(fd.ok());
    ASSERT_TRUE(io::PwriteAll(fd->get(), Bytes(4096, std::byte{7}), 8192, "staging").ok());
  }
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_GT(fetcher_.extents, 0);
  EXPECT_EQ(Label(path_), "new");
}

TEST_F(LoadTextTest, TextThatCannotBeLoadedLeavesTheTargetAlone) {
  const std::string whole = Text("new", 100);
  const struct {
    std::string text;
    const char* reason;
  } cases[] = {{whole.substr(0, whole.size() / 2), "LOAD_DAMAGED"},
               {"CREATE INDEX i ON nowhere(a);", "LOAD_REFUSED"},
               {"ATTACH '" + data_ + "/other.db' AS x;", "LOAD_REFUSED"}};
  for (const auto& each : cases) {
    std::filesystem::remove_all(folder_ + "/state");
    std::filesystem::remove_all(data_);
    std::filesystem::create_directory(data_);
    Make(path_, "old", "wal", 50);
    MakeTextSnapshot(each.text);
    const Outcome outcome = Run();
    // Half a statement is one that does not parse.
    const std::string reason = ReasonOf(outcome.status);
    EXPECT_TRUE(reason == each.reason || reason == "LOAD_REFUSED") << outcome.status;
    EXPECT_FALSE(outcome.applied);
    EXPECT_EQ(Label(path_), "old");
    EXPECT_EQ(LeftOver(), "");
    EXPECT_FALSE(std::filesystem::exists(data_ + "/other.db"));
  }
}

TEST_F(LoadTextTest, PagesThatAreNoTextAreRefused) {
  Make(path_, "old", "wal", 50);
  MakeSnapshot("delete", 100, 512);
  order_.set_content(v1::SNAPSHOT_CONTENT_SQL);
  EXPECT_EQ(ReasonOf(Run().status), "CONTENT_DAMAGED");
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(LeftOver(), "");
}

TEST_F(LoadTextTest, AnotherPageSizeIsRefusedWhereTheLiveTargetIsInWalMode) {
  Make(path_, "old", "wal", 50);
  MakeTextSnapshot("PRAGMA page_size=1024;\n" + Text("new", 50));
  EXPECT_EQ(ReasonOf(Run().status), "PAGE_SIZE_DIFFERS");
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(LeftOver(), "");
}

TEST_F(LoadTextTest, FilesAreNoDatabase) {
  MakeTextSnapshot(Text("new", 10));
  order_.set_content(v1::SNAPSHOT_CONTENT_FILES);
  EXPECT_EQ(ReasonOf(Run().status), "CONTENT_DIFFERS");
}

}  // namespace
}  // namespace litefleet::restore
