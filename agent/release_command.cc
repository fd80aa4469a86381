#include "agent/release_command.h"

#include <thread>

#include "agent/state/state_directory.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet {
namespace {

constexpr std::chrono::seconds kWait{40};  // an upload that runs is given half a minute to end

}  // namespace

absl::Status Release(const config::AgentConfig& config, const std::string& database, std::chrono::seconds length) {
  const config::DatabaseConfig* const found = config.Find(database);
  if (found == nullptr) {
    return Error(absl::StatusCode::kNotFound, "DATABASE_UNKNOWN", fmt::format("the configuration names no database \"{}\"", database),
                 "`litefleet-agent status` lists them");
  }
  if (found->method != "continuous") {
    return Error(absl::StatusCode::kFailedPrecondition, "NOT_FOLLOWED",
                 fmt::format("\"{}\" is not captured continuously: the agent is attached only while it backs it up", database));
  }
  LF_ASSIGN_OR_RETURN(const state::StateDirectory state, state::StateDirectory::Open(config.state));
  // Who does not run holds nothing.
  if (state.Lock().ok()) return absl::OkStatus();
  const std::string file = state.ReleaseFile(database);
  LF_RETURN_IF_ERROR(io::WriteFileAtomic(file, fmt::format("{}", length.count()), 0644));  // the agent may be somebody else
  const auto deadline = std::chrono::steady_clock::now() + kWait;
  while (std::chrono::steady_clock::now() < deadline) {
    const absl::StatusOr<std::string> answer = io::ReadFile(file, 64);
    if (answer.ok() && answer->starts_with("released")) return absl::OkStatus();
    // It was released, and the time is over already.
    if (absl::IsNotFound(answer.status())) return absl::OkStatus();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  io::RemoveFile(file).IgnoreError();
  return Error(absl::StatusCode::kDeadlineExceeded, "NOT_RELEASED",
               fmt::format("the agent did not let go of \"{}\" within {} s", database, kWait.count()), "look at its log");
}

}  // namespace litefleet
