// Whether a file can be written at all where it lies, and by whom.
//
// A mount may be read-only for this process alone: systemd's ProtectSystem=, a bind mount of a container. Its file system is then written
// by others. Thread safety: pure functions. Source: mount.h.
#ifndef LITEFLEET_AGENT_CAPTURE_READ_ONLY_MOUNT_H_
#define LITEFLEET_AGENT_CAPTURE_READ_ONLY_MOUNT_H_

#include <string>

namespace litefleet::capture {

// Not by this process, at this path.
bool OnReadOnlyMount(const std::string& path);

// By nobody on this machine, at no path. False where that cannot be told.
bool OnReadOnlyFileSystem(const std::string& path);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_READ_ONLY_MOUNT_H_
