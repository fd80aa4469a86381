#include "controller/catalog/gap_catalog.h"

#include <algorithm>
#include <charconv>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

constexpr int kDefaultPage = 100, kMaxPage = 1000;
constexpr std::string_view kColumns = "g.id, g.database, g.from_ms, g.until_ms, g.reason, g.message, g.snapshots";

v1::CoverageGap ToGap(const Statement& row) {
  v1::CoverageGap gap;
  gap.set_id(std::string(row.Text(0)));
  gap.set_database(std::string(row.Text(1)));
  *gap.mutable_from() = MillisTimestamp(row.Int(2));
  if (row.Int(3) != 0) *gap.mutable_until() = MillisTimestamp(row.Int(3));
  gap.set_reason(std::string(row.Text(4)));
  gap.set_message(std::string(row.Text(5)));
  gap.set_snapshots(static_cast<uint32_t>(row.Int(6)));
  return gap;
}

}  // namespace

// kind 6 of record_due, see record_catalog.cc. What is trimmed needs no record: a rebuild trims again, and a rewritten pack drops it.
const std::string_view kGapSchema = R"sql(
create table gap (
  id text primary key,
  device text not null,
  database text not null,
  from_ms integer not null,
  until_ms integer not null,                  -- 0: it has not ended
  reason text not null,
  message text not null,
  snapshots integer not null,
  reported_ms integer not null,
  revision integer not null default 0         -- of the record that says this; 0: there was none yet
) strict, without rowid;
create index gap_database on gap (device, database, from_ms, id);
create index gap_open on gap (from_ms, id) where until_ms = 0;

create trigger gap_made after insert on gap when new.revision = 0 begin
  insert into record_due (kind, subject) values (6, new.id);
  update gap set revision = (select revision from record_due where kind = 6 and subject = new.id) where id = new.id; end;
create trigger gap_changed after update of from_ms, until_ms, reason, message, snapshots on gap begin
  delete from record_due where kind = 6 and subject = new.id; insert into record_due (kind, subject) values (6, new.id);
  update gap set revision = (select revision from record_due where kind = 6 and subject = new.id) where id = new.id; end;
create trigger gap_gone after delete on gap begin
  delete from record_due where kind = 6 and subject = old.id; end;
create trigger gap_device_gone after delete on device begin
  delete from gap where device = old.id; end;
)sql";

absl::Status GapCatalog::Report(const DeviceId& device, const v1::CoverageGap& gap, SystemTime now) {
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement known, Statement::Prepare(db, "select 1 from database where device = ? and name = ? and forgotten = 0"));
    LF_ASSIGN_OR_RETURN(const bool found, known.Bind(1, device.value()).Bind(2, gap.database()).Step());
    if (!found) {
      return Error(absl::StatusCode::kNotFound, "DATABASE_NOT_FOUND",
                   fmt::format("device {} has not reported any database '{}'", device.value(), gap.database()));
    }
    LF_ASSIGN_OR_RETURN(Statement put,
                        Statement::Prepare(db,
                                           "insert into gap (id, device, database, from_ms, until_ms, reason, message, snapshots, "
                                           "reported_ms) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) on conflict (id) do update set "
                                           "from_ms = ?4, until_ms = ?5, reason = ?6, message = ?7, snapshots = ?8, reported_ms = ?9 "
                                           "where device = ?2 and database = ?3 and (from_ms, until_ms, reason, message, snapshots) <> "
                                           "(?4, ?5, ?6, ?7, ?8)"));
    put.Bind(1, gap.id()).Bind(2, device.value()).Bind(3, gap.database()).Bind(4, TimestampMillis(gap.from()));
    put.Bind(5, gap.has_until() ? TimestampMillis(gap.until()) : int64_t{0}).Bind(6, gap.reason()).Bind(7, gap.message());
    LF_RETURN_IF_ERROR(put.Bind(8, int64_t{gap.snapshots()}).Bind(9, ToUnixMillis(now)).Run());
    if (sqlite3_changes(db) == 0) {
      LF_ASSIGN_OR_RETURN(Statement owner, Statement::Prepare(db, "select device = ? and database = ? from gap where id = ?"));
      LF_ASSIGN_OR_RETURN(const bool there, owner.Bind(1, device.value()).Bind(2, gap.database()).Bind(3, gap.id()).Step());
      if (there && owner.Int(0) != 0) return absl::OkStatus();  // told again as it was
      return Error(absl::StatusCode::kFailedPrecondition, "NOT_YOUR_GAP",
                   fmt::format("{} is no gap of {} of this device", gap.id(), gap.database()));
    }
    LF_ASSIGN_OR_RETURN(Statement trim, Statement::Prepare(db,
                                                           "delete from gap where device = ?1 and database = ?2 and id in (select id from "
                                                           "gap where device = ?1 and database = ?2 order by from_ms desc, id desc "
                                                           "limit -1 offset ?3)"));
    return trim.Bind(1, device.value()).Bind(2, gap.database()).Bind(3, int64_t{kMaxPerDatabase}).Run();
  }));
  return records_ == nullptr ? absl::OkStatus() : records_->WriteDue();
}

absl::StatusOr<Page<v1::Gap>> GapCatalog::List(const DeviceId& device, const std::string& database, bool open_only, int page_size,
                                               const std::string& page_token) const {
  int64_t before = INT64_MAX;
  std::string before_id;
  if (!page_token.empty()) {
    const size_t slash = page_token.find('/');
    const char* const end = page_token.data() + std::min(slash, page_token.size());
    const auto [stopped, error] = std::from_chars(page_token.data(), end, before);
    if (error != std::errc() || stopped != end || slash == std::string::npos) {
      return Error(absl::StatusCode::kInvalidArgument, "PAGE_TOKEN_INVALID", "the page token is not one that was given",
                   "begin with the first page");
    }
    before_id = page_token.substr(slash + 1);
  }
  const int limit = page_size <= 0 ? kDefaultPage : std::min(page_size, kMaxPage);
  Page<v1::Gap> page;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    std::string where = "(g.from_ms, g.id) < (?1, ?2)";
    if (page_token.empty()) where = "?1 >= 0 and ?2 = ''";
    if (!device.value().empty()) where += " and g.device = ?3";
    if (!database.empty()) where += " and g.database = ?4";
    if (open_only) where += " and g.until_ms = 0";
    LF_ASSIGN_OR_RETURN(
        Statement get,
        Statement::Prepare(db, fmt::format("select {}, g.device, coalesce((select name from device where id = g.device), g.device) from "
                                           "gap g where {} order by g.from_ms desc, g.id desc limit ?5",
                                           kColumns, where)));
    get.Bind(1, before).Bind(2, before_id).Bind(5, int64_t{limit} + 1);
    if (!device.value().empty()) get.Bind(3, device.value());
    if (!database.empty()) get.Bind(4, database);
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      if (static_cast<int>(page.items.size()) == limit) {
        const v1::CoverageGap& last = page.items.back().gap();
        page.next_token = fmt::format("{}/{}", TimestampMillis(last.from()), last.id());
        return absl::OkStatus();
      }
      v1::Gap& gap = page.items.emplace_back();
      *gap.mutable_gap() = ToGap(get);
      gap.set_device_id(std::string(get.Text(7)));
      gap.set_device_name(std::string(get.Text(8)));
    }
  }));
  return page;
}

absl::StatusOr<std::optional<v1::CoverageGap>> GapCatalog::At(const DeviceId& device, const std::string& database, SystemTime at) const {
  std::optional<v1::CoverageGap> gap;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, fmt::format("select {} from gap g where g.device = ?1 and g.database = ?2 "
                                                                          "and g.from_ms < ?3 and (g.until_ms = 0 or g.until_ms > ?3) "
                                                                          "order by g.from_ms desc limit 1",
                                                                          kColumns)));
    LF_ASSIGN_OR_RETURN(const bool inside, get.Bind(1, device.value()).Bind(2, database).Bind(3, ToUnixMillis(at)).Step());
    if (inside) gap = ToGap(get);
    return absl::OkStatus();
  }));
  return gap;
}

absl::StatusOr<std::optional<storage::v1::GapRecord>> GapRecordOf(sqlite3* db, const std::string& id, uint64_t revision, int64_t now_ms) {
  LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, fmt::format("select {}, g.device from gap g where g.id = ?", kColumns)));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, id).Step());
  if (!found) return std::nullopt;
  storage::v1::GapRecord record;
  record.set_gap_id(id);
  record.set_database(std::string(get.Text(1)));
  record.set_from_ms(get.Int(2));
  record.set_until_ms(get.Int(3));
  record.set_reason(std::string(get.Text(4)));
  record.set_message(std::string(get.Text(5)));
  record.set_snapshots(static_cast<uint32_t>(get.Int(6)));
  record.set_device_id(std::string(get.Text(7)));
  record.set_written_at_ms(now_ms);
  record.set_revision(revision);
  return record;
}

}  // namespace litefleet::catalog
