// What the agent tells the controller about this device. Looks at files by stat() alone: a database is never opened outside SQLite.
// Thread safety: any thread.
#ifndef LITEFLEET_AGENT_HEALTH_H_
#define LITEFLEET_AGENT_HEALTH_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/capture_home.h"
#include "agent/config/config.h"
#include "agent/control/run_conditions.h"
#include "agent/control/session.h"
#include "agent/device_policy.h"
#include "agent/spool/snapshot_spool.h"
#include "agent/state/state_directory.h"
#include "common/base/clock.h"
#include "common/base/ids.h"

namespace litefleet {

class DeviceHealth final : public control::HealthSource {
 public:
  using Waiting = std::function<std::optional<control::RunGate::Reason>(const std::string& database)>;

  // `policy` has the configuration, which is asked each time, `active` the operations that have not ended, `waiting` what runs that are due
  // wait for. All outlive this.
  DeviceHealth(const state::StateDirectory& state, const Clock& clock, DevicePolicyKeeper& policy,
               std::function<std::vector<std::string>()> active, const spool::SnapshotSpool& spool, CaptureHome& capture, Waiting waiting)
      : state_(state),
        clock_(clock),
        policy_(policy),
        active_(std::move(active)),
        spool_(spool),
        capture_(capture),
        waiting_(std::move(waiting)),
        boot_id_(BootId()),
        instance_id_(NewUuid()) {}

  v1::Hello MakeHello() override;
  v1::Health MakeHealth() override;
  // Forgets it, so that the next backup is a real one.
  void SnapshotGone(const std::string& database, const std::string& snapshot_id) override;
  void PolicyReceived(const v1::DevicePolicy& policy) override { policy_.Receive(policy); }
  void ChainChecked(const v1::ChainChecked& checked) override { capture_.ChainChecked(checked); }

 private:
  v1::DatabaseHealth Look(const config::DatabaseConfig& database) const;

  const state::StateDirectory& state_;
  const Clock& clock_;
  DevicePolicyKeeper& policy_;
  const std::function<std::vector<std::string>()> active_;
  const spool::SnapshotSpool& spool_;
  CaptureHome& capture_;
  const Waiting waiting_;
  const std::string boot_id_;
  const std::string instance_id_;
};

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_HEALTH_H_
