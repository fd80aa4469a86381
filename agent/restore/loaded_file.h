// What a database is that SQLite made in the helper process: its geometry, and the root digest by which a later run knows it again.
//
// Thread safety: pure functions, which read the file. Errors: kInternal LOAD_FAILED where it is no database; ErrnoError.
#ifndef LITEFLEET_AGENT_RESTORE_LOADED_FILE_H_
#define LITEFLEET_AGENT_RESTORE_LOADED_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "litefleet/storage/v1/restore_state.pb.h"

namespace litefleet::restore {

struct Geometry {
  uint32_t page_size = 4096;  // of an empty database
  uint32_t page_count = 0;
};
absl::StatusOr<Geometry> GeometryOf(int fd, const std::string& path);

// Geometry, root and inode of the staging file behind `fd`, in place of what the order says of it.
absl::Status RecordLoaded(int fd, const std::string& path, const Geometry& geometry, storage::v1::RestoreState& state);

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_LOADED_FILE_H_
