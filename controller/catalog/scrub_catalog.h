// What scrub knows: which packs were proven when, which chunks are quarantined, which snapshots are damaged by that.
//
// A quarantined chunk counts as absent for offers and dedup; when it arrives again, ingest makes it good. Every quarantine raises a
// generation, and an upload that began under an older one may have been told "have it" about a chunk that is bad now: its commit fails
// (kAborted CHUNK_VANISHED) and the device resumes. Thread safety: all members may be called from any thread. Durability: what a
// changing call did is durable when it returns.
#ifndef LITEFLEET_CONTROLLER_CATALOG_SCRUB_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_SCRUB_CATALOG_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/format/digest.h"
#include "controller/catalog/catalog_db.h"
#include "controller/catalog/ingest_catalog.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::catalog {

extern const std::string_view kScrubSchema;
extern const std::string_view kHealSchema;

class ScrubCatalog {
 public:
  explicit ScrubCatalog(CatalogDb& db) : db_(db) {}

  // When each pack was last read through; packs that never were are not there.
  absl::StatusOr<std::map<uint64_t, SystemTime>> ProvenPacks() const;
  absl::Status SetProven(uint64_t pack, SystemTime at);

  struct PlacedChunk {
    int64_t id = 0;
    format::ChunkName name;
    PackPlace place;
  };
  // How many good chunks (or ones in the trash) the catalog has in the pack.
  absl::StatusOr<int64_t> CountChunks(uint64_t pack) const;
  // The highest id of a chunk.
  absl::StatusOr<int64_t> NewestChunk() const;
  // The same, one by one: reads the whole table, for packs that are damaged. At most `limit`, ids above `after`.
  absl::StatusOr<std::vector<PlacedChunk>> ChunksIn(uint64_t pack, int64_t after, int limit) const;
  // Snapshots with a part of their manifest in the pack, and where; offsets above `after`.
  absl::StatusOr<std::vector<PackPlace>> ManifestPartsIn(uint64_t pack, int64_t after, int limit) const;
  absl::StatusOr<std::vector<SnapshotId>> SnapshotsWithPart(PackPlace place) const;
  // Snapshots whose record is in the pack, those in the trash as well; offsets above `after`.
  struct PlacedRecord {
    SnapshotId snapshot;
    PackPlace place;
  };
  absl::StatusOr<std::vector<PlacedRecord>> RecordsIn(uint64_t pack, int64_t after, int limit) const;
  // What such a record is to say, for one that cannot be read any more; nothing where it does not stand there now.
  absl::StatusOr<std::optional<storage::v1::SnapshotRecord>> RecordOf(const PlacedRecord& record) const;
  // It stands at `to` from now on, where it is still at its place; false: it was moved or is gone. REQUIRES: durable.
  absl::StatusOr<bool> MoveRecord(const PlacedRecord& record, const storage::v1::SnapshotRecord& written, PackPlace to);

  // Those that still stand where they were found bad; what needs them is to be marked from then on (Unmarked). Returns their ids.
  absl::StatusOr<std::vector<int64_t>> Quarantine(std::span<const PlacedChunk> chunks, std::string_view reason, SystemTime at);
  // Quarantined chunks of which it is not known yet which snapshots need them, at most `limit`; their places are left out.
  absl::StatusOr<std::vector<PlacedChunk>> Unmarked(int limit) const;
  absl::Status SetMarked(std::span<const int64_t> chunks);
  // Devices that ever had one of these chunks.
  absl::StatusOr<std::vector<DeviceId>> OwnersOf(std::span<const int64_t> chunks) const;
  struct Listed {
    int64_t key = 0;
    int64_t database = 0;
    SnapshotId id;
    bool damaged = false;
  };
  // Snapshots of a device, those in the trash as well, ascending keys above `after`.
  absl::StatusOr<std::vector<Listed>> SnapshotsOf(const DeviceId& device, int64_t after, int limit) const;
  // Its state, or the one that it has when it is taken out of the trash; the newest proven snapshot of its database follows. Whether it
  // changed.
  absl::StatusOr<bool> SetDamaged(const SnapshotId& snapshot, bool damaged);
  // Snapshots of the database need these: its device will be asked for them (HealCatalog).
  absl::Status AddWanted(int64_t database, std::span<const int64_t> chunks);
  // Everything that is lost is asked for once more, also of devices that did not have it.
  absl::Status AskAgain();

  struct Figures {
    int64_t quarantined_chunks = 0;
    int64_t damaged_snapshots = 0;
  };
  absl::StatusOr<Figures> GetFigures() const;
  // Chunks that were quarantined and are good again.
  absl::StatusOr<std::vector<int64_t>> Healed() const;
  absl::Status Forget(std::span<const int64_t> healed);

 private:
  CatalogDb& db_;
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_SCRUB_CATALOG_H_
