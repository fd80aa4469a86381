#include "controller/retention/quotas.h"

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::retention {
namespace {

std::string Mebibytes(int64_t bytes) { return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / 1048576); }

absl::Status Exceeded(std::string message) {
  return Error(absl::StatusCode::kResourceExhausted, "QUOTA_EXCEEDED", message,
               "the operator raises [quota] in controller.toml or in the device's policy, or deletes snapshots and prunes; then the "
               "backup is taken at its next try");
}

}  // namespace

absl::StatusOr<Quotas::PolicyList> Quotas::Policies(std::pair<int64_t, int64_t> version) const {
  {
    MutexLock lock(mu_);
    if (cached_ != nullptr && cached_version_ == version) return cached_;
  }
  LF_ASSIGN_OR_RETURN(const std::vector<catalog::PolicyRow> rows, policies_.List());
  auto list = std::make_shared<std::vector<Policy>>();
  for (const catalog::PolicyRow& row : rows) {
    absl::StatusOr<Policy> policy = ParsePolicy(row.text, "policy " + row.name);
    if (policy.ok()) list->push_back(*std::move(policy));  // retention says what is wrong with it
  }
  MutexLock lock(mu_);
  cached_ = std::move(list);
  cached_version_ = version;
  return cached_;
}

absl::StatusOr<Quotas::Standing> Quotas::Of(const DeviceId& device) const {
  Standing standing;
  LF_ASSIGN_OR_RETURN(standing.holds, holdings_.Get(device));
  standing.quota = common_;
  if (standing.holds.policies.second == 0) return standing;
  LF_ASSIGN_OR_RETURN(const PolicyList policies, Policies(standing.holds.policies));
  const auto chosen = Choose(*policies, standing.holds.labels);
  if (!chosen.ok() || *chosen == nullptr) return standing;
  standing.quota.bytes = (*chosen)->quota_bytes.value_or(common_.bytes);
  standing.quota.snapshots = (*chosen)->quota_snapshots.value_or(common_.snapshots);
  return standing;
}

bool Quotas::AnyQuota() const {
  if (common_.bytes > 0 || common_.snapshots > 0) return true;
  const uint64_t changes = policies_.changes();
  {
    MutexLock lock(mu_);
    if (looked_at_ == changes) return any_;
  }
  const absl::StatusOr<std::vector<catalog::PolicyRow>> rows = policies_.List();
  if (!rows.ok()) return true;
  bool any = false;
  for (const catalog::PolicyRow& row : *rows) {
    const absl::StatusOr<Policy> policy = ParsePolicy(row.text, "policy " + row.name);
    any |= policy.ok() && (policy->quota_bytes.value_or(0) > 0 || policy->quota_snapshots.value_or(0) > 0);
  }
  MutexLock lock(mu_);
  looked_at_ = changes;
  any_ = any;
  return any;
}

absl::Status Quotas::Check(const DeviceId& device, bool goes_on) const {
  if (!AnyQuota()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const Standing standing, Of(device));
  const Quota& quota = standing.quota;
  if (quota.bytes > 0 && standing.holds.bytes >= quota.bytes) {
    return Exceeded(
        fmt::format("the device holds {} in the store, its quota is {}", Mebibytes(standing.holds.bytes), Mebibytes(quota.bytes)));
  }
  if (!goes_on && quota.snapshots > 0 && standing.holds.snapshots >= quota.snapshots) {
    return Exceeded(fmt::format("the device has {} snapshots, its quota is {}", standing.holds.snapshots, quota.snapshots));
  }
  return absl::OkStatus();
}

}  // namespace litefleet::retention
