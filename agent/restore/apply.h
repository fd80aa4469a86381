// The three ways of a verified staging file into its target; README.md has the steps, `new`, `live` and `replace`.
//
// Each returns OK with the step APPLIED recorded, or an error with the old state in its place (step UNDOING: again in its place); what is
// aside then of left-overs, also of a former run's, the caller puts back. They may be called again after a crash in the step APPLYING, as
// the README says. Thread safety: none; one restore a database at a time. Law 3:
// nobody in this process has the target open through SQLite but what is opened here.
#ifndef LITEFLEET_AGENT_RESTORE_APPLY_H_
#define LITEFLEET_AGENT_RESTORE_APPLY_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/user_database.h"
#include "agent/restore/progress_meter.h"
#include "agent/restore/restore_journal.h"
#include "agent/restore/restorer.h"
#include "agent/restore/staging_file.h"
#include "agent/restore/target_place.h"
#include "common/io/disk_reserve.h"
#include "common/io/file.h"
#include "common/io/space_guard.h"
#include "litefleet/storage/v1/restore_state.pb.h"

namespace litefleet::restore {

struct ApplyOptions {
  // Waiting for the lock of a live target.
  std::chrono::milliseconds lock_timeout{30'000};
  bool allow_network_fs = false;
  // For tests of damage, and of others who come. A live copy: "committed", before it is read back, and "undone", before that is; a
  // replacement: "renaming" and "placed", before it gets the path and when it has it, "renamed", before it is read back, and "taking back",
  // before the old file gets the path again; both: "differs", before it is undone.
  std::function<void(std::string_view)> at_point = {};
  io::FreeBytesOf free_bytes = &io::FreeBytes;  // for tests
};

struct ApplyContext {
  const ApplyOptions& options;
  const v1::RestoreOrder& order;
  const TargetPlace& place;
  const io::DiskReserve& reserve;            // stays free beside the target
  std::chrono::milliseconds rollback_stall;  // of the target
  StagingFile* staging;                      // null where nothing is put at the path
  const RestoreJournal& journal;
  storage::v1::RestoreState& state;
  const CancelToken& cancel;
  ProgressMeter& progress;
  // Set when the read-back found something else than what was ordered, and that could not be undone: it is in place, the outcome is this.
  absl::Status read_back;
  // A former run of it was interrupted: a journal at the target may be of its copy.
  bool resumed = false;
  // The read-back found a difference, and the previous state is in place again.
  bool put_back = false;

  // An undo puts the kept file itself in its place: it has its owner and mode, and must not be lost.
  bool undoes() const { return state.has_undoes(); }
  // Makes the step durable.
  absl::Status Enter(storage::v1::RestoreStep step);
  // The new state is in place: from here on nothing is an error any more, not even that this cannot be written down.
  absl::Status Applied();
  void Say(std::string text) { state.add_steps(std::move(text)); }
  absl::Status CheckCancelled() const;
  std::string temporary_undo() const { return TargetPlace::TemporaryUndoName(state.operation_id()); }
};

absl::Status ApplyNew(ApplyContext& context);
absl::Status ApplyLive(ApplyContext& context);
// Without a staging file it undoes a restore to where nothing was: what is at the path becomes the undo, and what was left over comes back.
absl::Status ApplyReplace(ApplyContext& context);

// In how many pages a live target differs from the snapshot and from its previous state.
struct LiveDifference {
  uint64_t from_new = 0;
  uint64_t from_old = 0;
  // Others may have committed since: the majority says.
  bool committed() const { return from_new < from_old || from_new == 0; }
};
// After a crash in APPLYING of a live restore. Opens the target through SQLite, which rolls an unfinished transaction back.
absl::StatusOr<LiveDifference> CompareLive(const TargetPlace& place, const ApplyOptions& options, const StagingFile& staging,
                                           storage::v1::RestoreState& state, const CancelToken& cancel);
// Folds the WAL that the copy made into the database. Best effort.
void CheckpointLive(const TargetPlace& place, const ApplyOptions& options, storage::v1::RestoreState& state, const CancelToken& cancel);

// ---- shared

// -wal, -shm, -journal that lie beside the target, to the temporary undo names; recorded in undo_parts by the caller before.
// LEFTOVER_CAME: a former run has moved another -wal or -journal there, and both stay where they are.
absl::Status MoveCompanionsAside(ApplyContext& context);
void PutCompanionsBack(const TargetPlace& place, storage::v1::RestoreState& state);
// The -wal, -shm and -journal that an undo has kept, beside the database that it has just put back. May be repeated.
absl::Status PlaceUndoCompanions(const TargetPlace& place, storage::v1::RestoreState& state);
// The undo under its temporary name becomes the undo of the database, in place of an older one, with its record.
absl::Status InstallUndo(const TargetPlace& place, const RestoreJournal& journal, storage::v1::RestoreState& state);

// Owner, group, mode and extended attributes (an SELinux label is one) of `like`, a name beside, on the file behind `fd`. Attributes that
// the kernel or the file system does not let it have are named in `lost`; any other failure is an error.
absl::Status TakeOwnerOf(const TargetPlace& place, const std::string& like, int fd, const std::string& what,
                         std::vector<std::string>& lost);
// As a database that is new in this directory gets them.
absl::Status TakeOwnerOfDirectory(const TargetPlace& place, int fd, const std::string& what);

// The file that has the name below the directory's descriptor, or FILE_REPLACED. `interrupted`: a journal may be of a copy of ours.
absl::StatusOr<std::unique_ptr<capture::UserDatabase>> OpenTarget(const TargetPlace& place, const ApplyOptions& options,
                                                                  const CancelToken& cancel, bool interrupted = false);
// What restoring live into the target meets: its geometry, through SQLite. TARGET_NOT_OPENABLE where SQLite refuses it.
struct LiveTarget {
  uint32_t page_size = 0;  // 0: an empty file
  uint64_t bytes = 0;      // as the newest state has it
  bool wal = false;
};
absl::StatusOr<LiveTarget> LookAtLiveTarget(const TargetPlace& place, const ApplyOptions& options, const CancelToken& cancel,
                                            bool interrupted = false);
// PAGE_SIZE_DIFFERS where the backup API cannot go from one to the other.
absl::Status CheckPageSize(const LiveTarget& target, uint32_t page_size);

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_APPLY_H_
