// When a database is due by its schedule (common/config/schedule.h).
//
// The time of the last run is persisted by the caller, so that a device that restarts often neither skips runs nor makes them too often.
// Runs that were missed, while the device was off or outside the window, are caught up once. A database that never ran is due at once: what
// has no backup does not wait for the night. A clock that was set back does not stop the schedule: a last run in the future counts as
// unknown. The first look comes a little after the start, and what is late then waits for this device's own part of the jitter, so that a
// site after a power cut does not come at once.
//
// Thread safety: none. Times are the system clock's, since they survive a reboot.
#ifndef LITEFLEET_AGENT_CONTROL_SCHEDULER_H_
#define LITEFLEET_AGENT_CONTROL_SCHEDULER_H_

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/config/day_window.h"
#include "common/base/clock.h"
#include "common/config/schedule.h"

namespace litefleet::control {

class Scheduler {
 public:
  struct Plan {
    config::Schedule schedule;
    // Runs begin within it alone.
    std::optional<config::DayWindow> window = std::nullopt;
    // After a time of a cron expression, a boot, or a start with late runs: JitterOf.
    std::chrono::milliseconds jitter{0};
  };
  struct LastRun {
    std::optional<SystemTime> at = std::nullopt;  // unset: never
    bool in_this_boot = false;
  };

  // `settle`: nothing is due earlier than this after Scheduler was made.
  Scheduler(const Clock& clock, std::chrono::milliseconds settle) : clock_(clock), ready_at_(clock.Steady() + settle) {}

  // Adds a database or changes its schedule, which is not "never". What is known of its last run here is newer than `last_run`. Databases
  // that are not named again are dropped by Keep.
  void Set(const std::string& database, Plan plan, const LastRun& last_run);
  void Keep(const std::vector<std::string>& databases);

  // Databases to run now. The caller answers each with Started, and with Ended when the run is over; a database that runs is not due.
  std::vector<std::string> Due() const;
  void Started(const std::string& database);
  void Ended(const std::string& database);
  // It is not due for so long, whatever its schedule says: what its run waits for does not hold. How late it is then: LateBy.
  void Hold(const std::string& database, std::chrono::milliseconds time);
  // How long ago its schedule named a time that has not been used; 0 where it lies ahead.
  std::chrono::milliseconds LateBy(const std::string& database) const;
  // Ever, as far as is known.
  bool HasRun(const std::string& database) const;

  // How long until something may be due; at most `limit`.
  std::chrono::milliseconds UntilNext(std::chrono::milliseconds limit) const;

 private:
  struct Entry {
    Plan plan;
    LastRun last_run;
    bool running = false;
    std::optional<SteadyTime> held_until;
    // NextAfter of the last run, since that is not cheap.
    std::optional<SystemTime> next;
  };

  // Nothing: never. The first: the time that the schedule names, below 0 where it has passed.
  std::optional<std::chrono::milliseconds> UntilNamed(const Entry& entry) const;
  std::optional<std::chrono::milliseconds> Until(const Entry& entry) const;
  static void Forecast(Entry& entry);

  const Clock& clock_;
  const SteadyTime ready_at_;
  std::map<std::string, Entry> entries_;
};

// The part of `most` that is this device's own for this database: always the same, and spread evenly over devices.
std::chrono::milliseconds JitterOf(std::string_view device_id, std::string_view database, std::chrono::milliseconds most);

}  // namespace litefleet::control

#endif  // LITEFLEET_AGENT_CONTROL_SCHEDULER_H_
