// Syncs a file of which much may wait for the disk, a stretch at a time, so that whoever asks to stop is heard between two of them.
//
//   LF_RETURN_IF_ERROR(io::SyncInStretches(fd, path, [&] { return cancel.cancelled(); }));
//
// Not for small files, nor for what must be on the disk whatever is asked: io::Sync. A stretch is 8 MiB, and one more is on its way; what
// fails in one is the result, since the sync at the end would not say it again. Where a file system writes nothing by itself
// (sync_file_range), that sync is all.
#ifndef LITEFLEET_COMMON_IO_STRETCHED_SYNC_H_
#define LITEFLEET_COMMON_IO_STRETCHED_SYNC_H_

#include <functional>
#include <string_view>

#include "absl/status/status.h"

namespace litefleet::io {

// Errors: ErrnoError; kCancelled CANCELLED: `cancelled` said so, and it is not known what of the file is on the disk.
absl::Status SyncInStretches(int fd, std::string_view path, const std::function<bool()>& cancelled);

}  // namespace litefleet::io

#endif  // LITEFLEET_COMMON_IO_STRETCHED_SYNC_H_
