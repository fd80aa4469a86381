#include "controller/catalog/operation_catalog.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/catalog/schema.h"

namespace litefleet::catalog {
namespace {

const DeviceId kDevice("11111111-1111-4111-8111-111111111111");
const DeviceId kOther("22222222-2222-4222-8222-222222222222");

class OperationCatalogTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/operations-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    Open();
  }
  void TearDown() override {
    operations_.reset();
    db_.reset();
    std::filesystem::remove_all(directory_);
  }
  void Open() {
    operations_.reset();
    db_.reset();
    auto db = CatalogDb::Open(directory_ + "/catalog.db", true, Migrations());
    ASSERT_TRUE(db.ok()) << db.status();
    db_ = *std::move(db);
    operations_.emplace(*db_);
  }
  OperationRow Row(const DeviceId& device, v1::OperationState state = v1::OPERATION_STATE_QUEUED, const std::string& request_id = {}) {
    OperationRow row;
    row.operation.set_id(NewUlid(now_));
    row.operation.set_kind(v1::OPERATION_KIND_BACKUP);
    row.operation.set_state(state);
    row.operation.set_device_id(device.value());
    row.operation.set_database("db");
    row.operation.set_ordered_by("operator:ada");
    *row.operation.mutable_created_at() = ToProtoTime(now_);
    if (!IsActive(state)) *row.operation.mutable_ended_at() = ToProtoTime(now_);
    row.order.set_operation_id(row.operation.id());
    row.order.mutable_backup()->set_database("db");
    row.request_id = request_id;
    return row;
  }
  std::string Create(const OperationRow& row) {
    const auto made = operations_->Create({row});
    EXPECT_TRUE(made.ok()) << made.status();
    return row.operation.id();
  }

  std::string directory_;
  std::unique_ptr<CatalogDb> db_;
  std::optional<OperationCatalog> operations_;
  SystemTime now_ = FromUnixMillis(1'800'000'000'000);
};

TEST_F(OperationCatalogTest, KeepsEverythingAcrossARestart) {
  OperationRow row = Row(kDevice);
  row.operation.set_device_name("not stored");
  row.operation.set_device_connected(true);
  row.operation.mutable_progress()->set_done_bytes(7);
  row.origin = Origin::kOrdered;
  Create(row);
  Open();
  const auto found = operations_->Get(OperationId(row.operation.id()));
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->order.backup().database(), "db");
  EXPECT_EQ(found->operation.progress().done_bytes(), 7);
  EXPECT_EQ(found->operation.device_name(), "");
  EXPECT_FALSE(found->operation.device_connected());
}

TEST_F(OperationCatalogTest, ARequestIdMakesOperationsOnce) {
  const auto first = operations_->Create({Row(kDevice, v1::OPERATION_STATE_QUEUED, "r1"), Row(kOther, v1::OPERATION_STATE_QUEUED, "r1")});
  ASSERT_TRUE(first.ok());
  const auto again = operations_->Create({Row(kDevice, v1::OPERATION_STATE_QUEUED, "r1")});
  ASSERT_TRUE(again.ok());
  ASSERT_EQ(again->size(), 2u);
  EXPECT_EQ((*again)[0].operation.id(), (*first)[0].operation.id());
  EXPECT_EQ((*again)[1].operation.id(), (*first)[1].operation.id());

  OperationRow other_kind = Row(kDevice, v1::OPERATION_STATE_QUEUED, "r1");
  other_kind.operation.set_kind(v1::OPERATION_KIND_RESTORE);
  EXPECT_EQ(ReasonOf(operations_->Create({other_kind}).status()), "REQUEST_ID_USED");
  // Another operator's request ids are his own.
  OperationRow other_operator = Row(kDevice, v1::OPERATION_STATE_QUEUED, "r1");
  other_operator.operation.set_ordered_by("operator:bob");
  EXPECT_EQ(operations_->Create({other_operator})->front().operation.id(), other_operator.operation.id());
}

TEST_F(OperationCatalogTest, CreatesAllOrNone) {
  const OperationRow row = Row(kDevice);
  Create(row);
  const OperationRow fresh = Row(kDevice);
  EXPECT_FALSE(operations_->Create({fresh, row}).ok());
  EXPECT_EQ(ReasonOf(operations_->Get(OperationId(fresh.operation.id())).status()), "OPERATION_NOT_FOUND");
}

TEST_F(OperationCatalogTest, ResolvesIdsAndUniquePrefixes) {
  OperationRow one = Row(kDevice);
  OperationRow two = Row(kDevice);
  one.operation.set_id("01JAAAAAAAAAAAAAAAAAAAAAAA");
  two.operation.set_id("01JAAAAAAAAAAAAAAAAAAAAAAB");
  Create(one);
  Create(two);
  EXPECT_EQ(operations_->Resolve("01JAAAAAAAAAAAAAAAAAAAAAAA")->id(), one.operation.id());
  EXPECT_EQ(operations_->Resolve("01jaaaaaaaaaaaaaaaaaaaaaab")->id(), two.operation.id());
  const absl::Status ambiguous = operations_->Resolve("01JA").status();
  EXPECT_EQ(ambiguous.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(ambiguous), "AMBIGUOUS");
  EXPECT_NE(MessageOf(ambiguous).find(one.operation.id()), std::string::npos) << ambiguous;
  EXPECT_NE(MessageOf(ambiguous).find(two.operation.id()), std::string::npos) << ambiguous;
  for (const char* bad : {"", "02", "01JB", "'; drop table operation; --", "%", "01JAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}) {
    EXPECT_EQ(ReasonOf(operations_->Resolve(bad).status()), "OPERATION_NOT_FOUND") << bad;
  }
}

TEST_F(OperationCatalogTest, ListsInPagesNewestFirst) {
  std::vector<std::string> made;
  for (int i = 0; i < 5; ++i) made.push_back(Create(Row(kDevice, i == 2 ? v1::OPERATION_STATE_FAILED : v1::OPERATION_STATE_QUEUED)));
  Create(Row(kOther));
  std::vector<std::string> seen;
  std::string token;
  int pages = 0;
  do {
    const auto page = operations_->List(kDevice, false, 2, token);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const auto& operation : page->items) seen.push_back(operation.id());
    token = page->next_token;
    ++pages;
  } while (!token.empty());
  EXPECT_EQ(pages, 3);
  EXPECT_EQ(seen, std::vector<std::string>(made.rbegin(), made.rend()));
  EXPECT_EQ(operations_->List(DeviceId(), false, 100, "")->items.size(), 6u);
  EXPECT_EQ(operations_->List(DeviceId(), true, 100, "")->items.size(), 5u);
  EXPECT_EQ(operations_->List(kDevice, true, 100, "")->items.size(), 4u);
  for (const char* bad : {"x", "-1", "0", "12x", "99999999999999999999"}) {
    EXPECT_EQ(ReasonOf(operations_->List(kDevice, false, 2, bad).status()), "PAGE_TOKEN_INVALID") << bad;
  }
}

TEST_F(OperationCatalogTest, UpdatesInOneTransactionOrNotAtAll) {
  const OperationId id(Create(Row(kDevice)));
  const auto updated = operations_->Update(id, [&](v1::Operation& operation) {
    operation.set_state(v1::OPERATION_STATE_FAILED);
    *operation.mutable_ended_at() = ToProtoTime(now_);
    return absl::OkStatus();
  });
  ASSERT_TRUE(updated.ok());
  EXPECT_TRUE(operations_->ActiveOf(kDevice)->empty());
  const auto refused = operations_->Update(id, [](v1::Operation& operation) {
    operation.set_state(v1::OPERATION_STATE_QUEUED);
    return absl::AbortedError("no");
  });
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(operations_->Get(id)->operation.state(), v1::OPERATION_STATE_FAILED);
  EXPECT_EQ(ReasonOf(operations_->Update(OperationId(NewUlid(now_)), [](v1::Operation&) { return absl::OkStatus(); }).status()),
            "OPERATION_NOT_FOUND");
}

TEST_F(OperationCatalogTest, ExpiresOnlyQueuedOnesPastTheirTime) {
  OperationRow due = Row(kDevice);
  *due.operation.mutable_expires_at() = ToProtoTime(now_ + std::chrono::hours(1));
  OperationRow sent = Row(kDevice, v1::OPERATION_STATE_SENT);
  *sent.operation.mutable_expires_at() = due.operation.expires_at();
  Create(due);
  Create(sent);
  EXPECT_TRUE(operations_->Expire(now_)->empty());
  const auto expired = operations_->Expire(now_ + std::chrono::hours(1));
  ASSERT_TRUE(expired.ok()) << expired.status();
  ASSERT_EQ(expired->size(), 1u);
  EXPECT_EQ(expired->front().id(), due.operation.id());
  const auto stored = operations_->Get(OperationId(due.operation.id()));
  EXPECT_EQ(stored->operation.state(), v1::OPERATION_STATE_EXPIRED);
  EXPECT_EQ(stored->operation.error().info().reason(), "ORDER_EXPIRED");
  EXPECT_EQ(operations_->ActiveOf(kDevice)->size(), 1u);
}

TEST_F(OperationCatalogTest, ForgetsEndedOnesByAgeAndNumber) {
  const std::string active = Create(Row(kDevice, v1::OPERATION_STATE_RUNNING));
  const std::string old = Create(Row(kDevice, v1::OPERATION_STATE_FAILED));
  now_ += OperationCatalog::kMaxAge + std::chrono::hours(1);
  std::vector<OperationRow> many;
  for (int i = 0; i < OperationCatalog::kMaxEndedPerDevice + 3; ++i) many.push_back(Row(kOther, v1::OPERATION_STATE_SUCCEEDED));
  ASSERT_TRUE(operations_->Create(many).ok());
  ASSERT_TRUE(operations_->Expire(now_).ok());
  EXPECT_TRUE(operations_->Get(OperationId(active)).ok()) << "an operation that has not ended stays";
  EXPECT_FALSE(operations_->Get(OperationId(old)).ok());
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(operations_->Get(OperationId(many[static_cast<size_t>(i)].operation.id())).ok()) << i;
  EXPECT_TRUE(operations_->Get(OperationId(many[3].operation.id())).ok());
  EXPECT_TRUE(operations_->Get(OperationId(many.back().operation.id())).ok());
}

}  // namespace
}  // namespace litefleet::catalog
