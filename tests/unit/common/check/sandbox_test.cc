// What a process in the sandbox may not do any more. Each question is asked in a process of its own, which answers by its exit code.
#include "common/check/sandbox.h"

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "common/base/sanitizer.h"

namespace litefleet::check {
namespace {

constexpr int kNotEntered = 100;

// The exit code of `ask` in a child that has entered the sandbox with descriptors 0 to 2.
template <class Ask>
int InSandbox(Ask ask, const SandboxLimits& limits = {}) {
  const pid_t child = fork();
  if (child == 0) {
    const std::string failed = EnterSandbox(limits, STDERR_FILENO);
    if (!failed.empty()) _exit(kNotEntered);
    _exit(ask());
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "it was ended by signal " << WTERMSIG(status);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// The errno of a system call that should be refused; 0 when it was not.
int Refusal(long result) { return result < 0 ? errno : 0; }

// From /proc, opened before: in the sandbox nothing can be.
template <class Look>
std::string StatusLine(const char* name, Look look) {
  int pipes[2];
  EXPECT_EQ(pipe(pipes), 0);
  int ready[2];
  EXPECT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(pipes[0], STDIN_FILENO);
    dup2(ready[1], STDOUT_FILENO);
    const std::string failed = EnterSandbox({}, STDERR_FILENO);
    char byte = failed.empty() ? 'y' : 'n';
    if (write(STDOUT_FILENO, &byte, 1) != 1) _exit(1);
    const ssize_t n = read(STDIN_FILENO, &byte, 1);  // until the parent has looked
    _exit(n == 0 ? 0 : 1);
  }
  close(pipes[0]);
  close(ready[1]);
  char entered = 0;
  EXPECT_EQ(read(ready[0], &entered, 1), 1);
  EXPECT_EQ(entered, 'y');
  const std::string line = look(child, name);
  close(pipes[1]);
  close(ready[0]);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  return line;
}

std::string FromProc(pid_t process, const char* name) {
  std::string found = "no such line";
  FILE* file = fopen(("/proc/" + std::to_string(process) + "/status").c_str(), "re");
  if (file == nullptr) return "no /proc";
  char line[256];
  const std::string wanted = std::string(name) + ":\t";
  while (fgets(line, sizeof line, file) != nullptr) {
    if (std::string(line).starts_with(wanted)) found = std::string(line).substr(wanted.size());
  }
  fclose(file);
  while (!found.empty() && (found.back() == '\n' || found.back() == ' ' || found.back() == '\t')) found.pop_back();
  return found;
}

TEST(SandboxTest, RootBecomesNobodyForGood) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  EXPECT_EQ(StatusLine("Uid", FromProc), "65534\t65534\t65534\t65534");
  EXPECT_EQ(StatusLine("Gid", FromProc), "65534\t65534\t65534\t65534");
  EXPECT_EQ(StatusLine("Groups", FromProc), "");
  EXPECT_EQ(StatusLine("CapEff", FromProc), "0000000000000000");
  EXPECT_EQ(StatusLine("CapPrm", FromProc), "0000000000000000");
}

TEST(SandboxTest, NoNewPrivilegesAndAFilterHold) {
  EXPECT_EQ(StatusLine("NoNewPrivs", FromProc), "1");
  if (!kSanitized) {
    EXPECT_EQ(StatusLine("Seccomp", FromProc), "2");
  }
}

TEST(SandboxTest, NothingIsConnectedOpenedStartedOrSignalled) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's runtime needs more calls than the filter allows";
  ASSERT_EQ(InSandbox([] { return 0; }), 0) << "100: the sandbox cannot be entered here";
  EXPECT_EQ(InSandbox([] { return Refusal(socket(AF_INET, SOCK_STREAM, 0)); }), EPERM);
  EXPECT_EQ(InSandbox([] { return Refusal(socket(AF_UNIX, SOCK_DGRAM, 0)); }), EPERM);
  EXPECT_EQ(InSandbox([] { return Refusal(syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY)); }), EPERM);
  EXPECT_EQ(InSandbox([] { return Refusal(syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY)); }), EPERM);
#ifdef SYS_open
  EXPECT_EQ(InSandbox([] { return Refusal(syscall(SYS_open, "/etc/passwd", O_RDONLY)); }), EPERM);
#endif
  EXPECT_EQ(InSandbox([] { return Refusal(fork()); }), EPERM);
  EXPECT_EQ(InSandbox([] { return Refusal(execl("/bin/true", "true", nullptr)); }), EPERM);
  EXPECT_EQ(InSandbox([] { return Refusal(kill(getppid(), 0)); }), EPERM);
  EXPECT_EQ(InSandbox([] { return Refusal(setuid(0)); }), EPERM);
  EXPECT_EQ(InSandbox([] { return Refusal(dup(STDIN_FILENO)); }), EPERM);
}

TEST(SandboxTest, OtherDescriptorsAreClosedAndFilesOfItsOwnAreBounded) {
  const int other = open("/dev/null", O_WRONLY | O_CLOEXEC);
  ASSERT_GT(other, STDERR_FILENO);
  EXPECT_EQ(InSandbox([&] { return Refusal(write(other, "x", 1)); }), EBADF);
  close(other);
  if (kSanitized) return;
  // Who writes to pipes alone has no call for a place in a file.
  EXPECT_EQ(InSandbox([] { return Refusal(pwrite(STDOUT_FILENO, "x", 1, 0)); }), EPERM);
}

}  // namespace
}  // namespace litefleet::check
