// One restore of plain files: the archive is fetched and proven, unpacked into a directory of its own below the root, and each file renamed
// to its place. README.md, "Files", has the table of steps.
//
// What is not in the snapshot stays, and so does nothing of what is replaced: there is no undo. Thread safety: none. Ownership: borrows all
// that it is given. Errors: those of files_tree.h, files_process.h and local_restorer.h.
#ifndef LITEFLEET_AGENT_RESTORE_FILES_SESSION_H_
#define LITEFLEET_AGENT_RESTORE_FILES_SESSION_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/restore/files_tree.h"
#include "agent/restore/progress_meter.h"
#include "agent/restore/restore_session.h"
#include "agent/restore/staging_file.h"
#include "agent/restore/target_place.h"

namespace litefleet::restore {

// PUSH_RESTORE_DENIED, ORDER_INVALID, CONTENT_DIFFERS (a database to where files are, or the other way round), MODE_UNSUPPORTED.
absl::Status CheckFilesOrder(const v1::RestoreOrder& order, const Target& target);
v1::RestorePlan MakeFilesPlan(const v1::RestoreOrder& order, const Target& target);

class FilesSession {
 public:
  FilesSession(const RestoreSession::Parts& parts, const std::string& operation_id, const v1::RestoreOrder& order, const Target& target,
               const CancelToken& cancel, const ProgressMeter::Report& report);

  // As RestoreSession::Run.
  Outcome Run();
  // Nobody asks for it any more: what it made beside the files goes. Nothing where no file had been replaced; the outcome as Run would have
  // told it where all were.
  std::optional<Outcome> Settle();
  // The root could not be opened, or is another one, so that what lies there is for another try: the journal has it until then.
  bool kept() const { return kept_; }

 private:
  absl::Status Go();
  absl::Status Begin();
  absl::Status OpenPlace();
  absl::Status Reach();
  absl::Status Fetch();
  absl::Status Unpack();
  absl::Status Apply();
  absl::Status After(const absl::Status& ended);
  Outcome End(const absl::Status& status);
  absl::Status EndBefore() const;
  // `ended`: how the restore ended, as far as that is known. kept() where that could not be saved.
  void CleanUp(const absl::Status& ended);
  void SetEnd(const absl::Status& ended);
  absl::Status CheckCancelled() const;
  bool Interrupted(const absl::Status& status) const;
  absl::Status Enter(storage::v1::RestoreStep step);
  std::string archive_name() const { return TargetPlace::StagingName(state_.operation_id()); }
  std::string tree_name() const { return archive_name() + "-files"; }
  std::unique_ptr<hooks::DatabaseHooks> Hooks() const;
  void KeepRuns(const hooks::DatabaseHooks& hooks);

  const RestoreSession::Parts parts_;
  const v1::RestoreOrder order_;
  const Target target_;
  const CancelToken& cancel_;
  const ProgressMeter::Report report_;
  const format::RootDigest root_;
  ProgressMeter progress_;
  storage::v1::RestoreState state_;
  io::UniqueFd root_fd_;
  std::optional<TargetPlace> place_;  // the archive's
  std::unique_ptr<StagingFile> archive_;
  std::optional<FilesTree> tree_;
  bool begun_before_ = false;  // a former run may have put some files in their places
  bool kept_ = false;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_FILES_SESSION_H_
