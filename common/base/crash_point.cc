#include "common/base/crash_point.h"

#ifdef LITEFLEET_CRASH_POINTS

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

namespace litefleet::internal {
namespace {

// Whether the variable names this point, and this time of passing it.
bool IsDue(const char* variable, const char* name, std::atomic<int>& passed) {
  const char* wanted = std::getenv(variable);
  if (wanted == nullptr) return false;
  const size_t length = std::strlen(name);
  if (std::strncmp(wanted, name, length) != 0 || (wanted[length] != '\0' && wanted[length] != ':')) return false;
  return ++passed == (wanted[length] == ':' ? static_cast<int>(std::strtol(wanted + length + 1, nullptr, 10)) : 1);
}

}  // namespace

void CrashPoint(const char* name) {
  if (const char* log = std::getenv("LITEFLEET_CRASH_LOG")) {
    const int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0) {
      const std::string line = std::string(name) + "\n";
      if (write(fd, line.data(), line.size()) < 0) std::abort();
      close(fd);
    }
  }
  static std::atomic<int> stops{0}, kills{0};
  if (IsDue("LITEFLEET_STOP_AT", name, stops)) kill(getpid(), SIGSTOP);
  if (IsDue("LITEFLEET_CRASH_AT", name, kills)) kill(getpid(), SIGKILL);
}

}  // namespace litefleet::internal

#endif
