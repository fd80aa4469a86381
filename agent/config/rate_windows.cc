#include "agent/config/rate_windows.h"

#include <array>

namespace litefleet::config {
namespace {

bool Digit(char c) { return c >= '0' && c <= '9'; }

bool OnDay(const RateWindow& window, int day) { return window.days.none() || window.days.test(static_cast<size_t>((day + 7) % 7)); }

bool Holds(const RateWindow& window, std::chrono::minutes now, int day) {
  if (window.from < window.to) return now >= window.from && now < window.to && OnDay(window, day);
  return (now >= window.from && OnDay(window, day)) || (now < window.to && OnDay(window, day - 1));
}

}  // namespace

std::optional<std::chrono::minutes> ParseTimeOfDay(std::string_view text) {
  if (text.size() != 5 || text[2] != ':' || !Digit(text[0]) || !Digit(text[1]) || !Digit(text[3]) || !Digit(text[4])) return std::nullopt;
  const int hour = (text[0] - '0') * 10 + (text[1] - '0');
  const int minute = (text[3] - '0') * 10 + (text[4] - '0');
  if (minute > 59 || hour > 24 || (hour == 24 && minute > 0)) return std::nullopt;
  return std::chrono::hours(hour) + std::chrono::minutes(minute);
}

std::optional<int> ParseWeekday(std::string_view text) {
  constexpr std::array<std::string_view, 7> kDays = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};
  for (size_t day = 0; day < kDays.size(); ++day) {
    if (kDays[day] == text) return static_cast<int>(day);
  }
  return std::nullopt;
}

int64_t RateAt(const std::vector<RateWindow>& windows, int64_t otherwise, const std::tm& local) {
  const std::chrono::minutes now = std::chrono::hours(local.tm_hour) + std::chrono::minutes(local.tm_min);
  for (const RateWindow& window : windows) {
    if (Holds(window, now, local.tm_wday)) return window.bytes_per_second;
  }
  return otherwise;
}

}  // namespace litefleet::config
