// A live database as SQL text: one state, the locks of the other methods, nothing changed beside it.
#include "agent/capture/dump_source.h"

#include <unistd.h>

#include "common/base/status.h"
#include "fmt/format.h"
#include "tests/unit/agent/capture/capture_fixture.h"

namespace litefleet::capture {
namespace {

using std::chrono::milliseconds;

class DumpSourceTest : public CaptureTest {
 protected:
  std::string Make(const std::string& mode, int rows = 3000) {
    const std::string path = Path("a.db");
    Sql(path,
        fmt::format(
            "pragma journal_mode={}; create table t(id integer primary key, x text);"
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) insert into t select i, hex(randomblob(50)) "
            "from n",
            mode, rows));
    return path;
  }
  static absl::StatusOr<std::string> Text(TextSource& source) {
    std::string text;
    for (;;) {
      LF_ASSIGN_OR_RETURN(const ByteView piece, source.Next());
      if (piece.empty()) return text;
      text += AsText(piece);
    }
  }
  static size_t Rows(const std::string& text) {
    size_t rows = 0;
    for (size_t at = text.find("INSERT INTO t "); at != std::string::npos; at = text.find("INSERT INTO t ", at + 1)) ++rows;
    return rows;
  }
};

TEST_F(DumpSourceTest, OneStateWhileOthersWrite) {
  const std::string path = Make("wal");
  // An application that is attached: its WAL holds a part of the state.
  Child application([&](const auto& ready, const auto& asked_to_stop) {
    Connection connection(path);
    connection.Run("pragma wal_autocheckpoint=0; insert into t(x) values('in the WAL')");
    ready();
    while (!asked_to_stop()) usleep(1000);
    return 0;
  });
  auto source = OpenDumpSource(Options(path), {});
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_TRUE((*source)->info().wal);
  auto first = (*source)->Next();
  ASSERT_TRUE(first.ok()) << first.status();
  std::string text(AsText(*first));
  {
    Child writer([&](const auto& ready, const auto&) {
      Connection connection(path);
      connection.Run("delete from t where id > 10; insert into t(x) values('too late')");
      ready();
      return 0;
    });
    EXPECT_EQ(writer.Stop(), 0);
  }
  const auto rest = Text(**source);
  ASSERT_TRUE(rest.ok()) << rest.status();
  text += *rest;
  EXPECT_EQ(Rows(text), 3001u);
  EXPECT_NE(text.find("in the WAL"), std::string::npos);
  EXPECT_EQ(text.find("too late"), std::string::npos);
  EXPECT_TRUE(text.ends_with("COMMIT;\n"));
  EXPECT_TRUE((*source)->damage().empty());
  EXPECT_GT((*source)->read_bytes(), 0);
  EXPECT_GT((*source)->pinned_for().count(), 0);
  EXPECT_EQ(application.Stop(), 0);
}

TEST_F(DumpSourceTest, LeavesEverythingAsItWas) {
  for (const char* mode : {"wal", "delete"}) {
    Shell("rm -f " + Path("a.db") + "*");
    const std::string path = Make(mode);
    const std::string before = Listing(directory());
    {
      auto source = OpenDumpSource(Options(path), {});
      ASSERT_TRUE(source.ok()) << source.status();
      ASSERT_TRUE(Text(**source).ok());
      // The locks are gone before the end is told.
      Sql(path, "pragma locking_mode=exclusive; begin exclusive; commit");
      EXPECT_TRUE((*source)->Close().ok());
    }
    EXPECT_EQ(Listing(directory()), before) << mode;
    {
      // One that is given up.
      auto source = OpenDumpSource(Options(path), {});
      ASSERT_TRUE(source.ok());
      ASSERT_TRUE((*source)->Next().ok());
    }
    EXPECT_EQ(Listing(directory()), before) << mode;
  }
}

TEST_F(DumpSourceTest, RollbackModeHoldsWritersUpWithinTheBudgetOnly) {
  const std::string path = Make("delete", 40'000);
  FakeClock clock;
  OnlineOptions options = Options(path);
  options.clock = &clock;
  auto source = OpenDumpSource(options, {});
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_FALSE((*source)->info().wal);
  ASSERT_TRUE((*source)->Next().ok());
  clock.Advance(milliseconds(2001));
  EXPECT_EQ(ReasonOf(Text(**source).status()), "WRITER_STALL");
  Sql(path, "insert into t(x) values('goes on')");
  EXPECT_EQ(ReasonOf((*source)->Next().status()), "WRITER_STALL");
}

// A helper that is long at one row asks for no page and writes no text.
TEST_F(DumpSourceTest, ASilentHelperHoldsNobodyUpForLonger) {
  const std::string path = Make("delete");
  Shell("printf '#!/bin/sh\nexec sleep 1000\n' > " + Path("silent") + " && chmod 755 " + Path("silent"));
  FakeClock clock;
  OnlineOptions options = Options(path);
  options.clock = &clock;
  dump::HelperOptions helper;
  helper.helper = Path("silent");
  helper.time = std::chrono::seconds(1);
  auto source = OpenDumpSource(options, {}, helper);
  ASSERT_TRUE(source.ok()) << source.status();
  clock.Advance(milliseconds(2001));
  const absl::Status stalled = (*source)->Next().status();
  EXPECT_EQ(ReasonOf(stalled), "WRITER_STALL") << stalled;
  Sql(path, "insert into t(x) values('goes on')");
  EXPECT_EQ(ReasonOf((*source)->Next().status()), "WRITER_STALL");
}

TEST_F(DumpSourceTest, ACancelEndsIt) {
  const std::string path = Make("wal", 40'000);
  bool cancelled = false;
  OnlineOptions options = Options(path);
  options.cancelled = [&] { return cancelled; };
  auto source = OpenDumpSource(options, {});
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_TRUE((*source)->Next().ok());
  cancelled = true;
  EXPECT_EQ(ReasonOf(Text(**source).status()), "CANCELLED");
}

TEST_F(DumpSourceTest, ErrorsNameThePathAndTheReason) {
  EXPECT_EQ(ReasonOf(OpenDumpSource(Options(Path("missing.db")), {}).status()), "DATABASE_MISSING");
  const std::string path = Make("delete");
  auto source = OpenDumpSource(Options(path), {.tables = {"nothing"}});
  ASSERT_TRUE(source.ok());
  const absl::Status refused = Text(**source).status();
  EXPECT_EQ(ReasonOf(refused), "TABLE_NOT_FOUND");
  EXPECT_NE(MessageOf(refused).find(path), std::string::npos);
}

}  // namespace
}  // namespace litefleet::capture
