#include "common/rpc/address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

constexpr std::string_view kHint = "write HOST:PORT, [IPV6]:PORT or unix:PATH";

absl::Status Invalid(std::string_view text, std::string_view why, std::string_view hint = kHint) {
  return Error(absl::StatusCode::kInvalidArgument, "ADDRESS_INVALID", fmt::format("\"{}\" is no address: {}", text, why), hint);
}

// Percent-encodes everything that is not plainly allowed in the path of a URI.
std::string Escape(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       std::string_view("-._~/:[]").find(c) != std::string_view::npos;
    if (plain) {
      result += c;
    } else {
      result += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return result;
}

// IPv6 text (an interface may follow after %) in its shortest form; empty where it is none.
std::string CanonicalIpv6(std::string_view text) {
  const size_t percent = text.find('%');
  in6_addr address{};
  if (inet_pton(AF_INET6, std::string(text.substr(0, percent)).c_str(), &address) != 1) return {};
  char canonical[INET6_ADDRSTRLEN] = "";
  inet_ntop(AF_INET6, &address, canonical, sizeof canonical);
  return std::string(canonical) + (percent == std::string_view::npos ? "" : std::string(text.substr(percent)));
}

absl::StatusOr<Address> Parse(std::string_view text, bool listen) {
  Address result;
  if (text.empty()) return Invalid(text, "it is empty");
  if (text.substr(0, 5) == "unix:") {
    result.path = std::string(text.substr(5));
    if (result.path.substr(0, 2) == "//") result.path.erase(0, 2);
    if (result.path.empty()) return Invalid(text, "the path is missing");
    return result;
  }
  std::string_view host = text;
  std::string_view port;
  bool has_port = false;
  if (text[0] == '[') {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return Invalid(text, "\"]\" is missing");
    result.host = CanonicalIpv6(text.substr(1, end - 1));
    if (result.host.empty()) return Invalid(text, "what is in brackets is no IPv6 address");
    const std::string_view rest = text.substr(end + 1);
    if (!rest.empty() && rest[0] != ':') return Invalid(text, "after \"]\" comes \":PORT\"");
    has_port = !rest.empty();
    if (has_port) port = rest.substr(1);
  } else {
    if (const std::string bare = CanonicalIpv6(text); !bare.empty()) {
      return Invalid(text, "an IPv6 address needs brackets", fmt::format("write [{}]:{}", bare, kDefaultPort));
    }
    const size_t colon = text.rfind(':');
    has_port = colon != std::string_view::npos;
    if (has_port) {
      host = text.substr(0, colon);
      port = text.substr(colon + 1);
    }
    if (listen && (host.empty() || host == "*")) host = "::";
    if (host != "::" && !IsIpAddress(host) && !IsHostName(host)) {
      return Invalid(text, host.empty() ? "the host is missing" : fmt::format("\"{}\" is neither a host name nor an IP address", host));
    }
    result.host = std::string(host);
  }
  result.port = kDefaultPort;
  if (has_port) {
    unsigned value = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), value);
    if (error != std::errc() || end != port.data() + port.size() || value > 65535 || (value == 0 && !listen)) {
      return Invalid(text, fmt::format("\"{}\" is no port from {} to 65535", port, listen ? 0 : 1));
    }
    result.port = static_cast<uint16_t>(value);
  }
  return result;
}

}  // namespace

bool IsIpAddress(std::string_view host) {
  in_addr v4{};
  return inet_pton(AF_INET, std::string(host).c_str(), &v4) == 1 || !CanonicalIpv6(host).empty();
}

bool IsHostName(std::string_view host) {
  if (!host.empty() && host.back() == '.') host.remove_suffix(1);
  if (host.empty() || host.size() > 253) return false;
  size_t label = 0;
  char before = '.';
  for (const char c : host) {
    const bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    if (c == '.') {
      if (before == '.' || before == '-') return false;
      label = 0;
    } else if (!alnum && (c != '-' || before == '.')) {
      return false;
    } else if (++label > 63) {
      return false;
    }
    before = c;
  }
  // Four numbers that are no IPv4 address are a mistake, not a name.
  return before != '-' && before != '.' && std::any_of(host.begin(), host.end(), [](char c) { return c != '.' && (c < '0' || c > '9'); });
}

std::string Address::Text() const {
  if (is_unix()) return "unix:" + path;
  return is_ipv6() ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

std::string Address::Target() const { return is_unix() ? "unix:" + Escape(path) : "dns:///" + Escape(Text()); }

absl::StatusOr<Address> ParseAddress(std::string_view text) { return Parse(text, false); }
absl::StatusOr<Address> ParseListenAddress(std::string_view text) { return Parse(text, true); }

}  // namespace litefleet::rpc
