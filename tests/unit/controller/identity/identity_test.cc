// CA, tokens, enrolment and renewal over a real catalog, without a network.
#include <gtest/gtest.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <thread>

#include "common/base/status.h"
#include "common/crypto/token.h"
#include "common/io/file.h"
#include "controller/catalog/operation_catalog.h"
#include "controller/catalog/schema.h"
#include "controller/identity/authority.h"
#include "controller/identity/enrollment.h"
#include "controller/identity/issue.h"
#include "fmt/format.h"

namespace litefleet::identity {
namespace {

using std::chrono::hours;

std::string TemporaryDirectory() {
  std::string path = (std::filesystem::temp_directory_path() / "litefleet-identity-XXXXXX").string();
  return mkdtemp(path.data()) == nullptr ? "" : path;
}

class IdentityTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Authority::Create(root_ + "/ca", {"backup.example", "192.0.2.1", "2001:db8::1"}, clock_.Now()).ok());
    auto authority = Authority::Open(root_ + "/ca");
    ASSERT_TRUE(authority.ok()) << authority.status();
    authority_ = *std::move(authority);
    auto db = catalog::CatalogDb::Open(root_ + "/catalog.db", true, catalog::Migrations());
    ASSERT_TRUE(db.ok()) << db.status();
    db_ = *std::move(db);
    identities_ = std::make_unique<catalog::IdentityCatalog>(*db_);
    enrollment_ = std::make_unique<Enrollment>(*authority_, *identities_, clock_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  std::string NewToken(const TokenRequest& request = {}) {
    auto token = enrollment_->IssueToken(request);
    EXPECT_TRUE(token.ok()) << token.status();
    return crypto::ParseToken(token->secret())->secret;
  }
  static std::string SerialOf(const std::string& chain) { return crypto::SerialOf(**crypto::CertificateFromPem(chain)); }
  static crypto::Key NewKey() { return *crypto::GenerateKey(); }
  absl::StatusOr<v1::EnrollResponse> Enroll(const std::string& token, EVP_PKEY& key, const std::string& name) {
    v1::EnrollRequest request;
    request.set_token(token);
    request.set_device_name(name);
    request.set_csr(*crypto::MakeSigningRequest(key, "x"));
    return enrollment_->Enroll(request);
  }
  absl::StatusOr<v1::EnrollResponse> Prove(const std::string& chain, EVP_PKEY& key, EVP_PKEY& csr_key) {
    v1::EnrollRequest request;
    request.mutable_expired()->set_certificate(crypto::CertificateToDer(**crypto::CertificateFromPem(chain)));
    auto challenge = enrollment_->Enroll(request);
    if (!challenge.ok()) return challenge;
    request.mutable_expired()->set_challenge(challenge->challenge());
    request.mutable_expired()->set_signature(*crypto::Sign(key, std::string("litefleet-renew\0", 16) + challenge->challenge()));
    request.set_csr(*crypto::MakeSigningRequest(csr_key, "x"));
    return enrollment_->Enroll(request);
  }

  const std::string root_ = TemporaryDirectory();
  FakeClock clock_;
  std::unique_ptr<Authority> authority_;
  std::unique_ptr<catalog::CatalogDb> db_;
  std::unique_ptr<catalog::IdentityCatalog> identities_;
  std::unique_ptr<Enrollment> enrollment_;
};

TEST_F(IdentityTest, FilesAreForTheOwnerAlone) {
  for (const auto& entry : std::filesystem::directory_iterator(root_ + "/ca")) {
    struct stat st {};
    ASSERT_EQ(stat(entry.path().c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0600u) << entry.path();
  }
}

TEST_F(IdentityTest, ServerCertificateNamesTheHostsAndItsChainEndsInTheRoot) {
  const auto identity = authority_->EnsureServerIdentity(clock_.Now());
  ASSERT_TRUE(identity.ok()) << identity.status();
  const auto chain = crypto::CertificatesFromPem(identity->certificate_chain);
  ASSERT_TRUE(chain.ok());
  ASSERT_EQ(chain->size(), 3u);
  EXPECT_EQ(crypto::NamesOf(*(*chain)[0]), (std::vector<std::string>{"DNS:backup.example", "IP:192.0.2.1", "IP:2001:db8::1"}));
  EXPECT_TRUE(crypto::WasIssuedBy(*(*chain)[0], *(*chain)[1]));
  EXPECT_TRUE(crypto::WasIssuedBy(*(*chain)[1], *(*chain)[2]));
  EXPECT_EQ(crypto::Fingerprint(*(*chain)[2]), authority_->root_fingerprint());
  for (const auto& each : *chain) EXPECT_EQ(ToUnixMillis(crypto::NotBefore(*each)), 0);
  EXPECT_EQ(crypto::NotAfter(*(*chain)[0]), clock_.Now() + kServerLifetime);
  EXPECT_EQ(X509_get_extended_key_usage((*chain)[0].get()), static_cast<uint32_t>(XKU_SSL_SERVER));
}

TEST_F(IdentityTest, ServerCertificateStaysUntilAThirdOfItsLifeIsLeftOrHostsChange) {
  const std::string first = authority_->EnsureServerIdentity(clock_.Now())->certificate_chain;
  clock_.Advance(hours(24 * 240));
  EXPECT_EQ(authority_->EnsureServerIdentity(clock_.Now())->certificate_chain, first);
  clock_.Advance(hours(24 * 5));
  const std::string second = authority_->EnsureServerIdentity(clock_.Now())->certificate_chain;
  EXPECT_NE(second, first);
  ASSERT_TRUE(authority_->AddHost("Other.Example.").ok());
  EXPECT_EQ(ReasonOf(authority_->AddHost("other.example")), "HOST_EXISTS");
  const std::string third = authority_->EnsureServerIdentity(clock_.Now())->certificate_chain;
  EXPECT_NE(third, second);
  EXPECT_EQ(crypto::NamesOf(**crypto::CertificateFromPem(third)).back(), "DNS:other.example");
  EXPECT_EQ(ReasonOf(authority_->AddHost("a b")), "HOST_INVALID");
  EXPECT_EQ(ReasonOf(authority_->RemoveHost("nowhere.example")), "HOST_NOT_FOUND");
}

TEST_F(IdentityTest, OpenRefusesAKeyOfAnotherCertificate) {
  std::filesystem::copy_file(root_ + "/ca/devices-key.pem", root_ + "/ca/servers-key.pem",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_EQ(ReasonOf(Authority::Open(root_ + "/ca").status()), "CA_DAMAGED");
}

TEST_F(IdentityTest, DeviceCertificateIsAClientsAndNamesTheDeviceAlone) {
  const auto key = NewKey();
  const auto enrolled = Enroll(NewToken(), *key, "pump-1");
  ASSERT_TRUE(enrolled.ok()) << enrolled.status();
  const auto certificate = crypto::CertificateFromPem(enrolled->certificate_chain());
  ASSERT_TRUE(certificate.ok());
  EXPECT_EQ(crypto::UriOf(**certificate), fmt::format("litefleet://device/{}", enrolled->device_id()));
  EXPECT_EQ(crypto::NamesOf(**certificate).size(), 1u);
  EXPECT_EQ(X509_get_extended_key_usage(certificate->get()), static_cast<uint32_t>(XKU_SSL_CLIENT));
  EXPECT_EQ(crypto::NotAfter(**certificate), clock_.Now() + kDeviceLifetime);
  EXPECT_TRUE(authority_->IssuedForDevice(**certificate));
  EXPECT_TRUE(authority_->HasDeviceIssuer(**certificate));
  EXPECT_FALSE(authority_->HasOperatorIssuer(**certificate));
  EXPECT_EQ(enrolled->ca_certificate(), authority_->root_pem());
}

// As the documents say them, whatever the constants are.
TEST_F(IdentityTest, NoAuthorityIsMadeByAClockThatWasNeverSet) {
  EXPECT_EQ(ReasonOf(Authority::Create(root_ + "/unset", {"backup.example"}, FromUnixMillis(3'600'000))), "CLOCK_NOT_SET");
  EXPECT_FALSE(std::filesystem::exists(root_ + "/unset"));
}

TEST_F(IdentityTest, LivesAreTwentyYearsOneYearAndNinetyDays) {
  const auto days_left = [&](SystemTime not_after) { return std::chrono::duration<double>(not_after - clock_.Now()).count() / 86'400; };
  EXPECT_NEAR(days_left(authority_->root_not_after()), 20 * 365.25, 6);
  const auto server = crypto::CertificateFromPem(authority_->EnsureServerIdentity(clock_.Now())->certificate_chain);
  ASSERT_TRUE(server.ok());
  EXPECT_NEAR(days_left(crypto::NotAfter(**server)), 365, 0.01);
  const auto key = NewKey();
  const auto enrolled = Enroll(NewToken(), *key, "pump-1");
  ASSERT_TRUE(enrolled.ok()) << enrolled.status();
  EXPECT_NEAR(days_left(crypto::NotAfter(**crypto::CertificateFromPem(enrolled->certificate_chain()))), 90, 0.01);
}

// X.509 writes a time before 2050 in another form than one after it.
TEST_F(IdentityTest, CertificatesBeginIn1970AndEndToTheSecond) {
  const auto key = NewKey();
  for (const int64_t end : {int64_t{2'147'483'648}, int64_t{2'524'607'999}, int64_t{2'524'608'000}, int64_t{4'102'444'801}}) {
    const auto issued =
        Issue({.common_name = "pump-1", .alternative_names = {}, .not_after = SystemTime(std::chrono::seconds(end))}, *key, nullptr, *key);
    ASSERT_TRUE(issued.ok()) << issued.status();
    EXPECT_EQ(crypto::NotAfter(**issued), SystemTime(std::chrono::seconds(end)));
    struct tm begin {};
    ASSERT_EQ(ASN1_TIME_to_tm(X509_get0_notBefore(issued->get()), &begin), 1);
    EXPECT_EQ(timegm(&begin), 0);
  }
}

// Whoever reads the catalog, its log or a copy of both cannot enrol with what is there.
TEST_F(IdentityTest, TheSecretOfATokenIsInNoFile) {
  auto issued = enrollment_->IssueToken({});
  ASSERT_TRUE(issued.ok()) << issued.status();
  const auto token = crypto::ParseToken(issued->secret());
  ASSERT_TRUE(token.ok()) << token.status();
  ASSERT_GE(token->secret.size(), 16u);
  size_t files = 0;
  bool known = false;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root_)) {
    if (!entry.is_regular_file()) continue;
    ++files;
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    EXPECT_EQ(bytes.find(token->secret), std::string::npos) << entry.path();
    EXPECT_EQ(bytes.find(issued->secret()), std::string::npos) << entry.path();
    known = known || bytes.find(issued->token().id()) != std::string::npos;
  }
  EXPECT_GT(files, 1u);
  EXPECT_TRUE(known) << "the search finds what is there: the token's id";
  const auto key = NewKey();
  EXPECT_TRUE(Enroll(token->secret, *key, "pump-1").ok());
}

TEST_F(IdentityTest, TokenIsGoodForOneKeyAndThatKeyMayRepeat) {
  const auto key = NewKey(), thief = NewKey();
  const std::string token = NewToken();
  const auto first = Enroll(token, *key, "pump-1");
  ASSERT_TRUE(first.ok());
  const auto stolen = Enroll(token, *thief, "pump-2");
  EXPECT_EQ(stolen.status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(ReasonOf(stolen.status()), "TOKEN_INVALID");
  clock_.Advance(hours(2));  // the token is over, the answer was lost
  const auto again = Enroll(token, *key, "pump-1");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->device_id(), first->device_id());
  EXPECT_EQ(identities_->ListDevices("", 10, "")->items.size(), 1u);
}

TEST_F(IdentityTest, TokenFailuresLookAlike) {
  const auto key = NewKey();
  TokenRequest short_lived;
  short_lived.ttl = std::chrono::seconds(5);
  const std::string expired = NewToken(short_lived);
  clock_.Advance(std::chrono::seconds(6));
  const std::string revoked = NewToken();
  ASSERT_TRUE(identities_->RevokeToken(identities_->ListTokens(1, "")->items.front().id()).ok());
  std::set<std::string> messages;
  for (const std::string& token : {expired, revoked, std::string("guessed"), std::string()}) {
    const auto refused = Enroll(token, *key, "pump-1");
    EXPECT_EQ(ReasonOf(refused.status()), "TOKEN_INVALID");
    messages.insert(MessageOf(refused.status()));
  }
  EXPECT_EQ(messages.size(), 1u);
  EXPECT_TRUE(identities_->ListDevices("", 10, "")->items.empty());
}

TEST_F(IdentityTest, TokenForOneAmongManyAtOnce) {
  const std::string token = NewToken();
  std::atomic<int> enrolled = 0, refused = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      const auto key = NewKey();
      const auto result = Enroll(token, *key, fmt::format("pump-{}", i));
      result.ok() ? ++enrolled : ++refused;
      if (!result.ok()) {
        EXPECT_EQ(ReasonOf(result.status()), "TOKEN_INVALID");
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(enrolled, 1);
  EXPECT_EQ(refused, 7);
}

TEST_F(IdentityTest, TakenNameDoesNotSpendTheToken) {
  const auto key = NewKey(), other = NewKey();
  TokenRequest labelled;
  labelled.labels = {{"site", "north"}};
  ASSERT_TRUE(Enroll(NewToken(labelled), *key, "pump-1").ok());
  EXPECT_EQ(identities_->ListDevices("site=north", 10, "")->items.size(), 1u);
  EXPECT_TRUE(identities_->ListDevices("site=south", 10, "")->items.empty());
  const std::string token = NewToken();
  EXPECT_EQ(ReasonOf(Enroll(token, *other, "pump-1").status()), "DEVICE_NAME_TAKEN");
  EXPECT_EQ(ReasonOf(Enroll(token, *other, "no name").status()), "DEVICE_NAME_INVALID");
  EXPECT_TRUE(Enroll(token, *other, "pump-2").ok());
}

TEST_F(IdentityTest, TokenForADeviceKeepsItsIdAndVoidsItsCertificate) {
  const auto old_key = NewKey(), new_key = NewKey();
  const std::string first_token = NewToken();
  const auto before = Enroll(first_token, *old_key, "pump-1");
  ASSERT_TRUE(before.ok());
  TokenRequest for_device;
  for_device.for_device = DeviceId(before->device_id());
  const auto after = Enroll(NewToken(for_device), *new_key, "ignored");
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->device_id(), before->device_id());
  EXPECT_EQ(after->device_name(), "pump-1");
  EXPECT_TRUE((*identities_->FindCertificate(SerialOf(before->certificate_chain())))->revoked);
  EXPECT_FALSE((*identities_->FindCertificate(SerialOf(after->certificate_chain())))->revoked);
  EXPECT_EQ(ReasonOf(Enroll(first_token, *old_key, "pump-1").status()), "TOKEN_INVALID");  // the old key is nobody's now
}

// What the old machine was let in for runs after the new one took the device over.
TEST_F(IdentityTest, RenewalThatWaitedWhileTheDeviceWasTakenOverComesToNothing) {
  const auto old_key = NewKey(), new_key = NewKey();
  const auto before = Enroll(NewToken(), *old_key, "pump-1");
  ASSERT_TRUE(before.ok());
  const DeviceId device(before->device_id());
  const std::string old_serial = SerialOf(before->certificate_chain());
  TokenRequest for_device;
  for_device.for_device = device;
  const auto after = Enroll(NewToken(for_device), *new_key, "ignored");
  ASSERT_TRUE(after.ok()) << after.status();
  v1::RenewCertificateRequest renewal;
  renewal.set_csr(*crypto::MakeSigningRequest(*old_key, "x"));
  EXPECT_EQ(ReasonOf(enrollment_->Renew(device, old_serial, renewal).status()), "DEVICE_REVOKED");
  // The proof of an expired certificate reads the row before the transaction that adds the next one: the transaction looks itself.
  catalog::CertificateRow row;
  row.serial = "77";
  row.device = device;
  row.role = "device";
  row.key_hash = crypto::PublicKeyHash(*old_key);
  row.issued_at = clock_.Now();
  row.not_after = clock_.Now() + hours(24);
  EXPECT_EQ(ReasonOf(identities_->AddCertificate(row, old_serial)), "DEVICE_REVOKED");
  // So does the second half of an enrolment by a token that another enrolment has overtaken.
  EXPECT_EQ(ReasonOf(identities_->AddCertificate(row)), "DEVICE_REVOKED");
  const auto certificates = identities_->ListCertificates(clock_.Now());
  ASSERT_TRUE(certificates.ok());
  EXPECT_EQ(std::count_if(certificates->begin(), certificates->end(), [](const auto& each) { return !each.revoked; }), 1);
  // The new machine still has the device, and may give it another key.
  const auto next_key = NewKey();
  renewal.set_csr(*crypto::MakeSigningRequest(*next_key, "x"));
  EXPECT_TRUE(enrollment_->Renew(device, SerialOf(after->certificate_chain()), renewal).ok());
}

// A valid certificate of one device is no ground for a certificate of another.
TEST_F(IdentityTest, RenewalStandsOnTheDevicesOwnCertificate) {
  const auto key = NewKey(), other_key = NewKey();
  const auto one = Enroll(NewToken(), *key, "pump-1");
  const auto other = Enroll(NewToken(), *other_key, "pump-2");
  ASSERT_TRUE(one.ok() && other.ok());
  v1::RenewCertificateRequest renewal;
  renewal.set_csr(*crypto::MakeSigningRequest(*key, "x"));
  EXPECT_EQ(ReasonOf(enrollment_->Renew(DeviceId(one->device_id()), SerialOf(other->certificate_chain()), renewal).status()),
            "DEVICE_REVOKED");
}

TEST_F(IdentityTest, RevokedDeviceGetsNothing) {
  const auto key = NewKey();
  const std::string token = NewToken();
  const auto enrolled = Enroll(token, *key, "pump-1");
  ASSERT_TRUE(enrolled.ok());
  const DeviceId device(enrolled->device_id());
  ASSERT_TRUE(identities_->RevokeDevice(device).ok());
  v1::RenewCertificateRequest renewal;
  renewal.set_csr(*crypto::MakeSigningRequest(*key, "x"));
  EXPECT_EQ(ReasonOf(enrollment_->Renew(device, SerialOf(enrolled->certificate_chain()), renewal).status()), "DEVICE_REVOKED");
  EXPECT_EQ(ReasonOf(Enroll(token, *key, "pump-1").status()), "DEVICE_REVOKED");
  EXPECT_EQ(ReasonOf(Prove(enrolled->certificate_chain(), *key, *key).status()), "DEVICE_REVOKED");
  EXPECT_TRUE(identities_->ForgetDevice(device).ok());
  EXPECT_EQ(identities_->ResolveDevice("pump-1").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(IdentityTest, RenewalLeavesTheOldOneValidUntilTheNewOneIsUsed) {
  const auto key = NewKey();
  const auto enrolled = Enroll(NewToken(), *key, "pump-1");
  ASSERT_TRUE(enrolled.ok());
  v1::RenewCertificateRequest renewal;
  renewal.set_csr(*crypto::MakeSigningRequest(*key, "x"));
  const auto renewed = enrollment_->Renew(DeviceId(enrolled->device_id()), SerialOf(enrolled->certificate_chain()), renewal);
  ASSERT_TRUE(renewed.ok());
  const std::string old_serial = crypto::SerialOf(**crypto::CertificateFromPem(enrolled->certificate_chain()));
  const std::string new_serial = crypto::SerialOf(**crypto::CertificateFromPem(renewed->certificate_chain()));
  ASSERT_TRUE(identities_->CertificateUsed(old_serial, clock_.Now()).ok());
  EXPECT_FALSE((*identities_->FindCertificate(old_serial))->revoked);
  EXPECT_FALSE((*identities_->FindCertificate(new_serial))->revoked);
  ASSERT_TRUE(identities_->CertificateUsed(new_serial, clock_.Now()).ok());
  EXPECT_TRUE((*identities_->FindCertificate(old_serial))->revoked);
  EXPECT_FALSE((*identities_->FindCertificate(new_serial))->revoked);
}

TEST_F(IdentityTest, ExpiredCertificateIsRenewedByItsKeyAlone) {
  const auto key = NewKey(), thief = NewKey();
  const auto enrolled = Enroll(NewToken(), *key, "pump-1");
  ASSERT_TRUE(enrolled.ok());
  clock_.Advance(hours(24 * 200));
  EXPECT_EQ(ReasonOf(Prove(enrolled->certificate_chain(), *thief, *thief).status()), "PROOF_INVALID");
  EXPECT_EQ(ReasonOf(Prove(enrolled->certificate_chain(), *key, *thief).status()), "CSR_INVALID");
  const auto renewed = Prove(enrolled->certificate_chain(), *key, *key);
  ASSERT_TRUE(renewed.ok()) << renewed.status();
  EXPECT_EQ(renewed->device_id(), enrolled->device_id());
  EXPECT_EQ(crypto::NotAfter(**crypto::CertificateFromPem(renewed->certificate_chain())), clock_.Now() + kDeviceLifetime);
}

TEST_F(IdentityTest, ChallengeIsOverAfterFiveMinutesAndForItsCertificateAlone) {
  const auto key = NewKey();
  const auto enrolled = Enroll(NewToken(), *key, "pump-1");
  ASSERT_TRUE(enrolled.ok());
  v1::EnrollRequest request;
  request.mutable_expired()->set_certificate(crypto::CertificateToDer(**crypto::CertificateFromPem(enrolled->certificate_chain())));
  const std::string challenge = enrollment_->Enroll(request)->challenge();
  request.set_csr(*crypto::MakeSigningRequest(*key, "x"));
  request.mutable_expired()->set_challenge(challenge);
  request.mutable_expired()->set_signature(*crypto::Sign(*key, std::string("litefleet-renew\0", 16) + challenge));
  EXPECT_TRUE(enrollment_->Enroll(request).ok());
  clock_.Advance(std::chrono::minutes(6));
  EXPECT_EQ(ReasonOf(enrollment_->Enroll(request).status()), "PROOF_INVALID");
  request.mutable_expired()->set_certificate("nonsense");
  EXPECT_EQ(ReasonOf(enrollment_->Enroll(request).status()), "PROOF_INVALID");
}

TEST_F(IdentityTest, OperatorsHaveNamesOfTheirOwn) {
  const auto first = enrollment_->CreateOperator("ada", "admin");
  ASSERT_TRUE(first.ok()) << first.status();
  const auto parsed = rpc::ParseIdentity(rpc::FormatIdentity(*first));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->ca_certificate, authority_->root_pem());
  // Without a certificate that was issued gRPC would end the process.
  const auto of_the_root = rpc::ParseIdentity(*io::ReadFile(root_ + "/ca/root-key.pem") + authority_->root_pem());
  EXPECT_EQ(ReasonOf(of_the_root.status()), "IDENTITY_INVALID");
  EXPECT_TRUE(authority_->HasOperatorIssuer(**crypto::CertificateFromPem(parsed->certificate_chain)));
  EXPECT_EQ(ReasonOf(enrollment_->CreateOperator("ada", "admin").status()), "OPERATOR_EXISTS");
  EXPECT_EQ(ReasonOf(enrollment_->CreateOperator("a/b", "admin").status()), "OPERATOR_NAME_INVALID");
}

TEST_F(IdentityTest, ReferencesAreNamesAndUniquePrefixes) {
  const auto a = NewKey(), b = NewKey();
  const auto first = Enroll(NewToken(), *a, "pump-1");
  ASSERT_TRUE(first.ok() && Enroll(NewToken(), *b, "pump-2").ok());
  EXPECT_EQ(identities_->ResolveDevice("pump-1")->id(), first->device_id());
  EXPECT_EQ(identities_->ResolveDevice(first->device_id().substr(0, 13))->name(), "pump-1");
  EXPECT_EQ(ReasonOf(identities_->ResolveDevice("pump").status()), "DEVICE_NOT_FOUND");
  EXPECT_EQ(ReasonOf(identities_->ResolveDevice("").status()), "DEVICE_NOT_FOUND");
  EXPECT_EQ(ReasonOf(identities_->UpdateDevice(DeviceId(first->device_id()), "pump-2", {}, {}).status()), "DEVICE_NAME_TAKEN");
  const auto renamed = identities_->UpdateDevice(DeviceId(first->device_id()), "mill", {{"a", "1"}, {"b", "2"}}, {"c"});
  ASSERT_TRUE(renamed.ok());
  EXPECT_EQ(renamed->name(), "mill");
  EXPECT_EQ(renamed->labels().size(), 2u);
  const auto page = identities_->ListDevices("", 1, "");
  ASSERT_EQ(page->items.size(), 1u);
  EXPECT_EQ(page->next_token, "mill");
  EXPECT_EQ(identities_->ListDevices("", 1, page->next_token)->items.front().name(), "pump-2");
}

}  // namespace
}  // namespace litefleet::identity
