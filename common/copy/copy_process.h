// Copies a database file and what lies beside it through a process of its own, so that this one never has a descriptor of it (design law
// 3).
//
// Whoever calls it holds the lock, through SQLite, that makes the copy a consistent one; nothing here knows of locks or content. Not for
// copies of anything else. Thread safety: none. Memory: constant. The process is started before the lock is taken, and a command costs a
// round trip of two pipes.
//
// Errors: those of `going_on`, after which the process is gone; ErrnoError of what the helper could not do; kDeadlineExceeded COPY_TIMEOUT
// where it said nothing for 30 s; kInternal CHECK_HELPER_FAILED.
#ifndef LITEFLEET_COMMON_COPY_COPY_PROCESS_H_
#define LITEFLEET_COMMON_COPY_COPY_PROCESS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/check/helper_process.h"

namespace litefleet::copy {

class CopyProcess {
 public:
  // Asked every 20 ms while a command runs; `done`: bytes of the database so far.
  using GoingOn = std::function<absl::Status(uint64_t done)>;

  // `path`: absolute, without a symbolic link as its last part. `files`: where copies go, the first one the database's; they stay the
  // caller's. An empty `helper` is looked for. kNotFound FILE_NOT_FOUND where the database is gone.
  static absl::StatusOr<std::unique_ptr<CopyProcess>> Start(const std::string& helper, const std::string& path,
                                                            const std::vector<int>& files, GoingOn going_on);
  CopyProcess(const CopyProcess&) = delete;
  CopyProcess& operator=(const CopyProcess&) = delete;

  // Device and inode of the database that it has open.
  std::pair<uint64_t, uint64_t> opened() const { return opened_; }
  // The database's blocks become file 0's; nothing where the file system cannot share them (or not between these two files).
  absl::StatusOr<std::optional<uint64_t>> Share();
  absl::StatusOr<uint64_t> Copy();
  // What lies beside it, "-wal" or "-journal"; nothing where there is none.
  absl::StatusOr<std::optional<uint64_t>> Side(const std::string& suffix, int file);

 private:
  CopyProcess(std::string path, GoingOn going_on) : path_(std::move(path)), going_on_(std::move(going_on)) {}
  struct Answer {
    std::string word;
    std::vector<uint64_t> numbers;
  };
  absl::StatusOr<Answer> Ask(const std::string& command);
  absl::StatusOr<std::string> ReadLine(uint64_t done);
  absl::Status Nonsense(const Answer& answer) const;

  const std::string path_;
  const GoingOn going_on_;
  std::pair<uint64_t, uint64_t> opened_;
  int commands_ = -1;  // the process's ends
  int answers_ = -1;
  std::string pending_;
  std::unique_ptr<check::HelperProcess> process_;
};

}  // namespace litefleet::copy

#endif  // LITEFLEET_COMMON_COPY_COPY_PROCESS_H_
