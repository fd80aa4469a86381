// Makes durable again what a failed sync may have lost of the catalog's files.
//
// The kernel tells of a failed sync once and takes what it should have covered for written (https://lwn.net/Articles/752063); what is still
// cached can be written again. That is the WAL up to the newest commit, whose frames prove themselves by their checksums, and what
// checkpoints copied out of it: SQLite syncs the database only when all of the WAL is in it, and never copies a frame twice.
// Formats: https://www.sqlite.org/fileformat2.html#walformat, https://www.sqlite.org/walformat.html#the_wal_index_file_format.
#ifndef LITEFLEET_CONTROLLER_CATALOG_WAL_REPAIR_H_
#define LITEFLEET_CONTROLLER_CATALOG_WAL_REPAIR_H_

#include "absl/status/status.h"
#include "common/sqlite/handle.h"

namespace litefleet::catalog {

// REQUIRES: `db` is in WAL mode and in no transaction. Holds the locks of a writer and of a checkpointer meanwhile; readers go on. Blocks
// for the disk. Memory: a frame, and some bytes for each page that checkpoints have copied. Errors: those of SQLite, DATABASE_BUSY where
// another process has a lock; kDataLoss CATALOG_DAMAGED: what the sync lost is not cached any more, so nothing may be written behind it;
// whoever opens the catalog next finds what was durable.
absl::Status MakeDurableAgain(sqlite3* db);

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_WAL_REPAIR_H_
