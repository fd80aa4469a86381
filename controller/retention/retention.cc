#include "controller/retention/retention.h"

#include <algorithm>
#include <span>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::retention {
namespace {

constexpr int kDatabasesAtOnce = 200;

}  // namespace

absl::StatusOr<std::vector<Policy>> Retention::Policies() const {
  LF_ASSIGN_OR_RETURN(const std::vector<catalog::PolicyRow> rows, policies_.List());
  std::vector<Policy> policies;
  for (const catalog::PolicyRow& row : rows) {
    LF_ASSIGN_OR_RETURN(Policy policy, ParsePolicy(row.text, "policy " + row.name));
    policy.carried.set_version(row.version);
    policies.push_back(std::move(policy));
  }
  return policies;
}

absl::StatusOr<DatabasePlan> Retention::PlanFor(const catalog::RetainedDatabase& database, const std::vector<Policy>& policies,
                                                SystemTime now) const {
  DatabasePlan plan;
  plan.database = database;
  LF_ASSIGN_OR_RETURN(plan.snapshots, policies_.SnapshotsOf(plan.database.seen));
  const auto chosen = Choose(policies, database.labels);
  if (chosen.ok() && *chosen == nullptr) {
    plan.verdicts.assign(plan.snapshots.size(), Verdict{.keep = true, .reasons = {"no policy"}});
    return plan;
  }
  if (chosen.ok() && !(*chosen)->retains) {
    plan.verdicts.assign(plan.snapshots.size(),
                         Verdict{.keep = true, .reasons = {fmt::format("policy {} has no [retention]", (*chosen)->name)}});
    return plan;
  }
  if (!chosen.ok()) {
    plan.hold = fmt::format("POLICY_TIE: {}", MessageOf(chosen.status()));
  } else if (database.held) {
    plan.hold = fmt::format("{}: {}", database.hold_reason, database.hold_message);
  } else if (const auto anomaly = FindAnomaly(plan.snapshots, database.released_sequence, (*chosen)->keep_last); anomaly.has_value()) {
    plan.hold = fmt::format("{}: {}", anomaly->reason, anomaly->message);
  }
  const Policy none;
  const Policy& policy = chosen.ok() ? **chosen : none;
  plan.policy = policy.name;
  plan.verdicts = Plan(plan.snapshots, policy, now, plan.hold);
  return plan;
}

absl::StatusOr<RunTotals> Retention::Run(SystemTime now, absl::FunctionRef<bool()> stop) {
  RunTotals totals;
  LF_ASSIGN_OR_RETURN(const std::vector<Policy> policies, Policies());
  if (policies.empty()) return totals;
  for (int64_t after = 0;;) {
    LF_ASSIGN_OR_RETURN(const std::vector<catalog::RetainedDatabase> databases, policies_.DatabasesAfter(after, kDatabasesAtOnce));
    if (databases.empty()) return totals;
    for (const catalog::RetainedDatabase& database : databases) {
      after = database.seen.database;
      if (stop()) return totals;
      LF_ASSIGN_OR_RETURN(DatabasePlan plan, PlanFor(database, policies, now));
      if (plan.policy.empty() && plan.hold.empty()) continue;
      ++totals.databases;
      if (!plan.hold.empty()) {
        ++totals.held;
        const size_t colon = plan.hold.find(": ");
        const std::string reason = plan.hold.substr(0, colon);
        // A tie ends with the labels that make it.
        if (!database.held && reason != "POLICY_TIE") {
          LF_RETURN_IF_ERROR(policies_.Hold(database.device, database.name, reason, plan.hold.substr(colon + 2), now));
        }
        continue;
      }
      std::vector<SnapshotId> go;
      for (size_t i = 0; i < plan.snapshots.size(); ++i) {
        if (!plan.verdicts[i].keep) go.push_back(plan.snapshots[i].id);
      }
      for (size_t at = 0; at < go.size(); at += catalog::DeletionCatalog::kAtOnce) {
        const size_t some = std::min(go.size() - at, static_cast<size_t>(catalog::DeletionCatalog::kAtOnce));
        const auto trashed = deletions_.TrashPlanned(plan.database.seen, std::span(go).subspan(at, some), "policy:" + plan.policy, now);
        if (absl::IsAborted(trashed.status())) {
          ++totals.void_plans;
          break;
        }
        LF_RETURN_IF_ERROR(trashed.status());
        totals.trashed += *trashed;
      }
      if (!go.empty()) LF_RETURN_IF_ERROR(write_marks_());
    }
  }
}

absl::Status Retention::CheckTies(const std::vector<Policy>& policies) const {
  for (std::string after;;) {
    LF_ASSIGN_OR_RETURN(const std::vector<catalog::LabelledDevice> devices, policies_.DevicesAfter(after, kDatabasesAtOnce));
    if (devices.empty()) break;
    after = devices.back().id;
    for (const catalog::LabelledDevice& device : devices)
      LF_RETURN_IF_ERROR(Annotate(Choose(policies, device.labels).status(), "device " + device.name));
  }
  // Also of those that are active no more.
  for (int64_t after = 0;;) {
    LF_ASSIGN_OR_RETURN(const std::vector<catalog::RetainedDatabase> databases, policies_.DatabasesAfter(after, kDatabasesAtOnce));
    if (databases.empty()) return absl::OkStatus();
    for (const catalog::RetainedDatabase& database : databases) {
      after = database.seen.database;
      LF_RETURN_IF_ERROR(Annotate(Choose(policies, database.labels).status(), "device " + database.device_name));
    }
  }
}

}  // namespace litefleet::retention
