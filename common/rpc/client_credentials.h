// TLS of a client that trusts one root, whatever its own clock says.
//
// gRPC's own check of a server's certificate looks at the time, and a device without a right clock would be locked out; so that check
// is turned off, and ours (common/crypto/server_chain.h) decides after the handshake, before any call is sent: chain, purpose, name. That
// the server has the key of its certificate is TLS's matter, as ever. A certificate that has ended by this clock is logged, as a warning.
// Not for servers (server_credentials.h). Thread safety: a pure function; the result may be shared.
// Source: grpc::experimental::TlsChannelCredentialsOptions of gRPC 1.51.
#ifndef LITEFLEET_COMMON_RPC_CLIENT_CREDENTIALS_H_
#define LITEFLEET_COMMON_RPC_CLIENT_CREDENTIALS_H_

#include <grpcpp/security/credentials.h>

#include <memory>

#include "absl/status/statusor.h"
#include "common/rpc/address.h"
#include "common/rpc/identity_file.h"

namespace litefleet::rpc {

// The root must be there; key and chain may be empty. kInvalidArgument CERTIFICATE_INVALID.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ClientCredentials(const Identity& identity, const Address& address);

}  // namespace litefleet::rpc

#endif  // LITEFLEET_COMMON_RPC_CLIENT_CREDENTIALS_H_
