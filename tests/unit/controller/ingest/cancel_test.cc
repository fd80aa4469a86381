// A cancel beside the begin and the commit of an upload: the catalog puts them one after the other.
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/catalog/operation_catalog.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::ingest {
namespace {

using catalog::Origin;
using fakes::FakeDatabase;

constexpr char kLeft[] =
    "select (select count(*) from upload_session) + (select count(*) from claim) + (select count(*) from device_chunk)";

class CancelTest : public IngestTest {
 protected:
  struct Stream {
    Stream(Ingest& ingest, const DeviceId& device) : session(*ingest.NewUpload(device, sink)) {}
    ~Stream() { session->End(); }
    absl::Status Handle(v1::UploadRequest request) { return session->Handle(request); }
    const std::shared_ptr<fakes::RecordingSink> sink = std::make_shared<fakes::RecordingSink>();
    const std::shared_ptr<UploadSession> session;
  };

  void SetUp() override {
    IngestTest::SetUp();
    IngestLimits limits;
    limits.replace_wait = std::chrono::milliseconds(0);
    Open(limits);
    operations_.emplace(*path_->db);
  }
  std::string Order(Origin origin = Origin::kOrdered) {
    catalog::OperationRow row;
    row.operation.set_id(NewUlid(clock_.Now()));
    row.operation.set_kind(v1::OPERATION_KIND_BACKUP);
    row.operation.set_state(v1::OPERATION_STATE_RUNNING);
    row.operation.set_device_id(device_.value());
    row.operation.set_database("main");
    *row.operation.mutable_created_at() = ToProtoTime(clock_.Now());
    row.origin = origin;
    EXPECT_TRUE(operations_->Create({row}).ok());
    return row.operation.id();
  }
  v1::Operation Set(const std::string& operation, v1::OperationState state) {
    const auto set = operations_->Update(OperationId(operation), [&](v1::Operation& stored) {
      stored.set_state(state);
      return absl::OkStatus();
    });
    EXPECT_TRUE(set.ok()) << set.status();
    return set.value_or(v1::Operation());
  }
  absl::Status Begin(Stream& stream, const std::string& operation, const std::string& session = NewSession()) {
    v1::UploadRequest begin = fakes::BeginRequest(database_, {.session_id = session});
    begin.mutable_begin()->set_operation_id(operation);
    return stream.Handle(std::move(begin));
  }
  void Send(Stream& stream) {
    ASSERT_TRUE(stream.Handle(fakes::OfferRequest(database_, 1, 0, 1)).ok());
    ASSERT_TRUE(stream.Handle(fakes::ChunkRequest(database_, 0)).ok());
  }
  int Records() {
    int records = 0;
    const absl::Status walked = path_->store->ForEachRecord([&](const store::Location&, const format::ScannedRecord& scanned) {
      records += scanned.header.type == format::RecordType::kSnapshot ? 1 : 0;
      return absl::OkStatus();
    });
    EXPECT_TRUE(walked.ok()) << walked;
    return records;
  }

  const FakeDatabase database_ = FakeDatabase::Make(4096, 64, 1);
  std::optional<catalog::OperationCatalog> operations_;
};

TEST_F(CancelTest, BeforeTheCommitNothingIsCommitted) {
  const std::string order = Order();
  {
    Stream stream(*path_->ingest, device_);
    ASSERT_TRUE(Begin(stream, order).ok());
    Send(stream);
    Set(order, v1::OPERATION_STATE_CANCELLING);
    EXPECT_EQ(ReasonOf(stream.Handle(fakes::CommitRequest(database_))), "SESSION_EXPIRED");
  }
  EXPECT_EQ(path_->SnapshotCount(), 0u);
  EXPECT_EQ(Records(), 0) << "a rebuild would find it";
  EXPECT_EQ(
      path_->Count("select (select count(*) from upload_session) + (select count(*) from claim) + (select count(*) from device_chunk)"), 0);
  EXPECT_EQ(Set(order, v1::OPERATION_STATE_CANCELLED).state(), v1::OPERATION_STATE_CANCELLED);
}

TEST_F(CancelTest, WhileTheRecordIsWrittenNothingIsCommitted) {
  const std::string order = Order();
  {
    Stream stream(*path_->ingest, device_);
    ASSERT_TRUE(Begin(stream, order).ok());
    Send(stream);
    path_->now = [&, asked = false]() mutable -> absl::StatusOr<ControllerNow> {  // between the look at the session and the record
      if (!std::exchange(asked, true)) Set(order, v1::OPERATION_STATE_CANCELLING);
      return ControllerNow{.time = clock_.Now()};
    };
    EXPECT_EQ(ReasonOf(stream.Handle(fakes::CommitRequest(database_))), "SESSION_EXPIRED");
  }
  EXPECT_EQ(path_->Count("select count(*) from snapshot"), 0);
  EXPECT_EQ(path_->Count(kLeft), 0);
}

TEST_F(CancelTest, AfterTheCommitTheOperationIsDone) {
  const std::string order = Order();
  Stream stream(*path_->ingest, device_);
  ASSERT_TRUE(Begin(stream, order).ok());
  Send(stream);
  ASSERT_TRUE(stream.Handle(fakes::CommitRequest(database_)).ok());
  const auto committed = stream.sink->Next(v1::UploadResponse::kCommitted);
  ASSERT_TRUE(committed.has_value());
  EXPECT_EQ(Set(order, v1::OPERATION_STATE_CANCELLING).state(), v1::OPERATION_STATE_CANCELLING) << "the device is asked first";
  const v1::Operation ended = Set(order, v1::OPERATION_STATE_CANCELLED);  // it had stopped before it heard of the commit
  EXPECT_EQ(ended.state(), v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_EQ(ended.snapshot_id(), committed->committed().snapshot_id());
  EXPECT_FALSE(ended.has_error());
  EXPECT_EQ(path_->SnapshotCount(), 1u);
}

TEST_F(CancelTest, ACancelledOrderBeginsNothing) {
  const std::string order = Order();
  Set(order, v1::OPERATION_STATE_CANCELLED);
  {
    Stream stream(*path_->ingest, device_);
    const absl::Status begun = Begin(stream, order);
    EXPECT_EQ(ReasonOf(begun), "OPERATION_CANCELLED");
    EXPECT_EQ(begun.code(), absl::StatusCode::kFailedPrecondition) << "older agents do not try again";
  }
  EXPECT_EQ(path_->Count("select count(*) from upload_session"), 0);

  // Nor does it bring a session to life that waits for its removal.
  const std::string running = Order(), session = NewSession();
  {
    Stream stream(*path_->ingest, device_);
    ASSERT_TRUE(Begin(stream, running, session).ok());
    Set(running, v1::OPERATION_STATE_CANCELLING);
    Stream newer(*path_->ingest, device_);
    EXPECT_EQ(ReasonOf(Begin(newer, running, session)), "OPERATION_CANCELLED");
  }
  EXPECT_EQ(path_->Count("select count(*) from upload_session"), 0);

  // Another device's order says nothing.
  Stream other(*path_->ingest, other_);
  EXPECT_TRUE(Begin(other, order).ok());
}

TEST_F(CancelTest, ACommittedSessionIsAnsweredAfterTheCancelToo) {
  const std::string order = Order(), session = NewSession();
  {
    Stream stream(*path_->ingest, device_);
    ASSERT_TRUE(Begin(stream, order, session).ok());
    Send(stream);
    ASSERT_TRUE(stream.Handle(fakes::CommitRequest(database_)).ok());
  }
  Set(order, v1::OPERATION_STATE_CANCELLING);
  Stream again(*path_->ingest, device_);
  EXPECT_TRUE(Begin(again, order, session).ok());
  EXPECT_TRUE(again.sink->Next(v1::UploadResponse::kCommitted).has_value());
}

// A state that waits in a device's spool keeps the operation that took it, whatever became of that; where the device gives it up all the
// same nothing of it stays.
TEST_F(CancelTest, WhatADeviceBeginsByItselfGoesWithItsWord) {
  const std::string own = Order(Origin::kDevice);
  Set(own, v1::OPERATION_STATE_CANCELLED);
  {
    Stream stream(*path_->ingest, device_);
    ASSERT_TRUE(Begin(stream, own).ok());
    Send(stream);
  }
  EXPECT_EQ(path_->Count("select count(*) from upload_session"), 1);
  Set(own, v1::OPERATION_STATE_CANCELLED);
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(path_->Count("select (select count(*) from upload_session) + (select count(*) from claim)"), 0);
}

TEST_F(CancelTest, ASessionThatHasGoneWritesNoRecord) {
  Stream stream(*path_->ingest, device_);
  ASSERT_TRUE(Begin(stream, "").ok());
  Send(stream);
  clock_.Advance(std::chrono::hours(24 * 8));
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(ReasonOf(stream.Handle(fakes::CommitRequest(database_))), "SESSION_EXPIRED");
  EXPECT_EQ(Records(), 0);
}

}  // namespace
}  // namespace litefleet::ingest
