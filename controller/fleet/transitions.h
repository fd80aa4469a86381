// The rules of README.md's table of states, as pure functions on one operation. Whoever calls them makes the result durable.
//
// What comes from a device is hostile: texts are cut, numbers and times clamped.
#ifndef LITEFLEET_CONTROLLER_FLEET_TRANSITIONS_H_
#define LITEFLEET_CONTROLLER_FLEET_TRANSITIONS_H_

#include <chrono>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::fleet {

enum class Outcome {
  kChanged,
  kUnchanged,
  kEnded,  // it had ended before; nothing was changed
};

// The device has the order.
Outcome ApplyAccepted(v1::Operation& operation);
// The device works on it.
Outcome ApplyProgress(v1::Operation& operation, const v1::Progress& progress, SystemTime now);
// REQUIRES: the result's state is one of IsResultState. `clock_offset` is controller time minus device time.
Outcome ApplyResult(v1::Operation& operation, const v1::OperationResult& result, std::chrono::milliseconds clock_offset, SystemTime now);
// An operator's cancel: a queued one ends, the others wait for their executor.
Outcome ApplyCancel(v1::Operation& operation, SystemTime now);
// Whether a cancel that nobody can answer, the device being offline, ends the operation now. What may have changed a database in its last
// step (a restore, an undo) is not called cancelled before a day has passed and its order has expired: the device is to say what it did.
bool EndsUnheard(const v1::Operation& operation, SystemTime now);
// When that is; nothing where it is at once, or where nothing is to be cancelled.
std::optional<SystemTime> UnheardUntil(const v1::Operation& operation);
// Such a cancel: CANCELLED with CANCELLED_UNHEARD, which a later result of the device replaces.
Outcome ApplyUnheard(v1::Operation& operation, SystemTime now);
// The queued order was not fetched.
Outcome ApplyExpiry(v1::Operation& operation, SystemTime now);
// Ended by the controller: CANCELLED where a cancel was under way, else FAILED with `why`.
Outcome ApplyAbandoned(v1::Operation& operation, const absl::Status& why, SystemTime now);
// What the controller's own executor reports; `report` is the whole operation.
Outcome ApplyLocal(v1::Operation& operation, const v1::Operation& report, SystemTime now);

// For the report that ApplyLocal gets: SUCCEEDED, or CANCELLED or FAILED with the error.
void SetLocalEnd(v1::Operation& report, const absl::Status& status);

// SUCCEEDED, PARTLY, FAILED, CANCELLED.
bool IsResultState(v1::OperationState state);
// Neither done nor sent bytes fall, and done stays within a known total.
void MergeProgress(v1::Progress& into, const v1::Progress& from);
// A failure that a later result of the device replaces, as it replaces CANCELLED_UNHEARD.
absl::Status OperationLost();
// Texts cut, unknown reasons kept: what a device said about an error, fit to be stored.
v1::ErrorDetail CutError(const v1::ErrorDetail& error);

// Cut at the begin of a character, so that valid UTF-8 stays valid (protobuf refuses other strings).
std::string CutText(const std::string& text, size_t limit);

inline constexpr size_t kMaxText = 4096;
inline constexpr int kMaxSteps = 256;
inline constexpr size_t kMaxStep = 1024;

}  // namespace litefleet::fleet

#endif  // LITEFLEET_CONTROLLER_FLEET_TRANSITIONS_H_
