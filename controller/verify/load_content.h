// A snapshot that is SQL text becomes a scratch database: for SQLite's checks and for drills. One that is files is read to its end.
//
// Thread safety: as the factory's. Memory: one chunk, and that of the helper process. Errors: those of the reader; CONTENT_DAMAGED; those
// of common/dump/dump_process.h.
#ifndef LITEFLEET_CONTROLLER_VERIFY_LOAD_CONTENT_H_
#define LITEFLEET_CONTROLLER_VERIFY_LOAD_CONTENT_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/dump/dump_process.h"
#include "common/files/files_process.h"
#include "controller/restore/snapshot_reader.h"

namespace litefleet::verify {

using Progress = std::function<absl::Status(uint64_t read)>;

// Into `path` (mode 0600), which must not exist; after an error it is gone again. `most_bytes`: of the database. `progress` gets the bytes
// of pages read so far, and ends the load with whatever error it returns.
absl::Status LoadContent(restore::SnapshotReaderFactory& snapshots, const SnapshotId& snapshot, const std::string& path, int64_t most_bytes,
                         const dump::HelperOptions& helper, const Progress& progress);

// Reads an archive of files to its end, in the helper process, and keeps nothing. How many files, directories and links it has. Errors:
// those of common/files/files_process.h too.
absl::StatusOr<int64_t> ReadFiles(restore::SnapshotReaderFactory& snapshots, const SnapshotId& snapshot, const files::FilesHelper& helper,
                                  const Progress& progress);

}  // namespace litefleet::verify

#endif  // LITEFLEET_CONTROLLER_VERIFY_LOAD_CONTENT_H_
