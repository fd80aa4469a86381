// The run of retention over all databases, and its simulation: both ask Plan of what PolicyCatalog says, and differ only in what follows.
//
// Thread safety: Run by one thread at a time; the others from any. Memory: the snapshots of one database.
#ifndef LITEFLEET_CONTROLLER_RETENTION_RETENTION_H_
#define LITEFLEET_CONTROLLER_RETENTION_RETENTION_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "controller/catalog/deletion_catalog.h"
#include "controller/catalog/policy_catalog.h"
#include "controller/retention/plan.h"

namespace litefleet::retention {

struct RunTotals {
  int64_t databases = 0;  // with a policy
  int64_t held = 0;
  int64_t trashed = 0;
  int64_t void_plans = 0;  // the database changed meanwhile: next time
};

struct DatabasePlan {
  catalog::RetainedDatabase database;
  std::string policy;  // empty: none matches, everything stays
  std::string hold;    // empty: none
  std::vector<Snapshot> snapshots;
  std::vector<Verdict> verdicts;
};

class Retention {
 public:
  // `write_marks`: makes what is due durable in the packs; after each database.
  Retention(catalog::PolicyCatalog& policies, catalog::DeletionCatalog& deletions, std::function<absl::Status()> write_marks)
      : policies_(policies), deletions_(deletions), write_marks_(std::move(write_marks)) {}

  // A policy that cannot be read (of a newer version) is an error: nothing goes.
  absl::StatusOr<std::vector<Policy>> Policies() const;
  // `policies` may be others than those that were applied.
  absl::StatusOr<DatabasePlan> PlanFor(const catalog::RetainedDatabase& database, const std::vector<Policy>& policies,
                                       SystemTime now) const;
  absl::StatusOr<RunTotals> Run(SystemTime now, absl::FunctionRef<bool()> stop);
  // kFailedPrecondition POLICY_TIE, naming a device, where `policies` are not clear for one that exists.
  absl::Status CheckTies(const std::vector<Policy>& policies) const;

 private:
  catalog::PolicyCatalog& policies_;
  catalog::DeletionCatalog& deletions_;
  const std::function<absl::Status()> write_marks_;
};

}  // namespace litefleet::retention

#endif  // LITEFLEET_CONTROLLER_RETENTION_RETENTION_H_
