// The running agent: puts the parts together, follows the schedule, answers signals.
//
// Not thread-safe: Start, Run and the destructor belong to the main thread, before which SIGTERM, SIGINT and SIGHUP are blocked.
// Source: sd_notify(3), systemd's notes on daemons.
#ifndef LITEFLEET_AGENT_AGENT_H_
#define LITEFLEET_AGENT_AGENT_H_

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/config/config.h"

namespace litefleet {

class Agent {
 public:
  struct Options {
    std::string config_path;
    // Do what is due, take orders, report, end.
    bool once = false;
    // With `once`: how long to wait for the controller.
    std::chrono::milliseconds once_wait{60000};
  };

  // Locks the state directory and begins to work. Errors: kFailedPrecondition ALREADY_RUNNING; kNotFound NOT_ENROLLED;
  // kFailedPrecondition NETWORK_FILE_SYSTEM; those of the state directory.
  static absl::StatusOr<std::unique_ptr<Agent>> Start(const Options& options, const config::AgentConfig& config);
  // Interrupts what runs; it goes on at the next start.
  ~Agent();
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  // Until SIGTERM or SIGINT, or with `once` until there is nothing more to do. kUnavailable CONTROLLER_UNREACHABLE, and kUnknown
  // OPERATIONS_FAILED when an operation failed, both with `once` alone.
  absl::Status Run();

 private:
  class Impl;
  explicit Agent(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_AGENT_H_
