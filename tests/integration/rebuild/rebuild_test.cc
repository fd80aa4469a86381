// The catalog of a real fleet is lost and made anew: every snapshot downloads, the agents go on; with and without the CA.
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>

#include "common/sqlite/handle.h"
#include "tests/integration/harness/programs.h"

namespace litefleet::test {
namespace {

namespace fs = std::filesystem;

void Do(const std::string& path, const std::string& sql) {
  auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  ASSERT_TRUE(db.ok()) << db.status();
  const absl::Status status = sqlite::Execute(db->get(), sql);
  ASSERT_TRUE(status.ok()) << status;
}

int64_t Ask(const std::string& path, const std::string& sql) {
  auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE);
  EXPECT_TRUE(db.ok()) << db.status();
  return sqlite::QueryInt(db->get(), sql).value_or(-1);
}

class RebuildProgramsTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Programs::Available()) << "build the programs, or set LITEFLEET_BIN: there are none in " << Programs::Path("");
    programs_.InitController();
    if (HasFatalFailure()) return;
    programs_.StartController();
    if (HasFatalFailure()) return;
    for (const char* device : {"one", "two"}) {
      Do(programs_.database(device, "main"), "pragma journal_mode=wal; create table t(x, y)");
      programs_.Enroll(device, {"main"});
      if (HasFatalFailure()) return;
      programs_.StartAgent(device);
      ASSERT_TRUE(programs_.AwaitConnected(device, true));
    }
    for (int i = 0; i < 3; ++i) {
      for (const char* device : {"one", "two"}) {
        Do(programs_.database(device, "main"), "insert into t values(" + std::to_string(i) + ", randomblob(100000))");
        snapshots_.push_back(programs_.CliField({"backup", std::string(device) + "/main"}, "snapshot"));
      }
    }
    ASSERT_EQ(programs_.Cli({"device", "label", "one", "site=north"}).exit_code, 0);
    { std::ofstream(passphrase()) << "correct horse battery\n"; }
    const Result exported = Controller({"export-keys", "--output", keys(), "--passphrase-file", passphrase()});
    ASSERT_EQ(exported.exit_code, 0) << exported.err;
    EXPECT_EQ(programs_.controller.Stop(), 0);
  }
  std::string passphrase() const { return programs_.directory() + "/passphrase"; }
  std::string keys() const { return programs_.directory() + "/keys.pem"; }
  Result Controller(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), Programs::Path("litefleet-controller"));
    arguments.insert(arguments.end(), {"--data", programs_.data()});
    return Programs::Run(arguments);
  }
  void Lose(const std::vector<std::string>& names) {
    for (const std::string& name : names) fs::remove_all(programs_.data() + "/" + name);
  }
  void ExpectEverySnapshot() {
    for (size_t i = 0; i < snapshots_.size(); ++i) {
      const std::string file = programs_.directory() + "/" + snapshots_[i] + ".db";
      const Result result = programs_.Cli({"snapshot", "download", snapshots_[i], "--output", file});
      ASSERT_EQ(result.exit_code, 0) << result.err;
      EXPECT_EQ(Ask(file, "select count(*) from t"), static_cast<int64_t>(i / 2 + 1));
      EXPECT_EQ(Ask(file, "select count(*) from pragma_integrity_check where integrity_check <> 'ok'"), 0);
    }
  }
  void ExpectAgentsGoOn() {
    for (const char* device : {"one", "two"}) {
      ASSERT_TRUE(programs_.AwaitConnected(device, true));
      Do(programs_.database(device, "main"), "insert into t values(99, 99)");
      EXPECT_NE(programs_.CliField({"backup", std::string(device) + "/main"}, "snapshot"), "");
      const Result restored =
          programs_.Cli({"restore", std::string(device) + "/main", "--snapshot", snapshots_[device[0] == 'o' ? 0 : 1], "--yes"});
      EXPECT_EQ(restored.exit_code, 0) << restored.err;
      EXPECT_EQ(Ask(programs_.database(device, "main"), "select count(*) from t"), 1);
    }
  }

  Programs programs_;
  std::vector<std::string> snapshots_;
};

TEST_F(RebuildProgramsTest, TheCatalogIsLostAndTheFleetGoesOn) {
  const Result refused = Controller({"rebuild"});
  EXPECT_EQ(refused.exit_code, 6) << "there is a catalog: " << refused.out << refused.err;
  Lose({"catalog.db", "catalog.db-wal", "catalog.db-shm"});
  const Result rebuilt = Controller({"rebuild"});
  ASSERT_EQ(rebuilt.exit_code, 0) << rebuilt.err;
  EXPECT_NE(rebuilt.out.find("recovered 2 devices, 2 databases, 6 snapshots"), std::string::npos) << rebuilt.out;
  programs_.StartController();
  ExpectEverySnapshot();
  EXPECT_NE(programs_.Cli({"-o", "json", "device", "show", "one"}).out.find("\"site\":\"north\""), std::string::npos);
  ExpectAgentsGoOn();
}

// Whoever has the directory is named, and nothing is changed: neither beside a controller that serves nor beside another rebuild.
TEST_F(RebuildProgramsTest, BesideAControllerOrAnotherRebuildItIsRefused) {
  const auto expect_refused = [&](pid_t owner) {
    const Result refused = Controller({"rebuild"});
    EXPECT_EQ(refused.exit_code, 6) << refused.out << refused.err;
    EXPECT_NE(refused.err.find("is locked by process " + std::to_string(owner) + "\n"), std::string::npos) << refused.err;
    EXPECT_EQ(refused.out, "");
  };
  programs_.StartController();
  expect_refused(programs_.controller.pid());
  EXPECT_EQ(programs_.CliField({"snapshot", "show", snapshots_[0]}, "id"), snapshots_[0]);
  EXPECT_EQ(programs_.controller.Stop(), 0);
  Lose({"catalog.db", "catalog.db-wal", "catalog.db-shm"});
  Daemon first({Programs::Path("litefleet-controller"), "rebuild", "--data", programs_.data()}, programs_.directory() + "/rebuild.log",
               {{"LITEFLEET_STOP_AT", "rebuild.after_catalog"}});
  int status = 0;
  ASSERT_EQ(waitpid(first.pid(), &status, WUNTRACED), first.pid());
  ASSERT_TRUE(WIFSTOPPED(status)) << status;
  expect_refused(first.pid());
  kill(first.pid(), SIGCONT);
  EXPECT_EQ(first.Wait(std::chrono::seconds(60)), 0);
  programs_.StartController();
  ExpectEverySnapshot();
}

// A rebuild that was cut off leaves no catalog, and the next one is as good as the first would have been.
TEST_F(RebuildProgramsTest, KilledAtEachStepItIsBegunAnew) {
  Lose({"catalog.db", "catalog.db-wal", "catalog.db-shm", "ca"});
  for (const char* point : {"rebuild.after_ca", "rebuild.after_catalog", "rebuild.after_history", "rebuild.before_rename"}) {
    const Result killed = Programs::Run({Programs::Path("litefleet-controller"), "rebuild", "--data", programs_.data(), "--keys", keys(),
                                         "--passphrase-file", passphrase()},
                                        std::chrono::seconds(60), {{"LITEFLEET_CRASH_AT", point}});
    EXPECT_NE(killed.exit_code, 0) << point << ": it never came there";
    EXPECT_EQ(killed.out, "") << point;
    EXPECT_FALSE(fs::exists(programs_.data() + "/catalog.db")) << point;
    EXPECT_TRUE(fs::exists(programs_.data() + "/ca/root.pem")) << "the CA was the first step";
    if (std::string(point) != "rebuild.before_rename") Lose({"ca"});
  }
  const Result rebuilt = Controller({"rebuild"});  // with the CA that the last one brought
  ASSERT_EQ(rebuilt.exit_code, 0) << rebuilt.err;
  EXPECT_NE(rebuilt.out.find("recovered 2 devices, 2 databases, 6 snapshots"), std::string::npos) << rebuilt.out;
  programs_.StartController();
  ExpectEverySnapshot();
  ExpectAgentsGoOn();
}

TEST_F(RebuildProgramsTest, OnlyTheStoreAndTheExportedKeysAreLeft) {
  Lose({"catalog.db", "catalog.db-wal", "catalog.db-shm", "ca", "admin.pem", "scratch"});
  { std::ofstream(passphrase()) << "wrong horse battery\n"; }
  const Result wrong = Controller({"rebuild", "--keys", keys(), "--passphrase-file", passphrase()});
  EXPECT_EQ(wrong.exit_code, 5) << wrong.err;
  { std::ofstream(passphrase()) << "correct horse battery\n"; }
  const Result rebuilt = Controller({"rebuild", "--keys", keys(), "--passphrase-file", passphrase()});
  ASSERT_EQ(rebuilt.exit_code, 0) << rebuilt.err;
  EXPECT_TRUE(fs::exists(programs_.data() + "/admin.pem"));
  programs_.StartController();
  ExpectEverySnapshot();
  ExpectAgentsGoOn();
  const Result remote = Programs::Run(
      {Programs::Path("litefleet"), "--server", programs_.address(), "--identity", programs_.data() + "/admin.pem", "status"});
  EXPECT_EQ(remote.exit_code, 0) << remote.err;
}

TEST_F(RebuildProgramsTest, WithoutKeysDevicesEnrolAgainWithTheirHistory) {
  Lose({"catalog.db", "catalog.db-wal", "catalog.db-shm", "ca", "admin.pem"});
  const Result rebuilt = Controller({"rebuild", "--host", "127.0.0.1", "--host", "localhost"});
  ASSERT_EQ(rebuilt.exit_code, 0) << rebuilt.err;
  EXPECT_NE(rebuilt.out.find("every device must enrol again"), std::string::npos) << rebuilt.out;
  EXPECT_NE(rebuilt.out.find("  two\n"), std::string::npos) << rebuilt.out;
  programs_.StartController();
  ExpectEverySnapshot();
  const Result token = programs_.Cli({"token", "create", "--for-device", "one"});
  EXPECT_EQ(token.exit_code, 0) << token.err;
}

}  // namespace
}  // namespace litefleet::test
