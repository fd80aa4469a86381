#include "common/io/writeback.h"

#include <fcntl.h>

#include <cerrno>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::io {
namespace {

constexpr uint64_t kStretch = 8 << 20;

int Range(int fd, uint64_t from, uint64_t to, unsigned flags) {
  return sync_file_range(fd, static_cast<off_t>(from), static_cast<off_t>(to - from), flags) == 0 ? 0 : errno;
}

}  // namespace

void Writeback::Wrote(int fd, uint64_t end) {
  if (end >= started_ + kStretch) Start(fd, end);
}

void Writeback::Finish(int fd, uint64_t end) {
  if (end > started_) Start(fd, end);
}

void Writeback::Start(int fd, uint64_t end) {
  // What fails here fails again where it is waited for, here or at the sync.
  static_cast<void>(Range(fd, started_, end, SYNC_FILE_RANGE_WRITE));
  if (started_ > waited_ + behind_) {
    const int error =
        Range(fd, waited_, started_ - behind_, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    if (error_ == 0 && error != EINVAL && error != ENOSYS && error != ESPIPE) error_ = error;
    waited_ = started_ - behind_;
  }
  started_ = end;
}

absl::Status Writeback::status(std::string_view path) const {
  return error_ == 0 ? absl::OkStatus() : ErrnoError(error_, fmt::format("write {} to the disk", path));
}

}  // namespace litefleet::io
