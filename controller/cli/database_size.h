// How large a database is on its device; of plain files, which have no size there, what their newest snapshot holds.
//
// Thread safety: pure functions.
#ifndef LITEFLEET_CONTROLLER_CLI_DATABASE_SIZE_H_
#define LITEFLEET_CONTROLLER_CLI_DATABASE_SIZE_H_

#include <cstdint>

#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::cli {

// By its newest snapshot.
inline bool IsOfFiles(const v1::Database& database) { return database.newest_snapshot().content() == v1::SNAPSHOT_CONTENT_FILES; }

inline int64_t SizeOf(const v1::Database& database) {
  return IsOfFiles(database) ? database.newest_snapshot().content_bytes() : database.health().size_bytes();
}

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_DATABASE_SIZE_H_
