// Opens what lies below a directory, and nothing else: no symbolic link is followed, no way up, no other file system.
//
// openat2(2) where the kernel has it (5.6) and lets us; else each part is opened by itself without following links, which comes to the
// same. Thread safety: pure functions. Errors: -1 and errno (ELOOP or ENOTDIR at a link, EXDEV at another file system).
#ifndef LITEFLEET_COMMON_FILES_BENEATH_H_
#define LITEFLEET_COMMON_FILES_BENEATH_H_

#include <sys/types.h>

#include <string>

namespace litefleet::files {

enum class OpenWay { kAny, kByHand };

// The root itself: an absolute path without a symbolic link in it, of a directory.
int OpenRoot(const std::string& path, OpenWay way = OpenWay::kAny);
// `name` as IsEntryName has it, or empty: the root again. O_CLOEXEC is added; O_NOFOLLOW too, so that a link itself is opened with O_PATH
// alone.
int OpenBeneath(int root, const std::string& name, int flags, OpenWay way = OpenWay::kAny);

}  // namespace litefleet::files

#endif  // LITEFLEET_COMMON_FILES_BENEATH_H_
