// Who this device is: its key, certificate and controller, as they lie in the state directory.
//
//   identity/key.pem         made on the device before the first call, never leaves it   (0600)
//   identity/next-key.pem    the key of a renewal that is under way
//   identity/device.pem      certificate chain, CA, controller, id and name: one file, so that they always fit together
//
// Writes are atomic: after a crash the old identity or the new one is there. Certificate and key are checked against each other when
// they are read: after a renewal with a new key, a crash between the two renames is healed by Load.
// Thread safety: none; one thread at a time. Errors: those of io; kNotFound NOT_ENROLLED; kDataLoss IDENTITY_DAMAGED.
#ifndef LITEFLEET_AGENT_STATE_IDENTITY_H_
#define LITEFLEET_AGENT_STATE_IDENTITY_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"

namespace litefleet::state {

struct DeviceIdentity {
  DeviceId device;
  std::string name;
  std::string controller;         // HOST:PORT as it was enrolled with; agent.toml may name another address of the same controller
  std::string private_key;        // PEM
  std::string certificate_chain;  // PEM: the device's, then the intermediate
  std::string ca_certificate;     // PEM
};

// kNotFound NOT_ENROLLED with the command to run.
absl::StatusOr<DeviceIdentity> LoadIdentity(const std::string& state_directory);
absl::Status SaveIdentity(const std::string& state_directory, const DeviceIdentity& identity);

// The key that the device enrols with: the one that is there, else a new one, saved and synced before it is returned.
absl::StatusOr<std::string> LoadOrCreateKey(const std::string& state_directory);

absl::StatusOr<SystemTime> ExpiryOf(const DeviceIdentity& identity);
// With 30 of its 90 days left. (Certificates are valid from 1970 on, for devices without a clock: they do not tell their lifetime.)
bool ShouldRenew(SystemTime expiry, SystemTime now);

}  // namespace litefleet::state

#endif  // LITEFLEET_AGENT_STATE_IDENTITY_H_
