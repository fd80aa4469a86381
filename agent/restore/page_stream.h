// All pages of a database, as a pinned read transaction sees them, extent by extent.
//
// Not for a backup: that is capture::PageSource, with its limits. Thread safety: none. Memory: a few MiB.
#ifndef LITEFLEET_AGENT_RESTORE_PAGE_STREAM_H_
#define LITEFLEET_AGENT_RESTORE_PAGE_STREAM_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "agent/capture/pinned_read.h"
#include "agent/capture/user_database.h"
#include "agent/restore/restorer.h"
#include "common/base/bytes.h"

namespace litefleet::restore {

struct StreamedExtent {
  uint32_t page_size = 0;
  uint32_t page_count = 0;  // of the database
  uint32_t extent = 0;
  ByteView pages;  // valid during the call
};

// REQUIRES: `read` is open on `database`. An error of `take` ends it and is returned; kCancelled CANCELLED.
absl::Status StreamPages(capture::UserDatabase& database, const capture::PinnedRead& read, const CancelToken& cancel,
                         const std::function<absl::Status(const StreamedExtent&)>& take);

// Whether two extents hold the same state, but for what every commit of a copy sets in page 1.
bool SamePages(uint32_t extent, ByteView a, ByteView b);
// How many pages differ.
uint32_t CountDifferent(uint32_t extent, uint32_t page_size, ByteView a, ByteView b);

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_PAGE_STREAM_H_
