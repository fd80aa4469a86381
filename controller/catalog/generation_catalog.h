// How far the catalog has counted: the number that tells an older copy of it from the one that wrote the newest packs.
//
// The count goes up durably in the catalog first, then it is written into the packs (controller/rebuild/catalog_generation): so what stands
// in the packs is never above what the catalog that wrote it knows. Thread safety: any thread.
#ifndef LITEFLEET_CONTROLLER_CATALOG_GENERATION_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_GENERATION_CATALOG_H_

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "controller/catalog/catalog_db.h"

namespace litefleet::catalog {

extern const std::string_view kGenerationSchema;

class GenerationCatalog {
 public:
  explicit GenerationCatalog(CatalogDb& db) : db_(db) {}

  // What this catalog has given so far. Records and marks in packs have revisions up to these; 0: none was.
  struct Counts {
    uint64_t generation = 0;
    uint64_t record_revision = 0;
    uint64_t mark_revision = 0;
    uint64_t largest_pack = 0;  // that anything referred to
  };
  absl::StatusOr<Counts> Get() const;
  // One more, durable when it returns.
  absl::StatusOr<uint64_t> Next();

 private:
  CatalogDb& db_;
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_GENERATION_CATALOG_H_
