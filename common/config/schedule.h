// When a database is to be backed up: an interval, a cron expression, or once after each boot.
//
//   "1h"                    so long after the last run
//   "15 2 * * mon-fri"      minute, hour, day of the month, month, day of the week, by the device's local time. Lists, ranges, steps
//   ("*/15",
//                           "8-18/2"), three-letter names of months and days, 0 and 7 for Sunday. Where day of the month and day of the
//                           week are both restricted, either is enough, as cron has it. @hourly @daily @weekly @monthly @yearly
//   "at-boot"               once after the device has booted
//   "never"                 on order only
//
// Where clocks are set forward, a time that does not exist is the moment after the jump; where they are set back, a time that exists twice
// is the first one. An hour field that begins with "*" follows the clock that passes: it has neither.
//
// Thread safety: values and pure functions. Source: crontab(5).
#ifndef LITEFLEET_COMMON_CONFIG_SCHEDULE_H_
#define LITEFLEET_COMMON_CONFIG_SCHEDULE_H_

#include <array>
#include <bitset>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"

namespace litefleet::config {

class Schedule {
 public:
  enum class Kind { kNever, kInterval, kCron, kAtBoot };

  static constexpr std::chrono::seconds kShortest{1};
  static constexpr std::chrono::hours kLongest{24 * 366};

  Schedule() = default;
  // kInvalidArgument SCHEDULE_INVALID; the message names the field and what is wrong with it.
  static absl::StatusOr<Schedule> Parse(std::string_view text);

  Kind kind() const { return kind_; }
  // For people: an interval in its shortest form, others as they were written; empty: never.
  const std::string& text() const { return text_; }
  // REQUIRES: an interval.
  std::chrono::milliseconds interval() const { return interval_; }
  // The first time after `after`, to the minute, by the time zone of the process. Nothing where there is none within 12 years (30
  // February). REQUIRES: a cron expression.
  std::optional<SystemTime> NextAfter(SystemTime after) const;

  friend bool operator==(const Schedule&, const Schedule&) = default;

 private:
  static constexpr size_t kFields = 5;
  absl::Status ParseCron(std::string_view text);
  bool MatchesDay(const struct tm& local) const;
  bool Matches(const struct tm& local) const;
  // It matches a local time that the clocks have jumped over on their way to `at`.
  bool JumpedOver(time_t before, time_t at) const;

  Kind kind_ = Kind::kNever;
  std::string text_;
  std::chrono::milliseconds interval_{0};
  std::array<std::bitset<60>, kFields> fields_;  // minute, hour, day of the month, month (from 0), day of the week (from Sunday)
  std::bitset<kFields> any_;                     // the field begins with "*"
};

}  // namespace litefleet::config

#endif  // LITEFLEET_COMMON_CONFIG_SCHEDULE_H_
