#include "controller/catalog/identity_catalog.h"

namespace litefleet::catalog {

// Times are Unix milliseconds. free_bytes is -1 until the device has said how much it has. A certificate's number grows in the order in
// which certificates were issued.
const std::string_view kIdentitySchema1 = R"sql(
create table device (
  id text primary key,
  name text not null unique,
  state integer not null,
  key_hash blob not null,
  enrolled_ms integer not null,
  last_seen_ms integer,
  seen_before_ms integer,
  version text not null default '',
  sqlite_version text not null default '',
  platform text not null default '',
  clock_offset_ms integer not null default 0,
  uptime_ms integer not null default 0,
  free_bytes integer not null default 0
) strict, without rowid;
create table device_label (
  device_id text not null references device(id) on delete cascade,
  key text not null,
  value text not null,
  primary key (device_id, key)
) strict, without rowid;
create table token (
  id text primary key,
  secret_hash blob not null unique,
  created_ms integer not null,
  expires_ms integer not null,
  uses_total integer not null,
  uses_left integer not null check (uses_left >= 0),
  revoked integer not null default 0,
  for_device text not null default ''
) strict, without rowid;
create table token_label (
  token_id text not null references token(id) on delete cascade,
  key text not null,
  value text not null,
  primary key (token_id, key)
) strict, without rowid;
create table token_use (
  token_id text not null references token(id) on delete cascade,
  key_hash blob not null,
  device_id text not null,
  used_ms integer not null,
  primary key (token_id, key_hash)
) strict, without rowid;
create table certificate (
  number integer primary key autoincrement,
  serial text not null unique,
  device_id text,
  operator_name text,
  role text not null,
  key_hash blob not null,
  issued_ms integer not null,
  not_after_ms integer not null,
  revoked_ms integer,
  used_ms integer,
  check ((device_id is null) <> (operator_name is null))
) strict;
create index certificate_by_device on certificate(device_id) where device_id is not null;
create index certificate_by_operator on certificate(operator_name) where operator_name is not null;
)sql";

// What a device said last of its policy: the version that it has, and what of it it does not follow, a sentence a line.
const std::string_view kDevicePolicySchema = R"sql(
alter table device add column policy_version integer not null default 0;
alter table device add column policy_problems text not null default '';
)sql";

}  // namespace litefleet::catalog
