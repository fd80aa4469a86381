// Which snapshots of a database stay, and why: the one function that retention and `policy simulate` share.
//
// Time is the effective time (design section 7), order is the sequence. Kept are: the newest, the newest checked one, what is pinned or
// ordered, the newest keep_last, of each tier one a interval (the newest of those in it; intervals are counted from 1970, so the same one
// wins every time) for as long as the tier lasts, and then the newest ones until the floor is reached. Of continuous capture those of the
// last minute before the newest stay too, until a newer one has come: a device that lost power may have forgotten that the newest were
// acknowledged, and what it spools while it is offline is built on one before them, however long that takes. Snapshots that lost chunks
// count for none of these; they stay while a tier lasts, because they may be healed. Snapshots that hold a part of the database are counted
// apart from the whole ones, and the newest 16 kinds of part from one another: keep_last and tiers are theirs too, the rest is not. A hold
// keeps everything.
//
// Thread safety: pure functions.
#ifndef LITEFLEET_CONTROLLER_RETENTION_PLAN_H_
#define LITEFLEET_CONTROLLER_RETENTION_PLAN_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "controller/catalog/policy_catalog.h"
#include "controller/retention/policy.h"

namespace litefleet::retention {

using Snapshot = catalog::RetainedSnapshot;

struct Verdict {
  bool keep = false;
  std::vector<std::string> reasons;  // why; or, of one that goes, why not
};

// One for each snapshot. REQUIRES: ascending sequence. `hold`: why everything stays; empty: it does not.
std::vector<Verdict> Plan(std::span<const Snapshot> snapshots, const Policy& policy, SystemTime now, const std::string& hold);

struct Anomaly {
  std::string reason;  // SUDDENLY_MANY, SUDDENLY_LARGER, SUDDENLY_SMALLER
  std::string message;
};
// What is strange about snapshots with a sequence above `seen`, compared with those before: a device that was taken over or went wrong must
// not push good ones out. `keep_last`: of the policy; as many at once leave none of those before, and need not be very many to be strange.
// REQUIRES: ascending sequence.
std::optional<Anomaly> FindAnomaly(std::span<const Snapshot> snapshots, int64_t seen, int keep_last = 0);

}  // namespace litefleet::retention

#endif  // LITEFLEET_CONTROLLER_RETENTION_PLAN_H_
