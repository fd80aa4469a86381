// The `online` page source with its backup engine: a live database read under one pinned transaction by SQLite's Online Backup API, without
// a temporary copy, page 1 byte-exact from the source (design section 5).
//
// Not for a database of the agent's own. In rollback mode (info().wal is false, known as soon as OpenOnlineSource returns) writers wait
// while the source is open: never let it wait for the network, but copy to a local spool; after WRITER_STALL give the writers a moment
// before the next attempt. In WAL mode nobody waits, but the WAL grows: call Next() or Close() at least every 30 s, since the limits are
// looked at there.
//
// Thread safety: as PageSource. Memory: about 6 MiB. Locks and the connection go as soon as the last page has been read, before the last
// extents are handed out; at an error at once.
//
// Errors: those of user_database.h, and
//   WRITER_STALL    kFailedPrecondition  rollback mode, longer than rollback_stall
//   PIN_TOO_LONG    kDeadlineExceeded    WAL mode, longer than max_pin
//   WAL_GROWTH      kResourceExhausted   WAL mode, the WAL grew into the reserve of its file system
//   SOURCE_CHANGED  kAborted             the state could not be named, page 1 was not of the pinned state, or another file is at the path:
//   try
//                                       again
//   CANCELLED       kCancelled
#ifndef LITEFLEET_AGENT_CAPTURE_ONLINE_SOURCE_H_
#define LITEFLEET_AGENT_CAPTURE_ONLINE_SOURCE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/page_source.h"
#include "common/base/clock.h"
#include "common/io/disk_reserve.h"

namespace litefleet::capture {

struct OnlineOptions {
  std::string path;                                 // absolute
  std::chrono::milliseconds busy_timeout{10'000};   // for the first lock
  std::chrono::milliseconds rollback_stall{2'000};  // from lock to release, rollback mode only
  std::chrono::milliseconds max_pin{0};             // WAL mode only; 0: as long as reading takes
  io::DiskReserve reserve;                          // stays free where the WAL grows
  bool allow_network_fs = false;
  const Clock* clock = nullptr;     // REQUIRED; outlives the source
  std::function<bool()> cancelled;  // asked in every wait and every Next(); may be empty
  bool at_rest = false;             // as UserDatabaseOptions
  bool wal_only = false;            // another mode is NOT_WAL, before any lock is taken
};

// Pins the state. REQUIRES: options.clock is set.
absl::StatusOr<std::unique_ptr<PageSource>> OpenOnlineSource(const OnlineOptions& options);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_ONLINE_SOURCE_H_
