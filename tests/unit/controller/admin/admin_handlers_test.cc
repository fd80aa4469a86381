// The operators' calls over real catalogs, with a fleet and a verifier that only remember what they were asked.
#include "controller/rpc/admin_handlers.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/catalog/schema.h"
#include "controller/rpc/admin_requests.h"
#include "controller/store/file_store.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

class FakeFleet final : public fleet::Fleet {
 public:
  absl::Status Connected(const DeviceId&, std::shared_ptr<fleet::DeviceLink>, const v1::Hello&) override { return absl::OkStatus(); }
  absl::Status Received(const DeviceId&, fleet::DeviceLink&, const v1::ControlRequest&) override { return absl::OkStatus(); }
  void Disconnected(const DeviceId&, fleet::DeviceLink&) override {}
  bool IsConnected(const DeviceId& device) const override { return connected.contains(device.value()); }
  int ConnectedCount() const override { return static_cast<int>(connected.size()); }
  void Disconnect(const DeviceId& device, const absl::Status&) override { connected.erase(device.value()); }
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
  absl::StatusOr<v1::Operation> StartRestore(const DeviceId& device, const v1::RestoreOrder& order, std::chrono::seconds,
                                             const std::string& request_id, const std::string&) override {
    restores.emplace_back(device, order);
    last_request = request_id;
    v1::Operation operation;
    operation.set_kind(v1::OPERATION_KIND_RESTORE);
    operation.set_device_id(device.value());
    return operation;
  }
  void QueryRestorePlan(const DeviceId&, const v1::RestoreOrder& order, std::chrono::milliseconds,
                        absl::AnyInvocable<void(absl::StatusOr<v1::RestorePlan>)> done) override {
    asked = order;
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
  absl::StatusOr<v1::RestorePlan> plan = v1::RestorePlan();
  std::chrono::seconds last_expire{0};
  std::string last_request;
};

class AdminTest : public testing::Test {
 protected:
  AdminTest() {
    char name[] = "/tmp/litefleet-admin-XXXXXX";
    directory_ = mkdtemp(name);
    db_ = std::move(catalog::CatalogDb::Open(directory_ + "/catalog.db", true, catalog::Migrations()).value());
    identities_ = std::make_unique<catalog::IdentityCatalog>(*db_);
    snapshots_ = std::make_unique<catalog::SnapshotCatalog>(*db_);
    operations_ = std::make_unique<catalog::OperationCatalog>(*db_);
    store::FileStoreOptions options;
    options.directory = directory_ + "/store";
    options.reserve_bytes = 0;
    store_ = std::move(store::FileStore::Open(options, clock_).value());
    deletions_ = std::make_unique<catalog::DeletionCatalog>(*db_);
    policies_ = std::make_unique<catalog::PolicyCatalog>(*db_);
    marks_ = std::make_unique<prune::MarkWriter>(*deletions_, *store_, clock_);
    time_ = std::make_unique<retention::ControllerTime>(*policies_, clock_, "boot");
    retention_ = std::make_unique<retention::Retention>(*policies_, *deletions_, [this] { return marks_->WriteDue(); });
    AdminDependencies parts;
    parts.deletions = deletions_.get();
    parts.policies = policies_.get();
    parts.store = store_.get();
    parts.marks = marks_.get();
    parts.time = time_.get();
    parts.retention = retention_.get();
    parts.is_read = [](const SnapshotId&) { return false; };
    parts.catalog = db_.get();
    parts.identities = identities_.get();
    parts.snapshots = snapshots_.get();
    parts.operations = operations_.get();
    parts.fleet = &fleet_;
    parts.clock = &clock_;
    parts.data_directory = directory_;
    parts.doctor = {.clock = &clock_,
                    .catalog = db_.get(),
                    .data_directory = directory_,
                    .config_file = "",
                    .configuration = [] { return std::vector<std::string>(); },
                    .store_reserve = [] { return uint64_t{0}; },
                    .hosts = [] { return std::vector<std::string>(); },
                    .listening = [] { return rpc::Address(); },
                    .newest_snapshot_at = [] { return std::nullopt; }};
    parts.issue_token = [this](const TokenWish& wish) -> absl::StatusOr<v1::CreateTokenResponse> {
      wish_ = wish;
      return v1::CreateTokenResponse();
    };
    admin_ = std::make_unique<AdminHandlers>(parts);
  }
  ~AdminTest() override {
    db_.reset();
    std::filesystem::remove_all(directory_);
  }

  DeviceId Enrol(const std::string& name, const std::map<std::string, std::string>& labels, const std::vector<std::string>& databases) {
    catalog::NewToken token;
    token.id = NewUlid(clock_.Now());
    token.secret_hash[0] = static_cast<std::byte>(++serial_);
    token.created_at = clock_.Now();
    token.expires_at = clock_.Now() + hours(1);
    token.labels = labels;
    EXPECT_TRUE(identities_->CreateToken(token).ok());
    catalog::KeyHash key{};
    key[0] = static_cast<std::byte>(serial_);
    const auto enrolled = identities_->Enroll(token.secret_hash, key, name, clock_.Now());
    EXPECT_TRUE(enrolled.ok()) << enrolled.status();
    std::vector<v1::DatabaseHealth> health;
    for (const std::string& database : databases) {
      health.emplace_back().set_name(database);
      health.back().set_present(true);
      health.back().set_size_bytes(5000);
      health.back().set_free_bytes(1 << 20);
    }
    EXPECT_TRUE(snapshots_->ReportDatabases(enrolled->device, clock_.Now(), health).ok());
    return enrolled->device;
  }

  std::string Snap(const DeviceId& device, const std::string& database, SystemTime taken_at, uint64_t timeline = 1) {
    catalog::IngestCatalog ingest(*db_);
    const std::string session = NewUlid(clock_.Now());
    const auto row = ingest.BeginSession(device, SessionId(session), database, timeline, SnapshotId(), clock_.Now() + hours(1));
    EXPECT_TRUE(row.ok()) << row.status();
    storage::v1::SnapshotRecord record;
    record.set_snapshot_id(NewUlid(clock_.Now()));
    record.set_device_id(device.value());
    record.set_database(database);
    record.set_timeline(timeline);
    record.set_sequence(ingest.GetCommitFacts(*row)->next_sequence);
    record.set_method(v1::METHOD_ONLINE);
    record.set_page_size(4096);
    record.set_page_count(3);
    record.set_root_digest(std::string(32, '\x17'));
    record.set_root_version(1);
    record.set_taken_at_ms(ToUnixMillis(taken_at));
    record.set_received_at_ms(ToUnixMillis(clock_.Now()));
    record.set_effective_at_ms(ToUnixMillis(taken_at));
    record.set_session_id(session);
    record.set_manifest_kind(1);
    const auto done = ingest.Commit(*row, record, {1, 100}, {});
    EXPECT_TRUE(done.ok()) << done.status();
    return record.snapshot_id();
  }

  v1::PlanRestoreResponse Plan(const v1::RestoreTarget& target, absl::Status* status = nullptr) {
    v1::PlanRestoreRequest request;
    *request.mutable_restore() = target;
    v1::PlanRestoreResponse response;
    int calls = 0;
    admin_->PlanRestore(request, [&](absl::StatusOr<v1::PlanRestoreResponse> answer) {
      ++calls;
      if (status != nullptr) *status = answer.status();
      if (answer.ok()) response = *std::move(answer);
    });
    EXPECT_EQ(calls, 1);
    return response;
  }

  std::string StartReason(const v1::RestoreTarget& target, const std::string& request_id = "") {
    v1::StartRestoreRequest request;
    *request.mutable_restore() = target;
    request.set_request_id(request_id);
    return ReasonOf(admin_->StartRestore(request, "operator:test").status());
  }

  std::string directory_;
  FakeClock clock_;
  FakeFleet fleet_;
  std::unique_ptr<catalog::CatalogDb> db_;
  std::unique_ptr<catalog::IdentityCatalog> identities_;
  std::unique_ptr<catalog::SnapshotCatalog> snapshots_;
  std::unique_ptr<catalog::OperationCatalog> operations_;
  std::unique_ptr<store::FileStore> store_;
  std::unique_ptr<catalog::DeletionCatalog> deletions_;
  std::unique_ptr<catalog::PolicyCatalog> policies_;
  std::unique_ptr<prune::MarkWriter> marks_;
  std::unique_ptr<retention::ControllerTime> time_;
  std::unique_ptr<retention::Retention> retention_;
  std::unique_ptr<AdminHandlers> admin_;
  TokenWish wish_;
  int serial_ = 0;
};

TEST_F(AdminTest, TokensAreValidated) {
  v1::CreateTokenRequest request;
  ASSERT_TRUE(admin_->CreateToken(request).ok());
  EXPECT_EQ(wish_.uses, 1);
  EXPECT_EQ(wish_.ttl, hours(1));
  request.set_uses(-1);
  EXPECT_EQ(ReasonOf(admin_->CreateToken(request).status()), "USES_OUT_OF_RANGE");
  request.set_uses(3);
  request.mutable_ttl()->set_seconds(0);
  EXPECT_EQ(ReasonOf(admin_->CreateToken(request).status()), "DURATION_OUT_OF_RANGE");
  request.mutable_ttl()->set_seconds(60);
  (*request.mutable_labels())["si te"] = "x";
  EXPECT_EQ(ReasonOf(admin_->CreateToken(request).status()), "LABEL_INVALID");
  request.clear_labels();
  request.set_for_device("nobody");
  EXPECT_EQ(ReasonOf(admin_->CreateToken(request).status()), "USES_OUT_OF_RANGE");
  request.set_uses(1);
  EXPECT_TRUE(absl::IsNotFound(admin_->CreateToken(request).status()));
  const DeviceId device = Enrol("kiosk", {}, {});
  request.set_for_device("kiosk");
  ASSERT_TRUE(admin_->CreateToken(request).ok());
  EXPECT_EQ(wish_.for_device, device);
  v1::RevokeTokenRequest revoke;
  revoke.set_token("lft1.secret");
  EXPECT_EQ(ReasonOf(admin_->RevokeToken(revoke).status()), "TOKEN_REFERENCE_INVALID");
}

TEST_F(AdminTest, SelectorsAndPages) {
  for (const char* selector : {"site", "site=", "=oslo", "a=b,", ",a=b", "a=b=c", "a b=c"}) {
    if (std::string(selector) == "site=") continue;  // an empty value is a value
    EXPECT_EQ(ReasonOf(CheckSelector(selector)), "SELECTOR_INVALID") << selector;
  }
  EXPECT_TRUE(CheckSelector("site=oslo,tier=edge").ok());
  EXPECT_EQ(CheckedPageSize(0).value(), 100);
  EXPECT_EQ(ReasonOf(CheckedPageSize(1001).status()), "PAGE_SIZE_INVALID");
  EXPECT_EQ(ReasonOf(CheckedPageSize(-1).status()), "PAGE_SIZE_INVALID");
  EXPECT_TRUE(CheckRequestId("01J9ZK").ok());
  EXPECT_EQ(ReasonOf(CheckRequestId(std::string(65, 'x'))), "REQUEST_ID_INVALID");
  EXPECT_EQ(ReasonOf(CheckRequestId("a\nb")), "REQUEST_ID_INVALID");
  for (int i = 0; i < 5; ++i) Enrol(fmt::format("d{}", i), {}, {});
  std::vector<std::string> names;
  v1::ListDevicesRequest request;
  request.set_page_size(2);
  do {
    const auto page = admin_->ListDevices(request);
    ASSERT_TRUE(page.ok()) << page.status();
    ASSERT_LE(page->devices_size(), 2);
    for (const v1::Device& device : page->devices()) names.push_back(device.name());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(names, (std::vector<std::string>{"d0", "d1", "d2", "d3", "d4"}));
}

TEST_F(AdminTest, BackupsOfNamesAndSelectors) {
  const DeviceId oslo = Enrol("kiosk", {{"site", "oslo"}}, {"orders", "stock"});
  Enrol("other", {{"site", "bergen"}}, {"orders"});
  v1::StartBackupsRequest request;
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "BACKUP_TARGET_INVALID");
  request.add_databases("kiosk");
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "DATABASE_REFERENCE_INVALID");
  request.set_databases(0, "kiosk/nothing");
  EXPECT_TRUE(absl::IsNotFound(admin_->StartBackups(request, "operator:a").status()));
  request.set_databases(0, "kiosk/orders");
  request.add_databases(oslo.value() + "/orders");
  request.set_request_id("once");
  const auto started = admin_->StartBackups(request, "operator:a");
  ASSERT_TRUE(started.ok()) << started.status();
  EXPECT_EQ(started->operations_size(), 1) << "the same database under two names is one order";
  EXPECT_EQ(started->operations(0).device_name(), "kiosk");
  EXPECT_EQ(fleet_.last_expire, hours(24));
  EXPECT_EQ(fleet_.last_request, "once");
  request.set_selector("site=oslo");
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "BACKUP_TARGET_INVALID");
  request.clear_databases();
  ASSERT_TRUE(admin_->StartBackups(request, "operator:a").ok());
  EXPECT_EQ(fleet_.backups.size(), 2U);
  request.set_selector("site=paris");
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "NOTHING_SELECTED");
  request.set_selector("site=oslo");
  request.set_method(v1::METHOD_DUMP);
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "METHOD_NOT_SUPPORTED");
  request.clear_method();
  request.mutable_expire()->set_seconds(-5);
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "DURATION_OUT_OF_RANGE");
  v1::RevokeDeviceRequest revoke;
  revoke.set_device("kiosk");
  ASSERT_TRUE(admin_->RevokeDevice(revoke).ok());
  request.clear_expire();
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "NOTHING_SELECTED") << "revoked devices are not selected";
  request.clear_selector();
  request.add_databases("kiosk/orders");
  EXPECT_EQ(ReasonOf(admin_->StartBackups(request, "operator:a").status()), "DEVICE_REVOKED");
}

TEST_F(AdminTest, RestoreOrdersAreComplete) {
  const DeviceId device = Enrol("kiosk", {}, {"orders"});
  const SystemTime noon = clock_.Now();
  const std::string first = Snap(device, "orders", noon);
  clock_.Advance(hours(1));
  const std::string second = Snap(device, "orders", noon + hours(1));
  v1::RestoreTarget target;
  target.set_source("kiosk/orders");
  EXPECT_EQ(StartReason(target, "r1"), "");
  EXPECT_EQ(StartReason(target, "r1"), "");
  EXPECT_EQ(StartReason(target, "r2"), "");
  ASSERT_EQ(fleet_.restores.size(), 3U);
  const v1::RestoreOrder& order = fleet_.restores[0].second;
  EXPECT_EQ(fleet_.restores[0].first, device);
  EXPECT_EQ(order.database(), "orders");
  EXPECT_EQ(order.snapshot_id(), second);
  EXPECT_EQ(order.page_size(), 4096U);
  EXPECT_EQ(order.page_count(), 3U);
  EXPECT_EQ(order.root_digest(), std::string(32, '\x17'));
  EXPECT_EQ(order.root_version(), 1U);
  EXPECT_EQ(order.check_state(), v1::CHECK_STATE_UNKNOWN);
  EXPECT_EQ(order.new_timeline(), 2U);
  EXPECT_EQ(fleet_.restores[1].second.new_timeline(), 2U) << "the same request has the same timeline";
  EXPECT_EQ(fleet_.restores[2].second.new_timeline(), 3U);

  *target.mutable_at() = ToProtoTime(noon + minutes(30));
  EXPECT_EQ(StartReason(target), "");
  EXPECT_EQ(fleet_.restores.back().second.snapshot_id(), first);
  EXPECT_FALSE(fleet_.last_request.empty());
  *target.mutable_at() = ToProtoTime(noon - hours(1));
  EXPECT_EQ(StartReason(target), "NO_SNAPSHOT_THEN");
  target.clear_at();
  ASSERT_TRUE(snapshots_->SetCheck(SnapshotId(second), v1::CHECK_STATE_DAMAGED, "row 3 missing", clock_.Now()).ok());
  EXPECT_EQ(StartReason(target), "");
  EXPECT_EQ(fleet_.restores.back().second.check_state(), v1::CHECK_STATE_DAMAGED);
}

TEST_F(AdminTest, RestoreTargetsAreResolved) {
  const DeviceId device = Enrol("kiosk", {}, {"orders", "stock"});
  const DeviceId spare = Enrol("spare", {}, {"orders"});
  const std::string snapshot = Snap(device, "orders", clock_.Now());
  v1::RestoreTarget target;
  EXPECT_EQ(StartReason(target), "RESTORE_TARGET_INVALID");
  target.set_snapshot(snapshot.substr(0, 20));
  EXPECT_EQ(StartReason(target), "") << "the snapshot says whose it is";
  target.set_timeline(1);
  EXPECT_EQ(StartReason(target), "RESTORE_TARGET_INVALID");
  target.set_timeline(0);
  *target.mutable_at() = ToProtoTime(clock_.Now());
  EXPECT_EQ(StartReason(target), "RESTORE_TARGET_INVALID");
  target.clear_at();
  target.set_source("kiosk/stock");
  EXPECT_EQ(StartReason(target), "SNAPSHOT_OF_OTHER_DATABASE");
  target.set_source("kiosk/orders");
  target.set_target("spare/stock");
  EXPECT_EQ(StartReason(target), "DATABASE_NOT_FOUND");
  target.set_target("spare/orders");
  EXPECT_EQ(StartReason(target), "");
  EXPECT_EQ(fleet_.restores.back().first, spare);
  target.set_target("");
  target.set_snapshot("");
  target.set_source("spare/orders");
  EXPECT_EQ(StartReason(target), "NO_SNAPSHOT");
}

TEST_F(AdminTest, PlansComeFromTheDeviceOrElseFromTheCatalog) {
  const DeviceId device = Enrol("kiosk", {}, {"orders"});
  Snap(device, "orders", clock_.Now());
  v1::RestoreTarget target;
  target.set_source("kiosk/orders");
  v1::PlanRestoreResponse offline = Plan(target);
  EXPECT_FALSE(offline.plan().from_device());
  EXPECT_EQ(offline.plan().mode(), v1::RESTORE_MODE_LIVE);
  EXPECT_EQ(offline.plan().size_bytes(), 3 * 4096);
  EXPECT_EQ(offline.plan().undo_bytes(), 5000);
  EXPECT_EQ(offline.target(), "kiosk/orders");
  EXPECT_EQ(snapshots_->HighestTimeline(device, "orders").value(), 1U) << "a plan reserves nothing";

  fleet_.connected.insert(device.value());
  fleet_.plan->set_mode(v1::RESTORE_MODE_NEW);
  EXPECT_EQ(Plan(target).plan().mode(), v1::RESTORE_MODE_NEW);
  EXPECT_TRUE(Plan(target).plan().from_device());
  EXPECT_EQ(fleet_.asked.new_timeline(), 2U);
  fleet_.plan = Error(absl::StatusCode::kFailedPrecondition, "RESTORE_REFUSED", "never");
  EXPECT_EQ(Plan(target).plan().obstacles(0).info().reason(), "RESTORE_REFUSED");
  fleet_.plan = absl::DeadlineExceededError("slow");
  EXPECT_FALSE(Plan(target).plan().from_device());
  absl::Status status;
  target.set_source("nobody/orders");
  Plan(target, &status);
  EXPECT_TRUE(absl::IsNotFound(status));
}

TEST_F(AdminTest, DevicesAreChangedRevokedAndForgotten) {
  const DeviceId device = Enrol("kiosk", {{"site", "oslo"}}, {"orders"});
  fleet_.connected.insert(device.value());
  v1::UpdateDeviceRequest update;
  update.set_device("kiosk");
  EXPECT_EQ(ReasonOf(admin_->UpdateDevice(update).status()), "NOTHING_TO_CHANGE");
  update.set_name("no/slash");
  EXPECT_EQ(ReasonOf(admin_->UpdateDevice(update).status()), "NAME_INVALID");
  update.set_name("till");
  update.add_remove_labels("site");
  (*update.mutable_set_labels())["tier"] = "edge";
  const auto updated = admin_->UpdateDevice(update);
  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_EQ(updated->device().name(), "till");
  EXPECT_EQ(updated->device().labels().count("site"), 0U);
  v1::ForgetDeviceRequest forget;
  forget.set_device("till");
  EXPECT_EQ(ReasonOf(admin_->ForgetDevice(forget, "operator:local").status()), "DEVICE_ACTIVE");
  v1::RevokeDeviceRequest revoke;
  revoke.set_device("till");
  ASSERT_TRUE(admin_->RevokeDevice(revoke).ok());
  EXPECT_TRUE(fleet_.connected.empty()) << "its streams end";
  ASSERT_TRUE(admin_->RevokeDevice(revoke).ok()) << "idempotent";
  ASSERT_TRUE(admin_->ForgetDevice(forget, "operator:local").ok());
  v1::GetDeviceRequest get;
  get.set_device("till");
  EXPECT_TRUE(absl::IsNotFound(admin_->GetDevice(get).status()));
  const DeviceId kept = Enrol("keeper", {}, {"orders"});
  Snap(kept, "orders", clock_.Now());
  revoke.set_device("keeper");
  ASSERT_TRUE(admin_->RevokeDevice(revoke).ok());
  forget.set_device("keeper");
  EXPECT_EQ(ReasonOf(admin_->ForgetDevice(forget, "operator:local").status()), "DEVICE_HAS_SNAPSHOTS");
  forget.set_delete_snapshots(true);
  const auto forgotten = admin_->ForgetDevice(forget, "operator:local");
  ASSERT_TRUE(forgotten.ok()) << forgotten.status();
  EXPECT_EQ(forgotten->snapshots_deleted(), 1);
  EXPECT_TRUE(snapshots_->List(kept, "", 10, "")->items.empty());
  EXPECT_TRUE(snapshots_->ListDatabases(DeviceId(), std::nullopt, 10, "")->items.empty());
  EXPECT_TRUE(absl::IsNotFound(admin_->GetDevice(get).status()));
}

TEST_F(AdminTest, ASnapshotGoesToTheTrashAndBack) {
  const DeviceId device = Enrol("kiosk", {{"site", "oslo"}}, {"orders"});
  const std::string first = Snap(device, "orders", clock_.Now());
  clock_.Advance(std::chrono::seconds(1));
  const std::string second = Snap(device, "orders", clock_.Now());
  ASSERT_TRUE(snapshots_->SetCheck(SnapshotId(first), v1::CHECK_STATE_OK, "", clock_.Now()).ok());
  v1::DeleteSnapshotRequest remove;
  remove.set_snapshot(first);
  EXPECT_EQ(ReasonOf(admin_->DeleteSnapshot(remove, "operator:ann").status()), "NEWEST_CHECKED");
  remove.set_snapshot(second);
  v1::PinSnapshotRequest pin;
  pin.set_snapshot(second);
  ASSERT_TRUE(admin_->PinSnapshot(pin)->snapshot().pinned_by_operator());
  EXPECT_EQ(ReasonOf(admin_->DeleteSnapshot(remove, "operator:ann").status()), "SNAPSHOT_PINNED");
  v1::UnpinSnapshotRequest unpin;
  unpin.set_snapshot(second);
  ASSERT_FALSE(admin_->UnpinSnapshot(unpin)->snapshot().pinned_by_operator());
  const auto deleted = admin_->DeleteSnapshot(remove, "operator:ann");
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(deleted->snapshot().state(), v1::SNAPSHOT_STATE_TRASH);
  ASSERT_TRUE(admin_->DeleteSnapshot(remove, "operator:ann").ok()) << "idempotent";
  EXPECT_EQ(ReasonOf(admin_->PinSnapshot(pin).status()), "SNAPSHOT_IN_TRASH");
  EXPECT_EQ(snapshots_->List(device, "", 10, "")->items.size(), 1U);
  EXPECT_EQ(snapshots_->Newest(device, "orders")->id(), first);
  EXPECT_EQ(snapshots_->GetDatabase(device, "orders")->snapshots(), 1);
  const auto trash = snapshots_->ListTrash(10, "");
  ASSERT_EQ(trash->items.size(), 1U);
  EXPECT_EQ(trash->items[0].trashed_by(), "operator:ann");
  remove.set_snapshot(first);
  remove.set_force(true);
  ASSERT_TRUE(admin_->DeleteSnapshot(remove, "operator:ann").ok());
  v1::RestoreTrashRequest back;
  back.set_snapshot(second);
  ASSERT_EQ(admin_->RestoreTrash(back)->snapshot().state(), v1::SNAPSHOT_STATE_COMMITTED);
  EXPECT_EQ(ReasonOf(admin_->RestoreTrash(back).status()), "NOT_IN_TRASH");
  EXPECT_EQ(snapshots_->Newest(device, "orders")->id(), second);
  EXPECT_FALSE(snapshots_->GetDatabase(device, "orders")->has_newest_proven_at());
}

TEST_F(AdminTest, PoliciesAreAppliedByLabelAndTiesAreRefused) {
  const DeviceId device = Enrol("kiosk", {{"site", "oslo"}, {"tier", "gold"}}, {"orders"});
  for (int i = 0; i < 3; ++i) {
    Snap(device, "orders", clock_.Now());
    clock_.Advance(std::chrono::minutes(1));
  }
  v1::ApplyPolicyRequest apply;
  apply.set_text("name = \"oslo\"\nselector = \"site=oslo\"\n[retention]\nkeep_last = 1\n");
  const auto oslo = admin_->ApplyPolicy(apply);
  ASSERT_TRUE(oslo.ok()) << oslo.status();
  EXPECT_EQ(oslo->policy().databases(), 1);
  apply.set_text("name = \"gold\"\nselector = \"tier=gold\"\n[retention]\nkeep_last = 9\n");
  EXPECT_EQ(ReasonOf(admin_->ApplyPolicy(apply).status()), "POLICY_TIE");
  apply.set_text("name = \"gold\"\nselector = \"tier=gold,site=oslo\"\n[retention]\nkeep_last = 9\n");
  const auto gold = admin_->ApplyPolicy(apply);
  ASSERT_TRUE(gold.ok()) << gold.status();
  EXPECT_GT(gold->policy().version(), oslo->policy().version());
  v1::ListPolicyVerdictsRequest simulate;
  simulate.set_policy("oslo");
  EXPECT_TRUE(admin_->ListPolicyVerdicts(simulate)->verdicts().empty()) << "the more specific one rules it";
  v1::DeletePolicyRequest remove;
  remove.set_policy("gold");
  ASSERT_TRUE(admin_->DeletePolicy(remove).ok());
  EXPECT_EQ(ReasonOf(admin_->DeletePolicy(remove).status()), "POLICY_NOT_FOUND");
  const auto verdicts = admin_->ListPolicyVerdicts(simulate);
  ASSERT_EQ(verdicts->verdicts_size(), 3);
  EXPECT_TRUE(verdicts->verdicts(0).keep());
  EXPECT_FALSE(verdicts->verdicts(1).keep());
  apply.set_text("name = \"x\"\n[retention]\nkeep_lost = 1\n");
  EXPECT_EQ(ReasonOf(admin_->ApplyPolicy(apply).status()), "CONFIG_INVALID");
}

std::vector<std::string> Reasons(const v1::GetStatusResponse& status) {
  std::vector<std::string> reasons;
  for (const v1::Alarm& alarm : status.alarms()) {
    if (alarm.reason() != "DISK_LOW") reasons.push_back(alarm.reason() + " " + alarm.subject());
  }
  return reasons;
}

TEST_F(AdminTest, StatusNamesWhatSomebodyShouldLookAt) {
  EXPECT_TRUE(Reasons(admin_->GetStatus({}).value()).empty());
  const DeviceId device = Enrol("kiosk", {}, {"orders", "stock"});
  fleet_.connected.insert(device.value());
  const std::string snapshot = Snap(device, "orders", clock_.Now());
  EXPECT_EQ(Reasons(admin_->GetStatus({}).value()), (std::vector<std::string>{"NEVER_BACKED_UP kiosk/stock", "UNPROVEN kiosk/orders"}));
  ASSERT_TRUE(snapshots_->SetCheck(SnapshotId(snapshot), v1::CHECK_STATE_OK, "", clock_.Now()).ok());
  Snap(device, "stock", clock_.Now());
  v1::DatabaseHealth failed;
  failed.set_name("stock");
  failed.mutable_last_error()->set_code(9);
  failed.mutable_last_error()->mutable_info()->set_reason("WRITER_STALL");
  ASSERT_TRUE(snapshots_->ReportDatabases(device, clock_.Now(), std::vector<v1::DatabaseHealth>{failed}).ok());
  const auto status = admin_->GetStatus({}).value();
  EXPECT_EQ(Reasons(status), (std::vector<std::string>{"BACKUP_FAILED kiosk/stock", "UNPROVEN kiosk/stock"})) << "the gravest first";
  EXPECT_EQ(status.devices(), 1);
  EXPECT_EQ(status.devices_connected(), 1);
  EXPECT_EQ(status.snapshots(), 2);
  fleet_.connected.clear();
  clock_.Advance(hours(3));
  EXPECT_EQ(Reasons(admin_->GetStatus({}).value())[1], "DEVICE_NOT_SEEN kiosk");
}

TEST_F(AdminTest, ACopiedIdentityIsAnAlarm) {
  const DeviceId device = Enrol("kiosk", {}, {});
  for (const char* boot : {"a", "b", "a"}) {
    v1::Hello hello;
    hello.set_boot_id(boot);
    EXPECT_TRUE(identities_->Seen(device, clock_.Now(), &hello, 0, nullptr).ok());
  }
  const v1::Alarm first = admin_->GetStatus({})->alarms(0);
  EXPECT_EQ(first.reason() + " " + first.subject(), "DEVICE_CLONED kiosk");
  EXPECT_NE(first.message().find("litefleet token create --for-device kiosk"), std::string::npos) << first.message();
}

TEST_F(AdminTest, TheDoctorTellsWhatTheFleetSuffersFrom) {
  const auto look = [&](const std::string& check) {
    const auto response = admin_->RunDoctor({});
    EXPECT_TRUE(response.ok());
    for (const v1::Finding& finding : response->findings()) {
      if (finding.check() == check) return finding;
    }
    return v1::Finding();
  };
  EXPECT_EQ(look("proof").level(), v1::FINDING_LEVEL_OK);
  EXPECT_EQ(look("configuration").level(), v1::FINDING_LEVEL_OK) << "and at the controller itself";
  Enrol("kiosk", {}, {"orders"});
  const v1::Finding proof = look("proof");
  EXPECT_EQ(proof.level(), v1::FINDING_LEVEL_WARN);
  EXPECT_NE(proof.fix(), "");
  clock_.Advance(hours(24));
  const v1::Finding fleet = look("fleet");
  EXPECT_EQ(fleet.level(), v1::FINDING_LEVEL_WARN);
  EXPECT_NE(fleet.message().find("kiosk"), std::string::npos) << fleet.message();
}

}  // namespace
}  // namespace litefleet::rpc
