// Where things are, for those who read snapshots.
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/chunk_state.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/catalog/ingest_rows.h"

namespace litefleet::catalog {

using sqlite::Statement;

absl::StatusOr<std::vector<ManifestPlace>> PartsOf(sqlite::Connection db, int64_t snapshot_key, uint32_t first, uint32_t limit) {
  LF_ASSIGN_OR_RETURN(
      Statement get,
      Statement::Prepare(db, "select first_page, pack, offset from manifest_part where snapshot = ? and part >= ? order by part limit ?"));
  get.Bind(1, snapshot_key).Bind(2, int64_t{first}).Bind(3, int64_t{limit});
  std::vector<ManifestPlace> parts;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, get.Step());
    if (!row) return parts;
    parts.push_back({.first_page = static_cast<uint32_t>(get.Int(0)),
                     .place = {.pack = static_cast<uint64_t>(get.Int(1)), .offset = static_cast<uint64_t>(get.Int(2))}});
  }
}

absl::StatusOr<std::vector<ManifestPlace>> IngestCatalog::ManifestParts(int64_t snapshot_key, uint32_t first, uint32_t limit) const {
  std::vector<ManifestPlace> parts;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(parts, PartsOf(db, snapshot_key, first, limit));
    return absl::OkStatus();
  }));
  return parts;
}

absl::StatusOr<std::vector<std::optional<ChunkRow>>> IngestCatalog::FindChunks(std::span<const format::ChunkName> names) const {
  std::vector<std::optional<ChunkRow>> rows(names.size());
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db, "select page_size, page_count, state, pack, offset from chunk where name = ?"));
    for (size_t i = 0; i < names.size(); ++i) {
      LF_ASSIGN_OR_RETURN(const bool found, get.BindBlob(1, names[i].bytes).Step());
      if (found) {
        rows[i] = ChunkRow{.name = names[i],
                           .page_size = static_cast<uint32_t>(get.Int(0)),
                           .page_count = static_cast<uint32_t>(get.Int(1)),
                           .good = get.Int(2) == kChunkGood || get.Int(2) == kChunkTrash,
                           .place = {.pack = static_cast<uint64_t>(get.Int(3)), .offset = static_cast<uint64_t>(get.Int(4))}};
      }
      get.Reset();
    }
    return absl::OkStatus();
  }));
  return rows;
}

absl::StatusOr<uint64_t> IngestCatalog::LargestPack() const {
  uint64_t largest = 0;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const int64_t pack,
                        sqlite::QueryInt(db,
                                         "select max(coalesce((select max(id) from pack), 0), (select value from key_floor "
                                         "where name = 'pack'))"));
    largest = static_cast<uint64_t>(pack);
    return absl::OkStatus();
  }));
  return largest;
}

}  // namespace litefleet::catalog
