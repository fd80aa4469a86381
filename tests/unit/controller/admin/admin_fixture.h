// The operators' calls over real catalogs, with a fleet that only remembers what it was asked.
#ifndef LITEFLEET_TESTS_UNIT_CONTROLLER_ADMIN_ADMIN_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_CONTROLLER_ADMIN_ADMIN_FIXTURE_H_

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
#include "controller/rpc/admin_handlers.h"
#include "controller/rpc/admin_requests.h"
#include "controller/store/file_store.h"
#include "fmt/format.h"
#include "tests/unit/controller/admin/fake_fleet.h"

namespace litefleet::rpc {

using std::chrono::hours, std::chrono::minutes, std::chrono::seconds;

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
                    .catalog_backups = [] { return v1::CatalogBackups(); },
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

  std::string Snap(const DeviceId& device, const std::string& database, SystemTime taken_at, uint64_t timeline = 1,
                   const std::string& part = "") {
    catalog::IngestCatalog ingest(*db_);
    const std::string session = NewUlid(clock_.Now());
    const auto row = ingest.BeginSession(device, SessionId(session), database, timeline, SnapshotId(), clock_.Now() + hours(1));
    EXPECT_TRUE(row.ok()) << row.status();
    storage::v1::SnapshotRecord record;
    record.set_snapshot_id(NewUlid(clock_.Now()));
    record.set_device_id(device.value());
    record.set_database(database);
    record.set_timeline(timeline);
    record.set_sequence(ingest.GetCommitFacts(*row, "")->next_sequence);
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
    record.set_journal_mode(v1::JOURNAL_MODE_WAL);
    record.set_part(part);
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

}  // namespace litefleet::rpc

#endif  // LITEFLEET_TESTS_UNIT_CONTROLLER_ADMIN_ADMIN_FIXTURE_H_
