#include "common/crypto/tls_peer.h"

#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::crypto {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kNoAnswer[] = "no answer in time";

struct FreeTls {
  void operator()(SSL_CTX* context) const noexcept { SSL_CTX_free(context); }
  void operator()(SSL* connection) const noexcept { SSL_free(connection); }
};

absl::Status Unreachable(const std::string& host, uint16_t port, std::string_view why) {
  return Error(absl::StatusCode::kUnavailable, "TLS_UNREACHABLE", fmt::format("{} port {}: {}", host, port, why));
}

// False: not in time.
bool WaitFor(int fd, short events, Clock::time_point until) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return false;
    pollfd one{fd, events, 0};
    const int ready = poll(&one, 1, static_cast<int>(std::min<int64_t>(left, 60'000)));
    if (ready > 0 || (ready < 0 && errno != EINTR)) return true;  // an error shows itself in what is done next
  }
}

// The error of connect.
int ConnectTo(int fd, const addrinfo& address, Clock::time_point until) {
  if (connect(fd, address.ai_addr, address.ai_addrlen) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  if (!WaitFor(fd, POLLOUT, until)) return ETIMEDOUT;
  int error = 0;
  socklen_t size = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

absl::StatusOr<io::UniqueFd> Connect(const std::string& host, uint16_t port, Clock::time_point deadline) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found); error != 0)
    return Unreachable(host, port, gai_strerror(error));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, freeaddrinfo);
  int left = 0;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) ++left;
  int error = 0;
  // One that says nothing leaves time for the others.
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next, --left) {
    io::UniqueFd fd(socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const auto now = Clock::now();
    error = fd.valid() ? ConnectTo(fd.get(), *each, now + (deadline - now) / left) : errno;
    if (error == 0) return fd;
  }
  return Unreachable(host, port, error == ETIMEDOUT ? kNoAnswer : std::strerror(error));
}

}  // namespace

absl::StatusOr<std::vector<Certificate>> ShownCertificates(const std::string& host, uint16_t port, std::chrono::milliseconds timeout) {
  const Clock::time_point deadline = Clock::now() + timeout;
  LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, Connect(host, port, deadline));
  static constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  const std::unique_ptr<SSL_CTX, FreeTls> context(SSL_CTX_new(TLS_client_method()));
  const std::unique_ptr<SSL, FreeTls> connection(context == nullptr ? nullptr : SSL_new(context.get()));
  if (connection == nullptr || SSL_set_alpn_protos(connection.get(), kHttp2, sizeof kHttp2) != 0 ||
      SSL_set_fd(connection.get(), fd.get()) != 1)
    return CryptoError(absl::StatusCode::kInternal, "TLS_HANDSHAKE_FAILED", "begin a handshake");
  SSL_set_verify(connection.get(), SSL_VERIFY_NONE, nullptr);
  // However little comes at a time, the deadline is that of all of it.
  for (;;) {
    ERR_clear_error();
    const int done = SSL_connect(connection.get());
    if (done == 1) break;
    const int wanted = SSL_get_error(connection.get(), done);
    if (wanted != SSL_ERROR_WANT_READ && wanted != SSL_ERROR_WANT_WRITE)
      return CryptoError(absl::StatusCode::kInternal, "TLS_HANDSHAKE_FAILED", fmt::format("the handshake with {} port {}", host, port));
    if (!WaitFor(fd.get(), wanted == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline)) return Unreachable(host, port, kNoAnswer);
  }
  std::vector<Certificate> chain;
  const STACK_OF(X509)* shown = SSL_get_peer_cert_chain(connection.get());
  for (int i = 0; shown != nullptr && i < sk_X509_num(shown); ++i) {
    X509* certificate = sk_X509_value(shown, i);
    X509_up_ref(certificate);
    chain.emplace_back(certificate);
  }
  ERR_clear_error();
  return chain;
}

}  // namespace litefleet::crypto
