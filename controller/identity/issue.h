// Builds and signs certificates: the one place that knows their extensions. For authority.cc alone.
//
// Thread safety: pure functions. Source: RFC 5280; CA/Browser rules for key usage.
#ifndef LITEFLEET_CONTROLLER_IDENTITY_ISSUE_H_
#define LITEFLEET_CONTROLLER_IDENTITY_ISSUE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/crypto/x509.h"

namespace litefleet::identity {

enum class Kind { kRoot, kServersCa, kClientsCa, kServer, kClient };

struct CertificateWish {
  Kind kind = Kind::kClient;
  std::string common_name;
  std::vector<std::string> alternative_names;  // OpenSSL's form: "DNS:a", "IP:192.0.2.1", "URI:..."
  SystemTime not_after;
};

// `issuer` null: self-signed by `signer`, which then is the key of `subject`.
absl::StatusOr<crypto::Certificate> Issue(const CertificateWish& wish, EVP_PKEY& subject, X509* issuer, EVP_PKEY& signer);

}  // namespace litefleet::identity

#endif  // LITEFLEET_CONTROLLER_IDENTITY_ISSUE_H_
