#include "agent/capture/file_copy_taker.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "agent/capture/database_header.h"
#include "agent/capture/file_facts.h"
#include "agent/capture/pin_limits.h"
#include "agent/capture/wal_index.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

using Code = absl::StatusCode;
using Way = FileCopy::Way;

// In WAL mode nobody but an application that lets nobody in has the database locked for longer.
constexpr std::chrono::milliseconds kWalLockWait{1000};
constexpr std::chrono::milliseconds kStillLook{50};
constexpr size_t kSaltsAt = 16;  // in the header of a WAL

uint64_t SizeOf(const std::string& path) {
  struct stat st {};
  return stat(path.c_str(), &st) == 0 ? static_cast<uint64_t>(st.st_size) : 0;
}

// The header of a WAL changes whenever it is started over. On it SQLite holds no lock that closing a descriptor would drop.
Bytes WalHeader(const std::string& path) {
  const absl::StatusOr<io::UniqueFd> fd = io::Open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  Bytes header(kWalHeaderBytes);
  if (!fd.ok() || !io::PreadAll(fd->get(), header, 0, path).ok()) return {};
  return header;
}

// What is looked at before and after a copy without a lock.
struct Look {
  std::optional<FileFacts> facts;
  std::optional<FileId> database;
  std::optional<FileId> wal;
  Bytes wal_header;
};

}  // namespace

std::string FileCopyTaker::SidePath(CopiedFiles::Which which) const {
  return database_->real_path() + (which == CopiedFiles::kWal ? "-wal" : "-journal");
}

absl::Status FileCopyTaker::Take() {
  UserDatabaseOptions open{options_.path, options_.busy_timeout, options_.allow_network_fs, options_.cancelled};
  LF_ASSIGN_OR_RETURN(database_, UserDatabase::Open(open));
  LF_ASSIGN_OR_RETURN(const Bytes start, database_->ReadStart(kHeaderBytes));
  if (const auto header = ParseHeader(start); header && header->wal && options_.busy_timeout > kWalLockWait) {
    open.busy_timeout = kWalLockWait;
    database_.reset();
    LF_ASSIGN_OR_RETURN(database_, UserDatabase::Open(open));
  }
  LF_RETURN_IF_ERROR(database_->CheckWalIsThere());
  LF_RETURN_IF_ERROR(Prepare());
  absl::Status status = Locked();
  End();
  process_.reset();
  const absl::Status closed = database_->Close();
  return status.ok() ? closed : status;
}

absl::Status FileCopyTaker::Prepare() {
  if (copy_.options_.may_share) {
    if (const absl::Status beside = PrepareIn(io::DirectoryOf(database_->real_path())); beside.ok()) {
      LF_ASSIGN_OR_RETURN(const std::optional<uint64_t> shared, process_->Share());
      copy_.shared_ = shared.has_value();
    } else if (!absl::IsPermissionDenied(beside) && !absl::IsUnimplemented(beside)) {
      return beside;
    }
  }
  LF_RETURN_IF_ERROR(CheckSpace());
  return copy_.shared_ ? absl::OkStatus() : PrepareIn(copy_.options_.scratch);
}

absl::Status FileCopyTaker::PrepareIn(const std::string& directory) {
  process_.reset();
  LF_ASSIGN_OR_RETURN(copy_.files_, CopiedFiles::Make(directory));
  const CopiedFiles& files = *copy_.files_;
  LF_ASSIGN_OR_RETURN(
      process_, copy::CopyProcess::Start(copy_.options_.helper, database_->real_path(),
                                         {files.fd(CopiedFiles::kDatabase), files.fd(CopiedFiles::kWal), files.fd(CopiedFiles::kJournal)},
                                         [this](uint64_t done) { return GoingOn(done); }));
  return absl::OkStatus();
}

// A WAL is copied, and then once more into the database.
absl::Status FileCopyTaker::CheckSpace() const {
  const uint64_t sides = 2 * SizeOf(SidePath(CopiedFiles::kWal)) + 2 * SizeOf(SidePath(CopiedFiles::kJournal));
  const uint64_t needed = sides + (copy_.shared_ ? 0 : SizeOf(database_->real_path()));
  if (!copy_.shared_ && needed > copy_.options_.max_copy_bytes) {
    return Error(Code::kResourceExhausted, "SPOOL_FULL",
                 fmt::format("the file system of {} cannot share blocks, and a copy of {} MiB does not fit into a spool of {} MiB",
                             options_.path, needed >> 20, copy_.options_.max_copy_bytes >> 20),
                 "use the method online, which writes no copy, or raise `[limits] spool_bytes` of agent.toml");
  }
  const std::string where = copy_.shared_ ? io::DirectoryOf(database_->real_path()) : copy_.options_.scratch;
  LF_ASSIGN_OR_RETURN(const uint64_t free, io::FreeBytes(where));
  LF_ASSIGN_OR_RETURN(const uint64_t reserve, options_.reserve.At(where));
  if (needed == 0 || free >= reserve + needed) return absl::OkStatus();
  return Error(Code::kResourceExhausted, "DISK_FULL",
               fmt::format("a copy of {} takes {} MiB in {}, {} MiB are free and a reserve of {} MiB stays free", options_.path,
                           needed >> 20, where, free >> 20, reserve >> 20),
               "free space there, or use the method online; the reserve is `[limits] disk_reserve`");
}

absl::Status FileCopyTaker::Locked() {
  // SQLite takes no lock there either, and nobody can write.
  if (database_->immutable()) return TakeStill(/*locked_out=*/false);
  const absl::StatusOr<bool> locked = database_->LockFile(UserDatabase::FileLockLevel::kShared);
  LF_ASSIGN_OR_RETURN(const Bytes start, database_->ReadStart(kHeaderBytes));
  const auto header = ParseHeader(start);
  // SQLite looks into a WAL that lies there, whatever the header says.
  const bool wal = (header && header->wal) || SizeOf(SidePath(CopiedFiles::kWal)) > 0;
  if (!locked.ok()) return wal && ReasonOf(locked.status()) == "DATABASE_BUSY" ? TakeStill(/*locked_out=*/true) : locked.status();
  if (!wal) return TakeRollback();
  database_->UnlockFile();
  if (database_->OthersAttached(ReadLocks())) return TakePinned();
  if (sqlite3_db_readonly(database_->db(), "main") == 1) return TakeStill(/*locked_out=*/false);
  LF_ASSIGN_OR_RETURN(const bool alone, database_->LockFile(UserDatabase::FileLockLevel::kExclusive));
  return alone ? TakeCold() : TakePinned();
}

// The database file is the committed state, unless a crash has left a journal.
absl::Status FileCopyTaker::TakeRollback() {
  const absl::Cleanup unlock = [this] { database_->UnlockFile(); };
  LF_RETURN_IF_ERROR(Begin(Way::kRollback));
  LF_ASSIGN_OR_RETURN(const bool at_work, database_->WriterAtWork());
  LF_RETURN_IF_ERROR(CopyDatabase());
  return at_work ? absl::OkStatus() : CopySide(CopiedFiles::kJournal);
}

absl::Status FileCopyTaker::TakeCold() {
  const absl::Cleanup unlock = [this] { database_->UnlockFile(); };
  LF_RETURN_IF_ERROR(Begin(Way::kCold));
  LF_RETURN_IF_ERROR(CopyDatabase());
  LF_RETURN_IF_ERROR(CopySide(CopiedFiles::kWal));
  return CopySide(CopiedFiles::kJournal);
}

// While a mark above 0 is held the WAL is not started over, and whoever checkpoints writes pages of which the WAL has frames that count
// here: so the database, whenever it is read, with the frames up to the mark laid over it, is the state. With mark 0 the database is.
absl::Status FileCopyTaker::TakePinned() {
  LF_ASSIGN_OR_RETURN(read_, PinnedRead::Begin(*database_));
  LF_RETURN_IF_ERROR(Begin(Way::kPinned));
  if (read_->wal_index() == nullptr) {
    if (read_->wal() || SizeOf(SidePath(CopiedFiles::kWal)) == 0) return CopyDatabase();
    return Error(Code::kAborted, "SOURCE_CHANGED", fmt::format("{} is in rollback mode and has a WAL", options_.path), "try again");
  }
  LF_RETURN_IF_ERROR(CopyDatabase());
  const WalState& state = read_->wal_state();
  if (state.max_frame == 0) return absl::OkStatus();
  LF_RETURN_IF_ERROR(CopySide(CopiedFiles::kWal));
  LF_ASSIGN_OR_RETURN(const WalState after, read_->wal_index()->ReadState());
  if (after.salts != state.salts) return copy_.files_->Drop(CopiedFiles::kWal);  // started over: the mark was 0
  const uint64_t wanted = kWalHeaderBytes + uint64_t{state.max_frame} * (kWalFrameHeaderBytes + state.page_size);
  LF_ASSIGN_OR_RETURN(const uint64_t have, copy_.files_->Bytes(CopiedFiles::kWal));
  if (have < wanted)
    return Error(Code::kAborted, "SOURCE_CHANGED", fmt::format("the WAL of {} became shorter", options_.path), "try again");
  // It is found by its name, and somebody may have put another one there.
  std::array<std::byte, kSaltsAt + sizeof(state.salts)> header{};
  LF_RETURN_IF_ERROR(io::PreadAll(copy_.files_->fd(CopiedFiles::kWal), header, 0, "the copied WAL"));
  if (!std::equal(state.salts.begin(), state.salts.end(), &header[kSaltsAt]))
    return Error(Code::kAborted, "SOURCE_CHANGED", fmt::format("the WAL of {} was replaced by another file", options_.path), "try again");
  return copy_.files_->Truncate(CopiedFiles::kWal, wanted);
}

// Nobody can be held off, so the files have to prove that they belong together. A WAL that was not started over between a look before the
// database was read and one after the WAL was: every page that a checkpoint wrote into the database meanwhile, torn or whole, has a frame
// in it. Or nothing was written at all. Never in rollback mode: a journal may be in the memory of the application.
absl::Status FileCopyTaker::TakeStill(bool locked_out) {
  const SteadyTime until = options_.clock->Steady() + options_.busy_timeout;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool proven, TakeStillOnce(locked_out));
    if (proven) return absl::OkStatus();
    if (options_.clock->Steady() >= until) break;
    LF_RETURN_IF_ERROR(GoingOn(0));
    std::this_thread::sleep_for(kStillLook);
  }
  if (wal_missing_) {
    // The last one who closes, or another backup, keeps others out for a while, and leaves no WAL.
    const absl::Status let_in = database_->LockFile(UserDatabase::FileLockLevel::kShared).status();
    if (let_in.ok()) {
      database_->UnlockFile();
      wal_missing_ = false;
    } else if (ReasonOf(let_in) != "DATABASE_BUSY") {
      return let_in;
    }
  }
  if (wal_missing_) {
    return Error(
        Code::kFailedPrecondition, "WAL_REMOVED",
        fmt::format("an application lets nobody lock {} (locking_mode=EXCLUSIVE), and its WAL was removed: what it commits is in no "
                    "file",
                    options_.path),
        kWalRemovedHint);
  }
  return Error(
      Code::kUnavailable, "DATABASE_BUSY",
      fmt::format("an application lets nobody lock {} (locking_mode=EXCLUSIVE), and within {} ms there was no copy of which it is certain "
                  "that its files belong together",
                  options_.path, options_.busy_timeout.count()),
      "raise busy_timeout, or stop the application around the backup by the hooks before_backup and after_backup");
}

absl::StatusOr<bool> FileCopyTaker::TakeStillOnce(bool locked_out) {
  const auto look = [&] {
    return Look{FileFactsOf(database_->real_path(), options_.clock->Now()), FileIdOf(database_->real_path()),
                FileIdOf(SidePath(CopiedFiles::kWal)), WalHeader(SidePath(CopiedFiles::kWal))};
  };
  LF_RETURN_IF_ERROR(copy_.files_->Drop(CopiedFiles::kWal));
  LF_RETURN_IF_ERROR(copy_.files_->Drop(CopiedFiles::kJournal));
  const Look before = look();
  LF_RETURN_IF_ERROR(Begin(Way::kStill));
  LF_RETURN_IF_ERROR(CopyDatabase());
  LF_RETURN_IF_ERROR(CopySide(CopiedFiles::kWal));
  LF_RETURN_IF_ERROR(CopySide(CopiedFiles::kJournal));
  const Look after = look();
  Bytes start(kHeaderBytes);
  if (!io::PreadAll(copy_.files_->fd(CopiedFiles::kDatabase), start, 0, "the copy").ok()) return false;
  const auto header = ParseHeader(start);
  LF_ASSIGN_OR_RETURN(const uint64_t journal, copy_.files_->Bytes(CopiedFiles::kJournal));
  if (!header || !header->wal || journal > 0 || !before.database || before.database != after.database) return false;
  const bool one_wal = before.wal && before.wal == after.wal && !before.wal_header.empty() && before.wal_header == after.wal_header;
  // Whoever has locked it for good has a WAL beside it from its first read on.
  wal_missing_ = locked_out && !before.wal && !after.wal;
  const bool untouched = !wal_missing_ && before.facts && after.facts && before.facts->text == after.facts->text &&
                         (before.facts->settled || (database_->immutable() && database_->CheckAtRest().ok()));
  return one_wal || untouched;
}

absl::Status FileCopyTaker::Begin(Way way) {
  copy_.way_ = way;
  since_ = options_.clock->Steady();
  held_ = true;
  copy_.info_.pinned_at = options_.clock->Now();
  copy_.info_.pinned_since_boot = options_.clock->SinceBoot();
  LF_CRASH_POINT("capture.pinned");
  LF_ASSIGN_OR_RETURN(database_bytes_, database_->FileBytes());
  return SameFile();
}

absl::Status FileCopyTaker::SameFile() const {
  const FileId file = database_->file_id();
  const FileId opened{static_cast<dev_t>(process_->opened().first), static_cast<ino_t>(process_->opened().second)};
  if (opened == file && FileIdOf(database_->real_path()) == file) return absl::OkStatus();
  return Error(Code::kAborted, "SOURCE_CHANGED", fmt::format("{} was replaced by another file", options_.path), "try again");
}

void FileCopyTaker::End() {
  if (read_ != nullptr) read_->End();
  if (held_) copy_.held_ = copy_.way_ == Way::kStill ? std::chrono::nanoseconds(0) : options_.clock->Steady() - since_;
  held_ = false;
  LF_CRASH_POINT("capture.unpinned");
}

absl::Status FileCopyTaker::CopyDatabase() {
  if (!copy_.shared_) return process_->Copy().status();
  LF_ASSIGN_OR_RETURN(const std::optional<uint64_t> shared, process_->Share());
  if (shared) return absl::OkStatus();
  return Error(Code::kInternal, "IO_ERROR", fmt::format("the blocks of {} could be shared a moment ago and now they cannot", options_.path),
               "try again");
}

absl::Status FileCopyTaker::CopySide(CopiedFiles::Which which) {
  LF_ASSIGN_OR_RETURN(const std::optional<uint64_t> bytes, process_->Side(which == CopiedFiles::kWal ? "-wal" : "-journal", which));
  // It is found by its name. Beside another database that took this one's place meanwhile it is that one's; the lock holds nobody off
  // there.
  if (copy_.way_ != Way::kStill) LF_RETURN_IF_ERROR(SameFile());
  if (bytes) copy_.files_->Have(which);
  return bytes && which == CopiedFiles::kJournal ? copy_.files_->NoteSuperJournal() : absl::OkStatus();
}

absl::Status FileCopyTaker::GoingOn(uint64_t done) const {
  if (options_.cancelled && options_.cancelled())
    return Error(Code::kCancelled, "CANCELLED", fmt::format("the backup of {} was cancelled", options_.path));
  if (!held_ || copy_.way_ == Way::kStill) return absl::OkStatus();
  const std::chrono::nanoseconds held = options_.clock->Steady() - since_;
  const double share = database_bytes_ == 0 ? 0.0 : static_cast<double>(done) / static_cast<double>(database_bytes_);
  return read_ != nullptr ? CheckPinLimits(options_, *read_, held, share) : Stalled(held, share);
}

absl::Status FileCopyTaker::Stalled(std::chrono::nanoseconds held, double done) const {
  return copy_.way_ == Way::kCold
             ? CheckWriterStall(options_, "is locked while it is copied, so that an application that starts would wait",
                                "raise rollback_stall, or use the method online", held, done)
             : CheckWriterStall(options_, "is in rollback mode, where a copy blocks its writers",
                                "switch the application to WAL mode, or raise rollback_stall", held, done);
}

}  // namespace litefleet::capture
