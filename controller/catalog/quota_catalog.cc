#include "controller/catalog/quota_catalog.h"

#include <algorithm>

#include "common/base/status.h"
#include "common/sqlite/handle.h"

namespace litefleet::catalog {

using sqlite::Statement;

// A chunk goes before the rights to it do; its size is remembered until then.
const std::string_view kQuotaSchema = R"sql(
alter table owner add column held_bytes integer not null default 0;
update owner set held_bytes = (select coalesce(sum(c.stored_bytes), 0) from device_chunk d join chunk c on c.id = d.chunk where
  d.owner = owner.id);

create table swept_chunk (
  chunk integer primary key,
  stored_bytes integer not null
) strict;
create trigger chunk_swept after delete on chunk begin
  insert into swept_chunk values (old.id, old.stored_bytes); end;
create trigger right_made after insert on device_chunk begin
  update owner set held_bytes = held_bytes + coalesce((select stored_bytes from chunk where id = new.chunk), 0) where id = new.owner; end;
create trigger right_gone after delete on device_chunk begin
  update owner set held_bytes = held_bytes - coalesce((select stored_bytes from chunk where id = old.chunk),
    (select stored_bytes from swept_chunk where chunk = old.chunk), 0) where id = old.owner; end;
)sql";

absl::StatusOr<DeviceHoldings> QuotaCatalog::Get(const DeviceId& device) const {
  DeviceHoldings holdings;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db,
                                                          "select coalesce((select held_bytes from owner where device = ?1), 0), "
                                                          "(select coalesce(sum(snapshots), 0) from database where device = ?1), "
                                                          "(select coalesce(max(version), 0) from policy), (select count(*) from policy)"));
    LF_RETURN_IF_ERROR(get.Bind(1, device.value()).Step().status());
    // What a chunk weighs may change when it is brought again; that is not followed.
    holdings.bytes = std::max<int64_t>(0, get.Int(0));
    holdings.snapshots = get.Int(1);
    holdings.policies = {get.Int(2), get.Int(3)};
    LF_ASSIGN_OR_RETURN(Statement labels, Statement::Prepare(db, "select key, value from device_label where device_id = ?"));
    labels.Bind(1, device.value());
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, labels.Step());
      if (!row) return absl::OkStatus();
      holdings.labels.emplace(labels.Text(0), labels.Text(1));
    }
  }));
  return holdings;
}

absl::StatusOr<std::map<std::string, int64_t>> QuotaCatalog::HeldBytes() const {
  std::map<std::string, int64_t> held;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement list, Statement::Prepare(db, "select device, held_bytes from owner where held_bytes > 0"));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, list.Step());
      if (!row) return absl::OkStatus();
      held.emplace(list.Text(0), list.Int(1));
    }
  }));
  return held;
}

}  // namespace litefleet::catalog
