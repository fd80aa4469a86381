// Writes a large new file past the page cache where its file system can do that: copying a gigabyte through the cache costs about as much
// processor time as decompressing and hashing it (here 2.2 s against 0.2 s), and pushes out what others have in it. Where the file system
// refuses (some of those in user space, a block that it cannot align), the rest goes through the cache, written back early.
//
// Not for files that are read again at once. Thread safety: none; blocks are written by a thread of its own while the caller fills the
// next. Memory: three blocks of 1 MiB. Durability: none, sync the file after Finish. Source: open(2), O_DIRECT.
#ifndef LITEFLEET_COMMON_IO_UNCACHED_WRITER_H_
#define LITEFLEET_COMMON_IO_UNCACHED_WRITER_H_

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "common/base/bytes.h"
#include "common/base/mutex.h"
#include "common/io/writeback.h"

namespace litefleet::io {

class UncachedWriter {
 public:
  // `fd`: a new file, open for writing and used by nobody else until Finish. It outlives this. `path` is for messages.
  UncachedWriter(int fd, std::string path);
  // Forgets what was not written yet; waits for the block that is.
  ~UncachedWriter();
  UncachedWriter(const UncachedWriter&) = delete;
  UncachedWriter& operator=(const UncachedWriter&) = delete;

  // In order, in pieces of any size. Errors: ErrnoError (DISK_FULL among them), also of what was given before.
  absl::Status Write(ByteView data);
  // When everything is in the file. Nothing may be written afterwards. Errors: as Write.
  absl::Status Finish();

 private:
  struct Free {
    void operator()(std::byte* data) const { std::free(data); }
  };
  struct Block {
    std::unique_ptr<std::byte, Free> data;
    size_t size = 0;
  };
  static constexpr size_t kBlocks = 3;

  void Run();
  absl::Status WriteBlock(ByteView data);
  void HandOver() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int fd_;
  const std::string path_;
  std::array<Block, kBlocks> blocks_;
  // The caller's.
  size_t filled_ = 0;  // bytes of the block that is being filled

  // The thread's.
  bool uncached_;
  uint64_t written_ = 0;
  Writeback writeback_{64 << 20};

  Mutex mu_;
  CondVar changed_;
  uint64_t given_ ABSL_GUARDED_BY(mu_) = 0;  // blocks; from done_ to given_ they are the thread's
  uint64_t done_ ABSL_GUARDED_BY(mu_) = 0;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;  // last: it uses the rest
};

}  // namespace litefleet::io

#endif  // LITEFLEET_COMMON_IO_UNCACHED_WRITER_H_
