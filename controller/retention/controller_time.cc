#include "controller/retention/controller_time.h"

#include <algorithm>
#include <optional>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::retention {

using std::chrono::milliseconds;

absl::StatusOr<ControllerTime::Reading> ControllerTime::Tick() {
  const Turn::Holder turn(turn_);
  LF_ASSIGN_OR_RETURN(const std::optional<catalog::TimeRow> before, catalog_.Time());
  const SystemTime now = clock_.Now();
  const auto boot = std::chrono::duration_cast<milliseconds>(clock_.SinceBoot());
  catalog::TimeRow row{.time = now, .boot_id = boot_id_, .since_boot_ms = boot.count(), .hold = ""};
  if (before.has_value()) {
    // What the time should be, as far as anybody knows.
    const bool same_boot = before->boot_id == boot_id_ && boot.count() >= before->since_boot_ms;
    const SystemTime earliest = before->time + (same_boot ? boot - milliseconds(before->since_boot_ms) : milliseconds(0));
    const SystemTime latest = same_boot ? earliest : earliest + kLongestRest;
    if (now < earliest - kTolerance || now > latest + kTolerance) {
      // The reference stays where it was, so that a clock that is set right again is believed.
      row.time = same_boot ? earliest : before->time;
      row.hold = fmt::format("the controller's clock says {}, where {} was expected", FormatRfc3339(now), FormatRfc3339(earliest));
    } else {
      row.time = std::max(now, before->time);
    }
  }
  LF_RETURN_IF_ERROR(catalog_.SetTime(row));
  return Reading{.time = row.time, .hold = row.hold};
}

absl::StatusOr<SystemTime> ControllerTime::Trusted() {
  LF_ASSIGN_OR_RETURN(const Reading reading, Tick());
  if (reading.hold.empty()) return reading.time;
  return Error(absl::StatusCode::kFailedPrecondition, "CLOCK_ON_HOLD", "nothing is deleted: " + reading.hold,
               "set the clock, or confirm that it is right: litefleet store hold release clock");
}

absl::Status ControllerTime::Confirm() {
  LF_ASSIGN_OR_RETURN(const std::optional<catalog::TimeRow> row, catalog_.Time());
  if (!row.has_value() || row->hold.empty()) {
    return Error(absl::StatusCode::kNotFound, "HOLD_NOT_FOUND", "the clock is not on hold");
  }
  return catalog_.SetTime({.time = clock_.Now(),
                           .boot_id = boot_id_,
                           .since_boot_ms = std::chrono::duration_cast<milliseconds>(clock_.SinceBoot()).count(),
                           .hold = ""});
}

}  // namespace litefleet::retention
