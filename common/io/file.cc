#include "common/io/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <system_error>

#include "common/base/status.h"
#include "common/io/mounts.h"
#include "fmt/format.h"

namespace litefleet::io {

void UniqueFd::Reset(int fd) {
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

absl::StatusOr<UniqueFd> Open(const std::string& path, int flags, mode_t mode) {
  int fd;
  do {
    fd = open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return ErrnoError(errno, "open " + path);
  return UniqueFd(fd);
}

absl::Status WriteAll(int fd, ByteView data, std::string_view path) {
  while (!data.empty()) {
    const ssize_t n = write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, fmt::format("write {}", path));
    data = data.subspan(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::Status PwriteAll(int fd, ByteView data, uint64_t offset, std::string_view path) {
  while (!data.empty()) {
    const ssize_t n = pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, fmt::format("write {}", path));
    data = data.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return absl::OkStatus();
}

absl::Status PreadAll(int fd, std::span<std::byte> out, uint64_t offset, std::string_view path) {
  while (!out.empty()) {
    const ssize_t n = pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, fmt::format("read {}", path));
    if (n == 0) {
      return Error(absl::StatusCode::kOutOfRange, "FILE_TOO_SHORT",
                   fmt::format("read {}: it ends before byte {}", path, offset + out.size()));
    }
    out = out.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return absl::OkStatus();
}

absl::Status Sync(int fd, std::string_view path) {
  if (fsync(fd) != 0) return ErrnoError(errno, fmt::format("fsync {}", path));
  return absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  LF_ASSIGN_OR_RETURN(const UniqueFd fd, Open(path, O_RDONLY | O_DIRECTORY));
  return Sync(fd.get(), path);
}

absl::StatusOr<std::string> ReadFile(const std::string& path, uint64_t limit) {
  LF_ASSIGN_OR_RETURN(const UniqueFd fd, Open(path, O_RDONLY));
  std::string content;
  char buffer[16384];
  for (;;) {
    const ssize_t n = read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, "read " + path);
    if (n == 0) return content;
    content.append(buffer, static_cast<size_t>(n));
    if (content.size() > limit) {
      return Error(absl::StatusCode::kOutOfRange, "FILE_TOO_LARGE", fmt::format("{} is larger than {} bytes", path, limit));
    }
  }
}

absl::Status WriteFileAtomic(const std::string& path, std::string_view content, mode_t mode) {
  const std::string temporary = path + ".tmp";
  {
    LF_ASSIGN_OR_RETURN(const UniqueFd fd, Open(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode));
    if (fchmod(fd.get(), mode) != 0) return ErrnoError(errno, "chmod " + temporary);
    LF_RETURN_IF_ERROR(WriteAll(fd.get(), AsBytes(content), temporary));
    LF_RETURN_IF_ERROR(Sync(fd.get(), temporary));
  }
  LF_RETURN_IF_ERROR(RenameFile(temporary, path));
  return SyncDirectory(DirectoryOf(path));
}

absl::Status RemoveFile(const std::string& path) {
  if (unlink(path.c_str()) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return ErrnoError(errno, "unlink " + path);
  }
  return SyncDirectory(DirectoryOf(path));
}

absl::Status RenameFile(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) != 0) return ErrnoError(errno, fmt::format("rename {} to {}", from, to));
  return absl::OkStatus();
}

absl::Status MakeDirectory(const std::string& path, mode_t mode) {
  if (mkdir(path.c_str(), mode) == 0) return absl::OkStatus();
  if (errno == EEXIST) {
    struct stat st {};
    if (stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) return absl::OkStatus();
    return ErrnoError(ENOTDIR, "mkdir " + path);
  }
  if (errno != ENOENT) return ErrnoError(errno, "mkdir " + path);
  const std::string parent = DirectoryOf(path);
  if (parent == path) return ErrnoError(ENOENT, "mkdir " + path);
  LF_RETURN_IF_ERROR(MakeDirectory(parent, mode));
  if (mkdir(path.c_str(), mode) != 0 && errno != EEXIST) return ErrnoError(errno, "mkdir " + path);
  return absl::OkStatus();
}

bool Exists(const std::string& path) {
  struct stat st {};
  return lstat(path.c_str(), &st) == 0;
}

std::string DirectoryOf(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return ".";
  return slash == 0 ? "/" : std::string(path.substr(0, slash));
}

absl::StatusOr<uint64_t> FreeBytes(const std::string& path) {
  struct statvfs st {};
  if (statvfs(path.c_str(), &st) != 0) return ErrnoError(errno, "statvfs " + path);
  return static_cast<uint64_t>(st.f_bavail) * st.f_frsize;
}

std::string NetworkFileSystemName(const std::string& path) {
  struct statfs st {};
  if (statfs(path.c_str(), &st) != 0) return {};
  switch (static_cast<uint32_t>(st.f_type)) {
    case 0x6969:
      return "nfs";
    case 0xff534d42:
      return "cifs";
    case 0xfe534d42:
      return "smb2";
    case 0x517b:
      return "smb";
    case 0x01021997:
      return "9p";
    case 0x5346414f:
      return "afs";
    case 0x6b414653:
      return "kafs";
    case 0x73757245:
      return "coda";
    case 0x00c36400:
      return "ceph";
    case 0x0bd00bd0:
      return "lustre";
    case 0x01161970:
      return "gfs2";
    case 0x7461636f:
      return "ocfs2";
    case 0x19830326:
      return "fhgfs";
    case 0x47504653:
      return "gpfs";
    case 0x65735546: {  // FUSE
      struct stat at {};
      if (stat(path.c_str(), &at) != 0) return {};
      std::ifstream mounts("/proc/self/mountinfo");
      return NetworkFuseType(mounts, at.st_dev);
    }
    default:
      return {};
  }
}

absl::StatusOr<ProcessLock> ProcessLock::Acquire(const std::string& path) {
  LF_ASSIGN_OR_RETURN(UniqueFd fd, Open(path, O_RDWR | O_CREAT));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoError(errno, "lock " + path);
    char pid[32] = {};
    const ssize_t n = pread(fd.get(), pid, sizeof pid - 1, 0);
    std::string owner(pid, n > 0 ? static_cast<size_t>(n) : 0);
    while (!owner.empty() && owner.back() == '\n') owner.pop_back();
    return Error(absl::StatusCode::kFailedPrecondition, "ALREADY_RUNNING",
                 fmt::format("{} is locked by process {}", path, owner.empty() ? "unknown" : owner),
                 "stop that process first, or use another directory");
  }
  const std::string pid = fmt::format("{}\n", getpid());
  if (ftruncate(fd.get(), 0) != 0) return ErrnoError(errno, "truncate " + path);
  LF_RETURN_IF_ERROR(PwriteAll(fd.get(), AsBytes(pid), 0, path));
  return ProcessLock(std::move(fd));
}

}  // namespace litefleet::io
