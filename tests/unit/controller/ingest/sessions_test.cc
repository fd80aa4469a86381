// How long upload sessions are remembered, and what becomes of those that hold nothing.
#include "common/base/status.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::ingest {
namespace {

using fakes::FakeDatabase;

class SessionsTest : public IngestTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    Open();
  }
  int64_t Sessions() { return path_->Count("select count(*) from upload_session"); }
  void Execute(const std::string& sql) {
    ASSERT_TRUE(path_->db->Write([&](sqlite::Connection db) { return sqlite::Execute(db, sql); }).ok());
  }

  const FakeDatabase database_ = FakeDatabase::Make(4096, 64 * 2, 1);
};

TEST_F(SessionsTest, OneOfWhichNothingIsDurableGoesWithItsStream) {
  for (int i = 0; i < 20; ++i) {
    EXPECT_FALSE(fakes::RunUpload(*path_->ingest, device_, database_, {.session_id = NewSession(), .stop_after_chunks = 0}).status.ok());
  }
  EXPECT_EQ(Sessions(), 0);
  const std::string session = NewSession();
  EXPECT_FALSE(fakes::RunUpload(*path_->ingest, device_, database_, {.session_id = session, .stop_after_chunks = 1}).status.ok());
  EXPECT_EQ(Sessions(), 1) << "it is gone on with";
  EXPECT_EQ(Upload(database_, device_, session).chunks_sent, 1u);
}

TEST_F(SessionsTest, OneThatIsRefusedAfterItsBeginLeavesNothing) {
  path_->check_quota = [](const DeviceId&, bool) { return Error(absl::StatusCode::kResourceExhausted, "QUOTA_EXCEEDED", "no"); };
  EXPECT_EQ(ReasonOf(Upload(database_, device_).status), "QUOTA_EXCEEDED");
  EXPECT_EQ(Sessions(), 0);
}

// Its answer was lost with an agent that comes back after its session was forgotten, or after the catalog was.
TEST_F(SessionsTest, WhatACommittedSessionBecameIsKnownByItsSnapshot) {
  const std::string session = NewSession();
  const auto first = fakes::RunUpload(*path_->ingest, device_, database_, {.session_id = session, .method = v1::METHOD_CONTINUOUS});
  ASSERT_TRUE(first.status.ok()) << first.status;
  Execute("delete from upload_session");
  const auto again = fakes::RunUpload(*path_->ingest, device_, database_, {.session_id = session, .method = v1::METHOD_CONTINUOUS});
  ASSERT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(again.snapshot_id, first.snapshot_id);
  EXPECT_FALSE(again.created);
  EXPECT_EQ(path_->SnapshotCount(), 1u);
  // Neither is it newer than what came meanwhile, nor does it come back after somebody has deleted it.
  FakeDatabase later = database_;
  later.seeds[0] = 7000;
  ASSERT_TRUE(Upload(later, device_).status.ok());
  Execute("delete from upload_session");
  Execute("update snapshot set state = 3, trashed_at = 5, trashed_by = 'operator:x' where id = '" + first.snapshot_id + "'");
  EXPECT_EQ(Upload(database_, device_, session).snapshot_id, first.snapshot_id);
  EXPECT_EQ(path_->Count("select count(*) from snapshot"), 2);
  // Another database's, or another device's, is its own.
  Execute("delete from upload_session");
  EXPECT_NE(Upload(database_, other_, session).snapshot_id, first.snapshot_id);
}

// What would be stamped with 1970 would be older than every tier of retention.
TEST_F(SessionsTest, NothingIsTakenBeforeTheControllersClockIsSet) {
  path_->now = []() -> absl::StatusOr<ControllerNow> { return ControllerNow{.time = FromUnixMillis(60'000), .on_hold = true}; };
  const absl::Status refused = Upload(database_, device_).status;
  EXPECT_EQ(ReasonOf(refused), "CLOCK_NOT_SET");
  EXPECT_TRUE(absl::IsUnavailable(refused)) << "the device tries again";
  EXPECT_EQ(Sessions(), 0);
  path_->now = nullptr;
  EXPECT_TRUE(Upload(database_, device_).status.ok());
}

}  // namespace
}  // namespace litefleet::ingest
