#include "common/io/stretched_sync.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdint>

#include "common/base/status.h"
#include "common/io/file.h"
#include "common/io/writeback.h"
#include "fmt/format.h"

namespace litefleet::io {
namespace {

constexpr uint64_t kStretchBytes = 8 << 20;

}  // namespace

absl::Status SyncInStretches(int fd, std::string_view path, const std::function<bool()>& cancelled) {
  struct stat st {};
  if (fstat(fd, &st) != 0) return ErrnoError(errno, fmt::format("look at {}", path));
  Writeback writeback(kStretchBytes);
  for (uint64_t end = kStretchBytes;; end += kStretchBytes) {
    LF_RETURN_IF_ERROR(writeback.status(path));
    if (cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", fmt::format("sync {}: cancelled", path));
    if (end >= static_cast<uint64_t>(st.st_size)) break;
    writeback.Wrote(fd, end);
  }
  return Sync(fd, path);
}

}  // namespace litefleet::io
