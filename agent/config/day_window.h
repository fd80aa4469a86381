// Hours of the day, by the local time of the process. Thread safety: values and pure functions.
#ifndef LITEFLEET_AGENT_CONFIG_DAY_WINDOW_H_
#define LITEFLEET_AGENT_CONFIG_DAY_WINDOW_H_

#include <chrono>
#include <optional>
#include <string_view>

#include "common/base/clock.h"

namespace litefleet::config {

// A time of the day in which something may begin, by local time; it may go over midnight. Nothing restricts nothing.
struct DayWindow {
  std::chrono::minutes from{0};
  std::chrono::minutes to{0};
  // "22:00-06:00".
  static std::optional<DayWindow> Parse(std::string_view text);
  bool Contains(SystemTime at) const;
  // How long until it opens; 0 while it is open.
  std::chrono::milliseconds UntilOpen(SystemTime at) const;
  friend bool operator==(const DayWindow&, const DayWindow&) = default;
};

}  // namespace litefleet::config

#endif  // LITEFLEET_AGENT_CONFIG_DAY_WINDOW_H_
