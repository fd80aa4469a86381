// A catalog from the packs alone: reads every record, proves every snapshot, and says what could not be recovered.
//
// A snapshot is kept only when all parts of its manifest and all chunks were found, when all its layers together name every page, and when
// the names of its extents give the root digest. The chunks' content is not hashed again: its checksums are, and scrub does the rest.
// Nothing that was revoked or forgotten comes back; tokens are in no record, so all are void.
//
// Thread safety: none. Memory: one record, a part of each layer and the places of all parts (24 bytes for 256 KiB of manifest) of one
// snapshot, 1.5 MiB of its chunks, and what RebuildCatalog says. Ownership: borrows everything.
#ifndef LITEFLEET_CONTROLLER_REBUILD_REBUILD_H_
#define LITEFLEET_CONTROLLER_REBUILD_REBUILD_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "controller/catalog/rebuild_catalog.h"
#include "controller/store/store.h"

namespace litefleet::rebuild {

struct RebuildOptions {
  bool keep_certificates = true;  // the CA that issued them is there
  // Bytes of packs read, of how many; may be empty.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

struct RebuildReport {
  uint64_t packs = 0;
  uint64_t bytes = 0;
  uint64_t records = 0;
  uint64_t damaged_bytes = 0;
  uint64_t snapshots_lost = 0;  // their record was found, not all of the rest
  catalog::RebuildCatalog::Things things;
  std::vector<std::string> problems;  // the first 1000, for people
};

// The caller closes the catalog. Errors: those of catalog and store; what is missing or damaged is no error.
absl::StatusOr<RebuildReport> Rebuild(store::Store& store, catalog::RebuildCatalog& catalog, const Clock& clock,
                                      const RebuildOptions& options);

}  // namespace litefleet::rebuild

#endif  // LITEFLEET_CONTROLLER_REBUILD_REBUILD_H_
