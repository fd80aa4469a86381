// The real programs: crashes while a controller, a device or a certificate is made; clocks that are far off; addresses and signals.
#include <glob.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "agent/state/identity.h"
#include "common/base/sanitizer.h"
#include "common/base/status.h"
#include "common/io/admin_socket.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/schema.h"
#include "controller/identity/authority.h"
#include "tests/integration/harness/programs.h"

namespace litefleet::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using Time = std::chrono::steady_clock;

constexpr int kKilled = -1;  // of Result

std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

template <class Condition>
bool Await(milliseconds timeout, Condition condition) {
  for (const auto deadline = Time::now() + timeout; !condition(); std::this_thread::sleep_for(milliseconds(20))) {
    if (Time::now() > deadline) return false;
  }
  return true;
}

Environment CrashAt(const std::string& point) { return {{"LITEFLEET_CRASH_AT", point}}; }

class IdentityProgramsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Programs::Available())
        << "build them (ninja litefleet litefleet-agent litefleet-controller litefleet-check), or set LITEFLEET_BIN";
  }
  static Result Controller(std::vector<std::string> arguments, const Environment& environment = {}) {
    arguments.insert(arguments.begin(), Programs::Path("litefleet-controller"));
    return Programs::Run(arguments, seconds(60), environment);
  }
  Result Enroll(const std::string& token_file, const Environment& environment = {}) const {
    return Programs::Run({Programs::Path("litefleet-agent"), "enroll", "--controller", programs_.address(), "--token-file", token_file,
                          "--state", programs_.state("pump"), "--name", "pump"},
                         seconds(60), environment);
  }
  std::string NewToken() const {
    const std::string file = programs_.directory() + "/token";
    const Result token = programs_.Cli({"token", "create"});
    EXPECT_EQ(token.exit_code, 0) << token.err;
    std::ofstream(file) << token.out;
    return file;
  }
  // Configuration for a device that was enrolled by hand.
  void Configure() const {
    std::ofstream(programs_.directory() + "/pump.toml")
        << "state = \"" << programs_.state("pump") << "\"\ncontroller = \"" << programs_.address() << "\"\n";
  }
  // The identities that were given out: however often a step was repeated, there is one device.
  void ExpectOneDevice() const {
    const Result list = programs_.Cli({"-o", "name", "device", "list"});
    EXPECT_EQ(list.exit_code, 0) << list.err;
    EXPECT_EQ(std::count(list.out.begin(), list.out.end(), '\n'), 1) << list.out;
  }

  Programs programs_;
};

TEST_F(IdentityProgramsTest, KilledInitIsBegunAnew) {
  for (const std::string point :
       {"init.after_lock", "init.after_mark", "authority.before_root", "init.after_ca", "init.after_catalog", "init.after_operator"}) {
    const std::string data = programs_.directory() + "/" + point;
    ASSERT_EQ(Controller({"init", "--data", data, "--host", "127.0.0.1"}, CrashAt(point)).exit_code, kKilled) << point;
    const Result serve = Controller({"serve", "--data", data, "--listen", "127.0.0.1:0"});
    EXPECT_NE(serve.exit_code, 0) << point;
    EXPECT_THAT(serve.err, HasSubstr("litefleet-controller init")) << point;
    const Result again = Controller({"init", "--data", data, "--host", "127.0.0.1"});
    EXPECT_EQ(again.exit_code, 0) << point << again.err;
    const Result used = Controller({"operator", "create", "ada", "--data", data, "--output", data + "-ada.pem"});
    EXPECT_EQ(used.exit_code, 0) << point << used.err;
    EXPECT_EQ(Controller({"init", "--data", data}).exit_code, 6) << point;
  }
}

TEST_F(IdentityProgramsTest, InitTouchesNothingThatItDidNotMake) {
  const std::string data = programs_.directory() + "/used";
  ASSERT_TRUE(std::filesystem::create_directory(data));
  std::ofstream(data + "/catalog.db") << "mine";
  EXPECT_EQ(Controller({"init", "--data", data}).exit_code, 6);
  EXPECT_EQ(ReadText(data + "/catalog.db"), "mine");
  EXPECT_FALSE(std::filesystem::exists(data + "/lock"));
}

TEST_F(IdentityProgramsTest, EnrolmentKilledOnTheDeviceIsRepeated) {
  programs_.InitController();
  programs_.StartController();
  for (const std::string point : {"identity.after_key", "enroll.after_answer", "identity.after_next_key", "identity.after_certificate"}) {
    const std::string token = NewToken();
    ASSERT_EQ(Enroll(token, CrashAt(point)).exit_code, kKilled) << point;
    const Result again = Enroll(token);
    if (point == "identity.after_certificate") {
      EXPECT_EQ(again.exit_code, 6) << again.err;  // it had got all that it needs
    } else {
      EXPECT_EQ(again.exit_code, 0) << point << again.err;
    }
    ExpectOneDevice();
    Configure();
    programs_.StartAgent("pump");
    EXPECT_TRUE(programs_.AwaitConnected("pump", true)) << point;
    EXPECT_EQ(programs_.agents["pump"].Stop(), 0) << point;
    EXPECT_EQ(programs_.Cli({"device", "revoke", "pump", "--yes"}).exit_code, 0);
    EXPECT_EQ(programs_.Cli({"device", "forget", "pump", "--yes"}).exit_code, 0);
    std::filesystem::remove_all(programs_.state("pump"));
  }
}

TEST_F(IdentityProgramsTest, EnrolmentKilledOnTheControllerIsRepeated) {
  programs_.InitController();
  for (const std::string point : {"enroll.after_token", "enroll.after_certificate"}) {
    programs_.StartController(CrashAt(point));
    const std::string token = NewToken();
    EXPECT_GT(Enroll(token).exit_code, 0) << point;
    EXPECT_EQ(programs_.controller.Wait(seconds(20)), -SIGKILL) << point;
    programs_.StartController();
    const Result again = Enroll(token);
    EXPECT_EQ(again.exit_code, 0) << point << again.err;
    ExpectOneDevice();
    EXPECT_EQ(programs_.Cli({"device", "revoke", "pump", "--yes"}).exit_code, 0);
    EXPECT_EQ(programs_.Cli({"device", "forget", "pump", "--yes"}).exit_code, 0);
    std::filesystem::remove_all(programs_.state("pump"));
    EXPECT_EQ(programs_.controller.Stop(), 0);
  }
}

// Gives the device a certificate that has to be renewed. REQUIRES: neither program runs.
void MakeRenewalDue(const Programs& programs, const std::string& name) {
  const RealClock clock;
  auto device = state::LoadIdentity(programs.state(name));
  ASSERT_TRUE(device.ok()) << device.status();
  const auto authority = identity::Authority::Open(programs.data() + "/ca");
  ASSERT_TRUE(authority.ok()) << authority.status();
  const auto key = crypto::KeyFromPem(device->private_key);
  const SystemTime issued_at = clock.Now() - std::chrono::hours(70 * 24);
  const auto issued = (*authority)->IssueDevice(device->device, **key, issued_at);
  ASSERT_TRUE(issued.ok()) << issued.status();
  catalog::CertificateRow row;
  row.serial = issued->serial;
  row.device = device->device;
  row.role = "device";
  row.key_hash = issued->key_hash;
  row.issued_at = issued_at;
  row.not_after = issued->not_after;
  const auto db = catalog::CatalogDb::Open(programs.data() + "/catalog.db", false, catalog::Migrations());
  ASSERT_TRUE(db.ok()) << db.status();
  ASSERT_TRUE(catalog::IdentityCatalog(**db).AddCertificate(row).ok());
  device->certificate_chain = issued->certificate_chain;
  ASSERT_TRUE(state::SaveIdentity(programs.state(name), *device).ok());
}

bool IsRenewed(const Programs& programs, const std::string& name) {
  const auto device = state::LoadIdentity(programs.state(name));
  return device.ok() && !state::ShouldRenew(*state::ExpiryOf(*device), RealClock().Now());
}

TEST_F(IdentityProgramsTest, RenewalKilledAnywhereIsRepeated) {
  programs_.InitController();
  programs_.StartController();
  programs_.Enroll("pump", {});
  for (const std::string point :
       {"renew.after_answer", "identity.after_next_key", "identity.after_certificate", "enroll.after_certificate"}) {
    EXPECT_EQ(programs_.controller.Stop(), 0);
    MakeRenewalDue(programs_, "pump");
    const bool on_controller = point.starts_with("enroll");
    programs_.StartController(on_controller ? CrashAt(point) : Environment());
    programs_.StartAgent("pump", on_controller ? Environment() : CrashAt(point));
    Daemon& victim = on_controller ? programs_.controller : programs_.agents["pump"];
    ASSERT_EQ(victim.Wait(seconds(30)), -SIGKILL) << point;
    if (on_controller) programs_.StartController();
    programs_.agents["pump"].Stop();  // its next try would be an hour later
    programs_.StartAgent("pump");
    EXPECT_TRUE(Await(seconds(30), [&] { return IsRenewed(programs_, "pump"); })) << point;
    EXPECT_TRUE(programs_.AwaitConnected("pump", true)) << point;
    EXPECT_EQ(programs_.agents["pump"].Stop(), 0) << point;
    ExpectOneDevice();
  }
}

std::string FakeTimeLibrary() {
  glob_t found{};
  std::string path;
  if (glob("/usr/lib/*/faketime/libfaketime.so.1", 0, nullptr, &found) == 0 && found.gl_pathc > 0) path = found.gl_pathv[0];
  globfree(&found);
  return path;
}

TEST_F(IdentityProgramsTest, ADeviceWhoseClockIsFarOffEnrolsAndBacksUp) {
  if (kSanitized) GTEST_SKIP() << "this build has sanitizers, which must be loaded before libfaketime; the build without them runs it";
  const std::string library = FakeTimeLibrary();
  if (library.empty()) GTEST_SKIP() << "there is no libfaketime: deploy/lib/install tests";
  programs_.InitController();
  programs_.StartController();
  // Beyond the end of the server's certificate and the CA's; and as a machine without a battery starts.
  const std::pair<std::string, std::string> kClocks[] = {{"ahead", "+11000d"}, {"epoch", "@1970-01-01 00:10:00"}};
  for (const auto& [name, time] : kClocks) {
    const Environment clock{{"LD_PRELOAD", library}, {"FAKETIME", time}, {"FAKETIME_DONT_FAKE_MONOTONIC", "1"}};
    programs_.Enroll(name, {"main"}, "", clock);
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(programs_.database(name, "main").c_str(), &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(db, "create table t(a); insert into t values (1)", nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(db);
    const std::string enrolled = state::LoadIdentity(programs_.state(name))->certificate_chain;
    programs_.StartAgent(name, clock);
    ASSERT_TRUE(programs_.AwaitConnected(name, true)) << name;
    const Result backup = programs_.Cli({"backup", name + "/main"});
    EXPECT_EQ(backup.exit_code, 0) << name << backup.err;
    const int64_t offset = std::stoll(programs_.CliField({"device", "show", name}, "clock_offset_ms"));
    EXPECT_GT(std::abs(offset) / 1000, 3600 * 24 * 365) << name;
    EXPECT_EQ(offset < 0, name == "ahead");
    const std::string log = programs_.directory() + "/" + name + ".log";
    EXPECT_TRUE(Await(seconds(10), [&] { return ReadText(log).find("this device's clock is") != std::string::npos; })) << name;
    // The controller's time decides when a certificate is renewed.
    EXPECT_EQ(state::LoadIdentity(programs_.state(name))->certificate_chain, enrolled) << name;
    EXPECT_EQ(programs_.agents[name].Stop(), 0) << name;
  }
  const Environment ahead{{"LD_PRELOAD", library}, {"FAKETIME", "+11000d"}, {"FAKETIME_DONT_FAKE_MONOTONIC", "1"}};
  const Result remote = Programs::Run({Programs::Path("litefleet"), "--server", programs_.address(), "--identity",
                                       programs_.data() + "/admin.pem", "-o", "json", "device", "list"},
                                      seconds(60), ahead);
  EXPECT_EQ(remote.exit_code, 0) << remote.err;
  EXPECT_THAT(remote.err, HasSubstr("clock")) << remote.err;
  EXPECT_EQ(remote.out.front(), '{') << remote.out;
}

TEST_F(IdentityProgramsTest, ListensOnIpv6AndIpv4AndUnderstandsBrackets) {
  if (!std::filesystem::exists("/proc/net/if_inet6") || ReadText("/proc/net/if_inet6").empty())
    GTEST_SKIP() << "the kernel has no IPv6 address, not even ::1 (/proc/net/if_inet6)";
  const std::string data = programs_.data();
  ASSERT_EQ(Controller({"init", "--data", data, "--host", "::1", "--host", "127.0.0.1"}).exit_code, 0);
  const std::string ready = programs_.directory() + "/ready6";
  programs_.controller =
      Daemon({Programs::Path("litefleet-controller"), "serve", "--data", data, "--listen", "[::]:0", "--ready-file", ready},
             programs_.directory() + "/controller.log");
  ASSERT_TRUE(Await(seconds(20), [&] { return std::filesystem::exists(ready); }));
  const std::string listening = ReadText(ready);
  ASSERT_TRUE(listening.starts_with("[::]:")) << listening;
  const std::string port = listening.substr(5, listening.find('\n') - 5);
  for (const std::string host : {"[::1]", "127.0.0.1"}) {
    const Result remote =
        Programs::Run({Programs::Path("litefleet"), "--server", host + ":" + port, "--identity", data + "/admin.pem", "device", "list"});
    EXPECT_EQ(remote.exit_code, 0) << host << remote.err;
  }
  const std::string token = NewToken();
  const std::vector<std::string> enroll = {
      Programs::Path("litefleet-agent"), "enroll", "--controller", "[::1]:" + port, "--token-file", token, "--state",
      programs_.state("pump"),           "--name", "pump"};
  const Result enrolled = Programs::Run(enroll);
  EXPECT_EQ(enrolled.exit_code, 0) << enrolled.err;
  std::vector<std::string> bare = enroll;
  bare[3] = "::1";
  const Result without = Programs::Run(bare);
  EXPECT_EQ(without.exit_code, 2);
  EXPECT_THAT(without.err, HasSubstr("[::1]:8742"));
}

TEST_F(IdentityProgramsTest, SocketOfALongPathIsBelowRun) {
  const std::string data = programs_.directory() + "/" + std::string(120, 'd');
  const std::string socket = io::AdminSocketPath(data);
  ASSERT_TRUE(socket.starts_with("/run/litefleet/")) << socket;
  if (access("/run", W_OK) != 0) GTEST_SKIP() << "needs root: where the path of the data directory is long, the socket lies below /run";
  ASSERT_EQ(Controller({"init", "--data", data, "--host", "127.0.0.1"}).exit_code, 0);
  const std::string ready = programs_.directory() + "/ready";
  programs_.controller =
      Daemon({Programs::Path("litefleet-controller"), "serve", "--data", data, "--listen", "127.0.0.1:0", "--ready-file", ready},
             programs_.directory() + "/controller.log");
  ASSERT_TRUE(Await(seconds(20), [&] { return std::filesystem::exists(ready); }));
  struct stat st {};
  ASSERT_EQ(stat(socket.c_str(), &st), 0) << socket;
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  const Result list = Programs::Run({Programs::Path("litefleet"), "--data", data, "device", "list"});
  EXPECT_EQ(list.exit_code, 0) << list.err;
  EXPECT_EQ(programs_.controller.Stop(), 0);
  EXPECT_FALSE(std::filesystem::exists(socket));
}

TEST_F(IdentityProgramsTest, ReloadTellsWhatWaitsForARestartAndKeepsTheOldOfABadFile) {
  programs_.InitController();
  const std::string config = programs_.directory() + "/controller.toml";
  const std::string log = programs_.directory() + "/controller.log";
  const std::string ready = programs_.directory() + "/ready";
  std::ofstream(config) << "listen = \"127.0.0.1:0\"\n";
  programs_.controller =
      Daemon({Programs::Path("litefleet-controller"), "serve", "--data", programs_.data(), "--config", config, "--ready-file", ready}, log);
  ASSERT_TRUE(Await(seconds(20), [&] { return std::filesystem::exists(ready); }));
  const auto reload = [&](const std::string& text, const std::string& answer) {
    std::ofstream(config) << text;
    kill(programs_.controller.pid(), SIGHUP);
    EXPECT_TRUE(Await(seconds(20), [&] { return ReadText(log).find(answer) != std::string::npos; })) << answer;
  };
  reload("listen = \"127.0.0.1:0\"\n[limits]\nuploads = 7\n", "`limits.uploads` has changed: that takes effect after a restart");
  EXPECT_EQ(ReadText(log).find("`listen`"), std::string::npos);
  reload("listne = 1\n", "what was there stays");
  EXPECT_EQ(programs_.Cli({"device", "list"}).exit_code, 0);
  EXPECT_EQ(programs_.controller.Stop(), 0);
}

TEST_F(IdentityProgramsTest, ASecondSignalEndsAtOnce) {
  programs_.InitController();
  programs_.StartController();
  programs_.Enroll("pump", {});
  programs_.StartAgent("pump");
  ASSERT_TRUE(programs_.AwaitConnected("pump", true));
  // Its stream stays open: a clean end waits some seconds for it.
  kill(programs_.agents["pump"].pid(), SIGSTOP);
  kill(programs_.controller.pid(), SIGTERM);
  ASSERT_TRUE(
      Await(seconds(20), [&] { return ReadText(programs_.directory() + "/controller.log").find("stopping") != std::string::npos; }));
  std::this_thread::sleep_for(milliseconds(50));  // between the log and the signals being let through
  kill(programs_.controller.pid(), SIGTERM);
  const int code = programs_.controller.Wait(milliseconds(2000));
  EXPECT_TRUE(code == -SIGTERM || code == 0) << code;
  programs_.StartController();  // what it left behind is in nobody's way
}

}  // namespace
}  // namespace litefleet::test
