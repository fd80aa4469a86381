// Tells systemd how the service is: readiness, stopping, reloading, the watchdog. Nothing happens where NOTIFY_SOCKET is not set.
//
// Thread safety: all functions may be called from any thread. None blocks. Source: sd_notify(3), the protocol part.
#ifndef LITEFLEET_COMMON_OBS_NOTIFY_H_
#define LITEFLEET_COMMON_OBS_NOTIFY_H_

#include <chrono>
#include <optional>
#include <string_view>

namespace litefleet::obs {

// "READY=1", "STOPPING=1", "WATCHDOG=1", "STATUS=..."; several separated by line ends. False where nobody listens.
bool Notify(std::string_view state);
// "RELOADING=1" with the monotonic time that systemd wants beside it; READY=1 must follow.
bool NotifyReloading();
// How often at least "WATCHDOG=1" must be sent: half of WATCHDOG_USEC, if it is meant for this process.
std::optional<std::chrono::milliseconds> WatchdogInterval();

}  // namespace litefleet::obs

#endif  // LITEFLEET_COMMON_OBS_NOTIFY_H_
