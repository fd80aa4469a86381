#include "controller/prune/maintenance.h"
#include "controller/fleet/transitions.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "common/base/error_detail.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"

namespace litefleet::prune {
namespace {

using std::chrono::steady_clock;

constexpr auto kReportEvery = std::chrono::milliseconds(300);
constexpr std::string_view kSchedule = "schedule";

// What an operator ordered, over what is configured.
PruneOptions Ordered(PruneOptions options, const v1::PruneReport& wish) {
  options.dry_run = wish.dry_run();
  if (!wish.has_grace()) return options;
  options.snapshot_grace = options.chunk_grace =
      std::chrono::seconds(wish.grace().seconds()) + std::chrono::milliseconds(wish.grace().nanos() / 1'000'000);
  if (options.chunk_grace.count() == 0) options.sweeps = 0;
  return options;
}

absl::Status Cancelled() {
  return Error(absl::StatusCode::kCancelled, "CANCELLED", "the prune was cancelled; what it had done stays done");
}

}  // namespace

Maintenance::~Maintenance() {
  {
    MutexLock lock(mu_);
    stop_ = true;
    wake_.SignalAll();
  }
  if (worker_.joinable()) worker_.join();
}

bool Maintenance::stopping() const {
  MutexLock lock(mu_);
  return stop_;
}

absl::Status Maintenance::Begin() {
  LF_RETURN_IF_ERROR(deps_.pruner.Recover());
  for (const v1::Operation& operation : deps_.fleet.ActiveLocal()) {
    if (operation.kind() != v1::OPERATION_KIND_PRUNE) continue;
    Job job;
    job.operation = operation;
    if (!operation.has_prune()) {
      // The end came before it was written down how it was meant: nobody was answered.
      job.operation.set_state(v1::OPERATION_STATE_FAILED);
      *job.operation.mutable_error() =
          ToErrorDetail(Error(absl::StatusCode::kAborted, "INTERRUPTED", "the controller ended before the prune began", "order it again"));
      LF_RETURN_IF_ERROR(deps_.fleet.UpdateLocal(job.operation));
      continue;
    }
    job.prune = Ordered(options_.prune, operation.prune());
    if (operation.state() == v1::OPERATION_STATE_CANCELLING) job.cancel->Cancel();
    LF_RETURN_IF_ERROR(deps_.fleet.AdoptLocal(OperationId(operation.id()), [cancel = job.cancel] { cancel->Cancel(); }));
    MutexLock lock(mu_);
    waiting_ = std::move(job);
  }
  worker_ = std::thread([this] { Work(); });
  return absl::OkStatus();
}

absl::StatusOr<v1::Operation> Maintenance::StartPrune(bool dry_run, std::optional<std::chrono::milliseconds> grace,
                                                      const std::string& request_id, const std::string& ordered_by) {
  Job job;
  LF_ASSIGN_OR_RETURN(job.operation, deps_.fleet.StartLocal(v1::OPERATION_KIND_PRUNE, DeviceId(), "", SnapshotId(), request_id, ordered_by,
                                                            [cancel = job.cancel] { cancel->Cancel(); }));
  // A request that came again is answered with what exists.
  if (job.operation.state() != v1::OPERATION_STATE_QUEUED) return job.operation;
  v1::PruneReport& wish = *job.operation.mutable_prune();
  wish.set_dry_run(dry_run);
  if (grace.has_value()) *wish.mutable_grace() = ToProtoDuration(*grace);
  job.prune = Ordered(options_.prune, wish);
  v1::Operation operation = job.operation;
  bool taken = false;
  {
    MutexLock lock(mu_);
    if (running_request_ == operation.id() || (waiting_.has_value() && waiting_->operation.id() == operation.id())) return operation;
    if (!waiting_.has_value() && running_request_.empty()) {
      running_request_ = operation.id();
      taken = true;
    }
  }
  if (taken) {
    // How it is meant is durable before anybody is answered: a run that is taken up after a crash must be the same one.
    const absl::Status kept = deps_.fleet.UpdateLocal(operation);
    MutexLock lock(mu_);
    running_request_.clear();
    if (kept.ok()) waiting_ = std::move(job);
    wake_.SignalAll();
    if (!kept.ok()) return kept;
    return operation;
  }
  const absl::Status busy = Error(absl::StatusCode::kFailedPrecondition, "PRUNE_RUNNING", "a prune is under way",
                                  "wait for it: litefleet operation list --active");
  operation.set_state(v1::OPERATION_STATE_FAILED);
  *operation.mutable_error() = ToErrorDetail(busy);
  static_cast<void>(deps_.fleet.UpdateLocal(operation));
  return busy;
}

bool Maintenance::PruneIsDue() {
  const auto reading = deps_.time.Tick();
  const auto last = deps_.last_prune();
  if (!reading.ok() || !reading->hold.empty() || !last.ok()) return false;
  const auto passed = [&](const std::optional<SystemTime>& since, std::chrono::milliseconds time) {
    // What was in the future was under a clock that an operator has taken back since.
    return !since.has_value() || reading->time < *since || reading->time - *since >= time;
  };
  // One that fails, as where a pack cannot be removed, has read the whole store for it.
  if (!passed(*last, options_.prune_every) || !passed(due_at_, options_.prune_every / 4)) return false;
  due_at_ = reading->time;
  return true;
}

void Maintenance::Work() {
  auto next_retention = steady_clock::now() + std::min<std::chrono::milliseconds>(options_.retention_every, std::chrono::minutes(1));
  for (;;) {
    std::optional<Job> job;
    {
      MutexLock lock(mu_);
      if (stop_) return;
      if (waiting_.has_value()) {
        job = std::move(waiting_);
        waiting_.reset();
        running_request_ = job->operation.id();
      } else if (steady_clock::now() < next_retention) {
        wake_.WaitUntil(mu_, next_retention);
        continue;
      }
    }
    if (job.has_value()) {
      RunPrune(*std::move(job));
      MutexLock lock(mu_);
      running_request_.clear();
      continue;
    }
    RunRetention();
    next_retention = steady_clock::now() + options_.retention_every;
    if (stopping() || !PruneIsDue()) continue;
    if (const auto started = StartPrune(false, std::nullopt, "", std::string(kSchedule)); !started.ok()) {
      spdlog::warn("begin the daily prune: {}", MessageOf(started.status()));
    }
  }
}

void Maintenance::RunRetention() {
  const auto now = deps_.time.Trusted();
  const auto run = [&]() -> absl::StatusOr<retention::RunTotals> {
    LF_RETURN_IF_ERROR(now.status());
    return deps_.retention.Run(*now, [this] { return stopping(); });
  };
  const auto totals = run();
  if (!totals.ok()) {
    spdlog::error("retention: {}", MessageOf(totals.status()));
  } else if (totals->trashed > 0 || totals->held > 0) {
    spdlog::info("retention: {} databases, {} snapshots to the trash, {} databases on hold", totals->databases, totals->trashed,
                 totals->held);
  }
}

void Maintenance::RunPrune(Job job) {
  v1::Operation& operation = job.operation;
  int64_t total = 1;
  for (const store::PackInfo& pack : deps_.store.Packs()) total += static_cast<int64_t>(pack.size);
  operation.set_state(v1::OPERATION_STATE_RUNNING);
  operation.mutable_progress()->set_total_bytes(total);
  static_cast<void>(deps_.fleet.UpdateLocal(operation));
  auto next_report = steady_clock::now();
  const auto progress = [&](std::string_view phase, double share) -> absl::Status {
    if (job.cancel->cancelled() || stopping()) return Cancelled();
    if (steady_clock::now() < next_report) return absl::OkStatus();
    next_report = steady_clock::now() + kReportEvery;
    v1::Progress& at = *operation.mutable_progress();
    at.set_done_bytes(std::max(at.done_bytes(), static_cast<int64_t>(static_cast<double>(total) * share)));
    at.set_phase(std::string(phase));
    static_cast<void>(deps_.fleet.UpdateLocal(operation));
    return absl::OkStatus();
  };
  const auto run = [&]() -> absl::StatusOr<v1::PruneReport> {
    LF_RETURN_IF_ERROR(progress("beginning", 0));
    // A dry run deletes nothing, whatever the clock says.
    LF_ASSIGN_OR_RETURN(const retention::ControllerTime::Reading reading, deps_.time.Tick());
    if (!job.prune.dry_run) LF_RETURN_IF_ERROR(deps_.time.Trusted().status());
    return deps_.pruner.Run(job.prune, reading.time, progress);
  };
  const absl::StatusOr<v1::PruneReport> report = run();
  if (stopping()) return;  // begun anew after the next start
  fleet::SetLocalEnd(operation, report.status());
  if (report.ok()) {
    const v1::PruneReport wish = operation.prune();
    *operation.mutable_prune() = *report;
    if (wish.has_grace()) *operation.mutable_prune()->mutable_grace() = wish.grace();
    operation.mutable_progress()->set_done_bytes(total);
    operation.mutable_progress()->set_phase("done");
  } else {
    spdlog::warn("prune: {}", MessageOf(report.status()));
  }
  static_cast<void>(deps_.fleet.UpdateLocal(operation));
}

}  // namespace litefleet::prune
