// A VFS that knows one database, behind a descriptor that may be written, and a few temporary files, behind others; nothing else exists.
//
// For the helper process: no path, no lock, no journal. Thread safety: none; one a process. The descriptors stay the caller's.
#ifndef LITEFLEET_COMMON_DUMP_LOAD_VFS_H_
#define LITEFLEET_COMMON_DUMP_LOAD_VFS_H_

#include <vector>

namespace litefleet::dump {

inline constexpr char kLoadVfsName[] = "litefleet-load";

// An SQLite result code.
int RegisterLoadVfs(int database, std::vector<int> temporary);

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_LOAD_VFS_H_
