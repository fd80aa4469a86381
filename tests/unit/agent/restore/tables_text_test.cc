// Chosen tables of a snapshot that is SQL text: loaded into a database of its own first, and taken out of that.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/agent/restore/text_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::HasSubstr;

class TablesOfTextTest : public TextFixture {
 protected:
  void Begin(const std::string& journal, int live_page_size = 4096) {
    std::filesystem::remove_all(folder_ + "/state");
    std::filesystem::remove_all(data_);
    std::filesystem::create_directory(data_);
    Make(path_, "old", journal, 300, live_page_size);
    Sql("insert into log values(1),(2),(3)");
    MakeTextSnapshot(Text("new", 900));
    order_.add_tables("t");
    order_.add_tables("label");
  }
  void Sql(const std::string& sql) {
    auto db = sqlite::Open(path_, SQLITE_OPEN_READWRITE);
    sqlite3_busy_timeout(db->get(), 10'000);
    const absl::Status done = sqlite::Execute(db->get(), sql);
    EXPECT_TRUE(done.ok()) << done;
  }
  int64_t Count(const std::string& sql) {
    auto db = sqlite::Open(path_, SQLITE_OPEN_READWRITE);
    sqlite3_busy_timeout(db->get(), 10'000);
    return sqlite::QueryInt(db->get(), sql).value_or(-1);
  }
  void ExpectNew(int64_t log_rows) {
    EXPECT_EQ(Label(path_), "new");
    EXPECT_EQ(Count("select count(*) from t"), 900);
    EXPECT_EQ(Count("select count(*) from sqlite_schema where name = 'tv'"), 1);
    EXPECT_EQ(LogRows(path_), log_rows) << "of no table that was chosen";
    EXPECT_EQ(LeftOver(), "");
  }
};

TEST_F(TablesOfTextTest, IntoALiveDatabaseInEitherMode) {
  for (const char* journal : {"wal", "delete"}) {
    for (const int page_size : {4096, 1024}) {
      SCOPED_TRACE(fmt::format("{} {}", journal, page_size));
      Begin(journal, page_size);
      const Outcome outcome = Run();
      ASSERT_TRUE(outcome.status.ok()) << outcome.status;
      EXPECT_EQ(outcome.mode, v1::RESTORE_MODE_LIVE);
      EXPECT_THAT(outcome.steps, Contains(HasSubstr("of SQL text into a database of")));
      EXPECT_THAT(outcome.steps, Contains(HasSubstr("replaced 2 tables")));
      ExpectNew(3);
      EXPECT_EQ(JournalMode(path_), journal);
      EXPECT_EQ(Count("pragma page_size"), page_size);
      EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
      ASSERT_TRUE(Open()->Forget(kOperation).ok());
    }
  }
}

TEST_F(TablesOfTextTest, IntoANewDatabase) {
  MakeTextSnapshot(Text("new", 500));
  order_.add_tables("t");
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.mode, v1::RESTORE_MODE_NEW);
  EXPECT_EQ(Count("select count(*) from t"), 500);
  EXPECT_EQ(Count("select count(*) from sqlite_schema"), 2) << "t and its index";
  EXPECT_EQ(LeftOver(), "");
}

TEST_F(TablesOfTextTest, ATableThatTheTextDoesNotHave) {
  Begin("wal");
  order_.add_tables("nothing");
  EXPECT_EQ(ReasonOf(Run().status), "TABLE_NOT_FOUND");
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(LogRows(path_), 3);
  EXPECT_EQ(LeftOver(), "");
}

struct TextCrash {
  const char* point;
  const char* journal;
};
class TablesOfTextCrashTest : public TablesOfTextTest, public ::testing::WithParamInterface<TextCrash> {};

// The staging file is in turn the text, what was loaded of it, and what was merged: a later run takes none for another.
TEST_P(TablesOfTextCrashTest, OldOrNewThenFinished) {
  Begin(GetParam().journal);
  ASSERT_TRUE(RunAndCrashAt(GetParam().point)) << "never came to " << GetParam().point;
  EXPECT_THAT(Label(path_), AnyOf("old", "new"));
  Sql("insert into log values(4)");
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  ExpectNew(4);
}

TEST_P(TablesOfTextCrashTest, WithoutAnOrderItIsFinishedOrRolledBack) {
  Begin(GetParam().journal);
  ASSERT_TRUE(RunAndCrashAt(GetParam().point)) << "never came to " << GetParam().point;
  const auto recovery = Open()->Recover({});
  EXPECT_EQ(LeftOver(), "");
  EXPECT_EQ(Label(path_), recovery.ended.empty() ? "old" : "new");
  EXPECT_EQ(LogRows(path_), 3);
}

INSTANTIATE_TEST_SUITE_P(All, TablesOfTextCrashTest,
                         ::testing::Values(TextCrash{"restore.loaded", "wal"}, TextCrash{"restore.checked", "wal"},
                                           TextCrash{"restore.live.before_lock", "wal"}, TextCrash{"restore.merged", "wal"},
                                           TextCrash{"restore.live.before_commit", "wal"}, TextCrash{"restore.live.after_commit", "wal"},
                                           TextCrash{"restore.checked", "delete"}, TextCrash{"restore.merged", "delete"},
                                           TextCrash{"restore.live.before_commit", "delete"}));

}  // namespace
}  // namespace litefleet::restore
