// litefleet snapshot open ID [SQL]
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/receive.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

extern char** environ;

namespace litefleet::cli {
namespace {

struct OpenOptions {
  std::string snapshot;
  std::string sql;
};

// A directory for one user and one time.
class TemporaryDirectory {
 public:
  static absl::StatusOr<TemporaryDirectory> Make() {
    const char* const named = getenv("TMPDIR");
    std::string path = fmt::format("{}/litefleet-open-XXXXXX", named != nullptr && *named == '/' ? named : "/tmp");
    if (mkdtemp(path.data()) == nullptr) return ErrnoError(errno, "make a directory " + path);
    return TemporaryDirectory(path);
  }
  TemporaryDirectory(TemporaryDirectory&& other) noexcept : path_(std::exchange(other.path_, std::string())) {}
  TemporaryDirectory& operator=(TemporaryDirectory&&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  explicit TemporaryDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

std::string FindProgram(const std::string& name) {
  const char* const named = getenv("PATH");
  const std::string_view path = named != nullptr ? named : "/usr/local/bin:/usr/bin:/bin";
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find(':', at), path.size());
    if (end > at && path[at] == '/') {
      std::string file = fmt::format("{}/{}", path.substr(at, end - at), name);
      if (access(file.c_str(), X_OK) == 0) return file;
    }
    at = end + 1;
  }
  return {};
}

// Its exit code. At a terminal that is the shell's while it runs, Ctrl-C with it; what ends this program ends the shell.
absl::StatusOr<int> RunShell(Interrupts& interrupts, const std::string& program, const std::string& database, const std::string& sql,
                             bool terminal) {
  std::vector<std::string> words = {"sqlite3", "-readonly", "-safe", database};
  if (!sql.empty()) words.push_back(sql);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, defaults;
  sigemptyset(&none);
  sigemptyset(&defaults);
  for (const int number : {SIGINT, SIGTERM, SIGPIPE, SIGHUP}) sigaddset(&defaults, number);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
  if (terminal) {
    flags |= POSIX_SPAWN_SETPGROUP;
    posix_spawn_file_actions_addtcsetpgrp_np(&actions, STDIN_FILENO);
  }
  posix_spawnattr_setflags(&attributes, flags);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, program.c_str(), &actions, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return ErrnoError(error, "start " + program);
  {
    const Interrupts::Guard guard(interrupts, [pid] { kill(pid, SIGTERM); });
    // Its number stays its own until the guard has gone.
    siginfo_t ended{};
    while (waitid(P_PID, static_cast<id_t>(pid), &ended, WEXITED | WNOWAIT) < 0) {
      if (errno != EINTR) return ErrnoError(errno, "wait for " + program);
    }
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return ErrnoError(errno, "wait for " + program);
  }
  if (terminal) {
    // Who is in the background may not take the terminal, unless it does not hear of that.
    sigset_t quiet, before;
    sigemptyset(&quiet);
    sigaddset(&quiet, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &quiet, &before);
    tcsetpgrp(STDIN_FILENO, getpgrp());
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

CommandResult Open(Session& session, const OpenOptions& options) {
  // Before anything is fetched.
  const std::string program = FindProgram("sqlite3");
  if (program.empty()) {
    return Error(absl::StatusCode::kFailedPrecondition, "SQLITE3_MISSING", "the program sqlite3 is not on this machine's PATH",
                 "install it (Debian: apt install sqlite3), or take the file: litefleet snapshot download ID --output FILE --format db");
  }
  LF_ASSIGN_OR_RETURN(const TemporaryDirectory directory, TemporaryDirectory::Make());
  const std::string path = directory.path() + "/snapshot.db";
  Received received;
  absl::Status status;
  {
    LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, io::Open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
    status = ReceiveDatabase(session, options.snapshot, fd.get(), directory.path(), received);
  }
  if (received.interrupted) return kInterrupted;
  if (!status.ok()) return Annotate(status, fmt::format("open snapshot {}", options.snapshot));
  if (session.stdin_is_terminal() && options.sql.empty()) {
    session.Note(
        fmt::format("snapshot {} of {}, a copy that is removed when you leave", received.snapshot.id(), DatabaseName(received.snapshot)));
  }
  // So that the copy is removed whatever happens meanwhile.
  Interrupts::Guard guard(session.interrupts(), [] {});
  LF_ASSIGN_OR_RETURN(const int code, RunShell(session.interrupts(), program, path, options.sql, session.stdin_is_terminal()));
  if (session.interrupts().raised()) return kInterrupted;
  return code == 0 ? kDone : kFailed;
}

}  // namespace

void AddSnapshotOpen(CLI::App& snapshot, Session& session) {
  auto options = std::make_shared<OpenOptions>();
  CLI::App* open = snapshot.add_subcommand("open", "Start the sqlite3 shell, read-only, on a copy of a snapshot");
  open->add_option("ID", options->snapshot, "Id of the snapshot, or the beginning of it")->required();
  open->add_option("SQL", options->sql, "What to run instead of asking; without it standard input is read");
  open->footer(
      "The copy is checked against the root digest, lies in a directory of mode 0700 below $TMPDIR (/tmp), and is removed\n"
      "when the shell ends. The shell runs in its safe mode: the database comes from a device.\n\n"
      "Examples:\n  litefleet snapshot open 01J9ZK\n  litefleet snapshot open 01J9ZK \"select count(*) from orders\"");
  OnCall(open, session, options, &Open);
}

}  // namespace litefleet::cli
