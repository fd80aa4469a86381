#include "common/rpc/server_credentials.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include "common/base/status.h"
#include "common/crypto/x509.h"

namespace litefleet::rpc {
namespace {

class ReloadableCredentials final : public grpc::ServerCredentials {
 public:
  explicit ReloadableCredentials(const ServerCertificates& certificates) {
    // The options are taken over by the credentials.
    // gRPC keeps them longer than this object, so the callback gets what outlives the server.
    credentials_ = grpc_ssl_server_credentials_create_with_options(grpc_ssl_server_credentials_create_options_using_config_fetcher(
        GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY, &ReloadableCredentials::Fetch, const_cast<ServerCertificates*>(&certificates)));
  }
  ~ReloadableCredentials() override { grpc_server_credentials_release(credentials_); }

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  // Called before every handshake, under gRPC's lock.
  static grpc_ssl_certificate_config_reload_status Fetch(void* certificates, grpc_ssl_server_certificate_config** config) {
    Identity identity;
    if (!static_cast<const ServerCertificates*>(certificates)->Fetch(&identity)) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair{identity.private_key.c_str(), identity.certificate_chain.c_str()};
    *config = grpc_ssl_server_certificate_config_create(identity.ca_certificate.c_str(), &pair, 1);
    return *config != nullptr ? GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW : GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_FAIL;
  }

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
  fetched_ = false;
  return absl::OkStatus();
}

bool ServerCertificates::Fetch(Identity* identity) const {
  MutexLock lock(mu_);
  if (fetched_) return false;
  fetched_ = true;
  *identity = identity_;
  return true;
}

std::shared_ptr<grpc::ServerCredentials> TlsCredentials(const ServerCertificates& certificates) {
  return std::make_shared<ReloadableCredentials>(certificates);
}

std::shared_ptr<grpc::ServerCredentials> UnixSocketCredentials() { return grpc::experimental::LocalServerCredentials(UDS); }

}  // namespace litefleet::rpc
