// Has another thread read the next chunk while the one before is compressed: where most extents are put together of several chunks, as
// after a thousand deltas, reading takes about as long as compression does.
//
// Thread safety: as SnapshotReader. Memory: one extent more. The executor may be the one whose task reads: what it has not begun by the
// time that it is wanted is done by who wants it, so that nobody waits for a place in the pool.
// What is being read when the reader ends is read to its end, and keeps the snapshot pinned for so long.
#ifndef LITEFLEET_CONTROLLER_RESTORE_READ_AHEAD_H_
#define LITEFLEET_CONTROLLER_RESTORE_READ_AHEAD_H_

#include <memory>

#include "common/base/executor.h"
#include "controller/restore/snapshot_reader.h"

namespace litefleet::restore {

// Nothing is read ahead behind a chunk that is as it is stored: those cost next to nothing. `executor` outlives the reader and its tasks.
std::unique_ptr<SnapshotReader> ReadAhead(std::unique_ptr<SnapshotReader> reader, Executor& executor);

}  // namespace litefleet::restore

#endif  // LITEFLEET_CONTROLLER_RESTORE_READ_AHEAD_H_
