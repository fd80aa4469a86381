// Operations on many databases, some at a time: stops when too many have failed, and goes on where it was stopped.
//
// Every database's order has a request id that follows from that of the whole, so that the same call again finds what it has ordered
// before: what has succeeded or still runs is not ordered again, what has failed is. Thread safety: none.
#ifndef LITEFLEET_CONTROLLER_CLI_WAVES_H_
#define LITEFLEET_CONTROLLER_CLI_WAVES_H_

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "controller/cli/wait.h"

namespace litefleet::cli {

struct WaveOptions {
  std::string request_id;   // of the whole; at most 36 characters
  size_t size = 0;          // 0: all at once
  size_t max_failures = 1;  // no wave begins once so many have failed
  WaitOptions wait;
  // As WaitForAll, which it is but in tests.
  std::function<absl::StatusOr<std::vector<v1::Operation>>(Session&, std::vector<v1::Operation>, const WaitOptions&)> wait_for_all =
      &WaitForAll;
};

// One database of the whole.
struct WaveItem {
  std::string name;  // for people, and for the request id
  std::function<absl::StatusOr<v1::Operation>(const std::string& request_id)> start;
  // An operation that has to succeed before `start` is called, and what is done with it then: an error refuses the item, and an operation
  // is what an earlier call has started. Null: none.
  std::function<absl::StatusOr<v1::Operation>(const std::string& request_id)> before = nullptr;
  std::function<absl::StatusOr<std::optional<v1::Operation>>(const v1::Operation& succeeded)> before_done = nullptr;
};

struct WaveResult {
  std::vector<v1::Operation> operations;  // begun or found, in order
  std::vector<int> refused;               // exit codes of those that could not be ordered; reported already
  size_t not_begun = 0;
};

// Waits for what comes before, and for each wave but the last one, which is the caller's to wait for. Errors: as WaitForAll (what was begun
// is in `result`).
absl::Status RunWaves(Session& session, const std::vector<WaveItem>& items, const WaveOptions& options, WaveResult& result);

// The operations of some databases, in their order: those of an earlier call, past attempts that had failed before this one, else new ones;
// an error is of one database. Waits for what comes before. Errors: as WaitForAll (what goes on is in `waited`).
absl::Status StartOrFindAll(Session& session, std::span<const WaveItem> items, const WaveOptions& options,
                            std::vector<absl::StatusOr<v1::Operation>>& begun, std::vector<v1::Operation>& waited);

// "REQUEST-HASH-N": `attempt` counts from 1. What comes before has "-b" behind it.
std::string WaveRequestId(const std::string& request_id, const std::string& name, int attempt);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_WAVES_H_
