// What the methods of our VFSs do with a descriptor. SQLite result codes; interrupted calls go on.
#ifndef LITEFLEET_COMMON_SQLITE_VFS_IO_H_
#define LITEFLEET_COMMON_SQLITE_VFS_IO_H_

#include <sqlite3.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace litefleet::sqlite {

// What is behind the end is zeros and SQLITE_IOERR_SHORT_READ.
inline int VfsRead(int fd, void* out, int amount, int64_t offset) {
  auto* at = static_cast<char*>(out);
  while (amount > 0) {
    const ssize_t n = pread(fd, at, static_cast<size_t>(amount), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SQLITE_IOERR_READ;
    if (n == 0) {
      std::memset(at, 0, static_cast<size_t>(amount));
      return SQLITE_IOERR_SHORT_READ;
    }
    at += n;
    offset += n;
    amount -= static_cast<int>(n);
  }
  return SQLITE_OK;
}

// SQLITE_FULL: no space, a quota, or a limit of the file's size.
inline int VfsWrite(int fd, const void* data, int amount, int64_t offset) {
  const auto* at = static_cast<const char*>(data);
  while (amount > 0) {
    const ssize_t n = pwrite(fd, at, static_cast<size_t>(amount), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 && errno != ENOSPC && errno != EFBIG && errno != EDQUOT ? SQLITE_IOERR_WRITE : SQLITE_FULL;
    at += n;
    offset += n;
    amount -= static_cast<int>(n);
  }
  return SQLITE_OK;
}

}  // namespace litefleet::sqlite

#endif  // LITEFLEET_COMMON_SQLITE_VFS_IO_H_
