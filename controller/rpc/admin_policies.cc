// Policies, what they would do, and holds.
#include <charconv>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/rpc/admin_handlers.h"
#include "controller/rpc/admin_requests.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

constexpr size_t kMaxPolicyText = 64 << 10;
constexpr std::string_view kClock = "clock";

absl::StatusOr<int64_t> NumberToken(const std::string& token) {
  int64_t number = 0;
  if (token.empty()) return number;
  const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), number);
  if (error == std::errc() && end == token.data() + token.size() && number >= 0) return number;
  return Invalid("PAGE_TOKEN_INVALID", "the page token is not one that was given", "begin with the first page");
}

absl::Status CheckText(const std::string& text) {
  if (text.size() <= kMaxPolicyText) return absl::OkStatus();
  return Invalid("POLICY_TOO_LARGE", fmt::format("a policy of {} bytes, at most {} are allowed", text.size(), kMaxPolicyText));
}

google::protobuf::Duration ToDuration(std::chrono::milliseconds duration) {
  google::protobuf::Duration result;
  result.set_seconds(duration.count() / 1000);
  result.set_nanos(static_cast<int32_t>(duration.count() % 1000 * 1'000'000));
  return result;
}

void Replace(std::vector<retention::Policy>& policies, const retention::Policy& policy) {
  std::erase_if(policies, [&](const retention::Policy& each) { return each.name == policy.name; });
  policies.push_back(policy);
}

constexpr size_t kVerdictsAPage = 2000;  // each has a snapshot: under 1 MiB together

// "DATABASE:SKIP": the verdicts of this database are next, but for so many that were told.
struct VerdictToken {
  int64_t database = 0;
  int64_t skip = 0;
};

absl::StatusOr<VerdictToken> ParseVerdictToken(const std::string& token) {
  const size_t colon = token.find(':');
  VerdictToken result;
  LF_ASSIGN_OR_RETURN(result.database, NumberToken(token.substr(0, colon)));
  if (colon == std::string::npos) return result;
  LF_ASSIGN_OR_RETURN(result.skip, NumberToken(token.substr(colon + 1)));
  return result;
}

absl::Status PolicyNotFound(const std::string& name) {
  return Error(absl::StatusCode::kNotFound, "POLICY_NOT_FOUND", fmt::format("there is no policy {}", name),
               "`litefleet policy list` shows the policies");
}

}  // namespace

absl::StatusOr<v1::Policy> AdminHandlers::ToPolicy(const catalog::PolicyRow& row, const std::vector<retention::Policy>& all) const {
  v1::Policy result;
  LF_ASSIGN_OR_RETURN(const retention::Policy policy, retention::ParsePolicy(row.text, "policy " + row.name));
  result.set_name(row.name);
  result.set_selector(policy.selector);
  result.set_version(row.version);
  *result.mutable_applied_at() = ToProtoTime(row.applied_at);
  result.set_text(row.text);
  result.set_keep_last(policy.keep_last);
  result.set_floor(policy.floor);
  for (const retention::Tier& tier : policy.tiers) {
    v1::RetentionTier& out = *result.add_tiers();
    *out.mutable_every() = ToDuration(tier.every);
    *out.mutable_keep_for() = ToDuration(tier.keep_for);
  }
  int64_t databases = 0;
  for (int64_t after = 0;;) {
    LF_ASSIGN_OR_RETURN(const std::vector<catalog::RetainedDatabase> page, deps_.policies->DatabasesAfter(after, 1000));
    if (page.empty()) break;
    for (const catalog::RetainedDatabase& database : page) {
      after = database.seen.database;
      const auto chosen = retention::Choose(all, database.labels);
      databases += chosen.ok() && *chosen != nullptr && (*chosen)->name == row.name ? 1 : 0;
    }
  }
  result.set_databases(databases);
  *result.mutable_carried() = policy.carried;
  result.mutable_carried()->set_version(row.version);
  int64_t devices = 0;
  int64_t acknowledged = 0;
  std::string token;
  do {
    LF_ASSIGN_OR_RETURN(const catalog::Page<v1::Device> page, deps_.identities->ListDevices("", 1000, token));
    for (const v1::Device& device : page.items) {
      if (device.state() != v1::DEVICE_STATE_ACTIVE) continue;
      const auto chosen = retention::Choose(all, retention::ToLabels(device.labels()));
      if (!chosen.ok() || *chosen == nullptr || (*chosen)->name != row.name) continue;
      ++devices;
      acknowledged += device.policy_acknowledged() == row.version ? 1 : 0;
    }
    token = page.next_token;
  } while (!token.empty());
  result.set_devices(devices);
  result.set_devices_acknowledged(acknowledged);
  return result;
}

absl::StatusOr<v1::ApplyPolicyResponse> AdminHandlers::ApplyPolicy(const v1::ApplyPolicyRequest& request) const {
  LF_RETURN_IF_ERROR(CheckText(request.text()));
  LF_ASSIGN_OR_RETURN(const retention::Policy policy, retention::ParsePolicy(request.text(), "policy"));
  LF_ASSIGN_OR_RETURN(std::vector<retention::Policy> all, deps_.retention->Policies());
  Replace(all, policy);
  LF_RETURN_IF_ERROR(deps_.retention->CheckTies(all));
  LF_ASSIGN_OR_RETURN(const catalog::PolicyRow row, deps_.policies->Put(policy.name, request.text(), deps_.clock->Now()));
  deps_.fleet->PoliciesChanged();
  v1::ApplyPolicyResponse response;
  LF_ASSIGN_OR_RETURN(*response.mutable_policy(), ToPolicy(row, all));
  return response;
}

absl::StatusOr<v1::ListPoliciesResponse> AdminHandlers::ListPolicies(const v1::ListPoliciesRequest& request) const {
  LF_ASSIGN_OR_RETURN(const int page_size, CheckedPageSize(request.page_size()));
  LF_ASSIGN_OR_RETURN(const std::vector<catalog::PolicyRow> rows, deps_.policies->List());
  LF_ASSIGN_OR_RETURN(const std::vector<retention::Policy> all, deps_.retention->Policies());
  v1::ListPoliciesResponse response;
  for (const catalog::PolicyRow& row : rows) {
    if (row.name <= request.page_token()) continue;
    if (response.policies_size() == page_size) {
      response.set_next_page_token(response.policies(page_size - 1).name());
      break;
    }
    LF_ASSIGN_OR_RETURN(*response.add_policies(), ToPolicy(row, all));
  }
  return response;
}

absl::StatusOr<v1::GetPolicyResponse> AdminHandlers::GetPolicy(const v1::GetPolicyRequest& request) const {
  LF_ASSIGN_OR_RETURN(const std::vector<catalog::PolicyRow> rows, deps_.policies->List());
  LF_ASSIGN_OR_RETURN(const std::vector<retention::Policy> all, deps_.retention->Policies());
  for (const catalog::PolicyRow& row : rows) {
    if (row.name != request.policy()) continue;
    v1::GetPolicyResponse response;
    LF_ASSIGN_OR_RETURN(*response.mutable_policy(), ToPolicy(row, all));
    return response;
  }
  return PolicyNotFound(request.policy());
}

absl::StatusOr<v1::DeletePolicyResponse> AdminHandlers::DeletePolicy(const v1::DeletePolicyRequest& request) const {
  LF_RETURN_IF_ERROR(deps_.policies->Delete(request.policy()));
  deps_.fleet->PoliciesChanged();
  return v1::DeletePolicyResponse();
}

absl::StatusOr<v1::ListPolicyVerdictsResponse> AdminHandlers::ListPolicyVerdicts(const v1::ListPolicyVerdictsRequest& request) const {
  LF_RETURN_IF_ERROR(CheckedPageSize(request.page_size()).status());
  LF_RETURN_IF_ERROR(CheckText(request.text()));
  LF_ASSIGN_OR_RETURN(VerdictToken token, ParseVerdictToken(request.page_token()));
  LF_ASSIGN_OR_RETURN(std::vector<retention::Policy> all, deps_.retention->Policies());
  std::string name = request.policy();
  if (!request.text().empty()) {
    LF_ASSIGN_OR_RETURN(const retention::Policy policy, retention::ParsePolicy(request.text(), "policy"));
    Replace(all, policy);
    name = policy.name;
  }
  if (std::none_of(all.begin(), all.end(), [&](const retention::Policy& policy) { return policy.name == name; }))
    return PolicyNotFound(name);
  LF_ASSIGN_OR_RETURN(const retention::ControllerTime::Reading now, deps_.time->Tick());
  v1::ListPolicyVerdictsResponse response;
  // One database a page, but for those that other policies rule: a page has a bound, and a database may have many snapshots.
  while (response.verdicts().empty()) {
    LF_ASSIGN_OR_RETURN(const std::vector<catalog::RetainedDatabase> databases, deps_.policies->DatabasesAfter(token.database, 1));
    if (databases.empty()) return response;
    const auto skip = static_cast<size_t>(token.skip);
    token.skip = 0;
    LF_ASSIGN_OR_RETURN(const retention::DatabasePlan plan, deps_.retention->PlanFor(databases[0], all, now.time));
    const auto chosen = retention::Choose(all, databases[0].labels);
    const bool rules = chosen.ok() ? *chosen != nullptr && (*chosen)->name == name : true;
    if (rules) {
      const size_t end = std::min(plan.snapshots.size(), skip + kVerdictsAPage);
      for (size_t k = skip; k < end; ++k) {
        const size_t i = plan.snapshots.size() - 1 - k;
        v1::PolicyVerdict& verdict = *response.add_verdicts();
        LF_ASSIGN_OR_RETURN(*verdict.mutable_snapshot(), deps_.snapshots->Resolve(plan.snapshots[i].id.value()));
        verdict.set_keep(plan.verdicts[i].keep);
        for (const std::string& reason : plan.verdicts[i].reasons) verdict.add_reasons(reason);
      }
      if (end < plan.snapshots.size()) {
        response.set_next_page_token(fmt::format("{}:{}", token.database, end));
        return response;
      }
    }
    token.database = databases[0].seen.database;
  }
  response.set_next_page_token(std::to_string(token.database));
  return response;
}

absl::StatusOr<v1::ListHoldsResponse> AdminHandlers::ListHolds(const v1::ListHoldsRequest& request) const {
  LF_ASSIGN_OR_RETURN(const int page_size, CheckedPageSize(request.page_size()));
  LF_ASSIGN_OR_RETURN(const int64_t offset, NumberToken(request.page_token()));
  v1::ListHoldsResponse response;
  if (offset == 0) {
    LF_ASSIGN_OR_RETURN(const retention::ControllerTime::Reading now, deps_.time->Tick());
    if (!now.hold.empty()) {
      v1::Hold& hold = *response.add_holds();
      hold.set_subject(std::string(kClock));
      *hold.mutable_since() = ToProtoTime(now.time);
      hold.set_reason("CLOCK_ON_HOLD");
      hold.set_message(now.hold);
    }
  }
  LF_ASSIGN_OR_RETURN(const std::vector<catalog::HoldRow> rows, deps_.policies->Holds(page_size, offset));
  for (const catalog::HoldRow& row : rows) {
    v1::Hold& hold = *response.add_holds();
    hold.set_subject(fmt::format("{}/{}", row.device_name, row.database));
    *hold.mutable_since() = ToProtoTime(row.since);
    hold.set_reason(row.reason);
    hold.set_message(row.message);
  }
  if (static_cast<int>(rows.size()) == page_size) response.set_next_page_token(std::to_string(offset + page_size));
  return response;
}

absl::StatusOr<v1::ReleaseHoldResponse> AdminHandlers::ReleaseHold(const v1::ReleaseHoldRequest& request) const {
  if (request.subject() == kClock) {
    LF_RETURN_IF_ERROR(deps_.time->Confirm());
    return v1::ReleaseHoldResponse();
  }
  LF_ASSIGN_OR_RETURN(const DatabaseReference reference, ResolveDatabaseReference(request.subject(), "subject"));
  LF_RETURN_IF_ERROR(deps_.policies->Release(DeviceId(reference.device.id()), reference.database));
  return v1::ReleaseHoldResponse();
}

}  // namespace litefleet::rpc
