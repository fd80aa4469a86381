// The operations of this device: taken on durably, run one after the other for each database, ended with exactly one durable result.
//
// States, by what lies in the state directory:
//   orders/ID                   taken on; runs, waits, or was interrupted by a restart: begun again at start
//   orders/ID with `cancelled`  a cancel arrived: ends as CANCELLED, also after a restart
//   results/ID                  ended; reported until the controller has recorded it (an order beside it is removed at start)
//   neither                     a run whose snapshot went into the spool, or that had nothing to spool: its result is the snapshot's, later
//
// Thread safety: all members may be called from any thread. Accept, Cancel and ResultRecorded write a small file and sync it; nothing
// else blocks. Options::online is asked under mu_. Lock order: disk_mu_ (what an operation's files say, for the length of a small write),
// then mu_; nothing of the executor but Forget is called under either, the listener under none, and the disk not under mu_.
#ifndef LITEFLEET_AGENT_CONTROL_OPERATION_QUEUE_H_
#define LITEFLEET_AGENT_CONTROL_OPERATION_QUEUE_H_

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/control/operation_runner.h"
#include "agent/state/state_directory.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"

namespace litefleet::control {

// The turn of an operation that runs, for times in which it only waits: for the network, or to try again.
class Turn {
 public:
  virtual ~Turn() = default;
  // Others may go. Calls alternate with Resume; both may do nothing.
  virtual void Yield() = 0;
  // Blocks until it is this operation's turn again, or `cancel` was set (100 ms at most), or the queue stops.
  virtual void Resume(const CancelToken& cancel) = 0;
  // Something that was ordered stands behind this operation, for the same database: it should not wait for what is not needed.
  virtual bool Awaited() { return false; }
};

// Does the work. Thread safety: called from several threads, for one database from one at a time.
class OperationExecutor {
 public:
  virtual ~OperationExecutor() = default;
  // Blocks until the operation has ended, within 2 s after `cancel` was set. `operation` has its times and session id, and is durable. The
  // result needs state, error, snapshot, progress and what else is known; the queue adds the rest. Without a state there is no result: only
  // of what the device began by itself. `stop` is for what no cancel ends, as in Settle: it is interrupted at the end of the program, also
  // where `cancel` was cancelled before.
  virtual v1::OperationResult Execute(const storage::v1::AgentOperation& operation, const v1::Order& order, const CancelToken& cancel,
                                      const CancelToken& stop, const std::function<void(const v1::Progress&)>& progress, Turn& turn) = 0;
  // What a restore or an undo would do.
  virtual absl::StatusOr<v1::RestorePlan> Plan(const v1::Query& query) = 0;
  // Of an operation that ends without (another) Execute, since it was cancelled: how it ended where it had changed something before.
  // Nothing where it had not. Blocks, as Execute; an interrupt of `stop` leaves the rest to the next start, and a cancelled result.
  virtual std::optional<v1::OperationResult> Settle(const v1::Order& order, const CancelToken& stop) {
    static_cast<void>(order);
    static_cast<void>(stop);
    return std::nullopt;
  }
  // Settle may have something to do, or to tell. Looks at a small file.
  virtual bool HasBegun(const std::string& operation_id) {
    static_cast<void>(operation_id);
    return false;
  }
  // The result of an operation is durable: nothing needs to be kept for it. On an error the same order could be carried out once more.
  virtual absl::Status Forget(const std::string& operation_id) = 0;
};

class OperationQueue final : public OperationRunner {
 public:
  struct Options {
    // Of these one may do backups: a second operation of another kind need not wait for a long backup.
    int workers = 2;
    int backups = 1;
    size_t max_operations = 1000;
    // Operations that may wait beside those that run, each on a thread of its own; one more keeps its turn while it waits.
    int max_yielded = 8;
    // Whether the controller can be reached; a backup begins only then. Empty: always. Must not block.
    std::function<bool()> online = {};
    // Whether an order waits for something on the device, while others of its database go before it; empty: none does. It is told as such.
    // Asked under mu_; may look at a small file.
    std::function<bool(const v1::Order&)> held = {};
    // Whether the controller cannot be reached for so long that scheduled backups begin without it. Empty: never. Must not block.
    std::function<bool()> spools = {};
  };

  // `state`, `executor` and `clock` outlive the queue.
  OperationQueue(const state::StateDirectory& state, OperationExecutor& executor, const Clock& clock, Options options);
  // Stops.
  ~OperationQueue() override;

  // Reads what is left from before, reports it to `listener`, and begins to work. `listener` outlives Stop.
  absl::Status Start(OperationListener& listener);
  // Interrupts what runs, which goes on at the next start, and waits for it. Idempotent.
  void Stop();

  absl::Status Accept(const v1::Order& order) override;
  void Cancel(const std::string& operation_id) override;
  void ResultRecorded(const std::string& operation_id) override;
  void Plan(const v1::Query& query, absl::AnyInvocable<void(absl::StatusOr<v1::RestorePlan>)> done) override;

  // A backup that the device begins by itself. The id is in Accept's form.
  absl::StatusOr<std::string> BeginScheduled(const std::string& database);
  // Uploads what the spool has of the database. The id is in Accept's form.
  absl::StatusOr<std::string> BeginDrain(const std::string& database);
  // How a run ended whose operation is not in the queue any more: durable, then reported until it is recorded.
  absl::Status AddResult(const v1::OperationResult& result);
  // An operation of the database runs, or waits for something else than a confirmation on the device.
  bool Busy(const std::string& database) const;
  // Nothing runs, and what waits, waits for a confirmation on the device.
  bool idle() const;
  std::vector<std::string> ActiveIds() const;

 private:
  struct Operation {
    storage::v1::AgentOperation record;
    v1::Order order;
    CancelToken cancel;
    CancelToken stop;  // interrupted at the end of the program, and never cancelled
    bool running = false;
    bool yielded = false;    // its turn is given away
    bool placeless = false;  // it runs without a place: it was cancelled before
    v1::Progress progress;
  };
  class TurnOf;
  using Plans = std::deque<std::pair<v1::Query, absl::AnyInvocable<void(absl::StatusOr<v1::RestorePlan>)>>>;

  // Writes what the operation is now; nothing once it has ended.
  absl::Status Persist(const Operation& operation);
  absl::Status Add(storage::v1::AgentOperation record, const v1::Order& order);
  void Run();
  // The next operation that may run; null when there is none. Marks it as running.
  std::shared_ptr<Operation> TakeNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // One that was cancelled and waits: to end it, which for what a former run has begun may take long, needs no place. Null: there is none.
  std::shared_ptr<Operation> TakeCancelled() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // So that there is a thread for each free place and, within bounds, for each one that TakeCancelled would give.
  void AddThreads() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RunOne(Operation& operation);
  void Yield(Operation& operation);
  void Resume(Operation& operation, const CancelToken& cancel);
  bool Awaited(const Operation& operation) const;
  // Takes or gives back the place of an operation that runs.
  void Count(const Operation& operation, int places) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool HasPlace(const Operation& operation) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Makes the result durable and reports it.
  void End(const storage::v1::AgentOperation& record, const v1::Order& order, v1::OperationResult result);
  // It has no result.
  void Drop(const storage::v1::AgentOperation& record);
  absl::StatusOr<std::string> BeginOwn(const std::string& database, bool drain);
  void ReportProgress(Operation& operation, const v1::Progress& progress);
  bool Held(const Operation& operation) const { return options_.held && options_.held(operation.order); }
  // Tells of an operation that waits.
  void ReportHeld(Operation& operation);

  const state::StateDirectory& state_;
  OperationExecutor& executor_;
  const Clock& clock_;
  const Options options_;
  OperationListener* listener_ = nullptr;  // constant after Start

  Mutex disk_mu_;
  mutable Mutex mu_;
  CondVar work_;
  // By id, which is by age: orders of one database run in the order in which they were given.
  std::map<std::string, std::shared_ptr<Operation>> operations_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, v1::OperationResult> results_ ABSL_GUARDED_BY(mu_);  // durable, not recorded by the controller
  Plans plans_ ABSL_GUARDED_BY(mu_);
  int running_ ABSL_GUARDED_BY(mu_) = 0;  // with a turn
  int running_backups_ ABSL_GUARDED_BY(mu_) = 0;
  int yielded_ ABSL_GUARDED_BY(mu_) = 0;
  int resuming_ ABSL_GUARDED_BY(mu_) = 0;         // yielded ones that want their turn: they come before others
  bool look_again_ ABSL_GUARDED_BY(mu_) = false;  // TakeNext left one that becomes possible without a signal
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
  int busy_threads_ ABSL_GUARDED_BY(mu_) = 0;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
};

// Of the database that an order is about.
const std::string& DatabaseOf(const v1::Order& order);

}  // namespace litefleet::control

#endif  // LITEFLEET_AGENT_CONTROL_OPERATION_QUEUE_H_
