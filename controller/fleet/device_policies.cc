// What devices are told of policies.
#include <utility>

#include "common/base/status.h"
#include "controller/fleet/device_fleet.h"
#include "spdlog/spdlog.h"

namespace litefleet::fleet {

void DeviceFleet::PoliciesChanged() {
  MutexLock lock(mu_);
  for (const auto& [device, session] : sessions_) policies_due_.insert(device);
}

void DeviceFleet::OfferPolicy(const DeviceId& device, const SessionPtr& session) {
  if (!parts_.policy_of) return;
  const Turn::Holder turn(policy_turn_);
  const absl::StatusOr<v1::DevicePolicy> policy = parts_.policy_of(device);
  if (!policy.ok()) {
    spdlog::warn("device {} keeps the policy that it has: {}", device.value(), MessageOf(policy.status()));
    return;
  }
  v1::ControlResponse message;
  *message.mutable_policy() = *policy;
  MutexLock lock(mu_);
  if (session->policy_version == policy->version()) return;
  session->policy_version = policy->version();
  session->outbox.push_back(std::move(message));
}

void DeviceFleet::OfferDuePolicies() {
  for (size_t i = 0; i < kPoliciesATick; ++i) {
    DeviceId device;
    SessionPtr session;
    {
      MutexLock lock(mu_);
      if (policies_due_.empty()) return;
      device = *policies_due_.begin();
      policies_due_.erase(policies_due_.begin());
      const auto at = sessions_.find(device);
      if (at == sessions_.end()) continue;
      session = at->second;
    }
    OfferPolicy(device, session);
    Flush(session);
  }
}

}  // namespace litefleet::fleet
