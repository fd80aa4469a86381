// Who has a file open, and the proof that nobody has: the kernel's write lease, or a complete look at /proc. In a container the latter is
// none: a database on a volume may be open in another one, or on the host.
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
  std::vector<pid_t> pids;    // other processes, ascending
  bool complete = false;      // every process of the machine could be looked at
  bool in_container = false;  // /proc does not show those outside of this process's name space
  // "process 4711 (myapp)", at most five.
  std::string Text() const;
};

// Of a name space of processes that is not the machine's first: who runs outside of it does not show in /proc, nor in the table of locks.
bool InContainer();

// Looks at the open files of all other processes that are visible. Without CAP_SYS_PTRACE it is not complete where other users' run, in a
// container never.
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

// The same of a file that the caller alone has open already, by the descriptor that he has. `fd` outlives it.
class OwnLease {
 public:
  explicit OwnLease(int fd);
  ~OwnLease();
  OwnLease(const OwnLease&) = delete;
  OwnLease& operator=(const OwnLease&) = delete;

  // Not where the file system or our rights do not allow leases, and where somebody else has the file open.
  bool held() const { return held_; }
  // Somebody waits to open the file. REQUIRES: held.
  bool Wanted() const;

 private:
  const int fd_;
  const bool held_;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_IN_USE_H_
