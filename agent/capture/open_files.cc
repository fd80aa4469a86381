#include "agent/capture/open_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <memory>

#include "fmt/format.h"

namespace litefleet::capture {
namespace {

bool IsGone(int error) { return error == ENOENT || error == ESRCH; }

}  // namespace

OpenFiles FindOpenFiles(pid_t pid, std::span<const FileId> files, bool any) {
  OpenFiles open;
  const std::unique_ptr<DIR, int (*)(DIR*)> descriptors(opendir(fmt::format("/proc/{}/fd", pid).c_str()), closedir);
  if (descriptors == nullptr) {
    open.gone = IsGone(errno);
    open.complete = open.gone;
    return open;
  }
  std::vector<FileId> seen;
  for (;;) {
    errno = 0;
    const dirent* const entry = readdir(descriptors.get());
    if (entry == nullptr) break;
    if (entry->d_name[0] == '.') continue;
    struct statx st {};
    // What the kernel knows: asking the server of a mount (FUSE, a network) that is gone may not end. The list may be read where what is
    // behind its entries may not be looked at.
    if (statx(dirfd(descriptors.get()), entry->d_name, AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO, &st) != 0) {
      open.complete &= IsGone(errno);  // closed meanwhile
    } else if (S_ISREG(st.stx_mode)) {
      seen.push_back({makedev(st.stx_dev_major, st.stx_dev_minor), st.stx_ino});
      if (!any || std::find(files.begin(), files.end(), seen.back()) == files.end()) continue;
      open.found = {seen.back()};
      return open;
    }
  }
  open.complete &= errno == 0 || IsGone(errno);
  std::copy_if(files.begin(), files.end(), std::back_inserter(open.found),
               [&](const FileId& file) { return std::find(seen.begin(), seen.end(), file) != seen.end(); });
  return open;
}

}  // namespace litefleet::capture
