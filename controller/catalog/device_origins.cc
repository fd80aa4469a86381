#include "controller/catalog/device_origins.h"

#include <optional>

#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

struct Origin {
  std::string boot, platform;
};

std::string Words(const Origin& origin) {
  return fmt::format("{} (boot {})", origin.platform.empty() ? "a machine" : origin.platform, origin.boot.substr(0, 8));
}

// The newest one, or the newest one of this boot.
absl::StatusOr<std::optional<Origin>> Find(sqlite3* db, std::string_view device, std::string_view boot) {
  LF_ASSIGN_OR_RETURN(Statement get,
                      Statement::Prepare(db,
                                         "select boot, platform from device_origin where device_id = ?1 and (?2 = '' or boot = ?2) "
                                         "order by number desc limit 1"));
  LF_ASSIGN_OR_RETURN(const bool row, get.Bind(1, device).Bind(2, boot).Step());
  if (!row) return std::optional<Origin>();
  return Origin{std::string(get.Text(0)), std::string(get.Text(1))};
}

}  // namespace

// Numbers grow with each change of the boot: the highest one is where the device called from last.
const std::string_view kOriginSchema = R"sql(
create table device_origin (
  number integer primary key autoincrement,
  device_id text not null references device(id) on delete cascade,
  boot text not null,
  platform text not null
) strict;
create index device_origin_by_device on device_origin(device_id, number);
create table device_clone (
  device_id text primary key references device(id) on delete cascade,
  noticed_ms integer not null,
  facts text not null
) strict, without rowid;
)sql";

absl::Status NoteOrigin(sqlite3* db, std::string_view device, SystemTime now, const v1::Hello& hello) {
  const Origin here{hello.boot_id(), hello.platform()};
  if (here.boot.empty()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const std::optional<Origin> last, Find(db, device, ""));
  if (last.has_value() && last->boot == here.boot) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const std::optional<Origin> before, Find(db, device, here.boot));
  if (before.has_value()) {
    LF_ASSIGN_OR_RETURN(Statement set, Statement::Prepare(db, "insert or replace into device_clone values (?,?,?)"));
    LF_RETURN_IF_ERROR(set.Bind(1, device).Bind(2, ToUnixMillis(now)).Bind(3, fmt::format("{} and {}", Words(here), Words(*last))).Run());
  }
  LF_ASSIGN_OR_RETURN(Statement insert, Statement::Prepare(db, "insert into device_origin (device_id, boot, platform) values (?,?,?)"));
  LF_RETURN_IF_ERROR(insert.Bind(1, device).Bind(2, here.boot).Bind(3, here.platform).Run());
  LF_ASSIGN_OR_RETURN(Statement trim, Statement::Prepare(db,
                                                         "delete from device_origin where device_id = ?1 and number not in (select number "
                                                         "from device_origin where device_id = ?1 order by number desc limit ?2)"));
  return trim.Bind(1, device).Bind(2, int64_t{kOriginsKept}).Run();
}

absl::Status ForgetOrigins(sqlite3* db, std::string_view device) {
  for (const std::string_view sql : {"delete from device_origin where device_id = ?", "delete from device_clone where device_id = ?"}) {
    LF_ASSIGN_OR_RETURN(Statement remove, Statement::Prepare(db, sql));
    LF_RETURN_IF_ERROR(remove.Bind(1, device).Run());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ClonedDevice>> ListClones(const CatalogDb& db, SystemTime since, int most) {
  std::vector<ClonedDevice> clones;
  LF_RETURN_IF_ERROR(db.Read([&](sqlite3* read) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(read,
                                                          "select name, noticed_ms, facts from device_clone join device on id = device_id "
                                                          "where state = ? and noticed_ms >= ? order by name limit ?"));
    get.Bind(1, int64_t{v1::DEVICE_STATE_ACTIVE}).Bind(2, ToUnixMillis(since)).Bind(3, int64_t{most});
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      clones.push_back({std::string(get.Text(0)), FromUnixMillis(get.Int(1)), std::string(get.Text(2))});
    }
  }));
  return clones;
}

}  // namespace litefleet::catalog
