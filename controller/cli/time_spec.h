// Points in time and durations as operators type them.
//
//   2026-11-22T14:03:05+01:00   RFC 3339, also with a space
//   2026-11-22 14:03[:05]       local time
//   yesterday 23:00             local time; also `today 08:00`
//   -15m  -2h  -1d12h           before now; `now`
//
// A local time that does not exist (clocks went forward) or exists twice (clocks went back) is an error that says how to write it with
// an offset. Thread safety: pure functions, but for the time zone of the process (TZ). Errors: kInvalidArgument TIME_INVALID,
// TIME_DOES_NOT_EXIST, TIME_IS_AMBIGUOUS, DURATION_INVALID.
#ifndef LITEFLEET_CONTROLLER_CLI_TIME_SPEC_H_
#define LITEFLEET_CONTROLLER_CLI_TIME_SPEC_H_

#include <chrono>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/base/clock.h"

namespace litefleet::cli {

absl::StatusOr<SystemTime> ParseTime(std::string_view text, SystemTime now);
// "90s", "15m", "1h", "7d", "2w", "1h30m"; at least 1 s, at most 100 years.
absl::StatusOr<std::chrono::seconds> ParseDuration(std::string_view text);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_TIME_SPEC_H_
