#include "agent/enroll/preflight.h"

#include <fcntl.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "common/base/status.h"
#include "common/crypto/server_chain.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::enroll {
namespace {

using Steady = std::chrono::steady_clock;

struct FreeTls {
  void operator()(SSL_CTX* context) const noexcept { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const noexcept { SSL_free(ssl); }
  void operator()(addrinfo* list) const noexcept { freeaddrinfo(list); }
};
template <class T>
using Owned = std::unique_ptr<T, FreeTls>;

absl::Status Unreachable(const rpc::Address& address, std::string_view why) {
  return Error(absl::StatusCode::kUnavailable, "CONTROLLER_UNREACHABLE", fmt::format("{} cannot be reached: {}", address.Text(), why),
               "check the address, the network and that the controller is running");
}

// False at the deadline.
bool WaitFor(int fd, short events, Steady::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Steady::now()).count();
    if (left <= 0) return false;
    pollfd poll_fd{fd, events, 0};
    const int n = poll(&poll_fd, 1, static_cast<int>(left));
    if (n > 0) return true;
    if (n == 0 || errno != EINTR) return false;
  }
}

// A host that is there has answered by then, also on a link of satellites.
constexpr std::chrono::seconds kLongestConnect{5};

// Connects to the addresses in order, each with its part of the time that is left: one that nothing answers at (IPv6 that is routed
// nowhere) leaves time for the others.
absl::StatusOr<io::UniqueFd> Connect(const rpc::Address& address, Steady::time_point deadline) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* raw = nullptr;
  if (const int error = getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &raw); error != 0) {
    return Unreachable(address, gai_strerror(error));
  }
  const Owned<addrinfo> list(raw);
  int left = 0;
  for (const addrinfo* each = list.get(); each != nullptr; each = each->ai_next) ++left;
  std::string why = "no address";
  for (const addrinfo* each = list.get(); each != nullptr; each = each->ai_next, --left) {
    io::UniqueFd fd(socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) continue;
    int error = connect(fd.get(), each->ai_addr, each->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
      const auto now = Steady::now();
      socklen_t size = sizeof error;
      if (!WaitFor(fd.get(), POLLOUT, left == 1 ? deadline : now + std::min<Steady::duration>((deadline - now) / left, kLongestConnect))) {
        error = ETIMEDOUT;
      } else if (getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
        error = errno;
      }
    }
    if (error == 0) return fd;
    why = strerror(error);
  }
  return Unreachable(address, why);
}

absl::Status Handshake(SSL& ssl, int fd, const rpc::Address& address, Steady::time_point deadline) {
  for (;;) {
    ERR_clear_error();
    const int result = SSL_connect(&ssl);
    if (result == 1) return absl::OkStatus();
    const int error = SSL_get_error(&ssl, result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
      return WithReason(crypto::CryptoError(absl::StatusCode::kUnavailable, "CONTROLLER_UNREACHABLE",
                                            fmt::format("{} does not speak TLS 1.3 as a controller does", address.Text())),
                        "CONTROLLER_UNREACHABLE", "check the address and the port");
    }
    if (!WaitFor(fd, error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline)) return Unreachable(address, "no answer in time");
  }
}

std::vector<crypto::Certificate> ChainOf(SSL& ssl) {
  STACK_OF(X509)* sent = SSL_get_peer_cert_chain(&ssl);
  std::vector<crypto::Certificate> chain;
  for (int i = 0; i < sk_X509_num(sent); ++i) {
    X509* each = sk_X509_value(sent, i);
    X509_up_ref(each);
    chain.emplace_back(each);
  }
  return chain;
}

}  // namespace

absl::StatusOr<std::string> FetchTrustedRoot(const rpc::Address& address, const crypto::Sha256& fingerprint,
                                             std::chrono::milliseconds timeout) {
  const auto deadline = Steady::now() + timeout;
  LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, Connect(address, deadline));
  const Owned<SSL_CTX> context(SSL_CTX_new(TLS_client_method()));
  if (context == nullptr) return crypto::CryptoError(absl::StatusCode::kInternal, "CRYPTO_FAILED", "begin TLS");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);  // done below, by the token's fingerprint
  const Owned<SSL> ssl(SSL_new(context.get()));
  constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  if (ssl == nullptr || SSL_set_alpn_protos(ssl.get(), kHttp2, sizeof kHttp2) != 0 || SSL_set_fd(ssl.get(), fd.get()) != 1) {
    return crypto::CryptoError(absl::StatusCode::kInternal, "CRYPTO_FAILED", "begin TLS");
  }
  if (!rpc::IsIpAddress(address.host)) SSL_set_tlsext_host_name(ssl.get(), address.host.c_str());
  LF_RETURN_IF_ERROR(Handshake(*ssl, fd.get(), address, deadline));

  const std::vector<crypto::Certificate> chain = ChainOf(*ssl);
  const auto root = std::find_if(chain.begin(), chain.end(), [&](const auto& each) { return crypto::Fingerprint(*each) == fingerprint; });
  const bool found = root != chain.end() && crypto::IsSelfSigned(**root);
  const absl::Status trusted = found ? crypto::CheckServerChain(chain, **root, address.host) : absl::OkStatus();
  if (ReasonOf(trusted) == "CONTROLLER_NAME_MISMATCH") return trusted;
  if (!found || !trusted.ok()) {
    return Error(absl::StatusCode::kPermissionDenied, "CONTROLLER_UNTRUSTED",
                 fmt::format("{} is not the controller that the token was made by; the token was not sent", address.Text()),
                 "check the address; somebody may be in between, or the token is of another controller");
  }
  return crypto::CertificateToPem(**root);
}

}  // namespace litefleet::enroll
