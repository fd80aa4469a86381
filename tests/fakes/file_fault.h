// What a call of a file system may be told to do.
#ifndef LITEFLEET_TESTS_FAKES_FILE_FAULT_H_
#define LITEFLEET_TESTS_FAKES_FILE_FAULT_H_

#include <string>

#include "common/base/status.h"

namespace litefleet::fakes {

enum class FileCall { kCreate, kOpen, kRead, kWrite, kTruncate, kSync, kRename, kRemove, kSyncDirectory, kMakeDirectory, kList, kFree };
// kShort: of a write a part arrives, else as kFull. kDenied: a right was taken away.
enum class FileFault { kNone, kIo, kFull, kShort, kDenied };

// The error that it would give; OK for none.
inline absl::Status Fail(FileFault fault, const std::string& what) {
  if (fault == FileFault::kNone) return absl::OkStatus();
  return ErrnoError(fault == FileFault::kIo ? EIO : fault == FileFault::kDenied ? EACCES : ENOSPC, what);
}

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_FILE_FAULT_H_
