// What a restore would do to its target, what it needs, and why it would be refused. Changes nothing.
//
// Thread safety: pure functions. It opens the target through SQLite for a moment where that is needed to know its journal mode.
#ifndef LITEFLEET_AGENT_RESTORE_PLAN_H_
#define LITEFLEET_AGENT_RESTORE_PLAN_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/restore/apply.h"
#include "agent/restore/restorer.h"
#include "agent/restore/undo.h"

namespace litefleet::restore {

// PUSH_RESTORE_DENIED, ORDER_INVALID.
absl::Status CheckOrder(const v1::RestoreOrder& order, const Target& target);
// Of both: the id becomes an environment variable of hooks, a part of the state file and of messages.
absl::Status CheckSnapshotId(const v1::RestoreOrder& order, const Target& target);
// The mode that the order means here: live where a database is, else new. TARGET_EXISTS, TARGET_MISSING.
// SQLite's backup API commits at once where there is nothing to copy: no lock, and no undo of what it overwrites. kFailedPrecondition
// SNAPSHOT_EMPTY.
absl::Status CheckNotEmpty(v1::RestoreMode mode, uint32_t page_count, const TargetPlace& place);
absl::StatusOr<v1::RestoreMode> DecideMode(const v1::RestoreOrder& order, const TargetPlace& place);

struct SpaceNeeded {
  uint64_t staging = 0;
  uint64_t undo = 0;
  uint64_t journal = 0;
  uint64_t reserve = 0;
  uint64_t sum() const { return staging + undo + journal + reserve; }
};
SpaceNeeded SpaceFor(v1::RestoreMode mode, const v1::RestoreOrder& order, const LiveTarget& target, uint64_t reserve);
// NOT_ENOUGH_SPACE.
absl::Status CheckSpace(const TargetPlace& place, const SpaceNeeded& needed);

// What the restored database will have about: of SQL text that is a guess, text and indexes.
uint64_t BytesOf(const v1::RestoreOrder& order);

// What a live copy reads and writes while the application waits. `merges`: tables into what is there, which is copied and put back.
uint64_t BytesToCopy(const LiveTarget& target, uint64_t new_bytes, bool merges = false);

absl::StatusOr<v1::RestorePlan> MakePlan(const v1::RestoreOrder& order, const Target& target, const ApplyOptions& options);

// What undoing would do; `wish` may be why it cannot be done.
v1::RestorePlan MakeUndoPlan(const absl::StatusOr<UndoWish>& wish, const Target& target, const ApplyOptions& options);

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_PLAN_H_
