#include "agent/device_policy.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet {

DevicePolicyKeeper::DevicePolicyKeeper(const state::StateDirectory& state, const Clock& clock, const config::AgentConfig& own)
    : state_(state), clock_(clock), own_(own) {
  const absl::StatusOr<std::optional<v1::DevicePolicy>> kept = state_.ReadPolicy();
  if (!kept.ok())
    spdlog::error("the policy that was kept is not followed until the controller sends it again: {}", MessageOf(kept.status()));
  MutexLock lock(mu_);
  if (kept.ok() && kept->has_value()) policy_ = **kept;
  Combine();
}

void DevicePolicyKeeper::Combine() {
  config::RuledConfig ruled = config::ApplyPolicy(own_, policy_);
  config_ = std::make_shared<const config::AgentConfig>(std::move(ruled.config));
  problems_ = std::move(ruled.problems);
  if (!refused_.empty()) problems_.insert(problems_.begin(), refused_);
  ++generation_;
}

std::shared_ptr<const config::AgentConfig> DevicePolicyKeeper::Config() const {
  MutexLock lock(mu_);
  return config_;
}

void DevicePolicyKeeper::SetOwn(const config::AgentConfig& own) {
  MutexLock lock(mu_);
  own_ = own;
  Combine();
}

void DevicePolicyKeeper::Receive(const v1::DevicePolicy& policy) {
  const size_t bytes = policy.ByteSizeLong();
  absl::Status kept = bytes <= kMaxBytes ? state_.WritePolicy(policy, clock_.Now())
                                         : Error(absl::StatusCode::kOutOfRange, "POLICY_TOO_LARGE",
                                                 fmt::format("a policy of {} bytes, at most {} are taken", bytes, kMaxBytes));
  MutexLock lock(mu_);
  if (kept.ok()) policy_ = policy;
  refused_ = kept.ok() ? "" : fmt::format("the policy could not be kept: {}", MessageOf(kept));
  Combine();
  if (!kept.ok()) {
    spdlog::error("{}", refused_);
  } else if (policy.version() == 0) {
    spdlog::info("no policy rules this device");
  } else {
    spdlog::info("policy {} of version {} rules this device where agent.toml leaves it open", policy.name(), policy.version());
  }
  for (const std::string& problem : problems_) spdlog::warn("policy: {}", problem);
}

int64_t DevicePolicyKeeper::version() const {
  MutexLock lock(mu_);
  return policy_.version();
}

std::vector<std::string> DevicePolicyKeeper::problems() const {
  MutexLock lock(mu_);
  return problems_;
}

uint64_t DevicePolicyKeeper::generation() const {
  MutexLock lock(mu_);
  return generation_;
}

}  // namespace litefleet
