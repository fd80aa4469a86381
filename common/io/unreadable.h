// Tells a file whose bytes are lost from a read that may work the next time.
//
// For who has a way to go on without the file, and would otherwise meet the same error for ever. Thread safety: a pure function.
#ifndef LITEFLEET_COMMON_IO_UNREADABLE_H_
#define LITEFLEET_COMMON_IO_UNREADABLE_H_

#include "absl/status/status.h"

namespace litefleet::io {

// `status` is what a read of common/io/file.h said. True: what is stored there does not come back: a sector that fails, a file that ends
// early or is larger than it may be, a directory in its place. False: OK; it is missing; nobody here may read it; the system has no
// descriptors or memory at the moment.
bool IsUnreadable(const absl::Status& status);

}  // namespace litefleet::io

#endif  // LITEFLEET_COMMON_IO_UNREADABLE_H_
