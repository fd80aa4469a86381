#include "agent/restore/snapshot_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "agent/capture/database_header.h"
#include "agent/restore/loaded_file.h"
#include "common/base/status.h"
#include "common/dump/dump_process.h"
#include "common/format/extent.h"
#include "common/io/named_file.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;

bool IsText(ByteView start) {
  return !start.empty() && std::all_of(start.begin(), start.end(), [](std::byte byte) {
    return byte >= std::byte{' '} || byte == std::byte{'\n'} || byte == std::byte{'\r'} || byte == std::byte{'\t'};
  });
}

absl::StatusOr<io::UniqueFd> Load(int text, uint64_t bytes, const std::string& path, const SnapshotFile::Room& room,
                                  const CancelToken& cancel) {
  LF_ASSIGN_OR_RETURN(io::UniqueFd database, dump::TemporaryFile(room.directory));
  LF_ASSIGN_OR_RETURN(const uint64_t available, io::FreeBytes(room.directory));
  LF_ASSIGN_OR_RETURN(const uint64_t reserve, room.reserve.At(room.directory));
  dump::HelperOptions helper;
  helper.cancelled = [&cancel] { return cancel.cancelled(); };
  LF_ASSIGN_OR_RETURN(const auto load, dump::LoadProcess::Start(helper, database.get(), room.directory,
                                                                static_cast<int64_t>(available > reserve ? available - reserve : 1),
                                                                static_cast<int64_t>(bytes)));
  Bytes piece;
  for (uint64_t at = 0; at < bytes; at += piece.size()) {
    piece.resize(std::min<uint64_t>(format::kExtentBytes, bytes - at));
    LF_RETURN_IF_ERROR(io::PreadAll(text, piece, at, path));
    LF_RETURN_IF_ERROR(load->Write(piece));
  }
  LF_RETURN_IF_ERROR(load->Finish());
  return database;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SnapshotFile>> SnapshotFile::Open(const std::string& path, const Room& room, const CancelToken& cancel) {
  absl::StatusOr<io::UniqueFd> opened = io::Open(path, O_RDONLY | O_NONBLOCK);
  if (!opened.ok()) return io::NamedFileError(opened.status(), path, {"--from", "name the file of `litefleet snapshot download`"});
  io::UniqueFd fd = *std::move(opened);
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
  const bool text = IsText(start);
  Geometry geometry;
  if (text) {
    auto database = Load(fd.get(), bytes, path, room, cancel);
    if (!database.ok()) return Annotate(database.status(), fmt::format("load the SQL text of {}", path));
    fd = *std::move(database);
    LF_ASSIGN_OR_RETURN(geometry, GeometryOf(fd.get(), path));
  } else if (!header.has_value() || bytes % header->page_size != 0 || bytes / header->page_size > format::kMaxPageCount) {
    return Error(Code::kInvalidArgument, "NOT_A_DATABASE", fmt::format("{} is neither a whole SQLite database nor SQL text", path),
                 "a compressed download has to be unpacked first");
  } else {
    geometry = {header->page_size, static_cast<uint32_t>(bytes / header->page_size)};
  }
  std::unique_ptr<SnapshotFile> file(new SnapshotFile(path, std::move(fd), geometry.page_size, geometry.page_count));
  file->loaded_ = text;
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

}  // namespace litefleet::restore
