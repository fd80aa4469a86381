#include "common/crypto/server_chain.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <memory>
#include <string>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::crypto {
namespace {

// Server, its intermediate, root.
constexpr int kMaxIntermediates = 1;
// 112 bits: what OpenSSL's own default for TLS is in Debian.
constexpr int kSecurityLevel = 2;

struct FreeMore {
  void operator()(X509_STORE* store) const noexcept { X509_STORE_free(store); }
  void operator()(X509_STORE_CTX* context) const noexcept { X509_STORE_CTX_free(context); }
  void operator()(STACK_OF(X509) * stack) const noexcept { sk_X509_free(stack); }
};

absl::Status Untrusted(std::string_view why) {
  return Error(absl::StatusCode::kPermissionDenied, "CONTROLLER_UNTRUSTED",
               fmt::format("the server's certificate is not of the controller that is trusted: {}", why),
               "check the address; somebody may be in between, or it is another controller");
}

absl::Status CheckPath(const std::vector<Certificate>& chain, X509& root) {
  const std::unique_ptr<X509_STORE, FreeMore> store(X509_STORE_new());
  const std::unique_ptr<X509_STORE_CTX, FreeMore> context(X509_STORE_CTX_new());
  const std::unique_ptr<STACK_OF(X509), FreeMore> others(sk_X509_new_null());
  bool ready = store != nullptr && context != nullptr && others != nullptr && X509_STORE_add_cert(store.get(), &root) == 1;
  // A root that the server sends is either the trusted one or none of ours: with it OpenSSL would complain of the length of the path.
  for (size_t i = 1; ready && i < chain.size(); ++i) {
    if (!IsSelfSigned(*chain[i])) ready = sk_X509_push(others.get(), chain[i].get()) > 0;
  }
  ready = ready && X509_STORE_CTX_init(context.get(), store.get(), chain.front().get(), others.get()) == 1;
  if (!ready) return CryptoError(absl::StatusCode::kInternal, "CRYPTO_FAILED", "begin to check a certificate");
  X509_VERIFY_PARAM* wanted = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_flags(wanted, X509_V_FLAG_NO_CHECK_TIME);
  X509_VERIFY_PARAM_set_depth(wanted, kMaxIntermediates);
  X509_VERIFY_PARAM_set_auth_level(wanted, kSecurityLevel);
  // Every certificate up to the root, not the server's alone, must be allowed to stand for servers.
  X509_STORE_CTX_set_purpose(context.get(), X509_PURPOSE_SSL_SERVER);
  if (X509_verify_cert(context.get()) == 1) return absl::OkStatus();
  switch (const int error = X509_STORE_CTX_get_error(context.get())) {
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
      return Untrusted("it was issued by another CA than the trusted one");
    default:
      return Untrusted(X509_verify_cert_error_string(error));
  }
}

bool Names(X509& leaf, const std::string& host) {
  const int by_address = X509_check_ip_asc(&leaf, host.substr(0, host.find('%')).c_str(), 0);
  if (by_address != -2) return by_address == 1;  // -2: it is no IP address
  return X509_check_host(&leaf, host.data(), host.size(), X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT,
                         nullptr) == 1;
}

}  // namespace

absl::Status CheckServerChain(const std::vector<Certificate>& chain, X509& root, std::string_view host) {
  if (chain.empty()) return Untrusted("there is none");
  const absl::Status path = CheckPath(chain, root);
  std::string name(host);
  if (!name.empty() && name.back() == '.') name.pop_back();
  const bool named = !name.empty() && Names(*chain.front(), name);
  ERR_clear_error();
  LF_RETURN_IF_ERROR(path);
  if (named) return absl::OkStatus();
  std::string names;
  for (const std::string& each : NamesOf(*chain.front())) names += (names.empty() ? "" : ", ") + each;
  return Error(absl::StatusCode::kPermissionDenied, "CONTROLLER_NAME_MISMATCH",
               fmt::format("the controller's certificate does not name {}, only {}", host, names),
               fmt::format("use one of these, or run `litefleet-controller host add {}` there", host));
}

bool EndsBefore(const std::vector<Certificate>& chain, SystemTime now) {
  return std::any_of(chain.begin(), chain.end(), [&](const Certificate& each) { return NotAfter(*each) < now; });
}

}  // namespace litefleet::crypto
