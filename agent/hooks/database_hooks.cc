#include "agent/hooks/database_hooks.h"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <thread>
#include <utility>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::hooks {
namespace {

using Code = absl::StatusCode;

constexpr std::chrono::milliseconds kRelayLook{50};

std::string RealPath(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(realpath(path.c_str(), nullptr), std::free);
  return real == nullptr ? std::string() : std::string(real.get());
}

// Passes the end of the program on, and nothing else.
class InterruptRelay {
 public:
  explicit InterruptRelay(const CancelToken& from)
      : thread_([this, &from] {
          while (!done_.load() && !from.interrupted()) std::this_thread::sleep_for(kRelayLook);
          if (!done_.load()) to_.Interrupt();
        }) {}
  ~InterruptRelay() {
    done_.store(true);
    thread_.join();
  }
  const CancelToken& token() const { return to_; }

 private:
  CancelToken to_;
  std::atomic<bool> done_{false};
  std::thread thread_;
};

}  // namespace

absl::Status CheckInside(const std::string& directory, const std::string& program) {
  const std::string real_directory = RealPath(directory);
  const std::string real_program = RealPath(program);
  if (real_directory.empty() || real_program.empty()) {
    return Error(Code::kNotFound, "HOOK_NOT_FOUND", fmt::format("there is no {}", real_directory.empty() ? directory : program),
                 "look at [hooks] directory and at the hooks of the database in agent.toml");
  }
  if (real_program.starts_with(real_directory + "/")) return absl::OkStatus();
  return Error(Code::kPermissionDenied, "HOOK_NOT_TRUSTED",
               fmt::format("{} is {}, which is not below {}", program, real_program, real_directory),
               "put the program itself into the directory of the hooks");
}

DatabaseHooks::DatabaseHooks(HookRunner& runner, HookPrograms programs, HookFacts facts)
    : runner_(runner),
      programs_(std::move(programs)),
      facts_(std::move(facts)),
      stage_(facts_.kind == "backup" ? "backup" : "restore"),
      before_(stage_ == "backup" ? programs_.before_backup : programs_.before_restore),
      after_(stage_ == "backup" ? programs_.after_backup : programs_.after_restore) {}

std::vector<std::string> DatabaseHooks::Describe() const {
  std::vector<std::string> described;
  if (!before_.empty()) described.push_back(fmt::format("before-{}: {}", stage_, before_));
  if (!after_.empty()) described.push_back(fmt::format("after-{}: {}", stage_, after_));
  return described;
}

absl::Status DatabaseHooks::Before(const CancelToken& cancel) { return Run("before-" + stage_, before_, {}, cancel); }

absl::Status DatabaseHooks::After(std::string_view state, std::string_view snapshot, const CancelToken& cancel) {
  if (after_.empty()) return absl::OkStatus();
  Hook hook;
  hook.environment = {{"LITEFLEET_STATE", std::string(state)}, {"LITEFLEET_SNAPSHOT", std::string(snapshot)}};
  const InterruptRelay relay(cancel);
  return Run("after-" + stage_, after_, std::move(hook), relay.token());
}

absl::Status DatabaseHooks::Run(const std::string& name, const std::string& program, Hook hook, const CancelToken& cancel) {
  if (program.empty()) return absl::OkStatus();
  HookResult result;
  if (const absl::Status inside = CheckInside(programs_.directory, program); !inside.ok()) {
    result.status = inside;
    result.run.set_hook(name);
    result.run.set_exit_code(-1);
    result.run.set_output(MessageOf(inside));
  } else {
    hook.name = name;
    hook.program = program;
    hook.timeout = programs_.timeout;
    hook.environment.emplace_back("LITEFLEET_OPERATION", facts_.operation_id);
    hook.environment.emplace_back("LITEFLEET_DATABASE", facts_.database);
    hook.environment.emplace_back("LITEFLEET_PATH", facts_.path);
    hook.environment.emplace_back("LITEFLEET_KIND", facts_.kind);
    result = runner_.Run(hook, cancel);
  }
  runs_.push_back(result.run);
  if (result.succeeded()) return absl::OkStatus();
  if (absl::IsCancelled(result.status)) return result.status;
  std::string how = result.status.ok() ? fmt::format("ended with exit code {}", result.run.exit_code()) : MessageOf(result.status);
  if (result.status.ok() && !result.run.output().empty()) how += ": " + result.run.output();
  const std::string hint = HintOf(result.status);
  return Error(Code::kFailedPrecondition, "HOOK_FAILED", fmt::format("the hook {} ({}) of {} {}", name, program, facts_.database, how),
               hint.empty() ? "look at the hook on the device; `litefleet operation show` has what it wrote" : hint);
}

}  // namespace litefleet::hooks
