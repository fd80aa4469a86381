// What uploads and what restores may take of the link at this time of the day: `[limits]` and the windows of agent.toml, or of the policy.
//
// Thread safety: of one thread; the two limits may be in use by others. Times are the device's local ones (TZ).
#ifndef LITEFLEET_AGENT_LINK_LIMITS_H_
#define LITEFLEET_AGENT_LINK_LIMITS_H_

#include "agent/config/config.h"
#include "common/base/clock.h"
#include "common/base/rate_limit.h"

namespace litefleet {

class LinkLimits {
 public:
  // All of them outlive this.
  LinkLimits(const Clock& clock, RateLimit& uploads, RateLimit& downloads) : clock_(clock), uploads_(uploads), downloads_(downloads) {}

  // Called at short intervals, and when the configuration has changed: sets the rates that hold now. One that stays keeps what was saved
  // up.
  void Follow(const config::AgentConfig& config);

 private:
  const Clock& clock_;
  RateLimit& uploads_;
  RateLimit& downloads_;
};

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_LINK_LIMITS_H_
