// What somebody on the device does with its databases and files, without a controller: `litefleet-agent restore-local`, `undo`, `confirm`.
//
// Restores and undos take the agent's own lock, since they share its state: the agent has to be stopped. They are reported to the
// controller when it runs again; the database stays on its timeline, since timelines are the controller's to give. An interrupted one is
// finished or rolled back by the next start of the agent, or by the same command. Thread safety: one call a process.
#ifndef LITEFLEET_AGENT_LOCAL_COMMANDS_H_
#define LITEFLEET_AGENT_LOCAL_COMMANDS_H_

#include <string>

#include "absl/status/status.h"
#include "agent/config/config.h"
#include "agent/hooks/database_hooks.h"

namespace litefleet {

// What is configured, as the hooks take it.
hooks::HookPrograms ProgramsOf(const config::AgentConfig& config, const config::DatabaseConfig& database);

struct LocalRestoreOptions {
  std::string database;
  std::string from;       // restore-local: a file
  std::string root;       // restore-local: hexadecimal; empty: whatever the file has
  std::string mode;       // restore-local: "live", "replace", empty
  std::string operation;  // confirm
  std::string config_path;
  bool ignore_check = false;
  bool drop = false;  // undo: what is kept goes
  bool plan = false;
  bool yes = false;
};

// Errors: those of restores; kFailedPrecondition ALREADY_RUNNING, kInvalidArgument NEEDS_YES, kCancelled NOT_CONFIRMED.
absl::Status RestoreLocal(const config::AgentConfig& config, const LocalRestoreOptions& options);
absl::Status UndoLocal(const config::AgentConfig& config, const LocalRestoreOptions& options);
// kNotFound OPERATION_NOT_FOUND; kFailedPrecondition NOTHING_TO_CONFIRM where its database asks for none.
absl::Status Confirm(const config::AgentConfig& config, const LocalRestoreOptions& options);

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_LOCAL_COMMANDS_H_
