#include "controller/rpc/auth.h"

#include <algorithm>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

struct Method {
  std::string_view name;
  Role role;
};

// A method that is not here is refused: a new call has to be entered on purpose.
constexpr Method kMethods[] = {
    {"/grpc.health.v1.Health/Check", Role::kNone},
    {"/grpc.health.v1.Health/Watch", Role::kNone},

    {"/litefleet.v1.AgentService/Enroll", Role::kNone},
    {"/litefleet.v1.AgentService/RenewCertificate", Role::kDevice},
    {"/litefleet.v1.AgentService/Control", Role::kDevice},
    {"/litefleet.v1.AgentService/Upload", Role::kDevice},
    {"/litefleet.v1.AgentService/Fetch", Role::kDevice},
    {"/litefleet.v1.AgentService/SendWanted", Role::kDevice},

    {"/litefleet.v1.AdminService/GetVersion", Role::kViewer},
    {"/litefleet.v1.AdminService/GetStatus", Role::kViewer},
    {"/litefleet.v1.AdminService/RunDoctor", Role::kViewer},
    {"/litefleet.v1.AdminService/CreateToken", Role::kOperator},
    {"/litefleet.v1.AdminService/ListTokens", Role::kViewer},
    {"/litefleet.v1.AdminService/RevokeToken", Role::kOperator},
    {"/litefleet.v1.AdminService/ListDevices", Role::kViewer},
    {"/litefleet.v1.AdminService/GetDevice", Role::kViewer},
    {"/litefleet.v1.AdminService/UpdateDevice", Role::kOperator},
    {"/litefleet.v1.AdminService/RevokeDevice", Role::kOperator},
    {"/litefleet.v1.AdminService/ForgetDevice", Role::kOperator},
    {"/litefleet.v1.AdminService/ListDatabases", Role::kViewer},
    {"/litefleet.v1.AdminService/GetDatabase", Role::kViewer},
    {"/litefleet.v1.AdminService/StartBackups", Role::kOperator},
    {"/litefleet.v1.AdminService/ListSnapshots", Role::kViewer},
    {"/litefleet.v1.AdminService/GetSnapshot", Role::kViewer},
    {"/litefleet.v1.AdminService/ListGaps", Role::kViewer},
    {"/litefleet.v1.AdminService/CheckSnapshot", Role::kOperator},
    {"/litefleet.v1.AdminService/DrillSnapshot", Role::kOperator},
    {"/litefleet.v1.AdminService/DownloadSnapshot", Role::kOperator},
    {"/litefleet.v1.AdminService/DeleteSnapshot", Role::kOperator},
    {"/litefleet.v1.AdminService/PinSnapshot", Role::kOperator},
    {"/litefleet.v1.AdminService/UnpinSnapshot", Role::kOperator},
    {"/litefleet.v1.AdminService/ListTrash", Role::kViewer},
    {"/litefleet.v1.AdminService/RestoreTrash", Role::kOperator},
    {"/litefleet.v1.AdminService/GetStoreStats", Role::kViewer},
    {"/litefleet.v1.AdminService/StartPrune", Role::kOperator},
    {"/litefleet.v1.AdminService/StartScrub", Role::kOperator},
    {"/litefleet.v1.AdminService/ApplyPolicy", Role::kOperator},
    {"/litefleet.v1.AdminService/ListPolicies", Role::kViewer},
    {"/litefleet.v1.AdminService/GetPolicy", Role::kViewer},
    {"/litefleet.v1.AdminService/DeletePolicy", Role::kOperator},
    {"/litefleet.v1.AdminService/ListPolicyVerdicts", Role::kViewer},
    {"/litefleet.v1.AdminService/ListHolds", Role::kViewer},
    {"/litefleet.v1.AdminService/ReleaseHold", Role::kOperator},
    {"/litefleet.v1.AdminService/PlanRestore", Role::kViewer},
    {"/litefleet.v1.AdminService/StartRestore", Role::kOperator},
    {"/litefleet.v1.AdminService/PlanUndo", Role::kViewer},
    {"/litefleet.v1.AdminService/StartUndo", Role::kOperator},
    {"/litefleet.v1.AdminService/StartDropUndo", Role::kOperator},
    {"/litefleet.v1.AdminService/ListOperations", Role::kViewer},
    {"/litefleet.v1.AdminService/GetOperation", Role::kViewer},
    {"/litefleet.v1.AdminService/WatchOperation", Role::kViewer},
    {"/litefleet.v1.AdminService/CancelOperation", Role::kOperator},
    {"/litefleet.v1.ImportService/ImportSnapshot", Role::kOperator},
};

}  // namespace

absl::StatusOr<Role> RequiredRole(std::string_view method) {
  const auto found = std::find_if(std::begin(kMethods), std::end(kMethods), [&](const Method& each) { return each.name == method; });
  if (found != std::end(kMethods)) return found->role;
  return Error(absl::StatusCode::kPermissionDenied, "METHOD_UNKNOWN", fmt::format("nobody may call {}", method));
}

}  // namespace litefleet::rpc
