// The certificates that a TLS server shows, as somebody sees them who connects to it: for looking at, not for trusting.
//
// Nothing is verified and nothing is sent but the handshake; CheckServerChain judges. Thread safety: a pure function. Blocks for no longer
// than the timeout, but for what the name of the host takes.
#ifndef LITEFLEET_COMMON_CRYPTO_TLS_PEER_H_
#define LITEFLEET_COMMON_CRYPTO_TLS_PEER_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/crypto/x509.h"

namespace litefleet::crypto {

// `host`: an IP address or a name. The server's own certificate comes first. kUnavailable TLS_UNREACHABLE (nobody listens, no answer in
// time), kInternal TLS_HANDSHAKE_FAILED.
absl::StatusOr<std::vector<Certificate>> ShownCertificates(const std::string& host, uint16_t port, std::chrono::milliseconds timeout);

}  // namespace litefleet::crypto

#endif  // LITEFLEET_COMMON_CRYPTO_TLS_PEER_H_
