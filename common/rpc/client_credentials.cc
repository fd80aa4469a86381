#include "common/rpc/client_credentials.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <spdlog/spdlog.h>

#include <string>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/crypto/server_chain.h"

namespace litefleet::rpc {
namespace {

namespace tls = grpc::experimental;

class PinnedRootVerifier final : public tls::ExternalCertificateVerifier {
 public:
  PinnedRootVerifier(crypto::Certificate root, Address address) : root_(std::move(root)), address_(std::move(address)) {}

  // Always synchronous: some 200 us of elliptic curves.
  bool Verify(tls::TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)>, grpc::Status* status) override {
    const grpc::string_ref pem = request->peer_cert_full_chain();
    const absl::Status checked = Check({pem.data(), pem.size()});
    *status = checked.ok() ? grpc::Status::OK : grpc::Status(grpc::StatusCode::UNAUTHENTICATED, MessageOf(checked));
    return true;
  }
  void Cancel(tls::TlsCustomVerificationCheckRequest*) override {}

 private:
  absl::Status Check(std::string_view pem) const {
    LF_ASSIGN_OR_RETURN(const std::vector<crypto::Certificate> chain, crypto::CertificatesFromPem(pem));
    LF_RETURN_IF_ERROR(crypto::CheckServerChain(chain, *root_, address_.host));
    const SystemTime now = RealClock().Now();
    if (crypto::EndsBefore(chain, now)) {
      spdlog::warn("by this clock ({}) the certificate of {} has ended: this clock is wrong, or the controller's is; going on",
                   FormatRfc3339(now), address_.Text());
    }
    return absl::OkStatus();
  }

  const crypto::Certificate root_;
  const Address address_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ClientCredentials(const Identity& identity, const Address& address) {
  LF_ASSIGN_OR_RETURN(crypto::Certificate root, crypto::CertificateFromPem(identity.ca_certificate));
  std::vector<tls::IdentityKeyCertPair> own;
  if (!identity.private_key.empty()) own.push_back({identity.private_key, identity.certificate_chain});
  tls::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(std::make_shared<tls::StaticDataCertificateProvider>(identity.ca_certificate, own));
  options.watch_root_certs();  // or gRPC would load the system's, for nothing
  if (!own.empty()) options.watch_identity_key_cert_pairs();
  options.set_verify_server_certs(false);
  options.set_check_call_host(false);  // a call's host is its channel's, which the verifier compares
  options.set_certificate_verifier(tls::ExternalCertificateVerifier::Create<PinnedRootVerifier>(std::move(root), address));
  return tls::TlsCredentials(options);
}

}  // namespace litefleet::rpc
