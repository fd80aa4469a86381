#include "agent/link_limits.h"

#include <spdlog/spdlog.h>

#include <ctime>
#include <optional>
#include <vector>

#include "agent/config/rate_windows.h"
#include "fmt/format.h"

namespace litefleet {

void LinkLimits::Follow(const config::AgentConfig& config) {
  const auto now = static_cast<time_t>(ToUnixMillis(clock_.Now()) / 1000);
  struct tm local {};
  if (localtime_r(&now, &local) == nullptr) return;
  const auto limit = [&](const char* what, const std::vector<config::RateWindow>& windows, std::optional<int64_t> otherwise,
                         RateLimit& rate) {
    const int64_t wanted = config::RateAt(windows, otherwise.value_or(0), local);
    if (wanted == rate.rate()) return;
    rate.SetRate(wanted);
    spdlog::info("{} may take {} now", what, wanted == 0 ? "the whole link" : fmt::format("{} bytes a second", wanted));
  };
  limit("uploads", config.upload_windows, config.upload_bytes_per_second, uploads_);
  limit("downloads", config.download_windows, config.download_bytes_per_second, downloads_);
}

}  // namespace litefleet
