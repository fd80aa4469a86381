#include "common/obs/notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "fmt/format.h"

namespace litefleet::obs {

bool Notify(std::string_view state) {
  const char* path = getenv("NOTIFY_SOCKET");
  if (path == nullptr || (*path != '/' && *path != '@')) return false;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const size_t size = strlen(path);
  if (size >= sizeof address.sun_path) return false;
  memcpy(address.sun_path, path, size);
  if (*path == '@') address.sun_path[0] = '\0';  // abstract
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + size);
  const ssize_t sent =
      sendto(fd, state.data(), state.size(), MSG_NOSIGNAL | MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&address), length);
  close(fd);
  return sent == static_cast<ssize_t>(state.size());
}

bool NotifyReloading() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return Notify(fmt::format("RELOADING=1\nMONOTONIC_USEC={}", static_cast<int64_t>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000));
}

std::optional<std::chrono::milliseconds> WatchdogInterval() {
  const char* text = getenv("WATCHDOG_USEC");
  const char* pid = getenv("WATCHDOG_PID");
  if (text == nullptr || (pid != nullptr && strtol(pid, nullptr, 10) != getpid())) return std::nullopt;
  const long long micros = strtoll(text, nullptr, 10);
  if (micros <= 0) return std::nullopt;
  return std::chrono::milliseconds(std::max<long long>(micros / 2000, 1));
}

}  // namespace litefleet::obs
