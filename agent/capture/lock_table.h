// Who else is attached to a database: the kernel's table of file locks, read without opening the file.
//
// Not proof that nobody is there: a process in another pid namespace is not listed, and a connection in rollback mode holds no lock
// between its transactions. In WAL mode every connection that has read holds a lock on the database and on its -shm.
// Thread safety: pure functions. Source: proc(5), /proc/locks.
#ifndef LITEFLEET_AGENT_CAPTURE_LOCK_TABLE_H_
#define LITEFLEET_AGENT_CAPTURE_LOCK_TABLE_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace litefleet::capture {

struct FileId {
  dev_t device = 0;
  ino_t inode = 0;
  friend bool operator==(const FileId&, const FileId&) = default;
};

// Nothing where there is no such file. Follows symbolic links.
std::optional<FileId> FileIdOf(const std::string& path);

struct FileLock {
  pid_t pid = 0;  // -1: a lock of an open file description
  FileId file;
  bool exclusive = false;
  bool waits = false;
  uint64_t first = 0;  // bytes of the file
  uint64_t last = 0;
};

// Lines that are not understood are left out.
std::vector<FileLock> ParseLocks(std::string_view table);

// Nothing where it cannot be read.
std::vector<FileLock> ReadLocks();

// Process `pid` has all of `files` open. False where that cannot be looked at.
bool HasOpen(pid_t pid, std::span<const FileId> files);

// True when a process other than this one holds or awaits a lock on one of `files`. False where the table cannot be read.
bool LockedByOthers(std::span<const FileId> files);
bool LockedByOthers(std::span<const FileLock> locks, std::span<const FileId> files);

// Other processes that have a read lock of SQLite's on `database` and none on `wal_index`: in WAL mode they follow a WAL that is not at the
// path any more, or are just opening it, or closing: who is so in several looks does neither. Nobody with locking_mode=EXCLUSIVE, which has
// no wal-index.
std::set<pid_t> ReadersWithoutIndex(std::span<const FileLock> locks, FileId database, std::optional<FileId> wal_index);

// One other process holds both the write and the checkpoint lock of this wal-index.
bool WriterCheckpoints(std::span<const FileLock> locks, FileId wal_index);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_LOCK_TABLE_H_
