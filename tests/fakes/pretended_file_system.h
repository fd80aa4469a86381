// A test program that includes this decides what statfs and statvfs say of every file system. For one source file of a program.
//
// Thread safety: none.
#ifndef LITEFLEET_TESTS_FAKES_PRETENDED_FILE_SYSTEM_H_
#define LITEFLEET_TESTS_FAKES_PRETENDED_FILE_SYSTEM_H_

#include <dlfcn.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include <cstdint>
#include <functional>

namespace litefleet {

// The type's number while it is not zero.
inline uint32_t g_pretended_magic = 0;
// What it makes of the space that there is, unless it is empty.
inline std::function<void(struct statvfs&)> g_pretended_space;

}  // namespace litefleet

// In the place of the C library's, which ask the same. Each program has one source that includes this.
// NOLINTBEGIN(misc-definitions-in-headers)
extern "C" int statfs(const char* path, struct statfs* result) noexcept {
  using Real = int (*)(const char*, struct statfs*);
#if defined(__USE_FILE_OFFSET64)
  static const auto real = reinterpret_cast<Real>(dlsym(RTLD_NEXT, "statfs64"));
#else
  static const auto real = reinterpret_cast<Real>(dlsym(RTLD_NEXT, "statfs"));
#endif
  const int answer = real(path, result);
  const uint32_t pretended = litefleet::g_pretended_magic;
  if (answer == 0 && pretended != 0) result->f_type = static_cast<decltype(result->f_type)>(pretended);
  return answer;
}

extern "C" int statvfs(const char* path, struct statvfs* result) noexcept {
  using Real = int (*)(const char*, struct statvfs*);
#if defined(__USE_FILE_OFFSET64)
  static const auto real = reinterpret_cast<Real>(dlsym(RTLD_NEXT, "statvfs64"));
#else
  static const auto real = reinterpret_cast<Real>(dlsym(RTLD_NEXT, "statvfs"));
#endif
  const int answer = real(path, result);
  if (answer == 0 && litefleet::g_pretended_space) litefleet::g_pretended_space(*result);
  return answer;
}
// NOLINTEND(misc-definitions-in-headers)

#endif  // LITEFLEET_TESTS_FAKES_PRETENDED_FILE_SYSTEM_H_
