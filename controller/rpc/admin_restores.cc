#include <memory>

#include "absl/strings/match.h"

#include "common/base/error_detail.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/format/digest.h"
#include "controller/catalog/gap_catalog.h"
#include "controller/rpc/admin_handlers.h"
#include "controller/rpc/admin_requests.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

constexpr size_t kMaxSignedPayload = 4096;
constexpr int kMaxTables = 1000;
constexpr size_t kMaxTableName = 1000;
constexpr size_t kMaxSignature = 256;
constexpr int64_t kReserveBytes = 64 << 20;  // what a plan without the device assumes that stays free

// One that was ordered on the device itself, or its undo after a hook that failed.
bool IsOperationOfAgent(std::string_view id) {
  constexpr size_t kUlid = 26;
  return IsUlid(id.substr(0, kUlid)) && (id.size() == kUlid || id.substr(kUlid) == "-undo");
}

// What the checks after the restore may not fall behind: the verdict on the stored copy, else what was seen of the source.
v1::CheckState RecordedVerdict(const v1::Snapshot& snapshot) {
  switch (snapshot.check()) {
    case v1::CHECK_STATE_OK:
    case v1::CHECK_STATE_DAMAGED:
    case v1::CHECK_STATE_CANNOT_TELL:
      return snapshot.check();
    default:
      return snapshot.source_check() == v1::CHECK_STATE_DAMAGED ? v1::CHECK_STATE_DAMAGED : v1::CHECK_STATE_UNKNOWN;
  }
}

// What can be said without the device: as it was last reported, with the worst case of everything else.
v1::RestorePlan PlanFromCatalog(const v1::RestoreOrder& order, const v1::Snapshot& snapshot, const v1::Database& target, SystemTime now) {
  v1::RestorePlan plan;
  const v1::DatabaseHealth& health = target.health();
  plan.set_mode(order.mode() != v1::RESTORE_MODE_UNSPECIFIED ? order.mode()
                : health.present()                           ? v1::RESTORE_MODE_LIVE
                                                             : v1::RESTORE_MODE_NEW);
  plan.set_snapshot_id(snapshot.id());
  plan.set_size_bytes(snapshot.size_bytes());
  plan.set_fetch_bytes(snapshot.size_bytes());
  plan.set_staging_bytes(snapshot.size_bytes());
  if (health.present()) plan.set_undo_bytes(health.size_bytes() + health.wal_bytes());
  if (plan.mode() == v1::RESTORE_MODE_LIVE) plan.set_journal_bytes(std::max(snapshot.size_bytes(), health.size_bytes()));
  plan.set_reserve_bytes(kReserveBytes);
  plan.set_free_bytes(health.free_bytes());
  plan.set_journal_mode(plan.mode() == v1::RESTORE_MODE_LIVE ? health.journal_mode() : snapshot.journal_mode());
  plan.set_from_device(false);
  *plan.mutable_made_at() = ToProtoTime(now);
  return plan;
}

}  // namespace

absl::Status AdminHandlers::ResolveAt(const DatabaseReference& source, const v1::RestoreTarget& wanted, ResolvedRestore& resolved) const {
  const DeviceId device(source.device.id());
  LF_ASSIGN_OR_RETURN(const SystemTime at, CheckedTime(wanted.at(), "at"));
  const auto timeline = wanted.timeline() != 0 ? std::optional<uint64_t>(wanted.timeline()) : std::nullopt;
  auto found = deps_.snapshots->At(device, source.database, at, timeline);
  if (!found.ok() && ReasonOf(found.status()) != "NO_SNAPSHOT_THEN") return found.status();
  LF_ASSIGN_OR_RETURN(resolved.after, deps_.snapshots->After(device, source.database, at));
  LF_ASSIGN_OR_RETURN(auto gap, catalog::GapCatalog(*deps_.catalog).At(device, source.database, at));
  if (gap.has_value()) {
    v1::GapAround& around = resolved.gap.emplace();
    *around.mutable_gap() = *std::move(gap);
    if (found.ok()) *around.mutable_before() = *found;
    if (resolved.after.has_value()) *around.mutable_after() = *resolved.after;
  }
  if (!found.ok()) {
    if (!resolved.gap.has_value() || !resolved.after.has_value()) return found.status();
    return Annotate(found.status(), fmt::format("the time lies in a gap ({}), and the first snapshot after it is {}",
                                                resolved.gap->gap().reason(), resolved.after->id()));
  }
  resolved.snapshot = *std::move(found);
  return absl::OkStatus();
}

absl::StatusOr<AdminHandlers::ResolvedRestore> AdminHandlers::ResolveRestore(const v1::RestoreTarget& wanted) const {
  if (!wanted.snapshot().empty() && wanted.has_at()) {
    return Invalid("RESTORE_TARGET_INVALID", "a snapshot and a time exclude each other", "give either --snapshot or --at");
  }
  if (wanted.timeline() != 0 && !wanted.has_at()) {
    return Invalid("RESTORE_TARGET_INVALID", "a timeline is of use only together with a time", "give --at too, or a snapshot instead");
  }
  if (wanted.source().empty() && wanted.snapshot().empty()) {
    return Invalid("RESTORE_TARGET_INVALID", "neither a database nor a snapshot was given");
  }
  if (!v1::RestoreMode_IsValid(wanted.mode()))
    return Invalid("RESTORE_MODE_INVALID", fmt::format("{} is no mode of restore", static_cast<int>(wanted.mode())));

  ResolvedRestore resolved;
  std::optional<DatabaseReference> source;
  if (!wanted.source().empty()) {
    LF_ASSIGN_OR_RETURN(source, ResolveDatabaseReference(wanted.source(), "source"));
  }
  if (!wanted.snapshot().empty()) {
    LF_ASSIGN_OR_RETURN(resolved.snapshot, deps_.snapshots->Resolve(wanted.snapshot()));
    if (source.has_value() && (source->device.id() != resolved.snapshot.device_id() || source->database != resolved.snapshot.database())) {
      return Error(absl::StatusCode::kInvalidArgument, "SNAPSHOT_OF_OTHER_DATABASE",
                   fmt::format("snapshot {} is one of {}/{}, not of {}", resolved.snapshot.id(), resolved.snapshot.device_name(),
                               resolved.snapshot.database(), wanted.source()),
                   fmt::format("to restore it elsewhere: litefleet restore {}/{} --snapshot {} --to {}", resolved.snapshot.device_name(),
                               resolved.snapshot.database(), resolved.snapshot.id(), wanted.source()));
    }
  } else {
    absl::Status found = absl::OkStatus();
    if (wanted.has_at()) {
      found = ResolveAt(*source, wanted, resolved);
    } else {
      auto newest = deps_.snapshots->Newest(DeviceId(source->device.id()), source->database);
      found = newest.status();
      if (newest.ok()) resolved.snapshot = *std::move(newest);
    }
    if (!found.ok()) return ByName(found, source->device);
  }
  const v1::Snapshot& snapshot = resolved.snapshot;
  if (snapshot.state() != v1::SNAPSHOT_STATE_COMMITTED) {
    return Error(absl::StatusCode::kFailedPrecondition, "SNAPSHOT_NOT_RESTORABLE",
                 fmt::format("snapshot {} is not complete ({})", snapshot.id(), v1::SnapshotState_Name(snapshot.state())),
                 fmt::format("choose another one: litefleet snapshot list {}/{}", snapshot.device_name(), snapshot.database()));
  }
  if (snapshot.root_digest().size() != format::kDigestBytes) {
    return Error(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED",
                 fmt::format("the catalog has no root digest of snapshot {}", snapshot.id()),
                 "rebuild the catalog: litefleet-controller rebuild");
  }

  DatabaseReference target;
  if (!wanted.target().empty()) {
    LF_ASSIGN_OR_RETURN(target, ResolveDatabaseReference(wanted.target(), "target"));
  } else if (source.has_value()) {
    // Not the snapshot's: it may have come to this database from another one.
    target = *std::move(source);
  } else {
    LF_ASSIGN_OR_RETURN(target.device, deps_.identities->ResolveDevice(snapshot.device_id()));
    target.database = snapshot.database();
  }
  if (target.device.state() == v1::DEVICE_STATE_REVOKED) {
    return Error(absl::StatusCode::kFailedPrecondition, "DEVICE_REVOKED", fmt::format("device {} was revoked", target.device.name()),
                 "restore to another device with --to, or to a file with `litefleet snapshot download`");
  }
  auto known = deps_.snapshots->GetDatabase(DeviceId(target.device.id()), target.database);
  if (!known.ok()) {
    if (!absl::IsNotFound(known.status())) return known.status();
    return Error(
        absl::StatusCode::kNotFound, "DATABASE_NOT_FOUND",
        fmt::format("device {} has not reported any database '{}'", target.device.name(), target.database),
        fmt::format("name it in the device's agent.toml; `litefleet device show {}` shows the ones that are known", target.device.name()));
  }
  resolved.target = *std::move(known);
  resolved.target_device = std::move(target.device);

  v1::RestoreOrder& order = resolved.order;
  order.set_database(target.database);
  order.set_snapshot_id(snapshot.id());
  order.set_mode(wanted.mode());
  order.set_page_size(snapshot.page_size());
  order.set_page_count(snapshot.page_count());
  order.set_root_digest(snapshot.root_digest());
  order.set_root_version(format::kRootVersion);
  order.set_content(snapshot.content());
  order.set_part(snapshot.part());
  order.set_journal_mode(snapshot.journal_mode());
  order.set_check_state(RecordedVerdict(snapshot));
  order.set_check_override(wanted.check_override());
  if (wanted.tables_size() > kMaxTables) return Invalid("TABLES_INVALID", fmt::format("more than {} tables", kMaxTables));
  if (wanted.tables_size() > 0 && wanted.mode() == v1::RESTORE_MODE_REPLACE) {
    return Invalid("TABLES_INVALID", "a database that is replaced would have the chosen tables alone",
                   "restore them live (the default), or download them into a file of their own");
  }
  for (const std::string& table : wanted.tables()) {
    if (table.empty() || table.size() > kMaxTableName || table.find('\0') != std::string::npos)
      return Invalid("TABLES_INVALID", "a table has no name that can be one");
    if (absl::StartsWithIgnoreCase(table, "sqlite_")) {
      return Invalid("TABLES_INVALID", fmt::format("table {} is SQLite's own", table),
                     "the counter of a table with AUTOINCREMENT comes with the table");
    }
    order.add_tables(table);
  }
  if (wanted.has_signature()) {
    if (wanted.signature().payload().size() > kMaxSignedPayload || wanted.signature().signature().size() > kMaxSignature)
      return Invalid("SIGNATURE_INVALID", "the signature of the order is too long to be one");
    *order.mutable_signature() = wanted.signature();
  }
  return resolved;
}

void AdminHandlers::PlanRestore(const v1::PlanRestoreRequest& request,
                                absl::AnyInvocable<void(Answer<v1::PlanRestoreResponse>)> done) const {
  auto resolved = ResolveRestore(request.restore());
  if (!resolved.ok()) return done(resolved.status());
  const DeviceId device(resolved->target_device.id());
  // A plan reserves nothing: it asks with the timeline that would come next.
  const auto highest = deps_.snapshots->HighestTimeline(device, resolved->target.name());
  if (!highest.ok()) return done(highest.status());
  resolved->order.set_new_timeline(*highest + 1);
  const v1::RestorePlan from_catalog = PlanFromCatalog(resolved->order, resolved->snapshot, resolved->target, deps_.clock->Now());
  v1::PlanRestoreResponse response;
  response.set_target(fmt::format("{}/{}", resolved->target_device.name(), resolved->target.name()));
  *response.mutable_snapshot() = resolved->snapshot;
  if (resolved->gap.has_value()) *response.mutable_gap() = *resolved->gap;
  if (resolved->after.has_value()) *response.mutable_after() = *resolved->after;
  if (!deps_.fleet->IsConnected(device)) {
    *response.mutable_plan() = from_catalog;
    return done(std::move(response));
  }
  const Clock* clock = deps_.clock;
  v1::Query query;
  *query.mutable_restore_plan() = resolved->order;
  deps_.fleet->QueryPlan(
      device, query, deps_.plan_timeout,
      [clock, from_catalog, response = std::move(response), done = std::move(done)](absl::StatusOr<v1::RestorePlan> plan) mutable {
        *response.mutable_plan() = from_catalog;
        if (plan.ok()) {
          *response.mutable_plan() = *std::move(plan);
          response.mutable_plan()->set_from_device(true);
          if (!response.plan().has_made_at()) *response.mutable_plan()->mutable_made_at() = ToProtoTime(clock->Now());
        } else if (!absl::IsUnavailable(plan.status()) && !absl::IsDeadlineExceeded(plan.status())) {
          // The device did answer: it would refuse the order.
          response.mutable_plan()->set_from_device(true);
          *response.mutable_plan()->add_obstacles() = ToErrorDetail(plan.status());
        }
        done(std::move(response));
      });
}

absl::StatusOr<v1::StartRestoreResponse> AdminHandlers::StartRestore(const v1::StartRestoreRequest& request,
                                                                     const std::string& ordered_by) const {
  LF_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  LF_ASSIGN_OR_RETURN(const std::chrono::seconds expire, CheckedDuration(request.has_expire(), request.expire(), std::chrono::seconds(1),
                                                                         kMaxExpire, kDefaultExpire, "expire"));
  LF_ASSIGN_OR_RETURN(ResolvedRestore resolved, ResolveRestore(request.restore()));
  // The timeline is reserved under the caller's request, so that a repeated call gets the same one; without a request id it is a call
  // that nobody can repeat.
  const std::string request_id = request.request_id().empty() ? NewUlid(deps_.clock->Now()) : request.request_id();
  const DeviceId device(resolved.target_device.id());
  LF_ASSIGN_OR_RETURN(const uint64_t timeline, deps_.snapshots->ReserveTimeline(device, resolved.target.name(),
                                                                                OperationId(fmt::format("{}/{}", ordered_by, request_id))));
  resolved.order.set_new_timeline(timeline);
  LF_ASSIGN_OR_RETURN(v1::Operation operation, deps_.fleet->StartRestore(device, resolved.order, expire, request_id, ordered_by));
  Complete(operation);
  v1::StartRestoreResponse response;
  *response.mutable_operation() = std::move(operation);
  if (resolved.gap.has_value()) *response.mutable_gap() = *std::move(resolved.gap);
  return response;
}

absl::StatusOr<AdminHandlers::ResolvedUndo> AdminHandlers::ResolveUndo(const std::string& database,
                                                                       const std::string& restore_operation) const {
  LF_ASSIGN_OR_RETURN(DatabaseReference target, ResolveDatabaseReference(database, "database"));
  if (target.device.state() == v1::DEVICE_STATE_REVOKED) {
    return Error(absl::StatusCode::kFailedPrecondition, "DEVICE_REVOKED", fmt::format("device {} was revoked", target.device.name()),
                 "undo it on the device: litefleet-agent undo");
  }
  ResolvedUndo resolved;
  resolved.order.set_database(target.database);
  if (!restore_operation.empty()) {
    LF_ASSIGN_OR_RETURN(const v1::Operation restore, deps_.operations->Resolve(restore_operation));
    const bool restores = restore.kind() == v1::OPERATION_KIND_RESTORE || restore.kind() == v1::OPERATION_KIND_UNDO;
    if (!restores || restore.device_id() != target.device.id() || restore.database() != target.database)
      return Invalid("NO_RESTORE_OF_IT", fmt::format("operation {} is no restore of {}", restore.id(), database));
    resolved.order.set_restore_operation_id(restore.id());
  }
  resolved.device = std::move(target.device);
  return resolved;
}

void AdminHandlers::PlanUndo(const v1::PlanUndoRequest& request, absl::AnyInvocable<void(Answer<v1::PlanUndoResponse>)> done) const {
  const auto resolved = ResolveUndo(request.database(), request.restore_operation());
  if (!resolved.ok()) return done(resolved.status());
  const DeviceId device(resolved->device.id());
  const auto highest = deps_.snapshots->HighestTimeline(device, resolved->order.database());
  if (!highest.ok()) return done(highest.status());
  v1::Query query;
  *query.mutable_undo_plan() = resolved->order;
  query.mutable_undo_plan()->set_new_timeline(*highest + 1);
  v1::PlanUndoResponse response;
  response.set_target(fmt::format("{}/{}", resolved->device.name(), resolved->order.database()));
  deps_.fleet->QueryPlan(device, query, deps_.plan_timeout,
                         [response = std::move(response), done = std::move(done)](absl::StatusOr<v1::RestorePlan> plan) mutable {
                           if (!plan.ok()) return done(plan.status());
                           *response.mutable_plan() = *std::move(plan);
                           response.mutable_plan()->set_from_device(true);
                           done(std::move(response));
                         });
}

absl::StatusOr<v1::StartUndoResponse> AdminHandlers::StartUndo(const v1::StartUndoRequest& request, const std::string& ordered_by) const {
  LF_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  LF_ASSIGN_OR_RETURN(const std::chrono::seconds expire, CheckedDuration(request.has_expire(), request.expire(), std::chrono::seconds(1),
                                                                         kMaxExpire, kDefaultExpire, "expire"));
  LF_ASSIGN_OR_RETURN(ResolvedUndo resolved, ResolveUndo(request.database(), request.restore_operation()));
  const std::string request_id = request.request_id().empty() ? NewUlid(deps_.clock->Now()) : request.request_id();
  const DeviceId device(resolved.device.id());
  LF_ASSIGN_OR_RETURN(const uint64_t timeline, deps_.snapshots->ReserveTimeline(device, resolved.order.database(),
                                                                                OperationId(fmt::format("{}/{}", ordered_by, request_id))));
  resolved.order.set_new_timeline(timeline);
  v1::StartUndoResponse response;
  LF_ASSIGN_OR_RETURN(*response.mutable_operation(), deps_.fleet->StartUndo(device, resolved.order, expire, request_id, ordered_by));
  Complete(*response.mutable_operation());
  return response;
}

absl::StatusOr<v1::StartDropUndoResponse> AdminHandlers::StartDropUndo(const v1::StartDropUndoRequest& request,
                                                                       const std::string& ordered_by) const {
  LF_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  LF_ASSIGN_OR_RETURN(const std::chrono::seconds expire, CheckedDuration(request.has_expire(), request.expire(), std::chrono::seconds(1),
                                                                         kMaxExpire, kDefaultExpire, "expire"));
  const std::string& restore = request.restore_operation();
  // By the time that the device fetches the order another restore may be its last.
  if (restore.empty()) return Invalid("RESTORE_UNNAMED", "the restore whose previous state goes is not named");
  absl::StatusOr<ResolvedUndo> resolved = ResolveUndo(request.database(), restore);
  // One that was begun on the device is not known here; the device looks whether it is its last.
  if (ReasonOf(resolved.status()) == "OPERATION_NOT_FOUND" && IsOperationOfAgent(restore)) {
    resolved = ResolveUndo(request.database(), "");
    if (resolved.ok()) resolved->order.set_restore_operation_id(restore);
  }
  LF_RETURN_IF_ERROR(resolved.status());
  v1::DropUndoOrder drop;
  drop.set_database(resolved->order.database());
  drop.set_restore_operation_id(resolved->order.restore_operation_id());
  const std::string request_id = request.request_id().empty() ? NewUlid(deps_.clock->Now()) : request.request_id();
  v1::StartDropUndoResponse response;
  LF_ASSIGN_OR_RETURN(*response.mutable_operation(),
                      deps_.fleet->StartDropUndo(DeviceId(resolved->device.id()), drop, expire, request_id, ordered_by));
  Complete(*response.mutable_operation());
  return response;
}

}  // namespace litefleet::rpc
