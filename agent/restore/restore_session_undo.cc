// What is different in a RestoreSession that undoes.
#include "agent/restore/restore_session.h"
#include "common/base/crash_point.h"
#include "fmt/format.h"

namespace litefleet::restore {

// The path does not have the file that was there when its removal began; until then that file has two names.
bool RestoreSession::IsRemoved(const std::optional<struct stat>& target) const {
  const auto kept = place_->Stat(TargetPlace::TemporaryUndoName(state_.operation_id()));
  if (!kept.ok() || !kept->has_value()) return false;
  return !target.has_value() || target->st_ino != (*kept)->st_ino || target->st_dev != (*kept)->st_dev;
}

// The kept state gets the name of the staging file: it stays what it is, whatever happens on the way.
absl::Status RestoreSession::TakeUndo() {
  state_.set_step(storage::v1::RESTORE_STEP_STAGED);
  if (removes()) return absl::OkStatus();
  progress_.Begin("looking", 0, 60);
  LF_ASSIGN_OR_RETURN(auto taken, place_->Stat(staging_name()));
  if (!taken.has_value()) {
    LF_RETURN_IF_ERROR(place_->RenameNew(place_->UndoName(), staging_name()));
    LF_CRASH_POINT("restore.undo.taken");
    LF_ASSIGN_OR_RETURN(taken, place_->Stat(staging_name()));
  }
  // The name is in a directory that others may write to.
  LF_RETURN_IF_ERROR(CheckKept(state_.undoes(), taken));
  LF_RETURN_IF_ERROR(place_->Sync());
  LF_ASSIGN_OR_RETURN(staging_, StagingFile::Take(*place_, staging_name()));
  state_.set_staging_device(taken->st_dev);
  state_.set_staging_inode(taken->st_ino);
  state_.add_steps(fmt::format("took the state that was kept by the restore {}", state_.undoes().operation_id()));
  return absl::OkStatus();
}

// Where another undo has its name by now both stay.
void RestoreSession::PutUndoBack() {
  if (removes()) return;
  if (state_.versions().size() == 2) {
    const auto file = StagingFile::Take(*place_, staging_name());
    if (file.ok()) static_cast<void>((*file)->WriteVersions(state_.versions()));
  }
  const auto taken = place_->Stat(staging_name());
  if (!taken.ok() || !taken->has_value()) return;
  if (const absl::Status back = place_->RenameNew(staging_name(), place_->UndoName()); !back.ok())
    state_.add_steps(fmt::format("the state that was to come back is kept as {}: {}", place_->PathOf(staging_name()), MessageOf(back)));
}

}  // namespace litefleet::restore
