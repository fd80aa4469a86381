// What a run of the schedule waits for beside its time: power, load, a quiet database ([database.when] of agent.toml).
//
// Facts that this machine does not tell hold: a board without power supplies runs on the mains. Thread safety: pure functions over files.
#ifndef LITEFLEET_AGENT_CONTROL_RUN_CONDITIONS_H_
#define LITEFLEET_AGENT_CONTROL_RUN_CONDITIONS_H_

#include <string>

#include "agent/config/config.h"
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

}  // namespace litefleet::control

#endif  // LITEFLEET_AGENT_CONTROL_RUN_CONDITIONS_H_
