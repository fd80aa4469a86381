#include "common/check/checker.h"

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
#include <charconv>
#include <climits>
#include <string_view>

#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::check {
namespace {

constexpr char kProgram[] = "litefleet-check";
constexpr int kDatabaseFd = 3;
constexpr size_t kMaxLine = 1024;
constexpr size_t kMaxMessages = 64;

std::string FindHelper() {
  std::array<char, PATH_MAX> buffer{};
  const ssize_t n = readlink("/proc/self/exe", buffer.data(), buffer.size() - 1);
  if (n <= 0) return {};
  const std::string folder = io::DirectoryOf(std::string_view(buffer.data(), static_cast<size_t>(n)));
  for (const char* place : {"", "../libexec/litefleet/", "../bin/"}) {
    std::string path = fmt::format("{}/{}{}", folder, place, kProgram);
    if (access(path.c_str(), X_OK) == 0) return path;
  }
  return {};
}

absl::Status HelperFailed(std::string_view why) {
  return Error(absl::StatusCode::kInternal, "CHECK_HELPER_FAILED",
               fmt::format("the check of the database could not be carried out: {}", why),
               "look at the installation of litefleet-check beside the program, and at the memory of the machine");
}

// The running helper: ends it when it goes.
class Child {
 public:
  // `answers`: where its answers are read; closed before it is waited for, so that it ends at its next word even where we may not kill it.
  Child(pid_t pid, io::UniqueFd& answers) : pid_(pid), answers_(answers) {}
  ~Child() { End(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Kills it if it still runs. The wait status, or -1.
  int End() {
    if (pid_ <= 0) return -1;
    kill(pid_, SIGKILL);  // root without CAP_KILL may not: the helper is nobody's
    return Wait();
  }
  int Wait() {
    if (pid_ <= 0) return -1;
    answers_.Reset(-1);
    int status = -1;
    while (waitpid(pid_, &status, 0) < 0) {
      if (errno != EINTR) {
        status = -1;
        break;
      }
    }
    pid_ = -1;
    return status;
  }

 private:
  pid_t pid_;
  io::UniqueFd& answers_;
};

absl::StatusOr<pid_t> Spawn(const std::string& helper, int database, int out, const Limits& limits, std::chrono::seconds time) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, database, kDatabaseFd);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::array<std::string, 5> words = {kProgram, std::to_string(limits.heap_bytes), std::to_string(limits.length_bytes),
                                      std::to_string(time.count()), std::to_string(limits.max_messages)};
  std::array<char*, 6> argv{};
  for (size_t i = 0; i < words.size(); ++i) argv[i] = words[i].data();
  std::array<char*, 1> environment{};
  pid_t pid = -1;
  const int error = posix_spawn(&pid, helper.c_str(), &actions, &attributes, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return ErrnoError(error, "start " + helper);
  return pid;
}

// What the helper has said, put together from whatever pieces arrive.
class Answer {
 public:
  explicit Answer(const CheckRequest& request) : request_(request) {}

  // False: nonsense.
  bool Take(std::string_view piece) {
    for (const char c : piece) {
      if (c != '\n') {
        if (line_.size() >= kMaxLine) return false;
        line_ += c;
        continue;
      }
      if (!TakeLine()) return false;
      line_.clear();
    }
    return true;
  }
  bool has_verdict() const { return has_verdict_; }
  Verdict& verdict() { return verdict_; }

 private:
  bool TakeLine() {
    const std::string_view line = line_;
    const size_t blank = line.find(' ');
    if (has_verdict_ || blank == std::string_view::npos) return false;
    const std::string_view kind = line.substr(0, blank);
    const std::string_view rest = line.substr(blank + 1);
    if (kind == "progress") {
      int64_t bytes = 0;
      const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), bytes);
      if (error != std::errc() || bytes < 0) return false;
      if (request_.progress) request_.progress(bytes);
      return true;
    }
    if (kind == "message") {
      if (verdict_.messages.size() >= kMaxMessages) return false;
      verdict_.messages.emplace_back(rest);
      return true;
    }
    if (kind != "verdict") return false;
    has_verdict_ = true;
    if (rest == "ok")
      verdict_.state = State::kOk;
    else if (rest == "damaged")
      verdict_.state = State::kDamaged;
    else if (rest == "cannot_tell")
      verdict_.state = State::kCannotTell;
    else if (rest == "failed")
      verdict_.state = State::kFailed;
    else
      return false;
    return true;
  }

  const CheckRequest& request_;
  std::string line_;
  bool has_verdict_ = false;
  Verdict verdict_;
};

std::string HowItEnded(int status) {
  if (status >= 0 && WIFSIGNALED(status)) return fmt::format("the helper was ended by signal {}", WTERMSIG(status));
  if (status >= 0 && WIFEXITED(status)) return fmt::format("the helper ended with code {} and no verdict", WEXITSTATUS(status));
  return "the helper ended without a verdict";
}

}  // namespace

std::string CheckResult::Text() const {
  std::string text;
  for (const std::string& message : verdict.messages) text += (text.empty() ? "" : "; ") + message;
  return text;
}

Checker::Checker(Options options) : options_(std::move(options)), helper_(options_.helper.empty() ? FindHelper() : options_.helper) {}

std::chrono::seconds Checker::TimeFor(int64_t bytes) { return std::chrono::seconds(300 + bytes / 5'000'000); }

CheckResult Checker::Check(int fd, const CheckRequest& request) const {
  CheckResult result;
  if (helper_.empty()) {
    result.status = HelperFailed(fmt::format("the program {} was not found beside this one", kProgram));
    return result;
  }
  struct stat st {};
  if (fstat(fd, &st) != 0) {
    result.status = ErrnoError(errno, "look at the database to check");
    return result;
  }
  // The helper's own limit first, so that it can still say so.
  const std::chrono::seconds time = std::max(options_.limits.time, TimeFor(st.st_size));
  const auto deadline = std::chrono::steady_clock::now() + time + std::chrono::seconds(5);

  // Away from the numbers that the helper gets, so that one dup2 does not overwrite the source of the next.
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    result.status = ErrnoError(errno, "make a pipe");
    return result;
  }
  io::UniqueFd read_end(ends[0]);
  io::UniqueFd write_end(ends[1]);
  io::UniqueFd out(fcntl(write_end.get(), F_DUPFD_CLOEXEC, 10));
  io::UniqueFd database(fcntl(fd, F_DUPFD_CLOEXEC, 10));
  if (!out.valid() || !database.valid()) {
    result.status = ErrnoError(errno, "duplicate a descriptor");
    return result;
  }
  const auto pid = Spawn(helper_, database.get(), out.get(), options_.limits, time);
  write_end.Reset(-1);
  out.Reset(-1);
  database.Reset(-1);
  if (!pid.ok()) {
    result.status = HelperFailed(MessageOf(pid.status()));
    return result;
  }
  Child child(*pid, read_end);
  Answer answer(request);
  std::array<char, 4096> buffer;
  for (;;) {
    if (request.cancelled && request.cancelled()) {
      result.status = Error(absl::StatusCode::kCancelled, "CANCELLED", "the check was cancelled");
      return result;
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      result.status =
          Error(absl::StatusCode::kDeadlineExceeded, "CHECK_TIMEOUT", fmt::format("the check took longer than {} s", time.count()));
      return result;
    }
    pollfd poller{read_end.get(), POLLIN, 0};
    const int ready = poll(&poller, 1, 50);
    if (ready <= 0) continue;
    const ssize_t n = read(read_end.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      result.status = ErrnoError(errno, "read the answer of the check");
      return result;
    }
    if (n == 0) break;
    if (!answer.Take(std::string_view(buffer.data(), static_cast<size_t>(n)))) {
      result.status = HelperFailed("the helper answered nonsense");
      return result;
    }
  }
  const int status = answer.has_verdict() ? child.End() : child.Wait();
  if (!answer.has_verdict()) {
    result.status = HelperFailed(HowItEnded(status));
    return result;
  }
  result.verdict = std::move(answer.verdict());
  return result;
}

}  // namespace litefleet::check
