#include "agent/restore/undo.h"

#include <algorithm>

#include "agent/restore/staging_file.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;

constexpr std::string_view kRestoreInstead = "restore a snapshot of before instead: litefleet restore DEVICE/DATABASE --at TIME";

}  // namespace

bool Removes(const storage::v1::UndoRecord& record) {
  return std::find(record.parts().begin(), record.parts().end(), "") == record.parts().end();
}

absl::Status CheckKept(const storage::v1::UndoRecord& record, const std::optional<struct stat>& file) {
  if (!file.has_value()) {
    return Error(Code::kNotFound, "UNDO_MISSING", fmt::format("{}, the previous state of {}, is gone", record.undo(), record.database()),
                 kRestoreInstead);
  }
  // Records of older versions do not say which file it was.
  const bool same =
      record.inode() == 0 || (file->st_dev == record.device() && file->st_ino == record.inode() && file->st_size == record.size_bytes());
  if (S_ISREG(file->st_mode) && same) return absl::OkStatus();
  return Error(Code::kFailedPrecondition, "UNDO_CHANGED",
               fmt::format("{} is not the file that was kept as the previous state of {}", record.undo(), record.database()),
               kRestoreInstead);
}

absl::StatusOr<bool> RemoveKept(const storage::v1::UndoRecord& record) {
  LF_ASSIGN_OR_RETURN(const TargetPlace place, TargetPlace::Resolve(record.path()));
  const std::string name = place.UndoName();
  if (place.path() != record.path() || place.PathOf(name) != record.undo()) {
    return Error(Code::kFailedPrecondition, "FILE_REPLACED",
                 fmt::format("{} leads to {} by now: what was kept of {} is not there", record.path(), place.path(), record.database()),
                 "look at what was put in the place of its directory");
  }
  bool there = true;
  if (!Removes(record)) {
    LF_ASSIGN_OR_RETURN(const auto file, place.Stat(name));
    LF_ASSIGN_OR_RETURN(const struct stat directory, place.StatDirectory());
    // Somebody has removed it, or we have, before a crash. Elsewhere than on its file system its absence says nothing.
    there = file.has_value() || record.inode() == 0 || directory.st_dev != record.device();
    if (there) LF_RETURN_IF_ERROR(CheckKept(record, file));
  }
  for (const std::string& suffix : record.parts()) LF_RETURN_IF_ERROR(place.Remove(name + suffix));
  LF_RETURN_IF_ERROR(place.Sync());
  return there;
}

absl::Status CheckRestoreOf(const storage::v1::UndoRecord& record, const std::string& restore_operation_id) {
  if (restore_operation_id.empty() || restore_operation_id == record.operation_id()) return absl::OkStatus();
  return Error(Code::kFailedPrecondition, "UNDO_SUPERSEDED",
               fmt::format("the last restore of {} was {}, not {}: what was kept is the state of before that one", record.database(),
                           record.operation_id(), restore_operation_id),
               kRestoreInstead);
}

absl::StatusOr<v1::RestoreMode> DecideUndoMode(const storage::v1::UndoRecord& record, const TargetPlace& place) {
  LF_ASSIGN_OR_RETURN(const auto present, place.Stat(place.name()));
  if (Removes(record)) {
    if (present.has_value()) return v1::RESTORE_MODE_REPLACE;
    return Error(Code::kFailedPrecondition, "ALREADY_UNDONE",
                 fmt::format("there was no database at {} before the last restore, and there is none now", place.path()));
  }
  if (!present.has_value()) return v1::RESTORE_MODE_NEW;
  // An empty file has no pages that could be copied in.
  const bool empty = record.inode() != 0 && record.size_bytes() == 0;
  return record.mode() == v1::RESTORE_MODE_LIVE && !empty ? v1::RESTORE_MODE_LIVE : v1::RESTORE_MODE_REPLACE;
}

absl::StatusOr<UndoWish> FindUndo(const RestoreJournal& journal, const std::string& operation_id, const v1::UndoOrder& order,
                                  const Target& target) {
  UndoWish wish;
  LF_ASSIGN_OR_RETURN(const auto before, journal.Load(operation_id));
  if (before.has_value() && before->has_undoes() && wish.order.ParseFromString(before->order())) {
    wish.record = before->undoes();
    return wish;
  }
  LF_ASSIGN_OR_RETURN(auto kept, journal.LoadUndo(target.database));
  if (!kept.has_value()) {
    return Error(
        Code::kNotFound, "UNDO_MISSING",
        fmt::format("nothing is kept of {} from before a restore: there was none, or keep_previous has dropped it", target.database),
        kRestoreInstead);
  }
  wish.record = *std::move(kept);
  LF_RETURN_IF_ERROR(CheckRestoreOf(wish.record, order.restore_operation_id()));
  LF_ASSIGN_OR_RETURN(const TargetPlace place, TargetPlace::Resolve(target.path));
  if (place.path() != wish.record.path()) {
    return Error(
        Code::kFailedPrecondition, "UNDO_ELSEWHERE",
        fmt::format("what is kept is the previous state of {}, and {} is {} now", wish.record.path(), target.database, place.path()),
        kRestoreInstead);
  }
  wish.order.set_database(target.database);
  wish.order.set_new_timeline(order.new_timeline());
  // It is as it was: SQLite's checks say what they find, and do not stand in the way.
  wish.order.set_check_override(true);
  if (Removes(wish.record)) return wish;
  LF_ASSIGN_OR_RETURN(const auto file, place.Stat(place.UndoName()));
  LF_RETURN_IF_ERROR(CheckKept(wish.record, file));
  LF_ASSIGN_OR_RETURN(const auto staging, StagingFile::Take(place, place.UndoName()));
  wish.order.set_page_size(staging->page_size());
  wish.order.set_page_count(staging->page_count());
  return wish;
}

}  // namespace litefleet::restore
