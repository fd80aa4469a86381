// A test program that includes this is told of each stretch of a file that it syncs (sync_file_range), by the file's path, and may let the
// wait for one fail as on a disk that refuses it. For one source file of a program.
//
// Before the call is made, on the thread that makes it. Set while nothing runs.
#ifndef LITEFLEET_TESTS_FAKES_HOOKED_SYNCS_H_
#define LITEFLEET_TESTS_FAKES_HOOKED_SYNCS_H_

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <functional>
#include <string>
#include <string_view>

namespace litefleet {

inline std::function<void(std::string_view path)> g_before_stretch;

// The errno of a wait; 0: it is made.
inline std::function<int(std::string_view path)> g_wait_error;

inline int TellOfStretch(int fd, unsigned flags) {
  if (!g_before_stretch && !g_wait_error) return 0;
  std::array<char, 4096> buffer;
  const ssize_t size = readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), buffer.data(), buffer.size());
  if (size <= 0) return 0;
  const std::string_view path(buffer.data(), static_cast<size_t>(size));
  if (g_before_stretch) g_before_stretch(path);
  return g_wait_error && (flags & (SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WAIT_AFTER)) != 0 ? g_wait_error(path) : 0;
}

}  // namespace litefleet

// In the place of the C library's.
extern "C" int sync_file_range(int fd, off64_t offset, off64_t size, unsigned flags) {
  using Real = int (*)(int, off64_t, off64_t, unsigned);
  static const auto real = reinterpret_cast<Real>(dlsym(RTLD_NEXT, "sync_file_range"));
  if (const int error = litefleet::TellOfStretch(fd, flags); error != 0) {
    errno = error;
    return -1;
  }
  return real(fd, offset, size, flags);
}

#endif  // LITEFLEET_TESTS_FAKES_HOOKED_SYNCS_H_
