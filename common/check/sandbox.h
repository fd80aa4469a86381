// Takes from the calling process what a check does not need, for good: rights, files, network, memory, time.
//
// Not for a process with work of its own: it cannot be undone. Thread safety: call it before threads exist. Under a sanitizer the memory
// limit and the system call filter are left out, since its runtime needs more than they allow.
// Source: https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html
#ifndef LITEFLEET_COMMON_CHECK_SANDBOX_H_
#define LITEFLEET_COMMON_CHECK_SANDBOX_H_

#include <cstdint>
#include <string>

namespace litefleet::check {

struct SandboxLimits {
  int64_t address_space_bytes = 0;
  int64_t cpu_seconds = 0;
  int64_t file_bytes = 0;  // of a file that it has; 0: it writes to pipes alone
};

// Keeps descriptors 0 to `last_fd`. Returns what failed, or nothing. In this order: nobody's ids when root, no new privileges, death with
// the parent, limits, no other descriptors, the system call filter (an allow list; everything else is EPERM).
std::string EnterSandbox(const SandboxLimits& limits, int last_fd);

}  // namespace litefleet::check

#endif  // LITEFLEET_COMMON_CHECK_SANDBOX_H_
