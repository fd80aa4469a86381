#include "controller/cli/download.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/io/named_file.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

absl::Status Exists(const std::string& path) {
  return Error(absl::StatusCode::kAlreadyExists, "FILE_EXISTS", fmt::format("{} exists already", path),
               "name another file, or overwrite it with --force");
}

absl::Status LookForLeftOvers(const std::string& path) {
  for (const char* suffix : {"-wal", "-journal", "-shm"}) {
    if (!io::Exists(path + suffix)) continue;
    return Error(absl::StatusCode::kFailedPrecondition, "LEFT_OVER_FILES",
                 fmt::format("{0}{1} is there, and SQLite would apply it to what is written to {0}", path, suffix),
                 "move it away (it may hold what another database at this place committed last), or name another file");
  }
  return absl::OkStatus();
}

}  // namespace

RootVerifier::RootVerifier(uint32_t page_size, uint32_t page_count, format::RootDigest expected)
    : page_size_(page_size), left_(format::DatabaseBytes(page_size, page_count)), expected_(expected), builder_(page_size, page_count) {
  extent_.reserve(format::kExtentBytes);
}

absl::StatusOr<RootVerifier> RootVerifier::Make(uint32_t page_size, uint32_t page_count, std::string_view root_digest) {
  const auto root = format::RootDigest::FromBytes(root_digest);
  if (!format::IsPageSize(page_size) || page_count > format::kMaxPageCount || !root.has_value()) {
    return Error(absl::StatusCode::kDataLoss, "GEOMETRY_INVALID",
                 fmt::format("the controller describes a snapshot of {} pages of {} bytes", page_count, page_size));
  }
  return RootVerifier(page_size, page_count, *root);
}

absl::Status RootVerifier::Add(ByteView data) {
  if (data.size() > left_) return Error(absl::StatusCode::kDataLoss, "TOO_MUCH_DATA", "the controller sent more than the snapshot has");
  left_ -= data.size();
  while (!data.empty()) {
    if (extent_.empty() && data.size() >= format::kExtentBytes) {
      builder_.Add(format::NameChunkOf(page_size_, data.first(format::kExtentBytes)));
      data = data.subspan(format::kExtentBytes);
      continue;
    }
    const size_t take = std::min<size_t>(data.size(), format::kExtentBytes - extent_.size());
    extent_.insert(extent_.end(), data.begin(), data.begin() + static_cast<std::ptrdiff_t>(take));
    data = data.subspan(take);
    if (extent_.size() == format::kExtentBytes) CloseExtent();
  }
  return absl::OkStatus();
}

void RootVerifier::CloseExtent() {
  builder_.Add(format::NameChunkOf(page_size_, extent_));
  extent_.clear();
}

absl::Status RootVerifier::Finish() {
  if (left_ != 0)
    return Error(absl::StatusCode::kDataLoss, "TRUNCATED", fmt::format("the last {} bytes of the snapshot are missing", left_));
  if (!extent_.empty()) CloseExtent();
  const format::RootDigest got = builder_.Finish();
  if (got == expected_) return absl::OkStatus();
  return Error(absl::StatusCode::kDataLoss, "ROOT_MISMATCH",
               fmt::format("the data has root digest {}, the snapshot {}", got.Hex(), expected_.Hex()),
               "what came is not what the device had: try again, and run `litefleet doctor`");
}

NewFile::NewFile(std::string path, std::string temporary, io::UniqueFd fd, bool replace)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(std::move(fd)), replace_(replace) {
  writer_ = std::make_unique<io::UncachedWriter>(fd_.get(), temporary_);
}

NewFile::NewFile(NewFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, std::string())),
      fd_(std::move(other.fd_)),
      replace_(other.replace_),
      writer_(std::move(other.writer_)) {}

NewFile::~NewFile() {
  writer_.reset();
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

absl::StatusOr<NewFile> NewFile::Make(const std::string& path, bool replace) {
  struct stat info = {};
  if (lstat(path.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode))
      return Error(absl::StatusCode::kInvalidArgument, "IS_A_DIRECTORY", fmt::format("{} is a directory", path), "name the file in it");
    if (!replace) return Exists(path);
    if (!S_ISREG(info.st_mode)) {
      return Error(absl::StatusCode::kInvalidArgument, "NOT_A_FILE", fmt::format("{} is no regular file", path),
                   "use --output - for a pipe");
    }
  }
  LF_RETURN_IF_ERROR(io::CheckNamedOutput(path, "--output"));
  LF_RETURN_IF_ERROR(LookForLeftOvers(path));
  const std::string temporary = fmt::format("{}.{}.part", path, getpid());
  LF_ASSIGN_OR_RETURN(io::UniqueFd fd, io::Open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  return NewFile(path, temporary, std::move(fd), replace);
}

absl::Status NewFile::Write(ByteView data) { return writer_->Write(data); }

absl::Status NewFile::Finish() {
  LF_RETURN_IF_ERROR(writer_->Finish());
  writer_.reset();
  LF_RETURN_IF_ERROR(io::Sync(fd_.get(), temporary_));
  fd_.Reset(-1);
  LF_RETURN_IF_ERROR(LookForLeftOvers(path_));
  if (replace_) {
    if (rename(temporary_.c_str(), path_.c_str()) != 0) return ErrnoError(errno, fmt::format("rename {} to {}", temporary_, path_));
    temporary_.clear();
  } else if (link(temporary_.c_str(), path_.c_str()) == 0) {
    // A second name, since rename would overwrite a file that came into being meanwhile.
    unlink(std::exchange(temporary_, std::string()).c_str());
  } else if (errno == EEXIST) {
    return Exists(path_);
  } else {
    // A file system without links.
    if (io::Exists(path_)) return Exists(path_);
    if (rename(temporary_.c_str(), path_.c_str()) != 0) return ErrnoError(errno, fmt::format("rename {} to {}", temporary_, path_));
    temporary_.clear();
  }
  return io::SyncDirectory(io::DirectoryOf(path_));
}

}  // namespace litefleet::cli
