// Makes room in the spool for one more snapshot of a database (FORMAT.md, "Bounds").
//
// Not while another snapshot of this database is written. Thread safety: whoever has SnapshotSpool::Use of the database; others that are in
// use are passed over.
#ifndef LITEFLEET_AGENT_SPOOL_ROOM_H_
#define LITEFLEET_AGENT_SPOOL_ROOM_H_

#include <string>

#include "absl/status/statusor.h"
#include "agent/spool/snapshot_spool.h"
#include "common/base/cancel_token.h"
#include "common/io/disk_reserve.h"

namespace litefleet::spool {

struct RoomJob {
  std::string database;
  io::DiskReserve reserve;
  int compression_level = kMergeLevel;
  bool keep_oldest = false;  // it is being uploaded
  // Asked before each merge as well.
  GoesOn goes_on = {};
};

enum class Room {
  kNone,       // nothing can be merged any more
  kElsewhere,  // of what was moved aside, or of other databases
  kOwn,        // snapshots of the database itself were merged: it has to be read again
};

// Errors: those of merging and of `goes_on`; CANCELLED, also in the midst of a merge.
absl::StatusOr<Room> MakeRoom(SnapshotSpool& spool, const RoomJob& job, const CancelToken& cancel);

}  // namespace litefleet::spool

#endif  // LITEFLEET_AGENT_SPOOL_ROOM_H_
