// Who has a file open, and the proof that nobody has: the kernel's write lease, or a complete look at /proc.
//
// Not for a file that this process has open through SQLite: the lease needs a descriptor, and closing it would drop SQLite's locks (design
// law 3). Thread safety: functions any thread, a lease one. Source: fcntl(2) F_SETLEASE, proc(5).
#ifndef LITEFLEET_AGENT_RESTORE_IN_USE_H_
#define LITEFLEET_AGENT_RESTORE_IN_USE_H_

#include <sys/types.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/capture/lock_table.h"
#include "agent/restore/target_place.h"
#include "common/io/file.h"

namespace litefleet::restore {

struct Users {
  std::vector<pid_t> pids;  // other processes, ascending
  bool complete = false;    // every process could be looked at
  // "process 4711 (myapp)", at most five.
  std::string Text() const;
};

// Looks at the open files of all other processes that are visible.
Users FindUsers(std::span<const capture::FileId> files);

// Held until the object goes. While it is held, whoever opens the file waits (at most the kernel's lease-break-time, 45 s).
class WriteLease {
 public:
  // Nothing where the file system or our rights do not allow leases. kFailedPrecondition IN_USE when somebody has the file open.
  static absl::StatusOr<std::optional<WriteLease>> Take(const TargetPlace& place, const std::string& name);

  // Somebody waits to open the file.
  bool Wanted() const;

 private:
  explicit WriteLease(io::UniqueFd fd) : fd_(std::move(fd)) {}
  io::UniqueFd fd_;  // closing it gives the lease back
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_IN_USE_H_
