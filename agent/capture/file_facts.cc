#include "agent/capture/file_facts.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "fmt/format.h"

namespace litefleet::capture {
namespace {

// File systems count in ticks of 4 to 10 ms; FAT in 2 s.
constexpr std::chrono::milliseconds kSettled{2500};
constexpr std::chrono::milliseconds kQuiet{100};

SystemTime TimeOf(const struct timespec& time) {
  return SystemTime(
      std::chrono::duration_cast<SystemTime::duration>(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec)));
}

// False where it cannot be told.
bool Add(const std::string& path, bool must_exist, SystemTime now, FileFacts& facts) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) {
    facts.text += "-;";
    return !must_exist && errno == ENOENT;
  }
  if (!S_ISREG(st.st_mode)) return false;
  facts.text += fmt::format("{}:{}:{}:{}.{:09}:{}.{:09};", st.st_dev, st.st_ino, st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
                            st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
  const SystemTime newest = std::max(TimeOf(st.st_mtim), TimeOf(st.st_ctim));
  // A write that comes now gets another time than one of the future: of a clock that was set back.
  facts.settled &= newest + kSettled <= now || newest > now + kSettled;
  const bool finely = st.st_mtim.tv_nsec != 0 && st.st_ctim.tv_nsec != 0;
  facts.quiet &= newest > now + kSettled || newest + (finely ? kQuiet : kSettled) <= now;
  return true;
}

}  // namespace

std::optional<FileFacts> FileFactsOf(const std::string& path, SystemTime now) {
  // SQLite keeps its files beside the file that a symbolic link leads to.
  char real[PATH_MAX];
  if (realpath(path.c_str(), real) == nullptr) return std::nullopt;
  FileFacts facts;
  facts.text = std::string(real) + ";";
  facts.settled = facts.quiet = facts.bare = true;
  if (!Add(real, true, now, facts)) return std::nullopt;
  for (const char* suffix : {"-wal", "-journal"}) {
    if (!Add(std::string(real) + suffix, false, now, facts)) return std::nullopt;
    facts.bare &= facts.text.ends_with(";-;");
  }
  return facts;
}

bool AreAsRead(const FileFacts& facts, std::string_view then, SystemTime read_at, SystemTime now) {
  // A clock that was set back says nothing about the interval.
  return facts.settled && !then.empty() && then == facts.text && now >= read_at && now - read_at < kReadAnyway;
}

}  // namespace litefleet::capture
