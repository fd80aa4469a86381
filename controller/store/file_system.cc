#include "controller/store/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <utility>

#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::store {
namespace {

class PosixFile final : public File {
 public:
  PosixFile(io::UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  absl::StatusOr<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) override {
    size_t done = 0;
    while (done < out.size()) {
      const ssize_t n = pread(fd_.get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoError(errno, "read " + path_);
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    return done;
  }

  absl::Status WriteAt(uint64_t offset, ByteView first, ByteView second) override {
    while (!first.empty()) {
      const iovec parts[2] = {{const_cast<std::byte*>(first.data()), first.size()}, {const_cast<std::byte*>(second.data()), second.size()}};
      const ssize_t n = pwritev(fd_.get(), parts, 2, static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoError(errno, "write " + path_);
      offset += static_cast<uint64_t>(n);
      const size_t of_first = std::min(static_cast<size_t>(n), first.size());
      first = first.subspan(of_first);
      second = second.subspan(static_cast<size_t>(n) - of_first);
    }
    return io::PwriteAll(fd_.get(), second, offset, path_);
  }

  absl::Status Truncate(uint64_t size) override {
    if (ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) return ErrnoError(errno, "truncate " + path_);
    return absl::OkStatus();
  }
  absl::StatusOr<uint64_t> Size() override {
    struct stat st {};
    if (fstat(fd_.get(), &st) != 0) return ErrnoError(errno, "stat " + path_);
    return static_cast<uint64_t>(st.st_size);
  }
  absl::Status Sync() override { return io::Sync(fd_.get(), path_); }
  void StartWriteback(uint64_t offset, uint64_t size) override {
    static_cast<void>(sync_file_range(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(size), SYNC_FILE_RANGE_WRITE));
  }
  void DropCache() override { static_cast<void>(posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_DONTNEED)); }

 private:
  const io::UniqueFd fd_;
  const std::string path_;
};

absl::StatusOr<std::unique_ptr<File>> OpenFile(const std::string& path, int flags) {
  LF_ASSIGN_OR_RETURN(io::UniqueFd fd, io::Open(path, flags | O_NOFOLLOW, 0600));
  return std::make_unique<PosixFile>(std::move(fd), path);
}

class Posix final : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<File>> Create(const std::string& path) override { return OpenFile(path, O_RDWR | O_CREAT | O_EXCL); }
  absl::StatusOr<std::unique_ptr<File>> OpenForWriting(const std::string& path) override { return OpenFile(path, O_RDWR); }
  absl::StatusOr<std::unique_ptr<File>> OpenForReading(const std::string& path) override { return OpenFile(path, O_RDONLY); }
  absl::StatusOr<uint64_t> SizeOf(const std::string& path) override {
    struct stat st {};
    if (lstat(path.c_str(), &st) != 0) return ErrnoError(errno, "stat " + path);
    return static_cast<uint64_t>(st.st_size);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override { return io::RenameFile(from, to); }
  absl::Status Remove(const std::string& path) override {
    if (unlink(path.c_str()) != 0 && errno != ENOENT) return ErrnoError(errno, "unlink " + path);
    return absl::OkStatus();
  }
  absl::Status SyncDirectory(const std::string& path) override { return io::SyncDirectory(path); }
  absl::Status MakeDirectory(const std::string& path) override { return io::MakeDirectory(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), closedir);
    if (directory == nullptr) return ErrnoError(errno, "open " + path);
    std::vector<std::string> names;
    for (;;) {
      errno = 0;
      const dirent* entry = readdir(directory.get());
      if (entry == nullptr) break;
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
    }
    if (errno != 0) return ErrnoError(errno, "list " + path);
    return names;
  }
  absl::StatusOr<uint64_t> FreeBytes(const std::string& path) override { return io::FreeBytes(path); }
};

}  // namespace

absl::StatusOr<uint64_t> FileSystem::SizeOf(const std::string& path) {
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, OpenForReading(path));
  return file->Size();
}

FileSystem& PosixFileSystem() {
  static Posix posix;
  return posix;
}

}  // namespace litefleet::store
