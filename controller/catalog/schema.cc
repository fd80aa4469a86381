#include "controller/catalog/schema.h"

#include "controller/catalog/deletion_catalog.h"
#include "controller/catalog/device_origins.h"
#include "controller/catalog/gap_catalog.h"
#include "controller/catalog/generation_catalog.h"
#include "controller/catalog/gone_numbers.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/operation_catalog.h"
#include "controller/catalog/quota_catalog.h"
#include "controller/catalog/record_catalog.h"
#include "controller/catalog/scrub_catalog.h"
#include "controller/catalog/snapshot_catalog.h"
#include "controller/catalog/timelines.h"

namespace litefleet::catalog {
namespace {

// What the pages of a snapshot are (common/format/FORMAT.md, "Content").
constexpr std::string_view kContentSchema = R"sql(
alter table snapshot add column content integer not null default 1;        -- litefleet.v1.SnapshotContent
alter table snapshot add column content_bytes integer not null default 0;  -- of text, where it is not a database
alter table snapshot add column provenance text not null default '';       -- of an import
)sql";

// Of continuous capture.
constexpr std::string_view kCaptureSchema = R"sql(
alter table snapshot add column commits integer not null default 0;  -- transactions of applications since the parent; 0: not known
-- When the newest state was taken that its device has found to be what the database was; -1: none.
alter table database add column chain_ms integer not null default -1;
create index gap_chain on gap (until_ms) where reason = 'CHAIN_DIFFERS';
)sql";

// Of a dump that leaves something out: what it holds; empty: all of the database.
constexpr std::string_view kPartSchema = R"sql(
alter table snapshot add column part text not null default '';
)sql";

// What a session was committed as is known as long as its snapshot is.
constexpr std::string_view kSessionSnapshotSchema = R"sql(
create index snapshot_session on snapshot (session) where session <> '';
)sql";

// Of a dump: it is as the sqlite3 CLI writes it, also where that loses something.
constexpr std::string_view kCompatibleSchema = R"sql(
alter table snapshot add column compatible integer not null default 0;
)sql";

// Whose upload it is: one that is cancelled leaves no claim.
constexpr std::string_view kSessionOperationSchema = R"sql(
alter table upload_session add column operation text not null default '';
create index upload_session_operation on upload_session (operation) where operation <> '';
)sql";

// Marks of snapshots that are gone named the pack of their record alone, where copies of it may stand in later ones.
constexpr std::string_view kRecordPlaceSchema = R"sql(
create index snapshot_record on snapshot (pack, offset);
update gone_snapshot set last_pack = max(last_pack, 1 + max(coalesce((select max(id) from pack), 0),
  (select value from key_floor where name = 'pack')));
)sql";

}  // namespace

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
      Migration{kOriginInstanceSchema},
      Migration{kDevicePolicySchema},
      Migration{kGenerationSchema, kQuotaSchema},
      Migration{kGapSchema},
      Migration{kContentSchema},
      Migration{kCaptureSchema},
      Migration{kSessionOperationSchema},
      Migration{kPartSchema},
      Migration{kRecordPlaceSchema},
      Migration{kNumberRecordSchema, kNumbersDue},
      Migration{kGoneNumberSchema},
      Migration{kCompatibleSchema},
      Migration{kSessionSnapshotSchema},
      Migration{kPinLimitSchema},
  };
  return kMigrations;
}

}  // namespace litefleet::catalog
