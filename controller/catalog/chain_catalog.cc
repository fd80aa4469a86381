#include "controller/catalog/chain_catalog.h"

#include <algorithm>
#include <string>

#include "common/base/bytes.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"

namespace litefleet::catalog {

using sqlite::Statement;

absl::StatusOr<std::optional<bool>> ChainCatalog::Check(const DeviceId& device, const v1::ChainCheck& check, SystemTime now) {
  std::optional<bool> equal;
  int64_t from = 0;
  int64_t until = 0;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db,
                                           "select s.root = ?4 and s.page_size = ?5 and s.page_count = ?6, s.taken_at, d.id, "
                                           "coalesce(nullif(d.chain_ms, -1), (select min(taken_at) from snapshot o where o.database = d.id "
                                           "and o.provenance = '') - 1) from snapshot s join database d on d.id = s.database where s.id = "
                                           "?1 and d.device = ?2 and d.name = ?3 and s.provenance = ''"));
    get.Bind(1, check.snapshot_id()).Bind(2, device.value()).Bind(3, check.database()).BindBlob(4, AsBytes(check.root_digest()));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(5, int64_t{check.page_size()}).Bind(6, int64_t{check.page_count()}).Step());
    if (!found) return absl::OkStatus();
    equal = get.Int(0) != 0;
    until = get.Int(1);
    from = std::min(get.Int(3), until - 1);
    if (!*equal) return absl::OkStatus();
    LF_ASSIGN_OR_RETURN(Statement put, Statement::Prepare(db, "update database set chain_ms = max(chain_ms, ?) where id = ?"));
    return put.Bind(1, until).Bind(2, get.Int(2)).Run();
  }));
  if (!equal.has_value() || *equal) return equal;
  bool known = false;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db, "select 1 from gap where device = ? and database = ? and reason = ? and until_ms = ?"));
    get.Bind(1, device.value()).Bind(2, check.database()).Bind(3, kChainDiffers);
    LF_ASSIGN_OR_RETURN(known, get.Bind(4, until).Step());
    return absl::OkStatus();
  }));
  if (known) return equal;
  v1::CoverageGap gap;
  gap.set_id(NewUlid(now));
  gap.set_database(check.database());
  *gap.mutable_from() = MillisTimestamp(std::max<int64_t>(from, 0));
  *gap.mutable_until() = MillisTimestamp(std::max<int64_t>(until, 1));
  gap.set_reason(std::string(kChainDiffers));
  gap.set_message(fmt::format("the device read its database, and it is not what snapshot {} says", check.snapshot_id()));
  LF_RETURN_IF_ERROR(gaps_.Report(device, gap, now));
  return equal;
}

absl::StatusOr<std::vector<v1::Gap>> ChainCatalog::InQuestion(SystemTime since, int limit) const {
  std::vector<v1::Gap> found;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db,
                                           "select id, database, from_ms, until_ms, message, device, coalesce((select name from device "
                                           "where id = g.device), g.device) from (select *, row_number() over (partition by device, "
                                           "database order by reported_ms desc, id desc) as place from gap where reason = 'CHAIN_DIFFERS' "
                                           "and reported_ms > ?) g where place = 1 order by reported_ms desc, id desc limit ?"));
    get.Bind(1, ToUnixMillis(since)).Bind(2, int64_t{limit});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      v1::Gap& gap = found.emplace_back();
      gap.mutable_gap()->set_id(std::string(get.Text(0)));
      gap.mutable_gap()->set_database(std::string(get.Text(1)));
      *gap.mutable_gap()->mutable_from() = MillisTimestamp(get.Int(2));
      *gap.mutable_gap()->mutable_until() = MillisTimestamp(get.Int(3));
      gap.mutable_gap()->set_reason(std::string(kChainDiffers));
      gap.mutable_gap()->set_message(std::string(get.Text(4)));
      gap.set_device_id(std::string(get.Text(5)));
      gap.set_device_name(std::string(get.Text(6)));
    }
  }));
  return found;
}

}  // namespace litefleet::catalog
