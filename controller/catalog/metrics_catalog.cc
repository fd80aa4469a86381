#include "controller/catalog/metrics_catalog.h"

#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "common/sqlite/handle.h"

namespace litefleet::catalog {

using sqlite::Statement;

absl::Status MetricsCatalog::Begin() {
  return db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(operation_, sqlite::QueryInt(db, "select coalesce(max(sequence), 0) from operation"));
    LF_ASSIGN_OR_RETURN(snapshot_, sqlite::QueryInt(db, "select coalesce(max(key), 0) from snapshot"));
    LF_ASSIGN_OR_RETURN(Statement select, Statement::Prepare(db, "select sequence from operation where active = 1"));
    active_.clear();
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool found, select.Step());
      if (!found) return absl::OkStatus();
      active_.insert(select.Int(0));
    }
  });
}

absl::StatusOr<std::vector<v1::Operation>> MetricsCatalog::NewlyEnded() {
  std::vector<v1::Operation> ended;
  int64_t newest = operation_;
  std::set<int64_t> active;
  const auto look = [&](const Statement& row) {
    if (row.Int(1) != 0) {
      active.insert(row.Int(0));
      return;
    }
    v1::Operation operation;
    const ByteView blob = row.Blob(2);
    if (operation.ParseFromArray(blob.data(), static_cast<int>(blob.size()))) ended.push_back(std::move(operation));
  };
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(Statement one, Statement::Prepare(db, "select sequence, active, operation from operation where sequence = ?"));
    for (const int64_t sequence : active_) {
      LF_ASSIGN_OR_RETURN(const bool found, one.Bind(1, sequence).Step());
      if (found) look(one);
      one.Reset();
    }
    LF_ASSIGN_OR_RETURN(Statement next,
                        Statement::Prepare(db, "select sequence, active, operation from operation where sequence > ? order by sequence"));
    next.Bind(1, operation_);
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool found, next.Step());
      if (!found) return absl::OkStatus();
      newest = next.Int(0);
      look(next);
    }
  }));
  operation_ = newest;
  active_ = std::move(active);
  return ended;
}

absl::StatusOr<std::vector<SnapshotSums>> MetricsCatalog::NewSnapshots() {
  std::vector<SnapshotSums> sums;
  int64_t newest = snapshot_;
  LF_RETURN_IF_ERROR(db_.Read([&](sqlite3* db) -> absl::Status {
    LF_ASSIGN_OR_RETURN(
        Statement select,
        Statement::Prepare(db,
                           "select method, count(*), sum(read_bytes), sum(wire_bytes), sum(stored_bytes), sum(duration_ms), max(key) "
                           "from snapshot where key > ? and trashed_by <> 'pre-copy' group by method"));
    select.Bind(1, snapshot_);
    for (;;) {
      LF_ASSIGN_OR_RETURN(const bool found, select.Step());
      if (!found) return absl::OkStatus();
      sums.push_back({static_cast<v1::Method>(select.Int(0)), select.Int(1), select.Int(2), select.Int(3), select.Int(4), select.Int(5)});
      newest = std::max(newest, select.Int(6));
    }
  }));
  snapshot_ = newest;
  return sums;
}

}  // namespace litefleet::catalog
