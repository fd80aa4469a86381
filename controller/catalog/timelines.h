// Timelines of a database: which one was live at a time, and which snapshot says what the database held then.
//
// A timeline is reserved by a restore (SnapshotCatalog::ReserveTimeline). It is live from the end of its restore, or from its first
// snapshot where that is earlier or all that is known, until the next one is. Until its first snapshot its state is its *base*: the
// snapshot that was restored, maybe one of another database. Thread safety: as the connection; within one transaction.
#ifndef LITEFLEET_CONTROLLER_CATALOG_TIMELINES_H_
#define LITEFLEET_CONTROLLER_CATALOG_TIMELINES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/sqlite/handle.h"

namespace litefleet::catalog {

extern const std::string_view kTimelineSchema;

// The restore that the timeline was reserved for has ended well. The first call counts.
absl::Status BeginTimeline(sqlite3* db, const std::string& device, const std::string& database, uint64_t timeline, SystemTime at,
                           const std::string& base);

// The id of the snapshot that has what the database held at `at`, on the timeline that was live then or on `timeline`. `label` names the
// database in errors: kNotFound NO_SNAPSHOT_THEN; kFailedPrecondition TIME_AMBIGUOUS where the newest snapshot until then is of an earlier
// timeline: a clock was set, and nobody but the operator knows which of the two is meant.
absl::StatusOr<std::string> SnapshotThen(sqlite3* db, int64_t database, const std::string& label, SystemTime at,
                                         std::optional<uint64_t> timeline);

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_TIMELINES_H_
