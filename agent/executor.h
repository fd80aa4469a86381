// Carries operations out: backups over agent/upload, restores over agent/restore, and keeps what the device remembers of a database.
// Thread safety: as OperationExecutor.
#ifndef LITEFLEET_AGENT_EXECUTOR_H_
#define LITEFLEET_AGENT_EXECUTOR_H_

#include <functional>
#include <memory>
#include <set>
#include <string>

#include "agent/capture/file_facts.h"
#include "agent/config/config.h"
#include "agent/control/operation_queue.h"
#include "agent/heal/healer.h"
#include "agent/restore/local_restorer.h"
#include "agent/state/state_directory.h"
#include "agent/upload/backup.h"
#include "agent/upload/rate_limit.h"
#include "agent/upload/transport.h"
#include "common/base/clock.h"

namespace litefleet {

class DeviceExecutor final : public control::OperationExecutor {
 public:
  struct Dependencies {
    const state::StateDirectory& state;
    const Clock& clock;
    upload::UploadTransport& transport;
    restore::LocalRestorer& restorer;
    upload::RateLimit& rate;
    std::function<std::shared_ptr<const config::AgentConfig>()> config;
    // Of this device; a ledger of another one counts for nothing.
    std::string device_id;
    upload::BackupOptions backup;
    // A backup that did not end within this fails.
    std::chrono::milliseconds give_up{std::chrono::hours(24)};
    heal::WantedSender& sender;
  };

  // What `dependencies` refers to outlives this.
  explicit DeviceExecutor(Dependencies dependencies) : deps_(std::move(dependencies)) {}

  v1::OperationResult Execute(const storage::v1::AgentOperation& operation, const v1::Order& order, const CancelToken& cancel,
                              const std::function<void(const v1::Progress&)>& progress, control::Turn& turn) override;
  absl::StatusOr<v1::RestorePlan> Plan(const v1::RestoreOrder& order) override;
  void Forget(const std::string& operation_id) override;

  // At start, before anything else touches the databases: finishes restores whose order is lost, or rolls them back. How they ended is
  // among the results then. `active` are the operations whose orders are there.
  absl::Status Recover(const std::set<std::string>& active);

 private:
  v1::OperationResult Backup(const storage::v1::AgentOperation& operation, const v1::BackupOrder& order, const CancelToken& cancel,
                             const std::function<void(const v1::Progress&)>& progress, control::Turn& turn);
  v1::OperationResult Restore(const storage::v1::AgentOperation& operation, const v1::RestoreOrder& order, const CancelToken& cancel,
                              const std::function<void(const v1::Progress&)>& progress);
  v1::OperationResult Heal(const storage::v1::AgentOperation& operation, const v1::HealOrder& order, const CancelToken& cancel,
                           const std::function<void(const v1::Progress&)>& progress, control::Turn& turn);
  // Remembers what a restore has done to its database, and says how it ended.
  v1::OperationResult Restored(const v1::RestoreOrder& order, const restore::Outcome& outcome, v1::Progress progress) const;
  // By the configuration of now. Errors: kNotFound DATABASE_UNKNOWN.
  absl::StatusOr<config::DatabaseConfig> Configured(const std::string& database) const;
  absl::StatusOr<restore::Target> RestoreTarget(const v1::RestoreOrder& order) const;
  // By its files' times and sizes, without opening it.
  bool IsUnchanged(const storage::v1::AgentDatabase& kept, const capture::FileFacts& facts) const;
  // What is remembered; begins anew, with a word in the log, where that cannot be read.
  storage::v1::AgentDatabase Remembered(const std::string& database) const;
  void Remember(const storage::v1::AgentDatabase& database) const;

  const Dependencies deps_;
};

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_EXECUTOR_H_
