// Where a controller is: HOST:PORT, [IPv6]:PORT or unix:PATH, as users type it.
//
// Thread safety: values and pure functions. Errors: kInvalidArgument ADDRESS_INVALID with an example of what is right.
#ifndef LITEFLEET_COMMON_RPC_ADDRESS_H_
#define LITEFLEET_COMMON_RPC_ADDRESS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace litefleet::rpc {

inline constexpr uint16_t kDefaultPort = 8742;

struct Address {
  std::string host;   // name or IP address without brackets, IPv6 in its canonical form; empty for unix
  uint16_t port = 0;  // 0 only in addresses to listen on: any free one
  std::string path;   // of a unix socket; else empty

  bool is_unix() const { return !path.empty(); }
  bool is_ipv6() const { return host.find(':') != std::string::npos; }
  // As users type it.
  std::string Text() const;
  // For gRPC's channels: an escaped URI.
  std::string Target() const;

  friend bool operator==(const Address&, const Address&) = default;
};

// HOST alone gets the default port. A bare IPv6 address without brackets is an error that shows it with brackets.
absl::StatusOr<Address> ParseAddress(std::string_view text);
// As ParseAddress, but port 0 is allowed, and so is ":PORT" and "*:PORT" for all interfaces ("::").
absl::StatusOr<Address> ParseListenAddress(std::string_view text);

// Whether this is an IPv4 or IPv6 address rather than a name.
bool IsIpAddress(std::string_view host);
// A DNS name (letters, digits, hyphens, dots; labels up to 63, in all up to 253 characters).
bool IsHostName(std::string_view host);

}  // namespace litefleet::rpc

#endif  // LITEFLEET_COMMON_RPC_ADDRESS_H_
