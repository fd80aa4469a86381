#include "agent/restore/files_session.h"

#include <fcntl.h>
#include <google/protobuf/util/time_util.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "agent/restore/fetch_patience.h"
#include "agent/restore/plan.h"
#include "common/base/clock.h"
#include "common/base/crash_point.h"
#include "common/base/error_detail.h"
#include "common/base/status.h"
#include "common/files/beneath.h"
#include "common/files/files_process.h"
#include "common/format/extent.h"
#include "common/format/segment.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;
using storage::v1::RestoreStep;

// The archive, and what it holds.
uint64_t SpaceForFiles(const v1::RestoreOrder& order) { return 2 * format::DatabaseBytes(order.page_size(), order.page_count()); }

absl::Status CheckRoom(const v1::RestoreOrder& order, const Target& target) {
  LF_ASSIGN_OR_RETURN(const uint64_t available, io::FreeBytes(target.path));
  LF_ASSIGN_OR_RETURN(const uint64_t reserve, target.reserve.At(target.path));
  if (available >= SpaceForFiles(order) + reserve) return absl::OkStatus();
  return Error(Code::kResourceExhausted, "NOT_ENOUGH_SPACE",
               fmt::format("{} has {} bytes free, {} are needed: the archive and the files {}, reserve {}", target.path, available,
                           SpaceForFiles(order) + reserve, SpaceForFiles(order), reserve),
               "free space there");
}

absl::StatusOr<io::UniqueFd> OpenFilesRoot(const std::string& path) {
  io::UniqueFd root(files::OpenRoot(path));
  if (root.valid()) return root;
  if (errno == ELOOP || errno == ENOTDIR) {
    return Error(Code::kFailedPrecondition, "ROOT_NOT_DIRECTORY",
                 fmt::format("{} is no directory, or a symbolic link is in its path", path),
                 "look at `root` of the [[files]] in agent.toml");
  }
  if (errno == ENOENT) {
    return Error(Code::kFailedPrecondition, "ROOT_MISSING", fmt::format("there is no directory {}", path),
                 "make it on the device, with the owner and the mode that it should have");
  }
  return ErrnoError(errno, "open " + path);
}

// Nobody else has a name of it, or may write to it: what was proven stays so.
bool IsOurs(int fd) {
  struct stat st {};
  return fstat(fd, &st) == 0 && st.st_uid == geteuid() && st.st_nlink == 1 && (st.st_mode & 0077) == 0;
}

absl::Status Abandoned(bool begun, std::string_view why) {
  const char* const how = begun ? "some of the files are those of the snapshot" : "no file was replaced";
  return Error(Code::kAborted, "RESTORE_ABANDONED", fmt::format("{}: {}", how, why), "restore the files again");
}

std::string_view WordOf(const absl::Status& status) {
  return status.ok() ? "succeeded" : absl::IsCancelled(status) ? "cancelled" : "failed";
}

// As a crash would leave it; the next run goes on.
Outcome LeftAsItIs(const absl::Status& status) {
  Outcome outcome;
  outcome.status = status;
  return outcome;
}

}  // namespace

absl::Status CheckFilesOrder(const v1::RestoreOrder& order, const Target& target) {
  if (!target.push_restore.empty() && target.push_restore != "allow") {
    return Error(
        Code::kPermissionDenied, "PUSH_RESTORE_DENIED",
        fmt::format("the device does not let the controller restore {} (push_restore = \"{}\")", target.database, target.push_restore),
        "set push_restore = \"allow\" in the configuration on the device");
  }
  const bool files = order.content() == v1::SNAPSHOT_CONTENT_FILES;
  if (!files || !target.files.has_value()) {
    return Error(Code::kInvalidArgument, "CONTENT_DIFFERS",
                 fmt::format("the snapshot is {}, and {} is {} on the device", files ? "of files" : "of a database", target.database,
                             target.files.has_value() ? "a [[files]]" : "a [[database]]"),
                 "restore it to what is of its kind, or download it");
  }
  if (order.mode() == v1::RESTORE_MODE_LIVE || order.mode() == v1::RESTORE_MODE_NEW || order.tables_size() > 0) {
    return Error(Code::kInvalidArgument, "MODE_UNSUPPORTED", "files are replaced one by one, and have no tables",
                 "restore them without --mode and --table");
  }
  // What is restored from a file of the device (restore-local) has none.
  if (!order.snapshot_id().empty()) LF_RETURN_IF_ERROR(CheckSnapshotId(order, target));
  const bool makes_sense = order.page_size() == format::kContentPageBytes && order.page_count() <= format::kMaxPageCount &&
                           order.root_version() == format::kRootVersion && order.root_digest().size() == format::kDigestBytes;
  if (makes_sense) return absl::OkStatus();
  return Error(Code::kInvalidArgument, "ORDER_INVALID",
               fmt::format("the order to restore {} names {} pages of {} bytes and a root digest of {} bytes, version {}", target.database,
                           order.page_count(), order.page_size(), order.root_digest().size(), order.root_version()),
               "bring agent and controller to the same version");
}

v1::RestorePlan MakeFilesPlan(const v1::RestoreOrder& order, const Target& target) {
  v1::RestorePlan plan;
  const auto bytes = static_cast<int64_t>(format::DatabaseBytes(order.page_size(), order.page_count()));
  const auto obstacle = [&](const absl::Status& status) {
    if (!status.ok()) *plan.add_obstacles() = ToErrorDetail(status);
  };
  plan.set_from_device(true);
  *plan.mutable_made_at() = google::protobuf::util::TimeUtil::MillisecondsToTimestamp(ToUnixMillis(RealClock().Now()));
  plan.set_mode(v1::RESTORE_MODE_REPLACE);
  plan.set_snapshot_id(order.snapshot_id());
  plan.set_size_bytes(bytes);
  plan.set_fetch_bytes(bytes);
  const absl::Status ordered = CheckFilesOrder(order, target);
  obstacle(ordered);
  if (!ordered.ok()) return plan;
  plan.set_staging_bytes(static_cast<int64_t>(SpaceForFiles(order)));
  if (const auto reserve = target.reserve.At(target.path); reserve.ok()) plan.set_reserve_bytes(static_cast<int64_t>(*reserve));
  if (const auto available = io::FreeBytes(target.path); available.ok()) plan.set_free_bytes(static_cast<int64_t>(*available));
  const auto root = OpenFilesRoot(target.path);
  obstacle(root.status());
  if (!root.ok()) return plan;
  if (faccessat(root->get(), ".", W_OK | X_OK, AT_EACCESS) != 0) obstacle(ErrnoError(errno, "write to " + target.path));
  obstacle(CheckRoom(order, target));
  const auto say = [&](std::string text) { plan.add_steps(std::move(text)); };
  const std::string_view how = order.snapshot_id().empty() ? "copy" : "fetch";
  say(fmt::format("{} the archive of the files into {}, and prove its root digest", how, target.path));
  say("unpack it into a directory of its own there; refused as a whole where it has a file that include and exclude of the device do not "
      "mean");
  say("rename each file to its place, with mode, owner and times: at any moment it is the old one or the new one");
  say("files that are not in the snapshot stay as they are");
  say("what is replaced is not kept: back the files up first if you may want them again");
  return plan;
}

FilesSession::FilesSession(const RestoreSession::Parts& parts, const std::string& operation_id, const v1::RestoreOrder& order,
                           const Target& target, const CancelToken& cancel, const ProgressMeter::Report& report)
    : parts_(parts),
      order_(order),
      target_(target),
      cancel_(cancel),
      report_(report),
      root_(format::RootDigest::FromBytes(order.root_digest()).value_or(format::RootDigest{})),
      progress_(report_, static_cast<int64_t>(format::DatabaseBytes(order.page_size(), order.page_count())), parts.options.now) {
  state_.set_operation_id(operation_id);
  state_.set_database(target.database);
  state_.set_path(target.path);
  state_.set_mode(v1::RESTORE_MODE_REPLACE);
  state_.set_snapshot_id(order.snapshot_id());
  state_.set_root_digest(order.root_digest());
  state_.set_order(order.SerializeAsString());
}

absl::Status FilesSession::CheckCancelled() const {
  return cancel_.cancelled() ? Error(Code::kCancelled, "CANCELLED", "the restore was cancelled") : absl::OkStatus();
}

absl::Status FilesSession::Enter(RestoreStep step) {
  state_.set_step(step);
  return parts_.journal.Save(state_);
}

bool FilesSession::Interrupted(const absl::Status& status) const { return absl::IsCancelled(status) && cancel_.interrupted(); }

Outcome FilesSession::Run() {
  absl::Status status = Go();
  bool behind = false;
  if (state_.step() == storage::v1::RESTORE_STEP_DONE) return OutcomeOf(state_);
  if (!Interrupted(status)) {
    // A former run was in the middle of it: no cancel and no refusal makes the files old again.
    if (!status.ok() && begun_before_) status = Abandoned(true, MessageOf(status));
    if (!kept_) CleanUp(status);
    behind = status.ok();
    status = After(status);
  }
  // Behind it the next start goes on, whatever cancel came before.
  if (behind ? absl::IsCancelled(status) && cancel_.ending() : Interrupted(status)) return LeftAsItIs(status);
  if (status.ok()) progress_.Finish();
  return End(status);
}

Outcome FilesSession::End(const absl::Status& status) {
  SetEnd(status);
  LF_CRASH_POINT("files.before_done");
  // The hook does not wait for the root, and is not run again.
  if (kept_) state_.set_hooks_begun(false);
  // Without it a crash before the caller has made the outcome durable repeats the restore, which ends in the same state.
  static_cast<void>(Enter(kept_ ? state_.step() : storage::v1::RESTORE_STEP_DONE));
  return OutcomeOf(state_);
}

void FilesSession::SetEnd(const absl::Status& ended) {
  state_.set_code(static_cast<int>(ended.code()));
  state_.set_reason(ReasonOf(ended));
  state_.set_message(MessageOf(ended));
  state_.set_hint(HintOf(ended));
}

// As a former run left it, where that had come to an end.
absl::Status FilesSession::EndBefore() const { return state_.applied() ? absl::OkStatus() : OutcomeOf(state_).status; }

std::optional<Outcome> FilesSession::Settle() {
  const auto before = parts_.journal.Load(state_.operation_id());
  if (!before.ok() || !before->has_value()) return std::nullopt;
  state_ = **before;
  if (state_.step() == storage::v1::RESTORE_STEP_DONE) return OutcomeOf(state_);
  const bool begun = state_.step() == storage::v1::RESTORE_STEP_APPLYING;
  const bool ended = state_.applied() || state_.ended();
  const absl::Status opened = Reach();
  if (kept_) state_.add_steps(MessageOf(opened));
  if (!begun && !ended && !state_.hooks_begun()) {
    // As if nothing had been fetched: no archive is missed at the next try either.
    state_.set_step(storage::v1::RESTORE_STEP_PREPARED);
    if (!kept_) CleanUp(absl::OkStatus());
    return std::nullopt;
  }
  absl::Status status = ended ? EndBefore() : Abandoned(begun, "nobody asks for the restore any more");
  if (!kept_) CleanUp(status);
  status = After(status);
  return Interrupted(status) ? LeftAsItIs(status) : End(status);
}

absl::Status FilesSession::Go() {
  LF_ASSIGN_OR_RETURN(const auto before, parts_.journal.Load(state_.operation_id()));
  if (before.has_value()) {
    state_ = *before;
    if (state_.step() == storage::v1::RESTORE_STEP_DONE) return absl::OkStatus();
    state_.add_steps("went on after an interruption");
    // Where it began: what it made lies there, whatever agent.toml says by now.
    const absl::Status opened = Reach();
    if (state_.applied() || state_.ended()) {
      // What the application has written since is not replaced once more.
      if (!opened.ok()) state_.add_steps(MessageOf(opened));
      return EndBefore();
    }
    begun_before_ = state_.step() == storage::v1::RESTORE_STEP_APPLYING;
    if (state_.path() != target_.path || state_.root_digest() != order_.root_digest()) {
      return Error(Code::kFailedPrecondition, "ORDER_INVALID",
                   fmt::format("the restore {} began with another snapshot or for {}", state_.operation_id(), state_.path()),
                   "bring the configuration of the device back, or order the restore again");
    }
    LF_RETURN_IF_ERROR(CheckFilesOrder(order_, target_));
    LF_RETURN_IF_ERROR(opened);
  } else {
    LF_RETURN_IF_ERROR(CheckFilesOrder(order_, target_));
    LF_RETURN_IF_ERROR(OpenPlace());
    LF_RETURN_IF_ERROR(Begin());
  }
  LF_RETURN_IF_ERROR(Fetch());
  LF_RETURN_IF_ERROR(Unpack());
  return Apply();
}

absl::Status FilesSession::OpenPlace() {
  LF_ASSIGN_OR_RETURN(root_fd_, OpenFilesRoot(state_.path()));
  LF_ASSIGN_OR_RETURN(TargetPlace place, TargetPlace::Resolve(state_.path() + "/" + archive_name()));
  // It follows links; the root does not.
  struct stat root {
  }, found{};
  if (fstat(root_fd_.get(), &root) != 0 || fstat(place.directory_fd(), &found) != 0) return ErrnoError(errno, "look at " + state_.path());
  if (root.st_dev != found.st_dev || root.st_ino != found.st_ino) {
    return Error(Code::kFailedPrecondition, "ROOT_NOT_DIRECTORY", fmt::format("somebody replaces {} at this moment", state_.path()),
                 "restore again");
  }
  place_.emplace(std::move(place));
  return absl::OkStatus();
}

// To where a former run was. The archive lies there until all files are in their places: a root without it is another one, as is the
// empty directory on which nothing is mounted yet, and nothing is done in it. That a run was about to remove the archive says its journal.
absl::Status FilesSession::Reach() {
  kept_ = true;
  LF_RETURN_IF_ERROR(OpenPlace());
  if (state_.step() != storage::v1::RESTORE_STEP_PREPARED && !state_.applied() && !state_.ended()) {
    LF_ASSIGN_OR_RETURN(const auto archive, place_->Stat(archive_name()));
    if (!archive.has_value()) {
      return Error(Code::kAborted, "RESTORE_ABANDONED",
                   fmt::format("the archive that was fetched into {} is not there any more (is it mounted?): nothing more is done in it",
                               state_.path()),
                   "look whether what belongs there is mounted, then restore the files again");
    }
  }
  kept_ = false;
  return absl::OkStatus();
}

absl::Status FilesSession::Begin() {
  LF_RETURN_IF_ERROR(CheckCancelled());
  LF_RETURN_IF_ERROR(place_->CheckWritable());
  LF_RETURN_IF_ERROR(CheckRoom(order_, target_));
  state_.set_started_at_ms(ToUnixMillis(RealClock().Now()));
  LF_RETURN_IF_ERROR(Enter(storage::v1::RESTORE_STEP_PREPARED));
  LF_CRASH_POINT("files.prepared");
  return absl::OkStatus();
}

// An archive that a former run had proven is proven again, and not fetched.
absl::Status FilesSession::Fetch() {
  progress_.Begin("fetching", 0, 60);
  if (state_.step() != storage::v1::RESTORE_STEP_PREPARED) {
    auto kept = StagingFile::Reopen(*place_, archive_name(), order_.page_size(), order_.page_count());
    if (kept.ok() && !IsOurs((*kept)->fd())) kept = Error(Code::kDataLoss, "STAGING_DAMAGED", "it is another file");
    const absl::Status usable = kept.ok() ? (*kept)->Verify(root_, "", cancel_) : kept.status();
    if (absl::IsCancelled(usable)) return usable;
    if (usable.ok()) archive_ = *std::move(kept);
    if (usable.ok()) return absl::OkStatus();
    state_.add_steps("the archive was not complete any more: it is fetched again");
  }
  LF_RETURN_IF_ERROR(place_->Remove(archive_name()));
  LF_ASSIGN_OR_RETURN(archive_, StagingFile::Create(*place_, archive_name(), order_.page_size(), order_.page_count()));
  const uint32_t extents = format::ExtentCount(order_.page_size(), order_.page_count());
  const auto sink = [&](const FetchedExtent& extent) -> absl::Status {
    LF_RETURN_IF_ERROR(CheckCancelled());
    LF_RETURN_IF_ERROR(archive_->Append(extent));
    progress_.AddWireBytes(extent.wire_bytes);
    progress_.At(archive_->next_extent(), extents);
    LF_CRASH_POINT("files.fetching");
    return absl::OkStatus();
  };
  LF_RETURN_IF_ERROR(PersistFetch(
      {state_.operation_id(), parts_.options.fetch_patience, cancel_, progress_},
      [&] {
        const uint32_t next = archive_->next_extent();
        return next == extents ? absl::OkStatus() : parts_.fetcher.Fetch(state_.operation_id(), order_, next, cancel_, sink);
      },
      [&] { return uint64_t{archive_->next_extent()}; }));
  LF_RETURN_IF_ERROR(archive_->Finish(root_));
  LF_RETURN_IF_ERROR(archive_->Sync(cancel_));
  state_.add_steps(fmt::format("{} the archive, and proved the root digest of its {} pages",
                               order_.snapshot_id().empty() ? "copied" : "fetched", order_.page_count()));
  // That some files may be new is not forgotten.
  LF_RETURN_IF_ERROR(Enter(begun_before_ ? storage::v1::RESTORE_STEP_APPLYING : storage::v1::RESTORE_STEP_CHECKED));
  LF_CRASH_POINT("files.fetched");
  return absl::OkStatus();
}

absl::Status FilesSession::Unpack() {
  progress_.Begin("unpacking", 60, 80);
  LF_ASSIGN_OR_RETURN(FilesTree tree, FilesTree::Make(root_fd_.get(), target_, tree_name()));
  tree_.emplace(std::move(tree));
  const uint32_t extents = format::ExtentCount(order_.page_size(), order_.page_count());
  format::SegmentReader segments(format::Content::kFiles);
  Bytes pages, text;
  uint32_t next = 0;
  const auto more = [&]() -> absl::StatusOr<ByteView> {
    text.clear();
    while (text.empty() && next < extents) {
      LF_RETURN_IF_ERROR(archive_->ReadExtent(next++, pages));
      LF_RETURN_IF_ERROR(segments.Add(pages, [&](ByteView piece) {
        text.insert(text.end(), piece.begin(), piece.end());
        return absl::OkStatus();
      }));
      progress_.At(next, extents);
    }
    if (text.empty()) LF_RETURN_IF_ERROR(segments.Finish());
    return ByteView(text);
  };
  files::FilesHelper helper;
  helper.helper = parts_.checker.helper();
  helper.cancelled = [this] { return cancel_.cancelled(); };
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<files::UnpackProcess> unpack,
                      files::UnpackProcess::Start(helper, more, static_cast<int64_t>(archive_->bytes())));
  LF_RETURN_IF_ERROR(unpack->Run([&](const files::Entry& entry) { return tree_->Add(entry); },
                                 [&](ByteView content) { return tree_->AddContent(content); }));
  LF_RETURN_IF_ERROR(tree_->FinishAdding());
  LF_RETURN_IF_ERROR(tree_->CheckPlaces());
  LF_CRASH_POINT("files.unpacked");
  return absl::OkStatus();
}

absl::Status FilesSession::Apply() {
  if (const auto hooks = Hooks(); hooks != nullptr && !hooks->none()) {
    LF_RETURN_IF_ERROR(CheckCancelled());
    progress_.Begin("running hooks", 80, 80);
    state_.set_hooks_begun(true);
    LF_RETURN_IF_ERROR(parts_.journal.Save(state_));
    const absl::Status ran = hooks->Before(cancel_);
    KeepRuns(*hooks);
    LF_RETURN_IF_ERROR(ran);
  }
  LF_RETURN_IF_ERROR(CheckCancelled());
  progress_.Begin("replacing", 80, 100);
  LF_RETURN_IF_ERROR(Enter(storage::v1::RESTORE_STEP_APPLYING));
  LF_CRASH_POINT("files.applying");
  const auto all = static_cast<int64_t>(tree_->size());
  const absl::Status applied = tree_->Apply([&](size_t done) { progress_.At(static_cast<int64_t>(done), all); });
  if (!applied.ok()) {
    if (tree_->applied() == 0) return applied;
    for (std::string& note : tree_->Notes()) state_.add_steps(std::move(note));
    return Annotate(applied, fmt::format("{} of {} files and directories were put in their places, then", tree_->applied(), tree_->size()));
  }
  state_.set_applied(true);
  state_.add_steps(tree_->Summary());
  for (std::string& note : tree_->Notes()) state_.add_steps(std::move(note));
  // The files are in their places whether or not that can be written down.
  if (const absl::Status saved = Enter(storage::v1::RESTORE_STEP_APPLYING); !saved.ok()) state_.add_steps(MessageOf(saved));
  LF_CRASH_POINT("files.applied");
  return absl::OkStatus();
}

std::unique_ptr<hooks::DatabaseHooks> FilesSession::Hooks() const {
  if (!parts_.options.hooks) return nullptr;
  return parts_.options.hooks({state_.operation_id(), state_.database(), state_.path(), "restore"});
}

void FilesSession::KeepRuns(const hooks::DatabaseHooks& hooks) {
  for (const v1::HookRun& run : hooks.runs()) state_.add_hooks(run.SerializeAsString());
}

// What ran before is undone by what runs after, however it ended.
absl::Status FilesSession::After(const absl::Status& ended) {
  LF_CRASH_POINT("files.after");
  if (!state_.hooks_begun()) return ended;
  const auto hooks = Hooks();
  if (hooks == nullptr) return ended;
  // What is done stays done: a cancel came too late. The end of the program it hears all the same, and goes on at the next start.
  const CancelToken end = CancelToken::EndOf(cancel_);
  const CancelToken& cancel = ended.ok() ? end : cancel_;
  const absl::Status ran = hooks->After(WordOf(ended), state_.snapshot_id(), cancel);
  if (absl::IsCancelled(ran) && cancel.interrupted()) return ran;
  KeepRuns(*hooks);
  if (ran.ok()) return ended;
  state_.add_steps(MessageOf(ran));
  return ended.ok() ? Annotate(ran, "the files are restored, and stay so") : ended;
}

void FilesSession::CleanUp(const absl::Status& ended) {
  tree_.reset();
  archive_.reset();
  if (!place_.has_value()) return;
  const auto tell = [&](const absl::Status& status) {
    if (!status.ok()) state_.add_steps(MessageOf(status));
    return status.ok();
  };
  tell(FilesTree::Remove(root_fd_.get(), tree_name()));
  bool saved = true;
  if (state_.step() != storage::v1::RESTORE_STEP_UNSPECIFIED) {
    // Saved before the archive goes: a later run would take a root without it for another one, and this end for that. The unpacked files
    // have made room for it by now.
    if (!state_.applied()) {
      SetEnd(ended);
      state_.set_ended(!ended.ok());
    }
    saved = tell(parts_.journal.Save(state_));
    // Where all is applied it goes nevertheless: a later run would replace what the application has written since.
    kept_ = !saved && !state_.applied();
    if (kept_) return;
  }
  tell(place_->Remove(archive_name()));
  static_cast<void>(place_->Sync());
  // Its room may be what lacked. The hook that comes next may take long, and a crash meanwhile would have the end forgotten.
  if (!saved) static_cast<void>(parts_.journal.Save(state_));
}

}  // namespace litefleet::restore
