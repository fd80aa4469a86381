#include "controller/catalog/timelines.h"

#include <algorithm>

#include "common/base/status.h"
#include "fmt/format.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet::catalog {
namespace {

using sqlite::Statement;

constexpr int kCommitted = v1::SNAPSHOT_STATE_COMMITTED;

struct Found {
  std::string id;  // empty: nothing
  int64_t timeline = 0;
  int64_t taken_at = -1;
};

absl::StatusOr<Found> One(Statement& get) {
  LF_ASSIGN_OR_RETURN(const bool found, get.Step());
  if (!found) return Found();
  return Found{std::string(get.Text(0)), get.Int(1), get.Int(2)};
}

// The highest of those that had begun.
absl::StatusOr<int64_t> LiveTimeline(sqlite3* db, int64_t database, SystemTime at) {
  LF_ASSIGN_OR_RETURN(
      Statement get,
      Statement::Prepare(
          db,
          fmt::format("select max(n) from (select 1 as n "
                      "union all select timeline from timeline where database = ?1 and live_from between 0 and ?2 "
                      "union all select timeline from snapshot where database = ?1 and taken_at <= ?2 and state = {} and provenance = '')",
                      kCommitted)));
  LF_RETURN_IF_ERROR(get.Bind(1, database).Bind(2, ToUnixMillis(at)).Step().status());
  return get.Int(0);
}

// When it began; -1 where nothing says it.
absl::StatusOr<int64_t> BeginOf(sqlite3* db, int64_t database, int64_t timeline) {
  LF_ASSIGN_OR_RETURN(
      Statement get,
      Statement::Prepare(
          db, fmt::format(
                  "select coalesce(min(at), -1) from (select live_from as at from timeline where database = ?1 and "
                  "timeline = ?2 and live_from >= 0 "
                  "union all select min(taken_at) from snapshot where database = ?1 and timeline = ?2 and state = {} and provenance = '')",
                  kCommitted)));
  LF_RETURN_IF_ERROR(get.Bind(1, database).Bind(2, timeline).Step().status());
  return get.Int(0);
}

absl::StatusOr<Found> NewestOf(sqlite3* db, int64_t database, int64_t timeline, SystemTime at) {
  LF_ASSIGN_OR_RETURN(
      Statement get,
      Statement::Prepare(
          db,
          fmt::format("select id, timeline, taken_at from snapshot where database = ?1 and state = {} and "
                      "taken_at <= ?2 and timeline = ?3 and provenance = '' and part = '' order by taken_at desc, sequence desc limit 1",
                      kCommitted)));
  get.Bind(1, database).Bind(2, ToUnixMillis(at)).Bind(3, timeline);
  return One(get);
}

// What the timeline began with, if it had by then.
absl::StatusOr<Found> BaseOf(sqlite3* db, int64_t database, int64_t timeline, SystemTime at) {
  LF_ASSIGN_OR_RETURN(
      Statement get,
      Statement::Prepare(db, fmt::format("select s.id, t.timeline, t.live_from from timeline t join snapshot s on s.id = t.base where "
                                         "t.database = ?1 and t.timeline = ?2 and t.live_from between 0 and ?3 and s.state = {}",
                                         kCommitted)));
  get.Bind(1, database).Bind(2, timeline).Bind(3, ToUnixMillis(at));
  return One(get);
}

// The newest of earlier timelines within (after, at].
absl::StatusOr<Found> RivalOf(sqlite3* db, int64_t database, int64_t timeline, int64_t after, SystemTime at) {
  LF_ASSIGN_OR_RETURN(
      Statement get,
      Statement::Prepare(db, fmt::format("select id, timeline, taken_at from snapshot where database = ?1 and state = {} and "
                                         "taken_at > ?2 and taken_at <= ?3 and timeline < ?4 and provenance = '' and part = '' "
                                         "order by taken_at desc, sequence desc limit 1",
                                         kCommitted)));
  get.Bind(1, database).Bind(2, after).Bind(3, ToUnixMillis(at)).Bind(4, timeline);
  return One(get);
}

}  // namespace

// The snapshot that the timeline began with; empty: it has not begun, or that was before this column.
const std::string_view kTimelineSchema = R"sql(
alter table timeline add column base text not null default '';
)sql";

absl::Status BeginTimeline(sqlite3* db, const std::string& device, const std::string& database, uint64_t timeline, SystemTime at,
                           const std::string& base) {
  LF_ASSIGN_OR_RETURN(Statement begin,
                      Statement::Prepare(db,
                                         "update timeline set live_from = ?1, base = ?2 where timeline = ?3 and live_from < 0 and "
                                         "database = (select id from database where device = ?4 and name = ?5)"));
  begin.Bind(1, ToUnixMillis(at)).Bind(2, base).Bind(3, static_cast<int64_t>(timeline)).Bind(4, device).Bind(5, database);
  return begin.Run();
}

absl::StatusOr<std::string> SnapshotThen(sqlite3* db, int64_t database, const std::string& label, SystemTime at,
                                         std::optional<uint64_t> timeline) {
  LF_ASSIGN_OR_RETURN(const int64_t live, timeline.has_value() ? static_cast<int64_t>(*timeline) : LiveTimeline(db, database, at));
  LF_ASSIGN_OR_RETURN(Found found, NewestOf(db, database, live, at));
  if (found.id.empty()) {
    LF_ASSIGN_OR_RETURN(found, BaseOf(db, database, live, at));
  }
  if (!timeline.has_value() && live > 1) {
    LF_ASSIGN_OR_RETURN(const int64_t begin, BeginOf(db, database, live));
    LF_ASSIGN_OR_RETURN(const Found rival, RivalOf(db, database, live, std::max(begin, found.taken_at), at));
    if (!rival.id.empty()) {
      return Error(
          absl::StatusCode::kFailedPrecondition, "TIME_AMBIGUOUS",
          fmt::format("{} was on timeline {} from {} on, but a snapshot of timeline {} says that it was taken at {}: a clock was set",
                      label, live, FormatRfc3339(FromUnixMillis(begin)), rival.timeline, FormatRfc3339(FromUnixMillis(rival.taken_at))),
          fmt::format("say which one is meant: --timeline {} or --timeline {}, or name a snapshot", live, rival.timeline));
    }
  }
  if (!found.id.empty()) return found.id;
  const std::string restored =
      live > 1 && !timeline.has_value()
          ? fmt::format("; it had been restored, and timeline {} was live then: --timeline {} has what was before", live, live - 1)
          : "";
  return Error(absl::StatusCode::kNotFound, "NO_SNAPSHOT_THEN",
               fmt::format("{} has no snapshot that was taken at or before {}{}", label, FormatRfc3339(at), restored),
               "`litefleet snapshot list` shows when snapshots were taken");
}

}  // namespace litefleet::catalog
