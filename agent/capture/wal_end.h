// Where a generation of a WAL ended that has been started over since: its last frames stay in the file until the new generation gets there.
//
// Not for a generation that lasts. Says nothing of whether the commits were successful: that is what the database file tells, which has all
// of a generation that was started over. Thread safety: as the connection. Memory: one frame.
#ifndef LITEFLEET_AGENT_CAPTURE_WAL_END_H_
#define LITEFLEET_AGENT_CAPTURE_WAL_END_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "agent/capture/user_database.h"
#include "agent/capture/wal_frames.h"

namespace litefleet::capture {

// The last commit of the frames that follow `from` in an unbroken chain of checksums; `from` itself where there is none. It is the end for
// certain where the frame behind it was never written in that generation (it has other salts) and where the frame of `from` is still there
// after all of it was read: frames are overwritten one after the other. kAborted FRAME_DAMAGED otherwise: overwritten, the file ends there
// and may have been cut off, something else of that generation follows.
absl::StatusOr<WalPlace> EndOfGeneration(sqlite3_file* wal, const WalPlace& from);

// Before a generation may end: there is space for `bytes` behind `end` in the WAL's file, so that its end is told from where a limit has
// cut the file. Nothing that is or will be written there changes: what is new reads as zeros, which SQLite takes for the end, as it does
// what an older generation has left. `database` has its files open; those at its path are meant. False: the file system is none
// of those known to do that beside writers (ext4, XFS, Btrfs, F2FS, tmpfs), there is no room, other files are there, or the file ends
// before `end`: somebody cut it, and then it stays as it is.
bool KeepRoomBehind(const UserDatabase& database, uint64_t end, uint64_t bytes);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_WAL_END_H_
