// What a policy of the controller changes in the configuration of a device: only what agent.toml leaves unset, and only within the ranges
// that agent.toml has. What is out of range is left out, and said; it never stops the agent.
//
// Order, from the strongest: agent.toml of the database, agent.toml of the device, the policy for the database, the policy.
// Thread safety: pure functions.
#ifndef LITEFLEET_AGENT_CONFIG_POLICY_H_
#define LITEFLEET_AGENT_CONFIG_POLICY_H_

#include <string>
#include <vector>

#include "agent/config/config.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::config {

struct RuledConfig {
  AgentConfig config;
  // What of the policy is not followed: one sentence each, printable, at most kMaxProblems.
  std::vector<std::string> problems;
};

inline constexpr size_t kMaxProblems = 16;

// Databases that the policy names and the device does not have are no problem: a policy is for many devices.
RuledConfig ApplyPolicy(const AgentConfig& own, const v1::DevicePolicy& policy);

}  // namespace litefleet::config

#endif  // LITEFLEET_AGENT_CONFIG_POLICY_H_
