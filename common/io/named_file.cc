#include "common/io/named_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::io {
namespace {

using Code = absl::StatusCode;

// A relative path is looked for where the program runs, which need not be where its user thinks it does.
std::string Shown(const std::string& path) {
  if (path.starts_with('/')) return path;
  char here[4096];
  return getcwd(here, sizeof here) == nullptr ? path : fmt::format("{} in {}", path, here);
}

bool IsDirectory(const std::string& path) {
  struct stat st {};
  return stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

}  // namespace

absl::Status NamedFileError(const absl::Status& status, const std::string& path, const NamedBy& named) {
  if (status.ok()) return status;
  if (path.empty()) return Error(Code::kInvalidArgument, "FILE_INVALID", fmt::format("{}: it names no file", named.what), named.remedy);
  switch (status.code()) {
    case Code::kNotFound:
      return Error(Code::kNotFound, ReasonOf(status), fmt::format("{}: there is no file {}", named.what, Shown(path)), named.remedy);
    case Code::kPermissionDenied:
      return Error(Code::kPermissionDenied, ReasonOf(status),
                   fmt::format("{}: {} may not be read by this user ({})", named.what, Shown(path), geteuid()),
                   "run it as the file's owner or as root, or change the owner or mode of the file and of the directories above it");
    case Code::kOutOfRange:
      return Error(Code::kInvalidArgument, "FILE_INVALID", fmt::format("{}: {}", named.what, MessageOf(status)),
                   "is it the file that is meant?");
    default:
      if (!IsDirectory(path)) return Annotate(status, named.what);
      return Error(Code::kInvalidArgument, "FILE_INVALID", fmt::format("{}: {} is a directory", named.what, Shown(path)),
                   "name the file in it");
  }
}

absl::StatusOr<std::string> ReadNamedFile(const std::string& path, const NamedBy& named, uint64_t limit) {
  absl::StatusOr<std::string> content = ReadFile(path, limit);
  if (!content.ok()) return NamedFileError(content.status(), path, named);
  return content;
}

absl::Status CheckNamedOutput(const std::string& path, std::string_view what) {
  if (path.empty()) return Error(Code::kInvalidArgument, "FILE_INVALID", fmt::format("{}: it names no file", what), "name one");
  const std::string directory = DirectoryOf(path);
  struct stat st {};
  const int error = stat(directory.c_str(), &st) == 0 ? 0 : errno;
  if (error == 0 && !S_ISDIR(st.st_mode)) {
    return Error(Code::kNotFound, "DIRECTORY_NOT_FOUND", fmt::format("{}: {} is no directory", what, Shown(directory)),
                 "name another place");
  }
  if (error == 0 && faccessat(AT_FDCWD, directory.c_str(), W_OK | X_OK, AT_EACCESS) == 0) return absl::OkStatus();
  if (error == ENOENT || error == ENOTDIR) {
    return Error(Code::kNotFound, "DIRECTORY_NOT_FOUND", fmt::format("{}: there is no directory {}", what, Shown(directory)),
                 "make it, or name another place");
  }
  return Error(Code::kPermissionDenied, "NO_PERMISSION",
               fmt::format("{}: this user ({}) may not make a file in {}", what, geteuid(), Shown(directory)),
               "name another place, or run it as a user that may");
}

}  // namespace litefleet::io
