#include "common/check/sandbox.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <vector>

#include "common/base/sanitizer.h"

namespace litefleet::check {
namespace {

constexpr uid_t kNobody = 65534;

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#elif defined(__arm__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_ARM;
#elif defined(__i386__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_I386;
#elif defined(__riscv)
constexpr uint32_t kArchitecture = AUDIT_ARCH_RISCV64;
#else
#error "name this machine's AUDIT_ARCH for the system call filter"
#endif

// Reading, memory, time, the end. Nothing that opens, connects, starts or signals.
constexpr auto kAllowed = std::to_array<uint32_t>({
    __NR_read,
    __NR_pread64,
    __NR_write,
    __NR_writev,
    __NR_close,
    __NR_fstat,
    __NR_lseek,
    __NR_munmap,
    __NR_mremap,
    __NR_brk,
    __NR_madvise,
    __NR_futex,
    __NR_clock_gettime,
    __NR_getpid,
    __NR_gettid,
    __NR_getrandom,
    __NR_rt_sigreturn,
    __NR_rt_sigprocmask,
    __NR_exit,
    __NR_exit_group,
    __NR_restart_syscall,
#ifdef __NR_newfstatat
    __NR_newfstatat,
#endif
#ifdef __NR_fstat64
    __NR_fstat64,
#endif
#ifdef __NR_fstatat64
    __NR_fstatat64,
#endif
#ifdef __NR__llseek
    __NR__llseek,
#endif
#ifdef __NR_gettimeofday
    __NR_gettimeofday,
#endif
#ifdef __NR_clock_gettime64
    __NR_clock_gettime64,
#endif
#ifdef __NR_futex_time64
    __NR_futex_time64,
#endif
#ifdef __NR_sigreturn
    __NR_sigreturn,
#endif
});

// For who has files of its own.
constexpr auto kAllowedToWriters = std::to_array<uint32_t>({
    __NR_pwrite64,
    __NR_ftruncate,
#ifdef __NR_ftruncate64
    __NR_ftruncate64,
#endif
});

#ifdef __NR_mmap
constexpr uint32_t kMmap = __NR_mmap;
#else
constexpr uint32_t kMmap = __NR_mmap2;
#endif
#ifdef __NR_mmap2
constexpr uint32_t kMmap2 = __NR_mmap2;
#else
constexpr uint32_t kMmap2 = kMmap;
#endif

std::string Failed(const char* what) { return std::string(what) + ": " + std::strerror(errno); }

bool Limit(int resource, rlim_t value) {
  const rlimit limit{value, value};
  return setrlimit(static_cast<__rlimit_resource_t>(resource), &limit) == 0;
}

bool InstallFilter(bool writes) {
  std::vector<sock_filter> program;
  const auto add = [&](uint16_t code, uint32_t k, uint8_t yes = 0, uint8_t no = 0) { program.push_back(sock_filter{code, yes, no, k}); };
  const uint32_t deny = SECCOMP_RET_ERRNO | (EPERM & SECCOMP_RET_DATA);
  add(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch));
  add(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0);
  add(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  add(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr));
  std::vector<uint32_t> allowed(kAllowed.begin(), kAllowed.end());
  if (writes) allowed.insert(allowed.end(), kAllowedToWriters.begin(), kAllowedToWriters.end());
  for (const uint32_t call : allowed) {
    add(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1);
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  // mmap and mprotect, but nothing executable: the third argument is the protection, in its low half on all of these machines.
  for (const uint32_t call : {kMmap, kMmap2, static_cast<uint32_t>(__NR_mprotect)}) {
    add(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 5);
    add(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args) + 2 * sizeof(uint64_t));
    add(BPF_ALU | BPF_AND | BPF_K, 4 /* PROT_EXEC */);
    add(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1);
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    add(BPF_RET | BPF_K, deny);
  }
  add(BPF_RET | BPF_K, deny);
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

}  // namespace

std::string EnterSandbox(const SandboxLimits& limits, int last_fd) {
  const pid_t parent = getppid();
  if (chdir("/") != 0) return Failed("chdir");
  umask(0077);
  if (geteuid() == 0) {
    if (setgroups(0, nullptr) != 0) return Failed("setgroups");
    if (setresgid(kNobody, kNobody, kNobody) != 0) return Failed("setresgid");
    if (setresuid(kNobody, kNobody, kNobody) != 0) return Failed("setresuid");
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return Failed("no_new_privs");
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return Failed("dumpable");
  // After the change of ids, which clears it; the parent may be gone by now.
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return Failed("pdeathsig");
  if (getppid() != parent) return "the parent has ended";
  if (!kSanitized && limits.address_space_bytes > 0 && !Limit(RLIMIT_AS, static_cast<rlim_t>(limits.address_space_bytes))) {
    return Failed("RLIMIT_AS");
  }
  if (limits.cpu_seconds > 0 && !Limit(RLIMIT_CPU, static_cast<rlim_t>(limits.cpu_seconds))) return Failed("RLIMIT_CPU");
  if (!Limit(RLIMIT_FSIZE, static_cast<rlim_t>(limits.file_bytes))) return Failed("RLIMIT_FSIZE");
  if (!Limit(RLIMIT_CORE, 0)) return Failed("RLIMIT_CORE");
  if (syscall(SYS_close_range, static_cast<unsigned>(last_fd + 1), ~0u, 0u) != 0) {
    for (int fd = last_fd + 1; fd < 1024; ++fd) close(fd);
  }
  if (!Limit(RLIMIT_NOFILE, static_cast<rlim_t>(last_fd + 1))) return Failed("RLIMIT_NOFILE");
  if (!kSanitized && !InstallFilter(limits.file_bytes > 0)) return Failed("seccomp");
  return {};
}

}  // namespace litefleet::check
