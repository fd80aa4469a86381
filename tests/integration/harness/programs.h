// Runs the real programs: a controller, agents and the operator's commands, in a temporary directory, on ports that the kernel gives.
//
// Thread safety: none. Every wait has a deadline; what still runs at the end is killed.
#ifndef LITEFLEET_TESTS_INTEGRATION_HARNESS_PROGRAMS_H_
#define LITEFLEET_TESTS_INTEGRATION_HARNESS_PROGRAMS_H_

#include <sys/types.h>

#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace litefleet::test {

struct Result {
  int exit_code = -1;  // -1: killed after the timeout
  std::string out;
  std::string err;
};

using Environment = std::map<std::string, std::string>;

// A program that runs until it is told to stop. Its standard error goes to `log`.
class Daemon {
 public:
  Daemon() = default;
  Daemon(const std::vector<std::string>& command, const std::string& log, const Environment& environment = {});
  Daemon(Daemon&& other) noexcept;
  Daemon& operator=(Daemon&& other) noexcept;
  ~Daemon();

  bool running() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }
  // SIGTERM; its exit code, or -1 when it had to be killed after 15 s.
  int Stop();
  // SIGKILL.
  void Kill();
  // As waited for: exit code, or -signal; -1000 when it still runs after `timeout`.
  int Wait(std::chrono::milliseconds timeout);

 private:
  pid_t pid_ = -1;
};

class Programs {
 public:
  // Makes the temporary directory.
  Programs();
  ~Programs();
  Programs(const Programs&) = delete;
  Programs& operator=(const Programs&) = delete;

  // Whether all programs are built.
  static bool Available();
  static std::string Path(const std::string& program);

  const std::string& directory() const { return directory_; }
  std::string state(const std::string& device) const { return directory_ + "/" + device + "-state"; }
  // HOST:PORT of the controller, once it has served.
  const std::string& address() const { return address_; }
  std::string data() const { return directory_ + "/controller"; }
  std::string database(const std::string& device, const std::string& name) const { return directory_ + "/" + device + "-" + name + ".db"; }

  static Result Run(const std::vector<std::string>& command, std::chrono::seconds timeout = std::chrono::seconds(60),
                    const Environment& environment = {});
  // `litefleet --data DATA ARGUMENTS...`
  Result Cli(const std::vector<std::string>& arguments, std::chrono::seconds timeout = std::chrono::seconds(60)) const;
  // As Cli, with -o json: the value of the first field of that name, without quotes; empty and a test failure where the command failed.
  std::string CliField(const std::vector<std::string>& arguments, const std::string& field) const;

  void InitController();
  // Waits until it serves. The same port as before, after the first time.
  void StartController(const Environment& environment = {});
  // Configures one database for each name; `extra` is put behind each database's lines.
  void Enroll(const std::string& device, const std::vector<std::string>& databases, const std::string& extra = {},
              const Environment& environment = {});
  void StartAgent(const std::string& device, const Environment& environment = {});
  // Until the controller says that the device is connected or not.
  bool AwaitConnected(const std::string& device, bool connected) const;

  Daemon controller;
  std::map<std::string, Daemon> agents;

 private:
  std::string AgentConfig(const std::string& device) const { return directory_ + "/" + device + ".toml"; }

  std::string directory_;
  std::string address_;  // of the controller, once it has served
};

// The value of the first `"field": value` in JSON text; strings without quotes and escapes.
std::string JsonField(const std::string& json, const std::string& field);

}  // namespace litefleet::test

#endif  // LITEFLEET_TESTS_INTEGRATION_HARNESS_PROGRAMS_H_
