#include <fcntl.h>

#include <array>
#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include "agent/capture/database_header.h"
#include "agent/capture/interrupt_watch.h"
#include "agent/restore/apply.h"
#include "agent/restore/in_use.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;

// Somebody may start the application again and again.
constexpr int kMostFolds = 3;

// The application is stopped meanwhile. What a first second says of the rest is believed.
constexpr std::chrono::seconds kReadBackBudget{10};
constexpr std::chrono::seconds kReadBackSample{1};

// An undo goes the way that its restore took.
std::string_view StopFirst(const ApplyContext& context) {
  return context.undoes() ? "stop the application first" : "stop the application first, or restore with --mode live";
}

std::vector<capture::FileId> FilesOf(const TargetPlace& place) {
  std::vector<capture::FileId> files;
  for (const std::string_view suffix : {"", "-wal", "-shm"}) {
    const auto st = place.Stat(place.name() + std::string(suffix));
    if (st.ok() && st->has_value()) files.push_back({(*st)->st_dev, (*st)->st_ino});
  }
  return files;
}

absl::Status InUse(const ApplyContext& context, std::string_view why) {
  const Users users = FindUsers(FilesOf(context.place));
  return Error(Code::kFailedPrecondition, "IN_USE",
               fmt::format("{} is in use{}{}", context.place.path(), users.pids.empty() ? "" : " by " + users.Text(), why),
               StopFirst(context));
}

// After this -wal, -shm and a hot -journal are gone, and the file alone is the whole state. kDataLoss and kInternal: it cannot be folded.
absl::Status Fold(ApplyContext& context) {
  LF_ASSIGN_OR_RETURN(const auto database, OpenTarget(context.place, context.options, context.cancel));
  LF_RETURN_IF_ERROR(database->BeginRead());  // rolls a hot journal back, recovers a WAL
  database->EndRead();
  if (database->wal_file() != nullptr) {
    LF_RETURN_IF_ERROR(database->ErrorFor(sqlite3_exec(database->db(), "pragma query_only=0", nullptr, nullptr, nullptr), "fold"));
    int frames = 0, copied = 0, rc = SQLITE_OK;
    {
      const capture::InterruptWatch watch(*database, [&] { return context.cancel.cancelled(); });
      rc = sqlite3_wal_checkpoint_v2(database->db(), "main", SQLITE_CHECKPOINT_TRUNCATE, &frames, &copied);
    }
    // Else it would be folded to its end while it is closed.
    if ((rc & 0xff) == SQLITE_INTERRUPT) database->LeaveWal();
    LF_CRASH_POINT("restore.replace.checkpointed");
    LF_RETURN_IF_ERROR(database->ErrorFor(rc, "fold the WAL of"));
  }
  LF_RETURN_IF_ERROR(database->Close());
  for (const std::string_view suffix : {"-wal", "-shm"}) {
    LF_ASSIGN_OR_RETURN(const auto st, context.place.Stat(context.place.name() + std::string(suffix)));
    if (st.has_value()) return InUse(context, fmt::format(": its {} file stayed when the agent closed it", suffix));
  }
  // What journal_mode=persist or truncate leave: no hot journal, SQLite has just opened the database with it.
  LF_RETURN_IF_ERROR(context.place.Remove(context.place.name() + "-journal"));
  LF_RETURN_IF_ERROR(context.place.Sync());
  LF_CRASH_POINT("restore.replace.folded");
  context.Say("folded the write-ahead log or journal into the old database");
  return absl::OkStatus();
}

// Nobody else has the file open: by the lease, else by a complete look at all processes.
absl::StatusOr<std::optional<WriteLease>> ProveUnused(const ApplyContext& context) {
  LF_ASSIGN_OR_RETURN(auto lease, WriteLease::Take(context.place, context.place.name()));
  if (lease.has_value()) return lease;
  const Users users = FindUsers(FilesOf(context.place));
  if (!users.pids.empty()) return InUse(context, "");
  if (!users.complete) {
    return Error(
        Code::kFailedPrecondition, "CANNOT_PROVE_UNUSED",
        fmt::format("no lease can be had on {}, and {}: nobody knows who has it open", context.place.path(),
                    users.in_container ? "who runs outside of the agent's container cannot be seen" : "not every process can be looked at"),
        fmt::format("run the agent as the owner of the database{}{}",
                    users.in_container ? ", or its container with CAP_LEASE (--cap-add LEASE)" : " or as root",
                    context.undoes() ? "" : ", or restore with --mode live"));
  }
  return lease;
}

// Long enough for an open that had found the name of before a change to arrive at the lease of its file.
void LetThemArrive() { std::this_thread::sleep_for(std::chrono::milliseconds(20)); }

// Somebody came while the names were changed: what they opened, or wait to open, is the old file.
bool SomebodyCame(const std::optional<WriteLease>& lease, const capture::FileId& old) {
  LetThemArrive();
  if (lease.has_value()) return lease->Wanted();
  const Users users = FindUsers(std::span(&old, 1));
  return !users.pids.empty() || !users.complete;
}

// The present file as the undo: a second name first, so that no crash leaves it without one.
absl::Status KeepPresent(ApplyContext& context) {
  context.state.clear_undo_parts();
  context.state.add_undo_parts("");
  if (context.state.move_aside()) {
    for (const std::string_view suffix : kCompanions) context.state.add_undo_parts(std::string(suffix));
  }
  LF_RETURN_IF_ERROR(context.Enter(storage::v1::RESTORE_STEP_APPLYING));
  LF_CRASH_POINT("restore.replace.before_link");
  LF_RETURN_IF_ERROR(context.place.Remove(context.temporary_undo()));
  if (const absl::Status linked = context.place.Link(context.place.name(), context.temporary_undo()); !linked.ok()) {
    return Error(Code::kFailedPrecondition, "NO_HARD_LINKS",
                 fmt::format("the old database cannot be kept under a second name: {}", MessageOf(linked)),
                 "this file system has no hard links: restore with --mode live");
  }
  LF_CRASH_POINT("restore.replace.linked");
  return context.state.move_aside() ? MoveCompanionsAside(context) : context.place.Sync();
}

absl::Status OthersCame() { return Error(Code::kAborted, "OTHERS_CAME", "somebody opens the new database already"); }

// The old file is at the path again, where nobody waits for the new one: he would have a file without a name, and its log would lie beside
// the old one. OTHERS_CAME: the new file is there, as before. `own`: the lease on it, null where there is none.
absl::Status TakeBack(ApplyContext& context, bool removed, const OwnLease* own) {
  const TargetPlace& place = context.place;
  if (removed) {
    LF_RETURN_IF_ERROR(place.RenameNew(context.temporary_undo(), place.name()));
  } else {
    if (own != nullptr && own->Wanted()) return OthersCame();
    // The new file keeps a name: the state that an undo puts back has no other, and somebody may be on his way to it.
    LF_RETURN_IF_ERROR(place.Link(place.name(), context.staging->name()));
    if (context.options.at_point) context.options.at_point("taking back");
    const absl::Status renamed = place.Rename(context.temporary_undo(), place.name());
    if (renamed.ok() && own != nullptr) LetThemArrive();
    if (renamed.ok() && own != nullptr && own->Wanted()) {
      absl::Status forth = place.Link(place.name(), context.temporary_undo());
      LF_CRASH_POINT("restore.replace.forth_linked");
      if (forth.ok()) forth = place.Rename(context.staging->name(), place.name());
      LF_CRASH_POINT("restore.replace.forth");
      if (forth.ok()) forth = place.Sync();
      if (forth.ok()) return OthersCame();
      context.Say("somebody opens the new database, which has no name any more: " + MessageOf(forth));
    }
    if (!context.undoes()) static_cast<void>(place.Remove(context.staging->name()));
    LF_RETURN_IF_ERROR(renamed);
  }
  if (context.state.move_aside()) PutCompanionsBack(context.place, context.state);
  static_cast<void>(context.place.Sync());
  return absl::OkStatus();
}

// Reads what has just got the path from the storage, while whoever opens it waits. OK where it is the snapshot; kDataLoss
// READ_BACK_DIFFERS; any other error: it was left out, and why.
absl::Status ReadBack(const ApplyContext& context, const OwnLease& lease) {
  const auto left_out = [](std::string_view why) { return Error(Code::kAborted, "READ_BACK_LEFT_OUT", why); };
  if (!lease.held()) return left_out("no lease is to be had on the file, so that others may write to it");
  const StagingFile& file = *context.staging;
  // What was just written is in memory, and would be read from there.
  static_cast<void>(posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED));
  const auto began = std::chrono::steady_clock::now();
  format::RootBuilder root(file.page_size(), file.page_count());
  const uint32_t extents = format::ExtentCount(file.page_size(), file.page_count());
  Bytes buffer;
  for (uint32_t extent = 0; extent < extents; ++extent) {
    if (context.cancel.cancelled()) return left_out("it was cancelled");
    if (lease.Wanted()) return left_out("somebody opens the database already");
    const auto took = std::chrono::steady_clock::now() - began;
    if (took > kReadBackSample && took / (extent + 1) * extents > kReadBackBudget)
      return left_out(fmt::format("it would hold the application up for more than {} s", kReadBackBudget.count()));
    if (const absl::Status read = file.ReadExtent(extent, buffer); !read.ok()) return WithReason(read, "READ_BACK_DIFFERS", "");
    root.Add(format::NameChunkOf(file.page_size(), buffer));
  }
  if (root.Finish().AsString() == context.order.root_digest()) return absl::OkStatus();
  return Error(Code::kDataLoss, "READ_BACK_DIFFERS", "it has another root digest than the snapshot");
}

// Undo is automatic only while nobody has come. OK: it was not undone, and context.read_back is the outcome.
absl::Status PutBack(ApplyContext& context, const OwnLease& lease, const absl::Status& difference) {
  context.Say("the read-back found a difference: " + MessageOf(difference));
  if (context.options.at_point) context.options.at_point("differs");
  absl::Status undone = lease.Wanted() ? OthersCame() : context.Enter(storage::v1::RESTORE_STEP_UNDOING);
  LF_CRASH_POINT("restore.replace.undoing");
  if (undone.ok()) undone = TakeBack(context, /*removed=*/false, &lease);
  LF_CRASH_POINT("restore.replace.undone");
  if (undone.ok()) {
    context.put_back = true;
    context.Say("put the previous state back: nobody had opened the database since");
    return Error(Code::kDataLoss, "READ_BACK_DIFFERS",
                 fmt::format("what was put at {} was not what was ordered ({}): the previous state was put back", context.place.path(),
                             MessageOf(difference)),
                 "look at the storage of that machine, then restore again");
  }
  context.Say("the previous state was not put back: " + MessageOf(undone));
  context.read_back =
      Error(Code::kDataLoss, "READ_BACK_DIFFERS",
            fmt::format("what is at {} is not what was ordered ({}), and it was not undone: {}", context.place.path(),
                        MessageOf(difference), MessageOf(undone)),
            fmt::format("the previous state is kept as {}; look at the storage of that machine, stop the application, and choose which of "
                        "the two to keep",
                        context.place.PathOf(context.place.UndoName())));
  return absl::OkStatus();
}

// Since Fold has closed the file somebody may have opened it, committed, and been killed: his log belongs to the old file, and would be
// taken for the new one's.
absl::Status CheckStillFolded(const ApplyContext& context) {
  for (const std::string_view suffix : kCompanions) {
    LF_ASSIGN_OR_RETURN(const auto st, context.place.Stat(context.place.name() + std::string(suffix)));
    if (st.has_value())
      return Error(Code::kAborted, "WRITTEN_SINCE_FOLD", fmt::format("its {} has come back since the agent closed it", suffix));
  }
  return absl::OkStatus();
}

// The staging file in the place of the old database; without one nothing. WRITTEN_SINCE_FOLD: to be folded again, nothing was changed.
absl::Status Swap(ApplyContext& context) {
  const bool removal = context.staging == nullptr;
  LF_ASSIGN_OR_RETURN(const auto old, context.place.Stat(context.place.name()));
  if (!old.has_value()) {
    return Error(Code::kFailedPrecondition, "TARGET_MISSING", fmt::format("{} has gone meanwhile", context.place.path()),
                 context.undoes() ? "look at what is there" : "restore again without --mode");
  }
  LF_ASSIGN_OR_RETURN(const auto lease, ProveUnused(context));
  if (!context.state.move_aside()) LF_RETURN_IF_ERROR(CheckStillFolded(context));
  if (!context.undoes()) {
    std::vector<std::string> lost;
    LF_RETURN_IF_ERROR(TakeOwnerOf(context.place, context.place.name(), context.staging->fd(), context.staging->path(), lost));
    for (const std::string& name : lost) context.Say(fmt::format("the attribute {} of the old file could not be kept", name));
  }
  if (!removal) LF_RETURN_IF_ERROR(context.staging->Sync(context.cancel));
  LF_RETURN_IF_ERROR(context.CheckCancelled());

  absl::Status status = KeepPresent(context);
  // Nobody knows its name yet.
  const bool reads_back = !removal && !context.undoes() && context.staging->page_count() > 0;
  if (reads_back && context.options.at_point) context.options.at_point("renaming");
  std::optional<OwnLease> own;
  if (reads_back) own.emplace(context.staging->fd());
  LF_CRASH_POINT("restore.replace.before_rename");
  if (status.ok() && lease.has_value() && lease->Wanted()) status = InUse(context, ": somebody opens it just now");
  if (status.ok())
    status = removal ? context.place.Remove(context.place.name()) : context.place.Rename(context.staging->name(), context.place.name());
  LF_CRASH_POINT("restore.replace.after_rename");
  LF_RETURN_IF_ERROR(status);
  if (context.options.at_point) context.options.at_point("placed");
  if (SomebodyCame(lease, {old->st_dev, old->st_ino})) {
    const absl::Status back = TakeBack(context, removal, own.has_value() && own->held() ? &*own : nullptr);
    if (back.ok()) return InUse(context, ": somebody opened it, or may have, during the restore, which was taken back");
    context.Say("somebody opened the old database during the restore, which could not be taken back: " + MessageOf(back));
  }
  if (reads_back) {
    if (context.options.at_point) context.options.at_point("renamed");
    const absl::Status read = ReadBack(context, *own);
    if (ReasonOf(read) == "READ_BACK_DIFFERS") {
      LF_RETURN_IF_ERROR(PutBack(context, *own, read));
    } else {
      context.Say(read.ok() ? "read the database back: it is the snapshot" : "the read-back was left out: " + MessageOf(read));
    }
    own.reset();
  }
  if (context.undoes()) {
    if (const absl::Status placed = PlaceUndoCompanions(context.place, context.state); !placed.ok()) context.Say(MessageOf(placed));
  }
  context.Say(removal ? fmt::format("took the restored database away from {}", context.place.path())
                      : fmt::format("renamed the {} database to {}", context.undoes() ? "previous" : "restored", context.place.path()));
  return context.Applied();
}

}  // namespace

absl::Status ApplyReplace(ApplyContext& context) {
  context.progress.Begin("applying", 80, 100);
  const auto started = std::chrono::steady_clock::now();
  // First by looking alone, so that an application that runs is not disturbed by a fold.
  if (const Users users = FindUsers(FilesOf(context.place)); !users.pids.empty()) return InUse(context, "");
  for (int round = 1;; ++round) {
    if (!context.state.move_aside()) {
      const absl::Status folded = Fold(context);
      if (folded.code() == Code::kUnavailable) return InUse(context, ": " + MessageOf(folded));
      if (folded.code() == Code::kDataLoss || folded.code() == Code::kInternal) {
        context.state.set_move_aside(true);
        context.Say(fmt::format("the old database cannot be opened and is kept as it is, with its log or journal: {}", MessageOf(folded)));
      } else if (!folded.ok()) {
        return folded;
      }
    }
    LF_RETURN_IF_ERROR(context.CheckCancelled());
    const absl::Status swapped = Swap(context);
    if (swapped.ok()) break;
    if (ReasonOf(swapped) != "WRITTEN_SINCE_FOLD") return swapped;
    if (round == kMostFolds) return InUse(context, ": " + MessageOf(swapped));
  }
  context.state.set_stall_ms(std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - started).count());
  return absl::OkStatus();
}

}  // namespace litefleet::restore
