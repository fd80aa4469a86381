// How a device gets its certificate, and a new one before or after the old one expires.
//
// Enrolment sends nothing of the token before the server has proved to be the controller that the token names: a TLS handshake first
// fetches the server's chain, whose root must have the fingerprint that is in the token; then the call itself trusts that root alone.
// Not for calls from several threads on one state directory. Thread safety: functions block, for `timeout` at most.
#ifndef LITEFLEET_AGENT_ENROLL_ENROLL_H_
#define LITEFLEET_AGENT_ENROLL_ENROLL_H_

#include <chrono>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/state/identity.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"

namespace litefleet::enroll {

struct EnrollOptions {
  std::string controller;  // HOST:PORT
  std::string token;       // the whole text, white space around it is fine
  std::string state;       // directory; made when missing
  std::string name;        // empty: the host's name
  std::chrono::milliseconds timeout{30'000};
};

// Idempotent: a call that is repeated after a lost answer gets the same device. Where the state directory holds an identity already:
// kAlreadyExists ALREADY_ENROLLED. Errors: kInvalidArgument TOKEN_INVALID (not a token at all), kUnauthenticated TOKEN_INVALID,
// kPermissionDenied CONTROLLER_UNTRUSTED (another CA than the token's), kAlreadyExists DEVICE_NAME_TAKEN, kUnavailable.
absl::StatusOr<state::DeviceIdentity> Enroll(const EnrollOptions& options);

// The name that a device gets without --name: the host's, with what a name may not hold replaced by "-".
std::string DefaultDeviceName();

enum class Renewal {
  kIfDue,  // 30 days before the end, and after it
  kNow,    // whatever the clock says: for an agent whose connections are refused for long (its clock may be behind, its certificate over)
};

// Gets a new certificate by the old one, or by proof of its key where that has expired, and saves it. True: `identity` was replaced,
// connect anew with it. False: there was nothing to do. `controller` is the address to call (agent.toml's), `now` the controller's time
// as far as it is known. Errors leave `identity` as it was; call again later (once an hour is plenty). kCancelled CANCELLED at most 200 ms
// after the token was set.
absl::StatusOr<bool> Renew(const std::string& state_directory, const std::string& controller, SystemTime now, Renewal when,
                           std::chrono::milliseconds timeout, state::DeviceIdentity& identity, const CancelToken& cancel = {});

}  // namespace litefleet::enroll

#endif  // LITEFLEET_AGENT_ENROLL_ENROLL_H_
