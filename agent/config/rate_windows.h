// How much of the link an agent may use at which time of the day: `[[upload_window]]` and `[[download_window]]` of agent.toml.
//
// Times are the device's local ones; a window that ends before it begins goes over midnight and belongs to the day on which it began. Of
// several that hold at a moment the first counts, without one the plain limit. Thread safety: values and pure functions.
#ifndef LITEFLEET_AGENT_CONFIG_RATE_WINDOWS_H_
#define LITEFLEET_AGENT_CONFIG_RATE_WINDOWS_H_

#include <bitset>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <optional>
#include <string_view>
#include <vector>

namespace litefleet::config {

struct RateWindow {
  std::chrono::minutes from{0};  // since midnight
  std::chrono::minutes to{0};
  std::bitset<7> days;           // from Sunday, as tm_wday; none: every day
  int64_t bytes_per_second = 0;  // 0: no limit
  friend bool operator==(const RateWindow&, const RateWindow&) = default;
};

// "08:00", "24:00" as an end. Nothing for anything else.
std::optional<std::chrono::minutes> ParseTimeOfDay(std::string_view text);
// "mon" ... "sun", as tm_wday.
std::optional<int> ParseWeekday(std::string_view text);

// `local` as localtime_r gives it; of it day of the week, hour and minute count.
int64_t RateAt(const std::vector<RateWindow>& windows, int64_t otherwise, const std::tm& local);

}  // namespace litefleet::config

#endif  // LITEFLEET_AGENT_CONFIG_RATE_WINDOWS_H_
