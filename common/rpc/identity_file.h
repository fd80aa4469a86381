// One PEM file that holds who somebody is: a private key, its certificate chain, and the root to trust (an operator's admin.pem).
//
// Thread safety: values and pure functions. Errors: those of io::ReadNamedFile; kInvalidArgument IDENTITY_INVALID; kPermissionDenied
// IDENTITY_EXPOSED where others than the owner may read the key.
#ifndef LITEFLEET_COMMON_RPC_IDENTITY_FILE_H_
#define LITEFLEET_COMMON_RPC_IDENTITY_FILE_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace litefleet::rpc {

// All PEM text; empty where there is none.
struct Identity {
  std::string private_key;
  std::string certificate_chain;  // the own certificate first, then intermediates
  std::string ca_certificate;     // the root
};

std::string FormatIdentity(const Identity& identity);
absl::StatusOr<Identity> ParseIdentity(std::string_view pem);
absl::StatusOr<Identity> ReadIdentityFile(const std::string& path);

}  // namespace litefleet::rpc

#endif  // LITEFLEET_COMMON_RPC_IDENTITY_FILE_H_
