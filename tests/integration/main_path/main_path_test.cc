// The main path with the real programs: enrol, back up a live database, download it, put it back, cancel, restart either side.
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "tests/integration/harness/programs.h"

namespace litefleet::test {
namespace {

sqlite::DatabaseHandle OpenDatabase(const std::string& path) {
  auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  EXPECT_TRUE(db.ok()) << db.status();
  sqlite3_busy_timeout(db->get(), 20'000);
  return *std::move(db);
}

void Do(sqlite3* db, const std::string& sql) {
  const absl::Status status = sqlite::Execute(db, sql);
  EXPECT_TRUE(status.ok()) << sql << ": " << status;
}

int64_t Ask(sqlite3* db, const std::string& sql) {
  const auto value = sqlite::QueryInt(db, sql);
  EXPECT_TRUE(value.ok()) << sql << ": " << value.status();
  return value.value_or(-1);
}

// Accounts whose balances always sum to 1000, about a megabyte.
void Fill(const std::string& path) {
  const auto db = OpenDatabase(path);
  Do(db.get(),
     "pragma journal_mode=wal; create table account(id integer primary key, balance integer, padding blob);"
     "with recursive n(i) as (select 1 union all select i + 1 from n where i < 100) insert into account select i, 10, randomblob(10000) "
     "from n");
}

// What a restored or downloaded database must hold whatever moment it shows.
void ExpectSound(const std::string& path) {
  const auto db = OpenDatabase(path);
  EXPECT_EQ(Ask(db.get(), "select count(*) from pragma_integrity_check where integrity_check <> 'ok'"), 0);
  EXPECT_EQ(Ask(db.get(), "select sum(balance) from account"), 1000);
  EXPECT_EQ(Ask(db.get(), "select count(*) from account"), 100);
}

class MainPathTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Programs::Available()) << "build the programs, or set LITEFLEET_BIN: there are none in " << Programs::Path("");
    programs_.InitController();
    if (HasFatalFailure()) return;
    programs_.StartController();
    if (HasFatalFailure()) return;
    path_ = programs_.database("dev", "main");
    Fill(path_);
    programs_.Enroll("dev", {"main", "absent"});
    if (HasFatalFailure()) return;
    programs_.StartAgent("dev");
    ASSERT_TRUE(programs_.AwaitConnected("dev", true));
  }

  std::string Backup() { return programs_.CliField({"backup", "dev/main"}, "snapshot"); }

  std::string Download(const std::string& snapshot) {
    const std::string file = programs_.directory() + "/" + snapshot + ".download";
    const Result result =
        programs_.Cli({"snapshot", "download", snapshot, "--output", file, "--force"});  // an unchanged database has no new one
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return file;
  }

  Programs programs_;
  std::string path_;
};

TEST_F(MainPathTest, ABackupUnderAWriterIsOneMoment) {
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    const auto db = OpenDatabase(path_);
    for (int i = 0; !stop; ++i) {
      Do(db.get(), "begin immediate; update account set balance = balance - 1 where id = " + std::to_string(i % 100 + 1) +
                       "; update account set balance = balance + 1 where id = " + std::to_string((i * 7 + 3) % 100 + 1) + "; commit");
    }
  });
  std::vector<std::string> files;
  for (int i = 0; i < 3; ++i) files.push_back(Download(Backup()));
  stop = true;
  writer.join();
  for (const std::string& file : files) ExpectSound(file);
}

TEST_F(MainPathTest, RestoresLiveUnderAnOpenConnection) {
  const std::string snapshot = Backup();
  const auto held = OpenDatabase(path_);
  Do(held.get(), "delete from account where id > 10");
  const Result restored = programs_.Cli({"restore", "dev/main", "--snapshot", snapshot, "--mode", "live", "--yes"});
  ASSERT_EQ(restored.exit_code, 0) << restored.err;
  EXPECT_EQ(Ask(held.get(), "select count(*) from account"), 100) << "the open connection sees what was restored";
  Do(held.get(), "insert into account values(1000, 0, null)");
  EXPECT_EQ(Ask(OpenDatabase(path_).get(), "select count(*) from account"), 101) << "and its next write survives";
}

TEST_F(MainPathTest, RestoresInPlaceOfADamagedDatabase) {
  const std::string snapshot = Backup();
  {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.write(std::string(4096, '\xff').data(), 4096);
  }
  const Result restored = programs_.Cli({"restore", "dev/main", "--snapshot", snapshot, "--mode", "replace", "--yes"});
  ASSERT_EQ(restored.exit_code, 0) << restored.err;
  ExpectSound(path_);
}

TEST_F(MainPathTest, RestoresWhereNothingIs) {
  const std::string snapshot = Backup();
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path_ + suffix);
  const Result restored = programs_.Cli({"restore", "dev/main", "--snapshot", snapshot, "--yes"});
  ASSERT_EQ(restored.exit_code, 0) << restored.err;
  ExpectSound(path_);
}

TEST_F(MainPathTest, AMissingDatabaseIsARecordedFailure) {
  const Result result = programs_.Cli({"-o", "json", "backup", "dev/absent"});
  EXPECT_EQ(result.exit_code, 4) << result.out << result.err;
  ASSERT_NE(Backup(), "") << "the agent goes on with the others";
}

TEST_F(MainPathTest, AQueuedOrderWaitsIsCancelledOrFetched) {
  programs_.agents["dev"].Kill();
  ASSERT_TRUE(programs_.AwaitConnected("dev", false));
  const std::string cancelled = programs_.CliField({"backup", "dev/main", "--detach"}, "id");
  const std::string fetched = programs_.CliField({"backup", "dev/main", "--detach"}, "id");
  EXPECT_EQ(programs_.CliField({"operation", "show", cancelled}, "state"), "queued");
  const Result cancel = programs_.Cli({"operation", "cancel", cancelled});
  EXPECT_EQ(cancel.exit_code, 0) << cancel.err;
  EXPECT_EQ(programs_.CliField({"operation", "show", cancelled}, "state"), "cancelled");

  // Orders outlive the controller as well.
  programs_.controller.Kill();
  programs_.StartController();
  programs_.StartAgent("dev");
  const Result watched = programs_.Cli({"operation", "watch", fetched});
  EXPECT_EQ(watched.exit_code, 0) << watched.out << watched.err;
  EXPECT_EQ(programs_.CliField({"operation", "show", fetched}, "state"), "succeeded");
  EXPECT_EQ(programs_.CliField({"operation", "show", cancelled}, "state"), "cancelled");
}

TEST_F(MainPathTest, TheAgentComesBackAfterARestartOfTheController) {
  const std::string snapshot = Backup();
  EXPECT_EQ(programs_.controller.Stop(), 0);
  programs_.StartController();
  ASSERT_TRUE(programs_.AwaitConnected("dev", true));
  ExpectSound(Download(snapshot));
  ExpectSound(Download(Backup()));
  EXPECT_EQ(programs_.agents["dev"].Stop(), 0);
  ASSERT_TRUE(programs_.AwaitConnected("dev", false));
}

}  // namespace
}  // namespace litefleet::test
