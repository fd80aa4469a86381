// Who is connected, what was ordered, how far it is: devices' control sessions on one side, operators on the other.
//
// Thread safety: all members may be called from any thread; those that touch the catalog block for a commit, so call them from an
// executor. Ownership: sessions register and unregister themselves. Operations live in the catalog; this only caches who listens.
#ifndef LITEFLEET_CONTROLLER_FLEET_FLEET_H_
#define LITEFLEET_CONTROLLER_FLEET_FLEET_H_

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::fleet {

// The sending half of one control stream. Send never blocks; the queue behind it is bounded, and a full one ends the stream.
class DeviceLink {
 public:
  virtual ~DeviceLink() = default;
  virtual void Send(const v1::ControlResponse& message) = 0;
  // Cancels the call at once.
  virtual void Close(const absl::Status& why) = 0;
};

class Fleet {
 public:
  virtual ~Fleet() = default;

  // ---- for control streams: called in the order of the stream, one call at a time for a link
  virtual absl::Status Connected(const DeviceId& device, std::shared_ptr<DeviceLink> link, const v1::Hello& hello) = 0;
  virtual absl::Status Received(const DeviceId& device, DeviceLink& link, const v1::ControlRequest& message) = 0;
  virtual void Disconnected(const DeviceId& device, DeviceLink& link) = 0;

  // ---- for operators
  virtual bool IsConnected(const DeviceId& device) const = 0;
  virtual int ConnectedCount() const = 0;
  // Ends the stream of a device; with the reason DEVICE_REVOKED also all of its operations.
  virtual void Disconnect(const DeviceId& device, const absl::Status& why) = 0;

  // Policies, or labels of devices, are others than before: connected devices are told soon, the others when they connect. Does not block.
  virtual void PoliciesChanged() = 0;

  struct BackupOrder {
    DeviceId device;
    std::string database;
    v1::Method method = v1::METHOD_UNSPECIFIED;
    bool full = false;
    std::optional<v1::DumpOptions> dump = std::nullopt;  // unset: as the device is configured
  };
  // All or none become durable. `ordered_by` is "operator:NAME".
  virtual absl::StatusOr<std::vector<v1::Operation>> StartBackups(const std::vector<BackupOrder>& orders, std::chrono::seconds expire,
                                                                  const std::string& request_id, const std::string& ordered_by) = 0;
  // `order` is complete but for nothing; the device is the target's.
  virtual absl::StatusOr<v1::Operation> StartRestore(const DeviceId& device, const v1::RestoreOrder& order, std::chrono::seconds expire,
                                                     const std::string& request_id, const std::string& ordered_by) = 0;
  // As StartRestore.
  virtual absl::StatusOr<v1::Operation> StartUndo(const DeviceId& device, const v1::UndoOrder& order, std::chrono::seconds expire,
                                                  const std::string& request_id, const std::string& ordered_by) = 0;
  // As StartRestore. An agent that is too old fails it: ORDER_UNKNOWN.
  virtual absl::StatusOr<v1::Operation> StartDropUndo(const DeviceId& device, const v1::DropUndoOrder& order, std::chrono::seconds expire,
                                                      const std::string& request_id, const std::string& ordered_by) = 0;
  // Asks the device what a restore or an undo would do; kUnavailable DEVICE_OFFLINE when it is not connected, kDeadlineExceeded after
  // `timeout`. `done` is called once. The id of the query is set here.
  virtual void QueryPlan(const DeviceId& device, const v1::Query& query, std::chrono::milliseconds timeout,
                         absl::AnyInvocable<void(absl::StatusOr<v1::RestorePlan>)> done) = 0;
  // Errors: kNotFound OPERATION_NOT_FOUND, kFailedPrecondition OPERATION_ENDED. Cancelling twice is fine.
  virtual absl::StatusOr<v1::Operation> Cancel(const OperationId& operation) = 0;

  // Operations that the controller itself carries out (checks): durable on return; the owner reports with Update.
  virtual absl::StatusOr<v1::Operation> StartLocal(v1::OperationKind kind, const DeviceId& device, const std::string& database,
                                                   const SnapshotId& snapshot, const std::string& request_id, const std::string& ordered_by,
                                                   std::function<void()> on_cancel) = 0;
  // Errors: kFailedPrecondition OPERATION_ENDED. Reports of progress alone are not made durable each.
  virtual absl::Status UpdateLocal(const v1::Operation& operation) = 0;
  // Those of a former run of the controller that have not ended, oldest first: the owner adopts them and goes on.
  virtual std::vector<v1::Operation> ActiveLocal() const = 0;
  virtual absl::Status AdoptLocal(const OperationId& operation, std::function<void()> on_cancel) = 0;

  // What the catalog does not have: the newest progress, and whether the device is connected. For every operation that is shown.
  virtual void FillLive(v1::Operation& operation) const = 0;

  // Called with the operation now and at every change until it has ended or Unwatch; never under a lock. No call begins after
  // Unwatch, which does not wait: one may be under way, on another thread.
  using Watcher = std::function<void(const v1::Operation&)>;
  virtual absl::StatusOr<uint64_t> Watch(const OperationId& operation, Watcher watcher) = 0;
  virtual void Unwatch(uint64_t watch) = 0;

  // Whether a restore order of this device names this snapshot and has not ended: the right to fetch (design law 7).
  virtual absl::StatusOr<bool> MayFetch(const DeviceId& device, const OperationId& operation, const SnapshotId& snapshot) = 0;
};

}  // namespace litefleet::fleet

#endif  // LITEFLEET_CONTROLLER_FLEET_FLEET_H_
