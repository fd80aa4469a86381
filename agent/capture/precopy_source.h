// All pages of a live database in order, read in short transactions with the network's time between them: of no single moment.
//
// For uploading ahead of a backup whose changes are more than the spool may hold (design section 5). The pages of one call are of one
// state, those of two calls need not be. The geometry is that of the first look: pages that come later are not given, pages that go are
// zeros. Between calls of Next() that need a new transaction nothing is held: no lock, no connection.
//
// Not a backup. Thread safety: as PageSource. Memory: kPrecopyExtents extents. `pinned_for` is the longest of the transactions.
// Errors: those of user_database.h, SOURCE_CHANGED (kAborted) when the page size changed, CANCELLED.
#ifndef LITEFLEET_AGENT_CAPTURE_PRECOPY_SOURCE_H_
#define LITEFLEET_AGENT_CAPTURE_PRECOPY_SOURCE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "agent/capture/online_source.h"
#include "agent/capture/page_source.h"

namespace litefleet::capture {

// Read under one transaction: 4 MiB.
inline constexpr uint32_t kPrecopyExtents = 16;

// Looks at the database once. Limits on the length of a transaction do not apply. REQUIRES: options.clock is set.
absl::StatusOr<std::unique_ptr<PageSource>> OpenPrecopySource(const OnlineOptions& options);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_PRECOPY_SOURCE_H_
