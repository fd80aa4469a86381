// Breaks each thing that the controller's doctor looks at, and looks what it says. The CA, the catalog and the TLS server are real ones.
#include "controller/doctor/doctor.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/io/admin_socket.h"
#include "common/io/file.h"
#include "common/rpc/channel.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/schema.h"
#include "controller/identity/authority.h"
#include "fmt/format.h"
#include "tests/fakes/pretended_file_system.h"
#include "tests/fakes/tls_listener.h"

namespace {
// What adjtimex says of the clock, unless it is the machine's to say.
std::optional<int> g_clock_state;
}  // namespace

// In the place of the C library's.
extern "C" int adjtimex(struct timex* state) noexcept {
  return g_clock_state.has_value() ? *g_clock_state : static_cast<int>(syscall(SYS_adjtimex, state));
}

namespace litefleet::doctor {
namespace {

using std::chrono::hours;
using testing::HasSubstr;

class DoctorTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { static const rpc::GrpcRuntime runtime; }
  void SetUp() override {
    std::string pattern = testing::TempDir() + "doctor-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    data_ = pattern;
    clock_.JumpSystem(RealClock().Now() - clock_.Now());
    ASSERT_TRUE(identity::Authority::Create(data_ + "/ca", {"localhost", "127.0.0.1"}, clock_.Now()).ok());
    authority_ = std::move(identity::Authority::Open(data_ + "/ca").value());
    OpenCatalog();
    MakeSocket();
    Serve();
    parts_ = {.clock = &clock_,
              .catalog = db_.get(),
              .catalog_backups = [this] { return backups_; },
              .data_directory = data_,
              .config_file = data_ + "/controller.toml",
              .configuration = [this] { return configuration_; },
              .store_reserve = [this] { return reserve_; },
              .hosts = [this] { return authority_->hosts(); },
              .listening = [this] { return listening_; },
              .newest_snapshot_at = [this] { return newest_; },
              .handshake_timeout = std::chrono::milliseconds(2000)};
  }
  void TearDown() override {
    g_pretended_magic = 0;
    g_pretended_space = nullptr;
    g_clock_state.reset();
    listener_.Stop();
    db_.reset();
    std::filesystem::remove_all(data_);
  }

  void OpenCatalog() {
    auto db = catalog::CatalogDb::Open(data_ + "/catalog.db", !std::filesystem::exists(data_ + "/catalog.db"), catalog::Migrations());
    ASSERT_TRUE(db.ok()) << db.status();
    db_ = *std::move(db);
  }
  void MakeSocket() const {
    const io::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = io::AdminSocketPath(data_);
    ASSERT_LT(path.size(), sizeof address.sun_path);
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    chmod(path.c_str(), 0600);
  }
  // A server with the certificate of the CA, as `serve` has it.
  void Serve() {
    const auto identity = authority_->EnsureServerIdentity(clock_.Now());
    ASSERT_TRUE(identity.ok()) << identity.status();
    ASSERT_TRUE(listener_.certificates().Set(*identity).ok());
    listener_.Start(listening_);
  }
  // The worst of what it says about `check`.
  v1::Finding Look(const std::string& check) const {
    v1::RunDoctorResponse response;
    Findings findings(response);
    Examine(parts_, findings);
    v1::Finding worst;
    for (const v1::Finding& finding : response.findings()) {
      EXPECT_NE(finding.message(), "");
      EXPECT_EQ(finding.fix().empty(), finding.level() == v1::FINDING_LEVEL_OK) << finding.check() << ": " << finding.message();
      if (finding.check() == check && finding.level() > worst.level()) worst = finding;
    }
    return worst;
  }
  void ExpectIs(const std::string& check, v1::FindingLevel level, const std::string& message) const {
    const v1::Finding finding = Look(check);
    EXPECT_EQ(finding.level(), level) << check << ": " << finding.message();
    EXPECT_THAT(finding.message(), HasSubstr(message));
  }

  std::string data_;
  FakeClock clock_;
  std::unique_ptr<identity::Authority> authority_;
  std::unique_ptr<catalog::CatalogDb> db_;
  fakes::TlsListener listener_;
  rpc::Address listening_;
  absl::StatusOr<std::vector<std::string>> configuration_ = std::vector<std::string>();
  uint64_t reserve_ = 0;
  absl::StatusOr<v1::CatalogBackups> backups_ = v1::CatalogBackups();
  std::optional<SystemTime> newest_;
  Parts parts_;
};

TEST_F(DoctorTest, AllIsWell) {
  for (const char* check : {"configuration", "catalog", "keys", "certificate", "name-resolution", "tls", "socket"}) {
    const v1::Finding finding = Look(check);
    EXPECT_EQ(finding.level(), v1::FINDING_LEVEL_OK) << check << ": " << finding.message();
  }
  EXPECT_NE(Look("clock").level(), v1::FINDING_LEVEL_FAIL);
  EXPECT_THAT(Look("tls").message(), HasSubstr("127.0.0.1"));
}

TEST_F(DoctorTest, Configuration) {
  configuration_ = Error(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID", "controller.toml:3: unknown key \"lisen\"", "did you mean?");
  ExpectIs("configuration", v1::FINDING_LEVEL_FAIL, "controller.toml:3");
  EXPECT_EQ(Look("configuration").fix(), "did you mean?");
  configuration_ = std::vector<std::string>{"listen", "store.reserve"};
  ExpectIs("configuration", v1::FINDING_LEVEL_WARN, "listen, store.reserve");
}

TEST_F(DoctorTest, StoreSpace) {
  reserve_ = uint64_t{1} << 60;
  ExpectIs("store-space", v1::FINDING_LEVEL_FAIL, "are free where");
  parts_.data_directory = data_ + "/nowhere";
  ExpectIs("store-space", v1::FINDING_LEVEL_FAIL, "cannot be read");
}

TEST_F(DoctorTest, StoreSpaceThatGrowsShort) {
  constexpr uint64_t kGiB = uint64_t{1} << 30;
  uint64_t free = 0, total = 100 * kGiB, files = 1'000'000;
  g_pretended_space = [&](struct statvfs& space) {
    space.f_bsize = space.f_frsize = 4096;
    space.f_blocks = total / 4096;
    space.f_bavail = free / 4096;
    space.f_files = 2'000'000;
    space.f_favail = files;
  };
  reserve_ = kGiB;
  free = 10 * kGiB;
  ExpectIs("store-space", v1::FINDING_LEVEL_OK, "10240 MiB of 102400 MiB");
  EXPECT_EQ(Look("store-inodes").level(), v1::FINDING_LEVEL_UNSPECIFIED);
  free = 4 * kGiB;
  ExpectIs("store-space", v1::FINDING_LEVEL_WARN, "4096 MiB of 102400 MiB");  // less than a twentieth
  total = 10 * kGiB;
  ExpectIs("store-space", v1::FINDING_LEVEL_OK, "");
  free = kGiB + kGiB / 4;
  ExpectIs("store-space", v1::FINDING_LEVEL_WARN, "uploads leave 1024 MiB");  // near the reserve
  free = kGiB;
  ExpectIs("store-space", v1::FINDING_LEVEL_FAIL, "");
  files = 999;
  ExpectIs("store-inodes", v1::FINDING_LEVEL_WARN, "999 files can still be made");
}

TEST_F(DoctorTest, StoreOnANetworkFileSystem) {
  EXPECT_EQ(Look("store-file-system").level(), v1::FINDING_LEVEL_UNSPECIFIED);
  g_pretended_magic = 0x6969;
  ExpectIs("store-file-system", v1::FINDING_LEVEL_WARN, "is on nfs");
}

TEST_F(DoctorTest, CatalogBackups) {
  backups_->mutable_every()->set_seconds(24 * 3600);
  backups_->set_keep(7);
  ExpectIs("catalog-backup", v1::FINDING_LEVEL_WARN, "not backed up yet");
  backups_->set_count(3);
  *backups_->mutable_newest_at() = ToProtoTime(clock_.Now() - hours(48));
  ExpectIs("catalog-backup", v1::FINDING_LEVEL_OK, "3 of 7");
  *backups_->mutable_newest_at() = ToProtoTime(clock_.Now() - hours(50));
  ExpectIs("catalog-backup", v1::FINDING_LEVEL_FAIL, "the newest backup of the catalog is of");
  backups_->set_last_error("no space");
  ExpectIs("catalog-backup", v1::FINDING_LEVEL_FAIL, "no space");
  backups_ = absl::PermissionDeniedError("x");
  ExpectIs("catalog-backup", v1::FINDING_LEVEL_FAIL, "cannot be read");
}

TEST_F(DoctorTest, DamagedCatalog) {
  const std::string path = data_ + "/catalog.db";
  int64_t page = 0;
  ASSERT_TRUE(db_->Read([&](sqlite3* db) -> absl::Status {
                   LF_ASSIGN_OR_RETURN(page, sqlite::QueryInt(db, "select rootpage from sqlite_schema where name = 'device'"));
                   return absl::OkStatus();
                 })
                  .ok());
  ASSERT_GT(page, 1);
  parts_.catalog = nullptr;
  db_.reset();  // folds the WAL
  {
    const io::UniqueFd fd(open(path.c_str(), O_RDWR | O_CLOEXEC));
    const std::string garbage(64, '\x5a');
    ASSERT_EQ(pwrite(fd.get(), garbage.data(), garbage.size(), (page - 1) * 4096), static_cast<ssize_t>(garbage.size()));
  }
  OpenCatalog();
  parts_.catalog = db_.get();
  const v1::Finding finding = Look("catalog");
  EXPECT_EQ(finding.level(), v1::FINDING_LEVEL_FAIL) << finding.message();
  EXPECT_THAT(finding.fix(), HasSubstr("litefleet-controller rebuild"));
}

TEST_F(DoctorTest, Keys) {
  chmod((data_ + "/ca").c_str(), 0755);
  ExpectIs("keys", v1::FINDING_LEVEL_FAIL, "it must be 0700");
  chmod((data_ + "/ca").c_str(), 0700);
  chmod((data_ + "/ca/server-key.pem").c_str(), 0640);
  ExpectIs("keys", v1::FINDING_LEVEL_FAIL, "others may read a private key");
  chmod((data_ + "/ca/server-key.pem").c_str(), 0600);
  ExpectIs("keys", v1::FINDING_LEVEL_OK, "");
  std::filesystem::rename(data_ + "/ca", data_ + "/elsewhere");
  ExpectIs("keys", v1::FINDING_LEVEL_FAIL, "is missing");
}

TEST_F(DoctorTest, CertificateThatCannotBeRead) {
  ASSERT_TRUE(io::WriteFileAtomic(data_ + "/ca/server.pem", "-----BEGIN CERTIFICATE-----\nnonsense\n", 0600).ok());
  ExpectIs("certificate", v1::FINDING_LEVEL_FAIL, "server.pem cannot be read");
}

TEST_F(DoctorTest, CertificatesThatEnd) {
  clock_.JumpSystem(hours(24 * 340));
  ExpectIs("certificate", v1::FINDING_LEVEL_WARN, "ca/server.pem expires on");
  clock_.JumpSystem(hours(24 * 60));
  ExpectIs("certificate", v1::FINDING_LEVEL_FAIL, "ca/server.pem expired on");
  ExpectIs("tls", v1::FINDING_LEVEL_FAIL, "has expired");
  // Renewed, and read again.
  ASSERT_TRUE(listener_.certificates().Set(*authority_->EnsureServerIdentity(clock_.Now())).ok());
  ExpectIs("tls", v1::FINDING_LEVEL_OK, "");
  ExpectIs("certificate", v1::FINDING_LEVEL_OK, "");
  clock_.JumpSystem(hours(24 * 365 * 19));
  ExpectIs("certificate", v1::FINDING_LEVEL_FAIL, "expire");
}

TEST_F(DoctorTest, Names) {
  ASSERT_TRUE(authority_->AddHost("no-such-host.invalid").ok());
  ExpectIs("name-resolution", v1::FINDING_LEVEL_WARN, "no-such-host.invalid, which has no address");
  ASSERT_TRUE(authority_->RemoveHost("localhost").ok());
  ASSERT_TRUE(authority_->RemoveHost("127.0.0.1").ok());
  ExpectIs("name-resolution", v1::FINDING_LEVEL_FAIL, "none of the names");
}

TEST_F(DoctorTest, TlsWithACertificateOfBeforeAHostCameToIt) {
  ASSERT_TRUE(authority_->AddHost("backup.example.org").ok());
  ExpectIs("tls", v1::FINDING_LEVEL_FAIL, "does not name backup.example.org");
  ASSERT_TRUE(listener_.certificates().Set(*authority_->EnsureServerIdentity(clock_.Now())).ok());
  ExpectIs("tls", v1::FINDING_LEVEL_OK, "backup.example.org");
}

TEST_F(DoctorTest, TlsOfAnotherCaOrOfNobody) {
  ASSERT_TRUE(identity::Authority::Create(data_ + "/other", {"localhost", "127.0.0.1"}, clock_.Now()).ok());
  const auto other = identity::Authority::Open(data_ + "/other");
  ASSERT_TRUE(listener_.certificates().Set(*(*other)->EnsureServerIdentity(clock_.Now())).ok());
  ExpectIs("tls", v1::FINDING_LEVEL_FAIL, "it was issued by another CA than the trusted one");
  listener_.Stop();
  ExpectIs("tls", v1::FINDING_LEVEL_FAIL, "Connection refused");
  ASSERT_TRUE(io::WriteFileAtomic(data_ + "/ca/root.pem", "nonsense", 0600).ok());
  ExpectIs("tls", v1::FINDING_LEVEL_FAIL, "ca/root.pem nothing can be said");
}

TEST_F(DoctorTest, Clock) {
  newest_ = clock_.Now() + hours(1);
  ExpectIs("clock", v1::FINDING_LEVEL_FAIL, "the clock went back");
  clock_.JumpSystem(-(clock_.Now() - SystemTime()));
  ExpectIs("clock", v1::FINDING_LEVEL_FAIL, "the clock says 1970");
}

TEST_F(DoctorTest, ClockThatNothingKeepsRight) {
  g_clock_state = TIME_ERROR;
  ExpectIs("clock", v1::FINDING_LEVEL_WARN, "nothing keeps it right");
  g_clock_state = TIME_OK;
  ExpectIs("clock", v1::FINDING_LEVEL_OK, "is kept right");
}

TEST_F(DoctorTest, Socket) {
  chmod(io::AdminSocketPath(data_).c_str(), 0666);
  ExpectIs("socket", v1::FINDING_LEVEL_FAIL, "others may act as operators");
  unlink(io::AdminSocketPath(data_).c_str());
  ExpectIs("socket", v1::FINDING_LEVEL_WARN, "there is no socket");
}

}  // namespace
}  // namespace litefleet::doctor
