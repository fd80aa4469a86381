// The admin API as the commands see it: blocking calls, and streams that a reader thread hands on. gRPC stays behind this.
//
// Thread safety: calls may come from any thread. Deadlines: every call has one; a stream has none, so who opens one cancels it.
// Errors: those of the service; kUnavailable CONTROLLER_UNREACHABLE where there is no connection.
#ifndef LITEFLEET_CONTROLLER_CLI_ADMIN_CLIENT_H_
#define LITEFLEET_CONTROLLER_CLI_ADMIN_CLIENT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/rpc/address.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::cli {

class AdminClient {
 public:
  // `identity_file` may be empty for a unix socket. Nothing is sent yet.
  static absl::StatusOr<std::unique_ptr<AdminClient>> Make(const rpc::Address& address, const std::string& identity_file);
  ~AdminClient();
  AdminClient(const AdminClient&) = delete;
  AdminClient& operator=(const AdminClient&) = delete;

  template <class T>
  using Answer = absl::StatusOr<T>;

  Answer<v1::GetVersionResponse> GetVersion(const v1::GetVersionRequest& request);
  Answer<v1::GetStatusResponse> GetStatus(const v1::GetStatusRequest& request);
  Answer<v1::RunDoctorResponse> RunDoctor(const v1::RunDoctorRequest& request);
  Answer<v1::CreateTokenResponse> CreateToken(const v1::CreateTokenRequest& request);
  Answer<v1::ListTokensResponse> ListTokens(const v1::ListTokensRequest& request);
  Answer<v1::RevokeTokenResponse> RevokeToken(const v1::RevokeTokenRequest& request);
  Answer<v1::ListDevicesResponse> ListDevices(const v1::ListDevicesRequest& request);
  Answer<v1::GetDeviceResponse> GetDevice(const v1::GetDeviceRequest& request);
  Answer<v1::UpdateDeviceResponse> UpdateDevice(const v1::UpdateDeviceRequest& request);
  Answer<v1::RevokeDeviceResponse> RevokeDevice(const v1::RevokeDeviceRequest& request);
  Answer<v1::ForgetDeviceResponse> ForgetDevice(const v1::ForgetDeviceRequest& request);
  Answer<v1::ListDatabasesResponse> ListDatabases(const v1::ListDatabasesRequest& request);
  Answer<v1::GetDatabaseResponse> GetDatabase(const v1::GetDatabaseRequest& request);
  Answer<v1::StartBackupsResponse> StartBackups(const v1::StartBackupsRequest& request);
  Answer<v1::ListSnapshotsResponse> ListSnapshots(const v1::ListSnapshotsRequest& request);
  Answer<v1::GetSnapshotResponse> GetSnapshot(const v1::GetSnapshotRequest& request);
  Answer<v1::ListGapsResponse> ListGaps(const v1::ListGapsRequest& request);
  Answer<v1::CheckSnapshotResponse> CheckSnapshot(const v1::CheckSnapshotRequest& request);
  Answer<v1::DrillSnapshotResponse> DrillSnapshot(const v1::DrillSnapshotRequest& request);
  Answer<v1::DeleteSnapshotResponse> DeleteSnapshot(const v1::DeleteSnapshotRequest& request);
  Answer<v1::PinSnapshotResponse> PinSnapshot(const v1::PinSnapshotRequest& request);
  Answer<v1::UnpinSnapshotResponse> UnpinSnapshot(const v1::UnpinSnapshotRequest& request);
  Answer<v1::ListTrashResponse> ListTrash(const v1::ListTrashRequest& request);
  Answer<v1::RestoreTrashResponse> RestoreTrash(const v1::RestoreTrashRequest& request);
  Answer<v1::GetStoreStatsResponse> GetStoreStats(const v1::GetStoreStatsRequest& request);
  Answer<v1::StartPruneResponse> StartPrune(const v1::StartPruneRequest& request);
  Answer<v1::StartScrubResponse> StartScrub(const v1::StartScrubRequest& request);
  Answer<v1::ApplyPolicyResponse> ApplyPolicy(const v1::ApplyPolicyRequest& request);
  Answer<v1::ListPoliciesResponse> ListPolicies(const v1::ListPoliciesRequest& request);
  Answer<v1::GetPolicyResponse> GetPolicy(const v1::GetPolicyRequest& request);
  Answer<v1::DeletePolicyResponse> DeletePolicy(const v1::DeletePolicyRequest& request);
  Answer<v1::ListPolicyVerdictsResponse> ListPolicyVerdicts(const v1::ListPolicyVerdictsRequest& request);
  Answer<v1::ListHoldsResponse> ListHolds(const v1::ListHoldsRequest& request);
  Answer<v1::ReleaseHoldResponse> ReleaseHold(const v1::ReleaseHoldRequest& request);
  Answer<v1::PlanRestoreResponse> PlanRestore(const v1::PlanRestoreRequest& request);
  Answer<v1::StartRestoreResponse> StartRestore(const v1::StartRestoreRequest& request);
  Answer<v1::PlanUndoResponse> PlanUndo(const v1::PlanUndoRequest& request);
  Answer<v1::StartUndoResponse> StartUndo(const v1::StartUndoRequest& request);
  Answer<v1::StartDropUndoResponse> StartDropUndo(const v1::StartDropUndoRequest& request);
  Answer<v1::ListOperationsResponse> ListOperations(const v1::ListOperationsRequest& request);
  Answer<v1::GetOperationResponse> GetOperation(const v1::GetOperationRequest& request);
  Answer<v1::CancelOperationResponse> CancelOperation(const v1::CancelOperationRequest& request);

  // A running call that somebody else may end. Cancel may come at any time from any thread.
  class Cancellable {
   public:
    virtual ~Cancellable() = default;
    virtual void Cancel() = 0;
  };

  // Hands on each state until the operation has ended; then `on_end` gets OK, else why the stream broke. Both are called on the
  // stream's own thread, which the returned object ends and joins.
  std::unique_ptr<Cancellable> Watch(const std::string& operation, std::function<void(const v1::Operation&)> on_change,
                                     std::function<void(const absl::Status&)> on_end);

  // Calls `on_header` once and then `on_pages` in order on this thread; what they return other than OK ends the download with it.
  // `cancel` gets, before the first call, what ends the download from elsewhere.
  absl::Status Download(const std::string& snapshot, const std::function<void(Cancellable*)>& cancel,
                        const std::function<absl::Status(const v1::Snapshot&)>& on_header,
                        const std::function<absl::Status(v1::DownloadPages)>& on_pages);

  const rpc::Address& address() const { return address_; }

 private:
  struct Connection;
  AdminClient(rpc::Address address, std::unique_ptr<Connection> connection);

  const rpc::Address address_;
  const std::unique_ptr<Connection> connection_;
};

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_ADMIN_CLIENT_H_
