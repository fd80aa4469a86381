#include "controller/fleet/device_fleet.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/unit/controller/fleet/fleet_fixture.h"

namespace litefleet::fleet {
namespace {

using enum v1::OperationState;

class DeviceFleetTest : public FleetTest {};

// ---- hello

TEST_F(DeviceFleetTest, WelcomesADevice) {
  const auto link = Connect(kDevice);
  const auto sent = link->Take();
  ASSERT_EQ(sent.size(), 1u);
  const v1::Welcome& welcome = sent[0].welcome();
  EXPECT_EQ(welcome.clock_offset_ms(), 5000);
  EXPECT_EQ(welcome.health_interval().seconds(), 30);
  EXPECT_EQ(welcome.protocol_version(), 1u);
  EXPECT_EQ(welcome.device_id(), kDevice.value());
  EXPECT_EQ(welcome.device_name(), "name-of-1111");
  EXPECT_EQ(reports_.hellos, 1);
  EXPECT_EQ(reports_.offset_ms, 5000);
  EXPECT_TRUE(fleet_->IsConnected(kDevice));
  EXPECT_EQ(fleet_->ConnectedCount(), 1);
}

TEST_F(DeviceFleetTest, RefusesWhatItDoesNotSpeak) {
  for (const uint32_t version : {0u, 2u, 4'000'000'000u}) {
    v1::Hello hello;
    hello.set_protocol_version(version);
    const absl::Status status = fleet_->Connected(kDevice, std::make_shared<FakeLink>(), hello);
    EXPECT_EQ(ReasonOf(status), "PROTOCOL_VERSION");
    EXPECT_FALSE(fleet_->IsConnected(kDevice));
  }
}

TEST_F(DeviceFleetTest, ADeviceThatIsRevokedMeanwhileDoesNotGetIn) {
  reports_.revoke_on_look = 2;  // found active at the door, revoked when it stood in the room
  v1::Hello hello;
  hello.set_protocol_version(1);
  auto link = std::make_shared<FakeLink>();
  EXPECT_EQ(ReasonOf(fleet_->Connected(kDevice, link, hello)), "DEVICE_REVOKED");
  EXPECT_FALSE(fleet_->IsConnected(kDevice));
  EXPECT_EQ(link->TakeWords(), Words{});
}

TEST_F(DeviceFleetTest, TheNewerStreamCounts) {
  const auto older = Connect(kDevice);
  const auto newer = Connect(kDevice);
  EXPECT_EQ(older->ClosedReason(), "REPLACED_BY_NEWER_STREAM");
  EXPECT_EQ(ReasonOf(Accept(*older, NewUlid(clock_.Now()), kDevice)), "REPLACED_BY_NEWER_STREAM");
  fleet_->Disconnected(kDevice, *older);
  EXPECT_TRUE(fleet_->IsConnected(kDevice)) << "the older stream's end is not the newer one's";
  older->Take();
  newer->Take();
  const std::string id = Backup(kDevice);
  EXPECT_EQ(older->TakeWords(), Words{});
  EXPECT_EQ(newer->TakeWords(), Words{"order " + id});
  fleet_->Disconnected(kDevice, *newer);
  EXPECT_FALSE(fleet_->IsConnected(kDevice));
}

// ---- orders

TEST_F(DeviceFleetTest, AnOfflineDeviceGetsItsOrdersInTheirOrder) {
  const std::string first = Backup(kDevice);
  const std::string second = Backup(kDevice);
  const std::string other = Backup(kOther);
  EXPECT_EQ(Connect(kDevice)->TakeWords(), (Words{"welcome", "order " + first, "order " + second}));
  EXPECT_EQ(Connect(kOther)->TakeWords(), (Words{"welcome", "order " + other}));
}

TEST_F(DeviceFleetTest, TheSameRequestIsTheSameOrder) {
  const auto link = Connect(kDevice);
  link->Take();
  const std::string first = Backup(kDevice, "r1");
  EXPECT_EQ(Backup(kDevice, "r1"), first);
  EXPECT_EQ(operations_->ActiveOf(kDevice)->size(), 1u);
  ASSERT_TRUE(Result(*link, first, OPERATION_STATE_SUCCEEDED, kDevice).ok());
  link->Take();
  EXPECT_EQ(Backup(kDevice, "r1"), first);
  EXPECT_EQ(link->TakeWords(), Words{}) << "what has ended is not ordered again";
  Start();
  EXPECT_EQ(Backup(kDevice, "r1"), first);
}

TEST_F(DeviceFleetTest, WhatTheCatalogEndedIsNotKeptAlive) {
  const std::string id = Backup(kDevice);
  clock_.Advance(std::chrono::hours(2));
  ASSERT_TRUE(operations_->Expire(clock_.Now()).ok());
  fleet_->Tick();
  EXPECT_EQ(State(id), OPERATION_STATE_EXPIRED);
  EXPECT_EQ(Connect(kDevice)->TakeWords(), Words{"welcome"});
}

TEST_F(DeviceFleetTest, OrdersOfADeviceAreBounded) {
  std::vector<Fleet::BackupOrder> orders(DeviceFleet::kMaxOrdersPerDevice, {.device = kDevice, .database = "db"});
  ASSERT_TRUE(fleet_->StartBackups(orders, std::chrono::hours(1), "", "operator:ada").ok());
  const auto one_more = fleet_->StartBackups({{.device = kOther, .database = "db"}, {.device = kDevice, .database = "db"}},
                                             std::chrono::hours(1), "", "operator:ada");
  EXPECT_EQ(ReasonOf(one_more.status()), "TOO_MANY_OPERATIONS");
  EXPECT_TRUE(operations_->ActiveOf(kOther)->empty()) << "all or none";
}

TEST_F(DeviceFleetTest, ADeviceMayFetchWhatItsRestoreOrderNames) {
  const std::string id = Restore(kDevice);
  const OperationId operation(id);
  EXPECT_TRUE(*fleet_->MayFetch(kDevice, operation, kSnapshot));
  EXPECT_FALSE(*fleet_->MayFetch(kOther, operation, kSnapshot));
  EXPECT_FALSE(*fleet_->MayFetch(kDevice, operation, SnapshotId("01JSNAPSH0TSNAPSH0TSNAPSH1")));
  EXPECT_FALSE(*fleet_->MayFetch(kDevice, OperationId(Backup(kDevice)), kSnapshot));
  EXPECT_FALSE(*fleet_->MayFetch(kDevice, OperationId("nonsense"), kSnapshot));
  Start();
  EXPECT_TRUE(*fleet_->MayFetch(kDevice, operation, kSnapshot));
  ASSERT_TRUE(fleet_->Cancel(operation).ok());
  EXPECT_FALSE(*fleet_->MayFetch(kDevice, operation, kSnapshot));
}

// ---- progress and results

TEST_F(DeviceFleetTest, ProgressGrowsStaysWithinTheTotalAndEndsAtIt) {
  const auto link = Connect(kDevice);
  const std::string id = Backup(kDevice);
  const auto live = [&] {
    v1::Operation operation = Stored(id);
    fleet_->FillLive(operation);
    return operation.progress().done_bytes();
  };
  ASSERT_TRUE(Progress(*link, id, 10, 100, kDevice).ok());
  ASSERT_TRUE(Progress(*link, id, 60, 100, kDevice).ok());
  EXPECT_EQ(live(), 60);
  ASSERT_TRUE(Progress(*link, id, 20, 100, kDevice).ok());
  EXPECT_EQ(live(), 60);
  ASSERT_TRUE(Progress(*link, id, -5, -7, kDevice).ok());
  EXPECT_EQ(live(), 60);
  ASSERT_TRUE(Progress(*link, id, 1000, 100, kDevice).ok());
  EXPECT_EQ(live(), 100);
  EXPECT_EQ(Stored(id).progress().done_bytes(), 10) << "not a commit a report";
  clock_.Advance(std::chrono::seconds(31));
  fleet_->Tick();
  EXPECT_EQ(Stored(id).progress().done_bytes(), 100);
  ASSERT_TRUE(Result(*link, id, OPERATION_STATE_SUCCEEDED, kDevice).ok());
  EXPECT_EQ(Stored(id).progress().done_bytes(), 100);
  EXPECT_EQ(Stored(id).progress().total_bytes(), 100);
}

TEST_F(DeviceFleetTest, AResultIsStoredWithItsReasons) {
  const auto link = Connect(kDevice);
  const std::string id = Backup(kDevice);
  v1::ControlRequest message;
  v1::OperationResult& result = *message.mutable_result();
  result.set_operation_id(id);
  result.set_state(OPERATION_STATE_FAILED);
  result.mutable_error()->set_code(99);
  result.mutable_error()->set_message(std::string(100'000, 'x'));
  result.mutable_error()->mutable_info()->set_reason("WRITER_STALL");
  for (int i = 0; i < 1000; ++i) result.add_steps(std::string(5000, 's'));
  result.set_undo(std::string(10'000, 'u'));
  result.set_snapshot_id("../../etc/passwd");
  *result.mutable_ended_at() = ToProtoTime(clock_.Now() + std::chrono::hours(1000));
  result.mutable_started_at()->set_seconds(INT64_MIN);
  ASSERT_TRUE(fleet_->Received(kDevice, *link, message).ok());
  const v1::Operation stored = Stored(id);
  EXPECT_EQ(stored.error().info().reason(), "WRITER_STALL");
  EXPECT_EQ(stored.error().message().size(), kMaxText);
  EXPECT_EQ(stored.steps_size(), kMaxSteps);
  EXPECT_EQ(stored.snapshot_id(), "");
  EXPECT_EQ(FromProtoTime(stored.ended_at()), clock_.Now()) << "not in the future";
  EXPECT_GE(FromProtoTime(stored.started_at()), FromProtoTime(stored.created_at()));
}

TEST_F(DeviceFleetTest, WhatADeviceBeganItselfIsKnownFromItsFirstReport) {
  const auto link = Connect(kDevice);
  link->Take();
  const std::string id = NewUlid(clock_.Now());
  ASSERT_TRUE(Progress(*link, id, 1, 10, kDevice, v1::OPERATION_KIND_BACKUP).ok());
  EXPECT_EQ(State(id), OPERATION_STATE_RUNNING);
  EXPECT_EQ(Stored(id).ordered_by(), "schedule");
  ASSERT_TRUE(Progress(*link, id, 2, 10, kDevice).ok());
  ASSERT_TRUE(Result(*link, id, OPERATION_STATE_SUCCEEDED, kDevice).ok());
  EXPECT_EQ(State(id), OPERATION_STATE_SUCCEEDED);
  EXPECT_EQ(link->TakeWords(), Words{"recorded " + id});

  // One that ran while the device was offline comes as a result alone.
  const std::string offline = NewUlid(clock_.Now());
  ASSERT_TRUE(Result(*link, offline, OPERATION_STATE_FAILED, kDevice, v1::OPERATION_KIND_BACKUP).ok());
  EXPECT_EQ(State(offline), OPERATION_STATE_FAILED);
  EXPECT_EQ(link->TakeWords(), Words{"recorded " + offline});
  EXPECT_TRUE(operations_->ActiveOf(kDevice)->empty());
}

TEST_F(DeviceFleetTest, AnOwnOperationThatTheDeviceForgotIsLost) {
  auto link = Connect(kDevice);
  const std::string lost = NewUlid(clock_.Now());
  const std::string known = NewUlid(clock_.Now());
  const std::string late = NewUlid(clock_.Now());
  for (const std::string& id : {lost, known, late}) ASSERT_TRUE(Progress(*link, id, 1, 10, kDevice, v1::OPERATION_KIND_BACKUP).ok());
  link = Connect(kDevice, {known});
  clock_.Advance(std::chrono::seconds(59));
  fleet_->Tick();
  ASSERT_TRUE(Result(*link, late, OPERATION_STATE_SUCCEEDED, kDevice).ok());
  clock_.Advance(std::chrono::seconds(2));
  fleet_->Tick();
  EXPECT_EQ(State(lost), OPERATION_STATE_FAILED);
  EXPECT_EQ(Stored(lost).error().info().reason(), "OPERATION_LOST");
  EXPECT_EQ(State(known), OPERATION_STATE_RUNNING);
  EXPECT_EQ(State(late), OPERATION_STATE_SUCCEEDED);
  // The truth replaces the guess.
  ASSERT_TRUE(Result(*link, lost, OPERATION_STATE_SUCCEEDED, kDevice).ok());
  EXPECT_EQ(State(lost), OPERATION_STATE_SUCCEEDED);
  EXPECT_FALSE(Stored(lost).has_error());
}

// ---- what a hostile device says

TEST_F(DeviceFleetTest, ADeviceCannotTouchOperationsOfOthers) {
  const auto link = Connect(kDevice);
  Connect(kOther);
  const std::string foreign = Backup(kOther);
  const auto check = fleet_->StartLocal(v1::OPERATION_KIND_CHECK, kDevice, "db", kSnapshot, "", "operator:ada", [] {});
  ASSERT_TRUE(check.ok());
  for (const std::string& id : {foreign, check->id()}) {
    EXPECT_EQ(ReasonOf(Progress(*link, id, 1, 2, kDevice)), "NOT_YOUR_OPERATION");
    EXPECT_EQ(ReasonOf(Result(*link, id, OPERATION_STATE_SUCCEEDED, kDevice)), "NOT_YOUR_OPERATION");
    EXPECT_EQ(State(id), OPERATION_STATE_QUEUED);
  }
  EXPECT_EQ(ReasonOf(Accept(*link, foreign, kDevice)), "NOT_YOUR_OPERATION");
  link->Take();
  EXPECT_EQ(Connect(kDevice, {foreign})->TakeWords(), Words{"welcome"});
}

TEST_F(DeviceFleetTest, GarbageEndsTheStreamAndChangesNothing) {
  const auto link = Connect(kDevice);
  for (const std::string& id :
       {std::string(), std::string("x"), std::string(26, '\0'), std::string(100'000, 'A'), std::string("' or 1=1; --")}) {
    EXPECT_EQ(ReasonOf(Accept(*link, id, kDevice)), "BAD_MESSAGE");
    EXPECT_EQ(ReasonOf(Progress(*link, id, 1, 2, kDevice, v1::OPERATION_KIND_BACKUP)), "BAD_MESSAGE");
    EXPECT_EQ(ReasonOf(Result(*link, id, OPERATION_STATE_FAILED, kDevice, v1::OPERATION_KIND_BACKUP)), "BAD_MESSAGE");
  }
  const std::string id = Backup(kDevice);
  for (const int state : {0, 1, 2, 3, 4, 9, 77}) {
    EXPECT_EQ(ReasonOf(Result(*link, id, static_cast<v1::OperationState>(state), kDevice)), "BAD_MESSAGE");
  }
  v1::ControlRequest hello;
  hello.mutable_hello()->set_protocol_version(1);
  EXPECT_EQ(ReasonOf(fleet_->Received(kDevice, *link, hello)), "BAD_MESSAGE");
  EXPECT_TRUE(fleet_->Received(kDevice, *link, v1::ControlRequest()).ok()) << "a message of a newer agent";
  EXPECT_EQ(State(id), OPERATION_STATE_QUEUED);
  EXPECT_EQ(operations_->List(DeviceId(), false, 100, "")->items.size(), 1u);
}

TEST_F(DeviceFleetTest, ReportsAboutUnknownOperationsAreAnswered) {
  const auto link = Connect(kDevice);
  link->Take();
  for (const v1::OperationKind kind :
       {v1::OPERATION_KIND_UNSPECIFIED, v1::OPERATION_KIND_HEAL, v1::OPERATION_KIND_DROP_UNDO, v1::OPERATION_KIND_PRUNE}) {
    const std::string id = NewUlid(clock_.Now());
    ASSERT_TRUE(Accept(*link, id, kDevice).ok());
    ASSERT_TRUE(Progress(*link, id, 1, 2, kDevice, kind).ok());
    ASSERT_TRUE(Result(*link, id, OPERATION_STATE_SUCCEEDED, kDevice, kind).ok());
    EXPECT_EQ(link->TakeWords(), (Words{"cancel " + id, "cancel " + id, "recorded " + id})) << kind;
    EXPECT_FALSE(operations_->Get(OperationId(id)).ok());
  }
}

TEST_F(DeviceFleetTest, WhatADeviceMayBeginIsBounded) {
  const auto link = Connect(kDevice);
  for (size_t i = 0; i < DeviceFleet::kMaxOwnPerDevice; ++i) {
    ASSERT_TRUE(Progress(*link, NewUlid(clock_.Now()), 1, 2, kDevice, v1::OPERATION_KIND_BACKUP).ok());
  }
  EXPECT_EQ(ReasonOf(Progress(*link, NewUlid(clock_.Now()), 1, 2, kDevice, v1::OPERATION_KIND_BACKUP)), "TOO_MANY_OPERATIONS");
}

TEST_F(DeviceFleetTest, DatabasesAreBoundedAndNamed) {
  v1::ControlRequest message;
  for (int i = 0; i <= DeviceFleet::kMaxDatabases; ++i) message.mutable_health()->add_databases()->set_name("db" + std::to_string(i));
  const auto link = Connect(kDevice);
  EXPECT_EQ(ReasonOf(fleet_->Received(kDevice, *link, message)), "TOO_MANY_DATABASES");
  v1::Hello hello;
  hello.set_protocol_version(1);
  *hello.mutable_databases() = message.health().databases();
  EXPECT_EQ(ReasonOf(fleet_->Connected(kOther, std::make_shared<FakeLink>(), hello)), "TOO_MANY_DATABASES");

  hello.clear_databases();
  for (const char* name : {"good", "good", "../evil", "", "also.good"}) {
    v1::DatabaseHealth& database = *hello.add_databases();
    database.set_name(name);
    database.set_path(std::string(100'000, 'p'));
    database.set_waits_for(std::string(100'000, 'w'));
    database.set_size_bytes(-1);
  }
  ASSERT_TRUE(fleet_->Connected(kOther, std::make_shared<FakeLink>(), hello).ok());
  ASSERT_EQ(reports_.databases.size(), 2u);
  EXPECT_EQ(reports_.databases[0].name(), "good");
  EXPECT_EQ(reports_.databases[1].name(), "also.good");
  EXPECT_EQ(reports_.databases[0].path().size(), kMaxText);
  EXPECT_LT(reports_.databases[0].waits_for().size(), 1000u);
  EXPECT_EQ(reports_.databases[0].size_bytes(), 0);
}

TEST_F(DeviceFleetTest, HealthIsNotACommitEach) {
  const auto link = Connect(kDevice);
  v1::ControlRequest health;
  health.mutable_health()->set_free_bytes(1);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(fleet_->Received(kDevice, *link, health).ok());
  EXPECT_EQ(reports_.healths, 0);
  clock_.Advance(std::chrono::seconds(30));
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(fleet_->Received(kDevice, *link, health).ok());
  EXPECT_EQ(reports_.healths, 1);
}

// A reload tells of them once, and it may be the second health within a moment.
TEST_F(DeviceFleetTest, OtherDatabasesAreKeptWheneverTheyAreNamed) {
  const auto link = Connect(kDevice);
  v1::ControlRequest health;
  const auto names = [&] {
    EXPECT_TRUE(fleet_->Received(kDevice, *link, health).ok());
    std::vector<std::string> all;
    for (const v1::DatabaseHealth& database : reports_.databases) all.push_back(database.name() + " " + database.schedule());
    return all;
  };
  health.mutable_health()->add_databases()->set_name("first");
  EXPECT_EQ(names(), Words{"first "});
  health.mutable_health()->add_databases()->set_name("second");
  EXPECT_EQ(names(), (Words{"first ", "second "}));
  health.mutable_health()->mutable_databases(0)->set_schedule("1h");
  EXPECT_EQ(names(), (Words{"first 1h", "second "}));
  const int healths = reports_.healths;
  for (int i = 0; i < 100; ++i) {
    health.mutable_health()->mutable_databases(0)->set_size_bytes(i);
    names();
  }
  EXPECT_EQ(reports_.healths, healths) << "what grows is no news";
  health.mutable_health()->mutable_databases()->RemoveLast();
  EXPECT_EQ(names(), Words{"first 1h"}) << "one was taken away";
}

TEST_F(DeviceFleetTest, ASilentDeviceIsDisconnected) {
  const auto link = Connect(kDevice);
  clock_.Advance(std::chrono::seconds(80));
  fleet_->Tick();
  EXPECT_TRUE(fleet_->IsConnected(kDevice));
  ASSERT_TRUE(fleet_->Received(kDevice, *link, v1::ControlRequest()).ok());
  clock_.Advance(std::chrono::seconds(80));
  fleet_->Tick();
  EXPECT_TRUE(fleet_->IsConnected(kDevice));
  clock_.Advance(std::chrono::seconds(11));
  fleet_->Tick();
  EXPECT_FALSE(fleet_->IsConnected(kDevice));
  EXPECT_EQ(link->ClosedReason(), "HEARTBEAT_MISSING");
}

// ---- questions

class QueryTest : public DeviceFleetTest {
 protected:
  void Ask() {
    fleet_->QueryPlan(kDevice, v1::Query(), std::chrono::seconds(5), [this](absl::StatusOr<v1::RestorePlan> plan) {
      ++answers_;
      answer_ = std::move(plan);
    });
  }
  absl::Status Answer(FakeLink& link, uint64_t query, bool with_plan) {
    v1::ControlRequest message;
    message.mutable_query_result()->set_query_id(query);
    if (with_plan) message.mutable_query_result()->mutable_restore_plan()->set_size_bytes(42);
    return fleet_->Received(kDevice, link, message);
  }
  int answers_ = 0;
  absl::StatusOr<v1::RestorePlan> answer_;
};

TEST_F(QueryTest, IsAnsweredOnce) {
  const auto link = Connect(kDevice);
  link->Take();
  Ask();
  const auto sent = link->Take();
  ASSERT_EQ(sent.size(), 1u);
  ASSERT_TRUE(Answer(*link, sent[0].query().query_id() + 7, true).ok());
  EXPECT_EQ(answers_, 0);
  ASSERT_TRUE(Answer(*link, sent[0].query().query_id(), true).ok());
  ASSERT_TRUE(Answer(*link, sent[0].query().query_id(), true).ok());
  EXPECT_EQ(answers_, 1);
  ASSERT_TRUE(answer_.ok());
  EXPECT_EQ(answer_->size_bytes(), 42);
  EXPECT_TRUE(answer_->from_device());
  clock_.Advance(std::chrono::seconds(6));
  fleet_->Tick();
  EXPECT_EQ(answers_, 1);
}

TEST_F(QueryTest, FailsWhereNobodyAnswers) {
  Ask();
  EXPECT_EQ(ReasonOf(answer_.status()), "DEVICE_OFFLINE");
  const auto link = Connect(kDevice);
  Ask();
  clock_.Advance(std::chrono::seconds(6));
  fleet_->Tick();
  EXPECT_EQ(ReasonOf(answer_.status()), "DEVICE_SLOW");
  Ask();
  fleet_->Disconnected(kDevice, *link);
  EXPECT_EQ(ReasonOf(answer_.status()), "DEVICE_OFFLINE");
  EXPECT_EQ(answers_, 3);
  const auto newer = Connect(kDevice);
  newer->Take();
  Ask();
  ASSERT_TRUE(Answer(*newer, newer->Take()[0].query().query_id(), false).ok());
  EXPECT_EQ(ReasonOf(answer_.status()), "BAD_MESSAGE");
  for (size_t i = 0; i <= DeviceFleet::kMaxQueries; ++i) Ask();
  EXPECT_EQ(ReasonOf(answer_.status()), "TOO_MANY_QUERIES");
  EXPECT_EQ(answers_, 5);
  fleet_.reset();
  EXPECT_EQ(answers_, 5 + static_cast<int>(DeviceFleet::kMaxQueries)) << "the end of the fleet is an answer too";
}

// ---- the controller's own operations

TEST_F(DeviceFleetTest, LocalOperationsAreCancelledByTheirOwner) {
  int cancels = 0;
  auto check = fleet_->StartLocal(v1::OPERATION_KIND_CHECK, kDevice, "db", kSnapshot, "r1", "operator:ada", [&] { ++cancels; });
  ASSERT_TRUE(check.ok());
  EXPECT_EQ(fleet_->StartLocal(v1::OPERATION_KIND_CHECK, kDevice, "db", kSnapshot, "r1", "operator:ada", [] {})->id(), check->id());
  check->set_state(OPERATION_STATE_RUNNING);
  check->mutable_progress()->set_total_bytes(10);
  ASSERT_TRUE(fleet_->UpdateLocal(*check).ok());
  EXPECT_EQ(State(check->id()), OPERATION_STATE_RUNNING);
  EXPECT_EQ(fleet_->Cancel(OperationId(check->id()))->state(), OPERATION_STATE_CANCELLING);
  EXPECT_EQ(fleet_->Cancel(OperationId(check->id()))->state(), OPERATION_STATE_CANCELLING);
  EXPECT_EQ(cancels, 1);
  ASSERT_TRUE(fleet_->UpdateLocal(*check).ok()) << "progress while it is being cancelled";
  EXPECT_EQ(State(check->id()), OPERATION_STATE_CANCELLING);
  check->set_state(OPERATION_STATE_CANCELLED);
  ASSERT_TRUE(fleet_->UpdateLocal(*check).ok());
  EXPECT_EQ(State(check->id()), OPERATION_STATE_CANCELLED);
  EXPECT_EQ(ReasonOf(fleet_->UpdateLocal(*check)), "OPERATION_ENDED");
}

TEST_F(DeviceFleetTest, LocalOperationsAreAdoptedAfterARestart) {
  const auto orphan = fleet_->StartLocal(v1::OPERATION_KIND_CHECK, kDevice, "db", kSnapshot, "", "operator:ada", [] {});
  const auto adopted = fleet_->StartLocal(v1::OPERATION_KIND_CHECK, kDevice, "db", kSnapshot, "", "operator:ada", [] {});
  const std::string backup = Backup(kDevice);
  for (auto operation : {*orphan, *adopted}) {
    operation.set_state(OPERATION_STATE_RUNNING);
    ASSERT_TRUE(fleet_->UpdateLocal(operation).ok());
  }
  Start();
  ASSERT_EQ(fleet_->ActiveLocal().size(), 2u);
  int cancels = 0;
  ASSERT_TRUE(fleet_->AdoptLocal(OperationId(adopted->id()), [&] { ++cancels; }).ok());
  EXPECT_EQ(ReasonOf(fleet_->AdoptLocal(OperationId(backup), [] {})), "OPERATION_NOT_FOUND");
  EXPECT_EQ(fleet_->Cancel(OperationId(orphan->id()))->state(), OPERATION_STATE_CANCELLED) << "nobody else would end it";
  EXPECT_EQ(fleet_->Cancel(OperationId(adopted->id()))->state(), OPERATION_STATE_CANCELLING);
  EXPECT_EQ(cancels, 1);
}

// ---- watchers

TEST_F(DeviceFleetTest, AWatcherSeesTheStateNowAndEveryChangeToTheEnd) {
  const auto link = Connect(kDevice);
  const std::string id = Backup(kDevice);
  std::vector<v1::OperationState> seen;
  const auto watch = fleet_->Watch(OperationId(id), [&](const v1::Operation& operation) {
    seen.push_back(operation.state());
    fleet_->IsConnected(kDevice);  // may call the fleet: no lock is held
    v1::Operation copy = operation;
    fleet_->FillLive(copy);
  });
  ASSERT_TRUE(watch.ok());
  ASSERT_TRUE(Accept(*link, id, kDevice).ok());
  ASSERT_TRUE(Progress(*link, id, 1, 2, kDevice).ok());
  ASSERT_TRUE(Progress(*link, id, 2, 2, kDevice).ok());
  ASSERT_TRUE(Result(*link, id, OPERATION_STATE_SUCCEEDED, kDevice).ok());
  EXPECT_EQ(seen, (std::vector{OPERATION_STATE_QUEUED, OPERATION_STATE_SENT, OPERATION_STATE_RUNNING, OPERATION_STATE_RUNNING,
                               OPERATION_STATE_SUCCEEDED}));
  fleet_->Unwatch(*watch);
  seen.clear();
  ASSERT_TRUE(fleet_->Watch(OperationId(id), [&](const v1::Operation& operation) { seen.push_back(operation.state()); }).ok());
  EXPECT_EQ(seen, std::vector{OPERATION_STATE_SUCCEEDED}) << "one that has ended is told once";
  EXPECT_EQ(ReasonOf(fleet_->Watch(OperationId("01JZZZZZZZZZZZZZZZZZZZZZZZ"), [](const v1::Operation&) {}).status()),
            "OPERATION_NOT_FOUND");
}

TEST_F(DeviceFleetTest, AWatcherMayUnwatchItself) {
  const auto link = Connect(kDevice);
  const std::string id = Backup(kDevice);
  int calls = 0;
  uint64_t watch = 0;
  const auto made = fleet_->Watch(OperationId(id), [&](const v1::Operation& operation) {
    ++calls;
    if (operation.state() == OPERATION_STATE_SENT) fleet_->Unwatch(watch);
  });
  watch = *made;
  ASSERT_TRUE(Accept(*link, id, kDevice).ok());
  ASSERT_TRUE(Progress(*link, id, 1, 2, kDevice).ok());
  EXPECT_EQ(calls, 2);
}

TEST_F(DeviceFleetTest, WatchersAreBounded) {
  const std::string id = Backup(kDevice);
  for (size_t i = 0; i < OperationTable::kMaxWatchesPerOperation; ++i)
    ASSERT_TRUE(fleet_->Watch(OperationId(id), [](const v1::Operation&) {}).ok());
  EXPECT_EQ(ReasonOf(fleet_->Watch(OperationId(id), [](const v1::Operation&) {}).status()), "TOO_MANY_WATCHERS");
}

TEST_F(DeviceFleetTest, WatchersLearnThatTheDeviceCameAndWent) {
  const std::string id = Backup(kDevice);
  std::vector<bool> connected;
  ASSERT_TRUE(
      fleet_->Watch(OperationId(id), [&](const v1::Operation& operation) { connected.push_back(operation.device_connected()); }).ok());
  const auto link = Connect(kDevice);
  fleet_->Disconnected(kDevice, *link);
  EXPECT_EQ(connected, (std::vector{false, true, false}));
}

// ---- all at once

TEST_F(DeviceFleetTest, ManyThreadsAtOnce) {
  const std::vector<DeviceId> devices = {kDevice, kOther};
  std::atomic<bool> stop{false};
  struct Watched {
    std::shared_ptr<std::atomic<bool>> ended = std::make_shared<std::atomic<bool>>(false);
    bool unwatched = false;
  };
  std::vector<Watched> watched;
  std::vector<std::thread> threads;
  // Two streams fight for each device, as at a reconnect; each works off what it is sent.
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, device = devices[static_cast<size_t>(t % 2)]] {
      int orders = 0;  // a third of them is left to the next stream
      while (!stop) {
        auto link = std::make_shared<FakeLink>();
        v1::Hello hello;
        hello.set_protocol_version(1);
        if (!fleet_->Connected(device, link, hello).ok()) continue;
        for (int i = 0; i < 20; ++i) {
          bool ok = true;
          for (const v1::ControlResponse& message : link->Take()) {
            if (message.has_cancel()) ok = Result(*link, message.cancel().operation_id(), OPERATION_STATE_CANCELLED, device).ok();
            if (!message.has_order()) continue;
            const std::string& id = message.order().operation_id();
            ok = Accept(*link, id, device).ok() && Progress(*link, id, 1, 2, device).ok() &&
                 (++orders % 3 == 0 || Result(*link, id, OPERATION_STATE_SUCCEEDED, device).ok());
          }
          if (!ok) break;
          std::this_thread::yield();
        }
        fleet_->Disconnected(device, *link);
      }
    });
  }
  threads.emplace_back([&] {
    while (!stop) {
      fleet_->Tick();
      fleet_->ConnectedCount();
    }
  });
  std::vector<std::string> ids;
  for (int i = 0; i < 60; ++i) {
    const DeviceId& device = devices[static_cast<size_t>(i % 2)];
    const std::string id = Backup(device);
    ids.push_back(id);
    Watched& state = watched.emplace_back();
    const auto watch = fleet_->Watch(OperationId(id), [ended = state.ended](const v1::Operation& operation) {
      EXPECT_FALSE(ended->load()) << "nothing comes after the end";
      if (!catalog::IsActive(operation.state())) *ended = true;
    });
    ASSERT_TRUE(watch.ok());
    if (i % 5 == 0) fleet_->Cancel(OperationId(id)).IgnoreError();
    state.unwatched = i % 7 == 0;
    if (state.unwatched) fleet_->Unwatch(*watch);
  }
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  const auto active = [&] { return operations_->ActiveOf(DeviceId())->size(); };
  while (active() > 0 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  stop = true;
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(active(), 0u);
  for (const DeviceId& device : devices) EXPECT_FALSE(fleet_->IsConnected(device));
  for (const Watched& state : watched) EXPECT_TRUE(state.unwatched || *state.ended);
  fleet_.reset();
}

}  // namespace
}  // namespace litefleet::fleet
