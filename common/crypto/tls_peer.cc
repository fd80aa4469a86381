#include "common/crypto/tls_peer.h"

#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::crypto {
namespace {

struct FreeTls {
  void operator()(SSL_CTX* context) const noexcept { SSL_CTX_free(context); }
  void operator()(SSL* connection) const noexcept { SSL_free(connection); }
};

absl::Status Unreachable(const std::string& host, uint16_t port, std::string_view why) {
  return Error(absl::StatusCode::kUnavailable, "TLS_UNREACHABLE", fmt::format("{} port {}: {}", host, port, why));
}

absl::StatusOr<io::UniqueFd> Connect(const std::string& host, uint16_t port, std::chrono::milliseconds timeout) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found); error != 0)
    return Unreachable(host, port, gai_strerror(error));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, freeaddrinfo);
  const timeval limit{static_cast<time_t>(timeout.count() / 1000), static_cast<suseconds_t>(timeout.count() % 1000) * 1000};
  int error = 0;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    io::UniqueFd fd(socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd.valid() && setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 &&
        setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 && connect(fd.get(), each->ai_addr, each->ai_addrlen) == 0)
      return fd;
    error = errno;
  }
  return Unreachable(host, port, error == EINPROGRESS ? "no answer in time" : std::strerror(error));
}

}  // namespace

absl::StatusOr<std::vector<Certificate>> ShownCertificates(const std::string& host, uint16_t port, std::chrono::milliseconds timeout) {
  LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, Connect(host, port, timeout));
  static constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  const std::unique_ptr<SSL_CTX, FreeTls> context(SSL_CTX_new(TLS_client_method()));
  const std::unique_ptr<SSL, FreeTls> connection(context == nullptr ? nullptr : SSL_new(context.get()));
  if (connection == nullptr || SSL_set_alpn_protos(connection.get(), kHttp2, sizeof kHttp2) != 0 ||
      SSL_set_fd(connection.get(), fd.get()) != 1)
    return CryptoError(absl::StatusCode::kInternal, "TLS_HANDSHAKE_FAILED", "begin a handshake");
  SSL_set_verify(connection.get(), SSL_VERIFY_NONE, nullptr);
  if (SSL_connect(connection.get()) != 1)
    return CryptoError(absl::StatusCode::kInternal, "TLS_HANDSHAKE_FAILED", fmt::format("the handshake with {} port {}", host, port));
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
