// The helper's half of a copy of database files: the only place that opens a database outside SQLite (design law 3).
//
// Runs in litefleet-check, which a process with SQLite connections starts for it: closing a descriptor here drops no lock over there. It
// looks at no content. Not for a process that has the database open itself. Thread safety: none; one a process.
//
// Commands come as lines, each is answered by one line, or by "progress BYTES" lines and one:
//
//   (at the start)   opened DEVICE INODE | failed ERRNO
//   share            the database's blocks become those of file 0: shared BYTES | cannot ERRNO (the file system does not do that)
//   copy             its bytes are copied to file 0: copied BYTES | failed ERRNO
//   side SUFFIX N    the file beside it with that suffix is copied to file N, shared where that is possible: copied BYTES | absent | failed
//   ERRNO
//
// BYTES is what the file had when it was looked at. Files are whole afterwards: what they had before is gone.
// Source: ioctl_ficlone(2)
#ifndef LITEFLEET_COMMON_COPY_COPY_SERVER_H_
#define LITEFLEET_COMMON_COPY_COPY_SERVER_H_

#include <string>
#include <vector>

namespace litefleet::copy {

// Until `commands` ends. `path` has no symbolic link as its last part. An exit code.
int ServeCopies(const std::string& path, int commands, int answers, const std::vector<int>& files);

}  // namespace litefleet::copy

#endif  // LITEFLEET_COMMON_COPY_COPY_SERVER_H_
