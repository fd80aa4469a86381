#include "controller/cli/time_spec.h"

#include <array>
#include <charconv>
#include <ctime>
#include <optional>
#include <set>
#include <string>

#include "common/base/status.h"
#include "controller/cli/text.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

using std::chrono::seconds;

constexpr seconds kHundredYears = std::chrono::hours(24 * 36525);

// A date and time of day without a zone.
struct Civil {
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
  friend bool operator==(const Civil&, const Civil&) = default;
};

absl::Status Invalid(std::string_view text) {
  return Error(absl::StatusCode::kInvalidArgument, "TIME_INVALID", fmt::format("'{}' is no time", text),
               "write 2026-11-22T14:03:00+01:00, '2026-11-22 14:03' in local time, 'yesterday 23:00', or -15m");
}

// Reads from the front of `text`.
bool TakeDigits(std::string_view& text, size_t digits, int& value) {
  if (text.size() < digits) return false;
  value = 0;
  for (size_t i = 0; i < digits; ++i) {
    if (text[i] < '0' || text[i] > '9') return false;
    value = value * 10 + (text[i] - '0');
  }
  text.remove_prefix(digits);
  return true;
}
bool Take(std::string_view& text, char c) {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

bool TakeTimeOfDay(std::string_view& text, Civil& civil) {
  if (!TakeDigits(text, 2, civil.hour) || !Take(text, ':') || !TakeDigits(text, 2, civil.minute)) return false;
  if (!text.empty() && text.front() == ':') {
    text.remove_prefix(1);
    if (!TakeDigits(text, 2, civil.second)) return false;
  }
  return civil.hour < 24 && civil.minute < 60 && civil.second < 60;
}

bool TakeDate(std::string_view& text, Civil& civil) {
  if (!TakeDigits(text, 4, civil.year) || !Take(text, '-') || !TakeDigits(text, 2, civil.month) || !Take(text, '-') ||
      !TakeDigits(text, 2, civil.day))
    return false;
  const std::chrono::year_month_day date(std::chrono::year(civil.year), std::chrono::month(static_cast<unsigned>(civil.month)),
                                         std::chrono::day(static_cast<unsigned>(civil.day)));
  return date.ok() && civil.year >= 1970 && civil.year <= 2199;
}

// Seconds since 1970 as if `civil` were UTC.
int64_t AsUtc(const Civil& civil) {
  const std::chrono::sys_days days = std::chrono::year(civil.year) / civil.month / civil.day;
  return std::chrono::duration_cast<seconds>(days.time_since_epoch()).count() + civil.hour * 3600 + civil.minute * 60 + civil.second;
}

std::optional<std::tm> Local(int64_t unix_seconds) {
  const auto time = static_cast<std::time_t>(unix_seconds);
  std::tm local = {};
  if (localtime_r(&time, &local) == nullptr) return std::nullopt;
  return local;
}
Civil CivilOf(const std::tm& local) {
  return {local.tm_year + 1900, local.tm_mon + 1, local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec};
}

std::string OffsetText(long offset_seconds) {
  return fmt::format("{}{:02}:{:02}", offset_seconds < 0 ? '-' : '+', std::abs(offset_seconds) / 3600, std::abs(offset_seconds) / 60 % 60);
}

// The one moment at which a local clock showed `civil`. All offsets in force within two days are tried: a transition can be a day long.
absl::StatusOr<SystemTime> FromLocal(const Civil& civil, std::string_view text) {
  const int64_t as_utc = AsUtc(civil);
  std::set<long> offsets;
  for (int64_t around = as_utc - 2 * 86400; around <= as_utc + 2 * 86400; around += 3600) {
    if (const auto local = Local(around)) offsets.insert(local->tm_gmtoff);
  }
  std::set<int64_t> moments;
  for (const long offset : offsets) {
    const auto local = Local(as_utc - offset);
    if (local.has_value() && CivilOf(*local) == civil) moments.insert(as_utc - offset);
  }
  const std::string written =
      fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", civil.year, civil.month, civil.day, civil.hour, civil.minute, civil.second);
  if (moments.empty()) {
    return Error(absl::StatusCode::kInvalidArgument, "TIME_DOES_NOT_EXIST",
                 fmt::format("'{}' never was: the clocks were put forward over it", text),
                 fmt::format("write it with an offset, for instance {}{}", written, offsets.empty() ? "Z" : OffsetText(*offsets.begin())));
  }
  if (moments.size() > 1) {
    return Error(absl::StatusCode::kInvalidArgument, "TIME_IS_AMBIGUOUS", fmt::format("'{}' was twice: the clocks were put back", text),
                 fmt::format("write {}{} for the first, {}{} for the second", written, OffsetText(as_utc - *moments.begin()), written,
                             OffsetText(as_utc - *moments.rbegin())));
  }
  return SystemTime(seconds(*moments.begin()));
}

// "90s", "1h30m" in seconds; nothing where it is not that.
std::optional<seconds> Units(std::string_view text) {
  if (text.empty()) return std::nullopt;
  seconds total{0};
  while (!text.empty()) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end == text.data() || value < 0 || text.front() == '-') return std::nullopt;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    if (text.empty()) return std::nullopt;
    const int64_t unit = text.front() == 's'   ? 1
                         : text.front() == 'm' ? 60
                         : text.front() == 'h' ? 3600
                         : text.front() == 'd' ? 86400
                         : text.front() == 'w' ? 604800
                                               : 0;
    if (unit == 0 || value > kHundredYears.count() / unit) return std::nullopt;
    text.remove_prefix(1);
    total += seconds(value * unit);
    if (total > kHundredYears) return std::nullopt;
  }
  return total;
}

}  // namespace

absl::StatusOr<SystemTime> ParseTime(std::string_view text, SystemTime now) {
  std::string_view rest = text;
  if (rest == "now") return now;
  if (Take(rest, '-')) {
    const auto back = Units(rest);
    if (!back.has_value()) return Invalid(text);
    return now - *back;
  }
  Civil civil;
  for (const auto& [word, days_back] : {std::pair<std::string_view, int>("yesterday", 1), {"today", 0}}) {
    if (!rest.starts_with(word)) continue;
    rest.remove_prefix(word.size());
    const auto today = Local(std::chrono::duration_cast<seconds>(now.time_since_epoch()).count());
    if (!today.has_value() || !Take(rest, ' ') || !TakeTimeOfDay(rest, civil) || !rest.empty()) return Invalid(text);
    const std::chrono::sys_days day =
        std::chrono::sys_days(std::chrono::year(today->tm_year + 1900) / (today->tm_mon + 1) / today->tm_mday) -
        std::chrono::days(days_back);
    const std::chrono::year_month_day date(day);
    civil.year = static_cast<int>(date.year());
    civil.month = static_cast<int>(static_cast<unsigned>(date.month()));
    civil.day = static_cast<int>(static_cast<unsigned>(date.day()));
    return FromLocal(civil, text);
  }
  if (!TakeDate(rest, civil) || rest.empty()) return Invalid(text);
  if (rest.front() != 'T' && rest.front() != 't' && rest.front() != ' ') return Invalid(text);
  rest.remove_prefix(1);
  if (!TakeTimeOfDay(rest, civil)) return Invalid(text);
  std::chrono::nanoseconds fraction{0};
  if (Take(rest, '.')) {
    int64_t unit = 100'000'000;
    size_t digits = 0;
    for (; !rest.empty() && rest.front() >= '0' && rest.front() <= '9'; ++digits, unit /= 10) {
      fraction += std::chrono::nanoseconds((rest.front() - '0') * unit);
      rest.remove_prefix(1);
    }
    if (digits == 0) return Invalid(text);
  }
  if (rest.empty()) {
    LF_ASSIGN_OR_RETURN(const SystemTime time, FromLocal(civil, text));
    return time + fraction;
  }
  int64_t offset = 0;
  if (rest == "Z" || rest == "z") {
    rest.remove_prefix(1);
  } else {
    const bool west = rest.front() == '-';
    int hours = 0;
    int minutes = 0;
    if (!Take(rest, west ? '-' : '+') || !TakeDigits(rest, 2, hours) || !Take(rest, ':') || !TakeDigits(rest, 2, minutes) || hours > 23 ||
        minutes > 59)
      return Invalid(text);
    offset = (hours * 3600 + minutes * 60) * (west ? -1 : 1);
  }
  if (!rest.empty()) return Invalid(text);
  return SystemTime(seconds(AsUtc(civil) - offset)) + fraction;
}

absl::StatusOr<seconds> ParseDuration(std::string_view text) {
  const auto duration = Units(text);
  if (!duration.has_value() || duration->count() == 0) {
    return Error(absl::StatusCode::kInvalidArgument, "DURATION_INVALID", fmt::format("'{}' is no duration", text),
                 "write a number and s, m, h, d or w, for instance 90s, 15m, 1h30m or 7d");
  }
  return *duration;
}

}  // namespace litefleet::cli
