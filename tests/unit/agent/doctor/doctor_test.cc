// Breaks each thing that the doctor looks at, and looks what it says.
#include "agent/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <sstream>

#include "agent/agent.h"
#include "agent/capture/copied_files.h"
#include "agent/state/identity.h"
#include "agent/state/state_directory.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "common/rpc/channel.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"
#include "tests/fakes/hanging_listener.h"
#include "tests/fakes/loop_mount.h"
#include "tests/fakes/pretended_file_system.h"
#include "tests/fakes/tls_listener.h"

namespace litefleet {
namespace {

using Level = Finding::Level;
using testing::HasSubstr;
using testing::Not;

class DoctorTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "doctor-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    ASSERT_TRUE(io::MakeDirectory(folder_ + "/state").ok());
    auto config = config::ParseConfig(fmt::format("state = \"{0}/state\"\ncontroller = \"127.0.0.1:{1}\"\n[[database]]\nname = \"app\"\n"
                                                  "path = \"{0}/app.db\"\nbusy_timeout = \"100ms\"\n",
                                                  folder_, UnusedPort()),
                                      "agent.toml");
    ASSERT_TRUE(config.ok()) << config.status();
    config_ = *config;
    ASSERT_TRUE(io::WriteFileAtomic(folder_ + "/agent.toml", "", 0644).ok());
    parts_.probe_timeout = std::chrono::seconds(3);
    Sql("pragma journal_mode=wal; create table t(a); insert into t values(randomblob(3000000))");
    Enrol(90);
  }
  void TearDown() override {
    g_pretended_space = nullptr;
    std::filesystem::remove_all(folder_);
  }

  // Bound, and closed again: nobody listens.
  static int UnusedPort() {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
    close(fd);
    return ntohs(address.sin_port);
  }
  void Sql(const std::string& sql) const {
    auto db = sqlite::Open(folder_ + "/app.db", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    ASSERT_TRUE(db.ok()) << db.status();
    const absl::Status done = sqlite::Execute(db->get(), sql);
    ASSERT_TRUE(done.ok()) << done;
  }
  // An identity whose certificate is valid for so many days.
  void Enrol(int days) {
    const std::string state = folder_ + "/state";
    std::filesystem::remove_all(state + "/identity");
    state::DeviceIdentity identity;
    identity.device = DeviceId(NewUuid());
    identity.name = "kiosk";
    identity.controller = "127.0.0.1:1";
    identity.private_key = *state::LoadOrCreateKey(state);
    const std::string command = fmt::format(
        "openssl req -x509 -new -key {0}/identity/key.pem -subj /CN=kiosk -days {1} -out {0}/cert.pem 2>/dev/null", state, days);
    ASSERT_EQ(std::system(command.c_str()), 0);
    identity.certificate_chain = *io::ReadFile(state + "/cert.pem");
    identity.ca_certificate = identity.certificate_chain;
    ASSERT_TRUE(state::SaveIdentity(state, identity).ok());
  }
  // By check; of a database by its name, too.
  std::map<std::string, Finding> Look() const {
    std::map<std::string, Finding> found;
    for (const Finding& finding : Diagnose(folder_ + "/agent.toml", config_, parts_)) {
      EXPECT_NE(finding.message, "") << finding.check;
      EXPECT_EQ(finding.fix.empty(), finding.level == Level::kOk) << finding.check << ": " << finding.message;
      EXPECT_EQ(finding.subject.empty(), !finding.check.starts_with("database-")) << finding.check;
      // The worst counts.
      const auto [at, fresh] = found.emplace(finding.check, finding);
      if (!fresh && finding.level > at->second.level) at->second = finding;
    }
    return found;
  }
  Finding LookAt(const std::string& check) const {
    const auto found = Look();
    const auto at = found.find(check);
    return at != found.end() ? at->second : Finding{Level::kOk, "", "", "no such finding", ""};
  }
  void ExpectIs(const std::string& check, Level level, const std::string& message) const {
    const Finding finding = LookAt(check);
    EXPECT_EQ(finding.check, check);
    EXPECT_EQ(static_cast<int>(finding.level), static_cast<int>(level)) << check << ": " << finding.message;
    EXPECT_THAT(finding.message, HasSubstr(message));
  }

  std::string folder_;
  config::AgentConfig config_;
  DoctorParts parts_;
};

TEST_F(DoctorTest, EverythingButTheControllerIsWell) {
  const auto found = Look();
  for (const char* check :
       {"configuration", "configuration-trust", "state", "state-space", "identity", "certificate", "name-resolution", "tls", "clock",
        "check-helper", "database-directory", "database-locks", "database-opens", "database-journal-mode", "database-space"}) {
    ASSERT_TRUE(found.contains(check)) << check;
    const Level expected = std::string(check) == "tls" ? Level::kFail : Level::kOk;
    EXPECT_EQ(static_cast<int>(found.at(check).level), static_cast<int>(expected)) << check << ": " << found.at(check).message;
  }
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/app.db-wal")) << "nothing is left behind";
}

TEST_F(DoctorTest, Configuration) {
  const auto bad = config::ParseConfig("controler = \"x:1\"\n", "agent.toml");
  std::ostringstream out;
  EXPECT_EQ(RunDoctor("agent.toml", bad, true, out), 1);
  EXPECT_THAT(out.str(), HasSubstr("\"check\":\"configuration\""));
  EXPECT_THAT(out.str(), HasSubstr("controler"));
  EXPECT_THAT(out.str(), HasSubstr("\"ok\":false"));
  config_.databases.clear();
  ExpectIs("configuration", Level::kWarn, "names no database");
}

// Also where it allows everything: who may write it need not leave a rule in it that the agent would refuse for.
TEST_F(DoctorTest, ConfigurationThatOthersMayWrite) {
  ASSERT_EQ(chmod((folder_ + "/agent.toml").c_str(), 0666), 0);
  ExpectIs("configuration-trust", Level::kWarn, folder_ + "/agent.toml can be written by others");
  config_.databases[0].push_restore = "signed";
  ExpectIs("configuration-trust", Level::kFail, "restores from afar are refused");
  ASSERT_EQ(chmod((folder_ + "/agent.toml").c_str(), 0640), 0);
  ExpectIs("configuration-trust", Level::kOk, "");
  ASSERT_EQ(chmod(folder_.c_str(), 0777), 0);
  ExpectIs("configuration-trust", Level::kFail, folder_ + " can be written by others");
}

TEST_F(DoctorTest, StateDirectory) {
  chmod((folder_ + "/state").c_str(), 0755);
  ExpectIs("state", Level::kWarn, "can be read by others");
  config_.state = folder_ + "/app.db";
  ExpectIs("state", Level::kFail, "no state directory");
  config_.state = folder_ + "/nowhere";
  ExpectIs("state", Level::kFail, "no state directory");
  EXPECT_FALSE(std::filesystem::exists(config_.state)) << "the doctor makes nothing";
}

TEST_F(DoctorTest, StateDirectoryOnANetworkFileSystem) {
  std::filesystem::remove_all(folder_ + "/state/identity");  // so that an agent which is let on ends there
  g_pretended_magic = 0xff534d42;
  ExpectIs("state", Level::kFail, "is on a network file system (cifs)");
  const auto refused = Agent::Start({}, config_);
  config_.allow_network_file_system = true;
  ExpectIs("state", Level::kOk, "state");
  const auto allowed = Agent::Start({}, config_);
  g_pretended_magic = 0;
  EXPECT_EQ(ReasonOf(refused.status()), "NETWORK_FILE_SYSTEM");
  EXPECT_EQ(ReasonOf(allowed.status()), "NOT_ENROLLED");
}

TEST_F(DoctorTest, StateDirectoryOfAnotherUser) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to become another user";
  chmod((folder_ + "/state").c_str(), 0700);
  chmod(folder_.c_str(), 0755);
  const pid_t pid = fork();
  if (pid == 0) {
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(2);
    const Finding finding = LookAt("state");
    _exit(finding.level == Level::kFail && finding.message.find("may not be written") != std::string::npos ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(DoctorTest, DirectoryThatThisUserMayNotWrite) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to become another user";
  ExpectIs("database-directory", Level::kOk, folder_);
  chmod(folder_.c_str(), 0755);
  const pid_t pid = fork();
  if (pid == 0) {
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(2);
    const Finding finding = LookAt("database-directory");
    _exit(finding.level == Level::kFail && finding.message.find("as user 65534, may not write in") != std::string::npos ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  config_.databases[0].path = folder_ + "/nowhere/app.db";
  ExpectIs("database-directory", Level::kFail, "nowhere");
}

TEST_F(DoctorTest, Space) {
  config_.disk_reserve = io::DiskReserve(uint64_t{1} << 60);
  ExpectIs("state-space", Level::kFail, "less than the reserve");
  ExpectIs("database-space", Level::kFail, "every restore needs");
  // Beside 3 MB: for a staging file, and not for the undo and the journal of a live restore as well; then not even for that.
  config_.disk_reserve = io::DiskReserve(0);
  const auto leave = [](uint64_t mib) {
    g_pretended_space = [mib](struct statvfs& space) { space.f_bavail = static_cast<fsblkcnt_t>((mib << 20) / space.f_frsize); };
  };
  leave(8);
  ExpectIs("database-space", Level::kWarn, "8 MiB are free beside it, a restore may need");
  leave(2);
  ExpectIs("database-space", Level::kFail, "2 MiB are free beside it, and every restore needs");
  leave(20);
  ExpectIs("database-space", Level::kOk, "");
}

TEST_F(DoctorTest, Identity) {
  chmod((folder_ + "/state/identity/key.pem").c_str(), 0644);
  ExpectIs("identity", Level::kFail, "can be read by others");
  ASSERT_TRUE(io::WriteFileAtomic(folder_ + "/state/identity/key.pem", "nonsense").ok());
  ExpectIs("identity", Level::kFail, "does not belong");
  std::filesystem::remove_all(folder_ + "/state/identity");
  ExpectIs("identity", Level::kFail, "holds no identity");
}

TEST_F(DoctorTest, Certificate) {
  Enrol(20);
  ExpectIs("certificate", Level::kWarn, "ends at");
  class Later final : public Clock {
   public:
    SystemTime Now() const override { return RealClock().Now() + std::chrono::hours(24 * 40); }
    SteadyTime Steady() const override { return RealClock().Steady(); }
    std::chrono::nanoseconds SinceBoot() const override { return RealClock().SinceBoot(); }
  } later;
  parts_.clock = &later;
  ExpectIs("certificate", Level::kFail, "expired at");
}

TEST_F(DoctorTest, NameResolutionAndTls) {
  ExpectIs("tls", Level::kFail, "Connection refused");
  config_.controller = *rpc::ParseAddress("no-such-host.invalid:8742");
  ExpectIs("name-resolution", Level::kFail, "no-such-host.invalid has no address");
}

TEST_F(DoctorTest, SomebodyElseAtTheControllersAddress) {
  // Answers, and is no TLS server of this device's CA.
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ASSERT_EQ(listen(listener, 8), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    for (;;) {
      const int peer = accept(listener, nullptr, nullptr);
      static_cast<void>(!write(peer, "HTTP/1.0 400 Bad\r\n\r\n", 20));
      close(peer);
    }
  }
  close(listener);
  config_.controller = *rpc::ParseAddress(fmt::format("127.0.0.1:{}", ntohs(address.sin_port)));
  ExpectIs("tls", Level::kFail, "does not speak TLS as a controller does");
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
}

TEST_F(DoctorTest, ClockThatWasNeverSet) {
  FakeClock epoch;
  epoch.JumpSystem(-(epoch.Now() - SystemTime()));
  parts_.clock = &epoch;
  ExpectIs("clock", Level::kWarn, "the clock says 1970");
}

TEST_F(DoctorTest, ClockThatDiffersFromTheControllers) {
  const auto state = state::StateDirectory::Open(config_.state);
  ASSERT_TRUE(state.ok());
  storage::v1::AgentConnection connection;
  connection.set_welcomed_at_ms(1);
  connection.set_clock_offset_ms(-60'000);
  ASSERT_TRUE(state->WriteConnection(connection).ok());
  ExpectIs("clock", Level::kWarn, "-60000 ms");
  connection.set_clock_offset_ms(20);
  ASSERT_TRUE(state->WriteConnection(connection).ok());
  ExpectIs("clock", Level::kOk, "20 ms");
}

TEST_F(DoctorTest, CheckHelper) {
  parts_.check_helper = folder_ + "/nothing";
  ExpectIs("check-helper", Level::kFail, "cannot be started");
}

// As where a library of it is missing, the sandbox is refused, or it is of another version.
TEST_F(DoctorTest, CheckHelperThatStartsAndDoesNotWork) {
  parts_.check_helper = folder_ + "/helper";
  const auto does = [this](const std::string& what) {
    ASSERT_TRUE(io::WriteFileAtomic(parts_.check_helper, "#!/bin/sh\n" + what + "\n", 0755).ok());
  };
  does("exit 127");
  ExpectIs("check-helper", Level::kFail, "helper does not work: ");
  ExpectIs("check-helper", Level::kFail, "ended with code 127");
  does("kill -SEGV $$");
  ExpectIs("check-helper", Level::kFail, "ended by signal 11");
  does("echo what?; echo is this");
  ExpectIs("check-helper", Level::kFail, "answered nonsense");
  does("echo message the sandbox could not be closed; echo verdict failed");
  ExpectIs("check-helper", Level::kFail, "the sandbox could not be closed");
  parts_.probe_timeout = std::chrono::milliseconds(300);
  does("exec /bin/sleep 60");
  ExpectIs("check-helper", Level::kFail, "no answer within 300 ms");
}

// As where /proc is not all that the kernel has: in some sandboxes, or hidden by whoever runs the container.
TEST_F(DoctorTest, LocksThatCannotBeSeen) {
  ExpectIs("database-locks", Level::kOk, "who has it open is seen");
  ASSERT_TRUE(io::WriteFileAtomic(folder_ + "/no-locks", "").ok());
  constexpr int kNoMounts = 77;
  const pid_t pid = fork();
  if (pid == 0) {
    // What is mounted is this child's alone.
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount((folder_ + "/no-locks").c_str(), "/proc/locks", nullptr, MS_BIND, nullptr) != 0)
      _exit(kNoMounts);
    std::filesystem::remove_all(folder_ + "/state/identity");  // and so it calls nobody
    const Finding finding = LookAt("database-locks");
    _exit(finding.level == Level::kWarn && finding.message.find("is not found in /proc/locks") != std::string::npos ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kNoMounts) GTEST_SKIP() << "needs the right to mount";
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_F(DoctorTest, DatabaseThatIsMissingOrNone) {
  std::filesystem::remove(folder_ + "/app.db");
  ExpectIs("database-opens", Level::kFail, "app.db");
  ASSERT_TRUE(io::WriteFileAtomic(folder_ + "/app.db", std::string(8192, 'x')).ok());
  ExpectIs("database-opens", Level::kFail, "app.db");
  std::filesystem::remove(folder_ + "/app.db");
  std::filesystem::create_directory(folder_ + "/app.db");
  ExpectIs("database-opens", Level::kFail, "app.db");
}

TEST_F(DoctorTest, DatabaseThatIsLocked) {
  Sql("pragma journal_mode=delete");
  const pid_t pid = fork();
  if (pid == 0) {
    auto db = sqlite::Open(folder_ + "/app.db", SQLITE_OPEN_READWRITE);
    if (!sqlite::Execute(db->get(), "begin exclusive").ok() || !io::WriteFileAtomic(folder_ + "/locked", "").ok()) _exit(1);
    for (;;) pause();
  }
  for (int i = 0; i < 1000 && !std::filesystem::exists(folder_ + "/locked"); ++i) usleep(10'000);
  ExpectIs("database-opens", Level::kFail, "lock");
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
}

TEST_F(DoctorTest, DatabaseWhoseBackupWouldHoldWritersUp) {
  Sql("pragma journal_mode=delete");
  ExpectIs("database-journal-mode", Level::kOk, "rollback journal");
  config_.databases[0].rollback_stall = std::chrono::milliseconds(10);
  ExpectIs("database-journal-mode", Level::kWarn, "rollback_stall allows 10 ms");
}

TEST_F(DoctorTest, DatabaseWhoseBackupSharesBlocks) {
  std::filesystem::create_directory(folder_ + "/xfs");
  const LoopMount mount(folder_ + "/xfs", kXfs);
  if (!mount.mounted()) GTEST_SKIP() << mount.why();
  Sql("pragma journal_mode=delete");
  config_.databases[0].rollback_stall = std::chrono::milliseconds(10);
  config_.databases[0].method = "file";
  if (!capture::CanShareBlocks(folder_)) {
    ExpectIs("database-journal-mode", Level::kWarn, "rollback_stall allows 10 ms");
    EXPECT_THAT(LookAt("database-journal-mode").fix, Not(HasSubstr("method")));
  }
  std::filesystem::copy_file(folder_ + "/app.db", folder_ + "/xfs/app.db");
  config_.databases[0].path = folder_ + "/xfs/app.db";
  ExpectIs("database-journal-mode", Level::kOk, "shares blocks");
  config_.databases[0].method = "online";
  ExpectIs("database-journal-mode", Level::kWarn, "rollback_stall allows 10 ms");
  EXPECT_THAT(LookAt("database-journal-mode").fix, HasSubstr("method = \"file\""));
}

TEST_F(DoctorTest, ShmOfAnotherUser) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to give files away";
  const pid_t pid = fork();
  if (pid == 0) {
    auto db = sqlite::Open(folder_ + "/app.db", SQLITE_OPEN_READWRITE);
    if (!sqlite::Execute(db->get(), "insert into t values(1)").ok() || !io::WriteFileAtomic(folder_ + "/open", "").ok()) _exit(1);
    for (;;) pause();
  }
  for (int i = 0; i < 1000 && !std::filesystem::exists(folder_ + "/open"); ++i) usleep(10'000);
  ExpectIs("database-shm-owner", Level::kOk, "the database's owner");
  ASSERT_EQ(chown((folder_ + "/app.db-shm").c_str(), 4711, 4711), 0);
  ExpectIs("database-shm-owner", Level::kFail, "belongs to user 4711");
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
}

// A TLS server as the controller is one.
class PeerTest : public DoctorTest {
 protected:
  static void SetUpTestSuite() { static const rpc::GrpcRuntime runtime; }
  void TearDown() override {
    listener_.Stop();
    DoctorTest::TearDown();
  }
  // PEM files.
  struct Authority {
    std::string certificate;
    std::string key;
  };
  // What the device trusts.
  Authority Own() const { return {folder_ + "/state/cert.pem", folder_ + "/state/identity/key.pem"}; }
  Authority Other() const {
    const Authority other{folder_ + "/other.pem", folder_ + "/other-key.pem"};
    Openssl(fmt::format("req -x509 {} -subj /CN=other -days 9 -keyout {} -out {}", kNewKey, other.key, other.certificate));
    return other;
  }
  // Whose certificate `ca` signs for `name`, and which takes clients that `clients` has signed alone.
  void Serve(const Authority& ca, const std::string& name, const Authority& clients) {
    const std::string key = folder_ + "/server-key.pem", request = folder_ + "/server.csr", certificate = folder_ + "/server.pem";
    Openssl(fmt::format("req -new {} -subj /CN=server -addext subjectAltName={} -keyout {} -out {}", kNewKey, name, key, request));
    Openssl(fmt::format("x509 -req -in {} -CA {} -CAkey {} -CAcreateserial -copy_extensions copy -days 9 -out {}", request, ca.certificate,
                        ca.key, certificate));
    ASSERT_TRUE(listener_.certificates().Set({*io::ReadFile(key), *io::ReadFile(certificate), *io::ReadFile(clients.certificate)}).ok());
    listener_.Start(config_.controller);
  }

 private:
  static constexpr char kNewKey[] = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
  static void Openssl(const std::string& arguments) {
    ASSERT_EQ(std::system(("openssl " + arguments + " 2>/dev/null").c_str()), 0) << arguments;
  }
  fakes::TlsListener listener_;
};

TEST_F(PeerTest, TheController) {
  Serve(Own(), "IP:127.0.0.1", Own());
  ExpectIs("tls", Level::kOk, "is the controller of this device");
}

TEST_F(PeerTest, AServerWithACertificateOfAnotherCa) {
  Serve(Other(), "IP:127.0.0.1", Own());
  ExpectIs("tls", Level::kFail, "shows a certificate that the CA which this device knows has not signed");
  EXPECT_THAT(LookAt("tls").fix, HasSubstr("enrol this device anew"));
}

TEST_F(PeerTest, AServerWhoseCertificateIsForAnotherName) {
  Serve(Own(), "DNS:elsewhere.example", Own());
  ExpectIs("tls", Level::kFail, "does not name 127.0.0.1, only DNS:elsewhere.example");
}

TEST_F(PeerTest, AControllerThatRefusesThisDevice) {
  Serve(Own(), "IP:127.0.0.1", Other());
  ExpectIs("tls", Level::kFail, "is the controller of this device, and ended the connection");
  EXPECT_THAT(LookAt("tls").fix, HasSubstr("controller's log"));
}

// It hangs, or what is in between does: no other program listens there, as far as is known.
TEST_F(PeerTest, AControllerThatSaysNothing) {
  parts_.probe_timeout = std::chrono::milliseconds(500);
  const fakes::HangingListener listener;
  config_.controller = *rpc::ParseAddress(fmt::format("127.0.0.1:{}", listener.port()));
  ExpectIs("tls", Level::kFail, "no answer in time");
  EXPECT_THAT(LookAt("tls").fix, HasSubstr("look whether the controller runs"));
}

// Each byte is an answer, and all of them are none in time.
TEST_F(PeerTest, AControllerThatAnswersByTheByte) {
  parts_.probe_timeout = std::chrono::milliseconds(500);
  const fakes::HangingListener listener(fakes::HangingListener::BeginOfHandshake(), 200);
  config_.controller = *rpc::ParseAddress(fmt::format("127.0.0.1:{}", listener.port()));
  ExpectIs("tls", Level::kFail, "no answer in time");
}

}  // namespace
}  // namespace litefleet
