// Runs a program that the device's own configuration names, before, after or while an operation: bounded in time, recorded.
//
// Not for a program whose name came from the controller: what runs here runs as the agent. No shell takes part; the program and every
// directory above it must belong to root or to the agent's user, and nobody else may be able to write to them, so that what was configured
// is what runs.
//
// The program gets a process group of its own, /dev/null as standard input, "/" as its directory, default signals, no descriptor of the
// agent's, and an environment of PATH, LANG, LITEFLEET_HOOK (the hook's name) and what the caller adds; nothing of the agent's own
// environment. It keeps the agent's place in the queues of processor and disk ([limits] nice). Standard output and error are kept together,
// the end of them at most. When its time is over, or on a cancel, its group gets SIGTERM, and SIGKILL after the grace. A process that it
// leaves behind at its own end goes on, without somebody who reads what it writes.
//
// Thread safety: Run blocks, and may be called from any thread. Source: posix_spawn(3), setpgid(2), waitid(2).
//
//   HookResult result = runner.Run({"before-backup", "/etc/app/quiesce", {}, {{"LITEFLEET_DATABASE", "orders"}}, seconds(30)}, cancel);
#ifndef LITEFLEET_AGENT_HOOKS_HOOK_RUNNER_H_
#define LITEFLEET_AGENT_HOOKS_HOOK_RUNNER_H_

#include <sys/types.h>

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/base/cancel_token.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::hooks {

inline constexpr size_t kMaxHookOutput = 4096;

struct Hook {
  std::string name;                    // for people and records: "before-backup", "pause"
  std::string program;                 // absolute
  std::vector<std::string> arguments;  // without the program itself
  // Names are the caller's own (LITEFLEET_...); values hold no NUL.
  std::vector<std::pair<std::string, std::string>> environment;
  std::chrono::milliseconds timeout{60000};
  std::chrono::milliseconds grace{5000};  // between SIGTERM and SIGKILL
};

struct HookResult {
  // OK when the program came to an end by itself, whatever its exit code. kNotFound HOOK_NOT_FOUND; kPermissionDenied HOOK_NOT_TRUSTED;
  // kInternal HOOK_NOT_STARTED; kDeadlineExceeded HOOK_TIMEOUT; kCancelled CANCELLED.
  absl::Status status;
  // Complete in every case: exit code -1 and the reason as its output where it could not be started.
  v1::HookRun run;
  bool succeeded() const { return status.ok() && run.exit_code() == 0; }
};

class HookRunner {
 public:
  virtual ~HookRunner() = default;
  // Ends within timeout + grace and a moment.
  virtual HookResult Run(const Hook& hook, const CancelToken& cancel) = 0;
};

class ProcessHookRunner final : public HookRunner {
 public:
  HookResult Run(const Hook& hook, const CancelToken& cancel) override;
};

// OK where `program` is an executable regular file that root or `user` alone can replace, seen through all directories and symbolic links
// on the way. Errors: as HookResult.status.
absl::Status CheckHookProgram(const std::string& program, uid_t user);

// The last `limit` bytes of `output` as text for people: whole characters, others than printable ones, newlines and tabs as '?'.
std::string OutputTail(std::string_view output, size_t limit);

}  // namespace litefleet::hooks

#endif  // LITEFLEET_AGENT_HOOKS_HOOK_RUNNER_H_
