#include "controller/catalog/generation_catalog.h"

#include "common/base/status.h"
#include "common/sqlite/handle.h"

namespace litefleet::catalog {

const std::string_view kGenerationSchema = R"sql(
insert into key_floor values ('generation', 0);
)sql";

absl::StatusOr<GenerationCatalog::Counts> GenerationCatalog::Get() const {
  Counts counts;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        sqlite::Statement get,
        sqlite::Statement::Prepare(db,
                                   "select (select value from key_floor where name = 'generation'), "
                                   "coalesce((select seq from sqlite_sequence where name = 'record_due'), 0), "
                                   "coalesce((select seq from sqlite_sequence where name = 'mark_due'), 0), "
                                   "max(coalesce((select max(id) from pack), 0), (select value from key_floor where name = 'pack'))"));
    LF_RETURN_IF_ERROR(get.Step().status());
    counts = {.generation = static_cast<uint64_t>(get.Int(0)),
              .record_revision = static_cast<uint64_t>(get.Int(1)),
              .mark_revision = static_cast<uint64_t>(get.Int(2)),
              .largest_pack = static_cast<uint64_t>(get.Int(3))};
    return absl::OkStatus();
  }));
  return counts;
}

absl::StatusOr<uint64_t> GenerationCatalog::Next() {
  uint64_t generation = 0;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const int64_t next,
                        sqlite::QueryInt(db, "update key_floor set value = value + 1 where name = 'generation' returning value"));
    generation = static_cast<uint64_t>(next);
    return absl::OkStatus();
  }));
  return generation;
}

}  // namespace litefleet::catalog
