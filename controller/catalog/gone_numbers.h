// Which numbers of a database's snapshots are gone for good: what its record says in the packs, in the place of a mark for each
// (common/format/FORMAT.md, "Deletion").
//
// They are kept as ranges, so that what is kept is as much as the snapshots that are left between them, however many have been. Thread
// safety: as the connection's.
#ifndef LITEFLEET_CONTROLLER_CATALOG_GONE_NUMBERS_H_
#define LITEFLEET_CONTROLLER_CATALOG_GONE_NUMBERS_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "common/sqlite/handle.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::catalog {

extern const std::string_view kGoneNumberSchema;

// A record names no more ranges, the lowest; marks stay for what is in none of these. One that names so many replaces no older one.
inline constexpr int kMaxGoneRanges = 20'000;

// The snapshot with this number was removed; records of it may stand in packs up to `last_pack`. Its database's record is due afterwards
// (NoteGoneNumbers).
absl::Status AddGoneNumber(sqlite::Connection db, int64_t database, int64_t number, int64_t last_pack);
absl::Status NoteGoneNumbers(sqlite::Connection db, int64_t database);
// A record of a snapshot that may be gone was written into this pack.
absl::Status KeepGone(sqlite::Connection db, const storage::v1::SnapshotRecord& record, int64_t pack);
// A range into a catalog that is made anew; numbers of snapshots that it has are left out.
absl::Status TakeGoneNumbers(sqlite::Connection db, int64_t database, int64_t first, int64_t last, int64_t last_pack);
// Into the record of the database.
absl::Status FillGoneNumbers(sqlite::Connection db, int64_t database, storage::v1::DatabaseRecord& record);
// The record is durable: marks of what it says are needed no more.
absl::Status DropMarksOfGone(sqlite::Connection db, const storage::v1::DatabaseRecord& record);

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_GONE_NUMBERS_H_
