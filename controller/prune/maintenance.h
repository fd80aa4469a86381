// The one thread that removes data: retention every hour, prune every day or when an operator says so, one after the other.
//
// Prunes are operations in the catalog; one that a restart of the controller cut off is begun anew, with what it had done kept. A cancel
// takes effect at the next step (some thousand rows, or a record of a pack). Thread safety: all members may be called from any thread.
// Ownership: borrows everything, which must outlive it. The destructor ends the run that goes on.
#ifndef LITEFLEET_CONTROLLER_PRUNE_MAINTENANCE_H_
#define LITEFLEET_CONTROLLER_PRUNE_MAINTENANCE_H_

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "controller/fleet/fleet.h"
#include "controller/prune/pruner.h"
#include "controller/retention/controller_time.h"
#include "controller/retention/retention.h"

namespace litefleet::prune {

struct MaintenanceOptions {
  PruneOptions prune;
  std::chrono::milliseconds prune_every = std::chrono::hours(24);
  std::chrono::milliseconds retention_every = std::chrono::hours(1);
};

struct MaintenanceDeps {
  Pruner& pruner;
  retention::Retention& retention;
  retention::ControllerTime& time;
  fleet::Fleet& fleet;
  store::Store& store;
  // When the newest prune ended; unset: none has.
  std::function<absl::StatusOr<std::optional<SystemTime>>()> last_prune;
};

class Maintenance {
 public:
  Maintenance(MaintenanceDeps deps, MaintenanceOptions options) : deps_(std::move(deps)), options_(options) {}
  ~Maintenance();
  Maintenance(const Maintenance&) = delete;
  Maintenance& operator=(const Maintenance&) = delete;

  // Clears up what a crash left, takes up a prune of a former run, and begins to work. Once, before the server listens.
  absl::Status Begin();
  // `grace`: for this run, of snapshots and chunks, instead of the configured ones. The same request_id is the same operation. Errors:
  // kFailedPrecondition PRUNE_RUNNING.
  absl::StatusOr<v1::Operation> StartPrune(bool dry_run, std::optional<std::chrono::milliseconds> grace, const std::string& request_id,
                                           const std::string& ordered_by);
  const MaintenanceOptions& options() const { return options_; }

 private:
  struct Job {
    v1::Operation operation;
    PruneOptions prune;
    std::shared_ptr<CancelToken> cancel = std::make_shared<CancelToken>();
  };

  void Work();
  void RunPrune(Job job);
  void RunRetention();
  bool PruneIsDue();
  bool stopping() const;

  const MaintenanceDeps deps_;
  const MaintenanceOptions options_;
  std::optional<SystemTime> due_at_;  // when one was found to be due last; the worker's
  mutable Mutex mu_;
  CondVar wake_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<Job> waiting_ ABSL_GUARDED_BY(mu_);
  std::string running_request_ ABSL_GUARDED_BY(mu_);  // id of the operation that runs; empty: none
  std::thread worker_;
};

}  // namespace litefleet::prune

#endif  // LITEFLEET_CONTROLLER_PRUNE_MAINTENANCE_H_
