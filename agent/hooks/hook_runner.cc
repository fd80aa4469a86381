#include "agent/hooks/hook_runner.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/io/file.h"
#include "common/io/trusted_path.h"
#include "fmt/format.h"

namespace litefleet::hooks {
namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

// How soon a cancel and an end without an end of the output are seen.
constexpr int kPollMs = 50;

struct Process {
  pid_t pid = -1;
  io::UniqueFd output;
};

absl::StatusOr<Process> Spawn(const Hook& hook) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoError(errno, "make a pipe");
  io::UniqueFd read_end(ends[0]);
  io::UniqueFd write_end(ends[1]);
  fcntl(read_end.get(), F_SETFL, O_NONBLOCK);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, write_end.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, write_end.get(), STDERR_FILENO);
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  posix_spawn_file_actions_addchdir_np(&actions, "/");
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);

  std::vector<std::string> words = {hook.program};
  words.insert(words.end(), hook.arguments.begin(), hook.arguments.end());
  std::vector<std::string> settings = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
                                       "LITEFLEET_HOOK=" + hook.name};
  for (const auto& [name, value] : hook.environment) settings.push_back(name + "=" + value);
  const auto pointers = [](std::vector<std::string>& texts) {
    std::vector<char*> list;
    for (std::string& text : texts) list.push_back(text.data());
    list.push_back(nullptr);
    return list;
  };
  const std::vector<char*> argv = pointers(words);
  const std::vector<char*> environment = pointers(settings);
  Process process;
  const int error = posix_spawn(&process.pid, hook.program.c_str(), &actions, &attributes, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    return Error(absl::StatusCode::kInternal, "HOOK_NOT_STARTED", MessageOf(ErrnoError(error, "start " + hook.program)),
                 error == ENOEXEC ? "a script begins with #! and its interpreter" : "run it by hand as the agent's user");
  }
  process.output = std::move(read_end);
  return process;
}

// Waits for one process and keeps the end of what it writes.
class Watch {
 public:
  explicit Watch(Process process) : process_(std::move(process)) {}
  ~Watch() {
    if (!reaped_) End();
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // True when it has ended; looks for at most kPollMs.
  bool Look() {
    if (Ended()) {
      Drain();
      return true;
    }
    if (process_.output.valid()) {
      pollfd poller{process_.output.get(), POLLIN, 0};
      if (poll(&poller, 1, kPollMs) > 0) Drain();
    } else {
      poll(nullptr, 0, kPollMs / 10);
    }
    return false;
  }
  // To the whole group, which exists at least until the process is reaped.
  void Signal(int number) const { kill(-process_.pid, number); }
  // Kills what is left of the group and reaps the process. Its wait status.
  int End() {
    Signal(SIGKILL);
    return Reap();
  }
  int Reap() {
    int status = 0;
    while (waitpid(process_.pid, &status, 0) < 0 && errno == EINTR) {}
    reaped_ = true;
    return status;
  }
  const std::string& output() const { return output_; }

 private:
  bool Ended() const {
    siginfo_t info{};
    return waitid(P_PID, static_cast<id_t>(process_.pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == process_.pid;
  }
  void Drain() {
    std::array<char, 4096> buffer;
    // A bound, for a program that writes without an end.
    for (int i = 0; i < 64 && process_.output.valid(); ++i) {
      const ssize_t n = read(process_.output.get(), buffer.data(), buffer.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return;  // nothing more now
      if (n == 0) process_.output.Reset(-1);
      output_.append(buffer.data(), static_cast<size_t>(std::max<ssize_t>(n, 0)));
      if (output_.size() > 2 * kMaxHookOutput) output_.erase(0, output_.size() - kMaxHookOutput);
    }
  }

  Process process_;
  std::string output_;
  bool reaped_ = false;
};

}  // namespace

std::string OutputTail(std::string_view output, size_t limit) {
  if (output.size() > limit) {
    output.remove_prefix(output.size() - limit);
    for (int i = 0; i < 3 && !output.empty() && (static_cast<unsigned char>(output.front()) & 0xc0) == 0x80; ++i) output.remove_prefix(1);
  }
  std::string text;
  while (!output.empty()) {
    const size_t length = CharacterLength(output);
    const char first = output.front();
    if (length > 1 || (length == 1 && (first == '\n' || first == '\t' || (first >= 0x20 && first != 0x7f)))) {
      text += output.substr(0, length);
    } else {
      text += '?';
    }
    output.remove_prefix(std::max<size_t>(length, 1));
  }
  return text;
}

absl::Status CheckHookProgram(const std::string& program, uid_t user) {
  const auto missing = [&](int error) {
    return WithReason(ErrnoError(error, "find " + program), error == ENOENT || error == ENOTDIR ? "HOOK_NOT_FOUND" : "HOOK_NOT_TRUSTED");
  };
  if (const absl::Status trusted = io::CheckTrustedPath(program, user); !trusted.ok()) {
    return absl::IsNotFound(trusted) ? WithReason(trusted, "HOOK_NOT_FOUND") : WithReason(trusted, "HOOK_NOT_TRUSTED", HintOf(trusted));
  }
  struct stat st {};
  if (stat(program.c_str(), &st) != 0) return missing(errno);
  if (!S_ISREG(st.st_mode) || access(program.c_str(), X_OK) != 0) {
    return Error(absl::StatusCode::kInternal, "HOOK_NOT_STARTED", program + " is not an executable file", "chmod +x it");
  }
  return absl::OkStatus();
}

HookResult ProcessHookRunner::Run(const Hook& hook, const CancelToken& cancel) {
  HookResult result;
  result.run.set_hook(hook.name);
  result.run.set_exit_code(-1);
  const SteadyClock::time_point began = SteadyClock::now();
  const auto finish = [&](absl::Status status, std::string_view output) {
    result.status = Annotate(status, fmt::format("the hook {}", hook.name));
    result.run.set_output(OutputTail(output, kMaxHookOutput));
    const auto took = std::chrono::duration_cast<milliseconds>(SteadyClock::now() - began).count();
    result.run.mutable_duration()->set_seconds(took / 1000);
    result.run.mutable_duration()->set_nanos(static_cast<int32_t>(took % 1000 * 1'000'000));
    return result;
  };
  if (const absl::Status trusted = CheckHookProgram(hook.program, geteuid()); !trusted.ok()) return finish(trusted, MessageOf(trusted));
  absl::StatusOr<Process> process = Spawn(hook);
  if (!process.ok()) return finish(process.status(), MessageOf(process.status()));

  Watch watch(*std::move(process));
  absl::Status why;
  std::optional<SteadyClock::time_point> kill_at;
  while (!watch.Look()) {
    const SteadyClock::time_point now = SteadyClock::now();
    if (kill_at) {
      if (now >= *kill_at) break;
      continue;
    }
    if (cancel.cancelled()) {
      why = Error(absl::StatusCode::kCancelled, "CANCELLED", "was cancelled");
    } else if (now - began >= hook.timeout) {
      result.run.set_timed_out(true);
      why = Error(absl::StatusCode::kDeadlineExceeded, "HOOK_TIMEOUT",
                  fmt::format("did not end within {} s", hook.timeout.count() / 1000.0), "look at what it waits for, or give it more time");
    }
    if (why.ok()) continue;
    watch.Signal(SIGTERM);
    kill_at = now + hook.grace;
  }
  const int status = kill_at ? watch.End() : watch.Reap();
  result.run.set_exit_code(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
  return finish(why, watch.output());
}

}  // namespace litefleet::hooks
