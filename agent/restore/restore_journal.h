// The persisted states of restores and the records of what they keep for an undo; README.md has the table of steps.
//
// Thread safety: all members may be called from any thread; one writer an operation or database. Calls block on the disk and return when
// the change is durable. Source: write beside, sync, rename, sync the directory.
#ifndef LITEFLEET_AGENT_RESTORE_RESTORE_JOURNAL_H_
#define LITEFLEET_AGENT_RESTORE_RESTORE_JOURNAL_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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
  absl::StatusOr<std::vector<storage::v1::UndoRecord>> ListUndos() const;

 private:
  explicit RestoreJournal(std::string folder) : folder_(std::move(folder)) {}
  std::string StateFile(const std::string& operation_id) const { return folder_ + "/" + operation_id + ".state"; }
  std::string UndoFile(const std::string& database) const { return folder_ + "/undo-" + database + ".state"; }

  std::string folder_;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_RESTORE_JOURNAL_H_
