#include "agent/capture/user_database.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <set>
#include <thread>
#include <utility>

#include "agent/capture/database_header.h"
#include "agent/capture/file_facts.h"
#include "agent/capture/hot_journal.h"
#include "agent/capture/open_files.h"
#include "agent/capture/read_only_mount.h"
#include "agent/capture/wal_index.h"
#include "common/base/clock.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/format/file_kind.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

using Code = absl::StatusCode;

constexpr int kCloseRounds = 2;
constexpr int kLooksAtLocks = 3;
// Whoever is just opening a database has a lock on it before the one on the wal-index, and on a slow disk makes its files for a while.
constexpr std::array<std::chrono::milliseconds, 4> kBetweenLooks{std::chrono::milliseconds(20), std::chrono::milliseconds(80),
                                                                 std::chrono::milliseconds(300), std::chrono::milliseconds(600)};
constexpr std::string_view kBeOwner = "run the agent as root or as the owner of the database";

bool HasChown() {
  if (geteuid() != 0) return false;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("CapEff:")) return (std::strtoull(line.c_str() + 7, nullptr, 16) >> CAP_CHOWN & 1) != 0;
  }
  return true;
}

std::string ImmutableUri(const std::string& path) {
  std::string uri = "file:";
  for (const char c : path) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '/' || c == '.' || c == '-' || c == '_') {
      uri += c;
    } else {
      uri += fmt::format("%{:02x}", static_cast<unsigned char>(c));
    }
  }
  return uri + "?immutable=1";
}

absl::Status PermissionError(std::string_view path, std::string_view why) {
  return Error(Code::kPermissionDenied, "NO_PERMISSION", fmt::format("{}: {}", path, why), kBeOwner);
}

absl::Status ReplacedError(const std::string& path) {
  return Error(Code::kFailedPrecondition, "FILE_REPLACED",
               fmt::format("{} is not the file that it was a moment ago: somebody has put another one, or a link, in its place", path),
               "look at who may write to its directory and to those above, then try again");
}

absl::Status CheckFile(const UserDatabaseOptions& options) {
  const std::string& path = options.path;
  if (path.empty() || path.front() != '/') {
    return Error(Code::kInvalidArgument, "INVALID_PATH", fmt::format("'{}' is not an absolute path", path),
                 "name the database by its absolute path");
  }
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) {
    switch (errno) {
      case ENOENT:
      case ENOTDIR:
        return Error(Code::kNotFound, "DATABASE_MISSING", fmt::format("{} does not exist", path),
                     "check the path in the agent's configuration");
      case EACCES:
        return PermissionError(path, "a directory of the path may not be entered");
      default:
        return ErrnoError(errno, "stat " + path);
    }
  }
  if (!S_ISREG(st.st_mode)) {
    return Error(Code::kFailedPrecondition, "NOT_REGULAR_FILE",
                 fmt::format("{} is {}", path, S_ISDIR(st.st_mode) ? "a directory" : "no regular file"), "name the database file itself");
  }
  if (faccessat(AT_FDCWD, path.c_str(), R_OK, AT_EACCESS) != 0) return PermissionError(path, "it may not be read");
  if (!options.allow_network_fs) {
    if (const std::string name = io::NetworkFileSystemName(path); !name.empty()) {
      return Error(Code::kFailedPrecondition, "NETWORK_FILE_SYSTEM", fmt::format("{} lies on {}", path, name),
                   "SQLite's locks are not reliable there: back it up on the machine that has the disk, or allow it in the configuration");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status NotInWalMode(const std::string& path) {
  return Error(Code::kFailedPrecondition, "NOT_WAL", fmt::format("{} is not in WAL mode: it cannot be followed", path),
               "switch the application to `pragma journal_mode=wal`, or use method = \"online\" with a schedule");
}

absl::StatusOr<std::unique_ptr<UserDatabase>> UserDatabase::Open(UserDatabaseOptions options) {
  LF_RETURN_IF_ERROR(CheckFile(options));
  std::unique_ptr<UserDatabase> database(new UserDatabase(std::move(options)));
  LF_RETURN_IF_ERROR(database->Connect());
  LF_RETURN_IF_ERROR(database->CheckHeader());
  return database;
}

UserDatabase::~UserDatabase() { static_cast<void>(Close()); }

absl::Status UserDatabase::Connect() {
  sqlite3* raw = nullptr;
  // The path is absolute, so that it is never taken for a URI. Read-only files are opened read-only by SQLite itself.
  const int access = immutable_ ? SQLITE_OPEN_READONLY | SQLITE_OPEN_URI : SQLITE_OPEN_READWRITE;
  const int rc =
      sqlite3_open_v2((immutable_ ? ImmutableUri(options_.path) : options_.path).c_str(), &raw,
                      access | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE | (options_.only ? SQLITE_OPEN_NOFOLLOW : 0), nullptr);
  db_.reset(raw);
  if (rc == SQLITE_CANTOPEN_SYMLINK) {
    db_.reset();
    return ReplacedError(options_.path);
  }
  if (rc != SQLITE_OK) {
    const absl::Status status = ErrorFor(rc, "open");
    db_.reset();
    return status;
  }
  // Nothing is parsed here that would be worth 48 KiB a connection.
  sqlite3_db_config(raw, SQLITE_DBCONFIG_LOOKASIDE, nullptr, 0, 0);
  sqlite3_db_config(raw, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(raw, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(raw, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, nullptr);
  sqlite3_db_config(raw, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
  if (tolerant_) TolerateTruncation();
  // Turned off again in Close() for the last one attached: no path of failure may fold the WAL by accident.
  sqlite3_db_config(raw, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  sqlite3_wal_autocheckpoint(raw, 0);
  busy_ = {options_.busy_timeout, {}, &options_.cancelled};
  sqlite3_busy_handler(raw, &UserDatabase::OnBusy, &busy_);
  if (const int failed = sqlite3_exec(raw, "pragma query_only=1", nullptr, nullptr, nullptr); failed != SQLITE_OK) {
    const absl::Status status = ErrorFor(failed, "open");
    db_.reset();
    return status;
  }
  const char* name = sqlite3_db_filename(raw, "main");
  real_path_ = name == nullptr ? options_.path : name;
  wal_path_ = real_path_ + "-wal";
  index_path_ = real_path_ + "-shm";
  struct stat st {};
  if (stat(real_path_.c_str(), &st) != 0) {
    const int error = errno;
    db_.reset();
    return ErrnoError(error, "stat " + real_path_);
  }
  file_id_ = {st.st_dev, st.st_ino};
  if (options_.only.has_value() && *options_.only != file_id_) {
    db_.reset();
    return ReplacedError(options_.path);
  }
  locked_file_ = AsLocked(real_path_, file_id_);
  attachment_.emplace(file_id_);
  may_own_ = st.st_uid == geteuid() || HasChown();
  return absl::OkStatus();
}

absl::Status UserDatabase::CheckHeader() {
  LF_RETURN_IF_ERROR(CheckLocking());
  LF_ASSIGN_OR_RETURN(Bytes start, ReadStart(kHeaderBytes));
  if (!start.empty() && !HasMagic(start)) {
    LF_CRASH_POINT("capture.no_header");
    // SQLite rolls it back when it is read, and makes it the empty database that it was. Or it waits for who is at that transaction.
    if (IsOfFirstTransaction(real_path_ + "-journal")) return absl::OkStatus();
    // The transaction may have ended between the two looks.
    LF_ASSIGN_OR_RETURN(start, ReadStart(kHeaderBytes));
    if (!start.empty() && !HasMagic(start)) return ErrorForForeign();
  }
  if (start.empty()) return absl::OkStatus();
  const auto header = ParseHeader(start);
  const bool told = options_.at_rest && !io::Exists(real_path_ + "-journal");
  if (header && header->wal && !immutable_ && (told || OnReadOnlyMount(real_path_))) {
    // SQLite would have to create -wal and -shm, which it cannot there.
    const auto facts = FileFactsOf(real_path_, RealClock().Now());
    if (facts.has_value() && (told || facts->settled || OnReadOnlyFileSystem(real_path_)) && !io::Exists(real_path_ + "-wal") &&
        !LockedByOthers(std::span(&locked_file_, 1))) {
      immutable_ = true;
      at_rest_ = facts->text;
      Disconnect();
      return Connect();
    }
  }
  if (header && header->wal && !immutable_ && !may_own_ && (!io::Exists(real_path_ + "-wal") || !io::Exists(real_path_ + "-shm"))) {
    return Error(
        Code::kPermissionDenied, "NOT_OWNER",
        fmt::format("{} is in WAL mode, nobody has it open, and it belongs to another user: opening it would create -wal and -shm files "
                    "that lock its application out",
                    options_.path),
        kBeOwner);
  }
  return absl::OkStatus();
}

absl::Status UserDatabase::ErrorForForeign() {
  using Group = format::FileKind::Group;
  LF_ASSIGN_OR_RETURN(const Bytes head, ReadStart(format::kKindBytes));
  LF_ASSIGN_OR_RETURN(const uint64_t bytes, FileBytes());
  const format::FileKind kind = format::KindOf(head, bytes);
  if (kind.group == Group::kEncrypted) {
    return Error(Code::kDataLoss, "ENCRYPTED", fmt::format("{} looks like an encrypted database: its bytes are as random", options_.path),
                 "nothing reads it without its key: let its application write a copy without encryption, and name that");
  }
  const std::string_view hint = kind.group == Group::kOtherDatabase    ? "let its application write an SQLite database or SQL text"
                                : kind.group == Group::kBesideDatabase ? "name the database file itself"
                                                                       : "check the path";
  return Error(Code::kDataLoss, "NOT_A_DATABASE",
               kind.name.empty() ? fmt::format("{} does not begin as an SQLite database does", options_.path)
                                 : fmt::format("{} is no SQLite database, it is {}", options_.path, kind.name),
               hint);
}

// SQLite's VFS unix-dotfile makes a directory for as long as it has a lock, and neither takes nor heeds ours: what is read beside it may be
// of two states.
absl::Status UserDatabase::CheckLocking() {
  if (options_.own_journal) return absl::OkStatus();
  const std::string lock = real_path_ + ".lock";
  // Such a directory may be any program's. With a journal that nobody has a lock for it is dangerous: SQLite would roll it back, as one
  // that a crash has left, under an application that goes on. A writer that keeps to the locks may end between two of these looks.
  for (int look = 0; look < kLooksAtLocks; ++look) {
    struct stat st {};
    if (lstat(lock.c_str(), &st) != 0 || !S_ISDIR(st.st_mode) || !FindHotJournal(real_path_ + "-journal").has_value())
      return absl::OkStatus();
    LF_ASSIGN_OR_RETURN(const bool writer, WriterAtWork());  // a connection of this process shows in no table of locks
    if (writer || LockedByOthers(std::span(&locked_file_, 1))) return absl::OkStatus();
  }
  return Error(
      Code::kFailedPrecondition, "FOREIGN_LOCKING",
      fmt::format(
          "{} has a journal, and nobody a lock but the directory {}, as the VFS unix-dotfile makes it: its application does not heed "
          "locks of others",
          options_.path, lock),
      "let the application open it with SQLite's own VFS, or stop it for the backup; if none runs, a crash has left the directory: remove "
      "it");
}

absl::Status UserDatabase::CheckAtRest() const {
  if (!immutable_) return absl::OkStatus();
  const auto facts = FileFactsOf(real_path_, RealClock().Now());  // a -wal that is there now is one of them
  if (facts.has_value() && facts->text == at_rest_) return absl::OkStatus();
  return Error(Code::kAborted, "SOURCE_CHANGED",
               fmt::format("{} was opened or written while the agent, which may not write there, read it without a lock", options_.path),
               "try again; with its directory in ReadWritePaths= of the agent's unit it is read under a lock");
}

absl::Status UserDatabase::CheckWalIsThere(std::span<const FileLock> locks) {
  const auto in_wal_mode = [&]() -> absl::StatusOr<bool> {
    LF_ASSIGN_OR_RETURN(const Bytes start, ReadStart(kHeaderBytes));
    const auto header = ParseHeader(start);
    return header && header->wal;
  };
  LF_ASSIGN_OR_RETURN(bool wal_mode, in_wal_mode());
  if (!wal_mode) return absl::OkStatus();
  // A wal-index whose WAL alone was removed is no better than none.
  const auto index_of = [&] { return io::Exists(real_path_ + "-wal") ? LockedFileOf(real_path_ + "-shm", &locked_file_) : std::nullopt; };
  std::set<pid_t> without;  // in each look
  for (size_t look = 0; look <= kBetweenLooks.size(); ++look) {
    if (look > 0) std::this_thread::sleep_for(kBetweenLooks[look - 1]);
    const auto index = index_of();
    const std::set<pid_t> now = ReadersWithoutIndex(look == 0 ? locks : std::span<const FileLock>(ReadLocks()), locked_file_, index);
    const auto index_then = index_of();
    if (index_then.has_value() != index.has_value() || (index.has_value() && index_then->id != index->id))
      return absl::OkStatus();  // somebody comes or goes
    if (look == 0) without = now;
    std::erase_if(without, [&](pid_t pid) { return !now.contains(pid); });
    if (without.empty()) return absl::OkStatus();
  }
  // Who may not write, and has read a WAL that a crash had left, has the files of the path open and no lock on any wal-index.
  if (const auto wal = FileIdOf(real_path_ + "-wal"), index = FileIdOf(real_path_ + "-shm"); wal.has_value() && index.has_value()) {
    const std::array files{*wal, *index};
    std::erase_if(without, [&](pid_t pid) {
      const OpenFiles open = FindOpenFiles(pid, files);
      return open.gone || open.found.size() == files.size() || (!open.complete && !HasIndexOfEach(ReadLocks(), pid));
    });
    if (without.empty()) return absl::OkStatus();
  }
  // Somebody may have changed the mode before the first look.
  LF_ASSIGN_OR_RETURN(wal_mode, in_wal_mode());
  if (!wal_mode) return absl::OkStatus();
  return Error(Code::kFailedPrecondition, "WAL_REMOVED",
               fmt::format("the WAL of {} was removed while an application (process {}) had it open: what that commits is in no file",
                           options_.path, *without.begin()),
               kWalRemovedHint);
}

absl::Status UserDatabase::CheckWalMode() {
  LF_ASSIGN_OR_RETURN(const Bytes start, ReadStart(kHeaderBytes));
  const auto header = ParseHeader(start);
  return header && !header->wal ? NotInWalMode(options_.path) : absl::OkStatus();
}

// The check of the header and SQLite's open are two looks: the application may have closed in between.
absl::Status UserDatabase::CheckCreatedFiles() {
  if (may_own_) return absl::OkStatus();
  struct stat st {};
  if (stat((real_path_ + "-shm").c_str(), &st) != 0 || st.st_uid != geteuid()) return absl::OkStatus();
  EndRead();
  static_cast<void>(Close());
  return Error(Code::kPermissionDenied, "NOT_OWNER", fmt::format("the application closed {} while the agent opened it", options_.path),
               kBeOwner);
}

int UserDatabase::OnBusy(void* busy, int count) {
  auto& self = *static_cast<Busy*>(busy);
  const auto now = std::chrono::steady_clock::now();
  if (count == 0) self.since = now;
  if (*self.cancelled && (*self.cancelled)()) return 0;
  if (now - self.since >= self.timeout) return 0;
  // Short and uneven sleeps: a rollback-journal writer at hundreds of commits a second leaves gaps of about a millisecond between its
  // locks, which growing sleeps never hit.
  std::this_thread::sleep_for(std::chrono::microseconds(200 + (count % 1000) * 7919 % 1300));
  return 1;
}

sqlite3_file* UserDatabase::file() {
  sqlite3_file* file = nullptr;
  if (db_ != nullptr) sqlite3_file_control(db_.get(), "main", SQLITE_FCNTL_FILE_POINTER, &file);
  return file != nullptr && file->pMethods != nullptr ? file : nullptr;
}

sqlite3_file* UserDatabase::wal_file() {
  sqlite3_file* file = nullptr;
  if (db_ != nullptr) sqlite3_file_control(db_.get(), "main", SQLITE_FCNTL_JOURNAL_POINTER, &file);
  return file != nullptr && file->pMethods != nullptr ? file : nullptr;
}

bool UserDatabase::UsesWal() {
  // The handle alone may be that of a rollback journal.
  return wal_file() != nullptr && io::Exists(real_path_ + "-wal");
}

absl::StatusOr<uint32_t> UserDatabase::PageSize() {
  LF_ASSIGN_OR_RETURN(const int64_t size, sqlite::QueryInt(db_.get(), "pragma page_size"));
  return static_cast<uint32_t>(size);
}

absl::StatusOr<uint64_t> UserDatabase::FileBytes() {
  sqlite3_file* const handle = file();
  sqlite3_int64 size = 0;
  const int rc = handle == nullptr ? SQLITE_CANTOPEN : handle->pMethods->xFileSize(handle, &size);
  if (rc != SQLITE_OK) return ErrorFor(rc, "size");
  return static_cast<uint64_t>(size);
}

absl::StatusOr<Bytes> UserDatabase::ReadStart(size_t size) {
  LF_ASSIGN_OR_RETURN(const uint64_t available, FileBytes());
  Bytes start(std::min<uint64_t>(size, available));
  if (start.empty()) return start;
  sqlite3_file* const handle = file();
  const int rc = handle->pMethods->xRead(handle, start.data(), static_cast<int>(start.size()), 0);
  if (rc != SQLITE_OK && rc != SQLITE_IOERR_SHORT_READ) return ErrorFor(rc, "read");
  return start;
}

absl::Status UserDatabase::BeginRead() {
  // Whoever rolls a journal back goes on with the page size that it found there, and where that is damaged reads pages as none are, beyond
  // the end of its own memory too. The next one to open the database reads what is in it.
  const std::string journal = real_path_ + "-journal";
  const std::optional<JournalId> hot = has_read_ ? std::nullopt : FindHotJournal(journal);
  has_read_ = true;
  absl::Status status = TryBeginRead();
  if (!hot.has_value() || (!status.ok() && !absl::IsDataLoss(status))) return status;
  LF_CRASH_POINT("capture.read_beside_journal");
  // It may be a writer's, who is at work: then it is there yet, and was left alone. Another one is of a transaction that began since.
  if (FindHotJournal(journal) == hot) return status;
  EndRead();
  Disconnect();
  LF_RETURN_IF_ERROR(Connect());
  return TryBeginRead();
}

absl::Status UserDatabase::TryBeginRead() {
  // A pragma that reads one header field begins the transaction without looking at the schema, which may be damaged or hostile.
  const int rc = sqlite3_exec(db_.get(), "begin; pragma schema_version", nullptr, nullptr, nullptr);
  absl::Status status = rc == SQLITE_OK ? absl::OkStatus() : ErrorFor(rc, "begin to read");
  // An error may come of it, and a page of anything be taken for one of the database.
  if (absl::Status of_index = CheckWalIsOfIndex(); !of_index.ok()) status = std::move(of_index);
  unreadable_ = absl::IsDataLoss(status) && WalHasFrames();
  if (!status.ok()) {
    EndRead();
    return status;
  }
  if (!wal_files_.has_value() && wal_file() != nullptr) {
    wal_files_ = {FileIdOf(real_path_ + "-wal").value_or(FileId{}), FileIdOf(real_path_ + "-shm").value_or(FileId{})};
  }
  return CheckCreatedFiles();
}

// Else SQLite makes nothing of it, and takes it away.
bool UserDatabase::WalHasFrames() {
  sqlite3_file* const wal = wal_file();
  sqlite3_int64 bytes = 0;
  return wal != nullptr && wal->pMethods->xFileSize(wal, &bytes) == SQLITE_OK && bytes > static_cast<sqlite3_int64>(kWalHeaderBytes);
}

absl::Status UserDatabase::CheckWalIsOfIndex() {
  if (wal_file() == nullptr) return absl::OkStatus();
  const WalIndex index(file(), wal_file());
  const absl::StatusOr<WalState> state = index.ReadState();
  if (!state.ok() || state->max_frame == 0) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const bool same, index.IsOfWal(*state));
  if (same) return absl::OkStatus();
  wal_of_others_ = true;
  return Error(
      Code::kFailedPrecondition, "WAL_REMOVED",
      fmt::format("the WAL of {} is not the one that its wal-index is of: it was removed or replaced under an application", options_.path),
      kWalRemovedHint);
}

bool UserDatabase::HasFilesOfPath() const {
  if (FileIdOf(real_path_) != file_id_) return false;
  return !wal_files_.has_value() || (FileIdOf(wal_path_) == wal_files_->wal && FileIdOf(index_path_) == wal_files_->index);
}

void UserDatabase::EndRead() {
  if (db_ != nullptr && sqlite3_get_autocommit(db_.get()) == 0) sqlite3_exec(db_.get(), "rollback", nullptr, nullptr, nullptr);
}

void UserDatabase::TolerateTruncation() {
  tolerant_ = true;
  sqlite3_db_config(db_.get(), SQLITE_DBCONFIG_DEFENSIVE, 0, nullptr);
  sqlite3_db_config(db_.get(), SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1, nullptr);
}

bool UserDatabase::OthersAttached() const { return OthersAttached(ReadLocks()); }

bool UserDatabase::OthersAttached(std::span<const FileLock> locks) const {
  std::array<LockedFile, 2> files{locked_file_, locked_file_};
  if (const auto shm = LockedFileOf(real_path_ + "-shm", &locked_file_)) files[1] = *shm;
  return LockedByOthers(locks, files);
}

absl::StatusOr<bool> UserDatabase::LockFile(FileLockLevel level) {
  sqlite3_file* const handle = file();
  if (handle == nullptr) return ErrorFor(SQLITE_CANTOPEN, "lock");
  int rc = SQLITE_BUSY;
  for (int count = 0;; ++count) {
    rc = handle->pMethods->xLock(handle, SQLITE_LOCK_SHARED);
    if ((rc & 0xff) != SQLITE_BUSY || OnBusy(&busy_, count) == 0) break;
  }
  if (rc == SQLITE_OK && level == FileLockLevel::kExclusive) rc = handle->pMethods->xLock(handle, SQLITE_LOCK_EXCLUSIVE);
  if (rc == SQLITE_OK) return true;
  UnlockFile();
  if (level == FileLockLevel::kExclusive && (rc & 0xff) == SQLITE_BUSY) return false;
  return ErrorFor(rc, "lock");
}

void UserDatabase::UnlockFile() {
  if (sqlite3_file* const handle = file(); handle != nullptr) handle->pMethods->xUnlock(handle, SQLITE_LOCK_NONE);
}

absl::StatusOr<bool> UserDatabase::WriterAtWork() {
  sqlite3_file* const handle = file();
  int reserved = 0;
  const int rc = handle == nullptr ? SQLITE_CANTOPEN : handle->pMethods->xCheckReservedLock(handle, &reserved);
  if (rc != SQLITE_OK) return ErrorFor(rc, "look at the locks of");
  return reserved != 0;
}

absl::StatusOr<UserDatabase::Checkpointed> UserDatabase::CheckpointPassive() {
  int frames = -1, copied = -1;
  const int rc = sqlite3_wal_checkpoint_v2(db_.get(), "main", SQLITE_CHECKPOINT_PASSIVE, &frames, &copied);
  if ((rc & 0xff) == SQLITE_BUSY || (rc == SQLITE_OK && frames < 0)) return Checkpointed{};
  if (rc != SQLITE_OK) return ErrorFor(rc, "checkpoint");
  return Checkpointed{true, static_cast<uint32_t>(frames), static_cast<uint32_t>(copied)};
}

bool UserDatabase::OpenWal() {
  sqlite3_busy_handler(db_.get(), nullptr, nullptr);
  return (sqlite3_exec(db_.get(), "pragma schema_version", nullptr, nullptr, nullptr) & 0xff) != SQLITE_BUSY;
}

void UserDatabase::Disconnect() {
  db_.reset();
  wal_files_.reset();
  attachment_.reset();
}

absl::Status UserDatabase::Close() {
  for (int round = 0; db_ != nullptr; ++round) {
    EndRead();
    const bool ours = attachment_->HasOthers();
    const bool others = ours || OthersAttached();
    if (ours) attachment_->LeaveWalToOthers();
    if (!others && attachment_->TakeLeftWal() && wal_file() == nullptr) OpenWal();
    // SQLite folds the WAL only under an exclusive lock, so that an application that comes now is safe; and never when the file was
    // replaced. That somebody removed the WAL, or put another one there, it does not look at: then the one that it has is nobody's.
    if (!others) CheckWalIsOfIndex().IgnoreError();
    // A WAL beside which nobody can read it would put an end to what the file still has.
    const bool leave_wal = leave_wal_ || wal_of_others_ || unreadable_;
    const bool leave = others || leave_wal || !HasFilesOfPath();
    sqlite3_db_config(db_.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, leave ? 1 : 0, nullptr);
    LF_CRASH_POINT("capture.before_close");
    Disconnect();
    if (!leave || ours || leave_wal || round == kCloseRounds || OthersAttached()) break;
    if (!io::Exists(real_path_ + "-wal") || FileIdOf(real_path_) != file_id_) break;
    // The others left while we did, and took us for the one that stays: be the last closer after all.
    LF_CRASH_POINT("capture.before_last_close");
    LF_RETURN_IF_ERROR(Connect());
    if (OpenWal()) continue;
    Disconnect();  // somebody came back
  }
  return absl::OkStatus();
}

absl::Status UserDatabase::ErrorFor(int rc, std::string_view what) {
  const int primary = rc & 0xff;
  if (primary == SQLITE_OK || primary == SQLITE_ROW || primary == SQLITE_DONE) return absl::OkStatus();
  if (options_.cancelled && options_.cancelled())
    return Error(Code::kCancelled, "CANCELLED", fmt::format("{} {}: cancelled", what, options_.path));
  const int system_error = db_ == nullptr ? 0 : sqlite3_system_errno(db_.get());
  const std::string context = fmt::format("{} {}", what, options_.path);
  if (primary == SQLITE_BUSY || primary == SQLITE_LOCKED || primary == SQLITE_PROTOCOL) {
    return Error(
        Code::kUnavailable, "DATABASE_BUSY",
        fmt::format("{}: locked by another process for more than {} ms", context, options_.busy_timeout.count()),
        "a long write transaction, or an application that uses locking_mode=EXCLUSIVE, beside which the method file alone can read, and "
        "that in WAL mode only; try again later or raise busy_timeout");
  }
  if (primary == SQLITE_CANTOPEN && !io::Exists(options_.path)) {
    return Error(Code::kNotFound, "DATABASE_MISSING", fmt::format("{}: it is gone", context),
                 "check the path in the agent's configuration");
  }
  if (primary == SQLITE_CANTOPEN && OnReadOnlyMount(options_.path)) {
    return OnReadOnlyFileSystem(options_.path)
               ? Error(Code::kPermissionDenied, "NO_PERMISSION", fmt::format("{}: its WAL cannot be read on a read-only medium", context),
                       "mount it writable once, so that SQLite can fold the WAL in")
               : Error(Code::kPermissionDenied, "NO_PERMISSION",
                       fmt::format("{}: its directory is read-only for the agent, and SQLite has to make files there", context),
                       "mount it writable; under systemd name it in ReadWritePaths= of a drop-in of the agent's unit");
  }
  if (primary == SQLITE_CANTOPEN && (system_error == EACCES || system_error == EPERM)) {
    return PermissionError(options_.path, fmt::format("{} failed: it, or its -wal, -shm or -journal, may not be opened", what));
  }
  if (rc == SQLITE_READONLY_DIRECTORY) {
    return PermissionError(options_.path,
                           fmt::format("{} failed: its directory may not be written, and SQLite has to create files there", what));
  }
  if (primary == SQLITE_READONLY) {
    return PermissionError(options_.path,
                           fmt::format("{} failed: it has to be recovered first (a hot journal, or a WAL whose -shm may not be written), "
                                       "which takes the right to write (sqlite {})",
                                       what, rc));
  }
  // The connection's own message, unless the error is of a call that did not go through it.
  const bool own = db_ != nullptr && (sqlite3_extended_errcode(db_.get()) & 0xff) == primary;
  const absl::Status status = sqlite::ToStatus(rc, own ? db_.get() : nullptr, context);
  if (primary == SQLITE_CANTOPEN && wal_file() != nullptr) {
    std::array<std::byte, kWalHeaderBytes> header{};
    wal_file()->pMethods->xRead(wal_file(), header.data(), static_cast<int>(header.size()), 0);
    return NameWalVersion(status, header);
  }
  if (primary == SQLITE_NOTADB) {
    const auto start = ReadStart(kHeaderBytes);
    if (start.ok() && HasMagic(*start)) {
      return WithReason(status, "DATABASE_DAMAGED", "its header is damaged, so that SQLite refuses it: restore it from a snapshot");
    }
  }
  return status;
}

}  // namespace litefleet::capture
