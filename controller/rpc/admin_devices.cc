#include "common/base/status.h"
#include "controller/rpc/admin_handlers.h"
#include "controller/rpc/admin_requests.h"
#include "fmt/format.h"

namespace litefleet::rpc {

void AdminHandlers::Complete(v1::Device& device) const { device.set_connected(deps_.fleet->IsConnected(DeviceId(device.id()))); }

absl::StatusOr<v1::ListDevicesResponse> AdminHandlers::ListDevices(const v1::ListDevicesRequest& request) const {
  LF_ASSIGN_OR_RETURN(const int page_size, CheckedPageSize(request.page_size()));
  LF_RETURN_IF_ERROR(CheckSelector(request.selector()));
  LF_ASSIGN_OR_RETURN(catalog::Page<v1::Device> page, deps_.identities->ListDevices(request.selector(), page_size, request.page_token()));
  v1::ListDevicesResponse response;
  for (v1::Device& device : page.items) {
    Complete(device);
    *response.add_devices() = std::move(device);
  }
  response.set_next_page_token(page.next_token);
  return response;
}

absl::StatusOr<v1::GetDeviceResponse> AdminHandlers::GetDevice(const v1::GetDeviceRequest& request) const {
  LF_ASSIGN_OR_RETURN(v1::Device device, deps_.identities->ResolveDevice(request.device()));
  Complete(device);
  LF_ASSIGN_OR_RETURN(const std::vector<retention::Policy> policies, deps_.retention->Policies());
  const retention::Labels labels = retention::ToLabels(device.labels());
  if (const absl::StatusOr<v1::DevicePolicy> policy = retention::CarriedTo(policies, labels); policy.ok()) {
    device.set_policy(policy->name());
    device.set_policy_version(policy->version());
  } else {
    device.add_policy_problems(MessageOf(policy.status()));
  }
  v1::GetDeviceResponse response;
  std::string token;
  do {
    LF_ASSIGN_OR_RETURN(catalog::Page<v1::Database> page, deps_.snapshots->ListDatabases(DeviceId(device.id()), std::nullopt, 1000, token));
    for (v1::Database& database : page.items) *response.add_databases() = std::move(database);
    token = page.next_token;
  } while (!token.empty());
  LF_RETURN_IF_ERROR(AddUsage(device));
  *response.mutable_device() = std::move(device);
  return response;
}

absl::Status AdminHandlers::AddUsage(v1::Device& device) const {
  if (deps_.quotas == nullptr) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const retention::Quotas::Standing standing, deps_.quotas->Of(DeviceId(device.id())));
  v1::DeviceUsage& usage = *device.mutable_usage();
  usage.set_device_id(device.id());
  usage.set_device_name(device.name());
  usage.set_snapshots(standing.holds.snapshots);
  usage.set_held_bytes(standing.holds.bytes);
  usage.set_quota_bytes(standing.quota.bytes);
  usage.set_quota_snapshots(standing.quota.snapshots);
  return absl::OkStatus();
}

absl::StatusOr<v1::UpdateDeviceResponse> AdminHandlers::UpdateDevice(const v1::UpdateDeviceRequest& request) const {
  if (!request.has_name() && request.set_labels().empty() && request.remove_labels().empty()) {
    return Invalid("NOTHING_TO_CHANGE", "neither a name nor a label was given");
  }
  std::optional<std::string> name;
  if (request.has_name()) {
    if (!IsName(request.name())) {
      return Invalid("NAME_INVALID", fmt::format("'{}' is no name for a device", request.name()),
                     "a name is 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit");
    }
    name = request.name();
  }
  std::map<std::string, std::string> set_labels;
  for (const auto& [key, value] : request.set_labels()) {
    LF_RETURN_IF_ERROR(CheckLabel(key, value));
    set_labels.emplace(key, value);
  }
  std::vector<std::string> remove_labels;
  for (const std::string& key : request.remove_labels()) {
    LF_RETURN_IF_ERROR(CheckLabel(key, ""));
    if (set_labels.contains(key)) return Invalid("LABEL_INVALID", fmt::format("label '{}' is both set and removed", key));
    remove_labels.push_back(key);
  }
  LF_ASSIGN_OR_RETURN(const v1::Device found, deps_.identities->ResolveDevice(request.device()));
  LF_ASSIGN_OR_RETURN(v1::Device device, deps_.identities->UpdateDevice(DeviceId(found.id()), name, set_labels, remove_labels));
  if (!set_labels.empty() || !remove_labels.empty()) deps_.fleet->PoliciesChanged();
  Complete(device);
  v1::UpdateDeviceResponse response;
  *response.mutable_device() = std::move(device);
  return response;
}

absl::StatusOr<v1::RevokeDeviceResponse> AdminHandlers::RevokeDevice(const v1::RevokeDeviceRequest& request) const {
  LF_ASSIGN_OR_RETURN(const v1::Device found, deps_.identities->ResolveDevice(request.device()));
  const DeviceId id(found.id());
  LF_ASSIGN_OR_RETURN(catalog::RevokedDevice revoked, deps_.identities->RevokeDevice(id));
  deps_.fleet->Disconnect(
      id, Error(absl::StatusCode::kPermissionDenied, "DEVICE_REVOKED", fmt::format("device {} was revoked", revoked.device.name()),
                "enrol it anew with a token of `litefleet token create --for-device`"));
  LF_RETURN_IF_ERROR(revoked.recorded);
  Complete(revoked.device);
  v1::RevokeDeviceResponse response;
  *response.mutable_device() = std::move(revoked.device);
  return response;
}

absl::StatusOr<v1::ForgetDeviceResponse> AdminHandlers::ForgetDevice(const v1::ForgetDeviceRequest& request,
                                                                     const std::string& ordered_by) const {
  LF_ASSIGN_OR_RETURN(const v1::Device device, deps_.identities->ResolveDevice(request.device()));
  if (device.state() != v1::DEVICE_STATE_REVOKED) {
    return Error(absl::StatusCode::kFailedPrecondition, "DEVICE_ACTIVE", fmt::format("device {} is active", device.name()),
                 fmt::format("revoke it first: litefleet device revoke {}", device.name()));
  }
  const DeviceId id(device.id());
  LF_ASSIGN_OR_RETURN(const catalog::Page<v1::Snapshot> snapshots, deps_.snapshots->List(id, "", 1, ""));
  if (!snapshots.items.empty() && !request.delete_snapshots()) {
    return Error(
        absl::StatusCode::kFailedPrecondition, "DEVICE_HAS_SNAPSHOTS",
        fmt::format("device {} has snapshots, which would be lost", device.name()),
        fmt::format("`litefleet snapshot list {}` shows them; add --delete-snapshots, or keep the revoked device, which can do nothing",
                    device.name()));
  }
  v1::ForgetDeviceResponse response;
  int64_t deleted = 0;
  LF_RETURN_IF_ERROR(DeleteDataOf(id, ordered_by, deleted));
  LF_RETURN_IF_ERROR(deps_.identities->ForgetDevice(id));
  LF_RETURN_IF_ERROR(deps_.deletions->DropForgottenDatabases());
  response.set_snapshots_deleted(deleted);
  return response;
}

absl::Status AdminHandlers::DeleteDataOf(const DeviceId& device, const std::string& ordered_by, int64_t& deleted) const {
  catalog::DeletionCatalog& deletions = *deps_.deletions;
  LF_RETURN_IF_ERROR(deletions.BeginForget(device));
  for (;;) {
    LF_ASSIGN_OR_RETURN(const int trashed, deletions.TrashSome(device, ordered_by));
    if (trashed == 0) break;
    deleted += trashed;
  }
  // What somebody reads just now stays until the next prune.
  LF_RETURN_IF_ERROR(deps_.marks->WriteDue());
  for (int64_t after = 0;;) {
    const std::vector<store::PackInfo> packs = deps_.store->Packs();
    LF_ASSIGN_OR_RETURN(const catalog::DeletionCatalog::Removed removed,
                        deletions.RemoveSome(FromUnixMillis(0), after, packs.empty() ? 0 : packs.back().id, deps_.is_read));
    after = removed.last_key;
    if (!removed.more) break;
  }
  for (;;) {
    LF_ASSIGN_OR_RETURN(const int dropped, deletions.DropSome(device));
    if (dropped == 0) return absl::OkStatus();
  }
}

}  // namespace litefleet::rpc
