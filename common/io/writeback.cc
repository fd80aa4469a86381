#include "common/io/writeback.h"

#include <fcntl.h>

namespace litefleet::io {
namespace {

constexpr uint64_t kStretch = 8 << 20;

void Range(int fd, uint64_t from, uint64_t to, unsigned flags) {
  static_cast<void>(sync_file_range(fd, static_cast<off_t>(from), static_cast<off_t>(to - from), flags));
}

}  // namespace

void Writeback::Wrote(int fd, uint64_t end) {
  if (end >= started_ + kStretch) Start(fd, end);
}

void Writeback::Finish(int fd, uint64_t end) {
  if (end > started_) Start(fd, end);
}

void Writeback::Start(int fd, uint64_t end) {
  Range(fd, started_, end, SYNC_FILE_RANGE_WRITE);
  if (started_ > waited_ + behind_) {
    Range(fd, waited_, started_ - behind_, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    waited_ = started_ - behind_;
  }
  started_ = end;
}

}  // namespace litefleet::io
