// A fleet that does nothing and remembers what it was asked.
#ifndef LITEFLEET_TESTS_UNIT_CONTROLLER_ADMIN_FAKE_FLEET_H_
#define LITEFLEET_TESTS_UNIT_CONTROLLER_ADMIN_FAKE_FLEET_H_

#include <chrono>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/ids.h"
#include "controller/fleet/fleet.h"

namespace litefleet::rpc {

class FakeFleet final : public fleet::Fleet {
 public:
  absl::Status Connected(const DeviceId&, std::shared_ptr<fleet::DeviceLink>, const v1::Hello&) override { return absl::OkStatus(); }
  absl::Status Received(const DeviceId&, fleet::DeviceLink&, const v1::ControlRequest&) override { return absl::OkStatus(); }
  void Disconnected(const DeviceId&, fleet::DeviceLink&) override {}
  bool IsConnected(const DeviceId& device) const override { return connected.contains(device.value()); }
  int ConnectedCount() const override { return static_cast<int>(connected.size()); }
  void Disconnect(const DeviceId& device, const absl::Status&) override { connected.erase(device.value()); }
  void PoliciesChanged() override { ++policies_changed; }
  int policies_changed = 0;
  absl::StatusOr<std::vector<v1::Operation>> StartBackups(const std::vector<BackupOrder>& orders, std::chrono::seconds expire,
                                                          const std::string& request_id, const std::string& ordered_by) override {
    backups = orders;
    last_expire = expire;
    last_request = request_id;
    std::vector<v1::Operation> operations;
    for (const BackupOrder& order : orders) {
      v1::Operation& operation = operations.emplace_back();
      operation.set_id(NewUlid(SystemTime()));
      operation.set_kind(v1::OPERATION_KIND_BACKUP);
      operation.set_device_id(order.device.value());
      operation.set_database(order.database);
      operation.set_ordered_by(ordered_by);
    }
    return operations;
  }
  v1::Operation Ordered(v1::OperationKind kind, const DeviceId& device, const std::string& request_id) {
    last_request = request_id;
    v1::Operation operation;
    operation.set_kind(kind);
    operation.set_device_id(device.value());
    return operation;
  }
  absl::StatusOr<v1::Operation> StartRestore(const DeviceId& device, const v1::RestoreOrder& order, std::chrono::seconds,
                                             const std::string& request_id, const std::string&) override {
    restores.emplace_back(device, order);
    return Ordered(v1::OPERATION_KIND_RESTORE, device, request_id);
  }
  absl::StatusOr<v1::Operation> StartUndo(const DeviceId& device, const v1::UndoOrder& order, std::chrono::seconds,
                                          const std::string& request_id, const std::string&) override {
    undos.push_back(order);
    return Ordered(v1::OPERATION_KIND_UNDO, device, request_id);
  }
  absl::StatusOr<v1::Operation> StartDropUndo(const DeviceId& device, const v1::DropUndoOrder& order, std::chrono::seconds,
                                              const std::string& request_id, const std::string&) override {
    dropped_undos.push_back(order);
    return Ordered(v1::OPERATION_KIND_DROP_UNDO, device, request_id);
  }
  void QueryPlan(const DeviceId&, const v1::Query& query, std::chrono::milliseconds,
                 absl::AnyInvocable<void(absl::StatusOr<v1::RestorePlan>)> done) override {
    asked = query.restore_plan();
    asked_undo = query.undo_plan();
    done(plan);
  }
  absl::StatusOr<v1::Operation> Cancel(const OperationId&) override { return v1::Operation(); }
  absl::StatusOr<v1::Operation> StartLocal(v1::OperationKind, const DeviceId&, const std::string&, const SnapshotId&, const std::string&,
                                           const std::string&, std::function<void()>) override {
    return v1::Operation();
  }
  absl::Status UpdateLocal(const v1::Operation&) override { return absl::OkStatus(); }
  std::vector<v1::Operation> ActiveLocal() const override { return {}; }
  absl::Status AdoptLocal(const OperationId&, std::function<void()>) override { return absl::OkStatus(); }
  void FillLive(v1::Operation& operation) const override { operation.set_device_connected(IsConnected(DeviceId(operation.device_id()))); }
  absl::StatusOr<uint64_t> Watch(const OperationId&, Watcher) override { return 1; }
  void Unwatch(uint64_t) override {}
  absl::StatusOr<bool> MayFetch(const DeviceId&, const OperationId&, const SnapshotId&) override { return false; }

  std::set<std::string> connected;
  std::vector<BackupOrder> backups;
  std::vector<std::pair<DeviceId, v1::RestoreOrder>> restores;
  v1::RestoreOrder asked;
  v1::UndoOrder asked_undo;
  std::vector<v1::UndoOrder> undos;
  std::vector<v1::DropUndoOrder> dropped_undos;
  absl::StatusOr<v1::RestorePlan> plan = v1::RestorePlan();
  std::chrono::seconds last_expire{0};
  std::string last_request;
};

}  // namespace litefleet::rpc

#endif  // LITEFLEET_TESTS_UNIT_CONTROLLER_ADMIN_FAKE_FLEET_H_
