// A whole controller in this process, over real TLS: who gets in, who does not, and what revoking does.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/security/server_credentials.h>
#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "agent/enroll/enroll.h"
#include "agent/enroll/preflight.h"
#include "common/base/status.h"
#include "common/crypto/token.h"
#include "common/io/admin_socket.h"
#include "common/io/file.h"
#include "common/rpc/channel.h"
#include "common/rpc/server_credentials.h"
#include "common/rpc/status.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/schema.h"
#include "controller/identity/authority.h"
#include "controller/identity/issue.h"
#include "controller/rpc/auth.h"
#include "controller/server.h"
#include "fmt/format.h"
#include "litefleet/v1/admin_service.grpc.pb.h"
#include "litefleet/v1/agent_service.grpc.pb.h"
#include "tests/fakes/pretended_file_system.h"

namespace litefleet {
namespace {

using std::chrono::seconds;

std::string TemporaryDirectory() {
  std::string path = (std::filesystem::temp_directory_path() / "litefleet id XXXXXX").string();
  return mkdtemp(path.data()) == nullptr ? "" : path;
}

class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(InitDataDirectory(data_, {"localhost", "127.0.0.1"}, true, clock_).ok());
    Start();
  }
  void TearDown() override {
    server_.reset();
    std::filesystem::remove_all(root_);
  }
  void Start() {
    ServerOptions options{data_, {}, root_ + "/ready"};
    options.config.listen = "127.0.0.1:0";
    options.config.store_reserve = 0;
    auto server = Server::Start(options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  static std::shared_ptr<grpc::Channel> Channel(const std::string& address, const rpc::Identity& identity) {
    return *rpc::MakeChannel({*rpc::ParseAddress(address), identity, "test"});
  }
  std::unique_ptr<v1::AdminService::Stub> LocalAdmin() const {
    return v1::AdminService::NewStub(Channel("unix:" + io::AdminSocketPath(data_.path), {}));
  }
  std::string Token(int uses = 1, int ttl_seconds = 60) const {
    v1::CreateTokenRequest request;
    request.set_uses(uses);
    request.mutable_ttl()->set_seconds(ttl_seconds);
    v1::CreateTokenResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(20));
    const grpc::Status status = LocalAdmin()->CreateToken(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.secret();
  }
  absl::StatusOr<state::DeviceIdentity> Enroll(const std::string& name, const std::string& token) const {
    return enroll::Enroll({server_->address(), token, root_ + "/" + name, name, seconds(20)});
  }
  static rpc::Identity IdentityOf(const state::DeviceIdentity& device) {
    return {device.private_key, device.certificate_chain, device.ca_certificate};
  }
  // The reason that a call of RenewCertificate ends with; "OK" when it was carried out.
  std::string Renew(const rpc::Identity& identity) const {
    const auto stub = v1::AgentService::NewStub(Channel(server_->address(), identity));
    v1::RenewCertificateRequest request;
    request.set_csr(*crypto::MakeSigningRequest(**crypto::GenerateKey(), "x"));
    v1::RenewCertificateResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(20));
    return ReasonOrCode(stub->RenewCertificate(&context, request, &response));
  }
  std::string Version(v1::AdminService::Stub& stub) const {
    v1::GetVersionResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(20));
    return ReasonOrCode(stub.GetVersion(&context, {}, &response));
  }
  static std::string ReasonOrCode(const grpc::Status& status) {
    if (status.ok()) return "OK";
    const std::string reason = ReasonOf(rpc::ToAbsl(status));
    return reason.empty() ? fmt::format("code {}", static_cast<int>(status.error_code())) : reason;
  }
  void RevokeDevice(const std::string& name) const {
    v1::RevokeDeviceRequest request;
    request.set_device(name);
    v1::RevokeDeviceResponse response;
    grpc::ClientContext context;
    ASSERT_TRUE(LocalAdmin()->RevokeDevice(&context, request, &response).ok());
  }

  const RealClock clock_{};
  const std::string root_ = TemporaryDirectory();
  const DataDirectory data_{root_ + "/data"};
  std::unique_ptr<Server> server_;
};

TEST_F(ServerTest, ReadyFileSocketAndSecondInstance) {
  std::ifstream ready(root_ + "/ready");
  std::string line;
  std::getline(ready, line);
  EXPECT_EQ(line, server_->address());
  struct stat st {};
  ASSERT_EQ(stat(io::AdminSocketPath(data_.path).c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  ServerOptions options{data_, {}, ""};
  options.config.listen = "127.0.0.1:0";
  const auto second = Server::Start(options);
  EXPECT_EQ(ReasonOf(second.status()), "ALREADY_RUNNING");
  EXPECT_NE(MessageOf(second.status()).find(std::to_string(getpid())), std::string::npos);
  server_.reset();
  EXPECT_FALSE(std::filesystem::exists(root_ + "/ready"));
  EXPECT_FALSE(std::filesystem::exists(io::AdminSocketPath(data_.path)));
}

// `host add` and `operator create` hold the lock for a moment to see whether a controller runs.
TEST_F(ServerTest, StartsWhileAnotherCommandLooksWhetherItRuns) {
  server_.reset();
  auto looking = io::Open(data_.lock(), O_RDWR);
  ASSERT_TRUE(looking.ok());
  ASSERT_EQ(flock(looking->get(), LOCK_SH | LOCK_NB), 0);
  std::thread looker([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    looking->Reset(-1);
  });
  Start();
  looker.join();
}

TEST_F(ServerTest, DataOnANetworkFileSystemIsRefusedUnlessAllowed) {
  server_.reset();
  ServerOptions options{data_, {}, root_ + "/ready"};
  options.config.listen = "127.0.0.1:0";
  options.config.store_reserve = 0;
  const DataDirectory fresh{root_ + "/fresh"};
  g_pretended_magic = 0x6969;
  const auto refused = Server::Start(options);
  const absl::Status not_made = InitDataDirectory(fresh, {"localhost"}, false, clock_);
  const absl::Status made = InitDataDirectory(fresh, {"localhost"}, true, clock_);
  options.config.allow_network_file_system = true;
  const auto allowed = Server::Start(options);
  g_pretended_magic = 0;
  EXPECT_EQ(ReasonOf(refused.status()), "NETWORK_FILE_SYSTEM");
  EXPECT_EQ(ReasonOf(not_made), "NETWORK_FILE_SYSTEM");
  EXPECT_TRUE(made.ok()) << made;
  EXPECT_TRUE(allowed.ok()) << allowed.status();
}

TEST_F(ServerTest, EnrolsOnceAndRenews) {
  const std::string token = Token();
  auto device = Enroll("pump-1", token);
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ(device->name, "pump-1");
  EXPECT_EQ(ReasonOf(Enroll("pump-1", token).status()), "ALREADY_ENROLLED");
  EXPECT_EQ(ReasonOf(Enroll("pump-2", token).status()), "TOKEN_INVALID");
  EXPECT_EQ(Renew(IdentityOf(*device)), "OK");

  const std::string before = device->certificate_chain;
  const auto due = enroll::Renew(root_ + "/pump-1", server_->address(), clock_.Now(), enroll::Renewal::kIfDue, seconds(20), *device);
  ASSERT_TRUE(due.ok());
  EXPECT_FALSE(*due);
  const auto now = enroll::Renew(root_ + "/pump-1", server_->address(), clock_.Now(), enroll::Renewal::kNow, seconds(20), *device);
  ASSERT_TRUE(now.ok()) << now.status();
  EXPECT_NE(device->certificate_chain, before);
  // As if it had expired: by the proof of its key, without a client certificate.
  const auto late = enroll::Renew(root_ + "/pump-1", server_->address(), clock_.Now() + std::chrono::hours(24 * 365), enroll::Renewal::kNow,
                                  seconds(20), *device);
  ASSERT_TRUE(late.ok()) << late.status();
  EXPECT_EQ(state::LoadIdentity(root_ + "/pump-1")->certificate_chain, device->certificate_chain);
}

TEST_F(ServerTest, ADeviceRenewsAtTwoThirdsOfItsCertificatesLife) {
  auto device = Enroll("pump-1", Token());
  ASSERT_TRUE(device.ok()) << device.status();
  const SystemTime began = *state::ExpiryOf(*device) - std::chrono::hours(24 * 90);
  const auto renewed_on_day = [&](int day) {
    const auto renewed = enroll::Renew(root_ + "/pump-1", server_->address(), began + std::chrono::hours(24 * day), enroll::Renewal::kIfDue,
                                       seconds(20), *device);
    EXPECT_TRUE(renewed.ok()) << renewed.status();
    return renewed.ok() && *renewed;
  };
  EXPECT_FALSE(renewed_on_day(0));
  EXPECT_FALSE(renewed_on_day(59));
  const std::string before = device->certificate_chain;
  EXPECT_TRUE(renewed_on_day(61));
  EXPECT_NE(device->certificate_chain, before);
}

// What two of our programs agree on, seen by a client of OpenSSL 3 with its defaults, as ours are; and what is left to one that knows
// no 1.3.
TEST_F(ServerTest, TlsIsOfVersionThreeWithAeadAndAtLeastVersionTwoWithAead) {
  struct Agreed {
    bool connected = false;
    std::string version, protocol;
    bool aead = false;
  };
  const rpc::Address address = *rpc::ParseAddress(server_->address());
  const auto connect = [&](int lowest, int highest, const char* ciphers) {
    Agreed agreed;
    const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
    SSL_CTX_set_security_level(context.get(), 0);  // also what OpenSSL itself would not offer
    SSL_CTX_set_min_proto_version(context.get(), lowest);
    SSL_CTX_set_max_proto_version(context.get(), highest);
    if (ciphers != nullptr) {
      EXPECT_EQ(SSL_CTX_set_cipher_list(context.get(), ciphers), 1) << ciphers;
    }
    const unsigned char alpn[] = {2, 'h', '2'};
    SSL_CTX_set_alpn_protos(context.get(), alpn, sizeof alpn);
    const std::unique_ptr<BIO, decltype(&BIO_free_all)> bio(BIO_new_ssl_connect(context.get()), BIO_free_all);
    BIO_set_conn_hostname(bio.get(), address.Text().c_str());
    SSL* ssl = nullptr;
    BIO_get_ssl(bio.get(), &ssl);
    agreed.connected = BIO_do_connect(bio.get()) == 1 && BIO_do_handshake(bio.get()) == 1;
    if (!agreed.connected) return agreed;
    agreed.version = SSL_get_version(ssl);
    agreed.aead = SSL_CIPHER_is_aead(SSL_get_current_cipher(ssl)) == 1;
    const unsigned char* protocol = nullptr;
    unsigned length = 0;
    SSL_get0_alpn_selected(ssl, &protocol, &length);
    if (length > 0) agreed.protocol.assign(reinterpret_cast<const char*>(protocol), length);
    return agreed;
  };
  const Agreed now = connect(TLS1_2_VERSION, 0, nullptr);
  EXPECT_TRUE(now.connected);
  EXPECT_EQ(now.version, "TLSv1.3");
  EXPECT_TRUE(now.aead);
  EXPECT_EQ(now.protocol, "h2");
  const Agreed older = connect(TLS1_2_VERSION, TLS1_2_VERSION, "ALL");
  EXPECT_TRUE(older.connected) << "THREATS.md says that gRPC 1.51 cannot forbid it";
  EXPECT_TRUE(older.aead);
  EXPECT_FALSE(connect(TLS1_2_VERSION, TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES128-SHA").connected);
  EXPECT_FALSE(connect(TLS1_VERSION, TLS1_1_VERSION, "ALL").connected);
}

TEST_F(ServerTest, ExpiredTokenIsRefused) {
  const std::string token = Token(1, 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // what is tested is the time itself
  EXPECT_EQ(ReasonOf(Enroll("late", token).status()), "TOKEN_INVALID");
}

TEST_F(ServerTest, RolesAreKeptApart) {
  const auto device = Enroll("pump-1", Token());
  ASSERT_TRUE(device.ok()) << device.status();
  const auto admin = rpc::ReadIdentityFile(data_.admin_pem());
  ASSERT_TRUE(admin.ok()) << admin.status();
  const auto remote = v1::AdminService::NewStub(Channel(server_->address(), *admin));
  EXPECT_EQ(Version(*remote), "OK");
  EXPECT_EQ(Version(*LocalAdmin()), "OK");
  const auto by_device = v1::AdminService::NewStub(Channel(server_->address(), IdentityOf(*device)));
  EXPECT_EQ(Version(*by_device), "WRONG_ROLE");
  const auto by_nobody = v1::AdminService::NewStub(Channel(server_->address(), {"", "", device->ca_certificate}));
  EXPECT_EQ(Version(*by_nobody), "CERTIFICATE_REQUIRED");
  EXPECT_EQ(Renew(*admin), "WRONG_ROLE");
  EXPECT_EQ(Renew({"", "", device->ca_certificate}), "CERTIFICATE_REQUIRED");
}

// Every unary call of the operators' service, by its descriptor, with an empty request.
TEST_F(ServerTest, EveryAdminCallRefusesWhoMayNotAndAnswersWhoMay) {
  const auto device = Enroll("pump-1", Token());
  ASSERT_TRUE(device.ok()) << device.status();
  ASSERT_TRUE(CreateOperator(data_, "vic", "viewer", root_ + "/vic.pem", clock_).ok());
  ASSERT_TRUE(server_->Reload({}).ok());
  const auto call = [&](const std::shared_ptr<grpc::Channel>& channel, const google::protobuf::MethodDescriptor& method) {
    grpc::GenericStub stub(channel);
    grpc::CompletionQueue queue;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(60));
    const grpc::Slice nothing;
    const auto pending = stub.PrepareUnaryCall(&context, fmt::format("/{}/{}", method.service()->full_name(), method.name()),
                                               grpc::ByteBuffer(&nothing, 1), &queue);
    pending->StartCall();
    grpc::ByteBuffer answer;
    grpc::Status status;
    pending->Finish(&answer, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    EXPECT_TRUE(queue.Next(&tag, &ok));
    return status;
  };
  const auto nobody = Channel(server_->address(), {"", "", device->ca_certificate});
  const auto as_device = Channel(server_->address(), IdentityOf(*device));
  const auto viewer = Channel(server_->address(), *rpc::ReadIdentityFile(root_ + "/vic.pem"));
  const auto admin = Channel(server_->address(), *rpc::ReadIdentityFile(data_.admin_pem()));
  const auto& service = *v1::GetVersionRequest::descriptor()->file()->pool()->FindServiceByName("litefleet.v1.AdminService");
  int calls = 0;
  for (int i = 0; i < service.method_count(); ++i) {
    const google::protobuf::MethodDescriptor& method = *service.method(i);
    if (method.client_streaming() || method.server_streaming()) continue;
    ++calls;
    EXPECT_EQ(ReasonOrCode(call(nobody, method)), "CERTIFICATE_REQUIRED") << method.name();
    EXPECT_EQ(ReasonOrCode(call(as_device, method)), "WRONG_ROLE") << method.name();
    const auto role = rpc::RequiredRole(fmt::format("/{}/{}", service.full_name(), method.name()));
    ASSERT_TRUE(role.ok()) << role.status();
    const grpc::Status by_viewer = call(viewer, method);
    EXPECT_EQ(ReasonOrCode(by_viewer) == "WRONG_ROLE", *role == rpc::Role::kOperator) << method.name() << ": " << ReasonOrCode(by_viewer);
    // What an empty request lacks is told with a reason, as every other refusal.
    const grpc::Status by_admin = call(admin, method);
    EXPECT_NE(by_admin.error_code(), grpc::StatusCode::UNIMPLEMENTED) << method.name();
    EXPECT_NE(by_admin.error_code(), grpc::StatusCode::INTERNAL) << method.name() << ": " << by_admin.error_message();
    EXPECT_FALSE(ReasonOrCode(by_admin).starts_with("code ")) << method.name() << ": " << by_admin.error_message();
    EXPECT_NE(ReasonOrCode(by_admin), "WRONG_ROLE") << method.name();
  }
  EXPECT_GT(calls, 30);
}

TEST_F(ServerTest, CertificatesOfOthersAreRefused) {
  const auto device = Enroll("pump-1", Token());
  ASSERT_TRUE(device.ok()) << device.status();
  // Another controller's device: the handshake fails.
  ASSERT_TRUE(identity::Authority::Create(root_ + "/other-ca", {"localhost"}, clock_.Now()).ok());
  const auto other = identity::Authority::Open(root_ + "/other-ca");
  const auto key = crypto::GenerateKey();
  const auto forged = (*other)->IssueDevice(device->device, **key, clock_.Now());
  EXPECT_EQ(Renew({*crypto::KeyToPem(**key), forged->certificate_chain, device->ca_certificate}), "code 14");
  // This CA's, but not in the catalog: what a stolen CA key could make.
  const auto own = identity::Authority::Open(data_.ca());
  const auto unknown = (*own)->IssueDevice(device->device, **key, clock_.Now());
  EXPECT_EQ(Renew({*crypto::KeyToPem(**key), unknown->certificate_chain, device->ca_certificate}), "CERTIFICATE_UNKNOWN");
  // A device's certificate does not make a server.
  EXPECT_EQ(Renew(IdentityOf(*device)), "OK");
}

TEST_F(ServerTest, RevokedDeviceIsRefusedAndItsStreamsEnd) {
  const auto device = Enroll("pump-1", Token());
  ASSERT_TRUE(device.ok()) << device.status();
  const auto stub = v1::AgentService::NewStub(Channel(server_->address(), IdentityOf(*device)));
  grpc::ClientContext context, upload_context;
  const auto deadline = std::chrono::system_clock::now() + seconds(30);
  context.set_deadline(deadline);
  upload_context.set_deadline(deadline);
  const auto control = stub->Control(&context);
  v1::ControlRequest hello;
  hello.mutable_hello()->set_protocol_version(1);
  ASSERT_TRUE(control->Write(hello));
  v1::ControlResponse welcome;
  ASSERT_TRUE(control->Read(&welcome));
  ASSERT_TRUE(welcome.has_welcome());
  const auto upload = stub->Upload(&upload_context);

  RevokeDevice("pump-1");
  v1::ControlResponse response;
  while (control->Read(&response)) {}
  const grpc::Status ended = control->Finish();
  EXPECT_FALSE(ended.ok());
  v1::UploadResponse upload_response;
  while (upload->Read(&upload_response)) {}
  EXPECT_FALSE(upload->Finish().ok());
  EXPECT_LT(std::chrono::system_clock::now(), deadline - seconds(10));
  EXPECT_EQ(Renew(IdentityOf(*device)), "CERTIFICATE_REVOKED");
}

TEST_F(ServerTest, RenewedCertificateVoidsTheOlderOneWhenUsed) {
  auto device = Enroll("pump-1", Token());
  ASSERT_TRUE(device.ok()) << device.status();
  const rpc::Identity clone = IdentityOf(*device);
  ASSERT_TRUE(*enroll::Renew(root_ + "/pump-1", server_->address(), clock_.Now(), enroll::Renewal::kNow, seconds(20), *device));
  EXPECT_EQ(Renew(clone), "OK");  // not used yet
  EXPECT_EQ(Renew(IdentityOf(*device)), "OK");
  std::string reason = "OK";
  for (int i = 0; i < 100 && reason == "OK"; ++i) {
    reason = Renew(clone);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_EQ(reason, "CERTIFICATE_REVOKED");
}

TEST_F(ServerTest, ReloadServesTheNewCertificateAndKnowsNewOperators) {
  const auto fingerprint = crypto::ParseToken(Token())->ca_fingerprint;
  auto address = *rpc::ParseAddress(server_->address());
  ASSERT_TRUE(enroll::FetchTrustedRoot(address, fingerprint, seconds(10)).ok());
  address.host = "localhost";
  ASSERT_TRUE(enroll::FetchTrustedRoot(address, fingerprint, seconds(10)).ok());
  ASSERT_TRUE(CreateOperator(data_, "ada", "admin", root_ + "/ada.pem", clock_).ok());
  {
    const auto authority = identity::Authority::Open(data_.ca());
    ASSERT_TRUE((*authority)->RemoveHost("localhost").ok());
  }
  ASSERT_TRUE(server_->Reload({}).ok());
  EXPECT_EQ(ReasonOf(enroll::FetchTrustedRoot(address, fingerprint, seconds(10)).status()), "CONTROLLER_NAME_MISMATCH");
  const auto ada = v1::AdminService::NewStub(Channel(server_->address(), *rpc::ReadIdentityFile(root_ + "/ada.pem")));
  EXPECT_EQ(Version(*ada), "OK");
  // A bad one leaves the good one in place.
  ASSERT_EQ(rename((data_.ca() + "/hosts").c_str(), (data_.ca() + "/hosts.away").c_str()), 0);
  EXPECT_FALSE(server_->Reload({}).ok());
  address.host = "127.0.0.1";
  EXPECT_TRUE(enroll::FetchTrustedRoot(address, fingerprint, seconds(10)).ok());
}

// Everything but the root that the token names: what somebody in between could be.
class ImpostorService final : public v1::AgentService::Service {
 public:
  grpc::Status Enroll(grpc::ServerContext*, const v1::EnrollRequest*, v1::EnrollResponse*) override {
    ++calls;
    return grpc::Status::OK;
  }
  std::atomic<int> calls = 0;
};

// What comes of a call to a server with this identity, at `host`, by a client that trusts `root`.
std::string CallTo(const rpc::Identity& server, const std::string& root, const std::string& host) {
  rpc::ServerCertificates certificates;
  EXPECT_TRUE(certificates.Set(server).ok());
  ImpostorService service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(host + ":0", rpc::TlsCredentials(certificates), &port);
  builder.RegisterService(&service);
  const auto running = builder.BuildAndStart();
  if (running == nullptr) return "cannot listen";
  const auto channel = rpc::MakeChannel({*rpc::ParseAddress(fmt::format("{}:{}", host, port)), {"", "", root}, "test"});
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + seconds(20));
  v1::EnrollResponse response;
  const grpc::Status status = v1::AgentService::NewStub(*channel)->Enroll(&context, {}, &response);
  running->Shutdown();
  EXPECT_EQ(service.calls, status.ok() ? 1 : 0);
  return status.ok() ? "OK" : status.error_message();
}

// A device cannot tell an old certificate from a clock that is ahead: the date decides nothing, everything else does.
TEST_F(ServerTest, ServersAreKnownByChainPurposeAndNameWhateverTheClockSays) {
  using ::testing::HasSubstr;
  const std::string ca = root_ + "/ca";
  std::filesystem::copy(data_.ca(), ca);
  std::filesystem::remove(ca + "/server.pem");
  const auto authority = identity::Authority::Open(ca);
  ASSERT_TRUE(authority.ok()) << authority.status();
  const std::string root = (*authority)->root_pem();
  const rpc::Identity ended = *(*authority)->EnsureServerIdentity(clock_.Now() - 2 * identity::kServerLifetime);
  ASSERT_LT(crypto::NotAfter(**crypto::CertificateFromPem(ended.certificate_chain)), clock_.Now());
  EXPECT_EQ(CallTo(ended, root, "127.0.0.1"), "OK");
  EXPECT_EQ(CallTo(ended, root, "localhost"), "OK");
  EXPECT_THAT(CallTo(ended, root, "127.0.0.2"), HasSubstr("does not name 127.0.0.2"));

  ASSERT_TRUE(identity::Authority::Create(root_ + "/other-ca", {"127.0.0.1"}, clock_.Now()).ok());
  rpc::Identity foreign = *(*identity::Authority::Open(root_ + "/other-ca"))->EnsureServerIdentity(clock_.Now());
  foreign.certificate_chain += root;
  EXPECT_THAT(CallTo(foreign, root, "127.0.0.1"), HasSubstr("not of the controller that is trusted"));

  // A device's own certificate, and one for servers by whoever has the key of the devices' intermediate.
  const auto device = Enroll("pump-1", Token());
  ASSERT_TRUE(device.ok()) << device.status();
  const rpc::Identity as_device{device->private_key, device->certificate_chain + root, root};
  EXPECT_THAT(CallTo(as_device, root, "127.0.0.1"), HasSubstr("not of the controller that is trusted"));
  const std::string devices_pem = *io::ReadFile(ca + "/devices.pem");
  const auto devices = crypto::CertificateFromPem(devices_pem);
  const auto devices_key = crypto::KeyFromPem(*io::ReadFile(ca + "/devices-key.pem"));
  const auto key = crypto::GenerateKey();
  const auto forged =
      identity::Issue({identity::Kind::kServer, "x", {"IP:127.0.0.1"}, clock_.Now() + seconds(3600)}, **key, devices->get(), **devices_key);
  ASSERT_TRUE(forged.ok()) << forged.status();
  const rpc::Identity by_devices{*crypto::KeyToPem(**key), crypto::CertificateToPem(**forged) + devices_pem + root, root};
  EXPECT_THAT(CallTo(by_devices, root, "127.0.0.1"), HasSubstr("not of the controller that is trusted"));
}

TEST_F(ServerTest, ExpiredCertificateIsRenewedWhateverTheClockSays) {
  auto device = Enroll("pump-1", Token());
  ASSERT_TRUE(device.ok()) << device.status();
  {
    const auto authority = identity::Authority::Open(data_.ca());
    const auto key = crypto::KeyFromPem(device->private_key);
    const SystemTime then = clock_.Now() - 2 * identity::kDeviceLifetime;
    const auto issued = (*authority)->IssueDevice(device->device, **key, then);
    catalog::CertificateRow row;
    row.serial = issued->serial;
    row.device = device->device;
    row.role = "device";
    row.key_hash = issued->key_hash;
    row.issued_at = then;
    row.not_after = issued->not_after;
    const auto db = catalog::CatalogDb::Open(data_.catalog(), false, catalog::Migrations());
    ASSERT_TRUE(catalog::IdentityCatalog(**db).AddCertificate(row).ok());
    device->certificate_chain = issued->certificate_chain;
  }
  EXPECT_NE(Renew(IdentityOf(*device)), "OK");
  for (const SystemTime now : {SystemTime{}, clock_.Now() + 30 * identity::kServerLifetime}) {
    state::DeviceIdentity renewed = *device;
    const auto result = enroll::Renew(root_ + "/pump-1", server_->address(), now, enroll::Renewal::kNow, seconds(20), renewed);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_TRUE(*result);
    EXPECT_GT(*state::ExpiryOf(renewed), clock_.Now());
    EXPECT_EQ(Renew(IdentityOf(renewed)), "OK");
    device->certificate_chain = renewed.certificate_chain;
  }
}

TEST_F(ServerTest, ViewersLookAndRevokedOperatorsDoNot) {
  ASSERT_EQ(ReasonOf(CreateOperator(data_, "eve", "owner", root_ + "/eve.pem", clock_)), "ROLE_INVALID");
  ASSERT_TRUE(CreateOperator(data_, "vic", "viewer", root_ + "/vic.pem", clock_).ok());
  ASSERT_TRUE(server_->Reload({}).ok());
  const auto vic = v1::AdminService::NewStub(Channel(server_->address(), *rpc::ReadIdentityFile(root_ + "/vic.pem")));
  EXPECT_EQ(Version(*vic), "OK");
  {
    grpc::ClientContext context;
    v1::ListDevicesResponse response;
    EXPECT_EQ(ReasonOrCode(vic->ListDevices(&context, {}, &response)), "OK");
  }
  {
    grpc::ClientContext context;
    v1::CreateTokenResponse response;
    EXPECT_EQ(ReasonOrCode(vic->CreateToken(&context, {}, &response)), "WRONG_ROLE");
  }
  {
    grpc::ClientContext context;
    const auto download = vic->DownloadSnapshot(&context, {});
    v1::DownloadSnapshotResponse response;
    EXPECT_FALSE(download->Read(&response));
    EXPECT_EQ(ReasonOrCode(download->Finish()), "WRONG_ROLE");
  }
  ASSERT_TRUE(RevokeOperator(data_, "vic", clock_).ok());
  ASSERT_TRUE(server_->Reload({}).ok());
  EXPECT_EQ(Version(*vic), "CERTIFICATE_REVOKED");
  EXPECT_EQ(ReasonOf(RevokeOperator(data_, "vic", clock_)), "OPERATOR_NOT_FOUND");
  EXPECT_TRUE(CreateOperator(data_, "vic", "viewer", root_ + "/vic-2.pem", clock_).ok());
}

// gRPC's own health service, for load balancers and monitors that have no certificate.
TEST_F(ServerTest, HealthIsAnsweredToEverybody) {
  const std::string ca = rpc::ReadIdentityFile(data_.admin_pem())->ca_certificate;
  grpc::GenericStub stub(Channel(server_->address(), {.private_key = {}, .certificate_chain = {}, .ca_certificate = ca}));
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + seconds(20));
  const grpc::Slice nothing;
  const auto pending = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", grpc::ByteBuffer(&nothing, 1), &queue);
  pending->StartCall();
  grpc::ByteBuffer answer;
  grpc::Status status;
  pending->Finish(&answer, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  ASSERT_TRUE(queue.Next(&tag, &ok));
  ASSERT_TRUE(status.ok()) << status.error_message();
  grpc::Slice bytes;
  ASSERT_TRUE(answer.DumpToSingleSlice(&bytes).ok());
  EXPECT_EQ(std::string(bytes.begin(), bytes.end()), "\x08\x01") << "status: SERVING";
}

TEST_F(ServerTest, ImpostorLearnsNothing) {
  const std::string token = Token();
  ASSERT_TRUE(identity::Authority::Create(root_ + "/other-ca", {"localhost", "127.0.0.1"}, clock_.Now()).ok());
  rpc::Identity fake = *(*identity::Authority::Open(root_ + "/other-ca"))->EnsureServerIdentity(clock_.Now());
  // It even sends the true root along, which is public.
  fake.certificate_chain += rpc::ReadIdentityFile(data_.admin_pem())->ca_certificate;
  rpc::ServerCertificates certificates;
  ASSERT_TRUE(certificates.Set(fake).ok());
  ImpostorService service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", rpc::TlsCredentials(certificates), &port);
  builder.RegisterService(&service);
  const auto impostor = builder.BuildAndStart();
  const auto result = enroll::Enroll({fmt::format("127.0.0.1:{}", port), token, root_ + "/victim", "victim", seconds(10)});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(ReasonOf(result.status()), "CONTROLLER_UNTRUSTED");
  EXPECT_EQ(service.calls, 0);
  impostor->Shutdown();
  EXPECT_TRUE(Enroll("victim", token).ok());  // the token is still good, and so is the key that was made
}

}  // namespace
}  // namespace litefleet

int main(int argc, char** argv) {
  // gRPC for the whole process, signals as in the program: changes of hosts and operators send SIGHUP to whoever serves.
  signal(SIGHUP, SIG_IGN);
  const litefleet::rpc::GrpcRuntime runtime;
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
