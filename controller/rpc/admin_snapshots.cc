#include "common/base/status.h"
#include "controller/catalog/gap_catalog.h"
#include "controller/rpc/admin_handlers.h"
#include "controller/rpc/admin_requests.h"

namespace litefleet::rpc {

absl::StatusOr<v1::ListSnapshotsResponse> AdminHandlers::ListSnapshots(const v1::ListSnapshotsRequest& request) const {
  LF_ASSIGN_OR_RETURN(const int page_size, CheckedPageSize(request.page_size()));
  LF_ASSIGN_OR_RETURN(const auto parent, ResolveParent(request.parent()));
  LF_ASSIGN_OR_RETURN(catalog::Page<v1::Snapshot> page,
                      deps_.snapshots->List(parent.first, parent.second, page_size, request.page_token()));
  v1::ListSnapshotsResponse response;
  for (v1::Snapshot& snapshot : page.items) *response.add_snapshots() = std::move(snapshot);
  response.set_next_page_token(page.next_token);
  return response;
}

absl::StatusOr<std::pair<DeviceId, std::string>> AdminHandlers::ResolveParent(const std::string& parent) const {
  if (parent.empty()) return std::pair<DeviceId, std::string>();
  if (parent.find('/') == std::string::npos) {
    LF_ASSIGN_OR_RETURN(const v1::Device found, deps_.identities->ResolveDevice(parent));
    return std::pair(DeviceId(found.id()), std::string());
  }
  LF_ASSIGN_OR_RETURN(const DatabaseReference reference, ResolveDatabaseReference(parent, "parent"));
  const DeviceId device(reference.device.id());
  const absl::StatusOr<v1::Database> known = deps_.snapshots->GetDatabase(device, reference.database);
  if (!known.ok()) return ByName(known.status(), reference.device);
  return std::pair(device, known->name());
}

absl::StatusOr<v1::ListGapsResponse> AdminHandlers::ListGaps(const v1::ListGapsRequest& request) const {
  LF_ASSIGN_OR_RETURN(const int page_size, CheckedPageSize(request.page_size()));
  LF_ASSIGN_OR_RETURN(const auto parent, ResolveParent(request.parent()));
  LF_ASSIGN_OR_RETURN(
      catalog::Page<v1::Gap> page,
      catalog::GapCatalog(*deps_.catalog).List(parent.first, parent.second, request.open_only(), page_size, request.page_token()));
  v1::ListGapsResponse response;
  for (v1::Gap& gap : page.items) *response.add_gaps() = std::move(gap);
  response.set_next_page_token(page.next_token);
  return response;
}

absl::StatusOr<v1::GetSnapshotResponse> AdminHandlers::GetSnapshot(const v1::GetSnapshotRequest& request) const {
  LF_ASSIGN_OR_RETURN(v1::Snapshot snapshot, deps_.snapshots->Resolve(request.snapshot()));
  v1::GetSnapshotResponse response;
  *response.mutable_snapshot() = std::move(snapshot);
  return response;
}

absl::StatusOr<v1::CheckSnapshotResponse> AdminHandlers::CheckSnapshot(const v1::CheckSnapshotRequest& request,
                                                                       const std::string& ordered_by) const {
  LF_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  LF_ASSIGN_OR_RETURN(const v1::Snapshot snapshot, deps_.snapshots->Resolve(request.snapshot()));
  LF_ASSIGN_OR_RETURN(v1::Operation operation, deps_.verifier->Start(SnapshotId(snapshot.id()), request.request_id(), ordered_by));
  Complete(operation);
  v1::CheckSnapshotResponse response;
  *response.mutable_operation() = std::move(operation);
  return response;
}

absl::StatusOr<v1::DrillSnapshotResponse> AdminHandlers::DrillSnapshot(const v1::DrillSnapshotRequest& request,
                                                                       const std::string& ordered_by) const {
  LF_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  LF_ASSIGN_OR_RETURN(const v1::Snapshot snapshot, deps_.snapshots->Resolve(request.snapshot()));
  LF_ASSIGN_OR_RETURN(v1::Operation operation, deps_.verifier->StartDrill(SnapshotId(snapshot.id()), request.request_id(), ordered_by));
  Complete(operation);
  v1::DrillSnapshotResponse response;
  *response.mutable_operation() = std::move(operation);
  return response;
}

}  // namespace litefleet::rpc
