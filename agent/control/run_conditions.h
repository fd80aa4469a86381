// What a run of the schedule waits for beside its time: power, load, a quiet database ([database.when] of agent.toml).
//
// Facts that this machine does not tell hold: a board without power supplies runs on the mains. WaitsFor is a function of files alone.
#ifndef LITEFLEET_AGENT_CONTROL_RUN_CONDITIONS_H_
#define LITEFLEET_AGENT_CONTROL_RUN_CONDITIONS_H_

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "agent/config/config.h"
#include "agent/control/scheduler.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"

namespace litefleet::control {

// Where the kernel tells them.
struct MachineFacts {
  std::string power_supplies = "/sys/class/power_supply";
  std::string load = "/proc/loadavg";
};

// What a run would wait for now, as a phrase ("this device runs on its battery"); empty: for nothing. `path` is the database's.
// Source of the files: Documentation/ABI/testing/sysfs-class-power and proc(5) of Linux.
std::string WaitsFor(const config::RunConditions& conditions, const std::string& path, SystemTime now, const MachineFacts& facts = {});

// Keeps runs that are due back while what they wait for does not hold, and says so once. Borrows scheduler and clock. Thread safety: Waits
// belongs to the scheduler's thread, Waiting to any.
//
// How late a run is follows from the last one. Of a database that never ran FOLDER/NAME.due says since when it waits (Unix milliseconds, a
// line), so that a device which is switched off again and again does not wait for ever.
class RunGate {
 public:
  // Between two looks.
  static constexpr std::chrono::seconds kLook{10};

  // Without a folder nothing is remembered.
  RunGate(Scheduler& scheduler, const Clock& clock, std::string folder = "")
      : scheduler_(scheduler), clock_(clock), folder_(std::move(folder)) {}
  // Of a run that is due now; true: it is not due for kLook.
  bool Waits(const config::AgentConfig& config, const std::string& database) ABSL_LOCKS_EXCLUDED(mu_);
  // Of a run that nothing has made due: whether it would wait.
  bool WouldWait(const config::AgentConfig& config, const std::string& database) const;

  struct Reason {
    std::string phrase;  // as WaitsFor
    SystemTime since{};  // when the run became due
  };
  // Of the run that is kept back; nothing where none is.
  std::optional<Reason> Waiting(const std::string& database) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // Whether a run of it waited.
  bool Forget(const std::string& database) ABSL_LOCKS_EXCLUDED(mu_);
  std::chrono::milliseconds LateBy(const std::string& database, bool waits);
  // Since when a database that never ran waits; remembers it where nothing is known yet.
  SystemTime WaitsSince(const std::string& database);
  std::string FileOf(const std::string& database) const { return folder_ + "/" + database + ".due"; }

  Scheduler& scheduler_;
  const Clock& clock_;
  const std::string folder_;
  mutable Mutex mu_;
  std::map<std::string, Reason> waiting_ ABSL_GUARDED_BY(mu_);
};

}  // namespace litefleet::control

#endif  // LITEFLEET_AGENT_CONTROL_RUN_CONDITIONS_H_
