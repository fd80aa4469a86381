// What the agent tells the controller about this device. Looks at files by stat() alone: a database is never opened outside SQLite.
// Thread safety: any thread.
#ifndef LITEFLEET_AGENT_HEALTH_H_
#define LITEFLEET_AGENT_HEALTH_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/config/config.h"
#include "agent/control/session.h"
#include "agent/state/state_directory.h"
#include "common/base/clock.h"

namespace litefleet {

class DeviceHealth final : public control::HealthSource {
 public:
  // `config` is asked each time, `active` for the operations that have not ended. All outlive this.
  DeviceHealth(const state::StateDirectory& state, const Clock& clock, std::function<std::shared_ptr<const config::AgentConfig>()> config,
               std::function<std::vector<std::string>()> active)
      : state_(state), clock_(clock), config_(std::move(config)), active_(std::move(active)), boot_id_(BootId()) {}

  v1::Hello MakeHello() override;
  v1::Health MakeHealth() override;
  // Forgets it, so that the next backup is a real one.
  void SnapshotGone(const std::string& database, const std::string& snapshot_id) override;

 private:
  v1::DatabaseHealth Look(const config::DatabaseConfig& database) const;

  const state::StateDirectory& state_;
  const Clock& clock_;
  const std::function<std::shared_ptr<const config::AgentConfig>()> config_;
  const std::function<std::vector<std::string>()> active_;
  const std::string boot_id_;
};

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_HEALTH_H_
