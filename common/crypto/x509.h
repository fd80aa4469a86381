// Keys, certificates and signing requests, as the agent's enrolment and the controller's CA share them: a thin, owning face of OpenSSL.
//
// Not for bulk digests (common/format) or TLS connections (common/rpc). Thread safety: pure functions; objects are not shared.
// Text is PEM, std::string of bytes is DER. Errors: kInvalidArgument KEY_INVALID, CERTIFICATE_INVALID, CSR_INVALID; kInternal
// CRYPTO_FAILED.
#ifndef LITEFLEET_COMMON_CRYPTO_X509_H_
#define LITEFLEET_COMMON_CRYPTO_X509_H_

#include <openssl/types.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"

struct X509_req_st;

namespace litefleet::crypto {

struct FreeOpenSsl {
  void operator()(EVP_PKEY* key) const noexcept;
  void operator()(X509* certificate) const noexcept;
  void operator()(X509_req_st* request) const noexcept;
};
using Key = std::unique_ptr<EVP_PKEY, FreeOpenSsl>;
using Certificate = std::unique_ptr<X509, FreeOpenSsl>;
using Sha256 = std::array<std::byte, 32>;

// The error queue of this thread as an error; empties the queue.
absl::Status CryptoError(absl::StatusCode code, std::string_view reason, std::string_view what);

// ---- keys
absl::StatusOr<Key> GenerateKey();                    // EC P-256
absl::StatusOr<std::string> KeyToPem(EVP_PKEY& key);  // PKCS #8
absl::StatusOr<Key> KeyFromPem(std::string_view pem);
// PKCS #8 under PBES2 with scrypt (RFC 7914, N = 2^14, r = 8, p = 5) and AES-256-CBC, as `openssl pkey` reads it.
absl::StatusOr<std::string> KeyToEncryptedPem(EVP_PKEY& key, std::string_view passphrase);
// kPermissionDenied PASSPHRASE_WRONG, also where the text is damaged: nothing tells the two apart.
absl::StatusOr<Key> KeyFromEncryptedPem(std::string_view pem, std::string_view passphrase);
// kInvalidArgument KEY_INVALID unless EC P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits.
absl::Status CheckKeyType(EVP_PKEY& key);
// SHA-256 of the SubjectPublicKeyInfo.
Sha256 PublicKeyHash(EVP_PKEY& key);
// SHA-256 with ECDSA or RSA; Ed25519 as it is.
absl::StatusOr<std::string> Sign(EVP_PKEY& key, std::string_view data);
bool SignatureIsValid(EVP_PKEY& key, std::string_view data, std::string_view signature);

// ---- signing requests
// DER; the subject is of use to people who look at it only.
absl::StatusOr<std::string> MakeSigningRequest(EVP_PKEY& key, std::string_view common_name);
// The public key of a request whose own signature is right and whose key is of a kind that we accept; everything else in it is ignored.
absl::StatusOr<Key> KeyOfSigningRequest(std::string_view der);

// ---- certificates
absl::StatusOr<Certificate> CertificateFromPem(std::string_view pem);                // the first one
absl::StatusOr<std::vector<Certificate>> CertificatesFromPem(std::string_view pem);  // at least one, at most 16
absl::StatusOr<Certificate> CertificateFromDer(std::string_view der);
std::string CertificateToPem(X509& certificate);
std::string CertificateToDer(X509& certificate);
// SHA-256 of the whole certificate.
Sha256 Fingerprint(X509& certificate);
Sha256 PublicKeyHash(X509& certificate);
// Lower-case hexadecimal, without leading zeros' loss.
std::string SerialOf(X509& certificate);
SystemTime NotBefore(X509& certificate);
SystemTime NotAfter(X509& certificate);
// The only URI among the subject's alternative names; nothing when there is none or more than one.
std::optional<std::string> UriOf(X509& certificate);
// "DNS:a.example", "IP:192.0.2.1" ...: for people and comparisons.
std::vector<std::string> NamesOf(X509& certificate);
bool IsSelfSigned(X509& certificate);
bool WasIssuedBy(X509& certificate, X509& issuer);  // names, key identifiers and signature

Sha256 HashOf(std::string_view data);

// ---- base 64 for URLs, without padding
std::string ToBase64Url(ByteView bytes);
std::optional<Bytes> FromBase64Url(std::string_view text);

}  // namespace litefleet::crypto

#endif  // LITEFLEET_COMMON_CRYPTO_X509_H_
