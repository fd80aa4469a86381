// What a run of the schedule waits for beside its time: power, load, a quiet database ([database.when] of agent.toml).
//
// Facts that this machine does not tell hold: a board without power supplies runs on the mains. WaitsFor is a function of files alone.
#ifndef LITEFLEET_AGENT_CONTROL_RUN_CONDITIONS_H_
#define LITEFLEET_AGENT_CONTROL_RUN_CONDITIONS_H_

#include <chrono>
#include <set>
#include <string>

#include "agent/config/config.h"
#include "agent/control/scheduler.h"
#include "common/base/clock.h"

namespace litefleet::control {

// Where the kernel tells them.
struct MachineFacts {
  std::string power_supplies = "/sys/class/power_supply";
  std::string load = "/proc/loadavg";
};

// What a run would wait for now, as a phrase ("this device runs on its battery"); empty: for nothing. `path` is the database's.
// Source of the files: Documentation/ABI/testing/sysfs-class-power and proc(5) of Linux.
std::string WaitsFor(const config::RunConditions& conditions, const std::string& path, SystemTime now, const MachineFacts& facts = {});

// Keeps runs that are due back while what they wait for does not hold, and says so once. Thread safety: none. Borrows both.
class RunGate {
 public:
  // Between two looks.
  static constexpr std::chrono::seconds kLook{10};

  RunGate(Scheduler& scheduler, const Clock& clock) : scheduler_(scheduler), clock_(clock) {}
  // Of a run that is due now; true: it is not due for kLook.
  bool Waits(const config::AgentConfig& config, const std::string& database);

 private:
  Scheduler& scheduler_;
  const Clock& clock_;
  std::set<std::string> waiting_;
};

}  // namespace litefleet::control

#endif  // LITEFLEET_AGENT_CONTROL_RUN_CONDITIONS_H_
