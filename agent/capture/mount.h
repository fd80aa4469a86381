// The mount on which a file lies, by /proc/self/mountinfo.
//
// What it says of the file system is what the kernel knows it by, where stat() may tell something else (Btrfs gives each subvolume a device
// of its own, overlayfs each layer). Thread safety: pure functions. Source: proc(5), /proc/PID/mountinfo and /proc/PID/fdinfo.
#ifndef LITEFLEET_AGENT_CAPTURE_MOUNT_H_
#define LITEFLEET_AGENT_CAPTURE_MOUNT_H_

#include <sys/types.h>

#include <istream>
#include <optional>
#include <string>

namespace litefleet::capture {

struct Mount {
  dev_t device = 0;                    // of the file system
  bool read_only_file_system = false;  // at no path of this machine is it written
};

// Nothing where that cannot be told: no such file, no /proc, or a mount outside of the root of this process.
std::optional<Mount> MountOf(const std::string& path);

// Mount `id` of a table in the form of /proc/PID/mountinfo.
std::optional<Mount> FindMount(std::istream& mounts, int id);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_MOUNT_H_
