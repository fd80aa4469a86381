// Who becomes a device or an operator: tokens, enrolment, renewal, operators' certificates.
//
// A token is one use of one key: the same key may come again after a lost answer and gets the same device. A device whose certificate
// has expired proves its key by signing a challenge, and keeps that key. Not for authentication of calls (rpc/auth).
//
// Thread safety: all members may be called from any thread; they block for a commit. Ownership: borrows what it is given.
#ifndef LITEFLEET_CONTROLLER_IDENTITY_ENROLLMENT_H_
#define LITEFLEET_CONTROLLER_IDENTITY_ENROLLMENT_H_

#include <array>
#include <chrono>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/identity/authority.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::identity {

struct TokenRequest {
  int uses = 1;
  std::chrono::seconds ttl{3600};
  std::map<std::string, std::string> labels;
  DeviceId for_device;  // empty: a new device
};

class Enrollment {
 public:
  Enrollment(const Authority& authority, catalog::IdentityCatalog& catalog, const Clock& clock);

  // Durable on return; the secret is nowhere but in the answer.
  absl::StatusOr<v1::CreateTokenResponse> IssueToken(const TokenRequest& request);

  // As the wire's AgentService says; errors as there.
  absl::StatusOr<v1::EnrollResponse> Enroll(const v1::EnrollRequest& request);
  // `serial` is the certificate's that the caller showed.
  absl::StatusOr<v1::RenewCertificateResponse> Renew(const DeviceId& device, const std::string& serial,
                                                     const v1::RenewCertificateRequest& request);

  // A new key and its certificate. kAlreadyExists OPERATOR_EXISTS; kInvalidArgument ROLE_INVALID.
  absl::StatusOr<rpc::Identity> CreateOperator(const std::string& name, const std::string& role);

 private:
  absl::StatusOr<v1::EnrollResponse> EnrollByToken(const v1::EnrollRequest& request);
  absl::StatusOr<v1::EnrollResponse> EnrollByProof(const v1::EnrollRequest& request);
  absl::StatusOr<std::string> IssueTo(const DeviceId& device, EVP_PKEY& key, const std::string& earlier);
  std::string MakeChallenge(const crypto::Sha256& certificate) const;
  bool ChallengeIsValid(std::string_view challenge, const crypto::Sha256& certificate) const;

  const Authority& authority_;
  catalog::IdentityCatalog& catalog_;
  const Clock& clock_;
  std::array<std::byte, 32> challenge_key_;  // of this process: a restart voids challenges, devices ask again
};

}  // namespace litefleet::identity

#endif  // LITEFLEET_CONTROLLER_IDENTITY_ENROLLMENT_H_
