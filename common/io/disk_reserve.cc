#include "common/io/disk_reserve.h"

#include <sys/statvfs.h>

#include <cerrno>

#include "common/base/status.h"

namespace litefleet::io {

absl::StatusOr<uint64_t> DiskReserve::At(const std::string& path) const {
  struct statvfs st {};
  if (statvfs(path.c_str(), &st) != 0) return ErrnoError(errno, "statvfs " + path);
  return Of(uint64_t{st.f_blocks} * st.f_frsize);
}

}  // namespace litefleet::io
