// Whether a TLS server is the one that is meant: by its chain to one trusted root, by what it is certified for, and by its names.
//
// The time is not looked at: a device's clock may be anywhere (no battery, no network), and neither side can tell from a date alone
// whether the certificate is old or the clock wrong. Who trusts one root of its own, whose servers' keys lie beside the root's, loses
// nothing by that; not for roots of others. EndsBefore lets the caller report it.
//
// Thread safety: pure functions; they leave OpenSSL's error queue empty. Source: RFC 5280 section 6, X509_verify_cert(3).
#ifndef LITEFLEET_COMMON_CRYPTO_SERVER_CHAIN_H_
#define LITEFLEET_COMMON_CRYPTO_SERVER_CHAIN_H_

#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "common/crypto/x509.h"

namespace litefleet::crypto {

// `chain`: what the server sent, its own certificate first. `host`: a name or an IP address without brackets, as the caller dialled it.
// kPermissionDenied CONTROLLER_UNTRUSTED: no path of CAs that may certify servers leads from a server's certificate to `root`, or a
// signature is wrong or weak; CONTROLLER_NAME_MISMATCH.
absl::Status CheckServerChain(const std::vector<Certificate>& chain, X509& root, std::string_view host);

// Whether one of them has ended by `now`.
bool EndsBefore(const std::vector<Certificate>& chain, SystemTime now);

}  // namespace litefleet::crypto

#endif  // LITEFLEET_COMMON_CRYPTO_SERVER_CHAIN_H_
