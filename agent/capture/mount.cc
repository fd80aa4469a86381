#include "agent/capture/mount.h"

#include <fcntl.h>
#include <sys/sysmacros.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

// -1 where that cannot be told.
int IdOfMount(const std::string& path) {
  const io::UniqueFd fd(open(path.c_str(), O_PATH | O_CLOEXEC));  // closing one of these drops no lock
  if (!fd.valid()) return -1;
  std::ifstream info(fmt::format("/proc/self/fdinfo/{}", fd.get()));
  int id = -1;
  for (std::string word; info >> word;) {
    if (word == "mnt_id:") return info >> id ? id : -1;
  }
  return -1;
}

}  // namespace

std::optional<Mount> MountOf(const std::string& path) {
  std::ifstream mounts("/proc/self/mountinfo");
  return FindMount(mounts, IdOfMount(path));
}

// "36 35 98:0 /root /place rw,noatime master:1 - ext3 /dev/root rw,errors=continue": of the mount in front of " - ", of the file system
// last.
std::optional<Mount> FindMount(std::istream& mounts, int id) {
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    int number = -1, parent = -1;
    std::string device;
    if (!(words >> number) || number != id) continue;
    unsigned major_part = 0, minor_part = 0;
    const size_t end = line.find(" - ");
    if (end == std::string::npos || !(words >> parent >> device) || std::sscanf(device.c_str(), "%u:%u", &major_part, &minor_part) != 2)
      return std::nullopt;
    std::istringstream rest(line.substr(end + 3));
    std::string type, source, options;
    rest >> type >> source >> options;
    return Mount{makedev(major_part, minor_part), options == "ro" || options.starts_with("ro,")};
  }
  return std::nullopt;
}

}  // namespace litefleet::capture
