// Journal modes and page sizes: what of them is the snapshot's afterwards, and what is the database's own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::Combine;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Values;

struct LiveCase {
  std::string target_mode;
  std::string snapshot_mode;
  Application::Kind application;
};
using LiveParam = std::tuple<const char*, const char*, Application::Kind>;

class LiveRestoreTest : public RestoreFixture, public ::testing::WithParamInterface<LiveParam> {};

TEST_P(LiveRestoreTest, KeepsModeAndTheNextWrite) {
  const LiveCase c{std::get<0>(GetParam()), std::get<1>(GetParam()), std::get<2>(GetParam())};
  const bool wal = c.target_mode == "wal";
  Make(path_, "old", c.target_mode, 1000);
  MakeSnapshot(c.snapshot_mode, 2000);
  const bool blocked = c.application == Application::kReading && !wal;
  if (blocked) lock_timeout_ = std::chrono::milliseconds(200);
  {
    Application application(path_, c.application, wal ? "" : c.target_mode);
    const Outcome outcome = Run();
    if (blocked) {
      EXPECT_EQ(ReasonOf(outcome.status), "DATABASE_BUSY");
    } else {
      ASSERT_TRUE(outcome.status.ok()) << outcome.status;
      EXPECT_EQ(outcome.mode, v1::RESTORE_MODE_LIVE);
      EXPECT_EQ(outcome.undo, path_ + ".litefleet-undo");
      if (c.application == Application::kIdle) {
        EXPECT_THAT(outcome.steps, Contains(HasSubstr("read the committed state back")));
      }
      if (c.application == Application::kWriting) {
        const int64_t before = LogRows(path_);
        for (int i = 0; i < 500 && LogRows(path_) <= before; ++i) usleep(10'000);
        EXPECT_GT(LogRows(path_), before);
      }
    }
    EXPECT_EQ(application.Stop(), 0);
  }
  EXPECT_EQ(Label(path_), blocked ? "old" : "new");
  // In a file there are two modes; how a rollback journal ends is its writer's.
  EXPECT_EQ(JournalMode(path_), wal ? "wal" : "delete");
  if (!blocked) {
    EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
  }
  EXPECT_EQ(LeftOver(), "");
}

std::string NameOf(const ::testing::TestParamInfo<LiveParam>& info) {
  const char* applications[] = {"idle", "writing", "reading"};
  return fmt::format("{}_from_{}_{}", std::get<0>(info.param), std::get<1>(info.param), applications[std::get<2>(info.param)]);
}

INSTANTIATE_TEST_SUITE_P(All, LiveRestoreTest,
                         Combine(Values("wal", "delete"), Values("wal", "delete"),
                                 Values(Application::kIdle, Application::kWriting, Application::kReading)),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Ends, LiveRestoreTest,
                         Combine(Values("truncate", "persist"), Values("wal"), Values(Application::kIdle, Application::kWriting)), NameOf);

class ReplaceModeTest : public RestoreFixture {
 protected:
  static std::string Text(const std::string& path, const std::string& pragma) {
    auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE);
    auto value = sqlite::Statement::Prepare(db->get(), "pragma " + pragma);
    return value.ok() && value->Step().value_or(false) ? std::string(value->Text(0)) : "?";
  }
};

TEST_F(ReplaceModeTest, EverythingIsAsInTheSnapshot) {
  for (const bool wal : {true, false}) {
    SCOPED_TRACE(wal);
    std::filesystem::remove_all(folder_ + "/state");
    std::filesystem::remove_all(data_);
    std::filesystem::create_directory(data_);
    Make(path_, "old", wal ? "delete" : "wal", 300, wal ? 1024 : 8192);
    std::filesystem::remove(fetcher_.path);
    {
      auto db = sqlite::Open(fetcher_.path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
      ASSERT_TRUE(sqlite::Execute(db->get(),
                                  "pragma encoding='UTF-16be'; pragma page_size=4096; pragma auto_vacuum=2;"
                                  "pragma user_version=71; pragma application_id=72; create table first(a)")
                      .ok());
    }
    Make(fetcher_.path, "new", wal ? "wal" : "delete", 300, 4096);
    Order();
    order_.set_mode(v1::RESTORE_MODE_REPLACE);
    const Outcome outcome = Run();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(Label(path_), "new");
    EXPECT_EQ(Text(path_, "journal_mode"), wal ? "wal" : "delete");
    EXPECT_EQ(Text(path_, "page_size"), "4096");
    EXPECT_EQ(Text(path_, "encoding"), "UTF-16be");
    EXPECT_EQ(Text(path_, "auto_vacuum"), "2");
    EXPECT_EQ(Text(path_, "user_version"), "71");
    EXPECT_EQ(Text(path_, "application_id"), "72");
    EXPECT_EQ(Label(path_ + ".litefleet-undo"), "old");
    EXPECT_EQ(Text(path_ + ".litefleet-undo", "page_size"), wal ? "1024" : "8192");
    // An undo is a replacement, too.
    v1::UndoOrder undo;
    undo.set_database("app");
    undo.set_new_timeline(3);
    ASSERT_TRUE(Open()->Undo("01JD0000000000000000000002", undo, target_, cancel_, [](const v1::Progress&) {}).status.ok());
    EXPECT_EQ(Label(path_), "old");
    EXPECT_EQ(Text(path_, "page_size"), wal ? "1024" : "8192");
    EXPECT_EQ(Text(path_, "encoding"), "UTF-8");
    EXPECT_EQ(Text(path_, "user_version"), "0");
    EXPECT_EQ(LeftOver(), "");
  }
}

// Nobody has committed: that somebody is about to, whose journal looks as one that a crash has left, does not take the read-back away.
TEST_F(RestoreFixture, ATransactionThatBeginsBehindALiveRestoreIsNoCommit) {
  Make(path_, "old", "delete", 300);
  MakeSnapshot("delete", 300);
  std::optional<Application> writer;
  at_point_ = [&](std::string_view point) {
    if (point == "committed") writer.emplace(path_, Application::kMidWrite);
  };
  const Outcome outcome = Run();
  ASSERT_TRUE(writer.has_value());
  EXPECT_TRUE(io::Exists(path_ + "-journal"));
  EXPECT_EQ(writer->Stop(), 0);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.mode, v1::RESTORE_MODE_LIVE);
  EXPECT_THAT(outcome.steps, Contains(HasSubstr("read the committed state back")));
  EXPECT_EQ(Label(path_), "new");
}

}  // namespace
}  // namespace litefleet::restore
