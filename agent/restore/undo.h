// What the last restore of a database kept, and whether it can be put back.
//
// Thread safety: pure functions over the disk. README.md has the section on undoing.
// Errors:
//   UNDO_MISSING     kNotFound             nothing is kept: never restored, dropped by keep_previous, or its file is gone
//   UNDO_SUPERSEDED  kFailedPrecondition   another restore than the one that is to be undone was the last one
//   UNDO_CHANGED     kFailedPrecondition   the file with its name is not the one that was kept
//   UNDO_ELSEWHERE   kFailedPrecondition   it was kept for another path than the database has now
//   ALREADY_UNDONE   kFailedPrecondition   nothing was there before, and nothing is there now
#ifndef LITEFLEET_AGENT_RESTORE_UNDO_H_
#define LITEFLEET_AGENT_RESTORE_UNDO_H_

#include <sys/stat.h>

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/restore/restore_journal.h"
#include "agent/restore/restorer.h"
#include "agent/restore/target_place.h"

namespace litefleet::restore {

// Nothing was at the path before: undoing takes away what is there.
bool Removes(const storage::v1::UndoRecord& record);

struct UndoWish {
  storage::v1::UndoRecord record;
  // What the state machine of restores is given: geometry of the kept file, timeline, and that SQLite's checks decide nothing.
  v1::RestoreOrder order;
};
// UNDO_SUPERSEDED where what is kept is of another restore than the one that is named; empty: any.
absl::Status CheckRestoreOf(const storage::v1::UndoRecord& record, const std::string& restore_operation_id);

// What a former run of the operation has begun with, else what is kept now.
absl::StatusOr<UndoWish> FindUndo(const RestoreJournal& journal, const std::string& operation_id, const v1::UndoOrder& order,
                                  const Target& target);

// In the way that the restore took; to where nothing is any more it is placed.
absl::StatusOr<v1::RestoreMode> DecideUndoMode(const storage::v1::UndoRecord& record, const TargetPlace& place);

// UNDO_MISSING, UNDO_CHANGED.
absl::Status CheckKept(const storage::v1::UndoRecord& record, const std::optional<struct stat>& file);

// Removes what is kept, and nothing else. False where it is gone from the file system that it was on. FILE_REPLACED where the path leads to
// another directory by now, DIRECTORY_MISSING, and those of CheckKept, also where another file system is mounted there.
absl::StatusOr<bool> RemoveKept(const storage::v1::UndoRecord& record);

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_UNDO_H_
