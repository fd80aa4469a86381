// Which files another process has open, by /proc/PID/fd.
//
// Not proof that nobody has: only the processes of this pid namespace show. A process of another user, or one with more capabilities than
// ours, can be looked at with CAP_SYS_PTRACE alone, though its list of descriptors can be read with less. Thread safety: pure functions.
// Source: proc(5), ptrace(2) "Ptrace access mode checking".
#ifndef LITEFLEET_AGENT_CAPTURE_OPEN_FILES_H_
#define LITEFLEET_AGENT_CAPTURE_OPEN_FILES_H_

#include <sys/types.h>

#include <span>
#include <vector>

#include "agent/capture/lock_table.h"

namespace litefleet::capture {

struct OpenFiles {
  std::vector<FileId> found;  // those of `files` that it has open, in their order
  bool gone = false;          // there is no such process any more
  bool complete = true;       // false: what is not in `found` it may have open all the same
};

// `any`: the first that is found is enough, and no other is looked for.
OpenFiles FindOpenFiles(pid_t pid, std::span<const FileId> files, bool any = false);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_OPEN_FILES_H_
