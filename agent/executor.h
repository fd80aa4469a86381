// Carries operations out: backups over agent/upload, restores over agent/restore, and keeps what the device remembers of a database.
// Thread safety: as OperationExecutor.
#ifndef LITEFLEET_AGENT_EXECUTOR_H_
#define LITEFLEET_AGENT_EXECUTOR_H_

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "agent/capture/file_facts.h"
#include "agent/capture/file_source.h"
#include "agent/capture/files_source.h"
#include "agent/capture/online_source.h"
#include "agent/config/config.h"
#include "agent/control/operation_queue.h"
#include "agent/heal/healer.h"
#include "agent/hooks/database_hooks.h"
#include "agent/hooks/hook_runner.h"
#include "agent/restore/local_restorer.h"
#include "agent/rules/order_rules.h"
#include "agent/spool/drain.h"
#include "agent/spool/snapshot_spool.h"
#include "agent/state/state_directory.h"
#include "agent/upload/backup.h"
#include "agent/upload/transport.h"
#include "common/base/clock.h"
#include "common/base/rate_limit.h"

namespace litefleet {

class DeviceExecutor final : public control::OperationExecutor {
 public:
  struct Dependencies {
    const state::StateDirectory& state;
    const Clock& clock;
    upload::UploadTransport& transport;
    restore::LocalRestorer& restorer;
    RateLimit& rate;
    std::function<std::shared_ptr<const config::AgentConfig>()> config;
    // Of this device; a ledger of another one counts for nothing.
    std::string device_id;
    upload::BackupOptions backup;
    // A backup that did not end within this fails.
    std::chrono::milliseconds give_up{std::chrono::hours(24)};
    heal::WantedSender& sender;
    hooks::HookRunner& hooks;
    spool::SnapshotSpool& spool;
    // The controller cannot be reached for so long that scheduled backups do not wait for it.
    std::function<bool()> offline;
    // A connection that is lost for so long while a scheduled backup runs sends that into the spool.
    std::chrono::milliseconds offline_after{10000};
    // Of a run whose snapshot was spooled: how far its upload is, and how it ended (durable on return).
    std::function<void(const v1::OperationProgress&)> report;
    std::function<absl::Status(const v1::OperationResult&)> ended;
    // The device's own commands around backups; those around restores are the restorer's.
    hooks::HookSource database_hooks = {};
    rules::OrderRules* rules = nullptr;
    std::string config_path;
    // Continuous capture leaves the database alone while the result lives; may be empty. kCancelled where `cancel` was set before.
    std::function<absl::StatusOr<std::shared_ptr<void>>(const std::string& database, std::string_view why, const CancelToken& cancel)>
        pause_capture = {};
    // How often `[limits] pause_hook` is asked while a scheduled backup, or an upload of what is spooled, lasts.
    std::chrono::milliseconds pause_interval = std::chrono::minutes(1);
  };

  // What `dependencies` refers to outlives this.
  explicit DeviceExecutor(Dependencies dependencies) : deps_(std::move(dependencies)) {}

  v1::OperationResult Execute(const storage::v1::AgentOperation& operation, const v1::Order& order, const CancelToken& cancel,
                              const CancelToken& stop, const std::function<void(const v1::Progress&)>& progress,
                              control::Turn& turn) override;
  absl::StatusOr<v1::RestorePlan> Plan(const v1::Query& query) override;
  std::optional<v1::OperationResult> Settle(const v1::Order& order, const CancelToken& stop) override;
  bool HasBegun(const std::string& operation_id) override;
  absl::Status Forget(const std::string& operation_id) override;

  // Whether an order waits for a confirmation on the device. For the queue.
  bool Held(const v1::Order& order) const;

  // At start, before anything else touches the databases: finishes restores whose order is lost, or rolls them back. How they ended is
  // among the results then. `active` are the operations whose orders are there.
  // An interrupt of `stop` leaves the rest to the next start.
  absl::Status Recover(const std::set<std::string>& active, const CancelToken& stop);

 private:
  v1::OperationResult Backup(const storage::v1::AgentOperation& operation, const v1::BackupOrder& order, const CancelToken& cancel,
                             const std::function<void(const v1::Progress&)>& progress, control::Turn& turn);
  // Of a database that the configuration does not name any more: uploads what is spooled of it.
  v1::OperationResult DrainLeft(const std::string& database, const CancelToken& cancel, control::Turn& turn) const;
  // Without the device's hooks around it.
  v1::OperationResult BackupItself(const storage::v1::AgentOperation& operation, const v1::BackupOrder& order,
                                   const config::DatabaseConfig& database, const CancelToken& cancel,
                                   const std::function<void(const v1::Progress&)>& progress, control::Turn& turn);
  // With the controller. `may_spool`: CONTROLLER_OFFLINE ends it when the controller cannot be reached for offline_after.
  v1::OperationResult Upload(const storage::v1::AgentOperation& operation, const v1::BackupOrder& order,
                             const config::DatabaseConfig& database, ledger::Ledger* ledger, const CancelToken& cancel,
                             const std::function<void(const v1::Progress&)>& progress, control::Turn& turn, bool may_spool);
  void EndGaps(const std::string& database) const;
  // The operation's snapshot waits in the spool.
  bool IsSpooled(const std::string& operation, const std::string& database) const;
  // Where the run left a snapshot in the spool, for its result.
  void KeepHooks(const std::string& operation, const std::string& database, std::span<const v1::HookRun> runs) const;
  // Uploads what is spooled of the database.
  absl::Status Drain(const std::string& database, ledger::Ledger* ledger, const CancelToken& cancel, control::Turn& turn,
                     bool may_wait) const;
  absl::Status Acknowledged(const spool::SpooledSnapshot& snapshot, const std::string& snapshot_id, const v1::Progress& progress) const;
  // A scheduled backup without the controller. A result without a state: there is none yet. `fits` says whether the spool could take it.
  v1::OperationResult Spool(const storage::v1::AgentOperation& operation, const config::DatabaseConfig& database, ledger::Ledger* ledger,
                            const CancelToken& cancel, bool& fits) const;
  // A run found nothing new: the newest state that is spooled, or else acknowledged, is what the database still is.
  void Unchanged(const std::string& database) const;
  // What is too old in the spool: of the database of a run, and of those that the configuration does not name any more, which are not
  // spooled again and expire all the same. Only that `goes_on` ended it is an error.
  absl::Status ExpireSpooled(const std::string& database, int level, const spool::GoesOn& goes_on) const;
  void BeginGap(const std::string& database, std::string_view reason, const std::string& message) const;
  capture::OnlineOptions SourceOptions(const config::DatabaseConfig& database, const CancelToken& cancel) const;
  capture::FileOptions FileSourceOptions(const config::DatabaseConfig& database, const CancelToken& cancel) const;
  capture::FilesOptions FilesOptionsOf(const config::DatabaseConfig& database, const CancelToken& cancel) const;
  std::vector<std::string> DatabasePaths() const;
  std::optional<capture::FileFacts> FactsOfFiles(const config::DatabaseConfig& database, const CancelToken& cancel) const;
  v1::OperationResult Restore(const storage::v1::AgentOperation& operation, const v1::Order& order, const CancelToken& cancel,
                              const CancelToken& stop, const std::function<void(const v1::Progress&)>& progress, control::Turn& turn);
  v1::OperationResult Undo(const storage::v1::AgentOperation& operation, const v1::Order& order, const CancelToken& cancel,
                           const CancelToken& stop, const std::function<void(const v1::Progress&)>& progress, control::Turn& turn);
  v1::OperationResult DropUndo(const v1::Order& order);
  v1::OperationResult Heal(const storage::v1::AgentOperation& operation, const v1::HealOrder& order, const CancelToken& cancel,
                           const std::function<void(const v1::Progress&)>& progress, control::Turn& turn);
  // Before anything of a scheduled backup; others have its turn meanwhile. Errors: kCancelled; kUnavailable BACKUP_PAUSED after a day.
  absl::Status WaitWhilePaused(const storage::v1::AgentOperation& operation, const std::string& database, const CancelToken& cancel,
                               const std::function<void(const v1::Progress&)>& progress, control::Turn& turn) const;
  // Asked for scheduled backups alone; without a program where there is none.
  hooks::Hook PauseHook(bool by_schedule, const std::string& operation, const std::string& database) const;
  // Remembers what a restore has done to its database, and says how it ended.
  v1::OperationResult Restored(const v1::RestoreOrder& order, const restore::Outcome& outcome, v1::Progress progress) const;
  static v1::OperationResult ResultOf(const absl::Status& status);
  absl::StatusOr<std::shared_ptr<void>> PauseCapture(const std::string& database, std::string_view why, const CancelToken& cancel) const;
  // The same; a restore or an undo that has begun waits for it until the program ends: a cancel of it has to be carried out, too. After the
  // first attempt it gives `turn` away, which is null where it has none.
  absl::StatusOr<std::shared_ptr<void>> PauseFor(const v1::Order& order, std::string_view why, const CancelToken& cancel,
                                                 const CancelToken& stop, control::Turn* turn);
  // By the configuration of now. Errors: kNotFound DATABASE_UNKNOWN.
  absl::StatusOr<config::DatabaseConfig> Configured(const std::string& database) const;
  absl::StatusOr<restore::Target> RestoreTarget(const std::string& name) const;
  rules::RuleFacts RuleOf(const config::DatabaseConfig& database) const;
  // The target of a restore or an undo, where the device's rules let it be changed by this order.
  absl::StatusOr<restore::Target> AllowedTarget(const v1::Order& order) const;
  // By its files' times and sizes, without opening it.
  bool IsAsRead(const std::string& then, int64_t read_at_ms, const capture::FileFacts& facts) const;
  bool IsUnchanged(const storage::v1::AgentDatabase& kept, const capture::FileFacts& facts) const;
  // A full read has proven lately that they do not tell of every change.
  bool TimesMislead(const storage::v1::AgentDatabase& kept) const;
  // Of a read that found another content, begun when the facts were these: whether they should have told of it. Then it is noted in `kept`.
  bool NoteMisled(const config::DatabaseConfig& database, const std::string& then, const std::optional<capture::FileFacts>& facts,
                  storage::v1::AgentDatabase& kept) const;
  // What is remembered; begins anew, with a word in the log, where that cannot be read.
  storage::v1::AgentDatabase Remembered(const std::string& database) const;
  void Remember(const storage::v1::AgentDatabase& database) const;

  const Dependencies deps_;
};

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_EXECUTOR_H_
