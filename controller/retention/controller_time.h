// The controller's own time: persisted, never going back, and on hold after an implausible jump, so that no clock decides what is deleted.
//
// Within one boot the boot clock tells how much time has passed; a system clock that is more than 10 min off what that says has jumped.
// Across a boot a clock that goes back by more than 10 min, or forward by more than 30 days, has. A jump puts retention, grace periods and
// expiry on hold until an operator confirms the time, or the clock comes back to what it should be.
//
// Thread safety: all members may be called from any thread; they block for a commit.
#ifndef LITEFLEET_CONTROLLER_RETENTION_CONTROLLER_TIME_H_
#define LITEFLEET_CONTROLLER_RETENTION_CONTROLLER_TIME_H_

#include <chrono>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/turn.h"
#include "controller/catalog/policy_catalog.h"

namespace litefleet::retention {

class ControllerTime {
 public:
  static constexpr std::chrono::minutes kTolerance{10};
  static constexpr std::chrono::hours kLongestRest{24 * 30};

  ControllerTime(catalog::PolicyCatalog& catalog, const Clock& clock, std::string boot_id)
      : catalog_(catalog), clock_(clock), boot_id_(std::move(boot_id)) {}

  struct Reading {
    SystemTime time;   // never earlier than one before; stands still while on hold
    std::string hold;  // why; empty: none
  };
  // Looks at the clocks and keeps what it found. At start and once a minute.
  absl::StatusOr<Reading> Tick();
  // As Tick, and an error CLOCK_ON_HOLD (kFailedPrecondition) where it is.
  absl::StatusOr<SystemTime> Trusted();
  // An operator says that the system clock is right. Errors: kNotFound HOLD_NOT_FOUND.
  absl::Status Confirm();

 private:
  catalog::PolicyCatalog& catalog_;
  const Clock& clock_;
  const std::string boot_id_;
  Turn turn_;  // one look at a time
};

}  // namespace litefleet::retention

#endif  // LITEFLEET_CONTROLLER_RETENTION_CONTROLLER_TIME_H_
