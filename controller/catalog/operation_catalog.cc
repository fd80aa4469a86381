#include "controller/catalog/operation_catalog.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "common/base/error_detail.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/catalog/timelines.h"
#include "fmt/format.h"

namespace litefleet::catalog {

// `sequence` orders operations as they were made, whatever the clock did. The protos hold everything; the other columns are what
// queries need, and Save keeps them in step.
const std::string_view kOperationSchema1 = R"sql(
create table operation (
  sequence integer primary key autoincrement,
  id text not null unique,
  device text not null,
  database text not null,
  kind integer not null,
  state integer not null,
  active integer not null,
  origin integer not null,
  created_ms integer not null,
  ended_ms integer,
  expires_ms integer,
  ordered_by text not null,
  request_id text not null,
  operation blob not null,
  device_order blob not null
) strict;
create index operation_active on operation (device, sequence) where active = 1;
create index operation_expiry on operation (expires_ms) where state = 1;
create index operation_device on operation (device, sequence);
create index operation_ended on operation (ended_ms) where active = 0;
create index operation_request on operation (ordered_by, request_id, sequence) where request_id <> '';
)sql";

namespace {

constexpr int kMaxCandidates = 5;  // named in the error about an ambiguous reference
constexpr std::string_view kRowColumns = "operation, device_order, origin, request_id";

absl::Status NotFound(std::string_view reference) {
  return Error(absl::StatusCode::kNotFound, "OPERATION_NOT_FOUND", fmt::format("there is no operation {}", reference),
               "list them with `litefleet operation list`");
}

absl::Status ParseInto(ByteView blob, google::protobuf::MessageLite& message) {
  if (message.ParseFromArray(blob.data(), static_cast<int>(blob.size()))) return absl::OkStatus();
  return Error(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED", "an operation in the catalog cannot be read");
}

absl::StatusOr<OperationRow> RowOf(const sqlite::Statement& at) {
  OperationRow row;
  LF_RETURN_IF_ERROR(ParseInto(at.Blob(0), row.operation));
  LF_RETURN_IF_ERROR(ParseInto(at.Blob(1), row.order));
  row.origin = static_cast<Origin>(at.Int(2));
  row.request_id = std::string(at.Text(3));
  return row;
}

absl::StatusOr<std::vector<OperationRow>> RowsOf(sqlite::Statement& select) {
  std::vector<OperationRow> rows;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool found, select.Step());
    if (!found) return rows;
    LF_ASSIGN_OR_RETURN(OperationRow row, RowOf(select));
    rows.push_back(std::move(row));
  }
}

// What is stored of an operation: who is asked fills in the rest.
std::string Stored(v1::Operation operation) {
  operation.clear_device_name();
  operation.clear_device_connected();
  return operation.SerializeAsString();
}

absl::Status Insert(sqlite3* db, const OperationRow& row) {
  LF_ASSIGN_OR_RETURN(
      sqlite::Statement insert,
      sqlite::Statement::Prepare(db,
                                 "insert into operation (id, device, database, kind, state, active, origin, created_ms, ended_ms, "
                                 "expires_ms, ordered_by, request_id, operation, device_order, snapshot) "
                                 "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
  const v1::Operation& operation = row.operation;
  insert.Bind(1, operation.id()).Bind(2, operation.device_id()).Bind(3, operation.database());
  insert.Bind(4, operation.kind()).Bind(5, operation.state()).Bind(6, IsActive(operation.state()) ? 1 : 0);
  insert.Bind(7, static_cast<int>(row.origin)).Bind(8, TimestampMillis(operation.created_at()));
  if (operation.has_ended_at()) {
    insert.Bind(9, TimestampMillis(operation.ended_at()));
  } else {
    insert.BindNull(9);
  }
  if (operation.has_expires_at()) {
    insert.Bind(10, TimestampMillis(operation.expires_at()));
  } else {
    insert.BindNull(10);
  }
  insert.Bind(11, operation.ordered_by()).Bind(12, row.request_id);
  insert.BindBlob(13, AsBytes(Stored(operation))).BindBlob(14, AsBytes(row.order.SerializeAsString()));
  // What the order needs until it has ended: nobody may delete it meanwhile.
  return insert.Bind(15, row.order.restore().snapshot_id()).Run();
}

absl::Status Save(sqlite3* db, const v1::Operation& operation) {
  LF_ASSIGN_OR_RETURN(
      sqlite::Statement update,
      sqlite::Statement::Prepare(db, "update operation set state = ?, active = ?, ended_ms = ?, operation = ? where id = ?"));
  update.Bind(1, operation.state()).Bind(2, IsActive(operation.state()) ? 1 : 0);
  if (operation.has_ended_at()) {
    update.Bind(3, TimestampMillis(operation.ended_at()));
  } else {
    update.BindNull(3);
  }
  update.BindBlob(4, AsBytes(Stored(operation))).Bind(5, operation.id());
  return update.Run();
}

// After a restore the timeline that was reserved for it is the live one.
absl::Status BeginTimelineOf(sqlite3* db, const OperationRow& restored) {
  if (!restored.order.has_restore() && !restored.order.has_undo()) return absl::OkStatus();
  // What an undo brings back is no snapshot, and neither is a database some of whose tables were restored.
  const bool undo = restored.order.has_undo();
  const uint64_t timeline = undo ? restored.order.undo().new_timeline() : restored.order.restore().new_timeline();
  return BeginTimeline(db, restored.operation.device_id(), restored.operation.database(), timeline,
                       FromUnixMillis(TimestampMillis(restored.operation.ended_at())),
                       restored.order.restore().tables().empty() ? restored.order.restore().snapshot_id() : "");
}

absl::StatusOr<OperationRow> Find(sqlite3* db, const OperationId& id) {
  LF_ASSIGN_OR_RETURN(sqlite::Statement select,
                      sqlite::Statement::Prepare(db, fmt::format("select {} from operation where id = ?", kRowColumns)));
  select.Bind(1, id.value());
  LF_ASSIGN_OR_RETURN(const bool found, select.Step());
  if (!found) return NotFound(id.value());
  return RowOf(select);
}

std::string Upper(std::string_view text) {
  std::string upper(text);
  for (char& c : upper) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return upper;
}

absl::StatusOr<v1::Operation> FindByPrefix(sqlite3* db, const std::string& reference) {
  const std::string prefix = Upper(reference);
  const bool plausible = !prefix.empty() && prefix.size() <= 26 &&
                         std::all_of(prefix.begin(), prefix.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z'); });
  if (!plausible) return NotFound(reference);
  LF_ASSIGN_OR_RETURN(
      sqlite::Statement select,
      sqlite::Statement::Prepare(db, "select id, operation from operation where id >= ? and id < ? order by id desc limit ?"));
  select.Bind(1, prefix).Bind(2, prefix + "~").Bind(3, kMaxCandidates + 1);
  std::vector<std::string> ids;
  v1::Operation operation;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool found, select.Step());
    if (!found) break;
    if (ids.empty()) LF_RETURN_IF_ERROR(ParseInto(select.Blob(1), operation));
    ids.emplace_back(select.Text(0));
  }
  if (ids.empty()) return NotFound(reference);
  if (ids.size() == 1) return operation;
  const bool more = ids.size() > kMaxCandidates;
  if (more) ids.pop_back();
  return Error(absl::StatusCode::kFailedPrecondition, "AMBIGUOUS",
               fmt::format("{} fits several operations: {}{}", reference, fmt::join(ids, ", "), more ? ", ..." : ""),
               "give more of the id");
}

absl::StatusOr<int64_t> ParsePageToken(const std::string& token) {
  if (token.empty()) return INT64_MAX;
  int64_t sequence = 0;
  const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), sequence);
  if (error != std::errc() || end != token.data() + token.size() || sequence < 1) {
    return Error(absl::StatusCode::kInvalidArgument, "PAGE_TOKEN_INVALID", "this page_token was not given by this list",
                 "begin again without page_token");
  }
  return sequence;
}

absl::StatusOr<std::vector<v1::Operation>> ExpireQueued(sqlite3* db, SystemTime now) {
  std::vector<v1::Operation> expired;
  {
    LF_ASSIGN_OR_RETURN(
        sqlite::Statement select,
        sqlite::Statement::Prepare(db, "select operation from operation where state = 1 and expires_ms <= ? order by sequence"));
    select.Bind(1, ToUnixMillis(now));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool found, select.Step());
      if (!found) break;
      v1::Operation operation;
      LF_RETURN_IF_ERROR(ParseInto(select.Blob(0), operation));
      expired.push_back(std::move(operation));
    }
  }
  for (v1::Operation& operation : expired) {
    operation.set_state(v1::OPERATION_STATE_EXPIRED);
    *operation.mutable_ended_at() = ToProtoTime(now);
    *operation.mutable_error() = ToErrorDetail(OrderExpired());
    LF_RETURN_IF_ERROR(Save(db, operation));
  }
  return expired;
}

absl::Status DeleteOld(sqlite3* db, SystemTime now) {
  LF_ASSIGN_OR_RETURN(sqlite::Statement aged, sqlite::Statement::Prepare(db, "delete from operation where active = 0 and ended_ms < ?"));
  aged.Bind(1, ToUnixMillis(now - OperationCatalog::kMaxAge));
  LF_RETURN_IF_ERROR(aged.Run());
  std::vector<std::string> devices;
  {
    LF_ASSIGN_OR_RETURN(
        sqlite::Statement many,
        sqlite::Statement::Prepare(db, "select device from operation where active = 0 group by device having count(*) > ?"));
    many.Bind(1, OperationCatalog::kMaxEndedPerDevice);
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool found, many.Step());
      if (!found) break;
      devices.emplace_back(many.Text(0));
    }
  }
  // From the newest one that is too many downwards.
  LF_ASSIGN_OR_RETURN(
      sqlite::Statement drop,
      sqlite::Statement::Prepare(db,
                                 "delete from operation where device = ?1 and active = 0 and sequence <= (select sequence from "
                                 "operation where device = ?1 and active = 0 order by sequence desc limit 1 offset ?2)"));
  for (const std::string& device : devices) {
    drop.Bind(1, device).Bind(2, OperationCatalog::kMaxEndedPerDevice);
    LF_RETURN_IF_ERROR(drop.Run());
  }
  return absl::OkStatus();
}

// Nobody goes on with what was uploaded: it is removed with what has expired (IngestCatalog::RemoveExpiredSessions), and rounds that were
// committed ahead of the snapshot need no grace. A snapshot that was committed keeps its session: the device may ask for its answer again.
absl::Status ExpireUploadsOf(sqlite3* db, const OperationId& operation) {
  LF_ASSIGN_OR_RETURN(sqlite::Statement release,
                      sqlite::Statement::Prepare(db,
                                                 "update snapshot set trashed_at = 0 where trashed_by = ?2 and id in "
                                                 "(select snapshot from upload_session where operation = ?1 and snapshot <> '')"));
  LF_RETURN_IF_ERROR(release.Bind(1, operation.value()).Bind(2, kPrecopiedBy).Run());
  LF_ASSIGN_OR_RETURN(
      sqlite::Statement expire,
      sqlite::Statement::Prepare(db, "update upload_session set expires_at = 0 where operation = ? and (state = 1 or precopied = 1)"));
  return expire.Bind(1, operation.value()).Run();
}

// Commit and cancel are one after the other in the catalog: where the commit came first the snapshot is there, and the device may not have
// heard so when it stopped.
absl::Status TellCommitted(sqlite3* db, v1::Operation& operation) {
  LF_ASSIGN_OR_RETURN(sqlite::Statement get,
                      sqlite::Statement::Prepare(db,
                                                 "select u.snapshot from upload_session u join snapshot s on s.id = u.snapshot "
                                                 "where u.operation = ?1 and u.state = 2 and u.precopied = 0 and s.device = ?2 limit 1"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, operation.id()).Bind(2, operation.device_id()).Step());
  if (!found) return absl::OkStatus();
  operation.set_state(v1::OPERATION_STATE_SUCCEEDED);
  operation.clear_error();
  operation.set_snapshot_id(std::string(get.Text(0)));
  v1::Progress& progress = *operation.mutable_progress();
  progress.set_done_bytes(std::max(progress.done_bytes(), progress.total_bytes()));
  operation.add_steps("it had been committed when the cancel came");
  return absl::OkStatus();
}

bool IsCancel(v1::OperationState state) { return state == v1::OPERATION_STATE_CANCELLING || state == v1::OPERATION_STATE_CANCELLED; }

}  // namespace

bool IsActive(v1::OperationState state) {
  return state == v1::OPERATION_STATE_QUEUED || state == v1::OPERATION_STATE_SENT || state == v1::OPERATION_STATE_RUNNING ||
         state == v1::OPERATION_STATE_CANCELLING;
}

absl::Status OrderExpired() {
  return Error(absl::StatusCode::kDeadlineExceeded, "ORDER_EXPIRED", "the device did not fetch the order in time",
               "order it again when the device is back");
}

absl::StatusOr<std::vector<OperationRow>> OperationCatalog::Create(const std::vector<OperationRow>& rows) {
  if (rows.empty()) return rows;
  std::vector<OperationRow> result;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    result.clear();
    const OperationRow& first = rows.front();
    if (!first.request_id.empty()) {
      LF_ASSIGN_OR_RETURN(
          sqlite::Statement select,
          sqlite::Statement::Prepare(
              db, fmt::format("select {} from operation where ordered_by = ? and request_id = ? order by sequence", kRowColumns)));
      select.Bind(1, first.operation.ordered_by()).Bind(2, first.request_id);
      LF_ASSIGN_OR_RETURN(result, RowsOf(select));
      if (!result.empty()) {
        if (result.front().operation.kind() == first.operation.kind()) return absl::OkStatus();
        return Error(absl::StatusCode::kAlreadyExists, "REQUEST_ID_USED",
                     fmt::format("request_id {} belongs to operation {} of another kind", first.request_id, result.front().operation.id()),
                     "use a new request_id for each order");
      }
    }
    for (const OperationRow& row : rows) LF_RETURN_IF_ERROR(Insert(db, row));
    result = rows;
    return absl::OkStatus();
  }));
  return result;
}

absl::StatusOr<OperationRow> OperationCatalog::Get(const OperationId& operation) const {
  OperationRow row;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(row, Find(db, operation));
    return absl::OkStatus();
  }));
  return row;
}

absl::StatusOr<v1::Operation> OperationCatalog::Resolve(const std::string& reference) const {
  v1::Operation operation;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(operation, FindByPrefix(db, reference));
    return absl::OkStatus();
  }));
  return operation;
}

absl::StatusOr<Page<v1::Operation>> OperationCatalog::List(const DeviceId& device, bool active_only, int page_size,
                                                           const std::string& page_token) const {
  LF_ASSIGN_OR_RETURN(const int64_t before, ParsePageToken(page_token));
  const std::string sql = fmt::format("select sequence, operation from operation where sequence < ?1{}{} order by sequence desc limit ?3",
                                      device.value().empty() ? "" : " and device = ?2", active_only ? " and active = 1" : "");
  Page<v1::Operation> page;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(sqlite::Statement select, sqlite::Statement::Prepare(db, sql));
    select.Bind(1, before).Bind(3, page_size + 1);
    if (!device.value().empty()) select.Bind(2, device.value());
    int64_t last = 0;
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool found, select.Step());
      if (!found) return absl::OkStatus();
      if (static_cast<int>(page.items.size()) == page_size) {
        page.next_token = std::to_string(last);
        return absl::OkStatus();
      }
      v1::Operation operation;
      LF_RETURN_IF_ERROR(ParseInto(select.Blob(1), operation));
      last = select.Int(0);
      page.items.push_back(std::move(operation));
    }
  }));
  return page;
}

absl::StatusOr<std::vector<OperationRow>> OperationCatalog::ActiveOf(const DeviceId& device) const {
  std::vector<OperationRow> rows;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(sqlite::Statement select,
                        sqlite::Statement::Prepare(db, fmt::format("select {} from operation where active = 1{} order by sequence",
                                                                   kRowColumns, device.value().empty() ? "" : " and device = ?1")));
    if (!device.value().empty()) select.Bind(1, device.value());
    LF_ASSIGN_OR_RETURN(rows, RowsOf(select));
    return absl::OkStatus();
  }));
  return rows;
}

absl::StatusOr<v1::Operation> OperationCatalog::Update(const OperationId& operation,
                                                       absl::FunctionRef<absl::Status(v1::Operation&)> change) {
  v1::Operation result;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(OperationRow row, Find(db, operation));
    const v1::OperationState before = row.operation.state();
    LF_RETURN_IF_ERROR(change(row.operation));
    if (row.operation.state() == v1::OPERATION_STATE_CANCELLED) LF_RETURN_IF_ERROR(TellCommitted(db, row.operation));
    LF_RETURN_IF_ERROR(Save(db, row.operation));
    // Also where it had ended without the device's word.
    const bool succeeded = row.operation.state() == v1::OPERATION_STATE_SUCCEEDED;
    if (succeeded && before != v1::OPERATION_STATE_SUCCEEDED) LF_RETURN_IF_ERROR(BeginTimelineOf(db, row));
    // Also where it was cancelled before without the device's word, which may have begun it again since.
    if (IsCancel(row.operation.state())) LF_RETURN_IF_ERROR(ExpireUploadsOf(db, operation));
    result = std::move(row.operation);
    return absl::OkStatus();
  }));
  return result;
}

absl::StatusOr<std::vector<v1::Operation>> OperationCatalog::Expire(SystemTime now) {
  std::vector<v1::Operation> expired;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(expired, ExpireQueued(db, now));
    return DeleteOld(db, now);
  }));
  return expired;
}

}  // namespace litefleet::catalog
