#include "agent/restore/apply.h"

#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "agent/capture/database_header.h"
#include "common/base/clock.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;

bool HasPart(const storage::v1::RestoreState& state, std::string_view suffix) {
  return std::find(state.undo_parts().begin(), state.undo_parts().end(), suffix) != state.undo_parts().end();
}

absl::Status SetOwner(int fd, uid_t owner, gid_t group, mode_t mode, const std::string& what) {
  struct stat st {};
  if (fstat(fd, &st) != 0) return ErrnoError(errno, "look at " + what);
  // First the owner, since it takes set-id bits away; nothing to ask for where it is right already.
  if ((st.st_uid != owner || st.st_gid != group) && fchown(fd, owner, group) != 0) {
    return Annotate(ErrnoError(errno, "change the owner of " + what), "the restored file must belong to whom the old one belongs to");
  }
  if (fchmod(fd, mode & 07777) != 0) return ErrnoError(errno, "change the mode of " + what);
  return absl::OkStatus();
}

}  // namespace

absl::Status ApplyContext::Enter(storage::v1::RestoreStep step) {
  state.set_step(step);
  return journal.Save(state);
}

absl::Status ApplyContext::Applied() {
  if (const absl::Status synced = place.Sync(); !synced.ok()) Say(MessageOf(synced));
  state.set_applied(true);
  if (const absl::Status entered = Enter(storage::v1::RESTORE_STEP_APPLIED); !entered.ok()) Say(MessageOf(entered));
  return absl::OkStatus();
}

absl::Status ApplyContext::CheckCancelled() const {
  return cancel.cancelled() ? Error(Code::kCancelled, "CANCELLED", "the restore was cancelled") : absl::OkStatus();
}

absl::Status MoveCompanionsAside(ApplyContext& context) {
  for (const std::string_view suffix : kCompanions) {
    const std::string name = context.place.name() + std::string(suffix);
    LF_ASSIGN_OR_RETURN(const auto st, context.place.Stat(name));
    if (!st.has_value()) continue;
    const std::string aside = context.temporary_undo() + std::string(suffix);
    const absl::Status moved = context.place.RenameNew(name, aside);
    if (moved.code() == Code::kAlreadyExists) {
      // A former run was interrupted here, and since then somebody has made another. In these nothing is lost with it.
      if (suffix != "-shm" && st->st_size > 0) {
        return Error(Code::kFailedPrecondition, "LEFTOVER_CAME",
                     fmt::format("{} has come since the run before had moved another one aside, which is {}", context.place.PathOf(name),
                                 context.place.PathOf(aside)),
                     "nothing was changed; look at both, keep what is needed, and restore again");
      }
      LF_RETURN_IF_ERROR(context.place.Remove(name));
      continue;
    }
    LF_RETURN_IF_ERROR(moved);
    context.Say(fmt::format("moved the left-over {} aside", name));
    LF_CRASH_POINT("restore.companion_moved");
  }
  return context.place.Sync();
}

void PutCompanionsBack(const TargetPlace& place, storage::v1::RestoreState& state) {
  for (const std::string_view suffix : kCompanions) {
    if (!HasPart(state, suffix)) continue;
    const std::string name = place.name() + std::string(suffix);
    const std::string aside = TargetPlace::TemporaryUndoName(state.operation_id()) + std::string(suffix);
    const auto there = place.Stat(aside);
    if (!there.ok() || !there->has_value()) continue;
    const absl::Status moved = place.RenameNew(aside, name);
    if (!moved.ok())
      state.add_steps(fmt::format("could not move {} back, it is kept as {}: {}", name, place.PathOf(aside), MessageOf(moved)));
  }
  static_cast<void>(place.Sync());
}

absl::Status PlaceUndoCompanions(const TargetPlace& place, storage::v1::RestoreState& state) {
  for (const std::string& suffix : state.undoes().parts()) {
    if (suffix.empty()) continue;
    LF_ASSIGN_OR_RETURN(const auto kept, place.Stat(place.UndoName() + suffix));
    if (!kept.has_value()) continue;
    // Beside what somebody has begun to write there it is not put.
    if (const absl::Status placed = place.RenameNew(place.UndoName() + suffix, place.name() + suffix); !placed.ok()) {
      state.add_steps(fmt::format("the kept {}{} was not put back: {}", place.name(), suffix, MessageOf(placed)));
      continue;
    }
    state.add_steps(fmt::format("put the kept {}{} back", place.name(), suffix));
    LF_CRASH_POINT("restore.undo.companion_placed");
  }
  return place.Sync();
}

absl::Status InstallUndo(const TargetPlace& place, const RestoreJournal& journal, storage::v1::RestoreState& state) {
  const std::string undo = place.UndoName();
  const std::string temporary = TargetPlace::TemporaryUndoName(state.operation_id());
  for (const std::string_view suffix :
       {std::string_view("-journal"), std::string_view("-shm"), std::string_view("-wal"), std::string_view()}) {
    const std::string from = temporary + std::string(suffix);
    const std::string to = undo + std::string(suffix);
    if (!HasPart(state, suffix)) {
      LF_RETURN_IF_ERROR(place.Remove(to));  // of an older undo
      continue;
    }
    LF_ASSIGN_OR_RETURN(const auto there, place.Stat(from));
    if (there.has_value()) LF_RETURN_IF_ERROR(place.Rename(from, to));
    LF_CRASH_POINT("restore.undo_part_installed");
  }
  LF_RETURN_IF_ERROR(place.Sync());
  // Without any part the previous state is that nothing was there.
  storage::v1::UndoRecord record;
  record.set_database(state.database());
  record.set_path(place.path());
  record.set_undo(place.PathOf(undo));
  *record.mutable_parts() = state.undo_parts();
  record.set_operation_id(state.operation_id());
  record.set_snapshot_id(state.snapshot_id());
  record.set_mode(state.mode());
  record.set_made_at_ms(ToUnixMillis(RealClock().Now()));
  if (HasPart(state, "")) {
    LF_ASSIGN_OR_RETURN(const auto kept, place.Stat(undo));
    if (kept.has_value()) {
      record.set_device(kept->st_dev);
      record.set_inode(kept->st_ino);
      record.set_size_bytes(kept->st_size);
    }
  }
  LF_RETURN_IF_ERROR(journal.SaveUndo(record));
  // Without a database there is no previous state: what was left over beside it is kept, and told part by part.
  if (!HasPart(state, "")) {
    for (const std::string& part : state.undo_parts())
      state.add_steps(fmt::format("kept the left-over {} as {}{}", part, record.undo(), part));
    return absl::OkStatus();
  }
  state.set_undo(record.undo());
  state.add_steps(fmt::format("kept the previous state as {}", record.undo()));
  return absl::OkStatus();
}

absl::Status TakeOwnerOf(const TargetPlace& place, const std::string& like, int fd, const std::string& what,
                         std::vector<std::string>& lost) {
  LF_ASSIGN_OR_RETURN(const auto st, place.Stat(like));
  if (!st.has_value()) return TakeOwnerOfDirectory(place, fd, what);
  LF_RETURN_IF_ERROR(SetOwner(fd, st->st_uid, st->st_gid, st->st_mode, what));
  // Extended attributes by path: a descriptor of the database outside SQLite is not ours to close (design law 3).
  const std::string path = place.PathOf(like);
  std::vector<char> names(64 << 10);
  const ssize_t length = llistxattr(path.c_str(), names.data(), names.size());
  // What cannot be listed would be dropped without a word.
  if (length < 0 && errno != ENOTSUP) return ErrnoError(errno, fmt::format("list the attributes of {}", path));
  for (ssize_t at = 0; at < length;) {
    const char* name = names.data() + at;
    at += static_cast<ssize_t>(std::strlen(name)) + 1;
    std::vector<char> value(64 << 10);
    const ssize_t size = lgetxattr(path.c_str(), name, value.data(), value.size());
    if (size >= 0 && fsetxattr(fd, name, value.data(), static_cast<size_t>(size), 0) == 0) continue;
    if (errno == ENODATA) continue;  // it has gone meanwhile
    if (errno != ENOTSUP && errno != EPERM && errno != EACCES)
      return ErrnoError(errno, fmt::format("copy the attribute {} to {}", name, what));
    lost.emplace_back(name);
  }
  return absl::OkStatus();
}

absl::Status TakeOwnerOfDirectory(const TargetPlace& place, int fd, const std::string& what) {
  LF_ASSIGN_OR_RETURN(const struct stat directory, place.StatDirectory());
  const bool root = geteuid() == 0;
  const bool group_writes = (directory.st_mode & S_IWGRP) != 0;
  struct stat own {};
  if (fstat(fd, &own) != 0) return ErrnoError(errno, "look at " + what);
  return SetOwner(fd, root ? directory.st_uid : own.st_uid, root ? directory.st_gid : own.st_gid, group_writes ? 0660 : 0600, what);
}

absl::StatusOr<std::unique_ptr<capture::UserDatabase>> OpenTarget(const TargetPlace& place, const ApplyOptions& options,
                                                                  const CancelToken& cancel, bool interrupted) {
  capture::UserDatabaseOptions open;
  open.path = place.path();
  // SQLite opens it by its path: what the descriptor of the directory has under that name, and nothing that a link leads to.
  LF_ASSIGN_OR_RETURN(const auto st, place.Stat(place.name()));
  if (!st.has_value()) return Error(Code::kNotFound, "DATABASE_MISSING", fmt::format("{} does not exist", place.path()));
  open.only = {st->st_dev, st->st_ino};
  open.busy_timeout = std::chrono::seconds(5);
  open.allow_network_fs = options.allow_network_fs;
  open.own_journal = interrupted;
  open.cancelled = [&cancel] { return cancel.cancelled(); };
  return capture::UserDatabase::Open(std::move(open));
}

absl::StatusOr<LiveTarget> LookAtLiveTarget(const TargetPlace& place, const ApplyOptions& options, const CancelToken& cancel,
                                            bool interrupted) {
  const auto look = [&]() -> absl::StatusOr<LiveTarget> {
    LF_ASSIGN_OR_RETURN(const auto database, OpenTarget(place, options, cancel, interrupted));
    LF_RETURN_IF_ERROR(database->CheckWalIsThere());
    LF_RETURN_IF_ERROR(database->BeginRead());
    LiveTarget target;
    LF_ASSIGN_OR_RETURN(const uint64_t file_bytes, database->FileBytes());
    target.wal = database->wal_file() != nullptr;
    target.bytes = file_bytes;
    if (file_bytes > 0) {
      LF_ASSIGN_OR_RETURN(const Bytes start, database->ReadStart(capture::kHeaderBytes));
      const auto header = capture::ParseHeader(start);
      if (header.has_value()) target.wal = header->wal;
      LF_ASSIGN_OR_RETURN(const int64_t page_size, sqlite::QueryInt(database->db(), "pragma page_size"));
      target.page_size = static_cast<uint32_t>(page_size);
    }
    struct stat wal {};
    if (target.wal && stat((database->real_path() + "-wal").c_str(), &wal) == 0) target.bytes += static_cast<uint64_t>(wal.st_size);
    database->EndRead();
    LF_RETURN_IF_ERROR(database->Close());
    return target;
  };
  auto target = look();
  if (target.ok()) return target;
  switch (target.status().code()) {
    case Code::kDataLoss:
    case Code::kInternal:
      return Error(Code::kFailedPrecondition, "TARGET_NOT_OPENABLE",
                   fmt::format("SQLite cannot open the database that is there: {}", MessageOf(target.status())),
                   "stop the application and restore with --mode replace, which keeps what is there as the undo");
    default:
      return target.status();
  }
}

absl::Status CheckPageSize(const LiveTarget& target, uint32_t page_size) {
  if (!target.wal || target.page_size == 0 || target.page_size == page_size) return absl::OkStatus();
  return Error(Code::kFailedPrecondition, "PAGE_SIZE_DIFFERS",
               fmt::format("the snapshot has pages of {} bytes, the database in WAL mode has pages of {}", page_size, target.page_size),
               "stop the application and restore with --mode replace, or let it leave WAL mode for the restore");
}

}  // namespace litefleet::restore
