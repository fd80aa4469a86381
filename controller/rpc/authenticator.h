// The authenticator of a running controller: TLS has verified the chain, this one knows what was issued and what is void.
//
// Keeps every certificate that has not expired in memory (about 200 bytes each), fed by the catalog. What a certificate is for is told by
// its issuer's name and its only URI, both of which only this controller's CA could have made; serial and key must be known. An operator's
// that is not known may have been issued by another process a moment ago (`operator create`): it is looked for in the catalog before it is
// refused, by one read of one row, at most kLooksPerSecond times a second. A device's cannot: forgotten devices, however many and however
// often they try again, cost no read. Thread safety: all members may be called from any thread; Authenticate never waits for the catalog's
// writer. Ownership: borrows.
#ifndef LITEFLEET_CONTROLLER_RPC_AUTHENTICATOR_H_
#define LITEFLEET_CONTROLLER_RPC_AUTHENTICATOR_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/base/clock.h"
#include "common/base/executor.h"
#include "common/base/mutex.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/identity/authority.h"
#include "controller/rpc/auth.h"

namespace litefleet::rpc {

class LiveCalls;

class CertificateAuthenticator final : public Authenticator, public catalog::CertificateObserver {
 public:
  static constexpr int kLooksPerSecond = 10;

  // Reads the catalog and becomes its observer. `work` records the first use of a certificate.
  static absl::StatusOr<std::unique_ptr<CertificateAuthenticator>> Create(const identity::Authority& authority,
                                                                          catalog::IdentityCatalog& catalog, Executor& work,
                                                                          const Clock& clock);
  ~CertificateAuthenticator() override;

  absl::StatusOr<Caller> Authenticate(const grpc::ServerContextBase& context, std::string_view method) override;
  // The same without a connection, for tests: `pem` is the peer's certificate.
  absl::StatusOr<Caller> Identify(std::string_view pem, Role wanted);

  // Reads the catalog again: another process may have added an operator.
  absl::Status Refresh();

  void OnCertificates(const std::vector<catalog::CertificateRow>& changed) override;

 private:
  CertificateAuthenticator(const identity::Authority& authority, catalog::IdentityCatalog& catalog, Executor& work, const Clock& clock);
  // What a certificate says of who shows it, whatever the catalog knows of it.
  struct Shown {
    Role role = Role::kNone;
    DeviceId device;
    std::string name;
    std::string serial;
    catalog::KeyHash key_hash{};
  };
  absl::StatusOr<Shown> Look(std::string_view pem) ABSL_LOCKS_EXCLUDED(mu_);
  // Takes what the catalog has of an unknown one in, where it may be looked at now.
  absl::Status LookInCatalog(const std::string& serial) ABSL_LOCKS_EXCLUDED(mu_);
  void RecordUse(const std::string& serial);

  // constant after construction
  const identity::Authority& authority_;
  catalog::IdentityCatalog& catalog_;
  Executor& work_;
  const Clock& clock_;
  const std::shared_ptr<LiveCalls> live_calls_;

  Mutex mu_;
  absl::flat_hash_map<std::string, catalog::CertificateRow> by_serial_ ABSL_GUARDED_BY(mu_);
  // By the SHA-256 of their PEM: a connection shows its certificate with each call, and reading one takes longer than most calls.
  std::map<catalog::KeyHash, Shown> shown_ ABSL_GUARDED_BY(mu_);
  SteadyTime looks_since_ ABSL_GUARDED_BY(mu_){};
  int looks_ ABSL_GUARDED_BY(mu_) = 0;  // in the catalog, in the second since then
};

}  // namespace litefleet::rpc

#endif  // LITEFLEET_CONTROLLER_RPC_AUTHENTICATOR_H_
