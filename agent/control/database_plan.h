// What the scheduler is told of a database: by its configuration, which agent.toml and the policy have made together, and by what is kept
// of its last run.
//
// Thread safety: functions without state.
#ifndef LITEFLEET_AGENT_CONTROL_DATABASE_PLAN_H_
#define LITEFLEET_AGENT_CONTROL_DATABASE_PLAN_H_

#include <string_view>

#include "agent/config/config.h"
#include "agent/control/scheduler.h"
#include "litefleet/storage/v1/agent_state.pb.h"

namespace litefleet::control {

// REQUIRES: its schedule is not "never". `once`: an agent that does what is due and ends waits for no jitter.
Scheduler::Plan PlanOf(const config::DatabaseConfig& database, std::string_view device_id, bool once);

// `boot_id`: of this boot; where it is not known, no run is of this boot.
Scheduler::LastRun LastRunOf(const storage::v1::AgentDatabase& kept, std::string_view boot_id);

}  // namespace litefleet::control

#endif  // LITEFLEET_AGENT_CONTROL_DATABASE_PLAN_H_
