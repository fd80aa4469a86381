// A fleet over a real catalog in a temporary directory, with a fake clock, fake links and fake reports.
#ifndef LITEFLEET_TESTS_UNIT_CONTROLLER_FLEET_FLEET_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_CONTROLLER_FLEET_FLEET_FIXTURE_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/catalog/schema.h"
#include "controller/fleet/device_fleet.h"

namespace litefleet::fleet {

class FakeLink final : public DeviceLink {
 public:
  void Send(const v1::ControlResponse& message) override {
    MutexLock lock(mu_);
    sent_.push_back(message);
  }
  void Close(const absl::Status& why) override {
    MutexLock lock(mu_);
    if (!closed_.has_value()) closed_ = why;
  }
  std::vector<v1::ControlResponse> Take() {
    MutexLock lock(mu_);
    return std::exchange(sent_, {});
  }
  std::string ClosedReason() const {
    MutexLock lock(mu_);
    return closed_.has_value() ? ReasonOf(*closed_) : "";
  }
  // What was sent since the last look, a word and an operation each: "order 01J...".
  std::vector<std::string> TakeWords() {
    std::vector<std::string> words;
    for (const v1::ControlResponse& message : Take()) words.push_back(WordOf(message));
    return words;
  }

 private:
  static std::string WordOf(const v1::ControlResponse& message) {
    switch (message.message_case()) {
      case v1::ControlResponse::kWelcome:
        return "welcome";
      case v1::ControlResponse::kOrder:
        return "order " + message.order().operation_id();
      case v1::ControlResponse::kResultRecorded:
        return "recorded " + message.result_recorded().operation_id();
      case v1::ControlResponse::kQuery:
        return "query";
      case v1::ControlResponse::kCancel:
        return "cancel " + message.cancel().operation_id();
      case v1::ControlResponse::kPolicy:
        return "policy " + std::to_string(message.policy().version());
      case v1::ControlResponse::kSnapshotGone:
        return "gone " + message.snapshot_gone().snapshot_id();
      case v1::ControlResponse::kGapRecorded:
        return "gap " + message.gap_recorded().gap_id();
      case v1::ControlResponse::kChainChecked:
        return (message.chain_checked().equal() ? "equal " : "differs ") + message.chain_checked().snapshot_id();
      default:
        return "nothing";
    }
  }

  mutable Mutex mu_;
  std::vector<v1::ControlResponse> sent_ ABSL_GUARDED_BY(mu_);
  std::optional<absl::Status> closed_ ABSL_GUARDED_BY(mu_);
};

class FakeReports final : public DeviceReports {
 public:
  absl::StatusOr<std::string> NameOfActive(const DeviceId& device) override {
    MutexLock lock(mu_);
    if (revoke_on_look == 1) revoked.insert(device);
    if (revoke_on_look > 0) --revoke_on_look;
    if (revoked.contains(device)) return Error(absl::StatusCode::kPermissionDenied, "DEVICE_REVOKED", "revoked");
    return "name-of-" + device.value().substr(0, 4);
  }
  absl::Status Said(const DeviceId&, SystemTime, const v1::Hello* hello, int64_t clock_offset_ms, const v1::Health* health) override {
    MutexLock lock(mu_);
    if (health != nullptr) last_health = *health;
    ++(hello != nullptr ? hellos : healths);
    offset_ms = clock_offset_ms;
    return absl::OkStatus();
  }
  absl::Status Databases(const DeviceId&, SystemTime, std::span<const v1::DatabaseHealth> reported) override {
    MutexLock lock(mu_);
    databases.assign(reported.begin(), reported.end());
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> NewestSnapshot(const DeviceId&, const std::string& database) override {
    MutexLock lock(mu_);
    return newest[database];
  }

  absl::Status Gap(const DeviceId&, const v1::CoverageGap& gap, SystemTime) override {
    MutexLock lock(mu_);
    if (gap_status.ok()) gaps.push_back(gap);
    return gap_status;
  }
  absl::StatusOr<std::optional<bool>> CheckChain(const DeviceId&, const v1::ChainCheck&, SystemTime) override { return chain_equal; }
  Mutex mu_;
  std::optional<bool> chain_equal;
  std::vector<v1::CoverageGap> gaps;
  absl::Status gap_status;
  std::set<DeviceId> revoked;
  int revoke_on_look = 0;  // 2: the second look finds the device revoked
  int hellos = 0, healths = 0;
  v1::Health last_health;
  std::map<std::string, std::string> newest;  // snapshot by database
  int64_t offset_ms = 0;
  std::vector<v1::DatabaseHealth> databases;
};

class FleetTest : public testing::Test {
 protected:
  const DeviceId kDevice{"11111111-1111-4111-8111-111111111111"};
  const DeviceId kOther{"22222222-2222-4222-8222-222222222222"};
  const SnapshotId kSnapshot{"01JSNAPSH0TSNAPSH0TSNAPSH0"};

  void SetUp() override {
    std::string pattern = testing::TempDir() + "/fleet-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    Start();
  }
  void TearDown() override {
    Stop();
    std::filesystem::remove_all(directory_);
  }
  void Stop() {
    fleet_.reset();
    operations_.reset();
    db_.reset();
  }
  // A restart of the controller: only what was durable is left.
  void Start() {
    Stop();
    auto db = catalog::CatalogDb::Open(directory_ + "/catalog.db", true, catalog::Migrations());
    ASSERT_TRUE(db.ok()) << db.status();
    db_ = *std::move(db);
    operations_.emplace(*db_);
    options_.own_ticker = false;
    auto fleet = DeviceFleet::Create({.operations = &*operations_,
                                      .reports = &reports_,
                                      .clock = &clock_,
                                      .controller_version = "test",
                                      .policy_of = [this](const DeviceId& device) { return PolicyOf(device); },
                                      .time = time_},
                                     options_);
    ASSERT_TRUE(fleet.ok()) << fleet.status();
    fleet_ = *std::move(fleet);
  }

  std::shared_ptr<FakeLink> Connect(const DeviceId& device, const std::vector<std::string>& active = {}) {
    auto link = std::make_shared<FakeLink>();
    v1::Hello hello;
    hello.set_protocol_version(1);
    *hello.mutable_device_time() = ToProtoTime(clock_.Now() - std::chrono::seconds(5));
    for (const std::string& id : active) hello.add_active_operation_ids(id);
    const absl::Status status = fleet_->Connected(device, link, hello);
    EXPECT_TRUE(status.ok()) << status;
    return link;
  }
  std::string Backup(const DeviceId& device, const std::string& request_id = {}, std::chrono::seconds expire = std::chrono::hours(1)) {
    auto made = fleet_->StartBackups({{.device = device, .database = "db"}}, expire, request_id, "operator:ada");
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? made->front().id() : "";
  }
  std::string Restore(const DeviceId& device) {
    v1::RestoreOrder order;
    order.set_database("db");
    order.set_snapshot_id(kSnapshot.value());
    auto made = fleet_->StartRestore(device, order, std::chrono::hours(1), "", "operator:ada");
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? made->id() : "";
  }

  absl::StatusOr<v1::DevicePolicy> PolicyOf(const DeviceId& device) {
    MutexLock lock(reports_.mu_);
    if (!policy_error_.ok()) return policy_error_;
    return policies_[device];
  }

  absl::Status Accept(FakeLink& link, const std::string& id, const DeviceId& device) {
    v1::ControlRequest message;
    message.mutable_order_accepted()->set_operation_id(id);
    return fleet_->Received(device, link, message);
  }
  absl::Status Progress(FakeLink& link, const std::string& id, int64_t done, int64_t total, const DeviceId& device,
                        v1::OperationKind kind = v1::OPERATION_KIND_UNSPECIFIED) {
    v1::ControlRequest message;
    v1::OperationProgress& progress = *message.mutable_progress();
    progress.set_operation_id(id);
    progress.mutable_progress()->set_done_bytes(done);
    progress.mutable_progress()->set_total_bytes(total);
    progress.set_kind(kind);
    if (kind != v1::OPERATION_KIND_UNSPECIFIED) progress.set_database("db");
    return fleet_->Received(device, link, message);
  }
  absl::Status Result(FakeLink& link, const std::string& id, v1::OperationState state, const DeviceId& device,
                      v1::OperationKind kind = v1::OPERATION_KIND_UNSPECIFIED) {
    v1::ControlRequest message;
    v1::OperationResult& result = *message.mutable_result();
    result.set_operation_id(id);
    result.set_state(state);
    result.set_kind(kind);
    if (kind != v1::OPERATION_KIND_UNSPECIFIED) result.set_database("db");
    if (state == v1::OPERATION_STATE_SUCCEEDED) result.set_snapshot_id(kSnapshot.value());
    if (state == v1::OPERATION_STATE_FAILED) {
      result.mutable_error()->set_code(9);
      result.mutable_error()->set_message("it did not work");
      result.mutable_error()->mutable_info()->set_reason("WRITER_STALL");
    }
    return fleet_->Received(device, link, message);
  }
  v1::Operation Stored(const std::string& id) {
    const auto row = operations_->Get(OperationId(id));
    EXPECT_TRUE(row.ok()) << row.status();
    return row.ok() ? row->operation : v1::Operation();
  }
  v1::OperationState State(const std::string& id) { return Stored(id).state(); }

  std::string directory_;
  FakeClock clock_;
  FakeReports reports_;
  std::map<DeviceId, v1::DevicePolicy> policies_;
  absl::Status policy_error_;
  DeviceFleetOptions options_;
  std::function<SystemTime()> time_;  // before Start; empty: the clock's
  std::unique_ptr<catalog::CatalogDb> db_;
  std::optional<catalog::OperationCatalog> operations_;
  std::unique_ptr<DeviceFleet> fleet_;
};
using Words = std::vector<std::string>;

}  // namespace litefleet::fleet

#endif  // LITEFLEET_TESTS_UNIT_CONTROLLER_FLEET_FLEET_FIXTURE_H_
