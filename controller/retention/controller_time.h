// The controller's own time: persisted, never going back, and on hold after an implausible jump, so that no clock decides what is deleted.
//
// Within one boot the boot clock tells how much time has passed; a system clock that is more than 10 min off what that says has jumped.
// What it should say is reckoned from a reading that is up to a day old: small steps do not add up unseen. Across a boot a clock that goes
// back by more than 10 min, or forward by more than 30 days, has jumped. Machines without a clock of their own begin a boot where the last
// one ended, or in 1970, and are set by the network later: so what may pass across a boot may be said later in it as well, once, until the
// kernel says that the clock is synchronized, and for a day at most. A jump puts retention, grace periods and expiry on hold until an
// operator confirms the time, or the clock comes back to what it should be. Where no time was ever known and the clock says less than any
// that was set (kNoClockBefore), everything is on hold until it is set; then it is believed as a first reading is.
//
// Thread safety: all members may be called from any thread; they block for a commit, but for Now.
#ifndef LITEFLEET_CONTROLLER_RETENTION_CONTROLLER_TIME_H_
#define LITEFLEET_CONTROLLER_RETENTION_CONTROLLER_TIME_H_

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/turn.h"
#include "controller/catalog/policy_catalog.h"

namespace litefleet::retention {

class ControllerTime {
 public:
  static constexpr std::chrono::minutes kTolerance{10};
  static constexpr std::chrono::hours kLongestRest{24 * 30};
  static constexpr std::chrono::hours kAnchorAge{24};
  static constexpr SystemTime kNoClockBefore{std::chrono::seconds(1'735'689'600)};  // 2025

  // `synchronized`: whether the system clock is kept right by others (clock_sync.h); does not block.
  ControllerTime(
      catalog::PolicyCatalog& catalog, const Clock& clock, std::string boot_id, std::function<bool()> synchronized = [] { return true; })
      : catalog_(catalog), clock_(clock), boot_id_(std::move(boot_id)), synchronized_(std::move(synchronized)) {}

  struct Reading {
    SystemTime time;   // never earlier than one before, unless an operator confirmed it; on hold the boot clock alone moves it
    std::string hold;  // why; empty: none
  };
  // Looks at the clocks and keeps what it found. At start and once a minute.
  absl::StatusOr<Reading> Tick();
  // What Tick would find, and nothing is written down: for what is stamped all the time. The first one is a Tick.
  absl::StatusOr<Reading> Now();
  // The time of Now, for what cannot fail. REQUIRES: a Tick has succeeded; before, it is the system clock's.
  SystemTime Stamp();
  // As Tick, and an error CLOCK_ON_HOLD (kFailedPrecondition) where it is.
  absl::StatusOr<SystemTime> Trusted();
  // An operator says that the system clock is right. Errors: kNotFound HOLD_NOT_FOUND; kFailedPrecondition CLOCK_NOT_SET.
  absl::Status Confirm();

 private:
  // A time, and when it was by the boot clock.
  struct Anchor {
    SystemTime time;
    std::chrono::milliseconds boot{0};
  };
  // What the clocks say, given what was kept last.
  catalog::TimeRow Look(std::optional<catalog::TimeRow> before) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Keep(const catalog::TimeRow& row) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  catalog::PolicyCatalog& catalog_;
  const Clock& clock_;
  const std::string boot_id_;
  const std::function<bool()> synchronized_;
  Turn turn_;  // one that writes at a time
  Mutex mu_;
  std::optional<catalog::TimeRow> kept_ ABSL_GUARDED_BY(mu_);
  std::optional<Anchor> anchor_ ABSL_GUARDED_BY(mu_);          // what the clock should say is reckoned from it
  SystemTime given_ ABSL_GUARDED_BY(mu_) = SystemTime::min();  // the newest reading
};

}  // namespace litefleet::retention

#endif  // LITEFLEET_CONTROLLER_RETENTION_CONTROLLER_TIME_H_
