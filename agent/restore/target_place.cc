#include "agent/restore/target_place.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/format/digest.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

constexpr int kMaxLinks = 40;
constexpr std::string_view kUndoSuffix = ".litefleet-undo";
constexpr size_t kLongestCompanion = 8;

using Code = absl::StatusCode;

std::string NameOf(const std::string& path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

absl::StatusOr<TargetPlace> TargetPlace::Resolve(const std::string& configured_path) {
  if (configured_path.empty() || configured_path.front() != '/' || configured_path.back() == '/') {
    return Error(Code::kInvalidArgument, "INVALID_PATH", fmt::format("'{}' is no absolute path of a file", configured_path),
                 "name the database by its absolute path in the agent's configuration");
  }
  std::string path = configured_path;
  for (int links = 0;; ++links) {
    std::string link(PATH_MAX, '\0');
    const ssize_t length = readlink(path.c_str(), link.data(), link.size());
    if (length < 0) break;  // no link, or nothing there
    if (links == kMaxLinks) {
      return Error(Code::kFailedPrecondition, "TOO_MANY_LINKS",
                   fmt::format("{} is a chain of symbolic links without end", configured_path));
    }
    link.resize(static_cast<size_t>(length));
    path = link.starts_with('/') ? link : io::DirectoryOf(path) + "/" + link;
  }
  const std::unique_ptr<char, void (*)(void*)> real(realpath(io::DirectoryOf(path).c_str(), nullptr), std::free);
  if (real == nullptr) {
    return WithReason(ErrnoError(errno, "the directory of " + path), errno == ENOENT ? "DIRECTORY_MISSING" : "",
                      "make the directory, or mount it");
  }
  const std::string name = NameOf(path);
  if (name.empty() || name == "." || name == "..") {
    return Error(Code::kInvalidArgument, "INVALID_PATH", fmt::format("{} does not name a file", configured_path));
  }
  LF_ASSIGN_OR_RETURN(io::UniqueFd fd, io::Open(real.get(), O_RDONLY | O_DIRECTORY));
  TargetPlace place(real.get(), name, std::move(fd));
  LF_ASSIGN_OR_RETURN(const auto st, place.Stat(name));
  if (st.has_value() && !S_ISREG(st->st_mode)) {
    return Error(Code::kFailedPrecondition, "NOT_REGULAR_FILE",
                 fmt::format("{} is {}", place.path(), S_ISDIR(st->st_mode) ? "a directory" : "no regular file"),
                 "name the database file itself in the agent's configuration");
  }
  return place;
}

std::string TargetPlace::StagingName(std::string_view operation_id) { return fmt::format(".litefleet-{}.staging", operation_id); }
std::string TargetPlace::TemporaryUndoName(std::string_view operation_id) { return fmt::format(".litefleet-{}.undo", operation_id); }

std::string TargetPlace::UndoName() const {
  if (name_.size() + kUndoSuffix.size() + kLongestCompanion <= NAME_MAX) return name_ + std::string(kUndoSuffix);
  return fmt::format(".litefleet-undo-{}", ToHex(format::Sha256(AsBytes(name_))).substr(0, 32));
}

absl::Status TargetPlace::CheckWritable() const {
  if (faccessat(fd_.get(), ".", W_OK | X_OK, AT_EACCESS) == 0) return absl::OkStatus();
  const bool read_only = errno == EROFS;
  return Error(Code::kPermissionDenied, "DIRECTORY_NOT_WRITABLE",
               fmt::format("the agent, as user {}, may not write in {}{}: a restore keeps its files there", geteuid(), directory_,
                           read_only ? ", which is read-only for it" : ""),
               read_only ? "mount it writable; under systemd name it in ReadWritePaths= of a drop-in of the agent's unit"
                         : "run the agent as root or as the owner of the directory, or let its group write there");
}

absl::StatusOr<std::optional<struct stat>> TargetPlace::Stat(std::string_view name) const {
  struct stat st {};
  if (fstatat(fd_.get(), std::string(name).c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) return st;
  if (errno == ENOENT) return std::nullopt;
  return ErrnoError(errno, "look at " + PathOf(name));
}

absl::StatusOr<struct stat> TargetPlace::StatDirectory() const {
  struct stat st {};
  if (fstat(fd_.get(), &st) != 0) return ErrnoError(errno, "look at " + directory_);
  return st;
}

absl::StatusOr<io::UniqueFd> TargetPlace::Open(std::string_view name, int flags, mode_t mode) const {
  const int fd = openat(fd_.get(), std::string(name).c_str(), flags | O_NOFOLLOW | O_CLOEXEC, mode);
  if (fd < 0) return ErrnoError(errno, "open " + PathOf(name));
  return io::UniqueFd(fd);
}

absl::Status TargetPlace::Rename(std::string_view from, std::string_view to) const {
  if (renameat(fd_.get(), std::string(from).c_str(), fd_.get(), std::string(to).c_str()) == 0) return absl::OkStatus();
  return ErrnoError(errno, fmt::format("rename {} to {}", PathOf(from), to));
}

absl::Status TargetPlace::RenameNew(std::string_view from, std::string_view to) const {
  if (renameat2(fd_.get(), std::string(from).c_str(), fd_.get(), std::string(to).c_str(), RENAME_NOREPLACE) == 0) return absl::OkStatus();
  // A file system without it: a second name never replaces anything either.
  const bool by_link = errno == EINVAL || errno == ENOSYS;
  const absl::Status done = by_link ? Link(from, to) : ErrnoError(errno, fmt::format("rename {} to {}", PathOf(from), to));
  if (done.ok()) return Remove(from);
  if (done.code() != Code::kAlreadyExists) return done;
  // There an interruption between the two has left both names of one file.
  LF_ASSIGN_OR_RETURN(const auto one, Stat(from));
  LF_ASSIGN_OR_RETURN(const auto other, Stat(to));
  const bool same = one.has_value() && other.has_value() && one->st_ino == other->st_ino && one->st_dev == other->st_dev;
  return same ? Remove(from) : done;
}

absl::Status TargetPlace::Link(std::string_view from, std::string_view to) const {
  if (linkat(fd_.get(), std::string(from).c_str(), fd_.get(), std::string(to).c_str(), 0) == 0) return absl::OkStatus();
  return ErrnoError(errno, fmt::format("link {} to {}", PathOf(from), to));
}

absl::Status TargetPlace::Remove(std::string_view name) const {
  if (unlinkat(fd_.get(), std::string(name).c_str(), 0) == 0 || errno == ENOENT) return absl::OkStatus();
  return ErrnoError(errno, "remove " + PathOf(name));
}

absl::Status TargetPlace::Sync() const {
  if (fsync(fd_.get()) == 0) return absl::OkStatus();
  return ErrnoError(errno, "fsync " + directory_);
}

}  // namespace litefleet::restore
