#include "agent/follow/watch.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "common/base/status.h"

namespace litefleet::follow {

absl::StatusOr<Watch> Watch::Open() {
  io::UniqueFd fd(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!fd.valid()) return ErrnoError(errno, "watch files (inotify)");
  return Watch(std::move(fd));
}

absl::StatusOr<int> Watch::Add(const std::string& path) {
  const int watch = inotify_add_watch(fd_.get(), path.c_str(), IN_OPEN | IN_CLOSE | IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF);
  if (watch < 0) return ErrnoError(errno, "watch " + path);
  return watch;
}

void Watch::Remove(int watch) { inotify_rm_watch(fd_.get(), watch); }

absl::Status Watch::Drain(const std::function<void(const Event&)>& event) {
  alignas(struct inotify_event) std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t size = read(fd_.get(), buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) return absl::OkStatus();
    if (size <= 0) return ErrnoError(errno, "read what happened to watched files");
    for (ssize_t at = 0; at < size;) {
      const auto* const one = reinterpret_cast<const struct inotify_event*>(&buffer[static_cast<size_t>(at)]);
      at += static_cast<ssize_t>(sizeof *one + one->len);
      if ((one->mask & IN_Q_OVERFLOW) != 0) {
        event({.watch = -1, .opened = true, .moved = true, .gone = false});
      } else {
        event({.watch = one->wd,
               .opened = (one->mask & IN_OPEN) != 0,
               .moved = (one->mask & (IN_MOVE_SELF | IN_ATTRIB | IN_IGNORED)) != 0,
               .gone = (one->mask & IN_IGNORED) != 0});
      }
    }
  }
}

}  // namespace litefleet::follow
