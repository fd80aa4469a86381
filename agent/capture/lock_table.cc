#include "agent/capture/lock_table.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>

namespace litefleet::capture {
namespace {

// "1: POSIX  ADVISORY  READ 1234 fe:01:5678 1073741826 1073742335"; a waiting one has "->" after its number.
std::optional<FileLock> ParseLine(const std::string& line) {
  std::istringstream words(line);
  std::string number, kind, advisory, type, file;
  long pid = 0;
  if (!(words >> number >> kind)) return std::nullopt;
  if (kind == "->" && !(words >> kind)) return std::nullopt;
  if (kind != "POSIX" && kind != "OFDLCK") return std::nullopt;
  if (!(words >> advisory >> type >> pid >> file)) return std::nullopt;
  unsigned major_part = 0, minor_part = 0;
  unsigned long long inode = 0;
  if (std::sscanf(file.c_str(), "%x:%x:%llu", &major_part, &minor_part, &inode) != 3) return std::nullopt;
  return FileLock{static_cast<pid_t>(pid), {makedev(major_part, minor_part), static_cast<ino_t>(inode)}};
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

bool LockedByOthers(std::span<const FileId> files) {
  std::ifstream stream("/proc/locks");
  const std::string table{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  const pid_t self = getpid();
  const std::vector<FileLock> locks = ParseLocks(table);
  return std::any_of(locks.begin(), locks.end(), [&](const FileLock& lock) {
    return lock.pid != self && std::find(files.begin(), files.end(), lock.file) != files.end();
  });
}

}  // namespace litefleet::capture
