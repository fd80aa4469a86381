#include "common/copy/copy_server.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string_view>

namespace litefleet::copy {
namespace {

constexpr size_t kStepBytes = 1 << 20;
constexpr size_t kMaxCommand = 64;

// A descriptor of this process, which has no lock to lose.
class File {
 public:
  explicit File(const std::string& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)) {
    if (fd_ < 0) error_ = errno;
    if (fd_ >= 0 && fstat(fd_, &st_) != 0) error_ = errno;
    if (error_ == 0 && !S_ISREG(st_.st_mode)) error_ = EINVAL;
  }
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }
  int error() const { return error_; }
  const struct stat& st() const { return st_; }

 private:
  int fd_;
  int error_ = 0;
  struct stat st_ {};
};

class CopyServer {
 public:
  CopyServer(std::string path, int commands, int answers, const std::vector<int>& files)
      : path_(std::move(path)), commands_(commands), answers_(answers), files_(files), database_(path_) {}

  int Run() {
    if (database_.error() != 0) return Failed(database_.error()) ? 0 : 1;
    if (!Say("opened " + std::to_string(database_.st().st_dev) + " " + std::to_string(database_.st().st_ino))) return 1;
    std::string command;
    for (;;) {
      char c = 0;
      const ssize_t n = read(commands_, &c, 1);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return 0;
      if (c != '\n') {
        command += c;
        if (command.size() > kMaxCommand) return 2;
        continue;
      }
      if (!Do(command)) return 1;
      command.clear();
    }
  }

 private:
  bool Do(const std::string& command) {
    if (command == "share") return Share();
    if (command == "copy") return Copy(database_.fd(), files_[0]);
    if (!command.starts_with("side ")) return Failed(EINVAL);
    const size_t space = command.find(' ', 5);
    const size_t file = space == std::string::npos ? files_.size() : static_cast<size_t>(std::atoi(command.c_str() + space));
    if (file >= files_.size()) return Failed(EINVAL);
    return Side(command.substr(5, space - 5), files_[file]);
  }

  bool Share() {
    const int64_t bytes = ShareAll(database_.fd(), files_[0]);
    return bytes < 0 ? Say("cannot " + std::to_string(-bytes)) : Say("shared " + std::to_string(bytes));
  }

  // The size, or an error number below zero. The kernel holds writes up while it does this: it is of one moment.
  static int64_t ShareAll(int from, int to) {
    // A clone leaves what the destination had behind its end, and refuses where that end is within a block.
    struct stat source {};
    struct stat copy {};
    if (fstat(from, &source) != 0 || fstat(to, &copy) != 0) return -errno;
    if (copy.st_size > source.st_size && ftruncate(to, source.st_size) != 0) return -errno;
    if (ioctl(to, FICLONE, from) != 0) return -errno;
    return fstat(to, &copy) != 0 ? -errno : copy.st_size;
  }

  bool Side(const std::string& suffix, int to) {
    const File side(path_ + suffix);
    if (side.error() == ENOENT) return Say("absent");
    if (side.error() != 0) return Failed(side.error());
    if (const int64_t bytes = ShareAll(side.fd(), to); bytes >= 0) return Say("copied " + std::to_string(bytes));
    return Copy(side.fd(), to);
  }

  bool Copy(int from, int to) {
    if (ftruncate(to, 0) != 0) return Failed(errno);
    buffer_.resize(kStepBytes);
    off_t at = 0;
    for (;;) {
      const ssize_t n = pread(from, buffer_.data(), buffer_.size(), at);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Failed(errno);
      if (n == 0) break;
      for (ssize_t done = 0; done < n;) {
        const ssize_t written = pwrite(to, buffer_.data() + done, static_cast<size_t>(n - done), at + done);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return Failed(errno);
        done += written;
      }
      at += n;
      if (at / (8 << 20) != (at - n) / (8 << 20) && !Say("progress " + std::to_string(at))) return false;
    }
    return Say("copied " + std::to_string(at));
  }

  bool Failed(int error) { return Say("failed " + std::to_string(error)); }
  bool Say(const std::string& line) {
    const std::string text = line + "\n";
    return write(answers_, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  }

  const std::string path_;
  const int commands_;
  const int answers_;
  const std::vector<int> files_;
  const File database_;
  std::string buffer_;
};

}  // namespace

int ServeCopies(const std::string& path, int commands, int answers, const std::vector<int>& files) {
  // It ends with its parent, and gains no right by anything that it might start.
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || files.empty()) return 1;
  return CopyServer(path, commands, answers, files).Run();
}

}  // namespace litefleet::copy
