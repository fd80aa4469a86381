#include "controller/retention/controller_time.h"

#include <algorithm>
#include <optional>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::retention {

using std::chrono::milliseconds;

namespace {

// In the place of a boot's id, as long as the clock may still be set in it; no boot has it.
constexpr char kNotSettled[] = "-";

}  // namespace

catalog::TimeRow ControllerTime::Look(std::optional<catalog::TimeRow> before) {
  const SystemTime now = clock_.Now();
  // What was kept was no time: nothing is known but that it is set now.
  if (before.has_value() && before->time < kNoClockBefore && now >= kNoClockBefore) before.reset();
  const auto boot = std::chrono::duration_cast<milliseconds>(clock_.SinceBoot());
  catalog::TimeRow row{.time = now, .boot_id = kNotSettled, .since_boot_ms = boot.count(), .hold = ""};
  bool settled = !before.has_value() && synchronized_();
  if (before.has_value()) {
    settled = before->boot_id == boot_id_ && boot.count() >= before->since_boot_ms;
    // Of another boot nobody knows how long ago it was.
    const Anchor from = anchor_.value_or(Anchor{.time = before->time, .boot = settled ? milliseconds(before->since_boot_ms) : boot});
    const bool goes_on = settled || (anchor_.has_value() && before->boot_id == kNotSettled && boot.count() >= before->since_boot_ms);
    // What the time should be, as far as anybody knows.
    const SystemTime earliest = from.time + (boot - from.boot);
    const SystemTime latest = settled ? earliest : earliest + kLongestRest;
    if (now < earliest - kTolerance || now > latest + kTolerance) {
      // The reference stays where it was, so that a clock that is set right again is believed.
      row.time = before->time + (goes_on ? boot - milliseconds(before->since_boot_ms) : milliseconds(0));
      row.hold = fmt::format("the controller's clock says {}, where {} was expected", FormatRfc3339(now), FormatRfc3339(earliest));
    } else {
      row.time = std::max(now, before->time);
      settled = settled || now > earliest + kTolerance || boot - from.boot >= kAnchorAge || synchronized_();
    }
  }
  if (row.time < kNoClockBefore && row.hold.empty())
    row.hold = fmt::format("the controller's clock was never set: it says {}", FormatRfc3339(now));
  if (settled) row.boot_id = boot_id_;
  row.time = given_ = std::max(row.time, given_);
  return row;
}

void ControllerTime::Keep(const catalog::TimeRow& row) {
  const milliseconds boot(row.since_boot_ms);
  const bool settles = kept_.has_value() && kept_->boot_id != row.boot_id;
  const bool old = anchor_.has_value() && row.boot_id != kNotSettled && boot - anchor_->boot >= kAnchorAge;
  const bool first = kept_.has_value() && kept_->time < kNoClockBefore && row.time >= kNoClockBefore;
  if (first || !anchor_.has_value() || (row.hold.empty() && (settles || old))) anchor_ = Anchor{.time = row.time, .boot = boot};
  kept_ = row;
}

absl::StatusOr<ControllerTime::Reading> ControllerTime::Tick() {
  const Turn::Holder turn(turn_);
  LF_ASSIGN_OR_RETURN(const std::optional<catalog::TimeRow> before, catalog_.Time());
  catalog::TimeRow row;
  {
    MutexLock lock(mu_);
    row = Look(before);
  }
  LF_RETURN_IF_ERROR(catalog_.SetTime(row));
  MutexLock lock(mu_);
  Keep(row);
  return Reading{.time = row.time, .hold = row.hold};
}

absl::StatusOr<ControllerTime::Reading> ControllerTime::Now() {
  {
    MutexLock lock(mu_);
    if (kept_.has_value()) {
      const catalog::TimeRow row = Look(kept_);
      return Reading{.time = row.time, .hold = row.hold};
    }
  }
  return Tick();
}

SystemTime ControllerTime::Stamp() {
  MutexLock lock(mu_);
  return kept_.has_value() ? Look(kept_).time : clock_.Now();
}

absl::StatusOr<SystemTime> ControllerTime::Trusted() {
  LF_ASSIGN_OR_RETURN(const Reading reading, Tick());
  if (reading.hold.empty()) return reading.time;
  return Error(absl::StatusCode::kFailedPrecondition, "CLOCK_ON_HOLD", "nothing is deleted: " + reading.hold,
               "set the clock, or confirm that it is right: litefleet store hold release clock");
}

absl::Status ControllerTime::Confirm() {
  const Turn::Holder turn(turn_);
  LF_ASSIGN_OR_RETURN(const std::optional<catalog::TimeRow> row, catalog_.Time());
  if (!row.has_value() || row->hold.empty()) {
    return Error(absl::StatusCode::kNotFound, "HOLD_NOT_FOUND", "the clock is not on hold");
  }
  if (clock_.Now() < kNoClockBefore) {
    return Error(absl::StatusCode::kFailedPrecondition, "CLOCK_NOT_SET",
                 fmt::format("the controller's clock says {}", FormatRfc3339(clock_.Now())), "set it first");
  }
  const catalog::TimeRow confirmed{.time = clock_.Now(),
                                   .boot_id = boot_id_,
                                   .since_boot_ms = std::chrono::duration_cast<milliseconds>(clock_.SinceBoot()).count(),
                                   .hold = ""};
  LF_RETURN_IF_ERROR(catalog_.SetTime(confirmed));
  MutexLock lock(mu_);
  anchor_.reset();
  Keep(confirmed);
  given_ = confirmed.time;
  return absl::OkStatus();
}

}  // namespace litefleet::retention
