// Waiting for operations: progress while they run, an end that scripts can act on, and a way out that leaves them running.
//
// Thread safety: none. Bounds: a broken watch is begun again as long as the timeout lasts, which counts all the time for which the device
// or the controller was away; then the wait ends, the operation not.
#ifndef LITEFLEET_CONTROLLER_CLI_WAIT_H_
#define LITEFLEET_CONTROLLER_CLI_WAIT_H_

#include <chrono>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "controller/cli/session.h"

namespace litefleet::cli {

struct WaitOptions {
  // How long the device or the controller may be away, all in all, before the wait is given up.
  std::chrono::seconds timeout{60};
};

// Until the operation has ended. `on_change` sees every state. Errors: kUnavailable DEVICE_OFFLINE or CONTROLLER_UNREACHABLE after the
// timeout, kCancelled INTERRUPTED after Ctrl-C (the operation goes on), those of the service.
absl::StatusOr<v1::Operation> WaitFor(Session& session, const v1::Operation& operation, const WaitOptions& options,
                                      const std::function<void(const v1::Operation&)>& on_change = nullptr);

// Until all have ended, or none of those that have not can go on; these are given back as they are. Errors: as WaitFor, but for
// DEVICE_OFFLINE.
absl::StatusOr<std::vector<v1::Operation>> WaitForAll(Session& session, std::vector<v1::Operation> operations, const WaitOptions& options);

// How a wait that ended with `error` is told: for Ctrl-C says how to watch and to cancel, and gives 130.
int ReportWait(Session& session, const absl::Status& error, const std::vector<v1::Operation>& operations);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_WAIT_H_
