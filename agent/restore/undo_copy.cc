#include "agent/restore/undo_copy.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "agent/restore/apply.h"
#include "agent/restore/page_stream.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/io/stretched_sync.h"
#include "common/io/writeback.h"

namespace litefleet::restore {

absl::StatusOr<UndoCopy> UndoCopy::Create(const TargetPlace& place, const std::string& name) {
  LF_RETURN_IF_ERROR(place.Remove(name));
  LF_ASSIGN_OR_RETURN(io::UniqueFd fd, place.Open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
  return UndoCopy(place, name, std::move(fd));
}

absl::Status UndoCopy::Take(capture::UserDatabase& database, const capture::PinnedRead& read, const CancelToken& cancel) {
  uint64_t bytes = 0;
  Bytes before;
  LF_RETURN_IF_ERROR(StreamPages(database, read, cancel, [&](const StreamedExtent& at) -> absl::Status {
    const uint64_t offset = static_cast<uint64_t>(at.extent) * format::kExtentBytes;
    bytes = static_cast<uint64_t>(at.page_size) * at.page_count;
    if (offset + at.pages.size() <= bytes_) {
      before.resize(at.pages.size());
      LF_RETURN_IF_ERROR(io::PreadAll(fd_.get(), before, offset, path()));
      if (std::equal(before.begin(), before.end(), at.pages.begin())) return absl::OkStatus();
    }
    return io::PwriteAll(fd_.get(), at.pages, offset, path());
  }));
  return Truncate(bytes);
}

absl::Status UndoCopy::TakeRaw(capture::UserDatabase& database, const CancelToken& cancel) {
  LF_ASSIGN_OR_RETURN(const uint64_t bytes, database.FileBytes());
  Bytes buffer(format::kExtentBytes);
  io::Writeback writeback;  // the lock is held until all of it is on the disk
  sqlite3_file* const file = database.file();
  for (uint64_t at = 0; at < bytes; at += buffer.size()) {
    if (cancel.cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "the restore was cancelled");
    const auto size = static_cast<int>(std::min<uint64_t>(buffer.size(), bytes - at));
    const int rc = file->pMethods->xRead(file, buffer.data(), size, static_cast<sqlite3_int64>(at));
    if (rc != SQLITE_OK) return database.ErrorFor(rc, "read");
    LF_RETURN_IF_ERROR(io::PwriteAll(fd_.get(), ByteView(buffer).first(static_cast<size_t>(size)), at, path()));
    writeback.Wrote(fd_.get(), at + static_cast<uint64_t>(size));
  }
  LF_RETURN_IF_ERROR(writeback.status(path()));
  return Truncate(bytes);
}

absl::Status UndoCopy::WriteVersions(std::string_view versions) {
  return bytes_ == 0 ? absl::OkStatus() : io::PwriteAll(fd_.get(), AsBytes(versions), 18, path());
}

absl::Status UndoCopy::Finish(const CancelToken& cancel) {
  // The original keeps its attributes, whatever its copy may have.
  std::vector<std::string> lost;
  LF_RETURN_IF_ERROR(TakeOwnerOf(place_, place_.name(), fd_.get(), path(), lost));
  return io::SyncInStretches(fd_.get(), path(), [&] { return cancel.cancelled(); });
}

void UndoCopy::StartWriteBack() { sync_file_range(fd_.get(), 0, 0, SYNC_FILE_RANGE_WRITE); }

absl::Status UndoCopy::Truncate(uint64_t bytes) {
  bytes_ = bytes;
  return ftruncate(fd_.get(), static_cast<off_t>(bytes)) == 0 ? absl::OkStatus() : ErrnoError(errno, "truncate " + path());
}

}  // namespace litefleet::restore
