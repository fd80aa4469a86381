#include "controller/catalog/schema.h"

#include "controller/catalog/deletion_catalog.h"
#include "controller/catalog/device_origins.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/operation_catalog.h"
#include "controller/catalog/record_catalog.h"
#include "controller/catalog/scrub_catalog.h"
#include "controller/catalog/snapshot_catalog.h"
#include "controller/catalog/timelines.h"

namespace litefleet::catalog {

const std::vector<Migration>& Migrations() {
  static const std::vector<Migration> kMigrations = {
      Migration{kIdentitySchema1, kSnapshotSchema1, kOperationSchema1},
      Migration{kSnapshotSchema2},
      Migration{kDeletionSchema},
      Migration{kTimelineSchema},
      Migration{kSnapshotSchema3},
      Migration{kRecordSchema},
      Migration{kScrubSchema},
      Migration{kOriginSchema},
      Migration{kSnapshotSchema4},
      Migration{kPolicyRecordSchema},
      Migration{kHealSchema, kDrillSchema},
  };
  return kMigrations;
}

}  // namespace litefleet::catalog
