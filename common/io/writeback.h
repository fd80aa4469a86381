// Tells the kernel to write a file while it is still being made, a stretch at a time, so that little is left for the sync at the end
// and a large file does not fill the page cache with dirty pages.
//
// What the disk refuses meanwhile the kernel says once, here where the file is waited for, and no sync of the same descriptor says it again
// (Linux 4.14): nobody may believe that sync before he has asked status().
#ifndef LITEFLEET_COMMON_IO_WRITEBACK_H_
#define LITEFLEET_COMMON_IO_WRITEBACK_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"

namespace litefleet::io {

// For a file that is written from its beginning to its end by one thread.
class Writeback {
 public:
  // At most `behind` bytes, and a stretch of 8 MiB, wait for the disk: a slow one slows the writer down instead of filling the memory.
  explicit Writeback(uint64_t behind = 8 << 20) : behind_(behind) {}
  // Everything before `end` has been written: begins to write it once it makes a stretch.
  void Wrote(int fd, uint64_t end);
  // Begins to write what is left.
  void Finish(int fd, uint64_t end);
  // What a wait for the disk has ended with first, as ErrnoError of the file `path`. A file system that cannot write a part of a file is no
  // error: the sync at the end does it all.
  absl::Status status(std::string_view path) const;

 private:
  void Start(int fd, uint64_t end);
  uint64_t behind_;
  uint64_t started_ = 0;
  uint64_t waited_ = 0;
  int error_ = 0;  // the first, as errno has it
};

}  // namespace litefleet::io

#endif  // LITEFLEET_COMMON_IO_WRITEBACK_H_
