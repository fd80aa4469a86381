// The device's own commands around the backups and restores of one database.
//
// Which programs they are says agent.toml alone; the controller neither names nor sees their paths. Each lies in the one directory that
// agent.toml names for hooks, seen through symbolic links, and is as HookRunner demands. They are told what is going on by their
// environment:
//
//   LITEFLEET_OPERATION  id             LITEFLEET_DATABASE  configured name       LITEFLEET_PATH  of the database
//   LITEFLEET_KIND       backup, restore, undo
//   after_* only: LITEFLEET_STATE  succeeded, failed, cancelled       LITEFLEET_SNAPSHOT  id, or empty
//
// What runs before ends the operation where it fails (HOOK_FAILED). What runs after runs whenever what runs before was begun, however the
// operation ended: what was stopped has to be started again. After a crash both may run once more.
//
// Thread safety: none. Ownership: borrows the runner.
#ifndef LITEFLEET_AGENT_HOOKS_DATABASE_HOOKS_H_
#define LITEFLEET_AGENT_HOOKS_DATABASE_HOOKS_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "agent/hooks/hook_runner.h"
#include "common/base/cancel_token.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::hooks {

// Absolute paths; empty: none.
struct HookPrograms {
  std::string directory;
  std::string before_backup;
  std::string after_backup;
  std::string before_restore;
  std::string after_restore;
  std::chrono::milliseconds timeout{60'000};
  friend bool operator==(const HookPrograms&, const HookPrograms&) = default;
};

struct HookFacts {
  std::string operation_id;
  std::string database;
  std::string path;
  std::string kind;  // "backup", "restore", "undo"
};

class DatabaseHooks {
 public:
  // `kind` decides between the hooks of backups and those of restores.
  DatabaseHooks(HookRunner& runner, HookPrograms programs, HookFacts facts);

  // "before-restore: /etc/litefleet/hooks/stop", for plans; programs that are not configured are left out.
  std::vector<std::string> Describe() const;
  bool none() const { return before_.empty() && after_.empty(); }

  // OK without one. kFailedPrecondition HOOK_FAILED with how it ended and the end of what it wrote; kCancelled CANCELLED.
  absl::Status Before(const CancelToken& cancel);
  // The same; only the end of the program interrupts it (kCancelled), not a cancel of the operation.
  absl::Status After(std::string_view state, std::string_view snapshot, const CancelToken& cancel);

  // Those that ran, in order.
  const std::vector<v1::HookRun>& runs() const { return runs_; }

 private:
  absl::Status Run(const std::string& name, const std::string& program, Hook hook, const CancelToken& cancel);

  HookRunner& runner_;
  const HookPrograms programs_;
  const HookFacts facts_;
  const std::string stage_;  // "backup", "restore"
  const std::string before_;
  const std::string after_;
  std::vector<v1::HookRun> runs_;
};

// The commands for an operation as they are configured now; null: none.
using HookSource = std::function<std::unique_ptr<DatabaseHooks>(const HookFacts&)>;

// OK where `program` lies below `directory`, both seen through symbolic links. kPermissionDenied HOOK_NOT_TRUSTED, kNotFound
// HOOK_NOT_FOUND.
absl::Status CheckInside(const std::string& directory, const std::string& program);

}  // namespace litefleet::hooks

#endif  // LITEFLEET_AGENT_HOOKS_DATABASE_HOOKS_H_
