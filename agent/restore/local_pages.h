// What a database that is to be overwritten holds, extent by extent, for a restore that fetches only what differs.
//
// Nothing of it is believed: whoever takes it compares digests. So it needs no lock that others would wait for: in WAL mode it is one
// read transaction, in rollback mode, where a transaction would hold writers up, the file as it is at the moment, through SQLite's own
// handle (law 3); a file that SQLite refuses is read as it lies there.
//
// Thread safety: none. Memory: a few MiB. Errors: those of `take`; kCancelled CANCELLED; of reading: whatever SQLite or the file system
// say, after the extents before were handed on.
#ifndef LITEFLEET_AGENT_RESTORE_LOCAL_PAGES_H_
#define LITEFLEET_AGENT_RESTORE_LOCAL_PAGES_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "agent/restore/apply.h"

namespace litefleet::restore {

// Ascending; the last one may be shorter than an extent. With another page size than `page_size` nothing is handed on. `source`: a
// descriptor of the database's file that stays SQLite's own, for sharing blocks with it and nothing else (law 3), or -1; the pages may be
// newer than what it has.
absl::Status ForEachLocalExtent(const TargetPlace& place, const ApplyOptions& options, uint32_t page_size, const CancelToken& cancel,
                                const std::function<absl::Status(uint32_t extent, ByteView pages, int source)>& take);

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_LOCAL_PAGES_H_
