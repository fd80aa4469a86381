// When a database is due by its interval schedule.
//
// The time of the last run is persisted by the caller, so that a device that restarts often neither skips runs nor makes them too often;
// runs that were missed are caught up once. The first look comes a little after the start, different for each device. A clock that was set
// back does not stop the schedule: a last run in the future counts as unknown.
//
// Thread safety: none. Times are the system clock's, since they survive a reboot.
#ifndef LITEFLEET_AGENT_CONTROL_SCHEDULER_H_
#define LITEFLEET_AGENT_CONTROL_SCHEDULER_H_

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"

namespace litefleet::control {

class Scheduler {
 public:
  // `settle`: nothing is due earlier than this after Scheduler was made.
  Scheduler(const Clock& clock, std::chrono::milliseconds settle) : clock_(clock), ready_at_(clock.Steady() + settle) {}

  // Adds a database or changes its interval. `last_run` unset: never. Databases that are not named again are dropped by Keep.
  void Set(const std::string& database, std::chrono::milliseconds interval, std::optional<SystemTime> last_run);
  void Keep(const std::vector<std::string>& databases);

  // Databases to run now. The caller answers each with Started, and with Ended when the run is over; a database that runs is not due.
  std::vector<std::string> Due() const;
  void Started(const std::string& database);
  void Ended(const std::string& database);

  // How long until something may be due; at most `limit`.
  std::chrono::milliseconds UntilNext(std::chrono::milliseconds limit) const;

 private:
  struct Entry {
    std::chrono::milliseconds interval{0};
    std::optional<SystemTime> last_run;
    bool running = false;
  };

  std::chrono::milliseconds Until(const Entry& entry) const;

  const Clock& clock_;
  const SteadyTime ready_at_;
  std::map<std::string, Entry> entries_;
};

}  // namespace litefleet::control

#endif  // LITEFLEET_AGENT_CONTROL_SCHEDULER_H_
