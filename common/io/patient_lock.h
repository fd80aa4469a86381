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

// What `acquire` answers; ALREADY_RUNNING only where it still says so after 300 ms.
inline absl::StatusOr<ProcessLock> LockPatiently(absl::FunctionRef<absl::StatusOr<ProcessLock>()> acquire) {
  absl::StatusOr<ProcessLock> lock = acquire();
  for (int i = 0; i < 3 && ReasonOf(lock.status()) == "ALREADY_RUNNING"; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    lock = acquire();
  }
  return lock;
}

}  // namespace litefleet::io

#endif  // LITEFLEET_COMMON_IO_PATIENT_LOCK_H_
