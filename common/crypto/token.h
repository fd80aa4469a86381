// The text of an enrolment token: "lft1.SECRET.FINGERPRINT", both base 64 for URLs.
//
// SECRET are 32 random bytes; FINGERPRINT is the SHA-256 of the controller's root certificate, so that a device can tell its controller
// from an impostor before it says the secret. Thread safety: values and pure functions.
#ifndef LITEFLEET_COMMON_CRYPTO_TOKEN_H_
#define LITEFLEET_COMMON_CRYPTO_TOKEN_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/crypto/x509.h"

namespace litefleet::crypto {

struct EnrollmentToken {
  std::string secret;  // as text: what EnrollRequest.token carries
  Sha256 ca_fingerprint{};
};

EnrollmentToken NewEnrollmentToken(const Sha256& ca_fingerprint);
std::string FormatToken(const EnrollmentToken& token);
// White space around it is ignored. kInvalidArgument TOKEN_MALFORMED; the message never repeats the text.
absl::StatusOr<EnrollmentToken> ParseToken(std::string_view text);
// What the controller keeps of a secret: SHA-256 of its text. No salt and no stretching: it has 256 random bits.
Sha256 HashOfSecret(std::string_view secret);

}  // namespace litefleet::crypto

#endif  // LITEFLEET_COMMON_CRYPTO_TOKEN_H_
