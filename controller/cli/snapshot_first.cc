#include "controller/cli/snapshot_first.h"

#include <utility>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {

void SnapshotFirst::AddTo(WaveItem& item, const std::string& target) {
  item.before = [this, target](const std::string& request_id) { return Begin(target, request_id); };
  item.before_done = [this, target](const v1::Operation& backup) { return Keep(target, backup); };
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

absl::Status SnapshotFirst::Keep(const std::string& target, const v1::Operation& backup) {
  v1::PinSnapshotRequest request;
  request.set_snapshot(backup.snapshot_id());
  LF_ASSIGN_OR_RETURN(const v1::PinSnapshotResponse pinned, client_.PinSnapshot(request));
  const v1::Snapshot& snapshot = pinned.snapshot();
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
  snapshots_[target] = snapshot.id();
  return absl::OkStatus();
}

void SnapshotFirst::AddTo(const v1::Operation& restore, Json& item) const {
  const auto found = snapshots_.find(DatabaseName(restore));
  item.Set("before_snapshot", Json::OrNull(found == snapshots_.end() ? std::string() : found->second));
}

void SnapshotFirst::TellHowToGoBack() const {
  for (const auto& [target, snapshot] : snapshots_) {
    session_.Note(
        fmt::format("{0}: the state before is snapshot {1}, pinned; back to it: litefleet restore {0} --snapshot {1}; when it is not "
                    "needed any more: litefleet snapshot unpin {1}",
                    target, snapshot));
  }
}

}  // namespace litefleet::cli
