#include "tests/integration/harness/programs.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

extern char** environ;

namespace litefleet::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Time = std::chrono::steady_clock;

constexpr milliseconds kPoll{20};

// Starts `command` with these descriptors as standard output and error, and nothing to read.
pid_t Spawn(const std::vector<std::string>& command, int out, int err, const Environment& environment) {
  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  std::vector<std::string> variables;
  for (char** at = environ; *at != nullptr; ++at) {
    if (!std::string_view(*at).starts_with("LITEFLEET_")) variables.emplace_back(*at);
  }
  for (const auto& [name, value] : environment) variables.push_back(name + "=" + value);
  std::vector<char*> pointers;
  for (std::string& variable : variables) pointers.push_back(variable.data());
  pointers.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out, 1);
  posix_spawn_file_actions_adddup2(&actions, err, 2);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, command[0].c_str(), &actions, nullptr, arguments.data(), pointers.data());
  posix_spawn_file_actions_destroy(&actions);
  EXPECT_EQ(error, 0) << "start " << command[0];
  return error == 0 ? pid : -1;
}

std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// Polls until it is true; false after `timeout`.
template <class Condition>
bool Await(milliseconds timeout, Condition condition) {
  for (const auto deadline = Time::now() + timeout; !condition(); std::this_thread::sleep_for(kPoll)) {
    if (Time::now() > deadline) return false;
  }
  return true;
}

}  // namespace

Daemon::Daemon(const std::vector<std::string>& command, const std::string& log, const Environment& environment) {
  const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  EXPECT_GE(fd, 0) << log;
  pid_ = Spawn(command, fd, fd, environment);
  close(fd);
}

Daemon::Daemon(Daemon&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
Daemon& Daemon::operator=(Daemon&& other) noexcept {
  if (this != &other) {
    Kill();
    pid_ = std::exchange(other.pid_, -1);
  }
  return *this;
}
Daemon::~Daemon() { Kill(); }

int Daemon::Wait(milliseconds timeout) {
  if (pid_ <= 0) return -1;
  int status = 0;
  const bool ended = Await(timeout, [&] { return waitpid(pid_, &status, WNOHANG) == pid_; });
  if (!ended) return -1000;
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int Daemon::Stop() {
  if (pid_ <= 0) return -1;
  kill(pid_, SIGTERM);
  const int code = Wait(seconds(15));
  if (code != -1000) return code;
  Kill();
  return -1;
}

void Daemon::Kill() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
}

Programs::Programs() {
  std::string pattern = "/tmp/litefleet-test-XXXXXX";
  directory_ = mkdtemp(pattern.data());
}

Programs::~Programs() {
  for (auto& [name, agent] : agents) agent.Kill();
  controller.Kill();
  if (testing::Test::HasFailure()) {
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      if (entry.path().extension() == ".log") std::fprintf(stderr, "==== %s\n%s\n", entry.path().c_str(), ReadText(entry.path()).c_str());
    }
  }
  std::filesystem::remove_all(directory_);
}

std::string Programs::Path(const std::string& program) {
  const char* bin = std::getenv("LITEFLEET_BIN");
  return std::string(bin != nullptr ? bin : LITEFLEET_BIN_DIR) + "/" + program;
}

bool Programs::Available() {
  for (const char* program : {"litefleet", "litefleet-agent", "litefleet-controller", "litefleet-check"}) {
    if (access(Path(program).c_str(), X_OK) != 0) return false;
  }
  return true;
}

Result Programs::Run(const std::vector<std::string>& command, seconds timeout, const Environment& environment) {
  std::array<int, 2> out{};
  std::array<int, 2> err{};
  Result result;
  if (pipe2(out.data(), O_CLOEXEC) != 0 || pipe2(err.data(), O_CLOEXEC) != 0) return result;
  const pid_t pid = Spawn(command, out[1], err[1], environment);
  close(out[1]);
  close(err[1]);
  const auto deadline = Time::now() + timeout;
  std::array<pollfd, 2> polled = {pollfd{out[0], POLLIN, 0}, pollfd{err[0], POLLIN, 0}};
  bool killed = false;
  while (polled[0].fd >= 0 || polled[1].fd >= 0) {
    if (!killed && Time::now() > deadline) {
      kill(pid, SIGKILL);
      killed = true;
    }
    poll(polled.data(), polled.size(), 100);
    for (size_t i = 0; i < polled.size(); ++i) {
      if (polled[i].fd < 0 || (polled[i].revents & (POLLIN | POLLHUP)) == 0) continue;
      std::array<char, 4096> buffer;
      const ssize_t n = read(polled[i].fd, buffer.data(), buffer.size());
      if (n > 0) {
        (i == 0 ? result.out : result.err).append(buffer.data(), static_cast<size_t>(n));
      } else {
        polled[i].fd = -1;
      }
    }
  }
  close(out[0]);
  close(err[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  if (!killed && WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  return result;
}

Result Programs::Cli(const std::vector<std::string>& arguments, seconds timeout) const {
  std::vector<std::string> command = {Path("litefleet"), "--data", data()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return Run(command, timeout);
}

std::string Programs::CliField(const std::vector<std::string>& arguments, const std::string& field) const {
  std::vector<std::string> all = {"-o", "json"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  const Result result = Cli(all);
  EXPECT_EQ(result.exit_code, 0) << testing::PrintToString(arguments) << "\n" << result.out << result.err;
  return JsonField(result.out, field);
}

void Programs::InitController() {
  const Result result = Run({Path("litefleet-controller"), "init", "--data", data(), "--host", "127.0.0.1"});
  ASSERT_EQ(result.exit_code, 0) << result.out << result.err;
}

void Programs::StartController(const Environment& environment) {
  const std::string ready = directory_ + "/ready";
  std::filesystem::remove(ready);
  controller = Daemon({Path("litefleet-controller"), "serve", "--data", data(), "--listen", address_.empty() ? "127.0.0.1:0" : address_,
                       "--ready-file", ready},
                      directory_ + "/controller.log", environment);
  ASSERT_TRUE(Await(seconds(20), [&] { return std::filesystem::exists(ready); })) << ReadText(directory_ + "/controller.log");
  address_ = ReadText(ready);
  while (!address_.empty() && address_.back() == '\n') address_.pop_back();
}

void Programs::Enroll(const std::string& device, const std::vector<std::string>& databases, const std::string& extra,
                      const Environment& environment) {
  const Result token = Cli({"token", "create"});
  ASSERT_EQ(token.exit_code, 0) << token.err;
  const std::string token_file = directory_ + "/" + device + ".token";
  std::ofstream(token_file) << token.out;
  const Result enrolled = Run(
      {Path("litefleet-agent"), "enroll", "--controller", address_, "--token-file", token_file, "--state", state(device), "--name", device},
      seconds(60), environment);
  ASSERT_EQ(enrolled.exit_code, 0) << enrolled.out << enrolled.err;
  std::ofstream config(AgentConfig(device));
  config << "state = \"" << state(device) << "\"\ncontroller = \"" << address_ << "\"\n";
  for (const std::string& name : databases) {
    config << "\n[[database]]\nname = \"" << name << "\"\npath = \"" << database(device, name) << "\"\n" << extra;
  }
}

void Programs::StartAgent(const std::string& device, const Environment& environment) {
  agents[device] =
      Daemon({Path("litefleet-agent"), "run", "--config", AgentConfig(device)}, directory_ + "/" + device + ".log", environment);
}

bool Programs::AwaitConnected(const std::string& device, bool connected) const {
  return Await(seconds(30), [&] {
    const Result result = Cli({"-o", "json", "device", "show", device});
    return result.exit_code == 0 && JsonField(result.out, "connected") == (connected ? "true" : "false");
  });
}

std::string JsonField(const std::string& json, const std::string& field) {
  size_t at = json.find("\"" + field + "\"");
  if (at == std::string::npos) return {};
  at = json.find(':', at);
  if (at == std::string::npos) return {};
  at = json.find_first_not_of(" \n\t", at + 1);
  if (at == std::string::npos) return {};
  if (json[at] == '"') return json.substr(at + 1, json.find('"', at + 1) - at - 1);
  return json.substr(at, json.find_first_of(",}] \n\t", at) - at);
}

}  // namespace litefleet::test
