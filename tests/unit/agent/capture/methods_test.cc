// Method x journal mode x state of the application x kind of database: one test a cell, named after it (tests/README.md has the table).
//
// What a snapshot of the cell has to be is known from the application's own words, not from another method. Cells in which nobody can back
// up are refused with the reason that is named here.
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <random>

#include "agent/capture/database_header.h"
#include "agent/capture/dump_source.h"
#include "agent/capture/file_source.h"
#include "common/base/status.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "tests/unit/agent/capture/methods_fixture.h"

namespace litefleet::capture {
namespace {

class ApplicationTest : public MethodsTest {
 protected:
  // What the cell expects: the number of the only state that counts; nothing: any that is whole.
  std::optional<int> Arrange();

  std::optional<Child> application_;
};

std::optional<int> ApplicationTest::Arrange() {
  const std::string& state = GetParam().state;
  Sql(path_, fmt::format("{} {} {}", Mode(), kSixHundredRows, Set(1)));
  const auto run = [&](const std::string& begin, const std::function<void(Connection&, int)>& again = {}, const std::string& end = {}) {
    application_.emplace([=, this](const auto& ready, const auto& stop) {
      Connection db(path_, 20'000);
      db.Run(Mode() + begin);
      ready();
      for (int i = 10; !stop(); ++i) {
        if (again) again(db, i);
        if (!again) usleep(2000);
      }
      if (!end.empty()) db.Run(end);
      return 0;
    });
  };
  if (state == "stopped") return 1;
  if (state == "idle") {
    run(Set(2));
    return 2;
  }
  if (state == "writing") {
    run("pragma synchronous=off;", [](Connection& db, int i) {
      db.Run(Set(i));
      usleep(200);
    });
    return std::nullopt;
  }
  if (state == "reading") {
    run(Set(2) + "begin; select count(*) from t;");
    return 2;
  }
  if (state == "before_commit") {
    run(Set(2) + "begin immediate; update t set i = 3 where id < 5;", {}, "rollback");
    return 2;
  }
  if (state == "spilled") {
    // A large transaction that has got to the database, or the WAL, before its commit.
    wait_ms_ = 200;
    run(Set(2) + "pragma cache_size=3; begin immediate;" + Set(3), {}, "rollback");
    return 2;
  }
  if (state == "locked_exclusive") {
    wait_ms_ = 200;
    run("pragma locking_mode=exclusive;" + Set(2));
    return 2;
  }
  if (state == "crashed_committed") {
    run("pragma wal_autocheckpoint=0;" + Set(2));
    application_->Kill();
    return 2;
  }
  if (state == "crashed_midway") {
    run("pragma wal_autocheckpoint=0;" + Set(2) + "pragma cache_size=3; begin;" + Set(3));
    application_->Kill();
    return 2;
  }
  ADD_FAILURE() << "no such state";
  return std::nullopt;
}

// What a crash left: the last transaction is in the WAL, or a journal takes it back.
void ExpectLog(const std::string& path, bool wal) {
  const std::string log = path + (wal ? "-wal" : "-journal");
  std::error_code missing;
  ASSERT_GT(std::filesystem::file_size(log, missing), 0u) << log;
  ASSERT_FALSE(missing) << log;
  if (!wal) {
    ASSERT_NE(std::ifstream(log, std::ios::binary).get(), 0) << log << " is not hot";
  }
}

TEST_P(ApplicationTest, State) {
  const std::optional<int> expected = Arrange();
  if (GetParam().state == "crashed_midway" || (GetParam().state == "crashed_committed" && Wal())) ExpectLog(path_, Wal());
  const int rounds = expected ? 1 : 5;
  for (int round = 0; round < rounds; ++round) {
    const std::string stored = fmt::format("stored-{}.db", round);
    const std::string reason = Take(stored);
    ASSERT_EQ(reason, GetParam().reason) << said_;
    if (!reason.empty()) break;
    const std::string state = StateOf(stored);
    if (expected) {
      EXPECT_EQ(state, std::to_string(*expected));
    } else {
      EXPECT_THAT(state, testing::MatchesRegex("[0-9]+"));
    }
    EXPECT_EQ(wal_, Wal());
  }
  // The application goes on as if nothing had been.
  if (application_ && !GetParam().state.starts_with("crashed")) {
    EXPECT_EQ(application_->Stop(), 0);
  }
  application_.reset();
  EXPECT_EQ(Query(path_, "pragma integrity_check"), "ok");
}

std::vector<Cell> ApplicationCells() {
  std::vector<Cell> cells;
  for (const char* method : {"online", "file", "dump"}) {
    for (const char* mode : {"delete", "truncate", "persist", "memory", "wal"}) {
      const bool wal = mode == std::string("wal");
      for (const char* state : {"stopped", "idle", "writing", "reading", "before_commit", "spilled", "locked_exclusive",
                                "crashed_committed", "crashed_midway"}) {
        Cell cell{method, mode, state};
        // A journal in memory dies with its application, and the database with it: nothing that a backup could do.
        if (mode == std::string("memory") && state == std::string("crashed_midway")) continue;
        const bool shut = state == std::string("locked_exclusive") && !(wal && method == std::string("file"));
        if (shut || (state == std::string("spilled") && !wal)) cell.reason = "DATABASE_BUSY";
        cells.push_back(cell);
      }
    }
  }
  return cells;
}

INSTANTIATE_TEST_SUITE_P(Application, ApplicationTest, testing::ValuesIn(ApplicationCells()), NameOf);

class ReadOnlyMediumTest : public MethodsTest {};

TEST_P(ReadOnlyMediumTest, State) {
  if (mount("tmpfs", Path("place").c_str(), "tmpfs", 0, "size=16m") != 0) GTEST_SKIP() << "needs the right to mount";
  mounted_ = true;
  Sql(path_, fmt::format("{} {} {}", Mode(), kSixHundredRows, Set(1)));
  const std::string& state = GetParam().state;
  if (state != "clean") {
    Child application([&](const auto& ready, const auto& stop) {
      Connection db(path_);
      db.Run("pragma wal_autocheckpoint=0;" + Set(2) + "pragma cache_size=3; begin;" + Set(3));
      ready();
      while (!stop()) usleep(2000);
      return 0;
    });
    application.Kill();
  }
  if (state != "clean") ExpectLog(path_, Wal());
  ASSERT_EQ(mount(nullptr, Path("place").c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr), 0);
  ASSERT_EQ(Take("stored.db"), GetParam().reason) << said_;
  if (GetParam().reason.empty()) {
    EXPECT_EQ(StateOf("stored.db"), state == "clean" ? "1" : "2");
  }
}

INSTANTIATE_TEST_SUITE_P(Medium, ReadOnlyMediumTest,
                         testing::Values(Cell{"online", "delete", "clean"}, Cell{"online", "wal", "clean"}, Cell{"dump", "delete", "clean"},
                                         Cell{"dump", "wal", "clean"}, Cell{"file", "delete", "clean"}, Cell{"file", "wal", "clean"},
                                         Cell{"online", "delete", "crashed", "NO_PERMISSION"},
                                         Cell{"dump", "delete", "crashed", "NO_PERMISSION"},
                                         Cell{"online", "wal", "crashed", "NO_PERMISSION"}, Cell{"dump", "wal", "crashed", "NO_PERMISSION"},
                                         Cell{"file", "delete", "crashed"}, Cell{"file", "wal", "crashed"}),
                         NameOf);

class KindTest : public MethodsTest {
 protected:
  // Its writes change nothing that a kind is asked about.
  void StartApplication() {
    const std::string& what = GetParam().application;
    if (what == "stopped") return;
    if (what != "idle" && what != "writing") return StartWithChange();
    application_.emplace([what, this](const auto& ready, const auto& stop) {
      Connection db(path_, 20'000);
      db.Run("pragma synchronous=off; select count(*) from sqlite_schema");
      for (int i = 1; !stop(); ++i) {
        if (what == "writing") db.Run(fmt::format("pragma user_version={}", i));
        if (i == 1) ready();
        usleep(what == "writing" ? 200 : 2000);
      }
      return 0;
    });
  }
  // The last transaction is not in the database itself: in the WAL, in a journal that takes it back, or in the application's memory.
  void StartWithChange() {
    const std::string& what = GetParam().application;
    const std::string change = KindOf(GetParam().state).change;
    std::string sql = "pragma wal_autocheckpoint=0;" + change + "; begin; select count(*) from sqlite_schema";
    if (what == "before_commit") sql = "begin immediate;" + change;
    if (what == "locked_exclusive") wait_ms_ = 200;
    if (what == "locked_exclusive") sql = "pragma locking_mode=exclusive; pragma wal_autocheckpoint=0;" + change;
    if (spilled())
      sql = "pragma cache_size=3; begin;" + change + "; create table more as select randomblob(200000); select count(*) from more";
    application_.emplace([sql, this](const auto& ready, const auto& stop) {
      Connection db(path_, 20'000);
      db.Run(sql);
      ready();
      while (!stop()) usleep(2000);
      return 0;
    });
    if (crashed()) application_->Kill();
  }
  bool spilled() const { return GetParam().application == "spilled" || GetParam().application == "crashed_midway"; }
  bool crashed() const { return GetParam().application.starts_with("crashed"); }
  std::optional<Child> application_;
};

TEST_P(KindTest, Kind) {
  const Kind kind = KindOf(GetParam().state);
  MakeKind(path_, GetParam().state, Mode());
  StartApplication();
  if (crashed() || spilled() || GetParam().application == "locked_exclusive") ExpectLog(path_, Wal());
  const std::string before = Listing(Path("place"));
  ASSERT_EQ(Take("stored.db"), "") << said_;
  // To read a WAL or a journal after a crash is to recover it; the method file leaves both as they are.
  if (GetParam().application != "writing" && !(crashed() && GetParam().method != "file")) {
    EXPECT_EQ(Listing(Path("place")), before);
  }
  if (application_ && !crashed()) {
    EXPECT_EQ(application_->Stop(), 0);
  }
  if (!std::filesystem::exists(Path("stored.db"))) Shell("touch '" + Path("stored.db") + "'");
  EXPECT_EQ(Query(Path("stored.db"), "pragma integrity_check"), "ok");
  EXPECT_EQ(Query(Path("stored.db"), kind.question), Query(path_, kind.question));
  for (const char* setting : {"page_size", "encoding", "auto_vacuum"}) {
    const std::string ask = fmt::format("pragma {}", setting);
    EXPECT_EQ(Query(Path("stored.db"), ask), Query(path_, ask)) << setting;
  }
}

std::vector<Cell> KindCells() {
  std::vector<Cell> cells;
  for (const char* method : {"online", "file", "dump"}) {
    for (const std::string& kind : Kinds()) {
      for (const char* mode : {"delete", "wal"}) {
        if (kind == "empty_file" && mode == std::string("wal")) continue;  // it has no mode
        for (const char* application : {"stopped", "idle", "writing", "before_commit"}) {
          // A write would make it a database, and the settings those of the application.
          if ((kind == "empty_file" || kind == "settings") && application == std::string("writing")) continue;
          cells.push_back({method, mode, kind, "", application});
        }
      }
      if (kind == "empty_file") continue;
      // A hot journal has pages of the database's.
      cells.push_back({method, "delete", kind, "", "crashed_midway"});
      // What is in the WAL is of the kind, too.
      for (const char* application : {"reading", "spilled", "crashed_committed"}) cells.push_back({method, "wal", kind, "", application});
      // All else is refused, whatever the kind.
      if (method == std::string("file")) cells.push_back({method, "wal", kind, "", "locked_exclusive"});
      // A journal that is none any more lies beside it.
      for (const char* mode : {"truncate", "persist"}) cells.push_back({method, mode, kind});
    }
  }
  return cells;
}

INSTANTIATE_TEST_SUITE_P(Database, KindTest, testing::ValuesIn(KindCells()), NameOf);

// What is no database for SQLite is named as what it is, by each method, and left as it is.
class ForeignTest : public MethodsTest {
 protected:
  static Bytes Random(size_t size) {
    std::mt19937 random(7);
    Bytes bytes(size);
    for (auto& byte : bytes) byte = static_cast<std::byte>(random());
    return bytes;
  }
  Bytes Content(std::string begin, size_t size = 8192) const {
    begin.resize(size);
    const ByteView bytes = AsBytes(begin);
    return Bytes(bytes.begin(), bytes.end());
  }
};

TEST_P(ForeignTest, File) {
  using std::string_literals::operator""s;
  const std::map<std::string, std::pair<Bytes, std::string>> kinds = {
      {"encrypted", {Random(16384), "encrypted"}},
      {"zipvfs", {Content("ZV-zlib"), "ZIPVFS"}},
      {"sqlite2", {Content("** This file contains an SQLite 2.1 database **"), "SQLite 2"}},
      {"duckdb", {Content("01234567DUCK"), "DuckDB"}},
      {"zip", {Content("PK\x03\x04"), "a zip archive"}},
      {"text", {Content(std::string(5000, 'x'), 5000), "it is text"}},
      {"wal", {Content("\x37\x7f\x06\x82\x00"s), "the WAL of a database"}},
      {"zeros", {Content(""), "does not begin as"}},
  };
  const auto& [bytes, words] = kinds.at(GetParam().state);
  Store(bytes, "place/app.db");
  const std::string before = Listing(Path("place"));
  EXPECT_EQ(Take("stored.db"), GetParam().reason);
  EXPECT_THAT(said_, testing::HasSubstr(words));
  EXPECT_EQ(Listing(Path("place")), before);
}

std::vector<Cell> ForeignCells() {
  std::vector<Cell> cells;
  for (const char* method : {"online", "file", "dump"}) {
    for (const char* kind : {"encrypted", "zipvfs", "sqlite2", "duckdb", "zip", "text", "wal", "zeros"})
      cells.push_back({method, "delete", kind, kind == std::string("encrypted") ? "ENCRYPTED" : "NOT_A_DATABASE"});
  }
  return cells;
}

INSTANTIATE_TEST_SUITE_P(Foreign, ForeignTest, testing::ValuesIn(ForeignCells()), NameOf);

class PlainHeaderTest : public ForeignTest {};

// As SQLCipher leaves it: its pages are copied as they are, and said to be what they look like; no text can be made of them.
TEST_P(PlainHeaderTest, File) {
  Sql(path_, "pragma page_size=4096;" + std::string(kSixHundredRows));
  Bytes bytes = FileBytes(path_);
  const Bytes random = Random(bytes.size());
  bytes[20] = std::byte{80};
  std::copy(random.begin() + 32, random.end(), bytes.begin() + 32);
  Store(bytes, "place/app.db");
  EXPECT_EQ(Take("stored.db"), GetParam().reason) << said_;
  if (GetParam().reason.empty()) {
    EXPECT_TRUE(FileBytes(Path("stored.db")) == bytes);
    EXPECT_THAT(damage_, testing::HasSubstr(kLooksEncrypted));
  }
}

INSTANTIATE_TEST_SUITE_P(Foreign, PlainHeaderTest,
                         testing::Values(Cell{"online", "delete", "x"}, Cell{"file", "delete", "x"},
                                         Cell{"dump", "delete", "x", "ENCRYPTED"}),
                         NameOf);

}  // namespace
}  // namespace litefleet::capture
