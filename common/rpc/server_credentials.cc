#include "common/rpc/server_credentials.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include <atomic>

#include "common/base/status.h"
#include "common/crypto/x509.h"

namespace litefleet::rpc {
namespace {

class ReloadableCredentials final : public grpc::ServerCredentials {
 public:
  explicit ReloadableCredentials(const ServerCertificates& certificates) : certificates_(certificates) {
    // The options are taken over by the credentials.
    credentials_ = grpc_ssl_server_credentials_create_with_options(grpc_ssl_server_credentials_create_options_using_config_fetcher(
        GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY, &ReloadableCredentials::Fetch, this));
  }
  ~ReloadableCredentials() override { grpc_server_credentials_release(credentials_); }

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  // Called before every handshake, under gRPC's lock.
  static grpc_ssl_certificate_config_reload_status Fetch(void* self_pointer, grpc_ssl_server_certificate_config** config) {
    auto& self = *static_cast<ReloadableCredentials*>(self_pointer);
    uint64_t version = 0;
    const Identity identity = self.certificates_.Get(&version);
    if (self.fetched_.exchange(version) == version) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair{identity.private_key.c_str(), identity.certificate_chain.c_str()};
    *config = grpc_ssl_server_certificate_config_create(identity.ca_certificate.c_str(), &pair, 1);
    return *config != nullptr ? GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW : GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_FAIL;
  }

  const ServerCertificates& certificates_;
  std::atomic<uint64_t> fetched_{0};
  grpc_server_credentials* credentials_ = nullptr;
};

}  // namespace

absl::Status ServerCertificates::Set(const Identity& identity) {
  LF_ASSIGN_OR_RETURN(const crypto::Key key, crypto::KeyFromPem(identity.private_key));
  LF_ASSIGN_OR_RETURN(const auto chain, crypto::CertificatesFromPem(identity.certificate_chain));
  LF_RETURN_IF_ERROR(crypto::CertificatesFromPem(identity.ca_certificate).status());
  if (crypto::PublicKeyHash(*key) != crypto::PublicKeyHash(*chain.front())) {
    return Error(absl::StatusCode::kInvalidArgument, "CERTIFICATE_INVALID", "the server's key does not belong to its certificate");
  }
  MutexLock lock(mu_);
  identity_ = identity;
  ++version_;
  return absl::OkStatus();
}

Identity ServerCertificates::Get(uint64_t* version) const {
  MutexLock lock(mu_);
  *version = version_;
  return identity_;
}

std::shared_ptr<grpc::ServerCredentials> TlsCredentials(const ServerCertificates& certificates) {
  return std::make_shared<ReloadableCredentials>(certificates);
}

std::shared_ptr<grpc::ServerCredentials> UnixSocketCredentials() { return grpc::experimental::LocalServerCredentials(UDS); }

}  // namespace litefleet::rpc
