#include "agent/capture/lock_table.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <utility>

#include "agent/capture/mount.h"
#include "agent/capture/open_files.h"
#include "common/base/mutex.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

// Bytes of a wal-index that are locked (unixShmLock of SQLite's os_unix.c).
constexpr uint64_t kWriteByte = 120;
constexpr uint64_t kCheckpointByte = 121;
constexpr uint64_t kFirstMarkByte = 123;  // exclusively by who copies into the database
constexpr uint64_t kLastMarkByte = 127;
constexpr uint64_t kAttachedByte = 128;  // by everybody who has it open
// Of a database (SHARED_FIRST of SQLite's os.h).
constexpr uint64_t kSharedByte = 0x40000002;

std::string_view NextWord(std::string_view& line) {
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  const std::string_view word = line.substr(0, line.find(' '));
  line.remove_prefix(word.size());
  return word;
}

template <typename Number>
bool Parse(std::string_view word, Number& number, int base = 10) {
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number, base);
  return error == std::errc() && end == word.data() + word.size();
}

// "1: POSIX  ADVISORY  READ 1234 fe:01:5678 1073741826 1073742335"; a waiting one has "->" after its number, and "EOF" may be the end.
std::optional<FileLock> ParseLine(std::string_view line) {
  NextWord(line);  // its number
  std::string_view kind = NextWord(line);
  FileLock lock;
  lock.waits = kind == "->";
  if (lock.waits) kind = NextWord(line);
  if (kind != "POSIX" && kind != "OFDLCK") return std::nullopt;
  NextWord(line);
  lock.exclusive = NextWord(line) == "WRITE";
  if (!Parse(NextWord(line), lock.pid)) return std::nullopt;
  const std::string_view file = NextWord(line), first = NextWord(line), last = NextWord(line);
  const size_t minor_at = file.find(':'), inode_at = file.rfind(':');
  if (minor_at == inode_at) return std::nullopt;
  unsigned major_part = 0, minor_part = 0;
  if (!Parse(file.substr(0, minor_at), major_part, 16) || !Parse(file.substr(minor_at + 1, inode_at - minor_at - 1), minor_part, 16) ||
      !Parse(file.substr(inode_at + 1), lock.file.inode))
    return std::nullopt;
  lock.file.device = makedev(major_part, minor_part);
  if (!Parse(first, lock.first)) return std::nullopt;
  if (last == "EOF") {
    lock.last = UINT64_MAX;
  } else if (!Parse(last, lock.last)) {
    return std::nullopt;
  }
  return lock;
}

bool IsOf(const FileLock& lock, const LockedFile& file) { return lock.file == FileId{file.device, file.id.inode}; }

bool IsMeant(pid_t pid, const LockedFile& file) {
  if (!file.ambiguous() || pid <= 0) return true;
  const OpenFiles open = FindOpenFiles(pid, std::span(&file.id, 1), /*any=*/true);
  return !open.found.empty() || !open.complete;
}

bool Overlaps(const FileLock& lock, uint64_t first, uint64_t last) { return lock.first <= last && first <= lock.last; }

}  // namespace

std::optional<FileId> FileIdOf(const std::string& path) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) return std::nullopt;
  return FileId{st.st_dev, st.st_ino};
}

LockedFile AsLocked(const std::string& path, const FileId& id, const LockedFile* beside) {
  if (major(id.device) != 0) return {id, id.device};  // of a block device: those that differ have none
  if (beside != nullptr && beside->id.device == id.device) return {id, beside->device};
  const auto mount = MountOf(path);
  return {id, mount.has_value() ? mount->device : id.device};
}

std::optional<LockedFile> LockedFileOf(const std::string& path, const LockedFile* beside) {
  const auto id = FileIdOf(path);
  if (!id.has_value()) return std::nullopt;
  return AsLocked(path, *id, beside);
}

std::vector<FileLock> ParseLocks(std::string_view table) {
  std::vector<FileLock> locks;
  while (!table.empty()) {
    const size_t end = std::min(table.find('\n'), table.size());
    if (auto lock = ParseLine(table.substr(0, end))) locks.push_back(*lock);
    table.remove_prefix(std::min(end + 1, table.size()));
  }
  return locks;
}

std::vector<FileLock> ReadLocks() {
  std::ifstream stream("/proc/locks");
  const std::string table{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  return ParseLocks(table);
}

std::shared_ptr<const std::vector<FileLock>> LocksOfLate(std::chrono::milliseconds age) {
  struct Late {
    Mutex mu;
    std::shared_ptr<const std::vector<FileLock>> locks ABSL_GUARDED_BY(mu);
    std::chrono::steady_clock::time_point read_at ABSL_GUARDED_BY(mu);
  };
  static Late late;
  MutexLock lock(late.mu);
  const auto now = std::chrono::steady_clock::now();
  if (late.locks == nullptr || now - late.read_at >= age) {
    late.read_at = now;  // before it is read
    late.locks = std::make_shared<const std::vector<FileLock>>(ReadLocks());
  }
  return late.locks;
}

std::optional<bool> LocksShow(const std::string& directory) {
  const io::UniqueFd fd(open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!fd.valid()) return std::nullopt;
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  if (fcntl(fd.get(), F_SETLK, &lock) != 0) return false;
  const auto file = LockedFileOf(fmt::format("/proc/self/fd/{}", fd.get()));
  const std::vector<FileLock> locks = ReadLocks();
  return file.has_value() && std::any_of(locks.begin(), locks.end(),
                                         [&](const FileLock& one) { return one.pid == getpid() && IsOf(one, *file) && one.exclusive; });
}

bool LockedByOthers(std::span<const LockedFile> files) { return LockedByOthers(ReadLocks(), files); }

bool LockedByOthers(std::span<const FileLock> locks, std::span<const LockedFile> files) { return !OthersWithLocks(locks, files).empty(); }

std::set<pid_t> OthersWithLocks(std::span<const FileLock> locks, std::span<const LockedFile> files) {
  const pid_t self = getpid();
  std::set<pid_t> others;
  for (const FileLock& lock : locks) {
    if (lock.pid == self || others.contains(lock.pid)) continue;
    if (std::any_of(files.begin(), files.end(), [&](const LockedFile& file) { return IsOf(lock, file) && IsMeant(lock.pid, file); }))
      others.insert(lock.pid);
  }
  return others;
}

std::set<pid_t> ReadersWithoutIndex(std::span<const FileLock> locks, const LockedFile& database,
                                    const std::optional<LockedFile>& wal_index) {
  const pid_t self = getpid();
  std::set<pid_t> readers;
  for (const FileLock& reader : locks) {
    if (reader.pid == self || reader.pid <= 0 || !IsOf(reader, database) || reader.exclusive || reader.waits) continue;
    if (Overlaps(reader, kSharedByte, kSharedByte)) readers.insert(reader.pid);
  }
  for (const FileLock& lock : locks) {
    if (wal_index.has_value() && readers.contains(lock.pid) && IsOf(lock, *wal_index) && IsMeant(lock.pid, *wal_index))
      readers.erase(lock.pid);
  }
  std::erase_if(readers, [&](pid_t pid) { return !IsMeant(pid, database); });
  return readers;
}

bool HasIndexOfEach(std::span<const FileLock> locks, pid_t pid) {
  std::set<std::pair<dev_t, ino_t>> databases, indexes;
  for (const FileLock& lock : locks) {
    if (lock.pid != pid || lock.waits) continue;
    const std::pair file(lock.file.device, lock.file.inode);
    if (Overlaps(lock, kSharedByte, kSharedByte)) databases.insert(file);
    if (lock.first == kAttachedByte && lock.last == kAttachedByte) indexes.insert(file);
  }
  return indexes.size() >= databases.size();
}

bool HoldsWriteLock(std::span<const FileLock> locks, const LockedFile& wal_index) {
  return std::any_of(locks.begin(), locks.end(), [&, self = getpid()](const FileLock& lock) {
    return lock.pid == self && IsOf(lock, wal_index) && lock.exclusive && !lock.waits && Overlaps(lock, kWriteByte, kWriteByte);
  });
}

std::optional<WritingCheckpointer> FindWritingCheckpointer(std::span<const FileLock> locks, const LockedFile& wal_index) {
  const pid_t self = getpid();
  const auto has = [&](pid_t pid, bool exclusive, uint64_t first, uint64_t last) {
    return std::any_of(locks.begin(), locks.end(), [&](const FileLock& lock) {
      return lock.pid == pid && IsOf(lock, wal_index) && lock.exclusive == exclusive && !lock.waits && Overlaps(lock, first, last);
    });
  };
  for (const FileLock& writer : locks) {
    const pid_t pid = writer.pid;
    if (pid == self || !has(pid, true, kWriteByte, kWriteByte) || !has(pid, true, kCheckpointByte, kCheckpointByte)) continue;
    if (!IsMeant(pid, wal_index)) continue;
    return WritingCheckpointer{has(pid, true, kFirstMarkByte, kFirstMarkByte), !has(pid, false, kFirstMarkByte, kLastMarkByte)};
  }
  return std::nullopt;
}

}  // namespace litefleet::capture
