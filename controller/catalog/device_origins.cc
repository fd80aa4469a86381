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
  std::string boot, instance, platform;
};

std::string Words(const Origin& origin) {
  return fmt::format("{} (boot {}{}{})", origin.platform.empty() ? "a machine" : origin.platform, origin.boot.substr(0, 8),
                     origin.instance.empty() ? "" : ", agent ", origin.instance.substr(0, 8));
}

// Agents that do not know their instance are told apart by the boot alone.
bool Same(const Origin& a, const Origin& b) {
  return a.boot == b.boot && (a.instance.empty() || b.instance.empty() || a.instance == b.instance);
}

absl::StatusOr<std::optional<Origin>> Newest(sqlite3* db, std::string_view device) {
  LF_ASSIGN_OR_RETURN(
      Statement get,
      Statement::Prepare(db, "select boot, instance, platform from device_origin where device_id = ? order by number desc limit 1"));
  LF_ASSIGN_OR_RETURN(const bool row, get.Bind(1, device).Step());
  if (!row) return std::optional<Origin>();
  return Origin{std::string(get.Text(0)), std::string(get.Text(1)), std::string(get.Text(2))};
}

absl::StatusOr<bool> Known(sqlite3* db, std::string_view device, const Origin& origin) {
  LF_ASSIGN_OR_RETURN(Statement get,
                      Statement::Prepare(db, "select 1 from device_origin where device_id = ? and boot = ? and instance = ?"));
  return get.Bind(1, device).Bind(2, origin.boot).Bind(3, origin.instance).Step();
}

}  // namespace

// Numbers grow with each change: the highest one is where the device called from last.
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

const std::string_view kOriginInstanceSchema = R"sql(
alter table device_origin add column instance text not null default '';
)sql";

absl::Status NoteOrigin(sqlite3* db, std::string_view device, SystemTime now, const v1::Hello& hello) {
  const Origin here{hello.boot_id(), hello.instance_id(), hello.platform()};
  if (here.boot.empty()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const std::optional<Origin> last, Newest(db, device));
  if (last.has_value() && Same(*last, here)) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const bool came_back, Known(db, device, here));
  if (came_back) {
    LF_ASSIGN_OR_RETURN(Statement set, Statement::Prepare(db, "insert or replace into device_clone values (?,?,?)"));
    LF_RETURN_IF_ERROR(set.Bind(1, device).Bind(2, ToUnixMillis(now)).Bind(3, fmt::format("{} and {}", Words(here), Words(*last))).Run());
  }
  LF_ASSIGN_OR_RETURN(Statement insert,
                      Statement::Prepare(db, "insert into device_origin (device_id, boot, instance, platform) values (?,?,?,?)"));
  LF_RETURN_IF_ERROR(insert.Bind(1, device).Bind(2, here.boot).Bind(3, here.instance).Bind(4, here.platform).Run());
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
