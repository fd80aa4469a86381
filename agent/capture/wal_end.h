// Where a generation of a WAL ended that has been started over since: its last frames stay in the file until the new generation gets there.
//
// Says nothing of whether the commits were successful: that is what the database file tells, which has all of a generation that was started
// over. Thread safety: a pure function over the connection's handle. Memory: one frame.
#ifndef LITEFLEET_AGENT_CAPTURE_WAL_END_H_
#define LITEFLEET_AGENT_CAPTURE_WAL_END_H_

#include <array>

#include "absl/status/statusor.h"
#include "agent/capture/wal_frames.h"

namespace litefleet::capture {

// The last commit of the frames that follow `from` in an unbroken chain of checksums; `from` itself where there is none. kAborted
// FRAME_DAMAGED where the end of the chain is not for certain the end of that generation: overwritten by `next`, or cut off.
absl::StatusOr<WalPlace> EndOfGeneration(sqlite3_file* wal, const WalPlace& from, const std::array<std::byte, 8>& next);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_WAL_END_H_
