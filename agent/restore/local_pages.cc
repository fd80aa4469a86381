#include "agent/restore/local_pages.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "agent/capture/pinned_read.h"
#include "agent/restore/page_stream.h"
#include "common/base/status.h"
#include "common/format/extent.h"

namespace litefleet::restore {
namespace {

using Take = std::function<absl::Status(uint32_t, ByteView)>;

absl::Status CheckCancelled(const CancelToken& cancel) {
  return cancel.cancelled() ? Error(absl::StatusCode::kCancelled, "CANCELLED", "the restore was cancelled") : absl::OkStatus();
}

// By `read`, from the beginning of a file of so many bytes; whole pages.
absl::Status ReadAll(uint64_t bytes, uint32_t page_size, const CancelToken& cancel, const Take& take,
                     const std::function<absl::Status(uint64_t offset, std::span<std::byte> out)>& read) {
  Bytes buffer;
  bytes -= bytes % page_size;
  for (uint64_t offset = 0; offset < bytes; offset += format::kExtentBytes) {
    LF_RETURN_IF_ERROR(CheckCancelled(cancel));
    buffer.resize(static_cast<size_t>(std::min<uint64_t>(format::kExtentBytes, bytes - offset)));
    LF_RETURN_IF_ERROR(read(offset, buffer));
    LF_RETURN_IF_ERROR(take(static_cast<uint32_t>(offset / format::kExtentBytes), buffer));
  }
  return absl::OkStatus();
}

// Nobody in this process has it open: SQLite has just refused it.
absl::Status ReadRefused(const TargetPlace& place, uint32_t page_size, const CancelToken& cancel, const Take& take) {
  LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, place.Open(place.name(), O_RDONLY | O_NONBLOCK));
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return ErrnoError(errno, "look at " + place.path());
  if (!S_ISREG(st.st_mode)) return absl::OkStatus();
  return ReadAll(static_cast<uint64_t>(st.st_size), page_size, cancel, take,
                 [&](uint64_t offset, std::span<std::byte> out) { return io::PreadAll(fd.get(), out, offset, place.path()); });
}

// One that this process has open for the file already: opening and closing one more would drop SQLite's locks on it. -1 where there is
// none.
int OpenDescriptorOf(const TargetPlace& place) {
  struct stat wanted {};
  if (stat(place.path().c_str(), &wanted) != 0) return -1;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", none)) {
    const int fd = static_cast<int>(std::strtol(entry.path().filename().c_str(), nullptr, 10));
    struct stat st {};
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_dev == wanted.st_dev && st.st_ino == wanted.st_ino) return fd;
  }
  return -1;
}

absl::Status ReadThroughHandle(capture::UserDatabase& database, uint32_t page_size, const CancelToken& cancel, const Take& take) {
  LF_ASSIGN_OR_RETURN(const uint64_t bytes, database.FileBytes());
  sqlite3_file* const file = database.file();
  return ReadAll(bytes, page_size, cancel, take, [&](uint64_t offset, std::span<std::byte> out) -> absl::Status {
    const int rc = file->pMethods->xRead(file, out.data(), static_cast<int>(out.size()), static_cast<sqlite3_int64>(offset));
    return rc == SQLITE_OK ? absl::OkStatus() : database.ErrorFor(rc, "read");
  });
}

}  // namespace

absl::Status ForEachLocalExtent(const TargetPlace& place, const ApplyOptions& options, uint32_t page_size, const CancelToken& cancel,
                                const std::function<absl::Status(uint32_t, ByteView, int)>& hand_on) {
  int source = -1;
  const Take take = [&](uint32_t extent, ByteView pages) { return hand_on(extent, pages, source); };
  const auto database = OpenTarget(place, options, cancel);
  LF_RETURN_IF_ERROR(CheckCancelled(cancel));
  if (!database.ok()) return ReadRefused(place, page_size, cancel, take);
  LF_ASSIGN_OR_RETURN(const auto pinned, capture::PinnedRead::Begin(**database));
  source = OpenDescriptorOf(place);  // the first read may have opened it once more
  if (pinned->empty() || pinned->page_size() != page_size) return absl::OkStatus();
  if (!pinned->wal()) {
    pinned->End();
    return ReadThroughHandle(**database, page_size, cancel, take);
  }
  return StreamPages(**database, *pinned, cancel, [&](const StreamedExtent& at) { return take(at.extent, at.pages); });
}

}  // namespace litefleet::restore
