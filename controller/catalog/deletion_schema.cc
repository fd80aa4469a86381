// Tables of deletion. Times are the controller's own (retention/controller_time), Unix milliseconds, -1 where unset.
//
// Keys of snapshots and chunks are never given twice, so that nothing that outlives a removed row (a right, a page token, a reader) can
// come to mean another one: whoever inserts takes the successor of the largest there is and of key_floor (NextSnapshotKey, NextChunkId).
#include "controller/catalog/deletion_catalog.h"

namespace litefleet::catalog {

const std::string_view kDeletionSchema = R"sql(
alter table snapshot add column trashed_at integer not null default -1;
alter table snapshot add column trashed_by text not null default '';
alter table snapshot add column trashed_from integer not null default 0;  -- its state before
alter table snapshot add column pinned integer not null default 0;        -- by an operator
alter table snapshot add column mark integer not null default 0;          -- revision of its newest mark; 0: it never had one
alter table database add column forgotten integer not null default 0;    -- its device was; the row goes with its last snapshot
create index snapshot_trash on snapshot (trashed_at, key) where state = 3;
create index manifest_part_place on manifest_part (pack, offset);

create index upload_session_pinned on upload_session (pinned) where state = 1;
create index upload_session_database on upload_session (database);

create table key_floor (                      -- keys up to this one were given
  name text primary key,
  value integer not null
) strict, without rowid;
insert into key_floor values ('snapshot', 0), ('chunk', 0), ('pack', 0);
create trigger pack_gone after delete on pack begin
  update key_floor set value = old.id where name = 'pack' and value < old.id; end;
create trigger snapshot_gone after delete on snapshot begin
  update key_floor set value = old.key where name = 'snapshot' and value < old.key; end;
create trigger chunk_gone after delete on chunk begin
  update key_floor set value = old.id where name = 'chunk' and value < old.id; end;

create table chunk_trash (                    -- of the chunks whose state is 2
  chunk integer primary key,
  trashed_at integer not null,
  run integer not null
) strict;

alter table pack add column record_bytes integer not null default 0;  -- of records but chunks that count, as the newest mark found

create table mark_due (                       -- snapshots whose mark is not in the packs yet
  revision integer primary key autoincrement,
  snapshot text not null unique
) strict;
create trigger snapshot_marked after update of state, pinned on snapshot
when (old.state = 3) <> (new.state = 3) or old.pinned <> new.pinned begin
  delete from mark_due where snapshot = new.id;
  insert into mark_due (snapshot) values (new.id);
  update snapshot set mark = (select revision from mark_due where snapshot = new.id) where key = new.key;
end;

create table prune_state (
  id integer primary key check (id = 1),
  run integer not null,                       -- of the newest mark
  marking integer not null,                   -- claims of committed sessions stay
  ended_at integer not null,
  report blob not null                        -- litefleet.v1.PruneReport of the newest run that ended
) strict;
insert into prune_state values (1, 0, 0, -1, x'');

create table pack_removal (                   -- nothing in these packs is referred to; their files are to go
  pack integer primary key
) strict;

create table gone_snapshot (                  -- removed; their marks are kept as long as a record of their commit may exist
  id text primary key,
  mark integer not null,
  last_pack integer not null
) strict, without rowid;

create table policy (
  name text primary key,
  version integer not null,                   -- grows with every change of any policy
  applied_at integer not null,
  text text not null                          -- TOML, as it was applied
) strict, without rowid;

create table retention_hold (
  device text not null,
  database text not null,
  since integer not null,
  reason text not null,
  message text not null,
  released_sequence integer not null default -1,  -- an operator let it go: snapshots up to this one are no reason again
  active integer not null,
  primary key (device, database)
) strict, without rowid;

create table controller_time (
  id integer primary key check (id = 1),
  time_ms integer not null,                   -- never goes back
  boot_id text not null,
  since_boot_ms integer not null,
  hold text not null                          -- why deletions wait; empty: they do not
) strict;

alter table operation add column snapshot text not null default '';
create index operation_snapshot on operation (snapshot) where active = 1 and snapshot <> '';
)sql";

// A pin that ends by itself is not cleared then: who looks compares it with the controller's time. 0: it ends when it is unpinned.
const std::string_view kPinLimitSchema = R"sql(
alter table snapshot add column pinned_until integer not null default 0;
drop trigger snapshot_marked;
create trigger snapshot_marked after update of state, pinned, pinned_until on snapshot
when (old.state = 3) <> (new.state = 3) or old.pinned <> new.pinned or old.pinned_until <> new.pinned_until begin
  delete from mark_due where snapshot = new.id;
  insert into mark_due (snapshot) values (new.id);
  update snapshot set mark = (select revision from mark_due where snapshot = new.id) where key = new.key;
end;
)sql";

}  // namespace litefleet::catalog
