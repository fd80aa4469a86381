// The table of states in controller/fleet/README.md, cell by cell, and again after a restart of the controller in each state.
#include <gtest/gtest.h>

#include "common/base/error_detail.h"
#include "tests/unit/controller/fleet/fleet_fixture.h"

namespace litefleet::fleet {
namespace {

using enum v1::OperationState;

const v1::OperationState kActive[] = {OPERATION_STATE_QUEUED, OPERATION_STATE_SENT, OPERATION_STATE_RUNNING, OPERATION_STATE_CANCELLING};
const v1::OperationState kEnds[] = {OPERATION_STATE_SUCCEEDED, OPERATION_STATE_FAILED, OPERATION_STATE_CANCELLED, OPERATION_STATE_EXPIRED};

// Every test runs twice: straight on, and with a restart of the controller between the state and the event.
class StatesTest : public FleetTest, public testing::WithParamInterface<bool> {
 protected:
  // A backup in this state, and a link that has said everything.
  std::string In(v1::OperationState state) {
    link_ = Connect(kDevice);
    const std::string id = Backup(kDevice);
    switch (state) {
      case OPERATION_STATE_QUEUED:
        break;
      case OPERATION_STATE_SENT:
        EXPECT_TRUE(Accept(*link_, id, kDevice).ok());
        break;
      case OPERATION_STATE_RUNNING:
        EXPECT_TRUE(Progress(*link_, id, 10, 100, kDevice).ok());
        break;
      case OPERATION_STATE_CANCELLING:
        EXPECT_TRUE(Progress(*link_, id, 10, 100, kDevice).ok());
        EXPECT_TRUE(fleet_->Cancel(OperationId(id)).ok());
        break;
      case OPERATION_STATE_CANCELLED:
        EXPECT_TRUE(fleet_->Cancel(OperationId(id)).ok());
        break;
      case OPERATION_STATE_EXPIRED:
        clock_.Advance(std::chrono::hours(2));
        fleet_->Tick();
        break;
      default:
        EXPECT_TRUE(Result(*link_, id, state, kDevice).ok());
    }
    EXPECT_EQ(State(id), state);
    if (GetParam()) Start();
    if (GetParam() || state == OPERATION_STATE_EXPIRED) link_ = Connect(kDevice, catalog::IsActive(state) ? Words{id} : Words{});
    link_->Take();
    return id;
  }
  std::shared_ptr<FakeLink> link_;
};

INSTANTIATE_TEST_SUITE_P(Restart, StatesTest, testing::Bool(), [](const auto& what) { return what.param ? "Restarted" : "Straight"; });

TEST_P(StatesTest, OrderAccepted) {
  for (const auto state : kActive) {
    const std::string id = In(state);
    ASSERT_TRUE(Accept(*link_, id, kDevice).ok());
    EXPECT_EQ(State(id), state == OPERATION_STATE_QUEUED ? OPERATION_STATE_SENT : state);
    EXPECT_EQ(link_->TakeWords(), Words{});
  }
  for (const auto state : kEnds) {
    const std::string id = In(state);
    ASSERT_TRUE(Accept(*link_, id, kDevice).ok());
    EXPECT_EQ(State(id), state);
    EXPECT_EQ(link_->TakeWords(), Words{"cancel " + id});
  }
}

TEST_P(StatesTest, Progress) {
  for (const auto state : kActive) {
    const std::string id = In(state);
    ASSERT_TRUE(FleetTest::Progress(*link_, id, 50, 100, kDevice).ok());
    EXPECT_EQ(State(id), state == OPERATION_STATE_CANCELLING ? OPERATION_STATE_CANCELLING : OPERATION_STATE_RUNNING);
    EXPECT_EQ(link_->TakeWords(), Words{});
    v1::Operation live = Stored(id);
    fleet_->FillLive(live);
    EXPECT_EQ(live.progress().done_bytes(), 50);
    EXPECT_TRUE(live.device_connected());
  }
  for (const auto state : kEnds) {
    const std::string id = In(state);
    ASSERT_TRUE(FleetTest::Progress(*link_, id, 50, 100, kDevice).ok());
    EXPECT_EQ(State(id), state);
    EXPECT_EQ(link_->TakeWords(), Words{"cancel " + id});
  }
}

TEST_P(StatesTest, Result) {
  for (const auto end : {OPERATION_STATE_SUCCEEDED, OPERATION_STATE_PARTLY, OPERATION_STATE_FAILED, OPERATION_STATE_CANCELLED}) {
    for (const auto state : kActive) {
      const std::string id = In(state);
      ASSERT_TRUE(FleetTest::Result(*link_, id, end, kDevice).ok());
      EXPECT_EQ(State(id), end);
      EXPECT_TRUE(Stored(id).has_ended_at());
      EXPECT_EQ(link_->TakeWords(), Words{"recorded " + id});
      // A repeated one changes nothing, and is answered.
      ASSERT_TRUE(FleetTest::Result(*link_, id, OPERATION_STATE_FAILED, kDevice).ok());
      EXPECT_EQ(State(id), end);
      EXPECT_EQ(link_->TakeWords(), Words{"recorded " + id});
    }
  }
  for (const auto state : kEnds) {
    const std::string id = In(state);
    ASSERT_TRUE(FleetTest::Result(*link_, id, OPERATION_STATE_SUCCEEDED, kDevice).ok());
    EXPECT_EQ(State(id), state);
    EXPECT_EQ(link_->TakeWords(), Words{"recorded " + id});
  }
}

TEST_P(StatesTest, Cancel) {
  for (const auto state : kActive) {
    const std::string id = In(state);
    const auto cancelled = fleet_->Cancel(OperationId(id));
    ASSERT_TRUE(cancelled.ok()) << cancelled.status();
    const auto expected = state == OPERATION_STATE_QUEUED ? OPERATION_STATE_CANCELLED : OPERATION_STATE_CANCELLING;
    EXPECT_EQ(cancelled->state(), expected);
    EXPECT_EQ(State(id), expected);
    EXPECT_EQ(link_->TakeWords(), Words{"cancel " + id});
    // Its end, as the device answers a cancel.
    ASSERT_TRUE(FleetTest::Result(*link_, id, OPERATION_STATE_CANCELLED, kDevice).ok());
    EXPECT_EQ(State(id), OPERATION_STATE_CANCELLED);
    EXPECT_EQ(link_->TakeWords(), Words{"recorded " + id});
  }
  for (const auto state : kEnds) {
    const std::string id = In(state);
    EXPECT_EQ(ReasonOf(fleet_->Cancel(OperationId(id)).status()), "OPERATION_ENDED");
    EXPECT_EQ(State(id), state);
    EXPECT_EQ(link_->TakeWords(), Words{});
  }
}

TEST_P(StatesTest, CancelOfADeviceThatIsOfflineEnds) {
  for (const auto state : kActive) {
    // Cancelled before it went, or after.
    for (const bool before : {false, true}) {
      if (state == OPERATION_STATE_CANCELLING && !before) continue;
      const std::string id = In(state);
      if (before && state != OPERATION_STATE_CANCELLING) {
        ASSERT_TRUE(fleet_->Cancel(OperationId(id)).ok());
      }
      fleet_->Tick();
      if (before && state != OPERATION_STATE_QUEUED) {
        EXPECT_EQ(State(id), OPERATION_STATE_CANCELLING) << "the device is asked";
      }
      fleet_->Disconnected(kDevice, *link_);
      if (!before) {
        ASSERT_TRUE(fleet_->Cancel(OperationId(id)).ok());
      }
      fleet_->Tick();
      EXPECT_EQ(State(id), OPERATION_STATE_CANCELLED);
      EXPECT_EQ(Stored(id).error().info().reason(), state == OPERATION_STATE_QUEUED ? "" : "CANCELLED_UNHEARD");
      EXPECT_EQ(ReasonOf(fleet_->Cancel(OperationId(id)).status()), "OPERATION_ENDED");
      // It is told when it is back.
      link_ = Connect(kDevice, {id});
      EXPECT_EQ(link_->TakeWords(), (Words{"welcome", "cancel " + id}));
      ASSERT_TRUE(FleetTest::Result(*link_, id, OPERATION_STATE_CANCELLED, kDevice).ok());
      EXPECT_EQ(State(id), OPERATION_STATE_CANCELLED);
      EXPECT_FALSE(Stored(id).has_error());
    }
  }
}

// What was cancelled in absence may have been done by then: the device's word counts, once.
TEST_P(StatesTest, ResultReplacesACancelThatWasNotHeard) {
  for (const auto state : {OPERATION_STATE_SENT, OPERATION_STATE_RUNNING, OPERATION_STATE_CANCELLING}) {
    const std::string id = In(state);
    fleet_->Disconnected(kDevice, *link_);
    if (state != OPERATION_STATE_CANCELLING) {
      ASSERT_TRUE(fleet_->Cancel(OperationId(id)).ok());
    }
    fleet_->Tick();
    ASSERT_EQ(State(id), OPERATION_STATE_CANCELLED);
    link_ = Connect(kDevice);
    EXPECT_EQ(link_->TakeWords(), Words{"welcome"});
    ASSERT_TRUE(FleetTest::Result(*link_, id, OPERATION_STATE_SUCCEEDED, kDevice).ok());
    EXPECT_EQ(State(id), OPERATION_STATE_SUCCEEDED);
    EXPECT_EQ(Stored(id).snapshot_id(), kSnapshot.value());
    EXPECT_FALSE(Stored(id).has_error());
    ASSERT_TRUE(FleetTest::Result(*link_, id, OPERATION_STATE_FAILED, kDevice).ok());
    EXPECT_EQ(State(id), OPERATION_STATE_SUCCEEDED);
  }
}

// The controller refuses what is uploaded for it, which a device may hear before the cancel.
TEST_P(StatesTest, AnUploadThatACancelRefusedIsCancelled) {
  for (const auto state : {OPERATION_STATE_RUNNING, OPERATION_STATE_CANCELLING}) {
    const std::string id = In(state);
    v1::ControlRequest message;
    message.mutable_result()->set_operation_id(id);
    message.mutable_result()->set_state(OPERATION_STATE_FAILED);
    *message.mutable_result()->mutable_error() = ToErrorDetail(Error(absl::StatusCode::kFailedPrecondition, "OPERATION_CANCELLED", "no"));
    ASSERT_TRUE(fleet_->Received(kDevice, *link_, message).ok());
    EXPECT_EQ(State(id), state == OPERATION_STATE_RUNNING ? OPERATION_STATE_FAILED : OPERATION_STATE_CANCELLED);
  }
}

// It may be in the step that changes the database: nothing is claimed of it for a day.
TEST_P(StatesTest, CancelOfARestoreWaitsForTheDevicesWord) {
  link_ = Connect(kDevice);
  const std::string told = Restore(kDevice), lost = Restore(kDevice);
  for (const std::string& id : {told, lost}) ASSERT_TRUE(FleetTest::Progress(*link_, id, 1, 2, kDevice).ok());
  fleet_->Disconnected(kDevice, *link_);
  for (const std::string& id : {told, lost}) ASSERT_TRUE(fleet_->Cancel(OperationId(id)).ok());
  if (GetParam()) Start();
  clock_.Advance(std::chrono::hours(23));  // the order itself expired long ago
  fleet_->Tick();
  for (const std::string& id : {told, lost}) {
    EXPECT_EQ(State(id), OPERATION_STATE_CANCELLING);
    EXPECT_FALSE(*fleet_->MayFetch(kDevice, OperationId(id), kSnapshot));
  }
  link_ = Connect(kDevice);
  EXPECT_EQ(link_->TakeWords(), (Words{"welcome", "cancel " + told, "cancel " + lost}));
  ASSERT_TRUE(FleetTest::Result(*link_, told, OPERATION_STATE_SUCCEEDED, kDevice).ok());
  EXPECT_EQ(State(told), OPERATION_STATE_SUCCEEDED);
  fleet_->Disconnected(kDevice, *link_);
  clock_.Advance(std::chrono::hours(1));
  fleet_->Tick();
  EXPECT_EQ(State(lost), OPERATION_STATE_CANCELLED);
  EXPECT_EQ(Stored(lost).error().info().reason(), "CANCELLED_UNHEARD");
  link_ = Connect(kDevice);
  ASSERT_TRUE(FleetTest::Result(*link_, lost, OPERATION_STATE_SUCCEEDED, kDevice).ok());
  EXPECT_EQ(State(lost), OPERATION_STATE_SUCCEEDED);
}

// Who looks at it, or watches it, is told until when that may last; then it has an end that says what is not known.
TEST_P(StatesTest, ACancelledRestoreSaysUntilWhenItWaitsForItsDevice) {
  v1::RestoreOrder order;
  order.set_database("db");
  order.set_snapshot_id(kSnapshot.value());
  for (const auto& [expire, waits] :
       {std::pair(std::chrono::hours(1), std::chrono::hours(24)), {std::chrono::hours(72), std::chrono::hours(72)}}) {
    link_ = Connect(kDevice);
    const auto made = fleet_->StartRestore(kDevice, order, expire, "", "operator:ada");
    ASSERT_TRUE(made.ok()) << made.status();
    const std::string id = made->id();
    EXPECT_FALSE(made->has_cancel_ends_at());
    ASSERT_TRUE(Accept(*link_, id, kDevice).ok());
    fleet_->Disconnected(kDevice, *link_);
    const SystemTime ends = clock_.Now() + waits;
    clock_.Advance(std::chrono::minutes(5));
    const auto cancelled = fleet_->Cancel(OperationId(id));
    ASSERT_TRUE(cancelled.ok()) << cancelled.status();
    EXPECT_EQ(cancelled->state(), OPERATION_STATE_CANCELLING);
    EXPECT_EQ(ToUnixMillis(FromProtoTime(cancelled->cancel_ends_at())), ToUnixMillis(ends));
    if (GetParam()) Start();
    std::vector<v1::Operation> seen;
    ASSERT_TRUE(fleet_->Watch(OperationId(id), [&](const v1::Operation& now) { seen.push_back(now); }).ok());
    clock_.Advance(waits - std::chrono::minutes(5) - std::chrono::seconds(1));
    fleet_->Tick();
    v1::Operation shown = Stored(id);
    fleet_->FillLive(shown);
    EXPECT_EQ(shown.state(), OPERATION_STATE_CANCELLING);
    EXPECT_EQ(ToUnixMillis(FromProtoTime(shown.cancel_ends_at())), ToUnixMillis(ends));
    ASSERT_EQ(seen.size(), 1U);
    EXPECT_EQ(ToUnixMillis(FromProtoTime(seen[0].cancel_ends_at())), ToUnixMillis(ends));
    clock_.Advance(std::chrono::seconds(1));
    fleet_->Tick();
    shown = Stored(id);
    fleet_->FillLive(shown);
    EXPECT_EQ(shown.state(), OPERATION_STATE_CANCELLED);
    EXPECT_FALSE(shown.has_cancel_ends_at());
    EXPECT_EQ(shown.error().info().reason(), "CANCELLED_UNHEARD");
    EXPECT_NE(shown.error().message().find("not known"), std::string::npos) << shown.error().message();
    ASSERT_EQ(seen.size(), 2U) << "whoever watches sees the end";
    EXPECT_EQ(seen[1].state(), OPERATION_STATE_CANCELLED);
  }
}

TEST_P(StatesTest, HelloSendsAgain) {
  for (const auto state : kActive) {
    const std::string id = In(state);
    const auto newer = Connect(kDevice, {id});
    EXPECT_EQ(newer->TakeWords(), (Words{"welcome", (state == OPERATION_STATE_CANCELLING ? "cancel " : "order ") + id}));
    EXPECT_EQ(link_->ClosedReason(), "REPLACED_BY_NEWER_STREAM");
    ASSERT_TRUE(FleetTest::Result(*newer, id, OPERATION_STATE_FAILED, kDevice).ok());
  }
  for (const auto state : kEnds) {
    const std::string id = In(state);
    EXPECT_EQ(Connect(kDevice)->TakeWords(), Words{"welcome"});
    EXPECT_EQ(Connect(kDevice, {id})->TakeWords(), (Words{"welcome", "cancel " + id})) << "the device still works on what has ended";
  }
}

TEST_P(StatesTest, ExpiryEndsOnlyQueuedOnes) {
  for (const auto state : kActive) {
    const std::string id = In(state);
    clock_.Advance(std::chrono::minutes(1));
    ASSERT_TRUE(Accept(*link_, "01JZZZZZZZZZZZZZZZZZZZZZZZ", kDevice).ok());  // a sign of life
    link_->Take();
    clock_.Advance(std::chrono::hours(1));
    link_ = Connect(kDevice, {id});
    link_->Take();
    fleet_->Tick();
    EXPECT_EQ(State(id), state == OPERATION_STATE_QUEUED ? OPERATION_STATE_EXPIRED : state);
    EXPECT_EQ(link_->TakeWords(), state == OPERATION_STATE_QUEUED ? Words{"cancel " + id} : Words{});
    FleetTest::Result(*link_, id, OPERATION_STATE_FAILED, kDevice).IgnoreError();
  }
}

TEST_P(StatesTest, RevocationEndsEverything) {
  for (const auto state : kActive) {
    const std::string id = In(state);
    fleet_->Disconnect(kDevice, Error(absl::StatusCode::kPermissionDenied, "DEVICE_REVOKED", "revoked"));
    EXPECT_EQ(State(id), state == OPERATION_STATE_CANCELLING ? OPERATION_STATE_CANCELLED : OPERATION_STATE_FAILED);
    EXPECT_EQ(link_->ClosedReason(), "DEVICE_REVOKED");
    EXPECT_FALSE(fleet_->IsConnected(kDevice));
  }
}

TEST_P(StatesTest, OtherDisconnectionsEndNothing) {
  for (const auto state : kActive) {
    const std::string id = In(state);
    fleet_->Disconnected(kDevice, *link_);
    EXPECT_EQ(State(id), state);
    EXPECT_FALSE(fleet_->IsConnected(kDevice));
    const auto newer = Connect(kDevice);
    ASSERT_TRUE(FleetTest::Result(*newer, id, OPERATION_STATE_CANCELLED, kDevice).ok());
  }
}

}  // namespace
}  // namespace litefleet::fleet
