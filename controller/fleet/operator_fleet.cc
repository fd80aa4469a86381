// The operators' half of DeviceFleet: orders, cancels, questions, watches, and the controller's own operations.
#include <algorithm>
#include <optional>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/fleet/device_fleet.h"
#include "controller/fleet/device_messages.h"
#include "controller/fleet/transitions.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"

namespace litefleet::fleet {
namespace {

constexpr std::chrono::seconds kDefaultExpire = std::chrono::hours(24);
constexpr std::chrono::seconds kMaxExpire = std::chrono::hours(24 * 366);

absl::Status Ended(const v1::Operation& operation) {
  return Error(absl::StatusCode::kFailedPrecondition, "OPERATION_ENDED", fmt::format("operation {} has ended", operation.id()));
}

}  // namespace

bool DeviceFleet::IsConnected(const DeviceId& device) const {
  MutexLock lock(mu_);
  return sessions_.contains(device);
}

int DeviceFleet::ConnectedCount() const {
  MutexLock lock(mu_);
  return static_cast<int>(sessions_.size());
}

void DeviceFleet::Disconnect(const DeviceId& device, const absl::Status& why) {
  SessionPtr session;
  {
    MutexLock lock(mu_);
    if (const auto at = sessions_.find(device); at != sessions_.end()) session = at->second;
  }
  if (session != nullptr) Drop(device, session, &why);
  if (ReasonOf(why) == "DEVICE_REVOKED") EndAllOf(device, why);
}

void DeviceFleet::CloseAll(const absl::Status& why) {
  std::map<DeviceId, SessionPtr> sessions;
  {
    MutexLock lock(mu_);
    closed_ = true;
    sessions = sessions_;
  }
  for (const auto& [device, session] : sessions) Drop(device, session, &why);
}

void DeviceFleet::EndAllOf(const DeviceId& device, const absl::Status& why) {
  for (const OperationTable::Entry& entry : table_->ActiveOf(device)) {
    if (entry.origin == catalog::Origin::kLocal) continue;  // checks of its snapshots go on
    const auto changed =
        table_->Change(OperationId(entry.operation.id()), [&](v1::Operation& operation) { return ApplyAbandoned(operation, why, Time()); });
    if (!changed.ok()) spdlog::warn("operation {} could not be ended: {}", entry.operation.id(), MessageOf(changed.status()));
  }
}

v1::Operation DeviceFleet::NewOperation(v1::OperationKind kind, const DeviceId& device, const std::string& database,
                                        const std::string& ordered_by) const {
  const SystemTime now = Time();
  v1::Operation operation;
  operation.set_id(NewUlid(now));
  operation.set_kind(kind);
  operation.set_state(v1::OPERATION_STATE_QUEUED);
  operation.set_device_id(device.value());
  operation.set_database(database);
  operation.set_ordered_by(ordered_by);
  *operation.mutable_created_at() = ToProtoTime(now);
  return operation;
}

absl::Status DeviceFleet::CheckRoom(const std::map<DeviceId, size_t>& wanted) const {
  for (const auto& [device, count] : wanted) {
    const size_t active = table_->CountActive(device, catalog::Origin::kOrdered);
    if (active + count <= kMaxOrdersPerDevice) continue;
    return Error(
        absl::StatusCode::kResourceExhausted, "TOO_MANY_OPERATIONS",
        fmt::format("device {} has {} operations that have not ended, at most {} are kept", device.value(), active, kMaxOrdersPerDevice),
        "wait for them or cancel some");
  }
  return absl::OkStatus();
}

void DeviceFleet::SendOrders(const std::vector<OperationTable::Entry>& entries) {
  LF_CRASH_POINT("fleet.order_durable");
  for (const OperationTable::Entry& entry : entries) {
    if (entry.operation.state() != v1::OPERATION_STATE_QUEUED) continue;  // of an earlier call, and gone on since
    SendTo(DeviceId(entry.operation.device_id()), OrderMessage(entry.order));
  }
}

absl::StatusOr<std::vector<v1::Operation>> DeviceFleet::StartBackups(const std::vector<BackupOrder>& orders, std::chrono::seconds expire,
                                                                     const std::string& request_id, const std::string& ordered_by) {
  if (orders.empty()) return std::vector<v1::Operation>();
  std::map<DeviceId, size_t> wanted;
  for (const BackupOrder& order : orders) ++wanted[order.device];
  LF_RETURN_IF_ERROR(CheckRoom(wanted));
  const SystemTime expires = Time() + (expire.count() <= 0 ? kDefaultExpire : std::min(expire, kMaxExpire));
  std::vector<catalog::OperationRow> rows;
  for (const BackupOrder& wish : orders) {
    catalog::OperationRow& row = rows.emplace_back();
    row.operation = NewOperation(v1::OPERATION_KIND_BACKUP, wish.device, wish.database, ordered_by);
    *row.operation.mutable_expires_at() = ToProtoTime(expires);
    row.order.set_operation_id(row.operation.id());
    *row.order.mutable_expires_at() = row.operation.expires_at();
    v1::BackupOrder& backup = *row.order.mutable_backup();
    backup.set_database(wish.database);
    backup.set_method(wish.method);
    backup.set_full(wish.full);
    if (wish.dump.has_value()) *backup.mutable_dump() = *wish.dump;
    LF_ASSIGN_OR_RETURN(*backup.mutable_newest_snapshot_id(), parts_.reports->NewestSnapshot(wish.device, wish.database));
    row.request_id = request_id;
  }
  LF_ASSIGN_OR_RETURN(const std::vector<OperationTable::Entry> entries, table_->Create(rows));
  SendOrders(entries);
  std::vector<v1::Operation> operations;
  for (const OperationTable::Entry& entry : entries) {
    FillLive(operations.emplace_back(entry.operation));
  }
  return operations;
}

absl::StatusOr<v1::Operation> DeviceFleet::StartRestore(const DeviceId& device, const v1::RestoreOrder& order, std::chrono::seconds expire,
                                                        const std::string& request_id, const std::string& ordered_by) {
  catalog::OperationRow row;
  row.operation = NewOperation(v1::OPERATION_KIND_RESTORE, device, order.database(), ordered_by);
  row.operation.set_snapshot_id(order.snapshot_id());
  row.operation.set_restore_mode(order.mode());
  *row.order.mutable_restore() = order;
  row.request_id = request_id;
  return StartOne(device, std::move(row), expire);
}

absl::StatusOr<v1::Operation> DeviceFleet::StartUndo(const DeviceId& device, const v1::UndoOrder& order, std::chrono::seconds expire,
                                                     const std::string& request_id, const std::string& ordered_by) {
  catalog::OperationRow row;
  row.operation = NewOperation(v1::OPERATION_KIND_UNDO, device, order.database(), ordered_by);
  *row.order.mutable_undo() = order;
  row.request_id = request_id;
  return StartOne(device, std::move(row), expire);
}

absl::StatusOr<v1::Operation> DeviceFleet::StartDropUndo(const DeviceId& device, const v1::DropUndoOrder& order,
                                                         std::chrono::seconds expire, const std::string& request_id,
                                                         const std::string& ordered_by) {
  catalog::OperationRow row;
  row.operation = NewOperation(v1::OPERATION_KIND_DROP_UNDO, device, order.database(), ordered_by);
  *row.order.mutable_drop_undo() = order;
  row.request_id = request_id;
  return StartOne(device, std::move(row), expire);
}

absl::StatusOr<v1::Operation> DeviceFleet::StartOne(const DeviceId& device, catalog::OperationRow row, std::chrono::seconds expire) {
  LF_RETURN_IF_ERROR(CheckRoom({{device, 1}}));
  const auto lasts = expire.count() <= 0 ? kDefaultExpire : std::min(expire, kMaxExpire);
  const SystemTime now = Time();
  *row.operation.mutable_expires_at() = ToProtoTime(now + lasts);
  row.order.set_operation_id(row.operation.id());
  // A device that waits for a confirmation goes by its own clock. Where the controller's time is on hold behind the system clock, after a
  // long rest, its end would have come before anybody could confirm it there; the operation ends by the controller's time all the same.
  *row.order.mutable_expires_at() = ToProtoTime(std::max(now, parts_.clock->Now()) + lasts);
  LF_ASSIGN_OR_RETURN(const std::vector<OperationTable::Entry> entries, table_->Create({row}));
  SendOrders(entries);
  v1::Operation operation = entries.front().operation;
  FillLive(operation);
  return operation;
}

absl::StatusOr<v1::Operation> DeviceFleet::StartHeal(const DeviceId& device, const v1::HealOrder& order, const std::string& ordered_by) {
  LF_RETURN_IF_ERROR(CheckRoom({{device, 1}}));
  if (IsHealing(device, order.database()))
    return Error(absl::StatusCode::kAlreadyExists, "HEAL_RUNNING", fmt::format("{} is asked for lost chunks already", order.database()));
  catalog::OperationRow row;
  row.operation = NewOperation(v1::OPERATION_KIND_HEAL, device, order.database(), ordered_by);
  *row.operation.mutable_expires_at() = ToProtoTime(Time() + kDefaultExpire);
  row.order.set_operation_id(row.operation.id());
  *row.order.mutable_expires_at() = row.operation.expires_at();
  *row.order.mutable_heal() = order;
  LF_ASSIGN_OR_RETURN(const std::vector<OperationTable::Entry> entries, table_->Create({row}));
  SendOrders(entries);
  return entries.front().operation;
}

bool DeviceFleet::IsHealing(const DeviceId& device, const std::string& database) const {
  const std::vector<OperationTable::Entry> active = table_->ActiveOf(device);
  return std::any_of(active.begin(), active.end(), [&](const OperationTable::Entry& entry) {
    return entry.order.has_heal() && entry.order.heal().database() == database;
  });
}

absl::StatusOr<v1::HealOrder> DeviceFleet::HealOrderOf(const DeviceId& device, const OperationId& operation) const {
  const std::optional<OperationTable::Entry> entry = table_->FindActive(operation);
  if (entry.has_value() && entry->operation.device_id() == device.value() && entry->order.has_heal()) return entry->order.heal();
  return Error(absl::StatusCode::kNotFound, "ORDER_NOT_FOUND", fmt::format("{} is no order to heal of this device", operation.value()));
}

void DeviceFleet::QueryPlan(const DeviceId& device, const v1::Query& query, std::chrono::milliseconds timeout, PlanDone done) {
  SessionPtr session;
  absl::Status refused;
  {
    MutexLock lock(mu_);
    const auto at = sessions_.find(device);
    if (at == sessions_.end()) {
      refused = Error(absl::StatusCode::kUnavailable, "DEVICE_OFFLINE", "the device is not connected", "try again when it is back");
    } else if (at->second->queries.size() >= kMaxQueries) {
      refused = Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_QUERIES",
                      fmt::format("{} questions to this device are open", kMaxQueries), "try again in a moment");
    } else {
      session = at->second;
      const uint64_t id = session->next_query++;
      v1::ControlResponse message;
      *message.mutable_query() = query;
      message.mutable_query()->set_query_id(id);
      session->outbox.push_back(std::move(message));
      session->queries.emplace(id, PendingQuery{parts_.clock->Steady() + timeout, std::move(done)});
    }
  }
  if (!refused.ok()) return done(refused);
  Flush(session);
}

absl::StatusOr<v1::Operation> DeviceFleet::Cancel(const OperationId& operation) {
  const std::optional<OperationTable::Entry> entry = table_->FindActive(operation);
  if (!entry.has_value()) {
    LF_ASSIGN_OR_RETURN(const catalog::OperationRow row, parts_.operations->Get(operation));
    return Ended(row.operation);
  }
  LF_ASSIGN_OR_RETURN(OperationTable::Changed changed,
                      table_->Change(operation, [&](v1::Operation& stored) { return ApplyCancel(stored, Time()); }));
  if (changed.outcome == Outcome::kEnded) return Ended(changed.operation);
  LF_CRASH_POINT("fleet.cancel_durable");
  if (entry->origin != catalog::Origin::kLocal) {
    SendTo(DeviceId(changed.operation.device_id()), CancelMessage(operation.value()));
  } else if (changed.outcome == Outcome::kChanged) {
    CallOnCancel(operation);
    LF_ASSIGN_OR_RETURN(const catalog::OperationRow row, parts_.operations->Get(operation));
    changed.operation = row.operation;
  }
  FillLive(changed.operation);
  return std::move(changed.operation);
}

void DeviceFleet::CallOnCancel(const OperationId& operation) {
  std::function<void()> on_cancel;
  {
    MutexLock lock(mu_);
    if (const auto at = on_cancel_.find(operation); at != on_cancel_.end()) {
      on_cancel = std::move(at->second);
      on_cancel_.erase(at);
    }
  }
  if (on_cancel) return on_cancel();
  // Nobody carries it out.
  const auto changed =
      table_->Change(operation, [&](v1::Operation& stored) { return ApplyAbandoned(stored, absl::CancelledError("cancelled"), Time()); });
  if (!changed.ok()) spdlog::warn("operation {} could not be ended: {}", operation.value(), MessageOf(changed.status()));
}

absl::StatusOr<v1::Operation> DeviceFleet::StartLocal(v1::OperationKind kind, const DeviceId& device, const std::string& database,
                                                      const SnapshotId& snapshot, const std::string& request_id,
                                                      const std::string& ordered_by, std::function<void()> on_cancel) {
  if (table_->CountActive(device, catalog::Origin::kLocal) >= kMaxOrdersPerDevice) {
    return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_OPERATIONS", "too many checks of this device's snapshots wait already",
                 "wait for them or cancel some");
  }
  catalog::OperationRow row;
  row.origin = catalog::Origin::kLocal;
  row.operation = NewOperation(kind, device, database, ordered_by);
  row.operation.set_snapshot_id(snapshot.value());
  row.request_id = request_id;
  const OperationId id(row.operation.id());
  {
    MutexLock lock(mu_);
    on_cancel_[id] = std::move(on_cancel);
  }
  const absl::StatusOr<std::vector<OperationTable::Entry>> entries = table_->Create({row});
  if (!entries.ok() || entries->front().operation.id() != id.value()) {
    MutexLock lock(mu_);
    on_cancel_.erase(id);
  }
  LF_RETURN_IF_ERROR(entries.status());
  return entries->front().operation;
}

absl::Status DeviceFleet::UpdateLocal(const v1::Operation& operation) {
  const OperationId id(operation.id());
  const bool ends = IsResultState(operation.state());
  if (!ends && table_->KeepProgress(id, operation.progress())) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const OperationTable::Changed changed,
                      table_->Change(id, [&](v1::Operation& stored) { return ApplyLocal(stored, operation, Time()); }));
  if (ends) {
    MutexLock lock(mu_);
    on_cancel_.erase(id);
  }
  return changed.outcome == Outcome::kEnded ? Ended(changed.operation) : absl::OkStatus();
}

std::vector<v1::Operation> DeviceFleet::ActiveLocal() const {
  std::vector<v1::Operation> operations;
  for (const OperationTable::Entry& entry : table_->ActiveLocal()) operations.push_back(entry.operation);
  return operations;
}

absl::Status DeviceFleet::AdoptLocal(const OperationId& operation, std::function<void()> on_cancel) {
  const std::optional<OperationTable::Entry> entry = table_->FindActive(operation);
  if (!entry.has_value() || entry->origin != catalog::Origin::kLocal) {
    return Error(absl::StatusCode::kNotFound, "OPERATION_NOT_FOUND",
                 fmt::format("{} is no operation of the controller that runs", operation.value()));
  }
  MutexLock lock(mu_);
  on_cancel_[operation] = std::move(on_cancel);
  return absl::OkStatus();
}

void DeviceFleet::FillLive(v1::Operation& operation) const {
  table_->FillProgress(operation);
  FillDevice(operation);
}

void DeviceFleet::FillDevice(v1::Operation& operation) const {
  operation.set_device_connected(!operation.device_id().empty() && IsConnected(DeviceId(operation.device_id())));
  const std::optional<SystemTime> until = UnheardUntil(operation);
  if (until.has_value()) *operation.mutable_cancel_ends_at() = ToProtoTime(*until);
}

absl::StatusOr<uint64_t> DeviceFleet::Watch(const OperationId& operation, Watcher watcher) {
  return table_->AddWatch(operation, [this, call = std::move(watcher)](const v1::Operation& now) {
    v1::Operation complete = now;
    FillDevice(complete);
    call(complete);
  });
}

void DeviceFleet::Unwatch(uint64_t watch) { table_->RemoveWatch(watch); }

absl::StatusOr<bool> DeviceFleet::MayFetch(const DeviceId& device, const OperationId& operation, const SnapshotId& snapshot) {
  const std::optional<OperationTable::Entry> entry = table_->FindActive(operation);
  return entry.has_value() && entry->operation.device_id() == device.value() && entry->order.has_restore() &&
         entry->order.restore().snapshot_id() == snapshot.value() && entry->operation.state() != v1::OPERATION_STATE_CANCELLING;
}

}  // namespace litefleet::fleet
