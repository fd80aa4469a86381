#include "agent/config/day_window.h"

#include <ctime>

#include "agent/config/rate_windows.h"

namespace litefleet::config {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;

std::optional<DayWindow> DayWindow::Parse(std::string_view text) {
  const size_t dash = text.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const auto from = ParseTimeOfDay(text.substr(0, dash));
  const auto to = ParseTimeOfDay(text.substr(dash + 1));
  if (!from || !to || *from == *to || *from >= hours(24)) return std::nullopt;
  return DayWindow{*from, *to};
}

bool DayWindow::Contains(SystemTime at) const {
  const auto seconds = static_cast<time_t>(std::chrono::duration_cast<std::chrono::seconds>(at.time_since_epoch()).count());
  struct tm local {};
  localtime_r(&seconds, &local);
  const minutes now = hours(local.tm_hour) + minutes(local.tm_min);
  return from < to ? from <= now && now < to : now >= from || now < to;
}

milliseconds DayWindow::UntilOpen(SystemTime at) const {
  // Minute by minute of the time that passes, so that no jump of the local clock matters; a day has 1,500 at most.
  for (minutes later(0); later < hours(26); ++later) {
    if (!Contains(at + later)) continue;
    if (later == minutes(0)) return milliseconds(0);
    const auto into = at.time_since_epoch() % minutes(1);
    return std::chrono::ceil<milliseconds>(later - into);
  }
  return milliseconds(0);
}

}  // namespace litefleet::config
