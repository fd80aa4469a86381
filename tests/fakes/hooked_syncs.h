// A test program that includes this is told of each stretch of a file that it syncs (sync_file_range), by the file's path. For one source
// file of a program.
//
// Before the call is made, on the thread that makes it. Set while nothing runs.
#ifndef LITEFLEET_TESTS_FAKES_HOOKED_SYNCS_H_
#define LITEFLEET_TESTS_FAKES_HOOKED_SYNCS_H_

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <string>
#include <string_view>

namespace litefleet {

inline std::function<void(std::string_view path)> g_before_stretch;

inline void TellOfStretch(int fd) {
  if (!g_before_stretch) return;
  std::array<char, 4096> path;
  const ssize_t size = readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), path.data(), path.size());
  if (size > 0) g_before_stretch(std::string_view(path.data(), static_cast<size_t>(size)));
}

}  // namespace litefleet

// In the place of the C library's.
extern "C" int sync_file_range(int fd, off64_t offset, off64_t size, unsigned flags) {
  using Real = int (*)(int, off64_t, off64_t, unsigned);
  static const auto real = reinterpret_cast<Real>(dlsym(RTLD_NEXT, "sync_file_range"));
  litefleet::TellOfStretch(fd);
  return real(fd, offset, size, flags);
}

#endif  // LITEFLEET_TESTS_FAKES_HOOKED_SYNCS_H_
