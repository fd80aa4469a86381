#include "agent/capture/lock_table.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <system_error>

#include "fmt/format.h"

namespace litefleet::capture {
namespace {

// Bytes of a wal-index that are locked (unixShmLock of SQLite's os_unix.c).
constexpr uint64_t kWriteByte = 120;
constexpr uint64_t kCheckpointByte = 121;
// Of a database (SHARED_FIRST of SQLite's os.h).
constexpr uint64_t kSharedByte = 0x40000002;

// "1: POSIX  ADVISORY  READ 1234 fe:01:5678 1073741826 1073742335"; a waiting one has "->" after its number, and "EOF" may be the end.
std::optional<FileLock> ParseLine(const std::string& line) {
  std::istringstream words(line);
  std::string number, kind, advisory, type, file, first, last;
  long pid = 0;
  if (!(words >> number >> kind)) return std::nullopt;
  const bool waits = kind == "->";
  if (waits && !(words >> kind)) return std::nullopt;
  if (kind != "POSIX" && kind != "OFDLCK") return std::nullopt;
  if (!(words >> advisory >> type >> pid >> file >> first >> last)) return std::nullopt;
  unsigned major_part = 0, minor_part = 0;
  unsigned long long inode = 0;
  if (std::sscanf(file.c_str(), "%x:%x:%llu", &major_part, &minor_part, &inode) != 3) return std::nullopt;
  FileLock lock;
  lock.pid = static_cast<pid_t>(pid);
  lock.file = {makedev(major_part, minor_part), static_cast<ino_t>(inode)};
  lock.exclusive = type == "WRITE";
  lock.waits = waits;
  lock.first = std::strtoull(first.c_str(), nullptr, 10);
  lock.last = last == "EOF" ? UINT64_MAX : std::strtoull(last.c_str(), nullptr, 10);
  return lock;
}

}  // namespace

std::optional<FileId> FileIdOf(const std::string& path) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) return std::nullopt;
  return FileId{st.st_dev, st.st_ino};
}

std::vector<FileLock> ParseLocks(std::string_view table) {
  std::vector<FileLock> locks;
  while (!table.empty()) {
    const size_t end = std::min(table.find('\n'), table.size());
    if (auto lock = ParseLine(std::string(table.substr(0, end)))) locks.push_back(*lock);
    table.remove_prefix(std::min(end + 1, table.size()));
  }
  return locks;
}

std::vector<FileLock> ReadLocks() {
  std::ifstream stream("/proc/locks");
  const std::string table{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  return ParseLocks(table);
}

bool HasOpen(pid_t pid, std::span<const FileId> files) {
  std::error_code error;
  std::vector<FileId> open;
  for (std::filesystem::directory_iterator at(fmt::format("/proc/{}/fd", pid), error), end; !error && at != end; at.increment(error)) {
    if (const auto id = FileIdOf(at->path().string()); id.has_value()) open.push_back(*id);
  }
  return !error && std::all_of(files.begin(), files.end(),
                               [&](const FileId& file) { return std::find(open.begin(), open.end(), file) != open.end(); });
}

bool LockedByOthers(std::span<const FileId> files) { return LockedByOthers(ReadLocks(), files); }

bool LockedByOthers(std::span<const FileLock> locks, std::span<const FileId> files) {
  const pid_t self = getpid();
  return std::any_of(locks.begin(), locks.end(), [&](const FileLock& lock) {
    return lock.pid != self && std::find(files.begin(), files.end(), lock.file) != files.end();
  });
}

std::set<pid_t> ReadersWithoutIndex(std::span<const FileLock> locks, FileId database, std::optional<FileId> wal_index) {
  const pid_t self = getpid();
  std::set<pid_t> readers;
  for (const FileLock& reader : locks) {
    if (reader.pid == self || reader.pid <= 0 || reader.file != database || reader.exclusive || reader.waits) continue;
    if (reader.first <= kSharedByte && reader.last >= kSharedByte) readers.insert(reader.pid);
  }
  for (const FileLock& lock : locks) {
    if (wal_index.has_value() && lock.file == *wal_index) readers.erase(lock.pid);
  }
  return readers;
}

bool WriterCheckpoints(std::span<const FileLock> locks, FileId wal_index) {
  const pid_t self = getpid();
  const auto holds = [&](const FileLock& lock, uint64_t byte) {
    return lock.pid != self && lock.file == wal_index && lock.exclusive && !lock.waits && lock.first <= byte && byte <= lock.last;
  };
  return std::any_of(locks.begin(), locks.end(), [&](const FileLock& writer) {
    return holds(writer, kWriteByte) && std::any_of(locks.begin(), locks.end(), [&](const FileLock& lock) {
             return lock.pid == writer.pid && holds(lock, kCheckpointByte);
           });
  });
}

}  // namespace litefleet::capture
