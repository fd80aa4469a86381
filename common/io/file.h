// Files as the agent's and the controller's own state needs them: descriptors with an owner, whole small files replaced atomically,
// locks, free space.
//
// Not for a user's database or its -shm: closing any descriptor drops the locks that SQLite holds on it (design law 3).
// Thread safety: functions may be called from any thread; objects are not shared. Errors: ErrnoError with the path.
#ifndef LITEFLEET_COMMON_IO_FILE_H_
#define LITEFLEET_COMMON_IO_FILE_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"

namespace litefleet::io {

// Owns a descriptor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { Reset(-1); }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  void Reset(int fd);

 private:
  int fd_ = -1;
};

// open(2) with O_CLOEXEC.
absl::StatusOr<UniqueFd> Open(const std::string& path, int flags, mode_t mode = 0600);
// The whole of `data`, or an error; short writes are continued.
absl::Status WriteAll(int fd, ByteView data, std::string_view path);
absl::Status PwriteAll(int fd, ByteView data, uint64_t offset, std::string_view path);
// Exactly `out.size()` bytes; kOutOfRange FILE_TOO_SHORT when the file ends before.
absl::Status PreadAll(int fd, std::span<std::byte> out, uint64_t offset, std::string_view path);
absl::Status Sync(int fd, std::string_view path);
absl::Status SyncDirectory(const std::string& path);

// Refuses a file that is larger than `limit` bytes (kOutOfRange FILE_TOO_LARGE).
absl::StatusOr<std::string> ReadFile(const std::string& path, uint64_t limit = 16 << 20);
// Writes beside `path`, syncs, renames, syncs the directory: old or new content after a crash, never a part.
absl::Status WriteFileAtomic(const std::string& path, std::string_view content, mode_t mode = 0600);
// Missing is fine. Syncs the directory.
absl::Status RemoveFile(const std::string& path);
absl::Status RenameFile(const std::string& from, const std::string& to);
// With parents; existing is fine.
absl::Status MakeDirectory(const std::string& path, mode_t mode = 0700);

bool Exists(const std::string& path);
std::string DirectoryOf(std::string_view path);
// Of the file system that holds `path`, as an unprivileged user may use it.
absl::StatusOr<uint64_t> FreeBytes(const std::string& path);
// NFS, CIFS/SMB, 9p, AFS, Coda, Ceph, Gluster and other FUSE-over-network types by f_type; the type's name, or empty for a local one.
std::string NetworkFileSystemName(const std::string& path);

// An exclusive lock on a file that holds the owner's pid; released when the object or the process ends.
class ProcessLock {
 public:
  // kFailedPrecondition ALREADY_RUNNING, naming the pid, when another process has it.
  static absl::StatusOr<ProcessLock> Acquire(const std::string& path);

 private:
  explicit ProcessLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace litefleet::io

#endif  // LITEFLEET_COMMON_IO_FILE_H_
