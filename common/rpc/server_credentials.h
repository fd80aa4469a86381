// TLS of a server whose certificate can be replaced while it runs; client certificates are verified where given, not demanded.
//
// New handshakes see what was set last; connections that stand are not touched. Every handshake that brings a client certificate which
// does not lead to the root fails; who comes without one is refused later, by method (controller/rpc/auth.h).
// Thread safety: Set may be called from any thread at any time.
// Source: grpc_ssl_server_credentials_create_options_using_config_fetcher of gRPC's C API, which the C++ classes do not offer.
#ifndef LITEFLEET_COMMON_RPC_SERVER_CREDENTIALS_H_
#define LITEFLEET_COMMON_RPC_SERVER_CREDENTIALS_H_

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "absl/status/status.h"
#include "common/base/mutex.h"
#include "common/rpc/identity_file.h"

namespace litefleet::rpc {

class ServerCertificates {
 public:
  // Key, chain (own certificate first; also the root, so that a device can match its fingerprint) and the root that clients' chains
  // must lead to. Keeps what was there when the key does not fit the certificate or something is unreadable: kInvalidArgument.
  absl::Status Set(const Identity& identity);
  // What was set since the last call; false where nothing was. For TlsCredentials alone.
  bool Fetch(Identity* identity) const;

 private:
  mutable Mutex mu_;
  Identity identity_ ABSL_GUARDED_BY(mu_);
  mutable bool fetched_ ABSL_GUARDED_BY(mu_) = false;
};

// REQUIRES: `certificates` has been Set, outlives the server, and is used for one server only.
std::shared_ptr<grpc::ServerCredentials> TlsCredentials(const ServerCertificates& certificates);
// For the unix socket.
std::shared_ptr<grpc::ServerCredentials> UnixSocketCredentials();

}  // namespace litefleet::rpc

#endif  // LITEFLEET_COMMON_RPC_SERVER_CREDENTIALS_H_
