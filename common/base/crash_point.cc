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

void CrashPoint(const char* name) {
  if (const char* log = std::getenv("LITEFLEET_CRASH_LOG")) {
    const int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0) {
      const std::string line = std::string(name) + "\n";
      if (write(fd, line.data(), line.size()) < 0) std::abort();
      close(fd);
    }
  }
  const char* wanted = std::getenv("LITEFLEET_CRASH_AT");
  if (wanted == nullptr) return;
  const size_t length = std::strlen(name);
  if (std::strncmp(wanted, name, length) != 0 || (wanted[length] != '\0' && wanted[length] != ':')) return;
  static std::atomic<int> passed{0};
  const int at = wanted[length] == ':' ? static_cast<int>(std::strtol(wanted + length + 1, nullptr, 10)) : 1;
  if (++passed == at) kill(getpid(), SIGKILL);
}

}  // namespace litefleet::internal

#endif
