// What prune asks of the catalog and does to it: marks, trash, sweep, places of what was moved. controller/README.md has the order.
//
// Not for anybody but the one thread of maintenance. Thread safety: all members may be called from any thread; the order of a run is the
// caller's. Cost: a changing call is one transaction over what it is given, which must be at most kAtOnce things.
#ifndef LITEFLEET_CONTROLLER_CATALOG_PRUNE_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_PRUNE_CATALOG_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/format/digest.h"
#include "controller/catalog/catalog_db.h"
#include "controller/catalog/chunk_state.h"
#include "controller/catalog/ingest_catalog.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::catalog {

class PruneCatalog {
 public:
  static constexpr int kAtOnce = 500;

  explicit PruneCatalog(CatalogDb& db) : db_(db) {}

  // ---- a run
  struct Run {
    int64_t run = 0;
    int64_t newest_chunk = 0;  // those after it are not looked at
  };
  // From now on claims of committed sessions stay.
  absl::StatusOr<Run> Begin();
  absl::StatusOr<int64_t> NewestChunk() const;
  absl::StatusOr<int64_t> NewestRun() const;
  // The claims that were kept go, in short transactions. Also for what a crash left; nothing to do is fine.
  absl::Status EndMarking();
  absl::Status SaveReport(const v1::PruneReport& report, SystemTime now);
  absl::StatusOr<std::optional<SystemTime>> LastPrune() const;
  static constexpr std::chrono::hours kGrowthOver{24 * 7};
  // All but what the store itself knows (bytes and number of packs) and names of devices. Growth is that since `growth_since`, which was
  // kGrowthOver ago, or since the first snapshot; over one day at least.
  absl::StatusOr<v1::GetStoreStatsResponse> Stats(SystemTime growth_since) const;

  // ---- mark: places of manifest parts, ascending and each once, after `after`. With `gone_before` those are left out that only snapshots
  // hold that are in the trash since then.
  absl::StatusOr<std::vector<PackPlace>> ManifestPlaces(PackPlace after, int limit, std::optional<SystemTime> gone_before) const;
  // Whether all snapshots that hold this part are in the trash.
  absl::StatusOr<bool> AllInTrash(PackPlace part) const;
  // For each name in turn; 0 where there is no row.
  absl::StatusOr<std::vector<int64_t>> ChunkIds(std::span<const format::ChunkName> names) const;
  // What a pack holds of records that are not chunks, as the mark found it.
  absl::Status SetRecordBytes(const std::map<uint64_t, int64_t>& bytes);

  // ---- trash and sweep
  struct Chunk {
    int64_t id = 0;
    int64_t state = 0;
    int64_t stored_bytes = 0;
    uint64_t pack = 0;
  };
  absl::StatusOr<std::vector<Chunk>> ChunksAfter(int64_t after, int64_t upto, int limit) const;
  struct Changed {
    int64_t chunks = 0;
    int64_t bytes = 0;
  };
  // Those that are still good and not claimed. Quarantined ones, of which there is nothing to bring back, go at once.
  absl::StatusOr<Changed> Trash(std::span<const int64_t> chunks, SystemTime now, int64_t run);
  absl::StatusOr<Changed> TakeOutOfTrash(std::span<const int64_t> chunks);
  // Those of them that nobody claims: for who only looks.
  absl::StatusOr<std::vector<Chunk>> Unclaimed(std::span<const Chunk> chunks) const;
  // In the trash since `before` and run `upto_run` at the latest, ascending.
  absl::StatusOr<std::vector<Chunk>> Trashed(int64_t after, SystemTime before, int64_t upto_run, int limit) const;
  // Those that are still in the trash and not claimed; their rows go.
  absl::StatusOr<Changed> Sweep(std::span<const int64_t> chunks);
  // Rights to chunks that are gone, in pieces: from `owner` and `chunk` on; false at the end.
  absl::StatusOr<bool> DropRights(int64_t& owner, int64_t& chunk);

  // ---- packs
  struct Pack {
    uint64_t id = 0;
    int64_t chunks = 0;
    int64_t chunk_bytes = 0;   // payload of their chunks
    int64_t record_bytes = 0;  // of other records that count
  };
  absl::StatusOr<std::vector<Pack>> PacksAfter(uint64_t after, int limit) const;
  // What stands at a place, for those that count.
  enum class Use { kNone, kChunk, kQuarantined, kManifestPart, kSnapshot };
  absl::StatusOr<Use> UseOfChunk(const format::ChunkName& name, PackPlace place) const;
  absl::StatusOr<Use> UseOfManifestPart(PackPlace place) const;
  absl::StatusOr<Use> UseOfSnapshot(const std::string& snapshot, PackPlace place) const;
  // Whether a mark is the newest of its snapshot, and one of its commit's records may still be in a pack: the oldest is `oldest_pack`.
  // The record of a gap that the catalog keeps, and the newest of it.
  absl::StatusOr<bool> GapCounts(const std::string& gap, uint64_t revision) const;
  absl::StatusOr<bool> MarkCounts(const std::string& snapshot, uint64_t revision, uint64_t oldest_pack) const;

  struct Moved {
    Use use = Use::kNone;
    format::ChunkName name;  // of a chunk
    std::string snapshot;    // of a snapshot's record
    PackPlace from, to;
  };
  // Each only where it is still at its old place. With `last` the pack is to be removed if nothing is left in it but quarantined chunks:
  // false if there is.
  absl::StatusOr<bool> Switch(std::span<const Moved> moved, uint64_t pack, bool last);
  // Devices are still asked for a chunk that was lost in this pack, or will be.
  absl::StatusOr<bool> WaitsForHealing(uint64_t pack) const;
  // Scrub reads it at its next look, whenever that was done before.
  absl::Status ForgetProven(uint64_t pack);
  absl::StatusOr<std::vector<uint64_t>> Removals() const;
  // The file is gone. `oldest_pack`: that is left.
  absl::Status Removed(uint64_t pack, uint64_t oldest_pack);

 private:
  absl::StatusOr<int64_t> Number(std::string_view sql) const;

  CatalogDb& db_;
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_PRUNE_CATALOG_H_
