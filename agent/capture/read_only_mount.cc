#include "agent/capture/read_only_mount.h"

#include <sys/statvfs.h>

#include "agent/capture/mount.h"

namespace litefleet::capture {

bool OnReadOnlyMount(const std::string& path) {
  struct statvfs fs {};
  return statvfs(path.c_str(), &fs) == 0 && (fs.f_flag & ST_RDONLY) != 0;
}

bool OnReadOnlyFileSystem(const std::string& path) {
  if (!OnReadOnlyMount(path)) return false;
  const auto mount = MountOf(path);
  return mount.has_value() && mount->read_only_file_system;
}

}  // namespace litefleet::capture
