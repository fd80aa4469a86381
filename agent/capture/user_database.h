// A connection to a database of the user's, with the settings under which the agent may touch it (design laws 2, 3 and section 4).
//
// It changes nothing that persists: no automatic checkpoint, no pragma that is written, no extension, defensive mode, schema not trusted
// and, as long as the caller does not ask for it, never parsed. It is attached from the first read until Close(): close it soon.
// When it is the last one attached, Close() does what SQLite's last closer does (WAL folded in, -wal and -shm removed), else it leaves the
// WAL alone; files beside the database that were absent before are absent after. All reading of raw bytes goes through its handles.
//
// Not for the agent's own databases. Several connections of this process to one database are counted, and the last one closes as such.
// Thread safety: none; one thread at a time.
//
// Errors (reason, code):
//   INVALID_PATH          kInvalidArgument     not absolute
//   DATABASE_MISSING      kNotFound
//   NOT_REGULAR_FILE      kFailedPrecondition  a directory, a device, a socket
//   FILE_REPLACED         kFailedPrecondition  a link, or another file than `only`
//   NETWORK_FILE_SYSTEM   kFailedPrecondition  and not allowed: locks and shared memory are not reliable there
//   NO_PERMISSION         kPermissionDenied    the database, or its -wal, -shm or -journal
//   NOT_OWNER             kPermissionDenied    opening would create -wal and -shm with the wrong owner
//   NOT_A_DATABASE        kDataLoss            and what it is, where that is known
//   ENCRYPTED             kDataLoss            as it looks
//   FOREIGN_LOCKING       kFailedPrecondition  as it looks, by files of its own (unix-dotfile): it heeds no other lock
//   WAL_REMOVED           kFailedPrecondition  while an application had it open, which goes on with it
//   DATABASE_DAMAGED      kDataLoss            SQLite's header, but SQLite refuses it
//   SOURCE_CHANGED        kAborted             it was immutable(), and somebody came
//   DATABASE_BUSY         kUnavailable         locked longer than busy_timeout
//   CANCELLED             kCancelled           `cancelled` said so
//   IO_ERROR, OUT_OF_MEMORY, DISK_FULL, ...    as sqlite::ToStatus
#ifndef LITEFLEET_AGENT_CAPTURE_USER_DATABASE_H_
#define LITEFLEET_AGENT_CAPTURE_USER_DATABASE_H_

#include <sqlite3.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/attachments.h"
#include "agent/capture/lock_table.h"
#include "common/base/bytes.h"
#include "common/sqlite/handle.h"

namespace litefleet::capture {

inline constexpr std::string_view kWalRemovedHint = "stop the application at once, look at the database, then start it again";

struct UserDatabaseOptions {
  std::string path;  // absolute; symbolic links are followed, as the application does
  std::chrono::milliseconds busy_timeout{10'000};
  bool allow_network_fs = false;
  // Asked while waiting for a lock; may be empty.
  std::function<bool()> cancelled = {};
  // The file that is meant, where `path` has no links: none is followed then, and another file is refused.
  std::optional<FileId> only = {};
  // A journal that is there may be of a transaction of this agent's own that was interrupted: it is rolled back, whatever lies beside it.
  bool own_journal = false;
  // Nobody has it open. In WAL mode, and where neither WAL nor journal is there, it is read without a lock then, as on a read-only medium:
  // whoever opens it meanwhile is not held up, and the caller finds out that he came by the files' facts (file_facts.h).
  bool at_rest = false;
};

// NOT_WAL, kFailedPrecondition: for those who follow a WAL.
absl::Status NotInWalMode(const std::string& path);

class UserDatabase {
 public:
  // Opens without a lock and looks at the header; nothing is created yet.
  static absl::StatusOr<std::unique_ptr<UserDatabase>> Open(UserDatabaseOptions options);
  ~UserDatabase();  // closes
  UserDatabase(const UserDatabase&) = delete;
  UserDatabase& operator=(const UserDatabase&) = delete;

  sqlite3* db() { return db_.get(); }
  // As given, and after symbolic links as SQLite sees it.
  const std::string& path() const { return options_.path; }
  const std::string& real_path() const { return real_path_; }
  FileId file_id() const { return file_id_; }
  const LockedFile& locked_file() const { return locked_file_; }
  // Database, WAL and wal-index that this connection has open are those at their paths. SQLite looks at none but the first.
  bool HasFilesOfPath() const;
  // The same files, by what was at the paths when they were opened. Connections of one process share the wal-index that the first of them
  // has opened, but each opens the WAL that is at the path.
  bool HasFilesOf(const UserDatabase& other) const { return file_id_ == other.file_id_ && wal_files_ == other.wal_files_; }
  // In WAL mode, without a WAL and with nobody attached, where this process may not write or was told so (at_rest): no lock is taken, no
  // WAL is opened. Others may come and write where the mount is read-only for us alone: whoever reads asks CheckAtRest() at the end.
  bool immutable() const { return immutable_; }
  // SOURCE_CHANGED where an immutable database was opened or written by somebody since.
  absl::Status CheckAtRest() const;

  // SQLite's handle of the database, and of the WAL. The latter is null before the first read and outside WAL mode.
  sqlite3_file* file();
  sqlite3_file* wal_file();
  // A WAL counts: SQLite goes by one that lies there, whatever the header says. REQUIRES: a read transaction is open.
  bool UsesWal();
  // By which SQLite reads it, without a look at the schema. REQUIRES: the same.
  absl::StatusOr<uint32_t> PageSize();
  absl::StatusOr<uint64_t> FileBytes();
  // At most `size` bytes from the start of the database file, without the lock that would make them belong together.
  absl::StatusOr<Bytes> ReadStart(size_t size);

  // BEGIN and a read that does not parse the schema: from here on one state is seen. Waits for locks up to busy_timeout. WAL_REMOVED where
  // the wal-index is not that of the WAL that was opened: then Close() folds nothing, whoever else is there. The first read may open the
  // database once more: db() and file() are others then.
  // REQUIRES: no transaction is open.
  absl::Status BeginRead();
  void EndRead();

  // SQLite's locks on the database file alone, without a transaction: nothing is recovered, no file is made. In rollback mode nobody
  // commits while kShared is held. REQUIRES: no transaction is open, and none is begun before UnlockFile().
  enum class FileLockLevel { kShared, kExclusive };
  // kShared waits up to busy_timeout. kExclusive, which takes kShared first, does not wait: false where anybody else, a connection of this
  // process included, has a lock; then nothing is locked any more.
  absl::StatusOr<bool> LockFile(FileLockLevel level);
  void UnlockFile();
  // Another connection is about to write, or writes: a journal is its own and not left over. REQUIRES: kShared.
  absl::StatusOr<bool> WriterAtWork();
  // FOREIGN_LOCKING, where it is to be seen at this moment. Open() looks, and whoever reads for longer asks again at the end.
  absl::Status CheckLocking();

  // WAL_REMOVED where, in several looks, another process follows a WAL that is at no path any more: what it commits is in no file until it
  // closes, and what is to be seen at the path is not the newest state. For whoever reads, before the first read, which would make the
  // files that are not there. Nothing outside WAL mode.
  absl::Status CheckWalIsThere() { return CheckWalIsThere(ReadLocks()); }
  // The same; `locks` are those of the first look.
  absl::Status CheckWalIsThere(std::span<const FileLock> locks);
  // NOT_WAL by the header of the file, which is looked at without a lock. An empty file is in no mode yet.
  absl::Status CheckWalMode();

  // A passive checkpoint, which waits for nobody. REQUIRES: no transaction is open. Without a WAL that this connection has opened nothing
  // is looked at, and `ran` is false.
  struct Checkpointed {
    bool ran = false;     // false: somebody else holds the checkpoint lock
    uint32_t frames = 0;  // in the WAL
    uint32_t copied = 0;  // of these now in the database
  };
  absl::StatusOr<Checkpointed> CheckpointPassive();
  // Another process holds or awaits a lock on the database or its wal-index.
  bool OthersAttached(std::span<const FileLock> locks) const;

  // Close() folds nothing: what is in the WAL stays there, as after a crash of its application. For who has just found it so, with nobody
  // attached, and was told to stop: an application that leaves while this connection is there counts on it to fold.
  void LeaveWal() { leave_wal_ = true; }

  // Makes SQLite go on where the header promises more pages than the file has. Not persistent.
  void TolerateTruncation();

  // Idempotent. REQUIRES: statements and backups of this connection are gone.
  absl::Status Close();

  // The error for a result code of a call on this connection.
  absl::Status ErrorFor(int rc, std::string_view what);

 private:
  struct Busy {
    std::chrono::milliseconds timeout{0};
    std::chrono::steady_clock::time_point since{};
    const std::function<bool()>* cancelled = nullptr;
  };
  explicit UserDatabase(UserDatabaseOptions options) : options_(std::move(options)) {}
  static int OnBusy(void* busy, int count);
  absl::Status Connect();
  absl::Status CheckHeader();
  // Why a file without SQLite's magic is none, as far as its beginning tells.
  absl::Status ErrorForForeign();
  absl::Status CheckCreatedFiles();
  bool OthersAttached() const;
  absl::Status TryBeginRead();
  bool WalHasFrames();
  // After a read, or an attempt at one.
  absl::Status CheckWalIsOfIndex();
  // A read that makes this connection open the WAL; false when the lock is not to be had at once.
  bool OpenWal();
  void Disconnect();

  const UserDatabaseOptions options_;
  std::string real_path_;
  std::string wal_path_, index_path_;  // of who looks every second
  FileId file_id_;
  LockedFile locked_file_;
  // What was at the paths when the first read of this connection had opened them; unset: none has.
  struct WalFiles {
    FileId wal, index;
    friend bool operator==(const WalFiles&, const WalFiles&) = default;
  };
  std::optional<WalFiles> wal_files_;
  Busy busy_;
  bool may_own_ = false;  // files that SQLite creates get the right owner
  bool immutable_ = false;
  std::string at_rest_;  // what the file system says of its files, where it is immutable
  bool tolerant_ = false;
  bool has_read_ = false;
  bool leave_wal_ = false;
  bool wal_of_others_ = false;  // what the wal-index says is of another WAL
  bool unreadable_ = false;     // SQLite refused it, with its WAL
  std::optional<Attachment> attachment_;
  sqlite::DatabaseHandle db_;
};

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_USER_DATABASE_H_
