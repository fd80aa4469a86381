// Operations on many databases, some at a time: stops when too many have failed, and goes on where it was stopped.
//
// Every database's order has a request id that follows from that of the whole, so that the same call again finds what it has ordered
// before: what has succeeded or still runs is not ordered again, what has failed is. Thread safety: none.
#ifndef LITEFLEET_CONTROLLER_CLI_WAVES_H_
#define LITEFLEET_CONTROLLER_CLI_WAVES_H_

#include <cstddef>
#include <functional>
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
};

// One database of the whole.
struct WaveItem {
  std::string name;  // for people, and for the request id
  std::function<absl::StatusOr<v1::Operation>(const std::string& request_id)> start;
};

struct WaveResult {
  std::vector<v1::Operation> operations;  // begun or found, in order
  std::vector<int> refused;               // exit codes of those that could not be ordered; reported already
  size_t not_begun = 0;
};

// Waits for each wave but the last one, which is the caller's to wait for. Errors: as WaitForAll (what was begun is in `result`).
absl::Status RunWaves(Session& session, const std::vector<WaveItem>& items, const WaveOptions& options, WaveResult& result);

// The operation of one database: that of an earlier call, past attempts that had failed before this one, else a new one.
absl::StatusOr<v1::Operation> StartOrFind(const WaveItem& item, const std::string& request_id);

// "REQUEST-HASH-N": `attempt` counts from 1.
std::string WaveRequestId(const std::string& request_id, const std::string& name, int attempt);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_WAVES_H_
