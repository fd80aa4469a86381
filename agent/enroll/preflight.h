// Looks at who answers at an address before anything is said to it: a TLS handshake that ends with the server's certificates.
//
// Not for calls: the connection is closed. Thread safety: a pure function; it blocks, for `timeout` at most in each of its steps.
#ifndef LITEFLEET_AGENT_ENROLL_PREFLIGHT_H_
#define LITEFLEET_AGENT_ENROLL_PREFLIGHT_H_

#include <chrono>
#include <string>

#include "absl/status/statusor.h"
#include "common/crypto/x509.h"
#include "common/rpc/address.h"

namespace litefleet::enroll {

// The root (PEM) whose SHA-256 is `fingerprint`, if the server's chain leads to it and its certificate names the address's host.
// kUnavailable CONTROLLER_UNREACHABLE; kPermissionDenied CONTROLLER_UNTRUSTED, CONTROLLER_NAME_MISMATCH.
absl::StatusOr<std::string> FetchTrustedRoot(const rpc::Address& address, const crypto::Sha256& fingerprint,
                                             std::chrono::milliseconds timeout);

}  // namespace litefleet::enroll

#endif  // LITEFLEET_AGENT_ENROLL_PREFLIGHT_H_
