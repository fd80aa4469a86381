// How a command ends: the numbers that scripts act on. Do not change these values: they are documented.
//
// Thread safety: pure functions.
#ifndef LITEFLEET_CONTROLLER_CLI_EXIT_CODE_H_
#define LITEFLEET_CONTROLLER_CLI_EXIT_CODE_H_

#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::cli {

enum ExitCode : int {
  kDone = 0,
  kFailed = 1,
  kUsage = 2,
  kPartly = 3,
  kNotFound = 4,
  kDenied = 5,
  kConflict = 6,
  kUnreachable = 7,
  kVerificationFailed = 8,
  kInterrupted = 130,
};

// Of a call that failed: by its reason where that has a code of its own, else by its canonical code.
int ExitCodeOf(const absl::Status& status);
// Of an operation that has ended. An argument that the device did not accept is a failure, not wrong usage of this program.
int ExitCodeOf(const v1::Operation& ended);
// Of several: the same where all are the same, kPartly where some were done, else kFailed.
int Combine(std::span<const int> codes);

// Canonical codes as JSON names them: "not_found".
std::string_view CodeName(absl::StatusCode code);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_EXIT_CODE_H_
