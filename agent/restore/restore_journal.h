// The persisted states of restores and the records of what they keep for an undo; README.md has the table of steps.
//
// Thread safety: all members may be called from any thread; one writer an operation or database. Calls block on the disk and return when
// the change is durable. Source: write beside, sync, rename, sync the directory.
#ifndef LITEFLEET_AGENT_RESTORE_RESTORE_JOURNAL_H_
#define LITEFLEET_AGENT_RESTORE_RESTORE_JOURNAL_H_

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "litefleet/storage/v1/restore_state.pb.h"

namespace litefleet::restore {

class RestoreJournal {
 public:
  // `folder` is STATE/restore; it is made when missing.
  static absl::StatusOr<RestoreJournal> Open(const std::string& folder);

  // Nothing where there is none. kDataLoss STATE_DAMAGED.
  absl::StatusOr<std::optional<storage::v1::RestoreState>> Load(const std::string& operation_id) const;
  // STATE_TOO_LARGE, too: it takes nothing that Load would not read.
  absl::Status Save(const storage::v1::RestoreState& state) const;
  // With its extents file.
  absl::Status Remove(const std::string& operation_id) const;
  // Where the StagingLog of an operation is.
  std::string ExtentsFile(const std::string& operation_id) const { return folder_ + "/" + operation_id + ".extents"; }
  // All that can be read; `skipped` says what cannot.
  absl::StatusOr<std::vector<storage::v1::RestoreState>> List(std::vector<std::string>& skipped) const;

  absl::StatusOr<std::optional<storage::v1::UndoRecord>> LoadUndo(const std::string& database) const;
  absl::Status SaveUndo(const storage::v1::UndoRecord& record) const;
  absl::Status RemoveUndo(const std::string& database) const;
  // How long the machine has run since the record was looked at first, as far as that is known: by the time since boot, since a clock that
  // is set would make it older than it is. To be called every now and then: what passed before a reboot is counted up to the last call, to
  // an hour.
  std::chrono::milliseconds AgeOfUndo(const storage::v1::UndoRecord& record, const Clock& clock) const;
  absl::StatusOr<std::vector<storage::v1::UndoRecord>> ListUndos() const;

 private:
  explicit RestoreJournal(std::string folder) : folder_(std::move(folder)) {}
  std::string StateFile(const std::string& operation_id) const { return folder_ + "/" + operation_id + ".state"; }
  std::string UndoFile(const std::string& database) const { return folder_ + "/undo-" + database + ".state"; }
  // "OPERATION BOOT_ID SINCE_BOOT_MS AGE_MS".
  std::string AgeFile(const std::string& database) const { return folder_ + "/undo-" + database + ".age"; }

  std::string folder_;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_RESTORE_JOURNAL_H_
