// Fewer, larger reads of a file that does not change. SQLite reads a page at a time, and a check of a gigabyte spent half its time in
// 262,144 calls of pread under a system call filter.
//
// A block of 64 KiB is read whole once it or the one before it was wanted a moment ago; what is wanted here and there is read as it was
// asked for. Thread safety: none. Memory: 1 MiB and a table.
#ifndef LITEFLEET_COMMON_CHECK_READ_AHEAD_H_
#define LITEFLEET_COMMON_CHECK_READ_AHEAD_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace litefleet::check {

// An SQLite result code. What is behind the end is zeros and SQLITE_IOERR_SHORT_READ.
using ReadAt = std::function<int(int64_t offset, void* out, int bytes)>;

class ReadAhead {
 public:
  static constexpr int kBlock = 64 << 10;

  // `bytes`: of the file.
  ReadAhead(int64_t bytes, ReadAt read);

  // As ReadAt. An error in a part of a block that was not asked for is nobody's.
  int Read(int64_t offset, void* out, int amount);

 private:
  static constexpr size_t kSlots = 16;
  struct Slot {
    int64_t block = -1;
    uint64_t used = 0;
  };

  // Where the block lies; null: nowhere.
  const char* Find(int64_t block);
  bool Wanted(int64_t block) const;
  const char* Load(int64_t block);

  const int64_t bytes_;
  const ReadAt read_;
  std::unique_ptr<char[]> data_;
  std::array<Slot, kSlots> slots_;
  uint64_t uses_ = 0;
  std::array<int64_t, 64> recent_;  // blocks of which single pieces were read; the oldest is overwritten
  size_t next_recent_ = 0;
};

}  // namespace litefleet::check

#endif  // LITEFLEET_COMMON_CHECK_READ_AHEAD_H_
