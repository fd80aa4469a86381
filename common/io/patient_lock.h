// Taking a ProcessLock that others hold for a moment to see whether its owner runs (`litefleet-agent status`, `litefleet-controller host
// add`): they must not keep the owner from starting. Not for those who only look: they would wait as long as an owner runs.
#ifndef LITEFLEET_COMMON_IO_PATIENT_LOCK_H_
#define LITEFLEET_COMMON_IO_PATIENT_LOCK_H_

#include <chrono>
#include <thread>

#include "absl/functional/function_ref.h"
#include "common/base/status.h"
#include "common/io/file.h"

namespace litefleet::io {

// A command that changes something while the owner does not run has the lock for as long as that takes.
inline constexpr std::chrono::seconds kChange{5};

// What `acquire` answers; ALREADY_RUNNING only where it still says so after 300 ms, or `patience`.
inline absl::StatusOr<ProcessLock> LockPatiently(absl::FunctionRef<absl::StatusOr<ProcessLock>()> acquire,
                                                 std::chrono::milliseconds patience = std::chrono::milliseconds(300)) {
  absl::StatusOr<ProcessLock> lock = acquire();
  for (auto left = patience; left.count() > 0 && ReasonOf(lock.status()) == "ALREADY_RUNNING"; left -= std::chrono::milliseconds(100)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    lock = acquire();
  }
  return lock;
}

}  // namespace litefleet::io

#endif  // LITEFLEET_COMMON_IO_PATIENT_LOCK_H_
