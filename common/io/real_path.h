// The file that a path leads to. Thread safety: pure but for the file system.
#ifndef LITEFLEET_COMMON_IO_REAL_PATH_H_
#define LITEFLEET_COMMON_IO_REAL_PATH_H_

#include <cstdlib>
#include <memory>
#include <string>

namespace litefleet::io {

// Without symbolic links: SQLite keeps its files beside the file that a link leads to. `path` itself where it leads nowhere.
inline std::string RealPathOr(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(realpath(path.c_str(), nullptr), std::free);
  return real == nullptr ? path : std::string(real.get());
}

}  // namespace litefleet::io

#endif  // LITEFLEET_COMMON_IO_REAL_PATH_H_
