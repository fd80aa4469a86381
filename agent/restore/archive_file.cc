#include "agent/restore/archive_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <utility>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/io/named_file.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;

constexpr size_t kPiece = format::kExtentBytes;
// POSIX.1: the first header has its magic there.
constexpr size_t kMagicAt = 257;
constexpr std::string_view kMagic = "ustar";

absl::Status NotAnArchive(const std::string& path) {
  return Error(Code::kInvalidArgument, "NOT_AN_ARCHIVE", fmt::format("{} is no tar archive", path),
               "take the file of `litefleet snapshot download`; a compressed one has to be unpacked first");
}

absl::StatusOr<size_t> ReadPiece(int fd, std::span<std::byte> out, uint64_t offset, const std::string& path) {
  size_t have = 0;
  while (have < out.size()) {
    const ssize_t n = pread(fd, out.data() + have, out.size() - have, static_cast<off_t>(offset + have));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, "read " + path);
    if (n == 0) break;
    have += static_cast<size_t>(n);
  }
  return have;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ArchiveFile>> ArchiveFile::Open(const std::string& path, const CancelToken& cancel) {
  absl::StatusOr<io::UniqueFd> opened = io::Open(path, O_RDONLY | O_NONBLOCK);
  if (!opened.ok()) return io::NamedFileError(opened.status(), path, {"--from", "name the file of `litefleet snapshot download`"});
  struct stat st {};
  if (fstat(opened->get(), &st) != 0) return ErrnoError(errno, "look at " + path);
  if (!S_ISREG(st.st_mode)) return Error(Code::kFailedPrecondition, "NOT_REGULAR_FILE", fmt::format("{} is no regular file", path));
  std::array<std::byte, kMagic.size()> magic{};
  LF_ASSIGN_OR_RETURN(const size_t have, ReadPiece(opened->get(), magic, kMagicAt, path));
  if (have != magic.size() || AsText(magic) != kMagic) return NotAnArchive(path);
  std::unique_ptr<ArchiveFile> file(new ArchiveFile(path, *std::move(opened)));
  format::SegmentWriter writer(format::Content::kFiles);
  LF_RETURN_IF_ERROR(file->Read(writer, cancel, [](const format::SegmentWriter::Segment&) { return absl::OkStatus(); }));
  file->page_count_ = writer.page_count();
  file->root_ = writer.Root();
  return file;
}

absl::Status ArchiveFile::Read(format::SegmentWriter& writer, const CancelToken& cancel,
                               absl::FunctionRef<absl::Status(const format::SegmentWriter::Segment&)> segment) const {
  const auto hand_on = [&]() -> absl::Status {
    while (const auto next = writer.Take()) LF_RETURN_IF_ERROR(segment(*next));
    return absl::OkStatus();
  };
  Bytes piece(kPiece);
  for (uint64_t at = 0;;) {
    if (cancel.cancelled()) return Error(Code::kCancelled, "CANCELLED", "the restore was cancelled");
    LF_ASSIGN_OR_RETURN(const size_t have, ReadPiece(fd_.get(), piece, at, path_));
    if (have == 0) break;
    LF_RETURN_IF_ERROR(writer.Add(ByteView(piece).first(have)));
    LF_RETURN_IF_ERROR(hand_on());
    at += have;
  }
  LF_RETURN_IF_ERROR(writer.Finish());
  return hand_on();
}

v1::RestoreOrder ArchiveFile::Order() const {
  v1::RestoreOrder order;
  order.set_content(v1::SNAPSHOT_CONTENT_FILES);
  order.set_page_size(format::kContentPageBytes);
  order.set_page_count(page_count_);
  order.set_root_version(format::kRootVersion);
  order.set_root_digest(std::string(root_.AsString()));
  return order;
}

absl::Status ArchiveFile::Fetch(const std::string&, const v1::RestoreOrder&, uint32_t first_extent, const CancelToken& cancel,
                                const std::function<absl::Status(const FetchedExtent&)>& sink) {
  format::SegmentWriter writer(format::Content::kFiles);
  Bytes pages;
  uint32_t extent = 0;
  const auto give = [&](size_t bytes) -> absl::Status {
    const ByteView whole = ByteView(pages).first(bytes);
    if (extent >= first_extent) LF_RETURN_IF_ERROR(sink({extent, format::NameChunkOf(format::kContentPageBytes, whole), whole, 0}));
    ++extent;
    pages.erase(pages.begin(), pages.begin() + static_cast<std::ptrdiff_t>(bytes));
    return absl::OkStatus();
  };
  LF_RETURN_IF_ERROR(Read(writer, cancel, [&](const format::SegmentWriter::Segment& segment) -> absl::Status {
    pages.insert(pages.end(), segment.pages.begin(), segment.pages.end());
    while (pages.size() >= format::kExtentBytes) LF_RETURN_IF_ERROR(give(format::kExtentBytes));
    return absl::OkStatus();
  }));
  return pages.empty() ? absl::OkStatus() : give(pages.size());
}

}  // namespace litefleet::restore
