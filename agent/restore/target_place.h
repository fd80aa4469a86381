// The target of a restore: one file name below a descriptor of its directory, and every name that a restore makes beside it.
//
// The configured path may be a symbolic link: it is resolved once, as SQLite resolves it; from then on no link is followed (what
// SQLite opens by its path: OpenTarget in apply.h). Not for reading the database: its bytes are read through SQLite (design law 3). Thread
// safety: members may be called from any thread. Errors: ErrnoError with the path.
#ifndef LITEFLEET_AGENT_RESTORE_TARGET_PLACE_H_
#define LITEFLEET_AGENT_RESTORE_TARGET_PLACE_H_

#include <sys/stat.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/io/file.h"

namespace litefleet::restore {

// What belongs to a database beside itself.
inline constexpr std::array<std::string_view, 3> kCompanions = {"-wal", "-shm", "-journal"};

class TargetPlace {
 public:
  // The directory must exist, the file need not. kInvalidArgument INVALID_PATH, kFailedPrecondition NOT_REGULAR_FILE, TOO_MANY_LINKS,
  // kNotFound DIRECTORY_MISSING.
  static absl::StatusOr<TargetPlace> Resolve(const std::string& configured_path);

  const std::string& directory() const { return directory_; }
  const std::string& name() const { return name_; }
  std::string path() const { return PathOf(name_); }
  std::string PathOf(std::string_view name) const {
    return directory_ == "/" ? "/" + std::string(name) : directory_ + "/" + std::string(name);
  }
  int directory_fd() const { return fd_.get(); }

  static std::string StagingName(std::string_view operation_id);
  static std::string TemporaryUndoName(std::string_view operation_id);
  std::string UndoName() const;

  // Whether this process may make, rename and remove files here. kPermissionDenied DIRECTORY_NOT_WRITABLE.
  absl::Status CheckWritable() const;
  // Of the directory entry itself; nothing where there is none.
  absl::StatusOr<std::optional<struct stat>> Stat(std::string_view name) const;
  absl::StatusOr<struct stat> StatDirectory() const;
  // O_NOFOLLOW and O_CLOEXEC are added.
  absl::StatusOr<io::UniqueFd> Open(std::string_view name, int flags, mode_t mode = 0600) const;
  absl::Status Rename(std::string_view from, std::string_view to) const;
  // kAlreadyExists FILE_EXISTS where `to` is another file. Where it is a second name of the same one, that is the one that stays.
  // REQUIRES: they are two names.
  absl::Status RenameNew(std::string_view from, std::string_view to) const;
  // A second name. kAlreadyExists FILE_EXISTS.
  absl::Status Link(std::string_view from, std::string_view to) const;
  // Missing is fine.
  absl::Status Remove(std::string_view name) const;
  absl::Status Sync() const;

 private:
  TargetPlace(std::string directory, std::string name, io::UniqueFd fd)
      : directory_(std::move(directory)), name_(std::move(name)), fd_(std::move(fd)) {}

  std::string directory_;
  std::string name_;
  io::UniqueFd fd_;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_TARGET_PLACE_H_
