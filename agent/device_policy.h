// The configuration that is in force: agent.toml of the device, and below it the policy that the controller sent last, which is kept over
// restarts and without a connection.
//
// Thread safety: all members may be called from any thread; Receive blocks on the disk.
#ifndef LITEFLEET_AGENT_DEVICE_POLICY_H_
#define LITEFLEET_AGENT_DEVICE_POLICY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "agent/config/config.h"
#include "agent/config/policy.h"
#include "agent/state/state_directory.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet {

class DevicePolicyKeeper {
 public:
  // Nobody needs so many bytes of policy; more is not taken.
  static constexpr size_t kMaxBytes = 256 << 10;

  // With the policy that is kept; one that cannot be read counts as none, and is sent again. What is referred to outlives this.
  DevicePolicyKeeper(const state::StateDirectory& state, const Clock& clock, const config::AgentConfig& own);

  std::shared_ptr<const config::AgentConfig> Config() const;
  // agent.toml was read again.
  void SetOwn(const config::AgentConfig& own);
  // Durable first, then in force. What cannot be kept is not followed: the version stays what it was, and the controller sends it again.
  void Receive(const v1::DevicePolicy& policy);

  int64_t version() const;
  std::vector<std::string> problems() const;
  // Another one after each change of Config().
  uint64_t generation() const;

 private:
  void Combine() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const state::StateDirectory& state_;
  const Clock& clock_;

  mutable Mutex mu_;
  config::AgentConfig own_ ABSL_GUARDED_BY(mu_);
  v1::DevicePolicy policy_ ABSL_GUARDED_BY(mu_);
  std::string refused_ ABSL_GUARDED_BY(mu_);  // why the newest policy could not be taken; empty: it was
  std::shared_ptr<const config::AgentConfig> config_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> problems_ ABSL_GUARDED_BY(mu_);
  uint64_t generation_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_DEVICE_POLICY_H_
