#include "common/base/status.h"
#include "controller/rpc/admin_handlers.h"
#include "controller/rpc/admin_requests.h"

namespace litefleet::rpc {

void AdminHandlers::Complete(v1::Operation& operation) const {
  deps_.fleet->FillLive(operation);
  if (operation.device_id().empty()) return;
  if (operation.device_name().empty()) {
    // A device that was forgotten has no name any more; its id is all there is to show.
    const auto device = deps_.identities->ResolveDevice(operation.device_id());
    operation.set_device_name(device.ok() ? device->name() : operation.device_id());
  }
}

absl::StatusOr<v1::ListOperationsResponse> AdminHandlers::ListOperations(const v1::ListOperationsRequest& request) const {
  LF_ASSIGN_OR_RETURN(const int page_size, CheckedPageSize(request.page_size()));
  DeviceId device;
  if (!request.device().empty()) {
    LF_ASSIGN_OR_RETURN(const v1::Device found, deps_.identities->ResolveDevice(request.device()));
    device = DeviceId(found.id());
  }
  LF_ASSIGN_OR_RETURN(catalog::Page<v1::Operation> page,
                      deps_.operations->List(device, request.active_only(), page_size, request.page_token()));
  v1::ListOperationsResponse response;
  for (v1::Operation& operation : page.items) {
    Complete(operation);
    *response.add_operations() = std::move(operation);
  }
  response.set_next_page_token(page.next_token);
  return response;
}

absl::StatusOr<v1::GetOperationResponse> AdminHandlers::GetOperation(const v1::GetOperationRequest& request) const {
  LF_ASSIGN_OR_RETURN(v1::Operation operation, deps_.operations->Resolve(request.operation()));
  Complete(operation);
  v1::GetOperationResponse response;
  *response.mutable_operation() = std::move(operation);
  return response;
}

absl::StatusOr<v1::CancelOperationResponse> AdminHandlers::CancelOperation(const v1::CancelOperationRequest& request) const {
  LF_ASSIGN_OR_RETURN(const v1::Operation found, deps_.operations->Resolve(request.operation()));
  LF_ASSIGN_OR_RETURN(v1::Operation operation, deps_.fleet->Cancel(OperationId(found.id())));
  Complete(operation);
  v1::CancelOperationResponse response;
  *response.mutable_operation() = std::move(operation);
  return response;
}

}  // namespace litefleet::rpc
