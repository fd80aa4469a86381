// Tables of the data path. Times are Unix milliseconds, -1 where unset; digests are blobs of 32 bytes.
//
// What keeps a chunk alive is (1) the manifests of snapshots, which are records in packs found by manifest_part, (2) the claims of
// upload sessions whose state is open, and (3) the manifest of the snapshot that such a session pins. device_chunk is only the right to
// refer to a chunk (design law 7): a row counts unless its session is being removed, or is open and for another database. No statement of
// ingest reads more than the rows it names.
#include "controller/catalog/snapshot_catalog.h"

namespace litefleet::catalog {

const std::string_view kSnapshotSchema1 = R"sql(
create table database (
  id integer primary key,
  device text not null,
  name text not null,
  timeline integer not null default 1,        -- highest that is known or reserved
  sequence integer not null default 0,        -- of the newest snapshot
  snapshots integer not null default 0,
  newest integer,                             -- snapshot.key
  proven integer,                             -- snapshot.key of the newest whose check ended well
  reported_at integer not null default -1,
  health blob,                                -- litefleet.v1.DatabaseHealth
  unique (device, name)
) strict;

create table timeline (                       -- reserved by restores
  database integer not null references database (id),
  timeline integer not null,
  operation text not null,
  primary key (database, timeline),
  unique (database, operation)
) strict, without rowid;

create table snapshot (
  key integer primary key,                    -- ascending in the order of commits
  id text not null unique,
  device text not null,
  database integer not null references database (id),
  timeline integer not null,
  sequence integer not null,
  method integer not null,
  state integer not null,
  page_size integer not null,
  page_count integer not null,
  root blob not null,
  root_version integer not null,
  manifest_kind integer not null,             -- 1 base, 2 delta on parent
  manifest_parts integer not null,
  parent text not null default '',
  taken_at integer not null,
  received_at integer not null,
  effective_at integer not null,
  journal_mode integer not null,
  source_check integer not null,
  source_check_message text not null,
  check_state integer not null,
  check_message text not null default '',
  checked_at integer not null default -1,
  drilled_at integer not null default -1,
  pages_sent integer not null,
  wire_bytes integer not null,
  stored_bytes integer not null,
  duration_ms integer not null,
  pinned_ms integer not null,
  read_bytes integer not null,
  operation text not null,
  session text not null,
  pack integer not null,                      -- where its record is
  offset integer not null,
  unique (database, sequence)
) strict;
create index snapshot_device on snapshot (device, key);
create index snapshot_taken on snapshot (database, timeline, taken_at);

create table manifest_part (
  snapshot integer not null references snapshot (key),
  part integer not null,
  first_page integer not null,                -- lowest page that it names
  pack integer not null,
  offset integer not null,
  primary key (snapshot, part)
) strict, without rowid;

create table pack (
  id integer primary key,
  chunks integer not null,                    -- rows of chunk that are there
  stored_bytes integer not null               -- their payload
) strict;

create table chunk (
  id integer primary key,
  name blob not null unique,
  page_size integer not null,
  page_count integer not null,
  codec integer not null,
  stored_bytes integer not null,
  pack integer not null,
  offset integer not null,
  state integer not null                      -- 1 good; everything else counts as absent
) strict;

create table owner (
  id integer primary key,
  device text not null unique
) strict;

create table device_chunk (
  owner integer not null,
  chunk integer not null,
  session integer not null,                   -- the upload session that brought it; the row may be gone
  primary key (owner, chunk)
) strict, without rowid;

create table upload_session (
  id integer primary key autoincrement,
  session text not null unique,
  owner integer not null,
  database integer not null references database (id),
  state integer not null,                     -- 1 open, 2 committed, 3 being removed
  pinned text not null default '',            -- newest snapshot of the database at begin: while open, its chunks are claimed by this alone
  expires_at integer not null,
  chunks integer not null default 0,          -- uploaded and durable
  bytes integer not null default 0,
  stored_bytes integer not null default 0,    -- of these what the store grew by
  snapshot text not null default ''           -- once committed
) strict;
create index upload_session_expiry on upload_session (expires_at);

create table claim (
  session integer not null,
  chunk integer not null,
  primary key (session, chunk)
) strict, without rowid;
create index claim_chunk on claim (chunk);
)sql";

// When the restore that a timeline was reserved for ended well; -1: it has not, or that was before this column.
const std::string_view kSnapshotSchema2 = R"sql(
alter table timeline add column live_from integer not null default -1;
)sql";

// Manifests as stacks of layers (common/format/FORMAT.md). A layer has no row: each snapshot has the places of all parts of all its layers
// in manifest_part, the lowest layer's first and counted on, so that its rows say everything that it needs. A part's record may so stand in
// the rows of many snapshots, and goes when the last one goes.
const std::string_view kSnapshotSchema3 = R"sql(
-- "ID:PARTS:BYTES " for each layer, the lowest first; empty: the one layer that the snapshot wrote. BYTES is the payload of its parts.
alter table snapshot add column layers text not null default '';
alter table snapshot add column pages_changed integer not null default -1;
)sql";

// What was uploaded ahead of a snapshot, read while it changed, is a snapshot that never was outside the trash (kPrecopiedBy): it has a
// number, a manifest that a session may pin, and the grace period.
const std::string_view kSnapshotSchema4 = R"sql(
alter table upload_session add column precopied integer not null default 0;  -- what it was committed as
)sql";

// How long the restore of the newest drill took.
const std::string_view kDrillSchema = R"sql(
alter table snapshot add column restore_ms integer not null default -1;
)sql";

}  // namespace litefleet::catalog
