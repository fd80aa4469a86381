#include "controller/identity/enrollment.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/x509.h>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/crypto/token.h"
#include "fmt/format.h"

namespace litefleet::identity {
namespace {

constexpr std::chrono::minutes kChallengeLifetime{5};
constexpr size_t kNonceBytes = 16;
constexpr size_t kChallengeBytes = kNonceBytes + 8 + 32;
constexpr std::string_view kProofContext("litefleet-renew\0", 16);

absl::Status ProofInvalid(std::string_view why) {
  return Error(absl::StatusCode::kUnauthenticated, "PROOF_INVALID",
               fmt::format("the proof of the expired certificate is not accepted: {}", why),
               "enrol the device anew with a token of `litefleet token create --for-device`");
}

std::string Hmac(std::span<const std::byte> key, std::string_view data) {
  unsigned char mac[32] = {};
  unsigned size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(data.data()), data.size(), mac,
       &size);
  return {reinterpret_cast<const char*>(mac), size};
}

std::string Text(const crypto::Sha256& hash) { return std::string(AsText({hash.data(), hash.size()})); }

}  // namespace

Enrollment::Enrollment(const Authority& authority, catalog::IdentityCatalog& catalog, const Clock& clock)
    : authority_(authority), catalog_(catalog), clock_(clock), challenge_key_{} {
  RandomBytes(challenge_key_);
}

absl::StatusOr<v1::CreateTokenResponse> Enrollment::IssueToken(const TokenRequest& request) {
  const crypto::EnrollmentToken token = crypto::NewEnrollmentToken(authority_.root_fingerprint());
  catalog::NewToken row;
  const SystemTime now = clock_.Now();
  row.id = NewUlid(now);
  row.secret_hash = crypto::HashOfSecret(token.secret);
  row.created_at = now;
  row.expires_at = now + request.ttl;
  row.uses = request.uses;
  row.labels = request.labels;
  row.for_device_id = request.for_device.value();
  v1::CreateTokenResponse response;
  LF_ASSIGN_OR_RETURN(*response.mutable_token(), catalog_.CreateToken(row));
  response.set_secret(crypto::FormatToken(token));
  return response;
}

absl::StatusOr<std::string> Enrollment::IssueTo(const DeviceId& device, EVP_PKEY& key, const std::string& earlier) {
  const SystemTime now = clock_.Now();
  LF_ASSIGN_OR_RETURN(Issued issued, authority_.IssueDevice(device, key, now));
  catalog::CertificateRow row;
  row.serial = issued.serial;
  row.device = device;
  row.role = "device";
  row.key_hash = issued.key_hash;
  row.issued_at = now;
  row.not_after = issued.not_after;
  LF_RETURN_IF_ERROR(catalog_.AddCertificate(row, earlier));
  LF_CRASH_POINT("enroll.after_certificate");
  return std::move(issued.certificate_chain);
}

absl::StatusOr<v1::EnrollResponse> Enrollment::Enroll(const v1::EnrollRequest& request) {
  switch (request.credential_case()) {
    case v1::EnrollRequest::kToken:
      return EnrollByToken(request);
    case v1::EnrollRequest::kExpired:
      return EnrollByProof(request);
    default:
      return Error(absl::StatusCode::kInvalidArgument, "CREDENTIAL_MISSING", "the request holds neither a token nor a proof");
  }
}

absl::StatusOr<v1::EnrollResponse> Enrollment::EnrollByToken(const v1::EnrollRequest& request) {
  LF_ASSIGN_OR_RETURN(const crypto::Key key, crypto::KeyOfSigningRequest(request.csr()));
  LF_ASSIGN_OR_RETURN(
      const catalog::EnrollmentResult enrolled,
      catalog_.Enroll(crypto::HashOfSecret(request.token()), crypto::PublicKeyHash(*key), request.device_name(), clock_.Now()));
  LF_CRASH_POINT("enroll.after_token");
  v1::EnrollResponse response;
  LF_ASSIGN_OR_RETURN(*response.mutable_certificate_chain(), IssueTo(enrolled.device, *key, ""));
  response.set_device_id(enrolled.device.value());
  response.set_device_name(enrolled.name);
  response.set_ca_certificate(authority_.root_pem());
  return response;
}

absl::StatusOr<v1::EnrollResponse> Enrollment::EnrollByProof(const v1::EnrollRequest& request) {
  const v1::ExpiredCertificateProof& proof = request.expired();
  const auto certificate = crypto::CertificateFromDer(proof.certificate());
  if (!certificate.ok() || !authority_.IssuedForDevice(**certificate)) return ProofInvalid("this controller did not issue the certificate");
  const crypto::Sha256 fingerprint = crypto::Fingerprint(**certificate);
  v1::EnrollResponse response;
  if (proof.challenge().empty()) {
    response.set_challenge(MakeChallenge(fingerprint));
    return response;
  }
  if (!ChallengeIsValid(proof.challenge(), fingerprint)) return ProofInvalid("the challenge is not this controller's, or it is over");
  EVP_PKEY* key = X509_get0_pubkey(certificate->get());
  if (key == nullptr || !crypto::SignatureIsValid(*key, std::string(kProofContext) + proof.challenge(), proof.signature())) {
    return ProofInvalid("the signature is wrong");
  }
  // Only now is it told what the catalog knows.
  LF_ASSIGN_OR_RETURN(const auto row, catalog_.FindCertificate(crypto::SerialOf(**certificate)));
  if (!row.has_value() || row->device.value().empty()) return ProofInvalid("the certificate is not in the catalog");
  if (row->revoked) {
    return Error(absl::StatusCode::kPermissionDenied, "DEVICE_REVOKED", "the certificate was revoked or replaced by a newer one",
                 "enrol the device anew with a token of `litefleet token create --for-device`");
  }
  LF_ASSIGN_OR_RETURN(const crypto::Key wanted, crypto::KeyOfSigningRequest(request.csr()));
  if (crypto::PublicKeyHash(*wanted) != row->key_hash) {
    return Error(absl::StatusCode::kInvalidArgument, "CSR_INVALID", "the renewal of an expired certificate must keep its key");
  }
  LF_ASSIGN_OR_RETURN(const v1::Device device, catalog_.ResolveDevice(row->device.value()));
  LF_ASSIGN_OR_RETURN(*response.mutable_certificate_chain(), IssueTo(row->device, *wanted, row->serial));
  response.set_device_id(device.id());
  response.set_device_name(device.name());
  response.set_ca_certificate(authority_.root_pem());
  return response;
}

absl::StatusOr<v1::RenewCertificateResponse> Enrollment::Renew(const DeviceId& device, const std::string& serial,
                                                               const v1::RenewCertificateRequest& request) {
  LF_ASSIGN_OR_RETURN(const crypto::Key key, crypto::KeyOfSigningRequest(request.csr()));
  v1::RenewCertificateResponse response;
  LF_ASSIGN_OR_RETURN(*response.mutable_certificate_chain(), IssueTo(device, *key, serial));
  response.set_ca_certificate(authority_.root_pem());
  return response;
}

absl::StatusOr<rpc::Identity> Enrollment::CreateOperator(const std::string& name, const std::string& role) {
  if (role != catalog::kAdminRole && role != catalog::kViewerRole) {
    return Error(absl::StatusCode::kInvalidArgument, "ROLE_INVALID", fmt::format("\"{}\" is no role", role),
                 fmt::format("use {} or {}", catalog::kAdminRole, catalog::kViewerRole));
  }
  LF_ASSIGN_OR_RETURN(const crypto::Key key, crypto::GenerateKey());
  const SystemTime now = clock_.Now();
  LF_ASSIGN_OR_RETURN(Issued issued, authority_.IssueOperator(name, *key, now));
  catalog::CertificateRow row;
  row.serial = issued.serial;
  row.operator_name = name;
  row.role = role;
  row.key_hash = issued.key_hash;
  row.issued_at = now;
  row.not_after = issued.not_after;
  LF_RETURN_IF_ERROR(catalog_.AddCertificate(row));
  LF_ASSIGN_OR_RETURN(std::string pem, crypto::KeyToPem(*key));
  return rpc::Identity{std::move(pem), std::move(issued.certificate_chain), authority_.root_pem()};
}

// Nonce, end in Unix milliseconds, and a MAC over both and the certificate: nothing has to be remembered.
std::string Enrollment::MakeChallenge(const crypto::Sha256& certificate) const {
  std::array<std::byte, kNonceBytes + 8> head{};
  RandomBytes(std::span(head).first(kNonceBytes));
  StoreLittleEndian(static_cast<uint64_t>(ToUnixMillis(clock_.Now() + kChallengeLifetime)), head.data() + kNonceBytes);
  const std::string text(AsText(head));
  return text + Hmac(challenge_key_, text + Text(certificate));
}

bool Enrollment::ChallengeIsValid(std::string_view challenge, const crypto::Sha256& certificate) const {
  if (challenge.size() != kChallengeBytes) return false;
  const std::string head(challenge.substr(0, kNonceBytes + 8));
  const std::string mac = Hmac(challenge_key_, head + Text(certificate));
  const auto end = static_cast<int64_t>(LoadLittleEndian<uint64_t>(AsBytes(head).data() + kNonceBytes));
  return CRYPTO_memcmp(mac.data(), challenge.data() + head.size(), mac.size()) == 0 && ToUnixMillis(clock_.Now()) <= end;
}

}  // namespace litefleet::identity
