// Databases in a temporary directory, dumped and loaded in this process: what the helper process does, where a test made the database.
#ifndef LITEFLEET_TESTS_UNIT_COMMON_DUMP_DUMP_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_COMMON_DUMP_DUMP_FIXTURE_H_

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "common/dump/dump_writer.h"
#include "common/dump/loader.h"
#include "common/dump/query.h"
#include "common/sqlite/handle.h"

namespace litefleet::dump {

class DumpTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "dump-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }

  // A fresh database.
  sqlite::DatabaseHandle Make(const std::string& name, const std::string& sql) {
    for (const char* suffix : {"", "-wal", "-shm", "-journal"}) std::filesystem::remove(Path(name) + suffix);
    auto db = sqlite::Open(Path(name), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    EXPECT_TRUE(db.ok()) << db.status();
    const absl::Status made = sqlite::Execute(db->get(), sql);
    EXPECT_TRUE(made.ok()) << made;
    return *std::move(db);
  }
  static std::string Dump(sqlite3* db, const DumpOptions& options = {}) {
    std::string text;
    TextOutput out([&](std::string_view piece) {
      text += piece;
      return true;
    });
    const Ended ended = WriteDump(db, options, out);
    EXPECT_EQ(ended.end, End::kOk) << ended.message;
    return text;
  }
  static Ended Load(sqlite3* db, std::string_view text, size_t slice = 1000, size_t most = 64 << 20) {
    return LoadText(db, {.statement_bytes = most}, [&](std::string_view& piece) {
      piece = text.substr(0, slice);
      text.remove_prefix(piece.size());
      return true;
    });
  }
  static bool HasCli() { return system("command -v sqlite3 >/dev/null") == 0; }
  // What the sqlite3 CLI writes; REQUIRES: HasCli().
  std::string CliDump(const std::string& name) { return Run("sqlite3 '" + Path(name) + "' .dump"); }
  std::string DumpOfWhatTheCliLoads(const std::string& text) {
    std::filesystem::remove(Path("c.db"));
    std::ofstream(Path("dump.sql"), std::ios::binary) << text;
    Run("sqlite3 -cmd 'pragma synchronous=off' '" + Path("c.db") + "' < '" + Path("dump.sql") + "'");
    const auto loaded = sqlite::Open(Path("c.db"), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    EXPECT_TRUE(loaded.ok());
    return loaded.ok() ? Dump(loaded->get()) : std::string();
  }
  static std::string Run(const std::string& command) {
    FILE* pipe = popen((command + " 2>&1").c_str(), "r");
    std::string output;
    char buffer[65536];
    for (size_t n = 0; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, n);
    EXPECT_EQ(pclose(pipe), 0) << command << ": " << output.substr(0, 500);
    return output;
  }
  // "ok", what SQLite finds, or why it cannot look.
  static std::string Check(sqlite3* db) {
    std::string found;
    Query check(db, "pragma integrity_check");
    while (check.Step()) found += check.Text(0);
    return found + check.Result("the check").message;
  }
  // By a connection that ignores nothing.
  std::string Check(const std::string& name) const {
    const auto db = sqlite::Open(Path(name), SQLITE_OPEN_READWRITE);
    return db.ok() ? Check(db->get()) : db.status().ToString();
  }

  std::string folder_;
};

}  // namespace litefleet::dump

#endif  // LITEFLEET_TESTS_UNIT_COMMON_DUMP_DUMP_FIXTURE_H_
