// The states of a row of the table chunk. Values are stored: do not change them.
#ifndef LITEFLEET_CONTROLLER_CATALOG_CHUNK_STATE_H_
#define LITEFLEET_CONTROLLER_CATALOG_CHUNK_STATE_H_

#include <cstdint>

namespace litefleet::catalog {

enum ChunkState : int64_t {
  kChunkGood = 1,
  // Nothing refers to it; its bytes are there until a prune sweeps it. It counts as present: a dedup hit makes it good again.
  kChunkTrash = 2,
  // What is in the store is not what its name says. It counts as absent.
  kChunkQuarantined = 3,
};

// Who claims a copy of healed pages until a layer needs it, in the place of an upload session: those count from 1.
inline int64_t HealingClaim(int64_t database) { return -database; }
// The same once its layer is there, where a prune marked meanwhile: all from here down go with the end of the mark.
inline constexpr int64_t kHealedClaims = -(int64_t{1} << 40);
inline int64_t HealedClaim(int64_t database) { return kHealedClaims - database; }

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_CHUNK_STATE_H_
