// All migrations of the catalog, put together from the slices' texts.
#ifndef LITEFLEET_CONTROLLER_CATALOG_SCHEMA_H_
#define LITEFLEET_CONTROLLER_CATALOG_SCHEMA_H_

#include <vector>

#include "controller/catalog/catalog_db.h"

namespace litefleet::catalog {

const std::vector<Migration>& Migrations();

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_SCHEMA_H_
