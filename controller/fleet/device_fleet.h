// The fleet of connected devices over the table of operations: implements Fleet. README.md has the states, bounds and lock order.
//
// Thread safety: all members may be called from any thread. Ownership: borrows what DeviceFleetParts names. Time: heartbeats, expiries and
// deadlines of questions are looked at by Tick, which a thread of its own calls five times a second unless the options say otherwise.
#ifndef LITEFLEET_CONTROLLER_FLEET_DEVICE_FLEET_H_
#define LITEFLEET_CONTROLLER_FLEET_DEVICE_FLEET_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/turn.h"
#include "controller/catalog/operation_catalog.h"
#include "controller/fleet/device_reports.h"
#include "controller/fleet/fleet.h"
#include "controller/fleet/operation_table.h"

namespace litefleet::fleet {

inline constexpr uint32_t kProtocolVersion = 1;

struct DeviceFleetParts {
  catalog::OperationCatalog* operations = nullptr;
  DeviceReports* reports = nullptr;
  const Clock* clock = nullptr;
  std::string controller_version;
  // After each hello and after the end of each order to heal, when the device can be given (further) orders; must not block. May be empty.
  std::function<void()> on_orderable = nullptr;
  // What the policy that rules it says to a device now. Errors: kFailedPrecondition POLICY_TIE: the device keeps what it has. May be empty.
  std::function<absl::StatusOr<v1::DevicePolicy>(const DeviceId&)> policy_of = nullptr;
  // What operations are stamped with, expire by and are forgotten by (retention/controller_time): a clock that jumps ends no order. May be
  // called under locks. Empty: the clock's time, whatever it says.
  std::function<SystemTime()> time = nullptr;
};

struct DeviceFleetOptions {
  std::chrono::milliseconds health_interval{30'000};
  // After a hello that does not name an operation which the device began, until it counts as lost.
  std::chrono::milliseconds lost_after{60'000};
  std::chrono::milliseconds persist_progress{30'000};
  std::chrono::milliseconds purge_interval{3'600'000};
  bool own_ticker = true;
};

class DeviceFleet final : public Fleet {
 public:
  static constexpr size_t kMaxOrdersPerDevice = 256;
  static constexpr size_t kMaxOwnPerDevice = 256;
  static constexpr int kMaxDatabases = 1000;
  static constexpr int kMaxNamedOperations = 4096;
  static constexpr size_t kMaxQueries = 16;
  // Devices that are told of changed policies at once.
  static constexpr size_t kPoliciesATick = 200;
  // On one stream: each costs a record in a pack.
  static constexpr int kMaxGaps = 10'000;

  // Takes over the operations that a former run left.
  static absl::StatusOr<std::unique_ptr<DeviceFleet>> Create(const DeviceFleetParts& parts, const DeviceFleetOptions& options);
  // Closes all links.
  ~DeviceFleet() override;

  absl::Status Connected(const DeviceId& device, std::shared_ptr<DeviceLink> link, const v1::Hello& hello) override;
  absl::Status Received(const DeviceId& device, DeviceLink& link, const v1::ControlRequest& message) override;
  void Disconnected(const DeviceId& device, DeviceLink& link) override;

  bool IsConnected(const DeviceId& device) const override;
  int ConnectedCount() const override;
  void Disconnect(const DeviceId& device, const absl::Status& why) override;
  void PoliciesChanged() override;
  absl::StatusOr<std::vector<v1::Operation>> StartBackups(const std::vector<BackupOrder>& orders, std::chrono::seconds expire,
                                                          const std::string& request_id, const std::string& ordered_by) override;
  absl::StatusOr<v1::Operation> StartRestore(const DeviceId& device, const v1::RestoreOrder& order, std::chrono::seconds expire,
                                             const std::string& request_id, const std::string& ordered_by) override;
  absl::StatusOr<v1::Operation> StartUndo(const DeviceId& device, const v1::UndoOrder& order, std::chrono::seconds expire,
                                          const std::string& request_id, const std::string& ordered_by) override;
  absl::StatusOr<v1::Operation> StartDropUndo(const DeviceId& device, const v1::DropUndoOrder& order, std::chrono::seconds expire,
                                              const std::string& request_id, const std::string& ordered_by) override;
  void QueryPlan(const DeviceId& device, const v1::Query& query, std::chrono::milliseconds timeout,
                 absl::AnyInvocable<void(absl::StatusOr<v1::RestorePlan>)> done) override;
  // Errors: kAlreadyExists HEAL_RUNNING: one for this database has not ended.
  absl::StatusOr<v1::Operation> StartHeal(const DeviceId& device, const v1::HealOrder& order, const std::string& ordered_by);
  // Whether one for this database has not ended.
  bool IsHealing(const DeviceId& device, const std::string& database) const;
  // Of an operation of this device that has not ended. Errors: kNotFound ORDER_NOT_FOUND.
  absl::StatusOr<v1::HealOrder> HealOrderOf(const DeviceId& device, const OperationId& operation) const;
  absl::StatusOr<v1::Operation> Cancel(const OperationId& operation) override;
  absl::StatusOr<v1::Operation> StartLocal(v1::OperationKind kind, const DeviceId& device, const std::string& database,
                                           const SnapshotId& snapshot, const std::string& request_id, const std::string& ordered_by,
                                           std::function<void()> on_cancel) override;
  absl::Status UpdateLocal(const v1::Operation& operation) override;
  std::vector<v1::Operation> ActiveLocal() const override;
  absl::Status AdoptLocal(const OperationId& operation, std::function<void()> on_cancel) override;
  void FillLive(v1::Operation& operation) const override;
  absl::StatusOr<uint64_t> Watch(const OperationId& operation, Watcher watcher) override;
  void Unwatch(uint64_t watch) override;
  absl::StatusOr<bool> MayFetch(const DeviceId& device, const OperationId& operation, const SnapshotId& snapshot) override;

  // Ends every stream with `why`, and lets nobody in from then on: the controller stops.
  void CloseAll(const absl::Status& why);
  // Looks at everything that waits for a time. Blocks for commits.
  void Tick();

 private:
  // What is not the operation's own: whether its device is there, and until when a cancel waits for it.
  void FillDevice(v1::Operation& operation) const;
  using PlanDone = absl::AnyInvocable<void(absl::StatusOr<v1::RestorePlan>)>;
  struct PendingQuery {
    SteadyTime deadline;
    PlanDone done;
  };
  // One connected stream. Members are guarded by mu_; `link` is constant.
  struct Session {
    struct ClockSeems {
      std::chrono::milliseconds offset;
      SteadyTime at;
    };
    std::shared_ptr<DeviceLink> link;
    std::chrono::milliseconds clock_offset{0};  // controller time minus device time
    std::optional<ClockSeems> clock_seems;      // a larger one that one message has said
    SteadyTime heard_at;
    std::optional<SteadyTime> health_saved_at;
    std::map<OperationId, SteadyTime> unnamed;  // own operations that hello did not name, and when they count as lost
    std::map<uint64_t, PendingQuery> queries;
    uint64_t next_query = 1;
    int64_t policy_version = 0;   // that the device has, or was sent
    std::string policy_answered;  // version and problems as they were kept last
    size_t configured_as = 0;     // the databases as they were kept last
    std::deque<v1::ControlResponse> outbox;
    bool flushing = false;
    int gaps = 0;
    std::map<std::string, std::string> named_older;  // by database: the snapshot that it named as its last one, and the newest then
  };
  using SessionPtr = std::shared_ptr<Session>;

  DeviceFleet(const DeviceFleetParts& parts, const DeviceFleetOptions& options, std::unique_ptr<OperationTable> table);

  SessionPtr CurrentSession(const DeviceId& device, const DeviceLink& link) const;
  // Takes the session out if it is the current one; then answers its questions and closes its link, if `why` is given.
  void Drop(const DeviceId& device, const SessionPtr& session, const absl::Status* why);
  void Flush(const SessionPtr& session);
  // Puts a message into the outbox of the device's session, if there is one.
  void SendTo(const DeviceId& device, v1::ControlResponse message);
  void Reconcile(const DeviceId& device, const SessionPtr& session, const v1::Hello& hello);
  // Puts the policy of the device into the outbox where it has another version.
  void OfferPolicy(const DeviceId& device, const SessionPtr& session);
  void OfferDuePolicies();

  absl::Status OnHealth(const DeviceId& device, const SessionPtr& session, const v1::Health& health);
  absl::Status OnAccepted(const DeviceId& device, const std::string& operation);
  // The device is told where the snapshot that it names as its last one is not the newest that can be restored.
  void TellOfGone(const DeviceId& device, const SessionPtr& session, std::span<const v1::DatabaseHealth> databases);
  absl::Status OnProgress(const DeviceId& device, const SessionPtr& session, const v1::OperationProgress& progress);
  absl::Status OnResult(const DeviceId& device, const SessionPtr& session, const v1::OperationResult& result);
  // A check of a chain counts as one: it may become one.
  absl::Status CountGap(const SessionPtr& session);
  absl::Status OnGap(const DeviceId& device, const SessionPtr& session, const v1::CoverageGap& gap);
  absl::Status OnChainCheck(const DeviceId& device, const SessionPtr& session, const v1::ChainCheck& check);
  void OnQueryResult(const SessionPtr& session, const v1::QueryResult& result);
  // The row of an operation that the device began and reports for the first time; kNotFound where the report does not say what it is.
  absl::StatusOr<catalog::OperationRow> OwnOperation(const DeviceId& device, const std::string& id, v1::OperationKind kind,
                                                     const std::string& database, const google::protobuf::Timestamp* started_at,
                                                     std::chrono::milliseconds clock_offset) const;

  // One order to one device: durable, then sent.
  absl::StatusOr<v1::Operation> StartOne(const DeviceId& device, catalog::OperationRow row, std::chrono::seconds expire);
  v1::Operation NewOperation(v1::OperationKind kind, const DeviceId& device, const std::string& database,
                             const std::string& ordered_by) const;
  absl::Status CheckRoom(const std::map<DeviceId, size_t>& wanted) const;
  void CallOnCancel(const OperationId& operation);
  void SendOrders(const std::vector<OperationTable::Entry>& entries);
  void EndAllOf(const DeviceId& device, const absl::Status& why);
  // From a message that says the device's time. REQUIRES: mu_.
  void MeasureClock(Session& session, std::chrono::milliseconds measured, SteadyTime now) const;
  SystemTime Time() const { return parts_.time ? parts_.time() : parts_.clock->Now(); }
  void RunTicker();

  const DeviceFleetParts parts_;
  const DeviceFleetOptions options_;
  const std::unique_ptr<OperationTable> table_;

  mutable Mutex mu_;
  std::map<DeviceId, SessionPtr> sessions_ ABSL_GUARDED_BY(mu_);
  std::map<OperationId, std::function<void()>> on_cancel_ ABSL_GUARDED_BY(mu_);  // of local operations
  SteadyTime persisted_at_ ABSL_GUARDED_BY(mu_);
  std::optional<SteadyTime> purged_at_ ABSL_GUARDED_BY(mu_);
  std::set<DeviceId> policies_due_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;  // nobody is let in any more
  // From asking for a policy to its place in the outbox: what was asked for last is what is sent last. Taken before mu_.
  Turn policy_turn_;
  CondVar wake_;
  std::thread ticker_;
};

}  // namespace litefleet::fleet

#endif  // LITEFLEET_CONTROLLER_FLEET_DEVICE_FLEET_H_
