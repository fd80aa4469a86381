// Who else is attached to a database: the kernel's table of file locks, read without opening the file.
//
// Not proof that nobody is there: a process in another pid namespace is not listed, and a connection in rollback mode holds no lock
// between its transactions. In WAL mode every connection that has read holds a lock on the database and on its -shm.
// Thread safety: pure functions; where a LockedFile is ambiguous they look at /proc/PID/fd, too. Source: proc(5), /proc/locks.
#ifndef LITEFLEET_AGENT_CAPTURE_LOCK_TABLE_H_
#define LITEFLEET_AGENT_CAPTURE_LOCK_TABLE_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace litefleet::capture {

// As stat() tells it.
struct FileId {
  dev_t device = 0;
  ino_t inode = 0;
  friend bool operator==(const FileId&, const FileId&) = default;
};

// Nothing where there is no such file. Follows symbolic links.
std::optional<FileId> FileIdOf(const std::string& path);

// As the table tells it: with the device of the file system, which on Btrfs and overlayfs stat() does not tell.
struct LockedFile {
  FileId id;
  dev_t device = 0;
  // Files of two subvolumes (layers) have one number in the table: a process that can be looked at and has not this one open is not meant.
  bool ambiguous() const { return device != id.device; }
};

// As FileIdOf. `beside` is a file near it that is known already: on the same device nothing is looked up. Where no mount tells the device
// it is what stat() says.
std::optional<LockedFile> LockedFileOf(const std::string& path, const LockedFile* beside = nullptr);
LockedFile AsLocked(const std::string& path, const FileId& id, const LockedFile* beside = nullptr);

struct FileLock {
  pid_t pid = 0;  // -1: a lock of an open file description
  FileId file;    // with the table's device
  bool exclusive = false;
  bool waits = false;
  uint64_t first = 0;  // bytes of the file
  uint64_t last = 0;
};

// Lines that are not understood are left out.
std::vector<FileLock> ParseLocks(std::string_view table);

// Nothing where it cannot be read.
std::vector<FileLock> ReadLocks();

// The same, read no longer than `age` ago, by whichever thread: for looks at many databases that nothing in particular has asked for.
std::shared_ptr<const std::vector<FileLock>> LocksOfLate(std::chrono::milliseconds age);

// A lock on a file in `directory` is found by what LockedFileOf says: tried with a lock of this process on a file without a name, which
// goes again. Nothing where no such file can be made.
std::optional<bool> LocksShow(const std::string& directory);

// True when a process other than this one holds or awaits a lock on one of `files`. False where the table cannot be read.
bool LockedByOthers(std::span<const LockedFile> files);
bool LockedByOthers(std::span<const FileLock> locks, std::span<const LockedFile> files);

// Those processes; -1 among them where only the open file description is known.
std::set<pid_t> OthersWithLocks(std::span<const FileLock> locks, std::span<const LockedFile> files);

// Other processes that have a read lock of SQLite's on `database` and none on `wal_index`: in WAL mode they follow a WAL that is not at the
// path any more, or are just opening it, or closing: who is so in several looks does neither. Nobody with locking_mode=EXCLUSIVE, which has
// no wal-index.
std::set<pid_t> ReadersWithoutIndex(std::span<const FileLock> locks, const LockedFile& database,
                                    const std::optional<LockedFile>& wal_index);

// For each database that process `pid` has a lock of SQLite's on it has one on a wal-index, too: it has no database in WAL mode without.
bool HasIndexOfEach(std::span<const FileLock> locks, pid_t pid);

// This process has the write lock of this wal-index.
bool HoldsWriteLock(std::span<const FileLock> locks, const LockedFile& wal_index);

// Another process has both the write and the checkpoint lock of this wal-index: FULL, RESTART or TRUNCATE keep writers out so; or one of
// its connections is in a write transaction while another one checkpoints, since locks are a process's and not a connection's.
struct WritingCheckpointer {
  // Pages are on their way into the database: it waits for nobody.
  bool copies = false;
  // The process has no read mark, as every write transaction has: the write lock is the checkpoint's.
  bool one_connection = false;
};
std::optional<WritingCheckpointer> FindWritingCheckpointer(std::span<const FileLock> locks, const LockedFile& wal_index);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_LOCK_TABLE_H_
