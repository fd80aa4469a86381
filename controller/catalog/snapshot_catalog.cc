#include "controller/catalog/snapshot_catalog.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/timelines.h"
#include "fmt/format.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

constexpr int kDefaultPage = 100;
constexpr int kMaxPage = 1000;

void SetTime(google::protobuf::Timestamp* out, int64_t millis) {
  int64_t seconds = millis / 1000;
  int64_t rest = millis % 1000;
  if (rest < 0) {
    rest += 1000;
    --seconds;
  }
  out->set_seconds(seconds);
  out->set_nanos(static_cast<int32_t>(rest * 1'000'000));
}
void SetDuration(google::protobuf::Duration* out, int64_t millis) {
  out->set_seconds(millis / 1000);
  out->set_nanos(static_cast<int32_t>(millis % 1000 * 1'000'000));
}

// Columns of a snapshot s; ToSnapshot reads them from `first` on. Whether a pin holds is as of the controller's own time when it was kept
// last (retention/controller_time), once a minute: it never runs ahead of that of retention.
constexpr std::string_view kSnapshotColumns =
    "s.key, s.id, s.device, coalesce((select name from device where device.id = s.device), s.device), "
    "(select name from database where database.id = s.database), s.method, s.state, s.timeline, s.taken_at, s.received_at, s.effective_at, "
    "s.page_size, s.page_count, s.root, s.pages_sent, s.wire_bytes, s.stored_bytes, s.duration_ms, s.source_check, s.source_check_message, "
    "s.check_state, s.check_message, s.checked_at, s.drilled_at, s.parent, s.sequence, s.journal_mode, s.pinned_ms, s.read_bytes, "
    "s.operation, s.pinned and (s.pinned_until = 0 or "
    "s.pinned_until > coalesce((select time_ms from controller_time), 0)), s.pages_changed, s.restore_ms, s.content, s.content_bytes, "
    "s.provenance, s.commits, s.part, "
    "s.compatible, s.pinned_until";

// The copy is the source, byte by byte: its root is the device's, and every digest held when it was read for the check. What SQLite finds
// in the pages it would have found there. Of text it speaks of what became of it when it was loaded, which says nothing of the source.
void TakeVerdictOfPages(v1::Snapshot& snapshot) {
  if (snapshot.check() != v1::CHECK_STATE_DAMAGED || snapshot.content() > v1::SNAPSHOT_CONTENT_DATABASE) return;
  const bool told = snapshot.source_check() == v1::CHECK_STATE_DAMAGED && !snapshot.source_check_message().empty();
  if (told && snapshot.source_check_message() == snapshot.check_message()) return;  // an import, which was checked before
  snapshot.set_source_check_message(told ? fmt::format("{}; SQLite: {}", snapshot.source_check_message(), snapshot.check_message())
                                         : snapshot.check_message());
  snapshot.set_source_check(v1::CHECK_STATE_DAMAGED);
}

v1::Snapshot ToSnapshot(const Statement& row, int first = 0) {
  const auto text = [&](int column) { return std::string(row.Text(first + column)); };
  const auto number = [&](int column) { return row.Int(first + column); };
  v1::Snapshot snapshot;
  snapshot.set_id(text(1));
  snapshot.set_device_id(text(2));
  snapshot.set_device_name(text(3));
  snapshot.set_database(text(4));
  snapshot.set_method(static_cast<v1::Method>(number(5)));
  snapshot.set_state(static_cast<v1::SnapshotState>(number(6)));
  snapshot.set_timeline(static_cast<uint64_t>(number(7)));
  SetTime(snapshot.mutable_taken_at(), number(8));
  SetTime(snapshot.mutable_received_at(), number(9));
  SetTime(snapshot.mutable_effective_at(), number(10));
  snapshot.set_page_size(static_cast<uint32_t>(number(11)));
  snapshot.set_page_count(static_cast<uint32_t>(number(12)));
  snapshot.set_size_bytes(number(11) * number(12));
  snapshot.set_root_digest(std::string(AsText(row.Blob(first + 13))));
  snapshot.set_pages_sent(static_cast<uint32_t>(number(14)));
  snapshot.set_wire_bytes(number(15));
  snapshot.set_stored_bytes(number(16));
  SetDuration(snapshot.mutable_duration(), number(17));
  snapshot.set_source_check(static_cast<v1::CheckState>(number(18)));
  snapshot.set_source_check_message(text(19));
  snapshot.set_check(static_cast<v1::CheckState>(number(20)));
  snapshot.set_check_message(text(21));
  if (number(22) >= 0) SetTime(snapshot.mutable_checked_at(), number(22));
  if (number(23) >= 0) SetTime(snapshot.mutable_drilled_at(), number(23));
  snapshot.set_parent_id(text(24));
  snapshot.set_sequence(static_cast<uint64_t>(number(25)));
  snapshot.set_journal_mode(static_cast<v1::JournalMode>(number(26)));
  SetDuration(snapshot.mutable_pinned(), number(27));
  snapshot.set_read_bytes(number(28));
  if (number(31) >= 0) snapshot.set_pages_changed(static_cast<uint32_t>(number(31)));
  snapshot.set_operation_id(text(29));
  if (number(32) >= 0) SetDuration(snapshot.mutable_restore_duration(), number(32));
  snapshot.set_pinned_by_operator(number(30) != 0);
  snapshot.set_content(static_cast<v1::SnapshotContent>(number(33)));
  snapshot.set_content_bytes(number(34));
  snapshot.set_provenance(text(35));
  snapshot.set_commits(static_cast<uint32_t>(number(36)));
  snapshot.set_part(text(37));
  snapshot.set_compatible(number(38) != 0);
  if (snapshot.pinned_by_operator() && number(39) != 0) SetTime(snapshot.mutable_pinned_until(), number(39));
  TakeVerdictOfPages(snapshot);
  return snapshot;
}

int PageLimit(int page_size) { return page_size <= 0 ? kDefaultPage : std::min(page_size, kMaxPage); }

absl::Status BadPageToken() {
  return Error(absl::StatusCode::kInvalidArgument, "PAGE_TOKEN_INVALID", "the page token is not one that was given",
               "begin with the first page");
}

// One row of `query`, which ends in "... limit 1" or finds at most one.
absl::StatusOr<v1::Snapshot> One(Statement& get, const absl::Status& otherwise) {
  LF_ASSIGN_OR_RETURN(const bool found, get.Step());
  if (!found) return otherwise;
  return ToSnapshot(get);
}

std::string Label(const DeviceId& device, const std::string& database) { return fmt::format("{}/{}", device.value(), database); }

constexpr std::string_view kDatabaseColumns =
    "d.id, d.device, coalesce((select name from device where device.id = d.device), d.device) as device_name, d.name, d.timeline, "
    "d.snapshots, "
    "(select taken_at from snapshot p where p.key = d.proven), d.health, d.reported_at";
constexpr int kDatabaseColumnCount = 9;

// The columns above, then those of the newest snapshot.
v1::Database ToDatabase(const Statement& row) {
  v1::Database database;
  database.set_device_id(std::string(row.Text(1)));
  database.set_device_name(std::string(row.Text(2)));
  database.set_name(std::string(row.Text(3)));
  database.set_timeline(static_cast<uint64_t>(row.Int(4)));
  database.set_snapshots(row.Int(5));
  if (!row.IsNull(6)) SetTime(database.mutable_newest_proven_at(), row.Int(6));
  if (!row.IsNull(7)) {
    const ByteView health = row.Blob(7);
    if (!database.mutable_health()->ParseFromArray(health.data(), static_cast<int>(health.size()))) database.clear_health();
  }
  if (row.Int(8) >= 0) SetTime(database.mutable_reported_at(), row.Int(8));
  if (!row.IsNull(kDatabaseColumnCount)) *database.mutable_newest_snapshot() = ToSnapshot(row, kDatabaseColumnCount);
  return database;
}

absl::StatusOr<int64_t> DatabaseRow(sqlite3* db, const DeviceId& device, const std::string& database) {
  LF_ASSIGN_OR_RETURN(Statement insert, Statement::Prepare(db, "insert into database (device, name) values (?, ?) on conflict do nothing"));
  LF_RETURN_IF_ERROR(insert.Bind(1, device.value()).Bind(2, database).Run());
  LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select id from database where device = ? and name = ?"));
  LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, device.value()).Bind(2, database).Step());
  if (!found) return Error(absl::StatusCode::kInternal, "CATALOG_DAMAGED", "a database's row is missing");
  return get.Int(0);
}

}  // namespace

absl::StatusOr<v1::Snapshot> SnapshotCatalog::Resolve(const std::string& reference) const {
  std::string prefix = reference;
  for (char& c : prefix) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  const absl::Status not_found = Error(absl::StatusCode::kNotFound, "SNAPSHOT_NOT_FOUND", fmt::format("there is no snapshot {}", reference),
                                       "`litefleet snapshot list` shows what there is");
  if (prefix.empty() || prefix.size() > 26) return not_found;
  std::vector<v1::Snapshot> found;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement get,
        Statement::Prepare(
            db, fmt::format("select {} from snapshot s where s.id >= ?1 and s.id < ?1 || '~' order by s.id limit 5", kSnapshotColumns)));
    get.Bind(1, prefix);
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      found.push_back(ToSnapshot(get));
    }
  }));
  if (found.empty()) return not_found;
  if (found.size() == 1) return found[0];
  std::string candidates;
  for (const v1::Snapshot& snapshot : found) candidates += (candidates.empty() ? "" : ", ") + snapshot.id();
  return Error(absl::StatusCode::kFailedPrecondition, "AMBIGUOUS", fmt::format("{} fits several snapshots: {}", reference, candidates),
               "give more of the id");
}

absl::StatusOr<Page<v1::Snapshot>> SnapshotCatalog::List(const DeviceId& device, const std::string& database, int page_size,
                                                         const std::string& page_token) const {
  int64_t before = INT64_MAX;
  if (!page_token.empty()) {
    const auto [end, error] = std::from_chars(page_token.data(), page_token.data() + page_token.size(), before);
    if (error != std::errc() || end != page_token.data() + page_token.size()) return BadPageToken();
  }
  const int limit = PageLimit(page_size);
  Page<v1::Snapshot> page;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    std::string where = "s.key < ?1 and s.state <> 3";
    if (!device.value().empty()) where += " and s.device = ?2";
    if (!database.empty()) where += " and s.database in (select id from database where name = ?3)";
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, fmt::format("select {} from snapshot s where {} order by s.key desc limit ?4",
                                                                          kSnapshotColumns, where)));
    get.Bind(1, before).Bind(4, int64_t{limit} + 1);
    if (!device.value().empty()) get.Bind(2, device.value());
    if (!database.empty()) get.Bind(3, database);
    int64_t last = 0;
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      if (static_cast<int>(page.items.size()) == limit) {
        page.next_token = std::to_string(last);
        return absl::OkStatus();
      }
      last = get.Int(0);
      page.items.push_back(ToSnapshot(get));
    }
  }));
  return page;
}

absl::StatusOr<Page<v1::TrashItem>> SnapshotCatalog::ListTrash(int page_size, const std::string& page_token) const {
  int64_t after = 0;
  if (!page_token.empty()) {
    const auto [end, error] = std::from_chars(page_token.data(), page_token.data() + page_token.size(), after);
    if (error != std::errc() || end != page_token.data() + page_token.size()) return BadPageToken();
  }
  const int limit = PageLimit(page_size);
  Page<v1::TrashItem> page;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, fmt::format("select s.trashed_at, s.trashed_by, {} from snapshot s where "
                                                                          "s.state = 3 and s.trashed_at > 0 and s.key > ?1 "
                                                                          "order by s.key limit ?2",
                                                                          kSnapshotColumns)));
    get.Bind(1, after).Bind(2, int64_t{limit} + 1);
    int64_t last = 0;
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      if (static_cast<int>(page.items.size()) == limit) {
        page.next_token = std::to_string(last);
        return absl::OkStatus();
      }
      last = get.Int(2);
      v1::TrashItem& item = page.items.emplace_back();
      *item.mutable_snapshot() = ToSnapshot(get, 2);
      SetTime(item.mutable_trashed_at(), get.Int(0));
      item.set_trashed_by(std::string(get.Text(1)));
    }
  }));
  return page;
}

absl::StatusOr<v1::Snapshot> SnapshotCatalog::Newest(const DeviceId& device, const std::string& database) const {
  absl::StatusOr<v1::Snapshot> snapshot = absl::InternalError("");
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement get,
        Statement::Prepare(db,
                           fmt::format("select {} from snapshot s where s.database = (select id from database where device = ? and "
                                       "name = ?) and s.state = {} and s.provenance = '' and s.part = '' order by s.sequence desc limit 1",
                                       kSnapshotColumns, static_cast<int>(v1::SNAPSHOT_STATE_COMMITTED))));
    get.Bind(1, device.value()).Bind(2, database);
    snapshot = One(get, Error(absl::StatusCode::kNotFound, "NO_SNAPSHOT", fmt::format("{} has no snapshot", Label(device, database)),
                              "back it up first"));
    return absl::OkStatus();
  }));
  return snapshot;
}

absl::StatusOr<v1::Snapshot> SnapshotCatalog::At(const DeviceId& device, const std::string& database, SystemTime at,
                                                 std::optional<uint64_t> timeline) const {
  absl::StatusOr<v1::Snapshot> snapshot = absl::InternalError("");
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement row, Statement::Prepare(db, "select id from database where device = ? and name = ?"));
    LF_ASSIGN_OR_RETURN(const bool known, row.Bind(1, device.value()).Bind(2, database).Step());
    const int64_t id = known ? row.Int(0) : -1;
    const absl::StatusOr<std::string> then = SnapshotThen(db, id, Label(device, database), at, timeline);
    if (!then.ok()) {
      snapshot = then.status();
      return absl::OkStatus();
    }
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, fmt::format("select {} from snapshot s where s.id = ?1", kSnapshotColumns)));
    get.Bind(1, *then);
    snapshot = One(get, Error(absl::StatusCode::kInternal, "CATALOG_DAMAGED", "a snapshot's row is missing"));
    return absl::OkStatus();
  }));
  return snapshot;
}

absl::StatusOr<std::optional<v1::Snapshot>> SnapshotCatalog::After(const DeviceId& device, const std::string& database,
                                                                   SystemTime at) const {
  std::optional<v1::Snapshot> snapshot;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db, fmt::format("select {} from snapshot s where s.database = (select id from database where "
                                                           "device = ?1 and name = ?2) and s.taken_at > ?3 and s.state = {} and "
                                                           "s.provenance = '' and s.part = '' order by s.taken_at, s.sequence limit 1",
                                                           kSnapshotColumns, static_cast<int>(v1::SNAPSHOT_STATE_COMMITTED))));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, device.value()).Bind(2, database).Bind(3, ToUnixMillis(at)).Step());
    if (found) snapshot = ToSnapshot(get);
    return absl::OkStatus();
  }));
  return snapshot;
}

absl::StatusOr<Page<v1::Database>> SnapshotCatalog::ListDatabases(const DeviceId& device, std::optional<SystemTime> stale_before,
                                                                  int page_size, const std::string& page_token) const {
  std::string after_device;
  std::string after_name;
  if (!page_token.empty()) {
    const size_t slash = page_token.find('/');
    if (slash == std::string::npos) return BadPageToken();
    after_device = page_token.substr(0, slash);
    after_name = page_token.substr(slash + 1);
  }
  const int limit = PageLimit(page_size);
  Page<v1::Database> page;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    std::string where = "(device_name, d.name) > (?1, ?2) and d.forgotten = 0";
    if (!device.value().empty()) where += " and d.device = ?3";
    if (stale_before.has_value()) where += " and (s.key is null or s.taken_at < ?4)";
    LF_ASSIGN_OR_RETURN(
        Statement get, Statement::Prepare(db, fmt::format("select {}, {} from database d left join snapshot s on s.key = d.newest where {} "
                                                          "order by device_name, d.name limit ?5",
                                                          kDatabaseColumns, kSnapshotColumns, where)));
    get.Bind(1, after_device).Bind(2, after_name).Bind(5, int64_t{limit} + 1);
    if (!device.value().empty()) get.Bind(3, device.value());
    if (stale_before.has_value()) get.Bind(4, ToUnixMillis(*stale_before));
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool row, get.Step());
      if (!row) return absl::OkStatus();
      if (static_cast<int>(page.items.size()) == limit) {
        page.next_token = page.items.back().device_name() + "/" + page.items.back().name();
        return absl::OkStatus();
      }
      page.items.push_back(ToDatabase(get));
    }
  }));
  return page;
}

absl::StatusOr<v1::Database> SnapshotCatalog::GetDatabase(const DeviceId& device, const std::string& database) const {
  std::optional<v1::Database> result;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get,
                        Statement::Prepare(db, fmt::format("select {}, {} from database d left join snapshot s on s.key = d.newest "
                                                           "where d.device = ? and d.name = ?",
                                                           kDatabaseColumns, kSnapshotColumns)));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, device.value()).Bind(2, database).Step());
    if (found) result = ToDatabase(get);
    return absl::OkStatus();
  }));
  if (!result.has_value()) {
    return Error(absl::StatusCode::kNotFound, "DATABASE_NOT_FOUND", fmt::format("there is no database {}", Label(device, database)),
                 "`litefleet database list` shows what the devices reported");
  }
  return *std::move(result);
}

absl::Status SnapshotCatalog::ReportDatabases(const DeviceId& device, SystemTime now, std::span<const v1::DatabaseHealth> databases) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement put,
        Statement::Prepare(db,
                           "insert into database (device, name, reported_at, health) values (?, ?, ?, ?) "
                           "on conflict (device, name) do update set reported_at = excluded.reported_at, health = excluded.health"));
    for (const v1::DatabaseHealth& health : databases) {
      if (!IsName(health.name())) continue;
      put.Bind(1, device.value()).Bind(2, health.name()).Bind(3, ToUnixMillis(now)).BindBlob(4, AsBytes(health.SerializeAsString()));
      LF_RETURN_IF_ERROR(put.Run());
    }
    return absl::OkStatus();
  });
}

absl::StatusOr<uint64_t> SnapshotCatalog::HighestTimeline(const DeviceId& device, const std::string& database) const {
  uint64_t timeline = 1;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement get, Statement::Prepare(db, "select timeline from database where device = ? and name = ?"));
    LF_ASSIGN_OR_RETURN(const bool found, get.Bind(1, device.value()).Bind(2, database).Step());
    if (found) timeline = static_cast<uint64_t>(get.Int(0));
    return absl::OkStatus();
  }));
  return timeline;
}

absl::StatusOr<uint64_t> SnapshotCatalog::ReserveTimeline(const DeviceId& device, const std::string& database,
                                                          const OperationId& operation) {
  uint64_t timeline = 0;
  LF_RETURN_IF_ERROR(db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const int64_t row, DatabaseRow(db, device, database));
    LF_ASSIGN_OR_RETURN(Statement known, Statement::Prepare(db, "select timeline from timeline where database = ? and operation = ?"));
    LF_ASSIGN_OR_RETURN(const bool reserved, known.Bind(1, row).Bind(2, operation.value()).Step());
    if (reserved) {
      timeline = static_cast<uint64_t>(known.Int(0));
      return absl::OkStatus();
    }
    LF_ASSIGN_OR_RETURN(Statement next,
                        Statement::Prepare(db, "update database set timeline = timeline + 1 where id = ? returning timeline"));
    LF_ASSIGN_OR_RETURN(const bool found, next.Bind(1, row).Step());
    if (!found) return Error(absl::StatusCode::kInternal, "CATALOG_DAMAGED", "a database's row is missing");
    timeline = static_cast<uint64_t>(next.Int(0));
    next.Reset();
    LF_ASSIGN_OR_RETURN(Statement insert, Statement::Prepare(db, "insert into timeline (database, timeline, operation) values (?, ?, ?)"));
    return insert.Bind(1, row).Bind(2, static_cast<int64_t>(timeline)).Bind(3, operation.value()).Run();
  }));
  if (records_ != nullptr) LF_RETURN_IF_ERROR(records_->WriteDue());
  return timeline;
}

absl::Status SnapshotCatalog::SetCheck(const SnapshotId& snapshot, v1::CheckState state, std::string_view message, SystemTime at) {
  return db_.Write([&](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement set,
        Statement::Prepare(db,
                           "update snapshot set check_state = ?, check_message = ?, checked_at = ? where id = ? returning key, database"));
    const bool ended = state != v1::CHECK_STATE_UNKNOWN && state != v1::CHECK_STATE_PENDING && state != v1::CHECK_STATE_SUPERSEDED;
    set.Bind(1, int64_t{state}).Bind(2, message).Bind(3, ended ? ToUnixMillis(at) : int64_t{-1}).Bind(4, snapshot.value());
    LF_ASSIGN_OR_RETURN(const bool found, set.Step());
    if (!found) return Error(absl::StatusCode::kNotFound, "SNAPSHOT_NOT_FOUND", fmt::format("there is no snapshot {}", snapshot.value()));
    const int64_t key = set.Int(0);
    const int64_t database = set.Int(1);
    set.Reset();
    // Looked for anew only where it may have changed: a database may have a million snapshots, and none that is proven.
    LF_ASSIGN_OR_RETURN(
        Statement proven,
        Statement::Prepare(
            db,
            "update database set proven = (select key from snapshot where database = ?1 and check_state = ?2 "
            "and state = ?3 and provenance = '' and part = '' order by sequence desc limit 1) where id = ?1 and (?4 = ?2 or proven = ?5)"));
    proven.Bind(1, database).Bind(2, int64_t{v1::CHECK_STATE_OK}).Bind(3, int64_t{v1::SNAPSHOT_STATE_COMMITTED});
    return proven.Bind(4, int64_t{state}).Bind(5, key).Run();
  });
}

void SnapshotCatalog::QueueCheck(const SnapshotId& snapshot, const SnapshotId& superseded) {
  db_.Post([snapshot, superseded](sqlite::Connection db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement set,
                        Statement::Prepare(db, "update snapshot set check_state = ?1 where id = ?2 and check_state in (?3, ?4, ?5)"));
    set.Bind(1, int64_t{v1::CHECK_STATE_PENDING}).Bind(2, snapshot.value()).Bind(3, int64_t{v1::CHECK_STATE_UNSPECIFIED});
    LF_RETURN_IF_ERROR(set.Bind(4, int64_t{v1::CHECK_STATE_UNKNOWN}).Bind(5, int64_t{v1::CHECK_STATE_SUPERSEDED}).Run());
    if (superseded.value().empty()) return absl::OkStatus();
    LF_ASSIGN_OR_RETURN(Statement leave, Statement::Prepare(db, "update snapshot set check_state = ?1 where id = ?2 and check_state = ?3"));
    leave.Bind(1, int64_t{v1::CHECK_STATE_SUPERSEDED}).Bind(2, superseded.value());
    return leave.Bind(3, int64_t{v1::CHECK_STATE_PENDING}).Run();
  });
}

absl::Status SnapshotCatalog::SetDrilled(const SnapshotId& snapshot, SystemTime at, std::chrono::milliseconds restore) {
  return db_.Write([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement set, Statement::Prepare(db, "update snapshot set drilled_at = ?, restore_ms = ? where id = ?"));
    return set.Bind(1, ToUnixMillis(at)).Bind(2, int64_t{restore.count()}).Bind(3, snapshot.value()).Run();
  });
}

absl::StatusOr<std::vector<v1::Snapshot>> SnapshotCatalog::DrillsDue(SystemTime newest_before, SystemTime older_before, int limit) const {
  std::vector<v1::Snapshot> due;
  const auto look = [&](std::string_view from, SystemTime before) {
    return db_.Read([&](sqlite3* db) -> absl::Status {
      LF_ASSIGN_OR_RETURN(Statement get,
                          Statement::Prepare(db, fmt::format("select {} from {} where s.state = ?1 and s.check_state <> ?2 and "
                                                             "max(s.drilled_at, s.checked_at, s.received_at) <= ?3 order by "
                                                             "max(s.drilled_at, s.checked_at), s.key desc limit ?4",
                                                             kSnapshotColumns, from)));
      get.Bind(1, int64_t{v1::SNAPSHOT_STATE_COMMITTED}).Bind(2, int64_t{v1::CHECK_STATE_PENDING});
      get.Bind(3, ToUnixMillis(before)).Bind(4, int64_t{limit});
      for (;;) {
        LF_ASSIGN_OR_RETURN(const bool row, get.Step());
        if (!row) return absl::OkStatus();
        due.push_back(ToSnapshot(get));
      }
    });
  };
  LF_RETURN_IF_ERROR(look("database d join snapshot s on s.key = d.newest", newest_before));
  if (due.empty()) LF_RETURN_IF_ERROR(look("snapshot s", older_before));
  return due;
}

absl::StatusOr<SnapshotCatalog::Totals> SnapshotCatalog::GetTotals() const {
  Totals totals;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(totals.databases, sqlite::QueryInt(db, "select count(*) from database where forgotten = 0"));
    LF_ASSIGN_OR_RETURN(totals.databases_without_snapshot,
                        sqlite::QueryInt(db, "select count(*) from database where newest is null and forgotten = 0"));
    LF_ASSIGN_OR_RETURN(totals.databases_unproven,
                        sqlite::QueryInt(db, "select count(*) from database where proven is null and forgotten = 0"));
    LF_ASSIGN_OR_RETURN(totals.snapshots, sqlite::QueryInt(db, "select coalesce(sum(snapshots), 0) from database"));
    LF_ASSIGN_OR_RETURN(totals.store_bytes, sqlite::QueryInt(db, "select coalesce(sum(stored_bytes), 0) from pack"));
    LF_ASSIGN_OR_RETURN(totals.logical_bytes,
                        sqlite::QueryInt(db, "select coalesce(sum(page_size * page_count), 0) from snapshot where state <> 3"));
    for (const bool proven : {false, true}) {
      LF_ASSIGN_OR_RETURN(
          Statement get,
          Statement::Prepare(db, fmt::format("select s.taken_at, coalesce((select name from device where device.id = d.device), d.device) "
                                             "|| '/' || d.name from database d join snapshot s on s.key = d.{} "
                                             "order by s.taken_at limit 1",
                                             proven ? "proven" : "newest")));
      LF_ASSIGN_OR_RETURN(const bool found, get.Step());
      if (!found) continue;
      (proven ? totals.oldest_proven_at : totals.oldest_newest_at) = FromUnixMillis(get.Int(0));
      (proven ? totals.oldest_proven_database : totals.oldest_newest_database) = std::string(get.Text(1));
    }
    return absl::OkStatus();
  }));
  return totals;
}

}  // namespace litefleet::catalog
