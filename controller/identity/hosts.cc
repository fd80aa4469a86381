#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <unistd.h>

#include <algorithm>

#include "common/base/status.h"
#include "common/rpc/address.h"
#include "controller/identity/authority.h"
#include "fmt/format.h"

namespace litefleet::identity {
namespace {

void AddOnce(std::vector<std::string>& hosts, const std::string& host) {
  if (const auto checked = CheckHost(host); checked.ok() && std::find(hosts.begin(), hosts.end(), *checked) == hosts.end())
    hosts.push_back(*checked);
}

void AddAddresses(std::vector<std::string>& hosts) {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return;
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr || (each->ifa_flags & IFF_LOOPBACK) != 0 || (each->ifa_flags & IFF_UP) == 0) continue;
    char text[INET6_ADDRSTRLEN] = "";
    if (each->ifa_addr->sa_family == AF_INET) {
      inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(each->ifa_addr)->sin_addr, text, sizeof text);
    } else if (each->ifa_addr->sa_family == AF_INET6) {
      const in6_addr& address = reinterpret_cast<const sockaddr_in6*>(each->ifa_addr)->sin6_addr;
      if (IN6_IS_ADDR_LINKLOCAL(&address)) continue;  // means nothing without an interface
      inet_ntop(AF_INET6, &address, text, sizeof text);
    }
    if (*text != '\0') AddOnce(hosts, text);
  }
  freeifaddrs(list);
}

}  // namespace

absl::StatusOr<std::string> CheckHost(std::string_view host) {
  if (host.find(':') != std::string_view::npos && host.find('%') == std::string_view::npos) {
    // Canonical IPv6, with or without brackets.
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    const auto address = rpc::ParseListenAddress(bracketed ? fmt::format("{}:0", host) : fmt::format("[{}]:0", host));
    if (address.ok()) return address->host;
  } else if (rpc::IsIpAddress(host) || rpc::IsHostName(host)) {
    std::string name(host);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    if (name.back() == '.') name.pop_back();
    return name;
  }
  return Error(absl::StatusCode::kInvalidArgument, "HOST_INVALID", fmt::format("\"{}\" is neither a host name nor an IP address", host),
               "write the name or address by which agents reach this controller, without a port");
}

std::vector<std::string> DefaultHosts() {
  std::vector<std::string> hosts;
  char name[256] = "";
  if (gethostname(name, sizeof name - 1) == 0) {
    AddOnce(hosts, name);
    addrinfo hints{};
    hints.ai_flags = AI_CANONNAME;
    addrinfo* found = nullptr;
    if (getaddrinfo(name, nullptr, &hints, &found) == 0) {
      if (found->ai_canonname != nullptr) AddOnce(hosts, found->ai_canonname);
      freeaddrinfo(found);
    }
  }
  AddAddresses(hosts);
  if (hosts.empty()) hosts.push_back("localhost");
  return hosts;
}

}  // namespace litefleet::identity
