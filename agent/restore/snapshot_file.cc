#include "agent/restore/snapshot_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "agent/capture/database_header.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;

absl::Status NoQuestions() { return Error(Code::kUnimplemented, "NAMES_UNSUPPORTED", "a file is read from its beginning to its end"); }

}  // namespace

absl::StatusOr<std::unique_ptr<SnapshotFile>> SnapshotFile::Open(const std::string& path, const CancelToken& cancel) {
  LF_ASSIGN_OR_RETURN(io::UniqueFd fd, io::Open(path, O_RDONLY | O_NONBLOCK));
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return ErrnoError(errno, "look at " + path);
  if (!S_ISREG(st.st_mode)) return Error(Code::kFailedPrecondition, "NOT_REGULAR_FILE", fmt::format("{} is no regular file", path));
  for (const std::string_view suffix : {"-wal", "-journal"}) {
    struct stat beside {};
    if (stat((path + std::string(suffix)).c_str(), &beside) == 0 && beside.st_size > 0) {
      return Error(Code::kInvalidArgument, "UNFINISHED_DATABASE",
                   fmt::format("{}{} lies beside it: the file alone is not what the database was", path, suffix),
                   "take the file of `litefleet snapshot download`, or let sqlite3 write a copy of this one: .backup FILE");
    }
  }
  Bytes start(std::min<size_t>(capture::kHeaderBytes, static_cast<size_t>(st.st_size)));
  LF_RETURN_IF_ERROR(io::PreadAll(fd.get(), start, 0, path));
  const auto header = capture::ParseHeader(start);
  const auto bytes = static_cast<uint64_t>(st.st_size);
  if (!header.has_value() || bytes % header->page_size != 0 || bytes / header->page_size > format::kMaxPageCount) {
    return Error(Code::kInvalidArgument, "NOT_A_DATABASE", fmt::format("{} is no whole SQLite database", path),
                 "a compressed download has to be unpacked first; SQL text is loaded by sqlite3");
  }
  std::unique_ptr<SnapshotFile> file(
      new SnapshotFile(path, std::move(fd), header->page_size, static_cast<uint32_t>(bytes / header->page_size)));
  format::RootBuilder root(file->page_size_, file->page_count_);
  const v1::RestoreOrder unproven;
  LF_RETURN_IF_ERROR(file->Fetch("", unproven, 0, cancel, [&](const FetchedExtent& extent) {
    root.Add(extent.name);
    return absl::OkStatus();
  }));
  file->root_ = root.Finish();
  return file;
}

v1::RestoreOrder SnapshotFile::Order() const {
  v1::RestoreOrder order;
  order.set_page_size(page_size_);
  order.set_page_count(page_count_);
  order.set_root_version(format::kRootVersion);
  order.set_root_digest(std::string(root_.AsString()));
  return order;
}

absl::Status SnapshotFile::Fetch(const std::string&, const v1::RestoreOrder&, uint32_t first_extent, const CancelToken& cancel,
                                 const std::function<absl::Status(const FetchedExtent&)>& sink) {
  Bytes pages;
  for (uint32_t extent = first_extent; extent < format::ExtentCount(page_size_, page_count_); ++extent) {
    if (cancel.cancelled()) return Error(Code::kCancelled, "CANCELLED", "the restore was cancelled");
    pages.resize(static_cast<size_t>(format::PagesIn(page_size_, page_count_, extent)) * page_size_);
    LF_RETURN_IF_ERROR(io::PreadAll(fd_.get(), pages, uint64_t{extent} * format::kExtentBytes, path_));
    LF_RETURN_IF_ERROR(sink({extent, format::NameChunkOf(page_size_, pages), pages, 0}));
  }
  return absl::OkStatus();
}

absl::Status SnapshotFile::FetchNames(const std::string&, const v1::RestoreOrder&, const CancelToken&,
                                      const std::function<absl::Status(std::span<const format::ChunkName>)>&) {
  return NoQuestions();
}

absl::Status SnapshotFile::FetchPages(const std::string&, const v1::RestoreOrder&, const WantedPages&, const CancelToken&,
                                      const std::function<absl::Status(const FetchedPages&)>&) {
  return NoQuestions();
}

}  // namespace litefleet::restore
