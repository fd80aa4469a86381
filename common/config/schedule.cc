#include "common/config/schedule.h"

#include <algorithm>
#include <charconv>
#include <ctime>
#include <vector>

#include "common/base/status.h"
#include "common/config/toml_reader.h"
#include "fmt/format.h"

namespace litefleet::config {
namespace {

using std::chrono::milliseconds;

constexpr time_t kMinute = 60;
constexpr time_t kHour = 3600;
// No clock is set back, nor forward, by more.
constexpr time_t kLongestJump = 6 * kHour;
constexpr int kYears = 12;

struct Field {
  std::string_view name;
  int first = 0;
  int last = 0;
  std::vector<std::string_view> names = {};  // of the values from `first` on
};

const std::array<Field, 5>& Fields() {
  static const std::array<Field, 5> fields = {
      Field{"minute", 0, 59},
      Field{"hour", 0, 23},
      Field{"day of the month", 1, 31},
      Field{"month", 1, 12, {"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
      Field{"day of the week", 0, 7, {"sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun"}},
  };
  return fields;
}

absl::Status Invalid(std::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument, "SCHEDULE_INVALID", why,
               R"(for instance "1h", "30 2 * * *" (minute hour day month weekday), "at-boot", or "never")");
}

std::string IntervalText(milliseconds interval) {
  const auto total = std::chrono::duration_cast<std::chrono::seconds>(interval).count();
  if (interval % std::chrono::seconds(1) != milliseconds(0)) return fmt::format("{}ms", interval.count());
  if (total % 86400 == 0) return fmt::format("{}d", total / 86400);
  if (total % 3600 == 0) return fmt::format("{}h", total / 3600);
  if (total % 60 == 0) return fmt::format("{}m", total / 60);
  return fmt::format("{}s", total);
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t at = 0;;) {
    const size_t end = text.find(separator, at);
    parts.push_back(text.substr(at, end - at));
    if (end == std::string_view::npos) return parts;
    at = end + 1;
  }
}

std::optional<int> Number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty() || text.front() == '-') return std::nullopt;
  return value;
}

absl::StatusOr<int> Value(const Field& field, std::string_view text) {
  for (size_t i = 0; i < field.names.size(); ++i) {
    if (field.names[i] == text) return field.first + static_cast<int>(i);
  }
  const std::optional<int> number = Number(text);
  if (number.has_value() && *number >= field.first && *number <= field.last) return *number;
  return Invalid(
      fmt::format("\"{}\" is no {}: {} to {}{}", text, field.name, field.first, field.last,
                  field.names.empty() ? "" : fmt::format(", or {} to {}", field.names[0], field.names[field.last == 7 ? 6 : 11])));
}

// "5", "1-5", "*", with "/step" behind the latter two.
absl::Status AddRange(const Field& field, std::string_view text, std::bitset<60>& values) {
  int step = 1;
  const size_t slash = text.find('/');
  std::string_view range = text.substr(0, slash);
  int first = field.first;
  int last = field.last;
  if (slash != std::string_view::npos) {
    const std::optional<int> number = Number(text.substr(slash + 1));
    if (!number.has_value() || *number < 1 || *number > field.last)
      return Invalid(fmt::format("\"{}\" is no step of the {}: 1 to {}", text.substr(slash + 1), field.name, field.last));
    step = *number;
  }
  if (range == "*") {
    // Sunday once.
    if (field.last == 7) last = 6;
  } else if (const size_t dash = range.find('-'); dash != std::string_view::npos) {
    LF_ASSIGN_OR_RETURN(first, Value(field, range.substr(0, dash)));
    LF_ASSIGN_OR_RETURN(last, Value(field, range.substr(dash + 1)));
    if (field.last == 7 && last == 0 && first > 0) last = 7;  // "fri-sun"
    if (first > last) return Invalid(fmt::format("the range \"{}\" of the {} goes backwards", range, field.name));
  } else {
    if (slash != std::string_view::npos)
      return Invalid(fmt::format("\"{}\" has a step without a range: \"{}-{}/{}\" or \"*/{}\"", text, range, field.last, step, step));
    LF_ASSIGN_OR_RETURN(first, Value(field, range));
    last = first;
  }
  for (int value = first; value <= last; value += step) values.set(static_cast<size_t>(field.last == 7 ? value % 7 : value));
  return absl::OkStatus();
}

std::string_view Macro(std::string_view text) {
  if (text == "@hourly") return "0 * * * *";
  if (text == "@daily" || text == "@midnight") return "0 0 * * *";
  if (text == "@weekly") return "0 0 * * 0";
  if (text == "@monthly") return "0 0 1 * *";
  if (text == "@yearly" || text == "@annually") return "0 0 1 1 *";
  return text;
}

struct tm LocalTime(time_t at) {
  struct tm local {};
  localtime_r(&at, &local);
  return local;
}

// Minutes of the local calendar, of use for differences within some hours.
time_t LocalMinutes(time_t at) { return (at + LocalTime(at).tm_gmtoff) / kMinute; }

// The first moment of the next local day or hour, found from the time that passes.
time_t NextLocalDay(time_t at) {
  const struct tm today = LocalTime(at);
  time_t next = at - at % kMinute;
  // In hours first, and back in minutes: a day may begin with a jump.
  while (LocalTime(next).tm_yday == today.tm_yday && LocalTime(next).tm_year == today.tm_year) next += kHour;
  while (LocalTime(next - kMinute).tm_mday != today.tm_mday) next -= kMinute;
  return next;
}

time_t NextLocalHour(time_t at) { return at - at % kMinute + (60 - LocalTime(at).tm_min) * kMinute; }

}  // namespace

absl::StatusOr<Schedule> Schedule::Parse(std::string_view text) {
  Schedule schedule;
  const std::string lower = Lower(text);
  if (lower == "never") return schedule;
  schedule.text_ = std::string(text);
  if (lower == "at-boot" || lower == "@reboot") {
    schedule.kind_ = Kind::kAtBoot;
    return schedule;
  }
  if (lower.find(' ') != std::string::npos || lower.starts_with('@')) {
    LF_RETURN_IF_ERROR(schedule.ParseCron(lower));
    return schedule;
  }
  const absl::StatusOr<milliseconds> interval = ParseDuration(text);
  if (!interval.ok()) return Invalid(fmt::format("\"{}\" is no schedule", text));
  if (*interval < kShortest || *interval > kLongest)
    return Invalid(fmt::format("\"{}\" is no interval of a schedule: 1 second to 366 days", text));
  schedule.kind_ = Kind::kInterval;
  schedule.interval_ = *interval;
  schedule.text_ = IntervalText(*interval);
  return schedule;
}

absl::Status Schedule::ParseCron(std::string_view text) {
  kind_ = Kind::kCron;
  std::vector<std::string_view> parts;
  for (const std::string_view part : Split(Macro(text), ' ')) {
    if (!part.empty()) parts.push_back(part);
  }
  if (parts.size() != kFields) {
    return Invalid(parts.size() == 1
                       ? fmt::format("\"{}\" is no schedule", text)
                       : fmt::format("\"{}\" has {} fields instead of five: minute, hour, day of the month, month, day of the week", text,
                                     parts.size()));
  }
  for (size_t i = 0; i < kFields; ++i) {
    any_[i] = parts[i].front() == '*';
    std::bitset<60> values;
    for (const std::string_view range : Split(parts[i], ',')) LF_RETURN_IF_ERROR(AddRange(Fields()[i], range, values));
    fields_[i] = values;
  }
  fields_[3] >>= 1;  // as tm_mon
  return absl::OkStatus();
}

bool Schedule::MatchesDay(const struct tm& local) const {
  const bool month_day = fields_[2][static_cast<size_t>(local.tm_mday)];
  const bool week_day = fields_[4][static_cast<size_t>(local.tm_wday)];
  const bool day = any_[2] || any_[4] ? month_day && week_day : month_day || week_day;
  return day && fields_[3][static_cast<size_t>(local.tm_mon)];
}

bool Schedule::Matches(const struct tm& local) const {
  return fields_[0][static_cast<size_t>(local.tm_min)] && fields_[1][static_cast<size_t>(local.tm_hour)] && MatchesDay(local);
}

bool Schedule::JumpedOver(time_t before, time_t at) const {
  const time_t jump = LocalMinutes(at) - LocalMinutes(before) - (at - before) / kMinute;
  if (any_[1] || jump <= 0 || jump * kMinute > kLongestJump) return false;
  // The local times that never were, as a calendar without zones has them.
  for (time_t minute = LocalMinutes(at) - jump; minute < LocalMinutes(at); ++minute) {
    const time_t seconds = minute * kMinute;
    struct tm local {};
    gmtime_r(&seconds, &local);
    if (Matches(local)) return true;
  }
  return false;
}

std::optional<SystemTime> Schedule::NextAfter(SystemTime after) const {
  const auto since = static_cast<time_t>(std::chrono::duration_cast<std::chrono::seconds>(after.time_since_epoch()).count());
  const int last_year = LocalTime(since).tm_year + kYears;
  time_t at = since - since % kMinute;
  for (time_t next = at + kMinute;;) {
    if (JumpedOver(at, next)) {
      // To the minute of the jump.
      while (LocalMinutes(next) - LocalMinutes(next - kMinute) == 1) next -= kMinute;
      return SystemTime(std::chrono::seconds(next));
    }
    at = next;
    const struct tm local = LocalTime(at);
    if (local.tm_year > last_year) return std::nullopt;
    if (!MatchesDay(local)) {
      next = NextLocalDay(at);
    } else if (!fields_[1][static_cast<size_t>(local.tm_hour)]) {
      next = NextLocalHour(at);
    } else if (!fields_[0][static_cast<size_t>(local.tm_min)]) {
      next = at + kMinute;
    } else {
      // The second of two equal times is none.
      const time_t back = LocalTime(at - kLongestJump).tm_gmtoff - local.tm_gmtoff;
      const bool repeated = !any_[1] && back > 0 && LocalMinutes(at - back) == LocalMinutes(at);
      if (!repeated) return SystemTime(std::chrono::seconds(at));
      next = at + kMinute;
    }
  }
}

}  // namespace litefleet::config
