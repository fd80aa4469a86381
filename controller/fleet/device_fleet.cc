// The devices' half: sessions and what they say. The operators' half is in operator_fleet.cc.
#include "controller/fleet/device_fleet.h"

#include <utility>

#include "common/base/crash_point.h"
#include "common/base/error_detail.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/fleet/device_messages.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"

namespace litefleet::fleet {
namespace {

constexpr std::chrono::milliseconds kTick{200};
constexpr int kMissedHealths = 3;

constexpr std::chrono::seconds kClockWasSet{30};
constexpr std::chrono::seconds kClocksAgree{5};

absl::Status Replaced() {
  return Error(absl::StatusCode::kAborted, "REPLACED_BY_NEWER_STREAM", "a newer control stream of this device took the place of this one");
}

absl::Status DeviceGone() {
  return Error(absl::StatusCode::kUnavailable, "DEVICE_OFFLINE", "the device disconnected before it answered", "try again when it is back");
}

absl::Status NotYours(const std::string& operation) {
  return Error(absl::StatusCode::kFailedPrecondition, "NOT_YOUR_OPERATION", fmt::format("{} is no operation of this device", operation));
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceFleet>> DeviceFleet::Create(const DeviceFleetParts& parts, const DeviceFleetOptions& options) {
  LF_ASSIGN_OR_RETURN(std::unique_ptr<OperationTable> table, OperationTable::Load(*parts.operations));
  return std::unique_ptr<DeviceFleet>(new DeviceFleet(parts, options, std::move(table)));
}

DeviceFleet::DeviceFleet(const DeviceFleetParts& parts, const DeviceFleetOptions& options, std::unique_ptr<OperationTable> table)
    : parts_(parts), options_(options), table_(std::move(table)), persisted_at_(parts.clock->Steady()) {
  if (options_.own_ticker) ticker_ = std::thread([this] { RunTicker(); });
}

DeviceFleet::~DeviceFleet() {
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  wake_.SignalAll();
  if (ticker_.joinable()) ticker_.join();
  CloseAll(Error(absl::StatusCode::kUnavailable, "SHUTTING_DOWN", "the controller is shutting down"));
  table_->PersistProgress();
}

void DeviceFleet::RunTicker() {
  for (;;) {
    {
      MutexLock lock(mu_);
      if (!stop_) wake_.WaitUntil(mu_, std::chrono::steady_clock::now() + kTick);
      if (stop_) return;
    }
    Tick();
  }
}

DeviceFleet::SessionPtr DeviceFleet::CurrentSession(const DeviceId& device, const DeviceLink& link) const {
  MutexLock lock(mu_);
  const auto at = sessions_.find(device);
  return at != sessions_.end() && at->second->link.get() == &link ? at->second : nullptr;
}

absl::Status DeviceFleet::Connected(const DeviceId& device, std::shared_ptr<DeviceLink> link, const v1::Hello& hello) {
  LF_RETURN_IF_ERROR(CheckHello(hello, kMaxNamedOperations));
  LF_ASSIGN_OR_RETURN(const std::vector<v1::DatabaseHealth> databases, CheckedDatabases(hello.databases(), kMaxDatabases));
  LF_ASSIGN_OR_RETURN(const std::string name, parts_.reports->NameOfActive(device));
  const SystemTime now = parts_.clock->Now();
  const int64_t offset_ms = hello.has_device_time() ? ToUnixMillis(now) - TimestampMillis(hello.device_time()) : 0;
  const v1::Hello cut = CutHello(hello);
  LF_RETURN_IF_ERROR(parts_.reports->Said(device, now, &cut, offset_ms, nullptr));
  LF_RETURN_IF_ERROR(parts_.reports->Databases(device, now, databases));

  v1::ControlResponse message;
  v1::Welcome& welcome = *message.mutable_welcome();
  *welcome.mutable_controller_time() = ToProtoTime(now);
  welcome.set_controller_version(parts_.controller_version);
  welcome.set_protocol_version(kProtocolVersion);
  *welcome.mutable_health_interval() = ToProtoDuration(options_.health_interval);
  welcome.set_clock_offset_ms(offset_ms);
  welcome.set_device_id(device.value());
  welcome.set_device_name(name);

  const auto session = std::make_shared<Session>();
  session->link = std::move(link);
  session->clock_offset = std::chrono::milliseconds(offset_ms);
  session->heard_at = parts_.clock->Steady();
  session->health_saved_at = session->heard_at;
  session->policy_version = hello.policy_version();
  session->configured_as = ConfiguredAs(databases);
  session->policy_answered = PolicyAnswer(hello.policy_version(), hello.policy_problems());
  session->outbox.push_back(std::move(message));
  SessionPtr older;
  {
    MutexLock lock(mu_);
    if (closed_) return Error(absl::StatusCode::kUnavailable, "SHUTTING_DOWN", "the controller is shutting down");
    older = std::exchange(sessions_[device], session);
  }
  if (older != nullptr) {
    const absl::Status replaced = Replaced();
    Drop(device, older, &replaced);
  }
  // Whoever revoked the device before it stood here found nothing to end.
  if (const absl::Status still = parts_.reports->NameOfActive(device).status(); !still.ok()) {
    Drop(device, session, nullptr);
    return still;
  }
  OfferPolicy(device, session);
  // Before the orders, so that none of them is answered by what is not there.
  TellOfGone(device, session, databases);
  Reconcile(device, session, hello);
  Flush(session);
  table_->Touch(device);
  if (parts_.on_orderable) parts_.on_orderable();
  spdlog::info("device {} ({}) connected, version {}, clock off by {} ms", name, device.value(), cut.agent_version(), offset_ms);
  return absl::OkStatus();
}

void DeviceFleet::Reconcile(const DeviceId& device, const SessionPtr& session, const v1::Hello& hello) {
  std::set<std::string> named;
  for (const std::string& id : hello.active_operation_ids()) {
    if (IsUlid(id)) named.insert(id);
  }
  std::vector<v1::ControlResponse> messages;
  std::vector<OperationId> unnamed;
  for (const OperationTable::Entry& entry : table_->ActiveOf(device)) {
    const std::string& id = entry.operation.id();
    if (entry.origin == catalog::Origin::kLocal) continue;
    if (entry.operation.state() == v1::OPERATION_STATE_CANCELLING) {
      messages.push_back(CancelMessage(id));
    } else if (entry.origin == catalog::Origin::kOrdered) {
      messages.push_back(OrderMessage(entry.order));
    }
    if (entry.origin == catalog::Origin::kDevice && !named.contains(id)) unnamed.emplace_back(id);
    named.erase(id);
  }
  // What is left has ended here, or was never heard of; the latter explains itself with its first report.
  for (const std::string& id : named) {
    const absl::StatusOr<catalog::OperationRow> row = parts_.operations->Get(OperationId(id));
    if (row.ok() && row->operation.device_id() == device.value() && !catalog::IsActive(row->operation.state())) {
      messages.push_back(CancelMessage(id));
    }
  }
  MutexLock lock(mu_);
  for (v1::ControlResponse& message : messages) session->outbox.push_back(std::move(message));
  for (const OperationId& id : unnamed) session->unnamed[id] = parts_.clock->Steady() + options_.lost_after;
}

absl::Status DeviceFleet::Received(const DeviceId& device, DeviceLink& link, const v1::ControlRequest& message) {
  const SessionPtr session = CurrentSession(device, link);
  if (session == nullptr) return Replaced();
  {
    MutexLock lock(mu_);
    session->heard_at = parts_.clock->Steady();
  }
  switch (message.message_case()) {
    case v1::ControlRequest::kHello:
      return BadMessage("a second hello in one stream");
    case v1::ControlRequest::kHealth:
      return OnHealth(device, session, message.health());
    case v1::ControlRequest::kOrderAccepted:
      return OnAccepted(device, message.order_accepted().operation_id());
    case v1::ControlRequest::kProgress:
      return OnProgress(device, session, message.progress());
    case v1::ControlRequest::kResult:
      return OnResult(device, session, message.result());
    case v1::ControlRequest::kQueryResult:
      OnQueryResult(session, message.query_result());
      return absl::OkStatus();
    case v1::ControlRequest::kGap:
      return OnGap(device, session, message.gap().gap());
    case v1::ControlRequest::kChainCheck:
      return OnChainCheck(device, session, message.chain_check());
    default:
      return absl::OkStatus();  // of a newer agent
  }
}

void DeviceFleet::Disconnected(const DeviceId& device, DeviceLink& link) {
  if (const SessionPtr session = CurrentSession(device, link); session != nullptr) {
    Drop(device, session, nullptr);
    spdlog::info("device {} disconnected", device.value());
  }
}

void DeviceFleet::Drop(const DeviceId& device, const SessionPtr& session, const absl::Status* why) {
  std::map<uint64_t, PendingQuery> queries;
  {
    MutexLock lock(mu_);
    if (const auto at = sessions_.find(device); at != sessions_.end() && at->second == session) sessions_.erase(at);
    queries.swap(session->queries);
    session->outbox.clear();
  }
  for (auto& [id, query] : queries) query.done(DeviceGone());
  if (why != nullptr) session->link->Close(*why);
  table_->Touch(device);
}

void DeviceFleet::Flush(const SessionPtr& session) {
  for (;;) {
    std::deque<v1::ControlResponse> batch;
    {
      MutexLock lock(mu_);
      if (session->flushing || session->outbox.empty()) return;
      session->flushing = true;
      batch.swap(session->outbox);
    }
    for (const v1::ControlResponse& message : batch) session->link->Send(message);
    MutexLock lock(mu_);
    session->flushing = false;
  }
}

void DeviceFleet::SendTo(const DeviceId& device, v1::ControlResponse message) {
  SessionPtr session;
  {
    MutexLock lock(mu_);
    const auto at = sessions_.find(device);
    if (at == sessions_.end()) return;
    session = at->second;
    session->outbox.push_back(std::move(message));
  }
  Flush(session);
}

absl::Status DeviceFleet::OnHealth(const DeviceId& device, const SessionPtr& session, const v1::Health& health) {
  LF_ASSIGN_OR_RETURN(const std::vector<v1::DatabaseHealth> databases, CheckedDatabases(health.databases(), kMaxDatabases));
  const size_t configured_as = ConfiguredAs(databases);
  std::chrono::milliseconds offset;
  const std::chrono::milliseconds measured(
      health.has_device_time() ? ToUnixMillis(parts_.clock->Now()) - TimestampMillis(health.device_time()) : 0);
  {
    MutexLock lock(mu_);
    const SteadyTime now = parts_.clock->Steady();
    if (health.has_device_time()) MeasureClock(*session, measured, now);
    // What answers a policy is news whenever it comes, and so are other databases: a device tells of them once, when it has read its
    // configuration again.
    const std::string answer =
        health.has_policy_version() ? PolicyAnswer(health.policy_version(), health.policy_problems()) : session->policy_answered;
    if (session->health_saved_at.has_value() && now - *session->health_saved_at < options_.health_interval / 4 &&
        answer == session->policy_answered && configured_as == session->configured_as)
      return absl::OkStatus();
    session->health_saved_at = now;
    session->configured_as = configured_as;
    session->policy_answered = answer;
    offset = session->clock_offset;
  }
  const SystemTime now = parts_.clock->Now();
  v1::Health cut = health;
  cut.clear_databases();
  CutSentences(*cut.mutable_policy_problems());
  LF_RETURN_IF_ERROR(parts_.reports->Said(device, now, nullptr, offset.count(), &cut));
  LF_RETURN_IF_ERROR(parts_.reports->Databases(device, now, databases));
  TellOfGone(device, session, databases);
  if (health.has_policy_version()) {
    {
      MutexLock lock(mu_);
      session->policy_version = health.policy_version();
    }
    // It could not keep what it was sent, or did not have it yet when it said this: the same one twice is fine.
    OfferPolicy(device, session);
    Flush(session);
  }
  return absl::OkStatus();
}

void DeviceFleet::MeasureClock(Session& session, std::chrono::milliseconds measured, SteadyTime now) const {
  const std::chrono::milliseconds more = measured - session.clock_offset;
  const std::optional<Session::ClockSeems> before = std::exchange(session.clock_seems, std::nullopt);
  if (std::chrono::abs(more) <= kClockWasSet) return;  // what a message may be late by the link says nothing
  // It has set its clock since the hello. A message that is late on a slow link can only make the difference larger: a smaller one is
  // believed at once, a larger one when a later message says the same.
  const bool again =
      before.has_value() && now - before->at >= options_.health_interval / 4 && std::chrono::abs(measured - before->offset) <= kClocksAgree;
  if (more < std::chrono::milliseconds(0)) {
    session.clock_offset = measured;
  } else if (again) {
    session.clock_offset = std::min(measured, before->offset);
  } else {
    // Of several that came at once the first one counts, so that one a second does not put it off.
    const bool soon = before.has_value() && now - before->at < options_.health_interval / 4;
    session.clock_seems = soon ? before : Session::ClockSeems{.offset = measured, .at = now};
  }
}

void DeviceFleet::TellOfGone(const DeviceId& device, const SessionPtr& session, std::span<const v1::DatabaseHealth> databases) {
  for (const v1::DatabaseHealth& database : databases) {
    if (database.last_snapshot_id().empty()) continue;
    // An error of the catalog shows elsewhere; the next health asks again.
    const auto newest = parts_.reports->NewestSnapshot(device, database.name());
    if (!newest.ok()) continue;
    // It may be about to hear of a newer one, whose answer was lost or is on its way: only who says it again has gone back.
    const std::string said = database.last_snapshot_id() + " " + *newest;
    if (*newest >= database.last_snapshot_id()) {
      MutexLock lock(mu_);
      if (std::exchange(session->named_older[database.name()], said) != said || *newest == database.last_snapshot_id()) continue;
    }
    v1::ControlResponse message;
    message.mutable_snapshot_gone()->set_database(database.name());
    message.mutable_snapshot_gone()->set_snapshot_id(database.last_snapshot_id());
    SendTo(device, std::move(message));
  }
}

absl::Status DeviceFleet::OnAccepted(const DeviceId& device, const std::string& operation) {
  if (!IsUlid(operation)) return BadMessage("order_accepted without an operation's id");
  bool foreign = false;
  const absl::StatusOr<OperationTable::Changed> changed = table_->Change(OperationId(operation), [&](v1::Operation& stored) {
    foreign = stored.device_id() != device.value();
    return foreign ? Outcome::kUnchanged : ApplyAccepted(stored);
  });
  if (foreign) return NotYours(operation);
  if (!changed.ok() && !absl::IsNotFound(changed.status())) return changed.status();
  // Ended, or of a catalog that was lost: the device need not begin.
  if (!changed.ok() || changed->outcome == Outcome::kEnded) SendTo(device, CancelMessage(operation));
  return absl::OkStatus();
}

absl::Status DeviceFleet::OnProgress(const DeviceId& device, const SessionPtr& session, const v1::OperationProgress& progress) {
  const std::string& id = progress.operation_id();
  if (!IsUlid(id)) return BadMessage("progress without an operation's id");
  const OperationId operation(id);
  const std::optional<OperationTable::Entry> entry = table_->FindActive(operation);
  if (entry.has_value()) {
    if (entry->operation.device_id() != device.value() || entry->origin == catalog::Origin::kLocal) return NotYours(id);
    {
      MutexLock lock(mu_);
      session->unnamed.erase(operation);
    }
    if (table_->KeepProgress(operation, progress.progress())) return absl::OkStatus();
  }
  const SystemTime now = Time();
  bool foreign = false;
  const absl::StatusOr<OperationTable::Changed> changed = table_->Change(operation, [&](v1::Operation& stored) {
    foreign = stored.device_id() != device.value();
    return foreign ? Outcome::kUnchanged : ApplyProgress(stored, progress.progress(), now);
  });
  if (foreign) return NotYours(id);
  if (changed.ok()) {
    if (changed->outcome == Outcome::kEnded) SendTo(device, CancelMessage(id));
    return absl::OkStatus();
  }
  if (!absl::IsNotFound(changed.status())) return changed.status();
  std::chrono::milliseconds offset;
  {
    MutexLock lock(mu_);
    offset = session->clock_offset;
  }
  absl::StatusOr<catalog::OperationRow> row =
      OwnOperation(device, id, progress.kind(), progress.database(), progress.has_started_at() ? &progress.started_at() : nullptr, offset);
  if (absl::IsNotFound(row.status())) {
    SendTo(device, CancelMessage(id));
    return absl::OkStatus();
  }
  LF_RETURN_IF_ERROR(row.status());
  if (table_->CountActive(device, catalog::Origin::kDevice) >= kMaxOwnPerDevice) {
    return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_OPERATIONS",
                 fmt::format("the device has begun {} operations that have not ended", kMaxOwnPerDevice));
  }
  MergeProgress(*row->operation.mutable_progress(), progress.progress());
  return table_->Create({*row}).status();
}

absl::Status DeviceFleet::OnResult(const DeviceId& device, const SessionPtr& session, const v1::OperationResult& result) {
  const std::string& id = result.operation_id();
  if (!IsUlid(id)) return BadMessage("a result without an operation's id");
  if (!IsResultState(result.state())) return BadMessage(fmt::format("a result of the state {}", static_cast<int>(result.state())));
  std::chrono::milliseconds offset;
  {
    MutexLock lock(mu_);
    offset = session->clock_offset;
    session->unnamed.erase(OperationId(id));
  }
  const SystemTime now = Time();
  bool foreign = false;
  const absl::StatusOr<OperationTable::Changed> changed = table_->Change(OperationId(id), [&](v1::Operation& stored) {
    foreign = stored.device_id() != device.value() || stored.kind() == v1::OPERATION_KIND_CHECK;
    return foreign ? Outcome::kUnchanged : ApplyResult(stored, result, offset, now);
  });
  if (foreign) return NotYours(id);
  if (absl::IsNotFound(changed.status())) {
    absl::StatusOr<catalog::OperationRow> row =
        OwnOperation(device, id, result.kind(), result.database(), result.has_started_at() ? &result.started_at() : nullptr, offset);
    if (row.ok()) {
      ApplyResult(row->operation, result, offset, now);
      LF_RETURN_IF_ERROR(table_->Create({*row}).status());
    } else if (!absl::IsNotFound(row.status())) {
      return row.status();
    }
  } else if (!changed.ok()) {
    return changed.status();
  }
  LF_CRASH_POINT("fleet.result_durable");
  SendTo(device, RecordedMessage(id));
  // What it could not give as a whole is asked for page by page, now that the first order has ended.
  if (result.kind() == v1::OPERATION_KIND_HEAL && parts_.on_orderable) parts_.on_orderable();
  return absl::OkStatus();
}

absl::Status DeviceFleet::CountGap(const SessionPtr& session) {
  MutexLock lock(mu_);
  if (++session->gaps <= kMaxGaps) return absl::OkStatus();
  return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_GAPS",
               fmt::format("the device told of more than {} gaps on one stream", kMaxGaps));
}

absl::Status DeviceFleet::OnGap(const DeviceId& device, const SessionPtr& session, const v1::CoverageGap& gap) {
  LF_RETURN_IF_ERROR(CountGap(session));
  const SystemTime now = parts_.clock->Now();
  LF_ASSIGN_OR_RETURN(const v1::CoverageGap checked, CheckedGap(gap, now));
  const absl::Status status = parts_.reports->Gap(device, checked, now);
  if (absl::IsNotFound(status)) {
    // Nothing could show it, now or later.
    spdlog::warn("device {}: a gap ({}) of a database that it never reported is left out: {}", device.value(), checked.reason(),
                 checked.database());
  } else if (!status.ok()) {
    return status;
  }
  LF_CRASH_POINT("fleet.gap_durable");
  SendTo(device, GapRecordedMessage(checked.id()));
  return absl::OkStatus();
}

absl::Status DeviceFleet::OnChainCheck(const DeviceId& device, const SessionPtr& session, const v1::ChainCheck& check) {
  if (!IsName(check.database()) || !IsUlid(check.snapshot_id())) return BadMessage("a check of a chain without database or snapshot");
  LF_ASSIGN_OR_RETURN(const std::optional<bool> equal, parts_.reports->CheckChain(device, check, parts_.clock->Now()));
  if (equal == false) {
    // Only these are gaps: a device may compare every second for as long as it lives.
    LF_RETURN_IF_ERROR(CountGap(session));
    spdlog::error("device {}: its database {} is not what snapshot {} says: snapshots since the last check are in question", device.value(),
                  check.database(), check.snapshot_id());
  }
  LF_CRASH_POINT("fleet.chain_durable");
  v1::ControlResponse answer;
  answer.mutable_chain_checked()->set_database(check.database());
  // Without a snapshot: the controller does not have it any more.
  if (equal.has_value()) answer.mutable_chain_checked()->set_snapshot_id(check.snapshot_id());
  answer.mutable_chain_checked()->set_equal(equal.value_or(false));
  SendTo(device, std::move(answer));
  return absl::OkStatus();
}

absl::StatusOr<catalog::OperationRow> DeviceFleet::OwnOperation(const DeviceId& device, const std::string& id, v1::OperationKind kind,
                                                                const std::string& database, const google::protobuf::Timestamp* started_at,
                                                                std::chrono::milliseconds clock_offset) const {
  const bool restores = kind == v1::OPERATION_KIND_RESTORE || kind == v1::OPERATION_KIND_UNDO;
  if (kind != v1::OPERATION_KIND_BACKUP && !restores) {
    // An order of a catalog that was lost, or that the history keeps no more. The device must hear so, or it would ask for ever.
    return absl::NotFoundError(fmt::format("no device begins an operation of the kind {}", static_cast<int>(kind)));
  }
  if (!IsName(database)) return BadMessage("a device began an operation of a database without a valid name");
  catalog::OperationRow row;
  row.origin = catalog::Origin::kDevice;
  row.operation = NewOperation(kind, device, database, restores ? "device" : "schedule");
  row.operation.set_id(id);
  row.operation.set_state(v1::OPERATION_STATE_RUNNING);
  const SystemTime now = Time();
  // It may have begun while the device was offline; more than its history keeps is not believed.
  SystemTime began = now;
  if (started_at != nullptr) began = std::clamp(FromProtoTime(*started_at) + clock_offset, now - catalog::OperationCatalog::kMaxAge, now);
  *row.operation.mutable_created_at() = ToProtoTime(began);
  *row.operation.mutable_started_at() = ToProtoTime(began);
  return row;
}

void DeviceFleet::OnQueryResult(const SessionPtr& session, const v1::QueryResult& result) {
  std::optional<PendingQuery> query;
  {
    MutexLock lock(mu_);
    const auto at = session->queries.find(result.query_id());
    if (at == session->queries.end()) return;  // answered too late
    query = std::move(at->second);
    session->queries.erase(at);
  }
  if (result.error().code() != 0) {
    query->done(FromErrorDetail(CutError(result.error())));
  } else if (!result.has_restore_plan()) {
    query->done(Error(absl::StatusCode::kInternal, "BAD_MESSAGE", "the device answered something else than a plan"));
  } else {
    v1::RestorePlan plan = result.restore_plan();
    plan.set_from_device(true);
    query->done(std::move(plan));
  }
}

void DeviceFleet::Tick() {
  const SteadyTime steady = parts_.clock->Steady();
  const SystemTime now = Time();
  std::vector<std::pair<DeviceId, SessionPtr>> silent;
  std::vector<PlanDone> late;
  std::vector<OperationId> lost;
  bool persist = false;
  bool purge = false;
  {
    MutexLock lock(mu_);
    for (auto& [device, session] : sessions_) {
      if (steady - session->heard_at > kMissedHealths * options_.health_interval) silent.emplace_back(device, session);
      for (auto at = session->queries.begin(); at != session->queries.end();) {
        if (at->second.deadline > steady) {
          ++at;
          continue;
        }
        late.push_back(std::move(at->second.done));
        at = session->queries.erase(at);
      }
      for (auto at = session->unnamed.begin(); at != session->unnamed.end();) {
        if (at->second > steady) {
          ++at;
          continue;
        }
        lost.push_back(at->first);
        at = session->unnamed.erase(at);
      }
    }
    persist = steady - persisted_at_ >= options_.persist_progress;
    if (persist) persisted_at_ = steady;
    purge = !purged_at_.has_value() || steady - *purged_at_ >= options_.purge_interval;
    if (purge) purged_at_ = steady;
  }
  for (const auto& [device, session] : silent) {
    const absl::Status why =
        Error(absl::StatusCode::kDeadlineExceeded, "HEARTBEAT_MISSING", "nothing was heard of the device for three intervals");
    spdlog::warn("device {}: {}", device.value(), MessageOf(why));
    Drop(device, session, &why);
  }
  for (PlanDone& done : late) {
    done(Error(absl::StatusCode::kDeadlineExceeded, "DEVICE_SLOW", "the device did not answer in time", "try again"));
  }
  for (const OperationId& id : lost) {
    const auto changed = table_->Change(id, [&](v1::Operation& operation) { return ApplyAbandoned(operation, OperationLost(), now); });
    if (!changed.ok()) spdlog::warn("operation {}: {}", id.value(), MessageOf(changed.status()));
  }
  for (const OperationId& id : table_->QueuedPast(now)) {
    const auto changed = table_->Change(id, [&](v1::Operation& operation) { return ApplyExpiry(operation, now); });
    if (!changed.ok()) {
      spdlog::warn("operation {} could not be ended as expired: {}", id.value(), MessageOf(changed.status()));
    } else if (changed->outcome == Outcome::kChanged) {
      SendTo(DeviceId(changed->operation.device_id()), CancelMessage(id.value()));
    }
  }
  for (const auto& [id, device] : table_->CancelsUnheard(now)) {
    if (IsConnected(device)) continue;
    const auto changed = table_->Change(id, [&](v1::Operation& operation) { return ApplyUnheard(operation, now); });
    if (!changed.ok()) spdlog::warn("operation {} could not be ended as cancelled: {}", id.value(), MessageOf(changed.status()));
  }
  OfferDuePolicies();
  if (persist) table_->PersistProgress();
  if (purge) {
    if (const auto expired = parts_.operations->Expire(now); !expired.ok())
      spdlog::warn("old operations stay: {}", MessageOf(expired.status()));
  }
}

}  // namespace litefleet::fleet
