#include "common/io/trusted_path.h"

#include <limits.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::io {
namespace {

absl::Status NotTrusted(const std::string& what, std::string_view why, uid_t user) {
  return Error(
      absl::StatusCode::kPermissionDenied, "PATH_NOT_TRUSTED", fmt::format("{} {}", what, why),
      fmt::format("it and the directories above it have to belong to root{}, and nobody else may write to them: chown root {}; chmod "
                  "go-w {}",
                  user == 0 ? "" : fmt::format(" or to the agent's user ({})", user), what, what));
}

bool Ours(const struct stat& st, uid_t user) { return st.st_uid == 0 || st.st_uid == user; }
// Root's own group may write: its members are as root.
bool OthersMayWrite(const struct stat& st) { return (st.st_mode & S_IWOTH) != 0 || ((st.st_mode & S_IWGRP) != 0 && st.st_gid != 0); }

absl::Status CheckWay(const std::string& path, uid_t user) {
  for (size_t end = 0; end != std::string::npos;) {
    end = path.find('/', end + 1);
    const std::string part = path.substr(0, end);
    struct stat st {};
    if (lstat(part.c_str(), &st) != 0) return ErrnoError(errno, "look at " + part);
    if (!Ours(st, user)) return NotTrusted(part, fmt::format("belongs to the user {}", st.st_uid), user);
    // In a directory with the sticky bit nobody replaces what belongs to somebody else.
    const bool sticky = S_ISDIR(st.st_mode) && (st.st_mode & S_ISVTX) != 0;
    if (!S_ISLNK(st.st_mode) && !sticky && OthersMayWrite(st)) return NotTrusted(part, "can be written by others", user);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTrustedPath(const std::string& path, uid_t user) {
  if (path.empty() || path.front() != '/') {
    return Error(absl::StatusCode::kPermissionDenied, "PATH_NOT_TRUSTED", fmt::format("\"{}\" is not an absolute path", path),
                 "name it from / on");
  }
  const std::unique_ptr<char, decltype(&std::free)> real(realpath(path.c_str(), nullptr), &std::free);
  if (real == nullptr) return ErrnoError(errno, "find " + path);
  if (const absl::Status way = CheckWay(path, user); !way.ok()) return way;
  return CheckWay(real.get(), user);
}

}  // namespace litefleet::io
