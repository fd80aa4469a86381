// What mountinfo(5) says of FUSE file systems: they share one magic number, only the mount's type tells local ones from remote ones.
//
// Not for asking whether a path is on a network file system: NetworkFileSystemName of file.h does that, with this.
// Thread safety: a pure function.
#ifndef LITEFLEET_COMMON_IO_MOUNTS_H_
#define LITEFLEET_COMMON_IO_MOUNTS_H_

#include <sys/types.h>

#include <istream>
#include <string>

namespace litefleet::io {

// The type ("fuse.sshfs") of the mount with device number `device`, where that is a file system over a network; else empty.
std::string NetworkFuseType(std::istream& mountinfo, dev_t device);

}  // namespace litefleet::io

#endif  // LITEFLEET_COMMON_IO_MOUNTS_H_
