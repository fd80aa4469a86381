#include "agent/control/operation_queue.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/error_detail.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::control {
namespace {

constexpr size_t kMaxPlans = 16;
constexpr std::chrono::milliseconds kLook{100};
// Cancelled operations that are ended beside those that run.
constexpr int kMaxSettling = 4;

v1::OperationKind KindOf(const v1::Order& order) {
  if (order.has_heal()) return v1::OPERATION_KIND_HEAL;
  if (order.has_undo()) return v1::OPERATION_KIND_UNDO;
  if (order.has_drop_undo()) return v1::OPERATION_KIND_DROP_UNDO;
  return order.has_restore() ? v1::OPERATION_KIND_RESTORE : v1::OPERATION_KIND_BACKUP;
}

// Reads a whole database for the controller: one at a time.
bool Reads(const v1::Order& order) { return order.has_backup() || order.has_heal(); }

v1::OperationResult CancelledResult() {
  v1::OperationResult result;
  result.set_state(v1::OPERATION_STATE_CANCELLED);
  *result.mutable_error() = ToErrorDetail(Error(absl::StatusCode::kCancelled, "CANCELLED", "the operation was cancelled"));
  return result;
}

}  // namespace

const std::string& DatabaseOf(const v1::Order& order) {
  if (order.has_heal()) return order.heal().database();
  if (order.has_undo()) return order.undo().database();
  if (order.has_drop_undo()) return order.drop_undo().database();
  return order.has_restore() ? order.restore().database() : order.backup().database();
}

OperationQueue::OperationQueue(const state::StateDirectory& state, OperationExecutor& executor, const Clock& clock, Options options)
    : state_(state), executor_(executor), clock_(clock), options_(options) {}

OperationQueue::~OperationQueue() { Stop(); }

absl::Status OperationQueue::Start(OperationListener& listener) {
  listener_ = &listener;
  std::vector<std::string> damaged;
  LF_ASSIGN_OR_RETURN(const std::vector<v1::OperationResult> results, state_.ReadResults(damaged));
  LF_ASSIGN_OR_RETURN(const std::vector<storage::v1::AgentOperation> operations, state_.ReadOperations(damaged));
  for (const std::string& sentence : damaged) spdlog::error("{}", sentence);
  {
    MutexLock lock(mu_);
    for (const v1::OperationResult& result : results) results_[result.operation_id()] = result;
  }
  for (const storage::v1::AgentOperation& record : operations) {
    MutexLock lock(mu_);
    if (results_.contains(record.operation_id())) continue;
    const auto operation = std::make_shared<Operation>();
    operation->record = record;
    if (!operation->order.ParseFromString(record.order())) continue;  // looked at by ReadOperations
    if (record.cancelled()) operation->cancel.Cancel();
    operations_[record.operation_id()] = operation;
    spdlog::info("operation {} goes on after a restart", record.operation_id());
  }
  for (const v1::OperationResult& result : results) {
    LF_RETURN_IF_ERROR(state_.RemoveOperation(result.operation_id()));
    listener_->OnResult(result);
  }
  std::vector<std::shared_ptr<Operation>> taken;
  {
    MutexLock lock(mu_);
    for (const auto& [id, operation] : operations_) taken.push_back(operation);
  }
  for (const auto& operation : taken) ReportHeld(*operation);
  MutexLock lock(mu_);
  AddThreads();
  return absl::OkStatus();
}

void OperationQueue::Stop() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(mu_);
    stop_ = true;
    threads.swap(threads_);
    for (const auto& [id, operation] : operations_) {
      operation->cancel.Interrupt();
      operation->stop.Interrupt();
    }
  }
  work_.SignalAll();
  for (std::thread& thread : threads) thread.join();
}

absl::Status OperationQueue::Add(storage::v1::AgentOperation record, const v1::Order& order) {
  {
    MutexLock lock(mu_);
    if (operations_.contains(record.operation_id()) || results_.contains(record.operation_id())) return absl::OkStatus();
    if (stop_) return Error(absl::StatusCode::kUnavailable, "STOPPING", "the agent is stopping");
    if (operations_.size() >= options_.max_operations) {
      return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_OPERATIONS",
                   fmt::format("{} operations are waiting already", operations_.size()), "wait until some have ended, or cancel them");
    }
  }
  LF_RETURN_IF_ERROR(state_.WriteOperation(record));
  LF_CRASH_POINT("agent.order.accepted");
  const auto operation = std::make_shared<Operation>();
  operation->order = order;
  operation->record = std::move(record);
  {
    MutexLock lock(mu_);
    operations_.emplace(operation->record.operation_id(), operation);
  }
  work_.SignalAll();
  ReportHeld(*operation);
  return absl::OkStatus();
}

absl::Status OperationQueue::Persist(const Operation& operation) {
  MutexLock disk(disk_mu_);
  storage::v1::AgentOperation record;
  {
    MutexLock lock(mu_);
    record = operation.record;
    if (!operations_.contains(record.operation_id())) return absl::OkStatus();
  }
  return state_.WriteOperation(record);
}

absl::Status OperationQueue::Accept(const v1::Order& order) {
  storage::v1::AgentOperation record;
  record.set_operation_id(order.operation_id());
  record.set_order(order.SerializeAsString());
  record.set_accepted_at_ms(ToUnixMillis(clock_.Now()));
  return Add(std::move(record), order);
}

absl::StatusOr<std::string> OperationQueue::BeginScheduled(const std::string& database) { return BeginOwn(database, false); }

absl::StatusOr<std::string> OperationQueue::BeginDrain(const std::string& database) { return BeginOwn(database, true); }

absl::StatusOr<std::string> OperationQueue::BeginOwn(const std::string& database, bool drain) {
  v1::Order order;
  order.set_operation_id(NewUlid(clock_.Now()));
  order.mutable_backup()->set_database(database);
  storage::v1::AgentOperation record;
  record.set_operation_id(order.operation_id());
  record.set_order(order.SerializeAsString());
  record.set_by_schedule(true);
  record.set_drain(drain);
  record.set_accepted_at_ms(ToUnixMillis(clock_.Now()));
  LF_RETURN_IF_ERROR(Add(std::move(record), order));
  return order.operation_id();
}

void OperationQueue::Cancel(const std::string& operation_id) {
  std::shared_ptr<Operation> operation;
  storage::v1::AgentOperation record;
  bool waiting = false;
  // To end that may take long: it is for a thread that waits for no place.
  const bool begun = executor_.HasBegun(operation_id);
  {
    MutexLock lock(mu_);
    if (const auto ended = results_.find(operation_id); ended != results_.end()) return;  // its result is on its way
    const auto at = operations_.find(operation_id);
    if (at != operations_.end()) {
      operation = at->second;
      operation->record.set_cancelled(true);
      record = operation->record;
      // From here on no worker takes it.
      waiting = !operation->running && !begun;
      if (waiting) operation->running = true;
    }
  }
  if (operation == nullptr) {
    record.set_operation_id(operation_id);
    End(record, v1::Order(), CancelledResult());
    return;
  }
  // Durable first: a crash from here on ends it as cancelled. Without room on the disk it is cancelled all the same.
  if (const absl::Status status = Persist(*operation); !status.ok()) spdlog::error("cancelling {}: {}", operation_id, MessageOf(status));
  LF_CRASH_POINT("agent.cancel.persisted");
  operation->cancel.Cancel();
  if (waiting) return End(record, operation->order, CancelledResult());
  {
    MutexLock lock(mu_);
    AddThreads();
  }
  work_.SignalAll();
}

void OperationQueue::ResultRecorded(const std::string& operation_id) {
  v1::OperationKind kind{};
  {
    MutexLock lock(mu_);
    const auto result = results_.find(operation_id);
    if (result == results_.end()) return;
    kind = result->second.kind();
  }
  // Where the disk refused when it ended, the order is there still, and would begin again. What says that it ended goes last.
  absl::Status status = state_.RemoveOperation(operation_id);
  const bool changes = kind == v1::OPERATION_KIND_RESTORE || kind == v1::OPERATION_KIND_UNDO || kind == v1::OPERATION_KIND_DROP_UNDO;
  if (status.ok() && changes) status = executor_.Forget(operation_id);
  if (status.ok()) status = state_.RemoveResult(operation_id);
  if (!status.ok()) spdlog::error("forgetting {}: {}", operation_id, MessageOf(status));
  // Until then the same order is taken for one that has ended; and so it is until a restart where it could not be forgotten.
  MutexLock lock(mu_);
  if (status.ok()) results_.erase(operation_id);
}

void OperationQueue::Plan(const v1::Query& query, absl::AnyInvocable<void(absl::StatusOr<v1::RestorePlan>)> done) {
  {
    MutexLock lock(mu_);
    if (plans_.size() < kMaxPlans && !stop_) {
      plans_.emplace_back(query, std::move(done));
      work_.SignalAll();
      return;
    }
  }
  done(Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_PLANS", "the device is busy with other plans", "ask again in a moment"));
}

bool OperationQueue::Busy(const std::string& database) const {
  MutexLock lock(mu_);
  for (const auto& [id, operation] : operations_) {
    if (DatabaseOf(operation->order) == database && (operation->running || !Held(*operation))) return true;
  }
  return false;
}

bool OperationQueue::idle() const {
  MutexLock lock(mu_);
  return std::all_of(operations_.begin(), operations_.end(),
                     [this](const auto& each) { return !each.second->running && Held(*each.second); });
}

std::vector<std::string> OperationQueue::ActiveIds() const {
  MutexLock lock(mu_);
  std::vector<std::string> ids;
  for (const auto& [id, operation] : operations_) ids.push_back(id);
  return ids;
}

std::shared_ptr<OperationQueue::Operation> OperationQueue::TakeCancelled() {
  std::set<std::string> busy;
  for (const auto& [id, operation] : operations_) {
    if (operation->running) busy.insert(DatabaseOf(operation->order));
  }
  for (const auto& [id, operation] : operations_) {
    if (operation->running || !operation->record.cancelled() || busy.contains(DatabaseOf(operation->order))) continue;
    operation->running = operation->placeless = true;
    return operation;
  }
  return nullptr;
}

void OperationQueue::AddThreads() {
  if (stop_) return;
  int wanted = std::max(0, options_.workers - running_);
  for (const auto& [id, operation] : operations_) wanted += operation->record.cancelled() && !operation->running ? 1 : 0;
  const int most = options_.workers + options_.max_yielded + kMaxSettling;
  while (static_cast<int>(threads_.size()) - busy_threads_ < wanted && static_cast<int>(threads_.size()) < most)
    threads_.emplace_back([this] { Run(); });
}

std::shared_ptr<OperationQueue::Operation> OperationQueue::TakeNext() {
  std::set<std::string> busy;
  for (const auto& [id, operation] : operations_) {
    if (operation->running) busy.insert(DatabaseOf(operation->order));
  }
  const bool online = !options_.online || options_.online();
  look_again_ = false;
  for (const auto& [id, operation] : operations_) {
    if (operation->running || operation->record.cancelled()) continue;
    if (Held(*operation)) {
      look_again_ = true;
      continue;
    }
    // An older operation of the database stands before it.
    if (!busy.insert(DatabaseOf(operation->order)).second) continue;
    if (!HasPlace(*operation) || (resuming_ > 0 && Reads(operation->order))) continue;
    const bool may_spool = operation->record.by_schedule() && !operation->record.drain() && options_.spools && options_.spools();
    if (Reads(operation->order) && !online && !may_spool) {
      look_again_ = true;
      continue;
    }
    operation->running = true;
    Count(*operation, 1);
    return operation;
  }
  return nullptr;
}

bool OperationQueue::HasPlace(const Operation& operation) const {
  return running_ < options_.workers && (!Reads(operation.order) || running_backups_ < options_.backups);
}

void OperationQueue::Count(const Operation& operation, int places) {
  running_ += places;
  if (Reads(operation.order)) running_backups_ += places;
}

class OperationQueue::TurnOf final : public Turn {
 public:
  TurnOf(OperationQueue& queue, Operation& operation) : queue_(queue), operation_(operation) {}
  void Yield() override { queue_.Yield(operation_); }
  void Resume(const CancelToken& cancel) override { queue_.Resume(operation_, cancel); }
  bool Awaited() override { return queue_.Awaited(operation_); }

 private:
  OperationQueue& queue_;
  Operation& operation_;
};

bool OperationQueue::Awaited(const Operation& operation) const {
  MutexLock lock(mu_);
  for (const auto& [id, other] : operations_) {
    if (!other->running && !other->record.by_schedule() && DatabaseOf(other->order) == DatabaseOf(operation.order)) return true;
  }
  return false;
}

void OperationQueue::Yield(Operation& operation) {
  {
    MutexLock lock(mu_);
    if (operation.yielded || stop_ || yielded_ >= options_.max_yielded) return;
    operation.yielded = true;
    ++yielded_;
    Count(operation, -1);
    // This thread waits; another one works for it.
    AddThreads();
  }
  work_.SignalAll();
}

void OperationQueue::Resume(Operation& operation, const CancelToken& cancel) {
  MutexLock lock(mu_);
  if (!operation.yielded) return;
  ++resuming_;
  while (!stop_ && !cancel.cancelled() && !HasPlace(operation)) work_.WaitUntil(mu_, std::chrono::steady_clock::now() + kLook);
  --resuming_;
  if (stop_ || cancel.cancelled()) return;  // it ends without a turn
  operation.yielded = false;
  --yielded_;
  Count(operation, 1);
}

void OperationQueue::Run() {
  for (;;) {
    std::shared_ptr<Operation> operation;
    Plans plan;
    {
      MutexLock lock(mu_);
      for (;;) {
        if (stop_) return;
        operation = TakeCancelled();
        if (operation != nullptr) break;
        if (!plans_.empty()) {
          plan.push_back(std::move(plans_.front()));
          plans_.pop_front();
          break;
        }
        operation = TakeNext();
        if (operation != nullptr) break;
        if (look_again_) {
          work_.WaitUntil(mu_, std::chrono::steady_clock::now() + kLook);
        } else {
          work_.Wait(mu_);
        }
      }
      ++busy_threads_;
    }
    for (auto& [query, done] : plan) done(executor_.Plan(query));
    if (operation != nullptr) RunOne(*operation);
    {
      MutexLock lock(mu_);
      --busy_threads_;
      if (operation == nullptr) continue;
      if (operation->yielded) {
        --yielded_;
      } else if (!operation->placeless) {
        Count(*operation, -1);
      }
    }
    work_.SignalAll();
  }
}

void OperationQueue::RunOne(Operation& operation) {
  storage::v1::AgentOperation record;
  {
    MutexLock lock(mu_);
    storage::v1::AgentOperation& kept = operation.record;
    if (kept.started_at_ms() == 0) kept.set_started_at_ms(ToUnixMillis(clock_.Now()));
    if (kept.session_id().empty() && operation.order.has_backup()) kept.set_session_id(NewUlid(clock_.Now()));
    record = kept;
  }
  v1::OperationResult result;
  if (record.cancelled()) {
    result = executor_.Settle(operation.order, operation.stop).value_or(CancelledResult());
  } else if (const absl::Status status = Persist(operation); !status.ok()) {
    result.set_state(v1::OPERATION_STATE_FAILED);
    *result.mutable_error() = ToErrorDetail(Annotate(status, "writing the state directory"));
  } else {
    LF_CRASH_POINT("agent.operation.started");
    // What goes into the spool is told of when it is uploaded.
    const bool silent = record.by_schedule() && (record.drain() || (options_.online && !options_.online()));
    if (!silent) ReportProgress(operation, v1::Progress());
    TurnOf turn(*this, operation);
    result = executor_.Execute(
        record, operation.order, operation.cancel, operation.stop,
        [&](const v1::Progress& progress) { ReportProgress(operation, progress); }, turn);
  }
  // What it had begun to change may not have been ended: a cancel does not wait for that.
  const bool begun = result.state() == v1::OPERATION_STATE_CANCELLED && executor_.HasBegun(record.operation_id());
  {
    MutexLock lock(mu_);
    // Interrupted by the end of the program and not by an operator: it goes on at the next start.
    const bool settled = record.cancelled();
    if (stop_ && (settled || begun || !operation.record.cancelled()) && result.state() == v1::OPERATION_STATE_CANCELLED) return;
    if (!result.has_progress()) *result.mutable_progress() = operation.progress;
    // A cancel that came too late has nothing to end.
    if (operation.record.cancelled() && result.state() == v1::OPERATION_STATE_UNSPECIFIED) result = CancelledResult();
  }
  if (result.state() == v1::OPERATION_STATE_UNSPECIFIED) return Drop(record);
  End(record, operation.order, std::move(result));
}

void OperationQueue::ReportHeld(Operation& operation) {
  if (!Held(operation)) return;
  spdlog::info("operation {} of {} waits for a confirmation: litefleet-agent confirm {}", operation.order.operation_id(),
               DatabaseOf(operation.order), operation.order.operation_id());
  v1::Progress progress;
  progress.set_phase("waits for confirmation on the device");
  ReportProgress(operation, progress);
}

void OperationQueue::Drop(const storage::v1::AgentOperation& record) {
  const std::string& id = record.operation_id();
  {
    MutexLock disk(disk_mu_);
    // Where the disk refuses it runs once more after a restart.
    if (const absl::Status removed = state_.RemoveOperation(id); !removed.ok()) spdlog::error("operation {}: {}", id, MessageOf(removed));
    MutexLock lock(mu_);
    operations_.erase(id);
  }
  listener_->OnDropped(id);
  work_.SignalAll();
}

absl::Status OperationQueue::AddResult(const v1::OperationResult& result) {
  {
    MutexLock disk(disk_mu_);
    LF_RETURN_IF_ERROR(state_.WriteResult(result));
    MutexLock lock(mu_);
    results_[result.operation_id()] = result;
  }
  listener_->OnResult(result);
  return absl::OkStatus();
}

void OperationQueue::ReportProgress(Operation& operation, const v1::Progress& progress) {
  v1::OperationProgress report;
  {
    MutexLock lock(mu_);
    operation.progress = progress;
    report.set_operation_id(operation.record.operation_id());
    *report.mutable_started_at() = MillisTimestamp(operation.record.started_at_ms());
  }
  *report.mutable_progress() = progress;
  report.set_kind(KindOf(operation.order));
  report.set_database(DatabaseOf(operation.order));
  listener_->OnProgress(report);
}

void OperationQueue::End(const storage::v1::AgentOperation& record, const v1::Order& order, v1::OperationResult result) {
  const std::string& id = record.operation_id();
  result.set_operation_id(id);
  if (order.order_case() != v1::Order::ORDER_NOT_SET) {
    result.set_kind(KindOf(order));
    result.set_database(DatabaseOf(order));
    if (record.started_at_ms() != 0) *result.mutable_started_at() = MillisTimestamp(record.started_at_ms());
  }
  *result.mutable_ended_at() = ToProtoTime(clock_.Now());
  {
    MutexLock disk(disk_mu_);
    bool durable = false;
    // Where the disk refuses, the result is reported all the same; after a restart the operation would run again, in the same session.
    if (const absl::Status status = state_.WriteResult(result); !status.ok()) {
      spdlog::error("operation {} ended, but its result could not be written: {}", id, MessageOf(status));
    } else {
      durable = true;
      if (const absl::Status removed = state_.RemoveOperation(id); !removed.ok()) spdlog::error("operation {}: {}", id, MessageOf(removed));
    }
    if (durable && (order.has_restore() || order.has_undo() || order.has_drop_undo())) {
      if (const absl::Status forgotten = executor_.Forget(id); !forgotten.ok()) spdlog::error("operation {}: {}", id, MessageOf(forgotten));
    }
    MutexLock lock(mu_);
    operations_.erase(id);
    results_[id] = result;
  }
  if (result.database().empty()) {
    spdlog::info("operation {}, of which nothing is known here, counts as cancelled", id);
  } else if (result.error().code() == 0) {
    spdlog::info("operation {} of {} ended well", id, result.database());
  } else {
    spdlog::warn("operation {} of {} ended: {} ({})", id, result.database(), result.error().message(), result.error().info().reason());
  }
  listener_->OnResult(result);
  work_.SignalAll();
}

}  // namespace litefleet::control
