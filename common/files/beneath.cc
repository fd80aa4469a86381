#include "common/files/beneath.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace litefleet::files {
namespace {

constexpr uint64_t kNoLinks = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
constexpr int kTries = 100;  // EAGAIN: something was renamed meanwhile

int ByKernel(int directory, const char* path, int flags, uint64_t resolve) {
  open_how how{};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC | O_NOFOLLOW);
  how.resolve = resolve;
  int fd = -1;
  for (int tries = 0; tries < kTries; ++tries) {
    fd = static_cast<int>(syscall(SYS_openat2, directory, path, &how, sizeof(how)));
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) break;
  }
  return fd;
}

// Old kernels, and filters that do not know it yet.
bool LacksOpenat2(int error) { return error == ENOSYS || error == EPERM || error == EINVAL || error == E2BIG; }

int Fail(int fd, int error) {
  close(fd);
  errno = error;
  return -1;
}

// Takes `directory` over.
int PartByPart(int directory, std::string_view name, int flags, bool one_device) {
  struct stat top {};
  if (fstat(directory, &top) != 0) return Fail(directory, errno);
  for (size_t at = 0;;) {
    const size_t end = std::min(name.find('/', at), name.size());
    const bool last = end == name.size();
    const std::string part(name.substr(at, end - at));
    const int next = openat(directory, part.c_str(), (last ? flags : O_PATH | O_DIRECTORY) | O_NOFOLLOW | O_CLOEXEC);
    const int error = errno;
    close(directory);
    if (next < 0) {
      errno = error;
      return -1;
    }
    struct stat st {};
    if (fstat(next, &st) != 0) return Fail(next, errno);
    if (one_device && st.st_dev != top.st_dev) return Fail(next, EXDEV);
    if (last) return next;
    directory = next;
    at = end + 1;
  }
}

}  // namespace

int OpenRoot(const std::string& path, OpenWay way) {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY;
  if (way == OpenWay::kAny) {
    const int fd = ByKernel(AT_FDCWD, path.c_str(), kFlags, kNoLinks);
    if (fd >= 0 || !LacksOpenat2(errno)) return fd;
  }
  const int top = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (top < 0 || path == "/") return top < 0 ? top : PartByPart(top, ".", kFlags, false);
  return PartByPart(top, std::string_view(path).substr(1), kFlags, false);
}

int OpenBeneath(int root, const std::string& name, int flags, OpenWay way) {
  const std::string path = name.empty() ? "." : name;
  if (way == OpenWay::kAny) {
    const int fd = ByKernel(root, path.c_str(), flags, kNoLinks | RESOLVE_BENEATH | RESOLVE_NO_XDEV);
    if (fd >= 0 || !LacksOpenat2(errno)) return fd;
  }
  const int top = fcntl(root, F_DUPFD_CLOEXEC, 3);
  return top < 0 ? top : PartByPart(top, path, flags, true);
}

}  // namespace litefleet::files
