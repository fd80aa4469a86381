#include "agent/restore/staging_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "agent/capture/database_header.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/io/stretched_sync.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;

constexpr uint32_t kSmallestPage = 512;

// Of what shares its blocks: one word holds an extent's.
constexpr uint64_t kBlockBytes = 4096;
constexpr uint64_t kBlocksPerExtent = 64;
static_assert(kBlockBytes * kBlocksPerExtent == format::kExtentBytes);

absl::Status CheckRoot(const format::RootDigest& actual, const format::RootDigest& expected) {
  if (actual == expected) return absl::OkStatus();
  return Error(Code::kDataLoss, "ROOT_MISMATCH",
               fmt::format("the root digest of what was fetched is {}, ordered was {}", actual.Hex(), expected.Hex()),
               "nothing was changed; restore another snapshot, and look at the controller's store");
}

}  // namespace

StagingFile::StagingFile(const TargetPlace& place, std::string name, uint32_t page_size, uint32_t page_count, io::UniqueFd fd)
    : place_(place),
      name_(std::move(name)),
      page_size_(page_size),
      page_count_(page_count),
      fd_(std::move(fd)),
      root_(page_size, page_count) {}

absl::StatusOr<std::unique_ptr<StagingFile>> StagingFile::Create(const TargetPlace& place, const std::string& name, uint32_t page_size,
                                                                 uint32_t page_count) {
  LF_ASSIGN_OR_RETURN(io::UniqueFd fd, place.Open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
  std::unique_ptr<StagingFile> staging(new StagingFile(place, name, page_size, page_count, std::move(fd)));
  if (staging->bytes() > 0 && fallocate(staging->fd(), 0, 0, static_cast<off_t>(staging->bytes())) != 0) {
    if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) return ErrnoError(errno, "reserve space for " + staging->path());
    if (ftruncate(staging->fd(), static_cast<off_t>(staging->bytes())) != 0) return ErrnoError(errno, "make " + staging->path());
  }
  return staging;
}

absl::StatusOr<std::unique_ptr<StagingFile>> StagingFile::Reopen(const TargetPlace& place, const std::string& name, uint32_t page_size,
                                                                 uint32_t page_count) {
  LF_ASSIGN_OR_RETURN(io::UniqueFd fd, place.Open(name, O_RDWR));
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return ErrnoError(errno, "look at " + place.PathOf(name));
  const uint64_t bytes = static_cast<uint64_t>(page_size) * page_count;
  if (!S_ISREG(st.st_mode) || static_cast<uint64_t>(st.st_size) != bytes) {
    return Error(Code::kDataLoss, "STAGING_DAMAGED", fmt::format("{} has {} bytes instead of {}", place.PathOf(name), st.st_size, bytes));
  }
  return std::unique_ptr<StagingFile>(new StagingFile(place, name, page_size, page_count, std::move(fd)));
}

absl::StatusOr<std::unique_ptr<StagingFile>> StagingFile::Take(const TargetPlace& place, const std::string& name) {
  LF_ASSIGN_OR_RETURN(io::UniqueFd fd, place.Open(name, O_RDWR));
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return ErrnoError(errno, "look at " + place.PathOf(name));
  Bytes start(std::min<size_t>(capture::kHeaderBytes, static_cast<size_t>(st.st_size)));
  LF_RETURN_IF_ERROR(io::PreadAll(fd.get(), start, 0, place.PathOf(name)));
  const auto header = capture::ParseHeader(start);
  const uint32_t page_size = header.has_value() ? header->page_size : kSmallestPage;
  const auto pages = static_cast<uint32_t>(static_cast<uint64_t>(st.st_size) / page_size);
  return std::unique_ptr<StagingFile>(new StagingFile(place, name, page_size, pages, std::move(fd)));
}

absl::Status StagingFile::Resume(const StagingLog& log, const CancelToken& cancel, const std::function<void(uint32_t)>& read) {
  Bytes buffer;
  while (next_extent_ < format::ExtentCount(page_size_, page_count_)) {
    if (cancel.cancelled()) return Error(Code::kCancelled, "CANCELLED", "the restore was cancelled");
    LF_ASSIGN_OR_RETURN(const auto name, log.At(next_extent_));
    if (!name.has_value()) break;
    LF_RETURN_IF_ERROR(ReadExtent(next_extent_, buffer));
    if (format::NameChunkOf(page_size_, buffer) != *name) break;
    root_.Add(*name);
    read(++next_extent_);
  }
  return absl::OkStatus();
}

absl::Status StagingFile::Append(const FetchedExtent& extent) {
  const uint64_t offset = static_cast<uint64_t>(next_extent_) * format::kExtentBytes;
  if (extent.extent != next_extent_ || extent.extent >= format::ExtentCount(page_size_, page_count_) ||
      extent.pages.size() != static_cast<size_t>(format::PagesIn(page_size_, page_count_, extent.extent)) * page_size_) {
    return Error(Code::kDataLoss, "FETCH_INVALID",
                 fmt::format("extent {} with {} bytes came where extent {} was next", extent.extent, extent.pages.size(), next_extent_));
  }
  LF_RETURN_IF_ERROR(io::PwriteAll(fd(), extent.pages, offset, path()));
  root_.Add(extent.name);
  ++next_extent_;
  writeback_.Wrote(fd(), offset + extent.pages.size());
  // At once: what the disk refused a run after this one would find in the page cache, and nobody would say it again.
  return writeback_.status(path());
}

absl::Status StagingFile::WritePages(uint32_t first_page, ByteView pages) {
  const uint64_t offset = uint64_t{first_page - 1} * page_size_;
  if (first_page == 0 || offset + pages.size() > bytes()) {
    return Error(Code::kDataLoss, "FETCH_INVALID", fmt::format("pages from page {} on came, the snapshot has {}", first_page, page_count_));
  }
  SetShared(offset, pages.size(), false);
  return io::PwriteAll(fd(), pages, offset, path());
}

void StagingFile::SetShared(uint64_t offset, uint64_t size, bool shared) {
  if (shared_.empty() && !shared) return;
  shared_.resize(format::ExtentCount(page_size_, page_count_));
  for (uint64_t block = offset / kBlockBytes; block * kBlockBytes < offset + size; ++block) {
    const uint64_t bit = uint64_t{1} << (block % kBlocksPerExtent);
    uint64_t& extent = shared_[block / kBlocksPerExtent];
    extent = shared ? extent | bit : extent & ~bit;
  }
}

uint64_t StagingFile::shared_bytes() const {
  uint64_t blocks = 0;
  for (const uint64_t extent : shared_) blocks += static_cast<uint64_t>(std::popcount(extent));
  return std::min(blocks * kBlockBytes, bytes());  // the last one may not be whole
}

absl::Status StagingFile::SharePages(int source, uint32_t first_page, ByteView pages) {
  const uint64_t offset = first_page == 0 ? 0 : uint64_t{first_page - 1} * page_size_;
  if (source < 0 || !can_share_ || first_page == 0 || pages.empty() || offset + pages.size() > bytes())
    return WritePages(first_page, pages);
  // Whole blocks alone can be shared: the end of a file whose pages are smaller is written.
  file_clone_range range{};
  range.src_fd = source;
  range.src_offset = range.dest_offset = offset;
  range.src_length = pages.size();
  if (ioctl(fd(), FICLONERANGE, &range) != 0) {
    // Another reason than alignment holds for all of it.
    can_share_ = errno == EINVAL;
    return WritePages(first_page, pages);
  }
  compared_.resize(pages.size());
  LF_RETURN_IF_ERROR(io::PreadAll(fd(), compared_, offset, path()));
  if (std::memcmp(compared_.data(), pages.data(), pages.size()) != 0) return WritePages(first_page, pages);
  SetShared(offset, pages.size(), true);
  return absl::OkStatus();
}

absl::Status StagingFile::ReadExtent(uint32_t extent, Bytes& out) const {
  out.resize(static_cast<size_t>(format::PagesIn(page_size_, page_count_, extent)) * page_size_);
  return io::PreadAll(fd(), out, static_cast<uint64_t>(extent) * format::kExtentBytes, path());
}

void StagingFile::Adopt(const format::ChunkName& name) {
  root_.Add(name);
  ++next_extent_;
}

absl::Status StagingFile::Finish(const format::RootDigest& expected) {
  if (next_extent_ != format::ExtentCount(page_size_, page_count_)) {
    return Error(Code::kDataLoss, "FETCH_INVALID", fmt::format("only {} extents of {} pages came", next_extent_, page_count_));
  }
  writeback_.Finish(fd(), bytes());
  LF_RETURN_IF_ERROR(writeback_.status(path()));  // it waits, too; until Sync minutes of checks go by, and perhaps this process
  return CheckRoot(root_.Finish(), expected);
}

absl::Status StagingFile::Verify(const format::RootDigest& expected, std::string_view versions, const CancelToken& cancel) {
  format::RootBuilder root(page_size_, page_count_);
  Bytes buffer;
  for (uint32_t extent = 0; extent < format::ExtentCount(page_size_, page_count_); ++extent) {
    if (cancel.cancelled()) return Error(Code::kCancelled, "CANCELLED", "the restore was cancelled");
    LF_RETURN_IF_ERROR(ReadExtent(extent, buffer));
    if (extent == 0 && versions.size() == 2) std::memcpy(buffer.data() + 18, versions.data(), 2);
    root.Add(format::NameChunkOf(page_size_, buffer));
  }
  return CheckRoot(root.Finish(), expected);
}

absl::Status StagingFile::Sync(const CancelToken& cancel) {
  LF_RETURN_IF_ERROR(writeback_.status(path()));
  return io::SyncInStretches(fd(), path(), [&] { return cancel.cancelled(); });
}

absl::StatusOr<std::string> StagingFile::ReadVersions() const {
  std::array<std::byte, 2> versions{};
  LF_RETURN_IF_ERROR(io::PreadAll(fd(), versions, 18, path()));
  return std::string(AsText(versions));
}

absl::Status StagingFile::WriteVersions(std::string_view versions) {
  LF_RETURN_IF_ERROR(io::PwriteAll(fd(), AsBytes(versions), 18, path()));
  return io::Sync(fd(), path());
}

}  // namespace litefleet::restore
