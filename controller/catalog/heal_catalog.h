// Wanted lists: quarantined chunks that a device may still have, and what came back of them.
//
// A chunk is wanted by each database of which a snapshot needs it, until it is good again: first as a whole, then those pages of it that
// snapshots still show. Thread safety: all members may be called from
// any thread. Durability: what a changing call did is durable when it returns.
#ifndef LITEFLEET_CONTROLLER_CATALOG_HEAL_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_HEAL_CATALOG_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "controller/catalog/catalog_db.h"
#include "controller/catalog/ingest_catalog.h"

namespace litefleet::catalog {

class HealCatalog {
 public:
  explicit HealCatalog(CatalogDb& db) : db_(db) {}

  struct Database {
    int64_t id = 0;
    DeviceId device;
    std::string name;
  };
  // Databases of active devices with chunks to be asked for that were not asked for since `asked_before`. At most `limit`.
  absl::StatusOr<std::vector<Database>> DueDatabases(SystemTime asked_before, int limit) const;
  struct WantedChunk {
    int64_t id = 0;
    format::ChunkName name;
    uint32_t page_size = 0;
    uint32_t page_count = 0;
  };
  enum class Ask { kWhole, kPages };
  // Of these at most `limit`, the oldest first.
  absl::StatusOr<std::vector<WantedChunk>> Wanted(int64_t database, Ask ask, SystemTime asked_before, int limit) const;
  // Damaged snapshots of the database, also in the trash, the newest first.
  absl::StatusOr<std::vector<SnapshotId>> DamagedSnapshots(int64_t database, int limit) const;

  absl::Status SetAsked(int64_t database, std::span<const int64_t> chunks, SystemTime at);
  // As a whole nobody has them: their pages are asked for.
  absl::Status SetPages(int64_t database, std::span<const int64_t> chunks);
  // The device does not have them: it is not asked again, until a scrub is ordered.
  absl::Status SetGone(int64_t database, std::span<const int64_t> chunks);
  // The device has answered an order that named these chunks and extents: what it was asked for and has not come goes a step further.
  absl::Status NoteAnswered(int64_t database, std::span<const format::ChunkName> names);
  // 0: there is none.
  absl::StatusOr<int64_t> DatabaseOf(const DeviceId& device, const std::string& database) const;

  // Chunks that are durable in the store at these places: those that are still quarantined are good from now on. Which of them.
  absl::StatusOr<std::vector<bool>> MakeGood(std::span<const ArrivedChunk> chunks);
  // A page of a quarantined chunk, and where in `copy` it came back.
  struct HealedPage {
    format::ChunkName chunk;
    uint32_t page = 0;
    uint32_t copy_page = 0;
  };
  // `copy` is durable in the store at its place. A claim of the database holds it, and it is the device's.
  absl::Status AddHealedPages(const DeviceId& device, int64_t database, const ArrivedChunk& copy, std::span<const HealedPage> pages);
  // Of which claims hold such copies: an order is under way, or has ended without its last answer.
  absl::StatusOr<std::vector<Database>> ClaimingDatabases() const;
  // Layers need what is needed of them. While a prune marks they go with its end.
  absl::Status DropHealingClaims(int64_t database);
  struct Copy {
    format::ChunkName name;
    uint32_t page_count = 0;
    uint32_t page = 0;
  };
  // By page, of one chunk.
  absl::StatusOr<std::map<uint32_t, Copy>> HealedPages(const format::ChunkName& chunk) const;

  // Where the record of the snapshot is; kNotFound SNAPSHOT_NOT_FOUND.
  absl::StatusOr<PackPlace> RecordOf(const SnapshotId& snapshot) const;
  // The snapshot is what the record at `place` says from now on, with `own` as the parts of its last layer. REQUIRES: durable. Errors:
  // kAborted where its manifest has changed since `layout` was read.
  absl::Status AddLayer(const SnapshotLayout& layout, const storage::v1::SnapshotRecord& record, PackPlace place,
                        std::span<const ManifestPlace> own);

  struct Figures {
    int64_t wanted = 0;  // chunks that some device will be, or is, asked for
    int64_t gone = 0;    // that no device has
  };
  absl::StatusOr<Figures> GetFigures() const;

 private:
  CatalogDb& db_;
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_HEAL_CATALOG_H_
