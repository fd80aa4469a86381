#include "controller/cli/snapshot_first.h"

#include <utility>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/cli/command_support.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {

void SnapshotFirst::AddTo(WaveItem& item, const std::string& target, const std::string& restored) {
  item.before = [this, target](const std::string& request_id) { return Begin(target, request_id); };
  item.before_done = [this, target, restored](const v1::Operation& backup) { return Keep(target, restored, backup); };
}

absl::StatusOr<v1::Operation> SnapshotFirst::Begin(const std::string& target, const std::string& request_id) {
  v1::StartBackupsRequest request;
  request.add_databases(target);
  *request.mutable_expire() = Seconds(expire_);
  request.set_request_id(request_id);
  LF_ASSIGN_OR_RETURN(v1::StartBackupsResponse response, client_.StartBackups(request));
  if (response.operations_size() != 1) return Error(absl::StatusCode::kInternal, "ANSWER_INVALID", "the controller ordered no backup");
  return std::move(*response.mutable_operations(0));
}

absl::StatusOr<std::optional<v1::Operation>> SnapshotFirst::RestoreBehind(const v1::Operation& backup, const std::string& restored) {
  std::optional<v1::Operation> found;
  v1::ListOperationsRequest all;
  all.set_device(backup.device_id());
  LF_RETURN_IF_ERROR(AllPages(all, [&](const v1::ListOperationsRequest& request) -> absl::StatusOr<std::string> {
    LF_ASSIGN_OR_RETURN(const v1::ListOperationsResponse response, client_.ListOperations(request));
    for (const v1::Operation& each : response.operations()) {  // newest first
      if (FromProtoTime(each.created_at()) < FromProtoTime(backup.created_at())) return std::string();
      const bool same = each.kind() == v1::OPERATION_KIND_RESTORE && each.database() == backup.database() &&
                        each.snapshot_id() == restored && each.ordered_by() == backup.ordered_by();
      if (!same) continue;
      found = each;
      return std::string();
    }
    return response.next_page_token();
  }));
  return found;
}

absl::StatusOr<std::optional<v1::Operation>> SnapshotFirst::Keep(const std::string& target, const std::string& restored,
                                                                 const v1::Operation& backup) {
  v1::PinSnapshotRequest request;
  request.set_snapshot(backup.snapshot_id());
  *request.mutable_duration() = Seconds(pin_for_);
  request.set_at_least(true);  // a command that goes on takes nothing from what an operator has pinned for longer since
  const absl::StatusOr<v1::PinSnapshotResponse> pinned = client_.PinSnapshot(request);
  if (absl::IsNotFound(pinned.status()) || ReasonOf(pinned.status()) == "SNAPSHOT_IN_TRASH") {
    LF_ASSIGN_OR_RETURN(std::optional<v1::Operation> found, RestoreBehind(backup, restored));
    if (found.has_value()) return found;
  }
  LF_RETURN_IF_ERROR(pinned.status());
  const v1::Snapshot& snapshot = pinned->snapshot();
  if (!snapshot.part().empty()) {
    v1::UnpinSnapshotRequest unpin;
    unpin.set_snapshot(snapshot.id());
    LF_RETURN_IF_ERROR(client_.UnpinSnapshot(unpin).status());
    return Error(absl::StatusCode::kFailedPrecondition, "SNAPSHOT_OF_PART",
                 fmt::format("the device backs up a part of {} alone ({}): that is no way back", target, snapshot.part()),
                 fmt::format("nothing was restored; restore without --snapshot-first, or take the whole yourself: litefleet backup {} "
                             "--method online",
                             target));
  }
  // A command that goes on finds what it had taken, and restores to databases that were written since where it was stopped in between.
  if (backup.has_ended_at() && FromProtoTime(backup.ended_at()) < began_) {
    session_.Note(
        fmt::format("{}: the snapshot of before, {}, is of {}", target, snapshot.id(), LocalTimeText(FromProtoTime(snapshot.taken_at()))));
  }
  snapshots_[target] = snapshot;
  return std::nullopt;
}

void SnapshotFirst::AddTo(const v1::Operation& restore, Json& item) const {
  const auto found = snapshots_.find(DatabaseName(restore));
  const v1::Snapshot none;
  const v1::Snapshot& snapshot = found == snapshots_.end() ? none : found->second;
  item.Set("before_snapshot", Json::OrNull(snapshot.id()))
      .Set("before_pinned_until", TimeJson(snapshot.has_pinned_until(), snapshot.pinned_until()));
}

void SnapshotFirst::TellHowToGoBack() const {
  for (const auto& [target, snapshot] : snapshots_) {
    session_.Note(
        fmt::format("{0}: the state before is snapshot {1}, pinned {2}; back to it: litefleet restore {0} --snapshot {1}; when it is not "
                    "needed any more: litefleet snapshot unpin {1}",
                    target, snapshot.id(), PinText(snapshot)));
  }
}

}  // namespace litefleet::cli
