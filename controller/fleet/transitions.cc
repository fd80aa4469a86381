#include "controller/fleet/transitions.h"

#include <algorithm>
#include <string_view>

#include "common/base/error_detail.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/catalog/operation_catalog.h"

namespace litefleet::fleet {
namespace {

constexpr size_t kMaxPhase = 64;
constexpr size_t kMaxReason = 63;
constexpr int kMaxHooks = 16;
constexpr size_t kMaxHookOutput = 4096;
constexpr std::string_view kLost = "OPERATION_LOST";
constexpr std::string_view kRefused = "OPERATION_CANCELLED";  // of an upload, by ingest
constexpr std::string_view kUnheard = "CANCELLED_UNHEARD";
constexpr std::chrono::hours kUnheardRestore{24};

// It may be in the step that does.
bool ChangesDatabase(const v1::Operation& operation) {
  return operation.kind() == v1::OPERATION_KIND_RESTORE || operation.kind() == v1::OPERATION_KIND_UNDO;
}

}  // namespace

std::string CutText(const std::string& text, size_t limit) {
  if (text.size() <= limit) return text;
  size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

namespace {

void End(v1::Operation& operation, v1::OperationState state, SystemTime now) {
  operation.set_state(state);
  *operation.mutable_ended_at() = ToProtoTime(now);
}

void Begin(v1::Operation& operation, SystemTime at) {
  operation.set_state(v1::OPERATION_STATE_RUNNING);
  if (!operation.has_started_at()) *operation.mutable_started_at() = ToProtoTime(at);
}

// The device's time by the controller's clock, but never before the operation was made nor after now.
SystemTime OnOurClock(const google::protobuf::Timestamp& time, std::chrono::milliseconds offset, const v1::Operation& operation,
                      SystemTime now) {
  const SystemTime earliest = std::min(now, FromProtoTime(operation.created_at()));
  return std::clamp(FromProtoTime(time) + offset, earliest, now);
}

// Ended without the device's word, which is still believed.
bool IsProvisional(const v1::Operation& operation) {
  const std::string& reason = operation.error().info().reason();
  return (operation.state() == v1::OPERATION_STATE_FAILED && reason == kLost) ||
         (operation.state() == v1::OPERATION_STATE_CANCELLED && reason == kUnheard);
}

}  // namespace

absl::Status OperationLost() {
  return Error(absl::StatusCode::kAborted, kLost, "the device no longer knows this operation",
               "look at the agent's log and order it again");
}

bool IsResultState(v1::OperationState state) {
  return state == v1::OPERATION_STATE_SUCCEEDED || state == v1::OPERATION_STATE_PARTLY || state == v1::OPERATION_STATE_FAILED ||
         state == v1::OPERATION_STATE_CANCELLED;
}

void MergeProgress(v1::Progress& into, const v1::Progress& from) {
  into.set_total_bytes(std::max(into.total_bytes(), from.total_bytes()));
  into.set_done_bytes(std::max(into.done_bytes(), from.done_bytes()));
  if (into.total_bytes() > 0) into.set_done_bytes(std::min(into.done_bytes(), into.total_bytes()));
  into.set_wire_bytes(std::max(into.wire_bytes(), from.wire_bytes()));
  into.set_read_bytes(std::max(into.read_bytes(), from.read_bytes()));
  into.set_changed_bytes(std::max(into.changed_bytes(), from.changed_bytes()));
  if (!from.phase().empty()) into.set_phase(CutText(from.phase(), kMaxPhase));
}

v1::ErrorDetail CutError(const v1::ErrorDetail& error) {
  v1::ErrorDetail cut;
  cut.set_code(error.code() >= 1 && error.code() <= 16 ? error.code() : static_cast<int>(absl::StatusCode::kUnknown));
  cut.set_message(CutText(error.message(), kMaxText));
  cut.mutable_info()->set_reason(CutText(error.info().reason(), kMaxReason));
  cut.mutable_info()->set_hint(CutText(error.info().hint(), kMaxText));
  return cut;
}

Outcome ApplyAccepted(v1::Operation& operation) {
  if (!catalog::IsActive(operation.state())) return Outcome::kEnded;
  if (operation.state() != v1::OPERATION_STATE_QUEUED) return Outcome::kUnchanged;
  operation.set_state(v1::OPERATION_STATE_SENT);
  return Outcome::kChanged;
}

Outcome ApplyProgress(v1::Operation& operation, const v1::Progress& progress, SystemTime now) {
  if (!catalog::IsActive(operation.state())) return Outcome::kEnded;
  MergeProgress(*operation.mutable_progress(), progress);
  if (operation.state() == v1::OPERATION_STATE_QUEUED || operation.state() == v1::OPERATION_STATE_SENT) Begin(operation, now);
  return Outcome::kChanged;
}

Outcome ApplyResult(v1::Operation& operation, const v1::OperationResult& result, std::chrono::milliseconds clock_offset, SystemTime now) {
  if (!catalog::IsActive(operation.state()) && !IsProvisional(operation)) return Outcome::kEnded;
  // It heard of the cancel from the upload.
  const bool refused = (operation.state() == v1::OPERATION_STATE_CANCELLING || operation.state() == v1::OPERATION_STATE_CANCELLED) &&
                       result.state() == v1::OPERATION_STATE_FAILED && result.error().info().reason() == kRefused;
  operation.clear_error();
  MergeProgress(*operation.mutable_progress(), result.progress());
  if (result.has_started_at()) {
    *operation.mutable_started_at() = ToProtoTime(OnOurClock(result.started_at(), clock_offset, operation, now));
  }
  End(operation, refused ? v1::OPERATION_STATE_CANCELLED : result.state(),
      result.has_ended_at() ? OnOurClock(result.ended_at(), clock_offset, operation, now) : now);
  if (operation.has_started_at() && FromProtoTime(operation.started_at()) > FromProtoTime(operation.ended_at())) {
    *operation.mutable_started_at() = operation.ended_at();
  }
  if (result.state() == v1::OPERATION_STATE_SUCCEEDED) {
    v1::Progress& progress = *operation.mutable_progress();
    progress.set_done_bytes(progress.total_bytes() > 0 ? progress.total_bytes() : progress.done_bytes());
  } else if (result.has_error()) {
    *operation.mutable_error() = CutError(result.error());
  } else if (result.state() == v1::OPERATION_STATE_FAILED) {
    *operation.mutable_error() = ToErrorDetail(Error(absl::StatusCode::kUnknown, "NO_REASON", "the device gave no reason"));
  }
  if (IsUlid(result.snapshot_id())) operation.set_snapshot_id(result.snapshot_id());
  operation.clear_steps();
  for (int i = 0; i < std::min(result.steps_size(), kMaxSteps); ++i) operation.add_steps(CutText(result.steps(i), kMaxStep));
  operation.set_undo(CutText(result.undo(), kMaxText));
  if (result.restore_mode() != v1::RESTORE_MODE_UNSPECIFIED && v1::RestoreMode_IsValid(result.restore_mode())) {
    operation.set_restore_mode(result.restore_mode());
  }
  if (result.has_stall()) *operation.mutable_stall() = result.stall();
  operation.clear_hooks();
  for (int i = 0; i < std::min(result.hooks_size(), kMaxHooks); ++i) {
    v1::HookRun& run = *operation.add_hooks();
    run = result.hooks(i);
    run.set_hook(CutText(run.hook(), kMaxReason));
    run.set_output(CutText(run.output(), kMaxHookOutput));
  }
  return Outcome::kChanged;
}

Outcome ApplyCancel(v1::Operation& operation, SystemTime now) {
  if (!catalog::IsActive(operation.state())) return Outcome::kEnded;
  if (operation.state() == v1::OPERATION_STATE_CANCELLING) return Outcome::kUnchanged;
  if (operation.state() == v1::OPERATION_STATE_QUEUED) {
    End(operation, v1::OPERATION_STATE_CANCELLED, now);
  } else {
    operation.set_state(v1::OPERATION_STATE_CANCELLING);
  }
  return Outcome::kChanged;
}

std::optional<SystemTime> UnheardUntil(const v1::Operation& operation) {
  if (operation.state() != v1::OPERATION_STATE_CANCELLING || !ChangesDatabase(operation)) return std::nullopt;
  return std::max<SystemTime>(FromProtoTime(operation.created_at()) + kUnheardRestore, FromProtoTime(operation.expires_at()));
}

bool EndsUnheard(const v1::Operation& operation, SystemTime now) {
  if (operation.state() != v1::OPERATION_STATE_CANCELLING) return false;
  const std::optional<SystemTime> until = UnheardUntil(operation);
  return !until.has_value() || now >= *until;
}

Outcome ApplyUnheard(v1::Operation& operation, SystemTime now) {
  if (!catalog::IsActive(operation.state())) return Outcome::kEnded;
  if (!EndsUnheard(operation, now)) return Outcome::kUnchanged;
  End(operation, v1::OPERATION_STATE_CANCELLED, now);
  const std::string_view message = ChangesDatabase(operation)
                                       ? "cancelled, and the device was not heard of since: whether it had changed the database before is "
                                         "not known, and it is told when it is back"
                                       : "cancelled while the device was offline: it is told when it is back";
  *operation.mutable_error() = ToErrorDetail(
      Error(absl::StatusCode::kCancelled, kUnheard, message, "if it had finished before, its result takes the place of this"));
  return Outcome::kChanged;
}

Outcome ApplyExpiry(v1::Operation& operation, SystemTime now) {
  if (!catalog::IsActive(operation.state())) return Outcome::kEnded;
  if (operation.state() != v1::OPERATION_STATE_QUEUED) return Outcome::kUnchanged;
  End(operation, v1::OPERATION_STATE_EXPIRED, now);
  *operation.mutable_error() = ToErrorDetail(catalog::OrderExpired());
  return Outcome::kChanged;
}

Outcome ApplyAbandoned(v1::Operation& operation, const absl::Status& why, SystemTime now) {
  if (!catalog::IsActive(operation.state())) return Outcome::kEnded;
  const bool cancelled = operation.state() == v1::OPERATION_STATE_CANCELLING;
  End(operation, cancelled ? v1::OPERATION_STATE_CANCELLED : v1::OPERATION_STATE_FAILED, now);
  if (!cancelled) *operation.mutable_error() = ToErrorDetail(why);
  return Outcome::kChanged;
}

Outcome ApplyLocal(v1::Operation& operation, const v1::Operation& report, SystemTime now) {
  if (!catalog::IsActive(operation.state())) return Outcome::kEnded;
  MergeProgress(*operation.mutable_progress(), report.progress());
  if (!report.snapshot_id().empty()) operation.set_snapshot_id(report.snapshot_id());
  *operation.mutable_steps() = report.steps();
  if (report.has_prune()) *operation.mutable_prune() = report.prune();
  if (report.has_scrub()) *operation.mutable_scrub() = report.scrub();
  if (IsResultState(report.state())) {
    End(operation, report.state(), now);
    if (report.has_error()) *operation.mutable_error() = report.error();
    v1::Progress& progress = *operation.mutable_progress();
    if (report.state() == v1::OPERATION_STATE_SUCCEEDED && progress.total_bytes() > 0) progress.set_done_bytes(progress.total_bytes());
  } else if (report.state() == v1::OPERATION_STATE_RUNNING && operation.state() == v1::OPERATION_STATE_QUEUED) {
    Begin(operation, now);
  }
  return Outcome::kChanged;
}

void SetLocalEnd(v1::Operation& report, const absl::Status& status) {
  report.set_state(status.ok()                 ? v1::OPERATION_STATE_SUCCEEDED
                   : absl::IsCancelled(status) ? v1::OPERATION_STATE_CANCELLED
                                               : v1::OPERATION_STATE_FAILED);
  if (!status.ok()) *report.mutable_error() = ToErrorDetail(status);
}

}  // namespace litefleet::fleet
