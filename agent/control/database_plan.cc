#include "agent/control/database_plan.h"

#include <chrono>

namespace litefleet::control {

Scheduler::Plan PlanOf(const config::DatabaseConfig& database, std::string_view device_id, bool once) {
  const auto jitter = once ? std::chrono::milliseconds(0) : JitterOf(device_id, database.name, database.jitter);
  return {.schedule = database.schedule, .window = database.window, .jitter = jitter};
}

Scheduler::LastRun LastRunOf(const storage::v1::AgentDatabase& kept, std::string_view boot_id) {
  if (kept.last_run_at_ms() == 0) return {};
  return {.at = FromUnixMillis(kept.last_run_at_ms()), .in_this_boot = !boot_id.empty() && kept.last_run_boot_id() == boot_id};
}

}  // namespace litefleet::control
