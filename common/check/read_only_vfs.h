// A VFS that serves one database that does not change, and refuses to write, to open or to delete anything.
//
// Why not /proc/self/fd/N with the unix VFS: opening that path asks for the file's permissions again, which the unprivileged helper
// does not have. Thread safety: none; one instance a process.
#ifndef LITEFLEET_COMMON_CHECK_READ_ONLY_VFS_H_
#define LITEFLEET_COMMON_CHECK_READ_ONLY_VFS_H_

#include <cstdint>

#include "common/check/read_ahead.h"

namespace litefleet::check {

inline constexpr char kReadOnlyVfsName[] = "litefleet-read-only";

// Registers the VFS, for a descriptor, which stays the caller's and is read ahead, or for a database of `bytes` that `read` reads. Returns
// an SQLite result code.
int RegisterReadOnlyVfs(int fd);
int RegisterReadOnlyVfs(int64_t bytes, ReadAt read);
// Bytes that SQLite has read through it.
int64_t ReadOnlyVfsBytes();

}  // namespace litefleet::check

#endif  // LITEFLEET_COMMON_CHECK_READ_ONLY_VFS_H_
