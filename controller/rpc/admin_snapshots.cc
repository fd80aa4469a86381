#include "common/base/status.h"
#include "controller/rpc/admin_handlers.h"
#include "controller/rpc/admin_requests.h"

namespace litefleet::rpc {

absl::StatusOr<v1::ListSnapshotsResponse> AdminHandlers::ListSnapshots(const v1::ListSnapshotsRequest& request) const {
  LF_ASSIGN_OR_RETURN(const int page_size, CheckedPageSize(request.page_size()));
  DeviceId device;
  std::string database;
  if (request.parent().find('/') != std::string::npos) {
    LF_ASSIGN_OR_RETURN(const DatabaseReference reference, ResolveDatabaseReference(request.parent(), "parent"));
    device = DeviceId(reference.device.id());
    LF_ASSIGN_OR_RETURN(const v1::Database known, deps_.snapshots->GetDatabase(device, reference.database));
    database = known.name();
  } else if (!request.parent().empty()) {
    LF_ASSIGN_OR_RETURN(const v1::Device found, deps_.identities->ResolveDevice(request.parent()));
    device = DeviceId(found.id());
  }
  LF_ASSIGN_OR_RETURN(catalog::Page<v1::Snapshot> page, deps_.snapshots->List(device, database, page_size, request.page_token()));
  v1::ListSnapshotsResponse response;
  for (v1::Snapshot& snapshot : page.items) *response.add_snapshots() = std::move(snapshot);
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
