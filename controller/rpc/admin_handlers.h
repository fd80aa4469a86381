// What every call of AdminService does, without gRPC: requests are validated, references resolved, catalogs and the fleet asked.
//
// Not for agents' calls. Thread safety: all members may be called from any thread. They block (catalog, disk): call them from an
// executor, never from a reaction. Ownership: the dependencies are borrowed and must outlive this.
// Errors: INVALID_ARGUMENT with a reason that names the field, NOT_FOUND and FAILED_PRECONDITION AMBIGUOUS for references, and what the
// parts behind it report.
#ifndef LITEFLEET_CONTROLLER_RPC_ADMIN_HANDLERS_H_
#define LITEFLEET_CONTROLLER_RPC_ADMIN_HANDLERS_H_

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "controller/backup/catalog_backups.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/operation_catalog.h"
#include "controller/catalog/snapshot_catalog.h"
#include "controller/doctor/doctor.h"
#include "controller/fleet/fleet.h"
#include "controller/prune/maintenance.h"
#include "controller/restore/snapshot_reader.h"
#include "controller/retention/quotas.h"
#include "controller/scrub/scrubber.h"
#include "controller/verify/verifier.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::rpc {

// What a token is made from, after validation.
struct TokenWish {
  int uses = 1;
  std::chrono::seconds ttl{3600};
  std::map<std::string, std::string> labels;
  DeviceId for_device;  // empty: a new device
};

struct AdminDependencies {
  catalog::CatalogDb* catalog = nullptr;
  catalog::IdentityCatalog* identities = nullptr;
  catalog::SnapshotCatalog* snapshots = nullptr;
  catalog::OperationCatalog* operations = nullptr;
  fleet::Fleet* fleet = nullptr;
  verify::Verifier* verifier = nullptr;
  restore::SnapshotReaderFactory* readers = nullptr;
  catalog::DeletionCatalog* deletions = nullptr;
  catalog::PruneCatalog* pruning = nullptr;
  catalog::PolicyCatalog* policies = nullptr;
  catalog::QuotaCatalog* holdings = nullptr;
  retention::Quotas* quotas = nullptr;
  store::Store* store = nullptr;
  prune::MarkWriter* marks = nullptr;
  prune::Maintenance* maintenance = nullptr;
  scrub::Scrubber* scrubber = nullptr;
  retention::Retention* retention = nullptr;
  retention::ControllerTime* time = nullptr;
  const backup::CatalogBackups* backups = nullptr;
  // Somebody reads this snapshot now.
  std::function<bool(const SnapshotId&)> is_read;
  // What others than these handlers know to be wrong.
  std::function<std::vector<v1::Alarm>()> alarms;
  const Clock* clock = nullptr;
  // Makes a token durable and says its secret.
  std::function<absl::StatusOr<v1::CreateTokenResponse>(const TokenWish&)> issue_token;
  // DATA: where store/, ca/, catalog.db and the socket are.
  std::string data_directory;
  doctor::Parts doctor;
  std::chrono::milliseconds plan_timeout{10'000};
};

// What an operator has to look at.
struct Damage {
  int64_t quarantined_chunks = 0;
  int64_t wanted_chunks = 0;  // of these those that devices are asked for
  int64_t damaged_snapshots = 0;
  int32_t holds = 0;  // on retention
};

class AdminHandlers {
 public:
  explicit AdminHandlers(AdminDependencies dependencies) : deps_(std::move(dependencies)) {}

  template <class T>
  using Answer = absl::StatusOr<T>;

  // All but the version of gRPC, which is not seen here.
  Answer<v1::GetVersionResponse> GetVersion(const v1::GetVersionRequest& request) const;
  Answer<v1::GetStatusResponse> GetStatus(const v1::GetStatusRequest& request) const;
  Answer<v1::RunDoctorResponse> RunDoctor(const v1::RunDoctorRequest& request) const;

  Answer<v1::CreateTokenResponse> CreateToken(const v1::CreateTokenRequest& request) const;
  Answer<v1::ListTokensResponse> ListTokens(const v1::ListTokensRequest& request) const;
  Answer<v1::RevokeTokenResponse> RevokeToken(const v1::RevokeTokenRequest& request) const;

  Answer<v1::ListDevicesResponse> ListDevices(const v1::ListDevicesRequest& request) const;
  Answer<v1::GetDeviceResponse> GetDevice(const v1::GetDeviceRequest& request) const;
  Answer<v1::UpdateDeviceResponse> UpdateDevice(const v1::UpdateDeviceRequest& request) const;
  Answer<v1::RevokeDeviceResponse> RevokeDevice(const v1::RevokeDeviceRequest& request) const;
  Answer<v1::ForgetDeviceResponse> ForgetDevice(const v1::ForgetDeviceRequest& request, const std::string& ordered_by) const;

  Answer<v1::ListDatabasesResponse> ListDatabases(const v1::ListDatabasesRequest& request) const;
  Answer<v1::GetDatabaseResponse> GetDatabase(const v1::GetDatabaseRequest& request) const;
  Answer<v1::StartBackupsResponse> StartBackups(const v1::StartBackupsRequest& request, const std::string& ordered_by) const;

  Answer<v1::ListSnapshotsResponse> ListSnapshots(const v1::ListSnapshotsRequest& request) const;
  Answer<v1::GetSnapshotResponse> GetSnapshot(const v1::GetSnapshotRequest& request) const;
  Answer<v1::ListGapsResponse> ListGaps(const v1::ListGapsRequest& request) const;
  Answer<v1::CheckSnapshotResponse> CheckSnapshot(const v1::CheckSnapshotRequest& request, const std::string& ordered_by) const;
  Answer<v1::DrillSnapshotResponse> DrillSnapshot(const v1::DrillSnapshotRequest& request, const std::string& ordered_by) const;

  Answer<v1::DeleteSnapshotResponse> DeleteSnapshot(const v1::DeleteSnapshotRequest& request, const std::string& ordered_by) const;
  Answer<v1::PinSnapshotResponse> PinSnapshot(const v1::PinSnapshotRequest& request) const;
  Answer<v1::UnpinSnapshotResponse> UnpinSnapshot(const v1::UnpinSnapshotRequest& request) const;
  Answer<v1::ListTrashResponse> ListTrash(const v1::ListTrashRequest& request) const;
  Answer<v1::RestoreTrashResponse> RestoreTrash(const v1::RestoreTrashRequest& request) const;
  Answer<v1::GetStoreStatsResponse> GetStoreStats(const v1::GetStoreStatsRequest& request) const;
  Answer<v1::StartPruneResponse> StartPrune(const v1::StartPruneRequest& request, const std::string& ordered_by) const;
  Answer<v1::StartScrubResponse> StartScrub(const v1::StartScrubRequest& request, const std::string& ordered_by) const;

  Answer<v1::ApplyPolicyResponse> ApplyPolicy(const v1::ApplyPolicyRequest& request) const;
  Answer<v1::ListPoliciesResponse> ListPolicies(const v1::ListPoliciesRequest& request) const;
  Answer<v1::GetPolicyResponse> GetPolicy(const v1::GetPolicyRequest& request) const;
  Answer<v1::DeletePolicyResponse> DeletePolicy(const v1::DeletePolicyRequest& request) const;
  Answer<v1::ListPolicyVerdictsResponse> ListPolicyVerdicts(const v1::ListPolicyVerdictsRequest& request) const;
  Answer<v1::ListHoldsResponse> ListHolds(const v1::ListHoldsRequest& request) const;
  Answer<v1::ReleaseHoldResponse> ReleaseHold(const v1::ReleaseHoldRequest& request) const;

  // Answers at once or when the device has answered; `done` is called exactly once, on any thread.
  void PlanRestore(const v1::PlanRestoreRequest& request, absl::AnyInvocable<void(Answer<v1::PlanRestoreResponse>)> done) const;
  Answer<v1::StartRestoreResponse> StartRestore(const v1::StartRestoreRequest& request, const std::string& ordered_by) const;
  // As PlanRestore.
  void PlanUndo(const v1::PlanUndoRequest& request, absl::AnyInvocable<void(Answer<v1::PlanUndoResponse>)> done) const;
  Answer<v1::StartUndoResponse> StartUndo(const v1::StartUndoRequest& request, const std::string& ordered_by) const;
  Answer<v1::StartDropUndoResponse> StartDropUndo(const v1::StartDropUndoRequest& request, const std::string& ordered_by) const;

  Answer<v1::ListOperationsResponse> ListOperations(const v1::ListOperationsRequest& request) const;
  Answer<v1::GetOperationResponse> GetOperation(const v1::GetOperationRequest& request) const;
  Answer<v1::CancelOperationResponse> CancelOperation(const v1::CancelOperationRequest& request) const;

  Answer<Damage> GetDamage() const;
  Answer<v1::CatalogBackups> GetCatalogBackups() const;

  // Names of devices and whether they are connected, which the catalog does not store.
  void Complete(v1::Operation& operation) const;
  const AdminDependencies& dependencies() const { return deps_; }

 private:
  struct DatabaseReference {
    v1::Device device;
    std::string database;
  };
  // A restore with every reference resolved.
  struct ResolvedRestore {
    v1::Snapshot snapshot;
    v1::Device target_device;
    v1::Database target;
    v1::RestoreOrder order;  // complete but for new_timeline
    std::optional<v1::GapAround> gap;
    std::optional<v1::Snapshot> after;  // the next state, where a time was asked for
  };

  struct ResolvedUndo {
    v1::Device device;
    v1::UndoOrder order;  // complete but for new_timeline
  };

  // "DEVICE/DATABASE"; the device must exist, the database need not.
  Answer<DatabaseReference> ResolveDatabaseReference(const std::string& reference, std::string_view field) const;
  Answer<ResolvedUndo> ResolveUndo(const std::string& database, const std::string& restore_operation) const;
  Answer<ResolvedRestore> ResolveRestore(const v1::RestoreTarget& wanted) const;
  // The snapshot that shows what the database held at a time, and the gap that the time lies in.
  absl::Status ResolveAt(const DatabaseReference& source, const v1::RestoreTarget& wanted, ResolvedRestore& resolved) const;
  // A device, a database, or all: what is not named is empty.
  Answer<std::pair<DeviceId, std::string>> ResolveParent(const std::string& parent) const;
  // All databases of all active devices that match.
  Answer<std::vector<fleet::Fleet::BackupOrder>> SelectDatabases(const std::string& selector) const;
  void Complete(v1::Device& device) const;
  absl::Status AddUsage(v1::Device& device) const;
  Answer<v1::Policy> ToPolicy(const catalog::PolicyRow& row, const std::vector<retention::Policy>& all) const;
  absl::Status DeleteDataOf(const DeviceId& device, const std::string& ordered_by, int64_t& deleted) const;

  const AdminDependencies deps_;
};

}  // namespace litefleet::rpc

#endif  // LITEFLEET_CONTROLLER_RPC_ADMIN_HANDLERS_H_
