// litefleet-agent: enroll, run, status, doctor, confirm, restore-local, undo, release, version.
#include <linux/ioprio.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <string>

#include "agent/agent.h"
#include "agent/config/config.h"
#include "agent/doctor.h"
#include "agent/enroll/enroll.h"
#include "agent/local_commands.h"
#include "agent/release_command.h"
#include "agent/status_command.h"
#include "common/base/heap.h"
#include "common/base/status.h"
#include "common/io/named_file.h"
#include "common/rpc/channel.h"
#include "common/usage/explain.h"
#include "fmt/format.h"

namespace {

using litefleet::Error;

// The codes of the command's contract.
int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kInvalidArgument:
      return 2;
    case absl::StatusCode::kNotFound:
      return 4;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return 5;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return 6;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return 7;
    case absl::StatusCode::kDataLoss:
      return 8;
    default:
      return 1;
  }
}

int Fail(const absl::Status& status, int code) {
  std::string text = fmt::format("litefleet-agent: {}", litefleet::MessageOf(status));
  if (const std::string hint = litefleet::HintOf(status); !hint.empty()) text += fmt::format("\n  {}", hint);
  fmt::print(stderr, "{}\n", text);
  return code;
}

int Fail(const absl::Status& status) { return Fail(status, ExitCode(status)); }

// Threads that allocate need no arena each, and what is freed goes back: the agent stays small on small devices.
void BoundMemory() {
  litefleet::SetUpHeap({.arenas = 1, .kept = 2 << 20});
  // A connection that follows a database reads page 1 of it: no cache of 20 pages for each. Before SQLite is used.
  sqlite3_config(SQLITE_CONFIG_PAGECACHE, nullptr, 0, 0);
}

// Before any thread: they inherit it, and the main thread alone waits for these.
void BlockSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, number);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

absl::StatusOr<std::string> ReadToken(const std::string& file) {
  if (!file.empty()) {
    return litefleet::io::ReadNamedFile(
        file, {"--token-file", "the operator makes a token by `litefleet token create`: put what it prints into that file"}, 64 << 10);
  }
  if (const char* token = std::getenv("LITEFLEET_TOKEN"); token != nullptr && *token != '\0') return std::string(token);
  return Error(absl::StatusCode::kInvalidArgument, "TOKEN_MISSING", "there is no token",
               "give it by --token-file FILE or in LITEFLEET_TOKEN; the operator makes one by: litefleet token create");
}

struct Arguments {
  std::string config = "/etc/litefleet/agent.toml";
  std::string controller;
  std::string token_file;
  std::string state = litefleet::config::AgentConfig().state;
  std::string name;
  std::string output = "table";
  bool once = false;
  std::string database;
  int seconds = 10;
};

int Enroll(const Arguments& arguments) {
  const absl::StatusOr<std::string> token = ReadToken(arguments.token_file);
  if (!token.ok()) return Fail(token.status(), 2);
  litefleet::enroll::EnrollOptions options;
  options.controller = arguments.controller;
  options.token = *token;
  options.state = arguments.state;
  options.name = arguments.name;
  const auto identity = litefleet::enroll::Enroll(options);
  if (!identity.ok()) return Fail(identity.status());
  fmt::print("enrolled as {} ({})\n", identity->name, identity->device.value());
  return 0;
}

// The best-effort level of the disk's queues that the kernel derives from a nice value while no class is set (ioprio_set(2)).
int DiskLevel(int nice) { return (nice + 20) / 5; }

// A class that somebody asked for and that stands further back stays. The idle one is never set here: a reader that never gets the disk
// holds its transaction for ever.
bool SetDiskPriority(long thread, int nice) {
  const long now = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, thread);
  if (now < 0) return errno == ESRCH;  // it has ended
  const auto kind = static_cast<int>(IOPRIO_PRIO_CLASS(now));
  const auto level = static_cast<int>(now & 7);
  if (kind == IOPRIO_CLASS_IDLE || (kind == IOPRIO_CLASS_BE && level >= DiskLevel(nice))) return true;
  const auto wanted = static_cast<int>(IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, DiskLevel(nice)));
  return syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, thread, wanted) == 0 || errno == ESRCH;
}

// Of all threads, those that libraries have started already too; what they start has it from them.
void StandBack(int nice) {
  if (nice == 0) return;
  std::error_code none;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", none)) {
    const auto thread = static_cast<id_t>(std::strtoul(task.path().filename().c_str(), nullptr, 10));
    errno = 0;
    const int now = getpriority(PRIO_PROCESS, thread);
    if (errno == 0 && now < nice && setpriority(PRIO_PROCESS, thread, nice) != 0)
      spdlog::warn("the agent cannot stand back behind applications (nice {}): {}", nice, strerror(errno));
    if (!SetDiskPriority(thread, nice))
      spdlog::warn("the agent cannot stand back behind applications at the disk (best effort {}): {}", DiskLevel(nice), strerror(errno));
  }
}

int Run(const Arguments& arguments, const litefleet::config::AgentConfig& config) {
  if (const absl::Status status = litefleet::obs::SetupLog(config.log); !status.ok()) return Fail(status, 2);
  BlockSignals();
  StandBack(config.nice);
  litefleet::rpc::KeepCallbackThreads();
  litefleet::Agent::Options options;
  options.config_path = arguments.config;
  options.once = arguments.once;
  absl::StatusOr<std::unique_ptr<litefleet::Agent>> agent = litefleet::Agent::Start(options, config);
  if (!agent.ok()) return Fail(agent.status());
  const absl::Status status = (*agent)->Run();
  agent->reset();
  return status.ok() ? 0 : Fail(status);
}

}  // namespace

static int Main(int argc, char** argv) {
  umask(0077);
  signal(SIGPIPE, SIG_IGN);  // what is written to a closed socket is an error of that call
  BoundMemory();
  const litefleet::rpc::GrpcRuntime runtime;

  Arguments arguments;
  CLI::App app("Backs up this device's SQLite databases to a litefleet controller, and restores them.", "litefleet-agent");
  app.require_subcommand(1);
  app.fallthrough();

  CLI::App* enroll = app.add_subcommand("enroll", "Get this device's certificate by a token");
  enroll->add_option("--controller", arguments.controller, "HOST:PORT of the controller")->required();
  enroll->add_option("--token-file", arguments.token_file, "File that holds the token (or LITEFLEET_TOKEN)");
  enroll->add_option("--state", arguments.state, "State directory")->capture_default_str();
  enroll->add_option("--name", arguments.name, "Name of the device (default: the host's)");

  CLI::App* run = app.add_subcommand("run", "Work until stopped");
  run->add_option("--config", arguments.config, "Configuration file")->capture_default_str();
  run->add_flag("--once", arguments.once, "Do what is due, take orders, report, and end");

  CLI::App* status = app.add_subcommand("status", "What this device knows of itself");
  CLI::App* doctor = app.add_subcommand("doctor", "Look for what is wrong, and say what to do about it");
  for (CLI::App* command : {status, doctor}) {
    command->add_option("--config", arguments.config, "Configuration file")->capture_default_str();
    command->add_option("-o,--output", arguments.output, "table or json")->check(CLI::IsMember({"table", "json"}))->capture_default_str();
  }
  litefleet::LocalRestoreOptions local;
  CLI::App* confirm = app.add_subcommand("confirm", "Let an ordered restore go on where push_restore is \"local-confirm\"");
  confirm->add_option("OPERATION", local.operation, "Its id, as `litefleet-agent status` shows it")->required();
  CLI::App* restore = app.add_subcommand(
      "restore-local", "Put a downloaded snapshot in the place of a database, or its files in theirs; the agent has to be stopped");
  restore->add_option("DATABASE", local.database, "Its name in the configuration")->required();
  restore->add_option("--from", local.from, "File of `litefleet snapshot download`: a database, SQL text, or of [[files]] the archive")
      ->required();
  restore->add_option("--mode", local.mode, "live: into the file that applications have open; replace: the application is stopped")
      ->check(CLI::IsMember({"live", "replace"}));
  restore->add_option("--root", local.root, "Only if the file has this root digest (`litefleet snapshot show`)");
  restore->add_flag("--ignore-check", local.ignore_check, "Go on where SQLite's checks find damage");
  CLI::App* undo = app.add_subcommand("undo", "Put the state of before the last restore back; the agent has to be stopped");
  undo->add_option("DATABASE", local.database, "Its name in the configuration")->required();
  undo->add_flag("--drop", local.drop, "Do not undo: remove the state that is kept, to have its space back");
  for (CLI::App* command : {confirm, restore, undo}) {
    command->add_option("--config", arguments.config, "Configuration file")->capture_default_str();
    command->add_flag("-y,--yes", local.yes, "Do not ask");
    if (command != confirm) command->add_flag("--plan", local.plan, "Show what would happen; do nothing");
  }
  CLI::App* release = app.add_subcommand("release", "Let go of a database that is captured continuously, for a moment");
  release->add_option("DATABASE", arguments.database, "Its name in the configuration")->required();
  release->add_option("--seconds", arguments.seconds, "How long")->check(CLI::Range(1, 3600))->capture_default_str();
  release->add_option("--config", arguments.config, "Configuration file")->capture_default_str();
  release->footer(
      "Returns once nothing of the agent is attached. It follows the database again afterwards, and compares its pages\nwith the last "
      "snapshot: "
      "no state is lost, but those in between are not to be had.");
  CLI::App* version = app.add_subcommand("version", "Print the version");
  app.set_version_flag("--version", "litefleet-agent " LITEFLEET_VERSION);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return error.get_exit_code() == 0 ? app.exit(error) : Fail(litefleet::usage::Explain(app, error), 2);
  }

  if (version->parsed()) {
    fmt::print("litefleet-agent {}\n", LITEFLEET_VERSION);
    return 0;
  }
  if (enroll->parsed()) return Enroll(arguments);

  const absl::StatusOr<litefleet::config::AgentConfig> config = litefleet::config::ReadConfig(arguments.config);
  const bool json = arguments.output == "json";
  if (doctor->parsed()) {
    const int code = litefleet::RunDoctor(arguments.config, config, json, std::cout);
    return config.ok() ? code : 2;
  }
  if (!config.ok()) return Fail(config.status(), 2);
  if (status->parsed()) return litefleet::PrintStatus(*config, json, std::cout);
  if (confirm->parsed() || restore->parsed() || undo->parsed()) {
    local.config_path = arguments.config;
    const absl::Status done = confirm->parsed()   ? litefleet::Confirm(*config, local)
                              : restore->parsed() ? litefleet::RestoreLocal(*config, local)
                                                  : litefleet::UndoLocal(*config, local);
    if (absl::IsCancelled(done)) return Fail(done, litefleet::ReasonOf(done) == "NOT_CONFIRMED" ? 1 : 130);
    return done.ok() ? 0 : Fail(done);
  }
  if (release->parsed()) {
    const absl::Status released = litefleet::Release(*config, arguments.database, std::chrono::seconds(arguments.seconds));
    return released.ok() ? 0 : Fail(released);
  }
  return Run(arguments, *config);
}

int main(int argc, char** argv) { litefleet::rpc::EndProcess(Main(argc, argv)); }
