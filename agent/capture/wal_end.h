// Where a generation of a WAL ended that has been started over since: its last frames stay in the file until the new generation gets there.
//
// Not for a generation that lasts. Says nothing of whether the commits were successful: that is what the database file tells, which has all
// of a generation that was started over. Thread safety: a pure function over the connection's handle. Memory: one frame.
#ifndef LITEFLEET_AGENT_CAPTURE_WAL_END_H_
#define LITEFLEET_AGENT_CAPTURE_WAL_END_H_

#include "absl/status/statusor.h"
#include "agent/capture/wal_frames.h"

namespace litefleet::capture {

// The last commit of the frames that follow `from` in an unbroken chain of checksums; `from` itself where there is none. It is the end for
// certain where the frame behind it was never written in that generation (it has other salts) and where the frame of `from` is still there
// after all of it was read: frames are overwritten one after the other. kAborted FRAME_DAMAGED otherwise: overwritten, the file ends there
// and may have been cut off, something else of that generation follows.
absl::StatusOr<WalPlace> EndOfGeneration(sqlite3_file* wal, const WalPlace& from);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_WAL_END_H_
