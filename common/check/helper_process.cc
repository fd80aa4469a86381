#include "common/check/helper_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <utility>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::check {
namespace {

constexpr char kProgram[] = "litefleet-check";
constexpr int kFirstFree = 40;  // above what a helper gets

}  // namespace

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

absl::StatusOr<std::unique_ptr<HelperProcess>> HelperProcess::Start(const std::string& helper, const std::vector<std::string>& arguments,
                                                                    const std::vector<int>& files) {
  if (helper.empty()) return HelperFailed(fmt::format("the program {} was not found beside this one", kProgram));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (size_t i = 0; i < files.size() || i < 3; ++i) {
    const int number = static_cast<int>(i);
    if (i < files.size() && files[i] >= 0) {
      posix_spawn_file_actions_adddup2(&actions, files[i], number);
    } else {
      posix_spawn_file_actions_addopen(&actions, number, "/dev/null", i == 0 ? O_RDONLY : O_WRONLY, 0);
    }
  }
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<std::string> words = {kProgram};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::array<char*, 1> environment{};
  pid_t pid = -1;
  const int error = posix_spawn(&pid, helper.c_str(), &actions, &attributes, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return HelperFailed(MessageOf(ErrnoError(error, "start " + helper)));
  return std::unique_ptr<HelperProcess>(new HelperProcess(pid));
}

HelperProcess::~HelperProcess() { End(); }

int HelperProcess::End() {
  if (pid_ <= 0) return -1;
  kill(pid_, SIGKILL);
  return Wait();
}

int HelperProcess::Wait() {
  if (pid_ <= 0) return -1;
  ends_.clear();
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

std::string HelperProcess::HowItEnded(int status) {
  if (status >= 0 && WIFSIGNALED(status)) return fmt::format("the helper was ended by signal {}", WTERMSIG(status));
  if (status >= 0 && WIFEXITED(status)) return fmt::format("the helper ended with code {} and no verdict", WEXITSTATUS(status));
  return "the helper ended without a verdict";
}

absl::StatusOr<io::UniqueFd> DuplicateForHelper(int fd) {
  io::UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, kFirstFree));
  if (!copy.valid()) return ErrnoError(errno, "duplicate a descriptor");
  return copy;
}

absl::StatusOr<HelperPipe> HelperPipe::FromHelper() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoError(errno, "make a pipe");
  HelperPipe pipe;
  pipe.parent = io::UniqueFd(ends[0]);
  const io::UniqueFd other(ends[1]);
  LF_ASSIGN_OR_RETURN(pipe.helper, DuplicateForHelper(other.get()));
  return pipe;
}

absl::StatusOr<HelperPipe> HelperPipe::BothWays() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return ErrnoError(errno, "make a pair of sockets");
  HelperPipe pipe;
  pipe.parent = io::UniqueFd(ends[0]);
  const io::UniqueFd other(ends[1]);
  LF_ASSIGN_OR_RETURN(pipe.helper, DuplicateForHelper(other.get()));
  return pipe;
}

}  // namespace litefleet::check
