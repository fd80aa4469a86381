// Writes a snapshot to a file, every byte checked against the root digest: for SQLite's checks and for drills.
//
// Not durable: the copy is for reading at once. Thread safety: as the factory's. Memory: one chunk.
#ifndef LITEFLEET_CONTROLLER_RESTORE_MATERIALISE_H_
#define LITEFLEET_CONTROLLER_RESTORE_MATERIALISE_H_

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "common/base/ids.h"
#include "controller/restore/snapshot_reader.h"

namespace litefleet::restore {

// Makes `path` (mode 0600), which must not exist; after an error it is gone again. `progress` gets the bytes written so far, and ends the
// copy with whatever error it returns. Errors: those of the reader; kAlreadyExists FILE_EXISTS; kResourceExhausted DISK_FULL.
absl::Status Materialise(SnapshotReaderFactory& snapshots, const SnapshotId& snapshot, const std::string& path,
                         absl::FunctionRef<absl::Status(uint64_t written)> progress);

}  // namespace litefleet::restore

#endif  // LITEFLEET_CONTROLLER_RESTORE_MATERIALISE_H_
