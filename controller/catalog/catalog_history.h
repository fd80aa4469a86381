// What a rebuilt catalog takes from a backup of the lost one: only what the packs do not hold, and nothing that gives anybody a right.
//
//   operations   those that had ended, as they were; others as failed, since nobody knows what became of them: no order is given again
//   verdicts     of checks and drills, for snapshots that the rebuild found, with the same root digest
//   devices      when they were seen last, versions, clock offsets; of devices that the rebuild found
//   time         the controller's own, so that a jump since then is noticed
//   numbers      how far databases had counted their snapshots, where that is further than the packs say
//
// Not taken: tokens, certificates, operators, devices, snapshots, chunks, manifests, sessions, marks. These come from the packs or not at
// all, so that a backup which is older than the packs changes nothing of what exists. Thread safety: none; nobody else may have the files
// open.
#ifndef LITEFLEET_CONTROLLER_CATALOG_CATALOG_HISTORY_H_
#define LITEFLEET_CONTROLLER_CATALOG_CATALOG_HISTORY_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/clock.h"

namespace litefleet::catalog {

struct TakenHistory {
  int64_t operations = 0;
  int64_t interrupted = 0;  // of these: had not ended
  int64_t verdicts = 0;
};

// Into the catalog at `path`, in one transaction, from the unpacked backup at `from`, which is migrated first. Errors: those of SQLite;
// kFailedPrecondition CATALOG_TOO_NEW. Nothing was taken then.
absl::StatusOr<TakenHistory> TakeHistory(const std::string& path, const std::string& from, SystemTime now);

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_CATALOG_HISTORY_H_
